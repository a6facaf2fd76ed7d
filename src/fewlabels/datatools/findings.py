"""What is the matter with a few labels and many unlabeled pictures: numbers, the problems they show, and words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewlabels.datatools import estimators as est
from fewlabels.datatools.estimators import Array, Ints, Strangers

# Chosen with benchmarks/probe.py on other draws than those of its table.
SHIFT = 0.01
"""p-value below which the shares of the classes are said to differ."""

UNEVEN = 0.01
"""p-value below which labels are said to be uneven."""

TAIL = 2.0
"""Least ratio of the largest to the smallest class, at the lower end of its interval, that is called a long tail."""

STRANGE = 2.0
"""Standard deviations from which strangers are said to be there."""

PERHAPS = 1.5
"""Standard deviations from which a difference may be due to strangers as well as to shares."""

LEAST = 4
"""Labels below which nothing is compared."""


@dataclass(frozen=True, eq=False)
class Findings:
    """Numbers about K classes, and what they mean."""

    counts: Ints
    """Labels of each class, ``[K]``."""
    labeled: Array
    """Shares of the classes among the labels, ``[K]``."""
    unlabeled: Array
    """Shares among the unlabeled pictures, estimated, ``[K]``; 0 for a class without a label."""
    low: Array
    high: Array
    """Interval of `unlabeled` (`estimators.LEVEL`), ``[K]``."""
    differ: tuple[float, float, float]
    """Share of the unlabeled pictures that would have to change their class for equal shares, and its interval."""
    accuracy: float
    """Held-out, mean over the classes, 0..1; guessing gives 1 / K."""
    reference: int
    """Labeled pictures that the heads were tested with."""
    pool: int
    """Unlabeled pictures that were looked at."""
    shift: float
    shift_p: float
    uneven_p: float
    ratio: tuple[float, float]
    """Interval of the largest over the smallest class of the labels."""
    strangers: Strangers
    named: tuple[str, ...]
    """Problems: of "long tail", "missing not at random", "strangers"."""
    unclear: bool
    """Whether "missing not at random" may be strangers instead."""


def examine(z: Array, labels: Ints, pool: Array, counts: Ints, rng: np.random.Generator, draws: int = 200) -> Findings:
    """Compare labeled with unlabeled pictures.

    Args:
        z: features of labeled pictures that shaped none of the features, ``[n, D]``: `estimators.whiten`.
        labels: theirs, int64 ``[n]``.
        pool: features of the unlabeled pictures, ``[N, D]``.
        counts: labels of each class, int64 ``[K]``; all labels, where `labels` are those of other pictures.

    Raises ValueError where there are too few pictures to say anything.
    """
    present = np.flatnonzero(np.bincount(labels, minlength=len(counts)) > 0)
    if len(labels) < LEAST or len(present) < 2:
        raise ValueError(
            f"at least {LEAST} labeled pictures of 2 classes are needed to compare anything, there are {len(labels)} "
            f"of {len(present)}"
        )
    if len(pool) < 20:
        raise ValueError(f"at least 20 unlabeled pictures are needed to compare anything, there are {len(pool)}")
    k, own = len(present), counts[present]
    known = own / own.sum()
    seen = est.held_out(z, np.searchsorted(present, labels), pool, k, rng)
    shift, shift_p = est.shift_test(seen, known, int(own.sum()), rng)
    mean = seen.probs_unlabeled.mean((0, 1), dtype=np.float64)
    q = est.held_out_prior(seen.probs, seen.labels, mean, known)
    if shift_p >= SHIFT:  # nothing says that the shares differ
        q = est.shrunk(q, known, shift)
    again = est.prior_draws(seen, known, rng, draws)
    low, high = np.percentile(again, est.ENDS, axis=0)
    differ = float(np.abs(q - known).sum() / 2)
    least, most = np.percentile(np.abs(again - known).sum(1) / 2, est.ENDS)
    strangers = est.strangers_test(seen, q, known, rng, draws)
    uneven_p, ratio = est.uneven_test(counts, rng), est.ratio_interval(counts, rng)
    named, unclear = verdict(shift_p, uneven_p, ratio[0], strangers.z)

    def whole(x: Array) -> Array:
        out = np.zeros(len(counts))
        out[present] = x
        return out

    return Findings(
        counts=counts,
        labeled=counts / counts.sum(),
        unlabeled=whole(q),
        low=whole(np.minimum(low, q)),
        high=whole(np.maximum(high, q)),
        differ=(differ, min(differ, float(least)), max(differ, float(most))),
        accuracy=seen.accuracy,
        reference=len(labels),
        pool=len(pool),
        shift=shift,
        shift_p=shift_p,
        uneven_p=uneven_p,
        ratio=ratio,
        strangers=strangers,
        named=named,
        unclear=unclear,
    )


def verdict(shift_p: float, uneven_p: float, ratio_low: float, strange: float) -> tuple[tuple[str, ...], bool]:
    """The problems by name, and whether shares and strangers cannot be told apart.

    Strangers are among some predicted classes more than among others, which looks like other shares: where there are
    strangers, the shares are not judged. The test of strangers allows for other shares, so it comes first.
    """
    named: list[str] = []
    uneven = uneven_p < UNEVEN and ratio_low >= TAIL
    if strange >= STRANGE:
        named.append("strangers")
    elif shift_p < SHIFT:
        named.append("missing not at random")
    if uneven and "missing not at random" not in named:
        named.append("long tail")
    return tuple(named), shift_p < SHIFT and PERHAPS <= strange < STRANGE
