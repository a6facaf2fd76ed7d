"""What a few labels say about many unlabeled pictures: estimates and tests on features, pure NumPy.

Every comparison of labeled with unlabeled pictures is made by heads that have seen neither: a head is fitted to all
folds of the labels but one, and that fold is compared with the unlabeled pictures under this same head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.datatools.strangeness import ranks_of_strangeness, strange_score

Array: TypeAlias = NDArray[np.floating]
Ints: TypeAlias = NDArray[np.int64]

LEVEL = 0.9
"""Of every interval."""

FEW = 8
"""Labels of each class, on average, up to which there are four folds, and one for each label to measure strangeness."""

ENDS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)


def whiten(features: Array, dims: int = 80, rows: int = 4000) -> NDArray[np.float64]:
    """Centred principal components, halfway to equal variance, ``[N, F] -> [N, D]``; no label is used.

    Component i is divided by ``(l_i + 0.1 mean l) ** 0.25``, so that large ones count more, but not by their variance.
    The components are those of the first `rows` rows of an even choice.
    """
    f = np.asarray(features, np.float64)
    f = f - f.mean(0)
    some = f[np.linspace(0, len(f) - 1, min(rows, len(f))).astype(int)]
    values, vectors = np.linalg.eigh(some.T @ some / len(some))
    keep = slice(None, -(min(dims, *f.shape) + 1), -1)
    values, vectors = np.maximum(values[keep], 0), vectors[:, keep]
    return np.asarray(f @ vectors / (values + 0.1 * values.mean() + 1e-12) ** 0.25)


def folds(labels: Ints, most: int, rng: np.random.Generator) -> Ints:
    """Fold of each label, int64 ``[n]``: each class is spread evenly over at most `most` folds."""
    out, start = np.empty(len(labels), np.int64), 0
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        out[rows] = (np.arange(len(rows)) + start) % most
        start += len(rows)
    return np.unique(out, return_inverse=True)[1].astype(np.int64)


def spread(z: Array, labels: Ints) -> float:
    """Mean squared distance of a picture to the centre of its class (unbiased); of all pictures where no class has
    two."""
    within = [z[labels == c] for c in np.unique(labels)]
    freedom = sum(len(rows) - 1 for rows in within)
    if freedom == 0:
        return float(((z - z.mean(0)) ** 2).sum(1).mean())
    return float(sum(((rows - rows.mean(0)) ** 2).sum() for rows in within) / freedom)


def distances(z: Array, known: Array, labels: Ints, classes: int, noise: float) -> NDArray[np.float64]:
    """Squared distance ``[N, K]`` of `z` ``[N, D]`` to the mean of each class of `known` ``[n, D]``.

    What the noise of a mean of n_c pictures adds, ``noise / n_c``, is taken off, so that rare classes are not farther
    away. A class without a picture is infinitely far.
    """
    out = np.full((len(z), classes), np.inf)
    for c in np.unique(labels):
        rows = known[labels == c]
        out[:, c] = ((z - rows.mean(0)) ** 2).sum(1) - noise / len(rows)
    return out


def cross_validated(z: Array, labels: Ints, classes: int, rng: np.random.Generator) -> float:
    """Mean over the classes of the share of pictures ``[n, D]`` that are nearest to the mean of their own class, of
    which the picture is no part (ten folds)."""
    fold, noise = folds(labels, 10, rng), spread(z, labels)
    right = np.zeros(len(labels), bool)
    for out in (fold == k for k in range(fold.max() + 1)):
        right[out] = distances(z[out], z[~out], labels[~out], classes, noise).argmin(1) == labels[out]
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def soft(d: Array, temperature: float) -> NDArray[np.float64]:
    """``softmax(-d / temperature)`` over the last axis; the classes count alike, whatever their number of labels."""
    e = np.exp(-(d - d.min(-1, keepdims=True)) / temperature)
    return np.asarray(e / e.sum(-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What heads that have not seen them say of n labeled and N unlabeled pictures."""

    labels: Ints
    """int64 ``[n]``."""
    fold: Ints
    """int64 ``[n]``, 0 .. F-1."""
    probs: NDArray[np.float64]
    """Of the labeled pictures, each by the head without its fold, ``[n, K]``."""
    probs_unlabeled: NDArray[np.float32]
    """Of the unlabeled pictures by the head without each fold, ``[F, N, K]``."""
    strangeness: NDArray[np.float64]
    """Of the labeled pictures: the share of the unlabeled ones that look more familiar under the same head, ``[n]``."""
    temperature: float

    @property
    def accuracy(self) -> float:
        """Mean over the classes of the share of labeled pictures whose class is found."""
        right = self.probs.argmax(1) == self.labels
        return float(np.mean([right[self.labels == c].mean() for c in np.unique(self.labels)]))


TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Tried in units of `spread`."""


def held_out(z: Array, labels: Ints, pool: Array, classes: int, rng: np.random.Generator) -> HeldOut:
    """Cross-validated predictions by class means, and strangeness by `ranks_of_strangeness`.

    Args:
        z: features of the labeled pictures, ``[n, D]``, n at least 2; `labels` are theirs.
        pool: features of the unlabeled pictures, ``[N, D]``.
    """
    fold = folds(labels, 10 if len(labels) > FEW * classes else 4, rng)
    noise, d, d_pool = spread(z, labels), np.empty((len(z), classes)), []
    for out in (fold == k for k in range(fold.max() + 1)):
        given = (z[~out], labels[~out])
        d[out] = distances(z[out], *given, classes, noise)
        d_pool.append(distances(pool, *given, classes, noise))
    each = np.arange(len(z)) if len(z) <= FEW * classes else fold
    strangeness = ranks_of_strangeness(z, labels, each, pool, classes)
    likelihood = [_log_score(soft(d, noise * t), labels) for t in TEMPERATURES]
    temperature = noise * TEMPERATURES[int(np.argmax(likelihood))]
    probs_pool = np.stack([soft(each, temperature).astype(np.float32) for each in d_pool])
    return HeldOut(labels, fold, soft(d, temperature), probs_pool, strangeness, temperature)


def _log_score(probs: Array, labels: Ints) -> float:
    logs = np.log(probs[np.arange(len(labels)), labels] + 1e-3)
    return float(np.mean([logs[labels == c].mean() for c in np.unique(labels)]))


def em_prior(probs: Array, steps: int = 200) -> NDArray[np.float64]:
    """Shares of the classes ``[K]`` that make predictions ``[N, K]``, which count all classes alike, most likely.

    Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities": expectation
    maximisation; the maximum likelihood of Alexandari et al. 2020 where the predictions are calibrated.
    """
    p = np.asarray(probs, np.float64)
    q = np.full(p.shape[1], 1 / p.shape[1])
    for _ in range(steps):
        joint = p * q
        new = (joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)).mean(0)
        if np.abs(new - q).max() < 1e-6:
            break
        q = new
    return np.asarray(new, np.float64)


def confusion_prior(confusion: Array, mean: Array, steps: int = 2000) -> NDArray[np.float64]:
    """Shares of the classes ``[K]`` that give the mean prediction `mean` ``[M]``, ``confusion @ q = mean``.

    `confusion` ``[M, K]`` has in column c the mean prediction of held-out pictures of class c. BBSE (Lipton et al.
    2018) and DARP (Kim et al. 2020) invert it; here the shares are those of the smallest squared error that are not
    negative and add up to 1, found by projected gradients with Nesterov's acceleration (FISTA).
    """
    a, b = np.asarray(confusion, np.float64), np.asarray(mean, np.float64)
    step = 1 / max(float(np.linalg.norm(a, 2)) ** 2, 1e-12)
    q = np.full(a.shape[1], 1 / a.shape[1])
    ahead, t = q, 1.0
    for _ in range(steps):
        new, t_new = to_simplex(ahead - step * a.T @ (a @ ahead - b)), (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead = new + (t - 1) / t_new * (new - q)
        if np.abs(new - q).max() < 1e-7:
            return new
        q, t = new, t_new
    return q


def held_out_prior(
    probs: Array, labels: Ints, mean: Array, known: Array, penalty: float = 1.0, steps: int = 2000
) -> NDArray[np.float64]:
    """`confusion_prior` where the confusion matrix is that of a few held-out predictions ``[n, K]``.

    The errors are weighed by their noise, the covariance within the classes over n, and ``(penalty K)^2`` times the
    squared distance to the shares `known` ``[K]`` of the labels is added, the regularisation of Azizzadenesheli et al.
    2019 (RLLS): with few labels the matrix is so noisy that its inverse says nothing.
    """
    n, k = probs.shape
    classes = np.unique(labels)
    confusion = np.zeros((k, k))
    for c in classes:
        confusion[:, c] = probs[labels == c].mean(0)
    within = probs - confusion.T[labels]
    noise = within.T @ within / max(1, n - len(classes))
    values, vectors = np.linalg.eigh(noise + (0.02 * np.trace(noise) / k + 1e-9) * np.eye(k))
    scale = np.sqrt(n) * (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
    pull = penalty * k * np.eye(k)
    return confusion_prior(np.vstack([scale @ confusion, pull]), np.append(scale @ mean, pull @ known), steps)


def shrunk(estimate: Array, known: Array, distance: float) -> NDArray[np.float64]:
    """`estimate` moved to `known`, all the way where the distance of `shift_test` is what chance gives, 1: the factor
    of James and Stein 1961 (Estimation with quadratic loss)."""
    return np.asarray(known + max(0.0, 1 - 1 / max(distance, 1e-9)) * (estimate - known))


def to_simplex(x: Array) -> NDArray[np.float64]:
    """The nearest vector that is not negative and adds up to 1 (Held et al. 1974; Duchi et al. 2008)."""
    u = np.sort(x)[::-1]
    excess = (np.cumsum(u) - 1) / np.arange(1, len(x) + 1)
    return np.asarray(np.maximum(x - excess[np.flatnonzero(u > excess)[-1]], 0), np.float64)


def shift_test(
    seen: HeldOut, shares: Array, labels: int, rng: np.random.Generator, draws: int = 1000
) -> tuple[float, float]:
    """Distance of the mean held-out prediction of classes with `shares` ``[K]`` from that of the unlabeled pictures,
    and its p-value.

    BBSE's first step (Lipton et al. 2018): where classes look alike in both parts, the predictions differ only if the
    shares do. Distance by the covariance of the predictions, per degree of freedom; about 1 by chance. The p-value is
    the share of as many unlabeled pictures, drawn at random and treated as the labeled ones are, that are as far away:
    it asks whether the labeled pictures could be such a draw.

    labels: how many labels the shares are known from.
    """
    counts = np.bincount(seen.labels, minlength=len(shares))
    weights = (shares / np.maximum(counts, 1))[seen.labels]
    weights = weights / weights.sum()
    centre = seen.probs_unlabeled.mean(1, dtype=np.float64)
    parts, pool = seen.probs_unlabeled.shape[:2]
    spare = (seen.probs_unlabeled - centre[:, None]).reshape(parts * pool, -1)[::parts]
    covariance = spare.T @ spare / len(spare)
    k = len(covariance)
    inverse = np.linalg.pinv(covariance + 1e-3 * np.trace(covariance) / k * np.eye(k))
    n = max(1, min(labels, round(1 / float((weights**2).sum()))))

    def far(difference: Array) -> NDArray[np.float64]:
        return np.asarray(n * np.einsum("rk,kl,rl->r", difference, inverse, difference) / max(1, k - 1))

    # the mean of N unlabeled pictures is not known exactly either
    found = float(far((weights @ (seen.probs - centre[seen.fold]))[None])[0]) / (1 + n / pool)
    means = np.empty((draws, k))
    for r in range(draws):
        fold = seen.fold if n == len(seen.fold) else rng.choice(seen.fold, n)
        rows = rng.integers(0, pool, n)
        means[r] = (seen.probs_unlabeled[fold, rows] - centre[fold]).mean(0)
    return found, float((1 + (far(means) >= found).sum()) / (1 + draws))


def uneven_test(counts: Ints, rng: np.random.Generator, draws: int = 4000) -> float:
    """p-value of chi-squared for counts ``[K]`` of classes that are drawn alike, by `draws` draws."""
    n, k = int(counts.sum()), len(counts)

    def far(x: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(((x - n / k) ** 2).sum(-1) * k / n)

    by_chance = far(rng.multinomial(n, np.full(k, 1 / k), draws))
    return float((1 + (by_chance >= far(counts) - 1e-9).sum()) / (1 + draws))


def ratio_interval(counts: Ints, rng: np.random.Generator, draws: int = 4000) -> tuple[float, float]:
    """`LEVEL` interval of the largest over the smallest share, by draws of the shares given counts ``[K]`` (Jeffreys'
    prior). Which classes those are is taken from the counts."""
    shares = rng.dirichlet(counts + 0.5, draws)
    order = np.argsort(counts, kind="stable")  # two classes, however equal
    ratio = shares[:, order[-1]] / np.maximum(shares[:, order[0]], 1e-12)
    low, high = np.percentile(ratio, ENDS)
    return float(low), float(high)


def prior_draws(seen: HeldOut, known: Array, rng: np.random.Generator, draws: int = 200) -> NDArray[np.float64]:
    """`held_out_prior` of bootstrap samples, of the held-out predictions within each class and of the unlabeled
    pictures, ``[draws, K]``. The pull to the labels' shares is weak, as it hides what is not known."""
    rows = [np.flatnonzero(seen.labels == c) for c in np.unique(seen.labels)]
    pool = seen.probs_unlabeled.mean(0, dtype=np.float64)
    out = np.empty((draws, len(known)))
    for r in range(draws):
        again = np.concatenate([rng.choice(each, len(each)) for each in rows])
        mean = pool[rng.integers(0, len(pool), len(pool))].mean(0)
        out[r] = held_out_prior(seen.probs[again], seen.labels[again], mean, known, penalty=0.3, steps=200)
    return out


