"""What the tests of the algorithms share: nets without batch norm, fixed draws, ranks as threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewlabels.algorithms import Algorithm
from fewlabels.runtime import parallel
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Losses

K = 5
T = TypeVar("T")


class Plain(nn.Module):
    """Flattened pixels, a linear layer, tanh, a linear head; in float64, so that comparisons are sharp."""

    def __init__(self, pixels: int, dim: int = 6) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.dim = dim
        self.a = nn.Parameter(torch.randn(pixels, dim, generator=g) / pixels**0.5)
        self.b = nn.Parameter(torch.randn(dim, K, generator=g))

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.a)

    def head(self, f: Tensor) -> Tensor:
        return f @ self.b

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Identity(nn.Module):
    """A net whose images are its logits, ``[N, K, 1, 1]``."""

    dim = K

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def head(self, f: Tensor) -> Tensor:
        return f

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class FixedRng:
    """Beta draws and permutations that stay to be looked at, by purpose; `share` in place of every Beta draw."""

    rank, world = 0, 1

    def __init__(self, share: float | None = None, seed: int = 0) -> None:
        self.share, self.chance = share, np.random.default_rng(seed)
        self.shares: dict[str, np.ndarray] = {}
        self.orders: dict[str, np.ndarray] = {}
        self.parameters: set[tuple[float, float]] = set()

    def beta(self, purpose: str, a: float, b: float, rows: int) -> Tensor:
        self.parameters.add((a, b))
        drawn = self.chance.beta(0.5, 0.5, rows) if self.share is None else np.full(rows, self.share)
        return torch.tensor(self.shares.setdefault(purpose, drawn), dtype=torch.float32)

    def permutation(self, purpose: str, n: int) -> Tensor:
        order = self.orders.setdefault(purpose, self.chance.permutation(n))
        assert n == len(order)
        return torch.tensor(order)


def info(batch: int, unlabeled: int, steps: int = 100, shape: tuple[int, int, int] = (3, 4, 4), dim: int = 6) -> Info:
    return Info(K, shape, dim, torch.full((K,), 4), 1000, steps, batch, unlabeled)


def make_batch(
    seed: int,
    rows: int,
    unlabeled: int,
    views: int,
    progress: float = 0.5,
    shape: tuple[int, ...] = (3, 4, 4),
) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(rows, *shape, generator=g),)
    u = tuple(torch.randn(unlabeled, *shape, generator=g) for _ in range(views))
    y = torch.randint(K, (rows,), generator=g)
    return Batch(x, y, u, torch.arange(unlabeled), torch.tensor(progress), Rng(seed, 0), torch.arange(len(y)))


def batch_of_logits(x: np.ndarray, y: np.ndarray, weak: np.ndarray, strong: np.ndarray) -> Batch:
    """For `Identity`: labeled logits ``[B, K]``, labels, weak and strong logits ``[M, K]``, with gradient."""

    def images(z: np.ndarray) -> Tensor:
        return torch.tensor(z, dtype=torch.float32)[:, :, None, None].requires_grad_()

    index = torch.arange(len(weak))
    return Batch(
        (images(x),),
        torch.tensor(y),
        (images(weak), images(strong)),
        index,
        torch.tensor(0.5),
        Rng(0, 0),
        torch.arange(len(y)),
    )


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(target: np.ndarray, z: np.ndarray) -> float:
    """One example: ``-sum_k target_k log p_k``."""
    return float(-(target * np.log(softmax(z))).sum())


def logits(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """The net on one image, by NumPy."""
    a, b = net.a.detach().double().numpy(), net.b.detach().double().numpy()
    return np.tanh(image.reshape(-1) @ a) @ b


def on_ranks(monkeypatch: pytest.MonkeyPatch, world: int, work: Callable[[int], T]) -> list[T]:
    """Results of ``work(rank)`` in `world` threads whose `parallel.gather` and `parallel.mean` meet."""
    here, barrier, slots = threading.local(), threading.Barrier(world, timeout=20), [None] * world

    def exchange(x: Tensor) -> list[Tensor]:
        slots[here.rank] = x.detach().clone()
        barrier.wait()
        everyone: list[Any] = list(slots)
        barrier.wait()
        return everyone

    results: list[Any] = [None] * world
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        here.rank = rank
        try:
            results[rank] = work(rank)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    with monkeypatch.context() as patch:
        patch.setattr(parallel, "gather", lambda x: torch.cat(exchange(x)))
        patch.setattr(parallel, "mean", lambda x: torch.stack(exchange(x)).mean(0))
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return results


def shard(batch: Batch, rank: int, world: int) -> Batch:
    """This rank's rows of a global batch, and its view of the random numbers."""

    def cut(t: Tensor) -> Tensor:
        return t.chunk(world)[rank]

    return Batch(
        tuple(map(cut, batch.x)),
        cut(batch.y),
        tuple(map(cut, batch.u)),
        cut(batch.index),
        batch.progress,
        Rng(batch.rng.seed, batch.rng.step, rank=rank, world=world),
        cut(batch.labeled_index),
    )


def the_same_on_ranks(
    monkeypatch: pytest.MonkeyPatch,
    world: int,
    algorithm: Algorithm,
    net: nn.Module,
    batch: Batch,
    ema: nn.Module | None = None,
    *,
    log: tuple[float, float] = (1e-5, 1e-6),
    grad: tuple[float, float] = (1e-5, 1e-6),
) -> tuple[Losses, list[dict[str, Tensor]], list[Algorithm]]:
    """A step on the whole batch and its shares on `world` ranks have the same mean logs and mean gradients.

    Args:
        net: takes the gradients of the whole batch; each rank has a copy of its own.
        ema: the average of all; default: the net itself, of each rank its own.
        log, grad: relative and absolute tolerance.

    Returns: what the whole batch gave, the logs of the ranks, and their algorithms afterwards.
    """
    copies = [(copy.deepcopy(algorithm), copy.deepcopy(net)) for _ in range(world)]
    one: Losses = algorithm(batch, net, net if ema is None else ema)
    one.total.backward()

    def work(rank: int) -> dict[str, Tensor]:
        mine, my_net = copies[rank]
        losses = mine(shard(batch, rank, world), my_net, my_net if ema is None else ema)
        losses.total.backward()
        return dict(losses.log)

    logs = on_ranks(monkeypatch, world, work)
    for name, value in one.log.items():
        mean = sum(each[name] for each in logs) / world
        torch.testing.assert_close(mean, value, rtol=log[0], atol=log[1], msg=name)
    for single, *shares in zip(net.parameters(), *(my_net.parameters() for _, my_net in copies), strict=True):
        mean = sum(p.grad for p in shares) / world
        torch.testing.assert_close(mean, single.grad, rtol=grad[0], atol=grad[1])
    return one, logs, [mine for mine, _ in copies]
