"""Pictures of many sizes brought to one on the device, bit for bit as `crops.cut` does it with Pillow (``Resample.c``).

Decoding leaves little time for anything else on the host: there a crop is cut out only, and resized here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ONE = 1 << 22
"""Weights are whole numbers of this part."""

AT_ONCE = 1 << 24
"""Values of the first pass, at most, that are worked on at once."""


@lru_cache(maxsize=4096)
def taps(count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """How `count` pixels become `size`: for each new one the first old one, ``[size]``, and the weights from there on,
    times 2**22, ``[size, K]``; read-only."""
    scale = count / size
    wide = max(scale, 1.0)
    support = 2 * wide
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), count)
    at = first[:, None] + np.arange(int((end - first).max()))
    x = np.abs((at - centre[:, None] + 0.5) * (1 / wide))
    weight = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0.0))
    weight[at >= end[:, None]] = 0
    weight /= np.cumsum(weight, 1)[:, -1:]  # one after the other, as in C
    whole = np.trunc(weight * _ONE + np.where(weight < 0, -0.5, 0.5)).astype(np.int32)
    first.flags.writeable = whole.flags.writeable = False
    return first, whole


def resized(
    flat: Tensor, shapes: Sequence[tuple[int, int]], size: tuple[int, int], channels: int, mirror: NDArray[np.bool_]
) -> Tensor:
    """uint8 ``[B, H, W, C]`` of `size` (H, W) from pictures that lie one after the other in `flat`, uint8 ``[bytes]``.

    shapes: (h, w) of each; mirror: ``[B]``, which of them are mirrored afterwards.
    """
    height, width = size
    out = torch.empty(len(shapes), height, width, channels, dtype=torch.uint8, device=flat.device)
    start = done = 0
    while done < len(shapes):
        stop, rows = done, 0
        while stop < len(shapes) and (stop == done or (rows + shapes[stop][0]) * width * channels <= AT_ONCE):
            rows += shapes[stop][0]
            stop += 1
        some = shapes[done:stop]
        used = sum(h * w * channels for h, w in some)
        out[done:stop] = _some(flat[start : start + used], some, size, channels, mirror[done:stop])
        start, done = start + used, stop
    return out


def _some(
    flat: Tensor, shapes: Sequence[tuple[int, int]], size: tuple[int, int], channels: int, mirror: NDArray[np.bool_]
) -> Tensor:
    height, width = size
    tall, wide = (np.array([shape[axis] for shape in shapes]) for axis in (0, 1))
    row0 = np.cumsum(tall) - tall
    start = np.cumsum(tall * wide * channels) - tall * wide * channels
    picture = np.repeat(np.arange(len(shapes)), tall)
    row = start[picture] + (np.arange(len(picture)) - row0[picture]) * wide[picture] * channels

    def on_device(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(flat.device, non_blocking=True)

    def tables(counts: NDArray[np.int64], to: int, turned: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        found = [taps(int(count), to) for count in counts]
        most = max(weights.shape[1] for _, weights in found)
        firsts = np.stack([first[::-1] if turn else first for (first, _), turn in zip(found, turned, strict=True)])
        weights = np.zeros((len(found), to, most), np.int32)
        for table, (_, values), turn in zip(weights, found, turned, strict=True):
            table[:, : values.shape[1]] = values[::-1] if turn else values
        return on_device(firsts), on_device(weights)

    which, begin = on_device(picture), on_device(row)
    first, weights = tables(wide, width, mirror)
    at = (begin[:, None] + first[which] * channels)[..., None] + torch.arange(channels, device=flat.device)
    total = torch.full(at.shape, _ONE >> 1, dtype=torch.int32, device=flat.device)
    for k in range(weights.shape[2]):  # beyond a picture's own the weights are 0
        total += flat[(at + k * channels).clamp_(max=len(flat) - 1)].int() * weights[:, :, k][which][..., None]
    columns = (total >> 22).clamp_(0, 255).to(torch.uint8)

    first, weights = tables(tall, height, np.zeros_like(mirror))
    at = on_device(row0)[:, None] + first
    total = torch.full((len(shapes), height, width, channels), _ONE >> 1, dtype=torch.int32, device=flat.device)
    for k in range(weights.shape[2]):
        total += columns[(at + k).clamp_(max=len(columns) - 1)].int() * weights[:, :, k][..., None, None]
    return (total >> 22).clamp_(0, 255).to(torch.uint8)
