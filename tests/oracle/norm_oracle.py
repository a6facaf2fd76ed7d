"""A net with batch norm, and the same net in NumPy with its gradient by finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from algorithm_oracles import K, softmax
from torch import Tensor, nn

SHAPE = (1, 3, 3)
Weights = dict[str, np.ndarray]


class NormNet(nn.Module):
    """Flattened pixels, a linear layer, batch norm, tanh, a linear head."""

    dim = 4

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.a = nn.Parameter(torch.randn(9, self.dim, generator=g) / 3)
        self.b = nn.Parameter(torch.randn(self.dim, K, generator=g))
        self.norm = nn.BatchNorm1d(self.dim, momentum=0.25)
        with torch.no_grad():
            self.norm.weight.copy_(1 + 0.3 * torch.randn(self.dim, generator=g))
            self.norm.bias.copy_(0.3 * torch.randn(self.dim, generator=g))

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(x.flatten(1) @ self.a))

    def head(self, f: Tensor) -> Tensor:
        return f @ self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def weights(net: nn.Module) -> Weights:
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def images(x: Tensor) -> np.ndarray:
    return x.double().numpy().reshape(len(x), -1)


def moments(w: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance of what the batch norm sees."""
    z = x @ w["a"]
    return z.mean(0), ((z - z.mean(0)) ** 2).mean(0)


def logits(w: Weights, x: np.ndarray, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """With the statistics of the batch, or with the given ones."""
    mean, variance = moments(w, x) if statistics is None else statistics
    z = (x @ w["a"] - mean) / np.sqrt(variance + 1e-5)
    return np.tanh(z * w["norm.weight"] + w["norm.bias"]) @ w["b"]


def probs(w: Weights, x: np.ndarray, statistics: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    return softmax(logits(w, x, statistics))


def gradient(loss: Callable[[Weights], float], w: Weights, step: float = 1e-6) -> Weights:
    """Central differences of `loss`, weight by weight."""
    out = {name: np.zeros_like(value) for name, value in w.items()}
    for name, value in w.items():
        for i in np.ndindex(value.shape):
            old = value[i]
            value[i] = old + step
            up = loss(w)
            value[i] = old - step
            out[name][i] = (up - loss(w)) / (2 * step)
            value[i] = old
    return out
