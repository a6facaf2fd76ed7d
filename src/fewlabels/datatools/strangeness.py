"""How strange a picture looks from where the labels are, and whether unlabeled pictures are stranger than labeled."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fewlabels.algorithms import graph

Array: TypeAlias = NDArray[np.floating]
Ints: TypeAlias = NDArray[np.int64]

NEIGHBOURS = 10
"""Of each picture in the graph that labels are spread over."""

ALPHA = 0.99
"""Share that a picture gives on in each step of the spreading: far enough to reach all of a cluster."""

STRANGE_SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of strangers that are reckoned with."""

AMONG = 0.03
"""Share of the familiar pictures that are among the strangest ones, which are else all strangers."""


def reached(z: Array, labels: Ints, fold: Ints, pool: Array, classes: int) -> Iterator[NDArray[np.float64]]:
    """How much of each class reaches each picture from the labels that are not in a fold, ``[n + N, K]``, by fold.

    The labels are spread over the `NEIGHBOURS` nearest of each picture, labeled or not (`algorithms.graph`); each class
    counts alike, whatever its number of labels, and what arrives is divided by what would arrive from all pictures, so
    that dense places count no more. A class without a label outside of the fold reaches nobody.

    Args:
        z: features of the labeled pictures, ``[n, D]``; `labels` and `fold` are theirs, int64 ``[n]``.
        pool: features of the unlabeled pictures, ``[N, D]``.
    """
    n = len(z)
    parts, place = np.unique(fold * classes + labels, return_inverse=True)
    start = np.zeros((n + len(pool), len(parts) + 1))
    start[np.arange(n), place] = 1
    start[:, -1] = 1
    near = graph.graph(torch.from_numpy(np.concatenate([z, pool])), NEIGHBOURS)
    found = graph.spread(near, torch.from_numpy(start), ALPHA, 1e-5).numpy()
    share = found[:, :-1] / found[:, -1:]
    for f in range(int(fold.max()) + 1):
        given = fold != f
        counts = np.bincount(labels[given], minlength=classes)
        from_class = np.zeros((len(parts), classes))
        seen = parts // classes != f
        from_class[np.flatnonzero(seen), parts[seen] % classes] = 1
        yield share @ (from_class / np.maximum(counts, 1))


def ranks_of_strangeness(z: Array, labels: Ints, fold: Ints, pool: Array, classes: int) -> NDArray[np.float64]:
    """Of each labeled picture, the share of the unlabeled ones that are reached better by the labels of the other folds
    (each by the class that reaches it most), ``[n]``: uniform where labeled and unlabeled pictures are alike."""
    n, out = len(z), np.empty(len(z))
    for f, reach in enumerate(reached(z, labels, fold, pool, classes)):
        strange, mine = -reach.max(1), np.flatnonzero(fold == f)
        out[mine] = (np.searchsorted(np.sort(strange[n:]), strange[mine]) + 0.5) / (len(pool) + 1)
    return out


def strange_score(v: Array, weights: Array, pool: int, rng: np.random.Generator, draws: int = 2000) -> float:
    """How much the ranks v ``[n]`` of labeled pictures among `pool` unlabeled ones lack the largest ones; standard
    normal where they are ranks among pictures alike, by as many `draws` of such ranks.

    The statistic is the likelihood ratio, averaged over `STRANGE_SHARES`: where a share a are strangers, the strangest
    of all, ranks of familiar pictures have the density ``(1 - e) / (1 - a)`` up to 1 - a and ``e / a`` above.

    weights: of the pictures, adding up to 1; they count as 1 / sum w^2 pictures.
    """
    size = 1 / float((weights**2).sum())
    a = np.asarray(STRANGE_SHARES)

    def ratio(ranks: Array) -> NDArray[np.float64]:
        above = np.stack([(ranks > 1 - share) @ weights for share in a], -1)
        logs = size * (above * np.log(AMONG / a) + (1 - above) * np.log((1 - AMONG) / (1 - a)))
        return np.asarray(np.logaddexp.reduce(logs, -1))

    drawn = rng.random((draws, len(v)))
    order = drawn.argsort(1)
    steps = np.diff(np.take_along_axis(drawn, order, 1), prepend=0, append=1)
    below = rng.multinomial(pool, steps / steps.sum(1, keepdims=True)).cumsum(1)[:, :-1]
    np.put_along_axis(drawn, order, (below + 0.5) / (pool + 1), 1)
    return -NormalDist().inv_cdf((0.5 + (ratio(drawn) >= float(ratio(v))).sum()) / (1 + draws))
