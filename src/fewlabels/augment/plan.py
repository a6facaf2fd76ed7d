"""What a view does to a batch, as one value that every way of executing it understands.

`run` groups the images by operation, on any device; `kernel` does the same in one Triton kernel. The bits are the same.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment import ops
from fewlabels.augment.pixels import HALF, MIDDLE, Shape, fill_value, octets, upload
from fewlabels.augment.warp import flip_shift, rectangle
from fewlabels.runtime.rgb import RGB, packable

Colour = tuple[int, int, int]

_SCALED = np.arange(256, dtype=np.float32) * np.float32(2 / 255) - np.float32(1)
TRUNCATED: NDArray[np.uint8] = ((_SCALED * np.float32(0.5) + np.float32(0.5)) * np.float32(255)).astype(np.uint8)
"""Bytes after google's way to [-1, 1] and back in float32 without rounding: 47 of them lose 1."""


class Plan(NamedTuple):
    """Flip and shift, operations slot by slot, one rectangle; B images. An array with no columns: nothing to do."""

    moves: NDArray[np.int32]
    """``[B, 3]``: flip (0 or 1), rows and columns off centre."""
    op: NDArray[np.int64]
    """``[B, slots]``, members of `ops.Op`."""
    value: NDArray[np.float64]
    """``[B, slots]``, magnitudes in the units named in `Op`."""
    place: NDArray[np.int64]
    """``[B, slots, 2]``, further integers of some operations."""
    box: NDArray[np.int32]
    """``[B, 4]``: x0, y0, x1, y1, the last column and row included."""
    colour: Colour | None = ops.GREY
    """What the rectangle is painted with; None for `pixels.MIDDLE`."""
    fill: Colour | None = (0, 0, 0)
    """What warps uncover; None: transparent pixels, which end as `pixels.MIDDLE`."""
    truncates: bool = False
    """Whether bytes come in through `TRUNCATED`."""
    moves_last: bool = False
    """Whether flip and shift come last, else first."""
    black: bool = False
    """Whether a shift leaves a black border, else a reflected one."""


def only_moves(moves: NDArray[np.int32], *, black: bool = False) -> Plan:
    """A plan of flips and shifts."""
    n = len(moves)
    nothing = np.zeros((n, 0), np.int32)
    return Plan(moves, nothing.astype(np.int64), np.zeros((n, 0)), np.zeros((n, 0, 2), np.int64), nothing, black=black)


def paint(colour: Colour | None, shape: Shape) -> int:
    """The number that paints `colour`, None for the middle, into pixels of this shape."""
    packed = packable(shape[0])
    if colour is None:
        return MIDDLE if packed else 127
    if shape[0] == 1:  # Pillow's luminance, `pixels.grey`
        colour = ((19595 * colour[0] + 38470 * colour[1] + 7471 * colour[2] + 32768) >> 16,) * 3
    return fill_value(packed, colour)


def run(pixels: Tensor, plan: Plan, shape: Shape) -> Tensor:
    """New pixels of the images in `pixels` (`fewlabels.augment.pixels`), which stay as they are."""

    def moved(pixels: Tensor) -> Tensor:
        if not plan.moves.shape[1]:
            return pixels
        return flip_shift(pixels, upload(plan.moves, pixels.device), shape, black=plan.black)

    before = pixels
    pixels = pixels if plan.moves_last else moved(pixels)
    if plan.truncates and packable(shape[0]):
        pixels = truncated(pixels)
    if pixels is before and (plan.op.shape[1] or plan.box.shape[1]):
        pixels = pixels.clone()
    fill = uncovered(plan, shape)
    for slot in range(plan.op.shape[1]):
        pixels = ops.apply(pixels, plan.op[:, slot], plan.value[:, slot], shape, plan.place[:, slot], fill)
    if fill & HALF:
        pixels = torch.where(pixels >= HALF, MIDDLE, pixels)
    if plan.box.shape[1]:
        pixels = rectangle(pixels, upload(plan.box, pixels.device), shape, paint(plan.colour, shape))
    return moved(pixels) if plan.moves_last else pixels


def uncovered(plan: Plan, shape: Shape) -> int:
    """What a warp leaves where there was no pixel: `plan.fill` as a number, `pixels.HALF` for transparent."""
    return HALF if plan.fill is None and packable(shape[0]) else paint(plan.fill, shape)


@cache
def truncation(device: torch.device) -> Tensor:
    """`TRUNCATED` on a device."""
    return upload(TRUNCATED, device)


def truncated(packed: Tensor) -> Tensor:
    """Each byte through `TRUNCATED`."""
    byte = octets(packed)
    return truncation(packed.device).index_select(0, byte.flatten().int()).view_as(byte).view(torch.int32) & RGB
