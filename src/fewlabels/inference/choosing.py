"""Which unlabeled images a person should label next: rules on probabilities and features, pure NumPy and k-means.

Every rule gives positions among the N images that it is shown, int64 ``[n]``, the most useful first. Where two are
equally useful the first one is taken. N must be at least n.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

MOST_CLUSTERS = 500
"""Of `typical`, as Hacohen et al. have it; and up to `FEW_CLUSTERS` k-means looks at all images in each round."""

FEW_CLUSTERS = 50

SMALL_CLUSTER = 5
"""Clusters of so many images are passed over while there are larger ones, as in the authors' code."""

NEIGHBOURS = 20
"""Nearest images by which `typical` measures how dense it is."""

BLOCK = 1024
"""Images whose distances to others are computed together."""


def by_margin(probabilities: Floats, n: int) -> Places:
    """Those whose two most probable classes are nearest to each other, of ``[N, K]`` (Scheffer et al. 2001, "best
    versus second best")."""
    two = np.sort(probabilities, 1)[:, -2:]
    return _largest(two[:, 0] - two[:, 1], n)


def by_entropy(probabilities: Floats, n: int) -> Places:
    """Those of the largest entropy, ``-sum_k p_k log p_k``, of ``[N, K]`` (Settles 2009, section 3.1)."""
    return _largest(entropy(probabilities), n)


def by_votes(votes: NDArray[np.int64], classes: int, n: int) -> Places:
    """Those about which several models disagree most: the entropy of the shares of their votes, class numbers
    ``[models, N]`` (Dagan and Engelson 1995, vote entropy)."""
    shares = np.stack([(votes == c).mean(0) for c in range(classes)], 1)
    return _largest(entropy(shares), n)


def entropy(probabilities: Floats) -> Floats:
    """In nats, of each row of ``[N, K]``; 0 log 0 is 0."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.asarray(-(probabilities * logs).sum(1))


def k_centre(features: Floats, known: Floats, n: int) -> Places:
    """One after another the image that is farthest from all labeled and chosen ones (Sener and Savarese 2018,
    k-center greedy), of features ``[N, D]``; known: those of the labeled images, ``[L, D]``.

    Without any labeled image the first one is that nearest to the mean.
    """
    away = np.full(len(features), np.inf)
    for start in range(0, len(known), BLOCK):
        away = np.minimum(away, _squared(features, known[start : start + BLOCK]).min(1))
    chosen: list[int] = []
    while len(chosen) < n:
        if not chosen and not len(known):
            new = int(np.argmin(_squared(features, features.mean(0)[None])[:, 0]))
        else:
            new = int(np.argmax(away))
        chosen.append(new)
        away = np.minimum(away, _squared(features, features[new][None])[:, 0])
        away[chosen] = -1.0
    return np.array(chosen, np.int64)


def typical(features: Floats, known: Floats, n: int, *, seed: int = 0) -> Places:
    """From each cluster without a label the image in the densest place (TypiClust: Hacohen, Dekel and Weinshall 2022,
    "Active learning on a budget: opposite strategies suit high and low budgets").

    k-means with as many clusters as there are labels and questions (`MOST_CLUSTERS` at most) on features of length 1,
    labeled ones among them. Clusters come in the order of the labels in them, then of their size, the largest first,
    and again where there are fewer than n. Typicality is the inverse of the mean distance to the `NEIGHBOURS` nearest
    ones (half of them, if fewer) among those of the cluster that are not labeled or chosen.

    Args:
        features: ``[N, D]`` of unlabeled images; known: ``[L, D]`` of labeled ones.
        seed: of k-means.
    """
    x = _unit(np.concatenate([known, features]))
    count = min(len(known) + n, MOST_CLUSTERS, len(x))
    cluster, _ = clusters(x, count, seed)
    labels = np.bincount(cluster[: len(known)], minlength=count)
    sizes = np.bincount(cluster, minlength=count)
    left = {c: np.flatnonzero(cluster[len(known) :] == c) for c in range(count)}
    order = sorted(range(count), key=lambda c: (labels[c], -sizes[c], c))
    groups = ([c for c in order if sizes[c] > SMALL_CLUSTER], [c for c in order if sizes[c] <= SMALL_CLUSTER])
    chosen: list[int] = []
    for group in groups:
        while len(chosen) < n and any(len(left[c]) for c in group):
            for c in group:
                if len(chosen) == n or not len(left[c]):
                    continue
                best = int(np.argmin(_sparsity(x[len(known) + left[c]])))
                chosen.append(int(left[c][best]))
                left[c] = np.delete(left[c], best)
    return np.array(chosen, np.int64)


def central(features: Floats, n: int, *, seed: int = 0) -> Places:
    """The image nearest to each of n centres of k-means, of features ``[N, D]`` brought to length 1; those of large
    clusters first. No label has a part in it."""
    x = _unit(features)
    cluster, centres = clusters(x, n, seed)
    sizes = np.bincount(cluster, minlength=n)
    chosen: list[int] = []
    for c in sorted(range(n), key=lambda c: (-sizes[c], c)):
        away = _squared(x, centres[c][None])[:, 0]
        away[chosen] = np.inf
        chosen.append(int(np.argmin(away)))
    return np.array(chosen, np.int64)


def clusters(x: Floats, count: int, seed: int) -> tuple[Places, Floats]:
    """Cluster ``[N]`` of each row of ``[N, D]`` by k-means, and the centres ``[count, D]``; one may be empty."""
    kind = KMeans if count <= FEW_CLUSTERS else MiniBatchKMeans
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # fewer different images than clusters
        found = kind(count, n_init=3, random_state=seed).fit(x)
    return found.labels_.astype(np.int64), found.cluster_centers_.astype(np.float64)


def _largest(scores: Floats, n: int) -> Places:
    return np.argsort(-scores, kind="stable")[:n].astype(np.int64)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _squared(x: Floats, others: Floats) -> Floats:
    """Squared distances ``[N, M]`` of ``[N, D]`` to ``[M, D]``."""
    found = (x**2).sum(1)[:, None] - 2 * x @ others.T + (others**2).sum(1)
    return np.asarray(np.maximum(found, 0))


def _sparsity(x: Floats) -> Floats:
    """Mean distance ``[m]`` of each of ``[m, D]`` to its nearest others."""
    near = max(1, min(NEIGHBOURS, len(x) // 2))
    if len(x) == 1:
        return np.zeros(1)
    out = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        away = np.sqrt(_squared(x[start : start + BLOCK], x))
        rows = np.arange(len(away))
        away[rows, start + rows] = np.inf  # itself
        out[start : start + BLOCK] = np.sort(away, 1)[:, :near].mean(1)
    return out
