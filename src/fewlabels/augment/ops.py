"""Per-image operations on a batch: images are grouped by operation, each group runs one batched kernel.

Operations and magnitudes are host arrays, so the sizes of the groups are known without asking the device, and
the work is proportional to what is really applied.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment import blend, tables, warp
from fewlabels.augment.pixels import HALF, Shape, fill_value, upload
from fewlabels.augment.rescale import METHODS, rescale
from fewlabels.runtime.rgb import packable

GREY = (127, 127, 127)
BICUBIC = METHODS.index("bicubic")


class Op(IntEnum):
    """What can be done to an image; the comment names the magnitude."""

    IDENTITY = 0
    AUTOCONTRAST = auto()  # how much of it, 0..1
    EQUALIZE = auto()  # 0..1
    INVERT = auto()  # 0..1
    BLUR = auto()  # 0..1
    SMOOTH = auto()  # 0..1
    BRIGHTNESS = auto()  # factor, 1 keeps the image
    COLOR = auto()  # factor
    CONTRAST = auto()  # factor
    SHARPNESS = auto()  # factor
    POSTERIZE = auto()  # bits to keep, 0..8
    SOLARIZE = auto()  # threshold, 0..256
    ROTATE = auto()  # degrees counter-clockwise, in (-90, 90)
    SHEAR_X = auto()  # columns per row
    SHEAR_Y = auto()  # rows per column
    TRANSLATE_X = auto()  # columns, to the left
    TRANSLATE_Y = auto()  # rows, up
    RESCALE = auto()  # share cut from each side, [0, 0.5); place: index into rescale.METHODS, unused
    CUTOUT = auto()  # side; place: column and row of the centre
    SOLARIZE_ADD = auto()  # what is added to bytes below 128
    ZOOM = auto()  # share cut from the top and the left, [0, 0.5); bicubic


WARPS = (Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y)
_GEOMETRY = (*WARPS, Op.RESCALE, Op.CUTOUT, Op.ZOOM)
_GROUP = np.array([Op.ROTATE if o in WARPS else o for o in Op])  # one gather serves all warps
_GROUP_WITHOUT_COLOUR = np.where(np.isin(list(Op), _GEOMETRY), _GROUP, Op.IDENTITY)

# Operations that are blended with the original by their magnitude.
PARTIAL: dict[Op, Callable[[Tensor, Shape], Tensor]] = {
    Op.AUTOCONTRAST: lambda p, _: tables.autocontrast(p),
    Op.EQUALIZE: lambda p, _: tables.equalize(p),
    Op.INVERT: lambda p, _: tables.invert(p),
    Op.BLUR: blend.blur,
    Op.SMOOTH: blend.smooth,
}
# Operations with a magnitude of their own.
POINT: dict[Op, Callable[[Tensor, Tensor, Shape], Tensor]] = {
    Op.BRIGHTNESS: lambda p, v, _: tables.brightness(p, v),
    Op.COLOR: lambda p, v, _: blend.colour(p, v),
    Op.CONTRAST: lambda p, v, _: tables.contrast(p, v),
    Op.SHARPNESS: blend.sharpness,
    Op.POSTERIZE: lambda p, v, _: tables.posterize(p, v),
    Op.SOLARIZE: lambda p, v, _: tables.solarize(p, v),
    Op.SOLARIZE_ADD: lambda p, v, _: tables.solarize_add(p, v),
}
SEES_ALPHA = (Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS)
"""What google-research/fixmatch does in RGBA; other colour operations go through RGB, where pixels are opaque."""


def keeps_colour(channels: int) -> bool:
    """Whether images with this many channels get colour operations; others get only the geometric ones."""
    return packable(channels)


def groups(shape: Shape) -> NDArray[np.int64]:
    """For each member of `Op` the one whose kernel does its work on images of this shape, ``[len(Op)]``."""
    return _GROUP if keeps_colour(shape[0]) else _GROUP_WITHOUT_COLOUR


def apply(
    pixels: Tensor,
    op: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: Shape,
    place: NDArray[np.int64] | None = None,
    fill: int = 0,
) -> Tensor:
    """Apply one operation to each image, in place.

    Args:
        pixels: As in `fewlabels.augment.pixels`; overwritten.
        op: Members of `Op`, ``[B]``. Colour operations are the identity on images that are not packed.
        value: Magnitudes, ``[B]``, in the units named in `Op`.
        shape: (C, H, W).
        place: Further integers, ``[B, 2]``, for RESCALE and CUTOUT.
        fill: What pixels become that a warp uncovers (`pixels.fill_value`). With the bit `pixels.HALF` pixels
            can be transparent, as in Pillow's mode RGBA: what is uncovered or cut out is transparent until a
            colour operation that goes through RGB makes the whole image opaque.

    Returns:
        `pixels`.
    """
    group = groups(shape)[op]
    order = np.argsort(group, kind="stable")
    order = order[np.count_nonzero(group == Op.IDENTITY) :]
    if not len(order):
        return pixels
    op, value, group = op[order], value[order], group[order]

    # Everything the device must know goes up at once: rows, magnitudes (bits of a float32), coefficients.
    words = np.zeros((len(order), 8), np.int32)
    words[:, 0] = order
    words[:, 1] = value.astype(np.float32).view(np.int32)
    if (warped := group == Op.ROTATE).any():
        words[warped, 2:] = warp.fixed_point(matrices(op[warped], value[warped], shape))
    if place is not None:
        place = place[order]
        cut = group == Op.CUTOUT
        words[cut, 2:6] = square(value[cut], place[cut])
    table = upload(words, pixels.device)
    clear = fill & HALF

    starts = np.flatnonzero(np.diff(group, prepend=-1))
    for first, end in zip(starts, [*starts[1:], len(group)], strict=True):
        part = slice(first, end)
        rows, magnitude, six = table[part, 0], table[part, 1].view(torch.float32), table[part, 2:]
        image = pixels.index_select(0, rows)
        code = Op(group[first])
        if code is Op.ROTATE:
            image = warp.affine(image, six, shape, fill)
        elif code is Op.CUTOUT:
            image = warp.rectangle(image, six[:, :4], shape, fill_value(pixels.ndim == 2, GREY) | clear)
        elif code is Op.RESCALE:
            assert place is not None
            image = rescale(image, value[part], place[part, 0], shape)
        elif code is Op.ZOOM:
            image = rescale(image, value[part], np.full(len(rows), BICUBIC), shape, corner=True)
        else:
            alpha = image & HALF if clear else None
            if alpha is not None:
                image = image ^ alpha
            if code in PARTIAL:
                full = PARTIAL[code](image, shape)
                image = full if (value[part] == 1).all() else blend.blend(image, full, magnitude)
            else:
                image = POINT[code](image, magnitude, shape)
            if alpha is not None and code in SEES_ALPHA:
                image = image | alpha
        pixels.index_copy_(0, rows.long(), image)
    return pixels


def matrices(op: NDArray[np.int64], value: NDArray[np.float64], shape: Shape) -> NDArray[np.float64]:
    """The six affine coefficients of warps, ``[n, 6]``, as Pillow's ``transform`` and ``rotate`` define them.

    Shears and translations start at the top left corner; rotations turn about the centre.
    """
    _, height, width = shape
    matrix = np.tile(np.array([1.0, 0, 0, 0, 1, 0]), (len(op), 1))
    for code, column in ((Op.SHEAR_X, 1), (Op.TRANSLATE_X, 2), (Op.SHEAR_Y, 3), (Op.TRANSLATE_Y, 5)):
        matrix[op == code, column] = value[op == code]
    turn = op == Op.ROTATE
    angle = -np.radians(value[turn])
    cos, sin = np.cos(angle).round(15), np.sin(angle).round(15)
    x, y = width / 2, height / 2
    matrix[turn] = np.stack([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y], 1)
    return matrix


def square(side: NDArray[np.float64], centre: NDArray[np.int64]) -> NDArray[np.int64]:
    """Boxes (x0, y0, x1, y1) of the pixels from side // 2 before the centre to side // 2 - 1 after it."""
    half = (side.astype(np.int64) // 2)[:, None]
    return np.concatenate([centre - half, centre + half - 1], 1)
