"""How much a training step computes and moves, counted on the net itself, and how fast it could be at best.

The net runs on the meta device, where operations have shapes and no numbers; each one that the forward and the
backward pass dispatch is counted. The bound is a roofline (Williams et al. 2009): an operation takes the longer
of its multiply-adds at the device's matrix rate and of its bytes at the device's bandwidth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Op(NamedTuple):
    """One operation: floating-point operations, and elements read and written once by each of its kernels."""

    name: str
    flops: int
    elements: int
    fused: bool
    """Whether a compiler does it on the way, in the pass that made or uses its tensor."""


class Count(NamedTuple):
    ops: tuple[Op, ...]

    @property
    def flops(self) -> int:
        return sum(op.flops for op in self.ops)

    def elements(self, *, compiled: bool) -> int:
        return sum(op.elements for op in self.ops if not (compiled and op.fused))

    def seconds(self, flops: float, bandwidth: float, *, bytes_each: int, compiled: bool) -> float:
        """At best, at so many floating-point operations and bytes a second: operation by operation."""
        return sum(
            max(op.flops / flops, op.elements * bytes_each / bandwidth)
            for op in self.ops
            if not (compiled and op.fused)
        )


_ACTIVATIONS = ("relu", "leaky_relu", "threshold", "silu", "gelu", "elu", "hardtanh")


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if (op := _count(name, args, out)) is not None:
            self.ops.append(op)
        return out


def _count(name: str, args: Any, out: Any) -> Op | None:
    """Kernels of large tensors: convolutions, matrix products, norms, activations, sums; the rest is small."""
    if name == "convolution":
        x, weight = args[0], args[1]
        return Op(name, 2 * _macs(out, weight), x.numel() + out.numel(), False)
    if name == "convolution_backward":
        grad, x, weight, mask = args[0], args[1], args[2], args[-1]
        kernels = int(mask[0]) + int(mask[1])  # gradients of the input and of the weights, a kernel each
        return Op(name, 2 * _macs(grad, weight) * kernels, kernels * (x.numel() + grad.numel()), False)
    if name in ("mm", "addmm"):
        a, b = args[-2], args[-1]
        return Op(name, 2 * a.numel() * b.shape[-1], a.numel() + b.numel() + a.shape[0] * b.shape[-1], False)
    if "batch_norm" in name:
        first = args[0]
        passes = 5 if "backward" in name else 3  # statistics read the input once more than the rest
        return Op(name, 0, passes * first.numel(), False)
    if name.removesuffix("_backward").rstrip("_") in _ACTIVATIONS:
        return Op(name, 0, (3 if "backward" in name else 2) * args[0].numel(), True)
    if name in ("add", "add_") and isinstance(args[1], Tensor) and args[0].ndim == 4 and args[0].shape == args[1].shape:
        return Op(name, 0, 3 * args[0].numel(), False)
    return None


def _macs(out: Tensor, weight: Tensor) -> int:
    """Multiply-adds of a convolution: each output element, times the weights that one output channel has."""
    return int(out.numel() * weight[0].numel())


@contextmanager
def _counting() -> Iterator[list[Op]]:
    counter = _Counter()
    with counter:
        yield counter.ops


def forward(net: nn.Module, rows: int, shape: tuple[int, int, int]) -> Count:
    """A forward pass of a copy of `net` on the meta device."""
    with _counting() as ops, torch.no_grad():
        _meta(net)(torch.empty(rows, *shape, device="meta"))
    return Count(tuple(ops))


def both(net: nn.Module, rows: int, shape: tuple[int, int, int]) -> Count:
    """Forward and backward."""
    net = _meta(net)
    with _counting() as ops:
        net(torch.empty(rows, *shape, device="meta")).sum().backward()
    return Count(tuple(ops))


def step(net: nn.Module, shape: tuple[int, int, int], *, batch: int, uratio: int, separate: bool) -> Count:
    """FixMatch's step; `separate`: the weak view passes without gradient."""
    m = batch * uratio
    if separate:
        return Count(both(net, batch + m, shape).ops + forward(net, m, shape).ops)
    return both(net, batch + 2 * m, shape)


def _meta(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).to("meta").train()
