"""Numbers about predictions. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def geometric_mean(recall: Sequence[float]) -> float:
    """Geometric mean of the per-class recalls (fractions), in percent; a recall of 0 counts as 1/(100 K).

    JoyHuYY1412/CADR-FixMatch, libml/train.py.
    """
    r = np.asarray(recall, dtype=np.float64)
    r = np.where(r == 0, 1 / (100 * len(r)), r)
    return float(100 * np.exp(np.log(r).mean()))


class Tally(NamedTuple):
    """Classes, loss and top-5 share of N predictions, on the device of the logits, for `scores`.

    Nothing here has waited for the device.
    """

    called: Tensor
    """The predicted classes, ``[N]`` int64."""
    loss: Tensor
    """Mean cross entropy, 0-d."""
    top5: Tensor
    """Share of images whose class is among the five likeliest (all, with fewer classes), 0-d float64."""


@torch.no_grad()
def tally(logits: Tensor, labels: Tensor) -> Tally:
    """logits: [N, K] float; labels: [N] int64 on the same device."""
    logits = logits.float()
    likely = logits.topk(min(5, logits.shape[1]), 1).indices
    top5 = (likely == labels[:, None]).any(1).double().mean()
    return Tally(logits.argmax(1), F.cross_entropy(logits, labels), top5)


def scores(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """`summary` of logits [N, K] and labels [N] int64, worked out on the CPU."""
    labels = labels.cpu()
    return summary(tally(logits.detach().float().cpu(), labels), labels, classes)


def summary(counts: Tally, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that evaluation reports of N predictions.

    labels: [N] int64. Waits for the device. Accuracy, precision, recall, F1 and the geometric mean are in
    percent; the mean cross entropy `loss` is in nats; `per_class` holds only classes that occur in `labels`,
    and the geometric mean is over those; `top5` is None with five classes or fewer; `confusion[i][j]` counts
    images of class i that were called j.
    """
    k = len(classes)
    guess, labels = counts.called.cpu(), labels.cpu()
    truth, called = labels.numpy(), guess.numpy()
    confusion = np.bincount(truth * k + called, minlength=k * k).reshape(k, k)
    support = confusion.sum(1)
    recall = np.diag(confusion)[support > 0] / support[support > 0]
    names = [c for c, n in zip(classes, support, strict=True) if n]
    out: dict[str, Any] = {
        "n": len(labels),
        "accuracy": 100 * (guess == labels).double().mean().item(),
        "loss": counts.loss.item(),
        "top5": 100 * counts.top5.item() if k > 5 else None,
        "geometric_mean": geometric_mean(recall.tolist()),
        "per_class": {c: 100 * float(r) for c, r in zip(names, recall, strict=True)},
    }
    out |= _averages(confusion)
    out["confusion"] = confusion.tolist()
    return out


def _averages(confusion: NDArray[np.int64]) -> dict[str, float]:
    """Precision, recall and F1 in percent: their means over the classes that occur (macro) and over the images
    (weighted). One that is 0 / 0 counts as 0.

    The same as scikit-learn's ``precision_recall_fscore_support(..., zero_division=0)``, whose import would take longer
    than many a command.
    """
    right, support, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    there = support + called > 0
    values = {
        "precision": right / np.maximum(called, 1),
        "recall": right / np.maximum(support, 1),
        "f1": 2 * right / np.maximum(support + called, 1),
    }
    macro = {f"macro_{name}": 100 * float(value[there].mean()) for name, value in values.items()}
    weighted = {f"weighted_{name}": 100 * float(value @ support / support.sum()) for name, value in values.items()}
    return macro | weighted
