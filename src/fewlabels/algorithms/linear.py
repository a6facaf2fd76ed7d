"""Linear layers on fixed features, in closed form or by L-BFGS. N examples, D features, K classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layer(NamedTuple):
    weight: Tensor
    """``[K, D]``"""
    bias: Tensor
    """``[K]``"""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, D]``."""
        return F.linear(features, self.weight, self.bias)


class Scale(NamedTuple):
    """Features to those with mean 0 and deviation 1 over some images."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scale:
        """Of features ``[N, D]``; one that is constant is left at 0."""
        std, mean = torch.std_mean(features, 0, correction=0)
        return cls(mean, torch.where(std > 1e-6 * mean.abs(), std, torch.inf))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std

    def unscaled(self, layer: Layer) -> Layer:
        """The layer that gives for features what `layer` gives for scaled ones."""
        weight = layer.weight / self.std
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
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=100, tolerance_grad=1e-4, tolerance_change=1e-7, line_search_fn="strong_wolfe"
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
