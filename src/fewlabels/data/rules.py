"""The published rules that pick images, as pure functions of the label array.

Random numbers are numpy's legacy MT19937 (`np.random.RandomState`), because the published splits are its
draws. Labels are int64 ``[N]`` in 0 .. K-1; every function returns row numbers (int64) or per-class numbers.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]
Weights: TypeAlias = NDArray[np.float64]
"""Share of each class, ``[K]``, the largest 1."""


def proportional_pick(labels: Indices, size: int, seed: int, weights: Weights | None = None) -> Indices:
    """FixMatch's labeled images, in the order of their choice, int64 ``[size]``.

    Classes are served in proportion to `weights` (None: their counts over the largest count), rows within a
    class in the order of a shuffle (seed 0: file order). A smaller size gives a prefix of a larger one.
    Source: google-research/fixmatch, scripts/create_split.py; bit for bit.

    Raises:
        ValueError: a class runs out of images.
    """
    rows = _shuffled(labels, seed, weights)
    room = _lengths(rows)
    order = _greedy(_weights(room, weights), room, min(size, len(labels) + 1))
    if len(order) < size:
        raise ValueError(
            f"{size} labels are more than there are: after {len(order)} of {len(labels)} images the class "
            "whose turn it is has no more"
        )
    return _deal(order, rows)


def interleaved_order(labels: Indices, weights: Weights | None = None, *, leftovers: bool = True) -> Indices:
    """FixMatch's order of the unlabeled set, int64 ``[N]``; its first V are the validation set.

    The same greedy, rows of a class in file order; what is left when a class runs out of turn (with
    `weights` that are not the counts) follows class by class. The original queues records while it reads
    them, which changes the time but not the order of their output. Source: google-research/fixmatch,
    scripts/create_unlabeled.py.

    Without `leftovers` the order ends there: CADR's long-tailed unlabeled and test sets (CADR-FixMatch,
    scripts/create_unlabeled.py and create_test.py), about ``weights[c]`` times the largest class of each.
    """
    rows = _by_class(labels, weights)
    room = _lengths(rows)
    order = _greedy(_weights(room, weights), room, len(labels))
    if not leftovers:
        return _deal(order, rows)
    counts = np.bincount(order, minlength=len(rows))
    left = [r[n:] for r, n in zip(rows, counts, strict=True)]
    return np.concatenate([_deal(order, rows), *left])


def tenth(labels: Indices, seed: int) -> Indices:
    """Rows of a tenth of each class, rounded, but at least 2 and at most a third, int64, ascending.

    A class with fewer than 3 images gives none. Of the rows of each class in turn, the first of a permutation by one
    ``RandomState(seed)``. Labels are int64 ``[N]``, -1 where unknown.
    """
    random, out = np.random.RandomState(seed), [np.empty(0, np.int64)]
    for c in range(int(labels.max(initial=-1)) + 1):
        rows = np.flatnonzero(labels == c)
        out.append(random.permutation(rows)[: min(max((len(rows) + 5) // 10, 2), len(rows) // 3)])
    return np.sort(np.concatenate(out))


def balanced_pick(labels: Indices, size: int, seed: int) -> Indices:
    """The same number of images of each class, in the order of their draw, int64 ``[size]``.

    Per class ascending, ``choice(rows, size // K, replace=False)`` of the legacy generator. Source:
    kekmodel/FixMatch-pytorch, dataset/cifar.py (``x_u_split``), and LeeDoYup/FixMatch-pytorch,
    datasets/data_utils.py: equal seeds give both the same images.

    Raises:
        ValueError: `size` is no multiple of the classes, or a class has too few images.
    """
    rows = _by_class(labels)
    if size % len(rows):
        raise ValueError(
            f"rule 'balanced' takes the same number of each class: labels must be a multiple of the "
            f"{len(rows)} classes, got {size}"
        )
    each = size // len(rows)
    short = next((c for c, row in enumerate(rows) if len(row) < each), None)
    if short is not None:
        raise ValueError(f"{size} labels need {each} of each class, but class {short} has {len(rows[short])}")
    random = np.random.RandomState(seed)
    return np.concatenate([random.choice(row, each, replace=False) for row in rows])


def long_tail(classes: int, imbalance: float, *, reverse: bool = False) -> Weights:
    """CADR's shares of K classes, ``imbalance ** (-c / (K - 1))``: 1 for the first, 1 / imbalance for the last.

    `reverse` turns them round, as the original does for a lamda below 1. Source: CADR-FixMatch,
    scripts/create_split.py and create_unlabeled.py, with its order of operations.
    """
    assert imbalance >= 1 and classes > 1
    lamda = 1 / imbalance if reverse else imbalance
    # by the C library: NumPy's power differs in the last bit from one instruction set to another
    shares = np.array([(1 / lamda) ** (c / (classes - 1)) for c in range(classes)])
    return shares * lamda if lamda < 1 else shares


def head_counts(head: int, shares: Weights) -> Indices:
    """Labels of each class when the largest gets `head`: ``ceil(head * shares)``, int64 ``[K]``."""
    return np.ceil(head * shares).astype(np.int64)


def random_prior(classes: int, seed: int) -> Weights:
    """CADR's ``rand``: K uniform numbers of the seed, over the largest of them."""
    prior = np.random.RandomState(seed).random_sample(classes)
    return np.asarray(prior / prior.max())


def round_robin_pick(labels: Indices, size: int, seed: int) -> Indices:
    """One image of each class in turn, passing over classes that have no more, int64 ``[size]``.

    Rows within a class in the order of FixMatch's shuffle. Source: uizard-technologies/realmix,
    scripts/create_split.py, ``--class_balance``.
    """
    assert size <= len(labels)
    rows = _shuffled(labels, seed)
    turn = np.concatenate([np.arange(len(row)) for row in rows])
    return np.concatenate(rows)[np.argsort(turn, kind="stable")][:size]


def tail_counts(head: int, classes: int, imbalance: float, *, reverse: bool = False) -> Indices:
    """USB's and DARP's images per class: ``head * imbalance ** (-c / (K - 1))``, rounded down, int64 ``[K]``.

    Source: microsoft/Semi-supervised-learning, semilearn/datasets/utils.py (``make_imbalance_data``), with
    its order of operations; DARP's ``make_imb_data`` is the same.
    """
    assert imbalance >= 1 and classes > 1
    step = float(1 / imbalance) ** (1 / (classes - 1))
    counts = [int(head * step**c) for c in range(classes - 1)] + [int(head / imbalance)]
    return np.array(counts[::-1] if reverse else counts, np.int64)


def usb_pick(labels: Indices, labeled: Indices, unlabeled: Indices | None, seed: int) -> tuple[Indices, Indices]:
    """USB's labeled and unlabeled rows: of each class, shuffled, the first ``labeled[c]``, then ``unlabeled[c]``.

    None: all the others. Unlike in `proportional_pick`, the seed 0 shuffles too. Source:
    microsoft/Semi-supervised-learning, semilearn/datasets/utils.py (``sample_labeled_unlabeled_data``).
    """
    rows = _by_class(labels)
    random = np.random.RandomState(seed)
    for row in rows:
        random.shuffle(row)
    ends = _lengths(rows) if unlabeled is None else labeled + unlabeled
    return (
        np.concatenate([row[:n] for row, n in zip(rows, labeled, strict=True)]),
        np.concatenate([row[n:end] for row, n, end in zip(rows, labeled, ends, strict=True)]),
    )


def oversample(labels: Indices, size: int) -> Indices:
    """Rows with repeats, such that each of the K classes there are has ``ceil(size / K)`` of them.

    A class with fewer images repeats each the same number of times, as far as there is room; one with more is
    cut off. Rows within a class in the order of a shuffle with seed 1. The original repeats transformed
    copies; here the views of the training make the copies differ. Source: uizard-technologies/realmix,
    scripts/create_datasets.py, ``--train_balance``.
    """
    rows = [row for row in _by_class(labels) if len(row)]
    each = math.ceil(size / len(rows))
    random = np.random.RandomState(1)
    for row in rows:
        random.shuffle(row)
    return np.concatenate([np.repeat(row, max(1, math.ceil(each / len(row))))[:each] for row in rows])


def resample(labels: Indices) -> Indices:
    """Rows with repeats, such that each of the classes there are has as many as the largest, n.

    Of n_c rows of a class in their order, all come ``n // n_c`` times, and the first ``n % n_c`` once more; the
    largest class stays. Source: CADR-FixMatch, first commit (1fc232d), scripts/create_split.py, ``RS``, whose
    largest class is class 0.
    """
    rows = [row for row in _by_class(labels) if len(row)]
    top = max(map(len, rows))
    return np.concatenate([np.concatenate([np.tile(row, top // len(row)), row[: top % len(row)]]) for row in rows])


def _by_class(labels: Indices, weights: Weights | None = None) -> list[Indices]:
    """Rows of each class, ascending."""
    assert len(labels) and labels.min() >= 0
    counts = np.bincount(labels, minlength=0 if weights is None else len(weights))
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _shuffled(labels: Indices, seed: int, weights: Weights | None = None) -> list[Indices]:
    """Rows of each class as create_split shuffles them; seed 0 leaves them in file order."""
    rows = _by_class(labels, weights)
    if seed != 0:
        random = np.random.RandomState(seed)
        for row in rows:
            random.shuffle(row)
    return rows


def _lengths(rows: list[Indices]) -> Indices:
    return np.array([len(row) for row in rows], np.int64)


def _weights(room: Indices, weights: Weights | None) -> Weights:
    weights = room / room.max() if weights is None else np.asarray(weights, np.float64)
    assert weights.shape == room.shape
    return np.where(room > 0, weights, -np.inf)  # a class without images is never its turn


def _greedy(weights: Weights, room: Indices, size: int) -> Indices:
    """Classes in the order in which FixMatch takes them, int64 ``[<= size]``; stops at a class without room.

    Each turn takes ``argmax_c weights[c] - taken[c] / max(max(taken), 1)``, the smallest c on ties, in
    float64 (google-research/fixmatch, scripts/create_split.py). The largest count changes once per round,
    so between rounds only the score of the class just taken is new.
    """
    weight, left = weights.tolist(), room.tolist()
    taken, top = [0] * len(weight), 0
    scores = weights.copy()
    order = np.empty(size, np.int64)
    for turn in range(size):
        c = int(scores.argmax())
        if taken[c] == left[c]:
            return order[:turn]
        order[turn] = c
        taken[c] += 1
        if taken[c] > top:
            top = taken[c]
            scores = weights - np.array(taken) / top
        else:
            scores[c] = weight[c] - taken[c] / top
    return order


def _deal(order: Indices, rows: list[Indices]) -> Indices:
    """Replace the j-th appearance of class c in `order` by ``rows[c][j]``."""
    counts = np.bincount(order, minlength=len(rows))
    out = np.empty_like(order)
    out[np.argsort(order, kind="stable")] = np.concatenate([r[:n] for r, n in zip(rows, counts, strict=True)])
    return out
