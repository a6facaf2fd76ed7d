"""The few collective operations that an algorithm may need; identities in a single process."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fewlabels.runtime.ranks import Line, Lost, Place, meet, place, under

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")


@dataclass
class _Met:
    """The ranks that have met."""

    here: Place
    store: Store
    line: Line
    told: int = 0
    """How many values of rank 0 went through the store."""
    sessions: int = 0


_met: _Met | None = None
"""Those of the meeting that is open."""


def active() -> bool:
    return dist.is_available() and dist.is_initialized()


def world() -> int:
    """Number of ranks that train together."""
    if _met is not None:
        return _met.here.world
    return dist.get_world_size() if active() else 1


def rank() -> int:
    if _met is not None:
        return _met.here.rank
    return dist.get_rank() if active() else 0


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks, ``[n, ...] -> [world * n, ...]``, in rank order, without gradient."""
    if not active():
        return x
    x = x.detach().contiguous()
    out = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(out, x)
    return torch.cat(out)


class _Rows(torch.autograd.Function):
    """Rows of all ranks; what any rank's loss says of them goes back to the rank that they came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(world())[rank()]


def joined(x: Tensor) -> Tensor:
    """Rows of all ranks as `gather` gives them, with gradient: each rank's own rows get that of the mean over the ranks
    of their losses, once the gradients of the weights are averaged over the ranks. All ranks go backward through it."""
    return _Rows.apply(x) if active() else x


def mean(x: Tensor) -> Tensor:
    """Mean over the ranks of a tensor of the same shape, without gradient."""
    if not active():
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world()


def maximum(x: Tensor) -> Tensor:
    """Largest value over the ranks."""
    if not active():
        return x
    x = x.detach().clone()
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def agree(value: int) -> int:
    """Largest over the ranks of a number of the host, 0 or more; waits for them, not for the device.

    Raises Lost when a rank is gone.
    """
    if _met is not None:
        return _met.line.agree(value)
    if not active():
        return value
    values = [0] * world()  # a group that the caller's own program has made
    dist.all_gather_object(values, value)
    return max(values)


def from_first(value: T) -> T:
    """Rank 0's value (what can be pickled), on all ranks. Raises Lost when a rank is gone."""
    if active():
        barrier()
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]
    if _met is None or world() == 1:
        return value
    _met.told += 1
    key = f"value {_met.told}"
    if rank() == 0:
        _met.store.set(key, pickle.dumps(value))  # type: ignore[arg-type]  # bytes do
    barrier()
    if rank() != 0:
        value = pickle.loads(_met.store.get(key))
    barrier()
    if rank() == 0:
        _met.store.delete_key(key)
    return value


def on_first(work: Callable[[], T]) -> T:
    """What `work` gives on rank 0 (what can be pickled), on all ranks; what it raises there is raised on all."""
    if world() == 1:
        return work()
    value: T | None = None
    error: Exception | None = None
    if rank() == 0:
        try:
            value = work()
        except Exception as caught:
            error = caught
    value, error = from_first((value, error))
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def barrier() -> None:
    """Wait for the other ranks, as long as they work. Raises Lost when one is gone."""
    agree(0)


@contextlib.contextmanager
def first() -> Iterator[None]:
    """Rank 0 runs the block before the others do, so that it alone fetches and decodes what is missing.

    If it fails there, it says why, and the others raise Lost.
    """
    if rank() != 0:
        if agree(0):
            raise Lost(f"rank {rank()} stops, since rank 0 could not get what all ranks need, and says why")
        yield
        return
    try:
        yield
    except Exception:
        with contextlib.suppress(Lost):
            agree(1)
        raise
    agree(0)


@contextlib.contextmanager
def meeting() -> Iterator[None]:
    """Know the other ranks within the block, if torchrun started this process: before tensors are sent, which takes a
    `session`. An open meeting is entered by the sessions within it.

    Raises as `session`.
    """
    global _met
    here = place()
    if here is None or _met is not None or active():
        yield
        return
    store, line = meet(here)
    try:
        _met = _Met(here, store, line)
        yield
    finally:
        _met = None
        line.close()


@contextlib.contextmanager
def session(device: torch.device | str) -> Iterator[None]:
    """Join the other ranks when torchrun started this process; a single process has nothing to do.

    device: that of this rank.

    Raises:
        ValueError: for an environment that is not as torchrun sets it, or two ranks on one GPU.
        Lost: when another rank does not come or is gone.
    """
    if place() is None or active():
        yield
        return
    device = torch.device(device)
    with meeting():
        assert _met is not None
        here, store, line = _met.here, _met.store, _met.line
        _met.sessions += 1
        try:
            if device.type == "cuda":
                _check_gpus(store, line, here, device)
                line.watch()
            backend = "nccl" if device.type == "cuda" else "gloo"
            group = under(f"group {_met.sessions}", store)
            dist.init_process_group(backend, store=group, rank=here.rank, world_size=here.world)
            yield
            line.agree(0)  # none leaves before all have done their work: rank 0 may still write
        except RuntimeError as error:
            gone = line.gone(2)
            if gone is None and not re.search("gloo|NCCL", str(error)):
                raise
            raise Lost(line.sentence(gone)) from None
        finally:
            if active():
                dist.destroy_process_group()


def _check_gpus(store: Store, line: Line, here: Place, device: torch.device) -> None:
    """Raises ValueError, on all ranks, for two of them on one GPU."""
    store.set(f"GPU of rank {here.rank}", str(torch.cuda.get_device_properties(device).uuid))
    line.agree(0)
    owners: dict[bytes, int] = {}
    for rank in range(here.world):
        gpu = store.get(f"GPU of rank {rank}")
        if gpu in owners:
            raise ValueError(
                f"ranks {owners[gpu]} and {rank} have the same GPU ({gpu.decode()}): start one rank for each, and give "
                "each its own LOCAL_RANK (as torchrun does) or CUDA_VISIBLE_DEVICES"
            )
        owners[gpu] = rank


def environment_rank() -> int:
    """This process's number as torchrun gives it, also before `session`. Raises ValueError as `session` does."""
    here = place()
    return here.rank if here else 0
