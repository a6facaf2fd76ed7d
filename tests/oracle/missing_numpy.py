"""Labels missing not at random, in slow NumPy and float64: written from the paper (Hu et al. 2022, CADR) and from
the released CADR-FixMatch's fixmatch.py, not from this package.

Shapes: `x` labeled logits ``[B, K]``, `y` labels ``[B]``, `weak` and `strong` logits ``[M, K]``, `prior` ``[K]``.
What carries no gradient is an argument of its own, so that differences of a loss leave it where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

TINY, EPS = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).eps)
Array = Any


def softmax(z: Array) -> Array:
    rows = []
    for row in np.asarray(z, dtype=np.float64):
        e = np.exp(row - row.max())
        rows.append(e / e.sum())
    return np.array(rows)


def log_softmax(z: Array) -> Array:
    return np.array([row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in np.asarray(z, np.float64)])


def cross_entropies(y: Array, z: Array) -> Array:
    return np.array([-row[k] for k, row in zip(y, log_softmax(z), strict=True)])


def updated(prior: Array, probs: Array, momentum: float) -> Array:
    """``mu prior + (1 - mu) mean_j p_j``."""
    return momentum * np.asarray(prior) + (1 - momentum) * sum(probs) / len(probs)


def pseudo_inverse(p: Array) -> Array:
    """``[N, K] -> [K, N]``; singular values at most ``10 max(N, K) eps`` of the largest count as 0."""
    u, s, vt = np.linalg.svd(p, full_matrices=False)
    inverse = np.zeros((p.shape[1], p.shape[0]))
    for i, value in enumerate(s):
        if value > 10 * max(p.shape) * EPS * s[0]:
            inverse += np.outer(vt[i], u[:, i]) / value
    return inverse


def row_weights(prior: Array, probs: Array, upper: float) -> Array:
    """How much of each weak image the estimate is made of, ``[M]``: constants."""
    return np.clip(prior @ pseudo_inverse(probs), 0, upper)


def uniform_weights(probs: Array) -> Array:
    return np.full(len(probs), 1 / len(probs))


def estimate(weights: Array, probs: Array) -> Array:
    """``rho``, ``[K]``, never below the smallest normal float32."""
    return np.maximum(weights @ probs, TINY)


def class_weights(rho: Array, classes: Array) -> Array:
    """``W_i``, ``[B]``, of mean 1 over the batch."""
    inverse = np.array([1 / rho[k] for k in classes])
    return len(classes) * inverse / inverse.sum()


def thresholds(tau: float, prior: Array, beta: float) -> Array:
    return tau * (np.asarray(prior) / np.max(prior)) ** beta


def masked(probs: Array, tau: Array) -> Array:
    """CAI's: confidence strictly above the threshold of the guessed class."""
    return np.array([float(p.max() > tau[p.argmax()]) for p in probs])


class Setting(NamedTuple):
    cap: bool = False
    cai: bool = False
    cadr: bool = False
    """The doubly robust correction, with `cap` only."""
    running: bool = True
    """`CAP_EMA`: the shares are those of the running estimate in value."""
    weighting: str = "released"
    momentum: float = 0.99
    upper: float = 5.0
    beta: float = 0.5
    tau: float = 0.95


class Constants(NamedTuple):
    """What a step takes without gradient."""

    prior: Array
    """After the step's update."""
    rows: Array
    """Weights of the weak images in the estimate."""
    labels: Array
    """The weak images' pseudo-labels."""
    mask: Array
    guesses: Array
    """The labeled images' classes by the net."""
    sure: Array
    """Which of these guesses count in CADR's correction."""
    weights: Array
    """W of the labeled images, for the weighted form."""


def constants(how: Setting, prior: Array, x: Array, y: Array, weak: Array) -> Constants:
    p, q = softmax(weak), softmax(x)
    new = updated(prior, p, how.momentum)
    rows = row_weights(prior, p, how.upper) if how.running else uniform_weights(p)
    tau = thresholds(how.tau, new, how.beta)
    mask = masked(p, tau) if how.cai else np.array([float(r.max() >= how.tau) for r in p])
    weights = class_weights(estimate(rows, p), y)
    return Constants(new, rows, p.argmax(1), mask, q.argmax(1), masked(q, tau), weights)


def labeled_loss(how: Setting, fixed: Constants, x: Array, y: Array, weak: Array) -> float:
    ce = cross_entropies(y, x)
    if not how.cap:
        return float(np.mean(ce))
    if how.weighting == "weighted":
        return float(np.mean(fixed.weights * ce))
    rho = estimate(fixed.rows, softmax(weak))
    # released: weights of mean 1 over the batch; likelihood: log P(y | x) - log P(y) as it is
    weight = {"released": class_weights, "likelihood": lambda rho, classes: 1 / rho[classes]}[how.weighting]
    loss = float(np.mean(ce - np.log(weight(rho, y))))
    if how.cadr:
        loss += float(np.mean(fixed.sure * np.log(weight(rho, fixed.guesses))))
    return loss


def unlabeled_loss(fixed: Constants, strong: Array) -> float:
    return float(np.mean(fixed.mask * cross_entropies(fixed.labels, strong)))


def slope(f: Callable[[Array], float], at: Array, h: float = 1e-5) -> Array:
    """Central differences of `f`, of the shape of `at`."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[place] = h
        found[place] = (f(at + step) - f(at - step)) / (2 * h)
    return found
