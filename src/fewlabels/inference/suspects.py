"""Labeled images whose label is likely wrong: confident learning on probabilities of a model that has not seen the
label (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels")."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.algorithms.frozen import folds_of, on_labels
from fewlabels.algorithms.linear import unit
from fewlabels.data.source import Labels

Floats = NDArray[np.float64]

LEAST = 20
"""Labels of each class, below which nothing is said: the thresholds are means over the labels of a class."""

FOLDS = 5


def check_counts(counts: Labels, classes: tuple[str, ...]) -> None:
    """Raises ValueError where a class has too few labels; counts: labels of each class ``[K]``."""
    fewest = int(np.argmin(counts))
    if counts[fewest] < LEAST:
        raise ValueError(
            f"suspects are looked for from {LEAST} labels of each class on, and {classes[fewest]!r} has "
            f"{counts[fewest]}: with fewer nobody can tell a wrong label from a rare picture"
        )


def out_of_fold(features: Tensor, y: Labels, classes: int, *, seed: int = 1) -> Floats:
    """Probabilities ``[N, K]`` of images by logistic regressions that were fitted without them, on the directions of
    their features ``[N, D]``: a cross-validation in which each class is dealt out evenly."""
    folds, x = folds_of(y, FOLDS, seed), unit(features)
    target, out = torch.from_numpy(y), np.empty((len(y), classes))
    for fold in range(FOLDS):
        held, told = (torch.from_numpy(np.flatnonzero(part)) for part in (folds == fold, folds != fold))
        layer = on_labels(x[told], target[told], classes)
        out[held.numpy()] = layer(x[held]).double().softmax(1).numpy()
    return out


def confident(probabilities: Floats, y: Labels) -> Labels:
    """The class that each image is confidently of, ``[N]``, or -1: section 3.1, the confident joint.

    A class is a candidate where its probability is at least the mean of what it is given by the images that are
    labeled so, of ``[N, K]`` and labels ``[N]``; of several the most probable one counts.
    """
    classes = probabilities.shape[1]
    own = np.array([probabilities[y == c, c].mean() if (y == c).any() else np.inf for c in range(classes)])
    candidates = np.where(probabilities >= own, probabilities, -1.0)
    best = candidates.argmax(1)
    return np.where(candidates.max(1) >= 0, best, -1).astype(np.int64)


def suspects(probabilities: Floats, y: Labels) -> tuple[Labels, Labels]:
    """Places of the images that are confidently of another class than they are labeled, and that class; the most
    likely mistakes first: by the probability of the label less the largest of another class.

    An image whose label is the most probable class is none. So does cleanlab, ``find_label_issues(filter_by=
    "confident_learning", return_indices_ranked_by="normalized_margin")``.
    """
    found = confident(probabilities, y)
    places = np.flatnonzero((found >= 0) & (found != y) & (probabilities.argmax(1) != y))
    margin = probabilities[places, y[places]] - probabilities[places].max(1)
    order = places[np.argsort(margin, kind="stable")]
    return order.astype(np.int64), found[order]
