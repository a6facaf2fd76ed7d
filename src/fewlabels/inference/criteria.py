"""How good a model may be, by what it says of images without labels: the criteria of Zhang et al. 2025 (V-PET).

Written after what OSU-MLB/SSL-Foundation-Models computes (semilearn/core/utils/metrics.py). All are higher for a
better model. Two clusterings of the images are compared: the classes that the model predicts, and k-means with as many
clusters as there are classes on its features, which are scaled to unit length.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.gather import make_store
from fewlabels.data.residency import choose
from fewlabels.data.source import Images, Labels, OnDemand
from fewlabels.inference.model import PIXELS_PER_BATCH, Predictor

Floats = NDArray[np.float64]

CRITERIA = ("ami", "ari", "v_measure", "fmi", "calinski_harabasz", "rankme", "bnm")
"""Names, in the order in which they are shown."""

MOST = 20_000
"""Images that are looked at, at most: Garrido et al. 2023 find 25,600 to be enough for RankMe."""

STARTS = 10
"""Of k-means, the best of which counts."""


def without_label(labeled: Labels, unlabeled: Labels, most: int = MOST) -> Labels:
    """The rows that criteria are computed on: those without a label, evenly spaced where they are more than `most`."""
    rows = np.setdiff1d(unlabeled, labeled)
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


@torch.no_grad()
def outputs(model: Predictor, images: Images | OnDemand, rows: Labels) -> tuple[Tensor, Tensor]:
    """Features ``[n, D]`` and logits ``[n, K]`` of the images at `rows`, float32 on the CPU."""
    _, height, width = model.shape
    store = make_store(images, model.device, choose("auto", len(images), model.shape, model.device).kind)
    size = max(1, PIXELS_PER_BATCH // (height * width))
    features, logits = [], []
    for part in torch.split(torch.from_numpy(rows).to(store.rows_device), size):
        found = model.model.features(model.normalize(store.take(part)))
        features.append(found.cpu())
        logits.append(model.model.rule(model.model, found).float().cpu())
    return torch.cat(features), torch.cat(logits)


def criteria(features: Floats, logits: Floats, seed: int = 0) -> dict[str, float]:
    """Each of `CRITERIA`, for features ``[n, D]`` and logits ``[n, K]`` of n images.

    AMI, ARI, V-measure and FMI say how alike both clusterings are, Calinski-Harabasz (0 where k-means finds a single
    cluster) how far apart the clusters of k-means lie. seed: of k-means. Raises ValueError for fewer than K + 1 images
    and for values that are no finite numbers.
    """
    from sklearn import metrics  # late: a third of the start-up of a training, which needs none of it
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if not (np.isfinite(features).all() and np.isfinite(logits).all()):
        raise ValueError("features and logits must be finite numbers")
    n, classes = logits.shape
    if n <= classes:
        raise ValueError(f"criteria need more unlabeled images than classes, got {n} for {classes} classes")
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, np.finfo(np.float64).tiny)
    guess = logits.argmax(1)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # fewer clusters than classes
        found = KMeans(classes, n_init=STARTS, random_state=seed).fit(unit).labels_
    several = len(np.unique(found)) > 1
    return {
        "ami": float(metrics.adjusted_mutual_info_score(guess, found)),
        "ari": float(metrics.adjusted_rand_score(guess, found)),
        "v_measure": float(metrics.v_measure_score(guess, found)),
        "fmi": float(metrics.fowlkes_mallows_score(guess, found)),
        "calinski_harabasz": float(metrics.calinski_harabasz_score(unit, found)) if several else 0.0,
        "rankme": rankme(unit),
        "bnm": batch_nuclear_norm(logits),
    }


def rankme(features: Floats) -> float:
    """RankMe (Garrido et al. 2023, eq. 1): ``exp(-sum_k p_k log p_k)``, p the singular values of ``[n, D]`` over their
    sum, plus 1e-7; 0 for features that are all 0."""
    values = np.linalg.svd(features, compute_uv=False)
    if not values.any():
        return 0.0
    p = values / values.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def batch_nuclear_norm(logits: Floats) -> float:
    """Sum of the singular values of the probabilities ``[n, K]``, over n (Cui et al. 2020, eq. 11)."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(np.linalg.svd(p, compute_uv=False).sum() / len(p))


def mean_ranks(values: Floats) -> Floats:
    """Mean over the criteria of each run's rank, ``[runs, criteria] -> [runs]``; 1 is the highest value, and equal ones
    share the mean of their ranks."""
    above = (values[None] > values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    means: Floats = (1 + above + (equal - 1) / 2).mean(1)
    return means
