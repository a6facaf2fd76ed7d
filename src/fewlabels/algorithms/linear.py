"""Linear layers on fixed features, in closed form or by L-BFGS. N examples, D features, K classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewlabels.runtime.eager import eager

LBFGS = eager(torch.optim.LBFGS)


class Layer(NamedTuple):
    weight: Tensor
    """``[K, D]``"""
    bias: Tensor
    """``[K]``"""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, D]``."""
        return F.linear(features, self.weight, self.bias)


def unit(features: Tensor) -> Tensor:
    """Features ``[N, D]``, each of length 1: only their direction is left."""
    return F.normalize(features, dim=1)


class Basis(NamedTuple):
    """The main directions in which some features vary, and their scale: linear, so that a layer on what it gives can
    be written as one on the features."""

    mean: Tensor
    """``[D]``"""
    axes: Tensor
    """``[D, d]``, orthogonal columns of one length, so that the features have a mean square of 1 in all directions."""

    @classmethod
    def of(cls, features: Tensor, most: int) -> Basis:
        """Of features ``[N, D]``; d is at most `most`."""
        mean = features.mean(0)
        centred = features - mean
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / len(features))
        scale = values.sum().clamp_min(1e-24).sqrt()
        return cls(mean, (vectors.flip(1)[:, :most] / scale).to(features.dtype).contiguous())

    def __call__(self, features: Tensor) -> Tensor:
        """``[N, D] -> [N, d]``"""
        return (features - self.mean) @ self.axes

    def undone(self, layer: Layer) -> Layer:
        """The layer that gives for features what `layer` gives for what becomes of them here."""
        weight = layer.weight @ self.axes.T
        return Layer(weight, layer.bias - weight @ self.mean)


def logistic(features: Tensor, target: Tensor, decay: float, start: Layer | None = None) -> Layer:
    """Logistic regression: the minimum of ``sum_n CE(target_n, W f_n + b) + decay / 2 |W|^2``.

    With one-hot targets scikit-learn's ``LogisticRegression(C=1 / decay)``.

    Args:
        features: ``[N, D]``.
        target: distributions ``[N, K]``.
        start: where the search begins.
    """
    zero = features.new_zeros
    weight, bias = start if start is not None else (zero(target.shape[1], features.shape[1]), zero(target.shape[1]))
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    search = LBFGS(
        [weight, bias], max_iter=100, tolerance_grad=1e-5, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        fit = F.cross_entropy(F.linear(features, weight, bias), target, reduction="sum")
        value = (fit + decay / 2 * weight.square().sum()) / len(features)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    return Layer(weight.detach(), bias.detach())


def ridge(features: Tensor, target: Tensor, decay: float) -> Layer:
    """Least squares: the minimum of ``sum_n |W f_n + b - target_n|^2 + decay |W|^2``, by its N x N normal equations."""
    mean, middle = features.mean(0), target.mean(0)
    x, y = (features - mean).double(), (target - middle).double()
    gram = x @ x.T + decay * torch.eye(len(x), dtype=x.dtype, device=x.device)
    weight = (torch.linalg.solve(gram, y).T @ x).to(features.dtype)
    return Layer(weight, middle - weight @ mean)


def means(features: Tensor, target: Tensor) -> Layer:
    """The class whose mean is nearest: ``-|f - m_k|^2 / 2`` but for what is the same for all classes.

    A class without an example is never the nearest.
    """
    mass = target.sum(0)
    centres = target.T @ features / mass.clamp_min(1e-12)[:, None]
    bias = -centres.square().sum(1) / 2
    return Layer(centres, torch.where(mass > 0, bias, -torch.inf))


def mixture(features: Tensor, rows: Tensor, y: Tensor, *, rounds: int = 15, shrink: float = 0.3) -> Tensor:
    """Classes as Gaussians of one covariance, from labeled and unlabeled examples: ``[N, K]``, rows that sum to 1.

    Expectation maximization with the labels kept (McLachlan 1975, Iterative reclassification procedure for constructing
    an asymptotically optimal rule of allocation in discriminant analysis), every class taken to be equally common: in
    each round the shares are scaled to classes of equal mass, five times by class and by example (Sinkhorn 1964). A
    class without a label gets nothing.

    Args:
        features: ``[N, D]``, centred.
        rows: of the examples with a label, ``[L]`` int64.
        y: their labels, one-hot ``[L, K]``.
        shrink: share of the covariance that is replaced by its mean variance in all directions.
    """
    seen = y.sum(0) > 0
    known, count, dim = y[:, seen], len(features), features.shape[1]
    centres = known.T @ features[rows] / known.sum(0)[:, None]
    square = features.T @ features
    inside, shares = square / count, features.new_zeros(count, int(seen.sum()))
    for _ in range(rounds):
        even = torch.eye(dim, dtype=features.dtype, device=features.device) * (inside.trace() / dim).clamp_min(1e-12)
        precision = torch.linalg.inv(torch.lerp(inside, even, shrink))
        shares = (features @ precision @ centres.T - ((centres @ precision) * centres).sum(1) / 2).softmax(1)
        for _ in range(5):
            shares = shares / shares.sum(0).clamp_min(1e-12) * (count / shares.shape[1])
            shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-12)
        shares[rows] = known
        mass = shares.sum(0)
        centres = shares.T @ features / mass[:, None]
        inside = (square - (centres.T * mass) @ centres) / count
    out = features.new_zeros(count, y.shape[1])
    out[:, seen] = shares
    return out
