"""The few collective operations that an algorithm may need; identities in a single process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def active() -> bool:
    return dist.is_available() and dist.is_initialized()


def world() -> int:
    """Number of ranks that train together."""
    return dist.get_world_size() if active() else 1


def rank() -> int:
    return dist.get_rank() if active() else 0


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, ``[n, ...] -> [world * n, ...]``, in rank order, without gradient."""
    if not active():
        return x
    x = x.detach().contiguous()
    out = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(out, x)
    return torch.cat(out)


def mean(x: Tensor) -> Tensor:
    """Mean over the ranks of a tensor of the same shape, without gradient."""
    if not active():
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world()


def local_rank() -> int:
    """Number of this process on its machine, as torchrun gives it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def maximum(x: Tensor) -> Tensor:
    """Largest value over the ranks."""
    if not active():
        return x
    x = x.detach().clone()
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def from_first(value: T) -> T:
    """Rank 0's value (what can be pickled), on all ranks."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


@contextlib.contextmanager
def first() -> Iterator[None]:
    """Rank 0 runs the block before the others do, so that it alone downloads what is missing."""
    if rank() != 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()


def barrier() -> None:
    if active():
        dist.barrier()


@contextlib.contextmanager
def session(device: str) -> Iterator[None]:
    """Join the other ranks when torchrun started this process; a single process has nothing to do."""
    if "RANK" not in os.environ or active():
        yield
        return
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def environment_rank() -> int:
    """This process's number as torchrun gives it, also before `session`."""
    return int(os.environ.get("RANK", "0"))
