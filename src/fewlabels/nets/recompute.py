"""What the backward pass needs of a forward pass: how much is kept, and nets that compute it anew instead.

Activation checkpointing (Chen et al. 2016, https://arxiv.org/abs/1604.06174), as timm's nets have it: of each block
only the input is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from fewlabels.nets.zoo import ZooNet, build, check_parts

T = TypeVar("T")


def kept(forward: Callable[[], T], weights: Iterable[Tensor]) -> tuple[T, int]:
    """What `forward` gives, and the bytes that are kept for its backward pass beside the weights."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = forward()
    own = {weight.untyped_storage()._cdata for weight in weights}
    return found, sum(size for storage, size in storages.items() if storage not in own)


def recompute(net: nn.Module) -> None:
    """Have the net keep the inputs of its blocks only. It is one of which `check_parts` says that it can."""
    assert isinstance(net, ZooNet)
    net.backbone.set_grad_checkpointing(True)  # type: ignore[operator]


def share_kept(name: str, shape: tuple[int, int, int], patch: int | None = None) -> float | None:
    """How much of what a net keeps for images of `shape` (C, H, W) it would keep with `recompute`; None where it
    cannot.

    By the sizes of the tensors alone, in float32 and with attention by its formula, whose matrices a GPU does not keep.
    """
    try:
        check_parts(name, recompute=True)
    except ValueError:
        return None
    with torch.device("meta"):
        net = build(name, classes=2, shape=shape, patch=patch).train()
        images = torch.empty(2, *shape)
        _, before = kept(lambda: net.features(images), net.parameters())
        recompute(net)
        _, after = kept(lambda: net.features(images), net.parameters())
    return after / before