@dataclass(frozen=True)
class Strangers:
    """How much stranger the unlabeled pictures look than labeled ones that the heads have not seen."""

    z: float
    """Standard normal where there are none."""
    share: float
    """Of the unlabeled pictures: what familiar ones cannot explain; at least so many look strange."""
    low: float
    high: float
    """`LEVEL` interval of `share`."""


def strangers_test(seen: HeldOut, prior: Array, known: Array, rng: np.random.Generator, draws: int = 200) -> Strangers:
    """Whether the labeled pictures, weighted to the classes' shares, lack the strangest places.

    The estimated shares `prior` ``[K]`` are rough, and strangers distort them: those count under which strangers are
    least certain (`strange_score`), of the labels' own, `known` ``[K]``, equal ones, and halfway to the estimated ones.

    In ranks t of strangeness among the unlabeled pictures these are uniform, a mixture of familiar ones with the
    distribution F and of strangers: ``t = (1 - a) F(t) + a G(t)``. So ``a >= 1 - t / F(t)`` for every t, the bound of
    Blanchard et al. 2010 (Semi-supervised novelty detection). F has the few steps of the labels: t is at least 0.1, and
    F(t) at least a half.
    """
    grid = np.linspace(0.1, 1, 37)
    v, counts = seen.strangeness, np.bincount(seen.labels, minlength=len(prior))

    def weighted(shares: Array) -> NDArray[np.float64]:
        each = (shares / np.maximum(counts, 1))[seen.labels]
        return np.asarray(each / each.sum())

    weights, possible = weighted(prior), np.stack([known, np.full(len(known), 1 / len(known)), (prior + known) / 2])

    def bound(rows: Ints) -> float:
        w = weights[rows] / weights[rows].sum()
        f = (w[:, None] * (v[rows][:, None] <= grid)).sum(0)
        return float(np.max(np.where(f >= 0.5, 1 - grid / np.maximum(f, 1e-12), 0)))

    everyone = np.arange(len(v))
    z = min(
        strange_score(v, weighted(shares), seen.probs_unlabeled.shape[1], rng)
        for shares in np.unique(possible.round(9), axis=0)
    )
    share = bound(everyone)
    by_class = [np.flatnonzero(seen.labels == c) for c in np.unique(seen.labels)]
    again = np.array([bound(np.concatenate([rng.choice(r, len(r)) for r in by_class])) for _ in range(draws)])
    # the largest of many noisy bounds is too large: by as much as a sample of the sample is larger still
    shifted = np.clip(again - 2 * max(0.0, again.mean() - share), 0, 1)
    low, high = np.percentile(shifted, ENDS)
    return Strangers(z, float(np.clip(2 * share - again.mean(), 0, 1)), float(low), float(high))
