"""Numbers about predictions and about a curve of evaluations. Accuracies are in percent."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor


def geometric_mean(recall: Sequence[float]) -> float:
    """Geometric mean of the per-class recalls (fractions), in percent; a recall of 0 counts as 1/(100 K).

    JoyHuYY1412/CADR-FixMatch, libml/train.py.
    """
    r = np.asarray(recall, dtype=np.float64)
    r = np.where(r == 0, 1 / (100 * len(r)), r)
    return float(100 * np.exp(np.log(r).mean()))


def scores(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Everything that evaluation reports of N predictions.

    logits: [N, K] float; labels: [N] int64. Accuracy, precision, recall, F1 and the geometric mean are in
    percent; the mean cross entropy `loss` is in nats; `per_class` holds only classes that occur in `labels`,
    and the geometric mean is over those; `top5` is None with five classes or fewer; `confusion[i][j]` counts
    images of class i that were called j.
    """
    k = len(classes)
    logits, labels = logits.detach().float().cpu(), labels.cpu()
    guess = logits.argmax(1)
    truth, called = labels.numpy(), guess.numpy()
    confusion = confusion_matrix(truth, called, labels=range(k))
    support = confusion.sum(1)
    recall = np.diag(confusion)[support > 0] / support[support > 0]
    names = [c for c, n in zip(classes, support, strict=True) if n]
    top5 = None
    if k > 5:
        top5 = 100 * (logits.topk(5, 1).indices == labels[:, None]).any(1).double().mean().item()
    out: dict[str, Any] = {
        "n": len(labels),
        "accuracy": 100 * (guess == labels).double().mean().item(),
        "loss": F.cross_entropy(logits, labels).item(),
        "top5": top5,
        "geometric_mean": geometric_mean(recall.tolist()),
        "per_class": {c: 100 * float(r) for c, r in zip(names, recall, strict=True)},
    }
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(truth, called, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values[:3], strict=True):
            out[f"{average}_{name}"] = 100 * float(value)
    out["confusion"] = confusion.tolist()
    return out


def main_part(parts: Collection[str]) -> str | None:
    """The part of an evaluation whose accuracy is reported: test, else valid, else train."""
    return next((part for part in ("test", "valid", "train") if part in parts), None)


def curve(accuracies: Sequence[float]) -> dict[str, float]:
    """Medians over the last 1, 10, 20 and 50 evaluations, means over the last 10 and 20, and the best one.

    The FixMatch paper reports `last20`; kekmodel's code logs `mean20`; `best` looks at the set it reports on.
    """
    if not accuracies:
        return {}
    out = {f"last{n}": statistics.median(accuracies[-n:]) for n in (1, 10, 20, 50)}
    out |= {f"mean{n}": statistics.fmean(accuracies[-n:]) for n in (10, 20)}
    return {**out, "best": max(accuracies)}


@torch.no_grad()
def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy in percent and mean cross entropy."""
    accuracy = 100 * (logits.argmax(1) == labels).double().mean().item()
    return accuracy, F.cross_entropy(logits.float(), labels).item()
