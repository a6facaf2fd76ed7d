"""Counter-based random numbers: every draw is a function of (seed, purpose, step), and of nothing else.

There is no generator state to save: a resumed run, a run on another device and a run with another number of
ranks draw the same numbers. The counter-based generator is Philox (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), numpy's implementation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = TypeVar("Rows", bound=NDArray[Any] | Tensor)


@cache
def _key(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def philox(seed: int, purpose: str, counter: int = 0) -> np.random.Generator:
    """numpy generator whose stream is given by the three arguments (`counter` is the step or the epoch)."""
    bits = np.random.Philox(
        key=np.array([seed, _key(purpose)], dtype=np.uint64),
        counter=np.array([0, 0, counter, 0], dtype=np.uint64),
    )
    return np.random.Generator(bits)


def philox_pairs(seed: int, purpose: str, pairs: NDArray[np.integer[Any]]) -> Iterator[np.random.Generator]:
    """For each row of `pairs`, ``[N, 2]``, a generator whose stream is given by it, `seed` and `purpose`.

    It is one generator that is set anew, nine times as fast as making one: use each before asking for the next.
    """
    generator = philox(seed, purpose)
    state: Any = generator.bit_generator.state
    for first, second in pairs.tolist():
        state["state"]["counter"][2:] = first, second
        generator.bit_generator.state = state
        yield generator


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, as `torch.manual_seed` does, but of the CPU and `device` alone.

    The call for all devices takes 200 times as long where it finds none: it keeps a stack trace for each kind.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


class Rng:
    """The random numbers of one training step, as one of `world` ranks sees them.

    Draws are made on the host for the rows of the whole global batch; a rank keeps its own slice. Shapes
    name *this rank's* rows first: ``rng.uniform("x", 64)`` on two ranks draws 128 numbers, and each rank
    gets its 64.

    turn: of the step, whose turns draw other numbers.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        turn: int = 0,
    ) -> None:
        self.seed, self.step, self.rank, self.world, self.turn = seed, step, rank, world, turn
        self.device = torch.device(device)

    def generator(self, purpose: str) -> np.random.Generator:
        """The numpy generator of this step for `purpose`; the same on every rank."""
        return philox(self.seed, f"{purpose} in turn {self.turn}" if self.turn else purpose, self.step)

    def shard(self, rows: Rows) -> Rows:
        """This rank's slice of an array or tensor that holds the global batch (first dimension)."""
        n = len(rows) // self.world
        return rows[self.rank * n : (self.rank + 1) * n]  # type: ignore[return-value]  # a slice is of the same kind

    def _tensor(self, draw: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(draw)).to(self.device, non_blocking=True)

    def _local(self, rows: int, draw: NDArray[np.float64]) -> Tensor:
        assert len(draw) == rows * self.world
        return self._tensor(self.shard(draw).astype(np.float32))

    def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
        """U(0, 1), float32 ``[rows, *shape]`` on the device."""
        return self._local(rows, self.generator(purpose).random((rows * self.world, *shape)))

    def normal(self, purpose: str, rows: int, *shape: int) -> Tensor:
        """N(0, 1), float32 ``[rows, *shape]`` on the device."""
        return self._local(rows, self.generator(purpose).standard_normal((rows * self.world, *shape)))

    def beta(self, purpose: str, a: float, b: float, rows: int) -> Tensor:
        """Beta(a, b), float32 ``[rows]`` on the device."""
        return self._local(rows, self.generator(purpose).beta(a, b, rows * self.world))

    def permutation(self, purpose: str, n: int) -> Tensor:
        """A permutation of ``0 .. n-1``, int64 ``[n]`` on the device; whole, the same on every rank."""
        return self._tensor(self.generator(purpose).permutation(n))

    def bulk(self, purpose: str) -> torch.Generator:
        """A torch generator on the device for bulk noise (VAT, dropout), seeded from seed, step and purpose."""
        seed = int(self.generator(purpose).integers(0, 2**63 - 1))
        return torch.Generator(self.device).manual_seed(seed)
