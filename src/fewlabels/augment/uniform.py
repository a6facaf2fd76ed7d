"""The operations without sizes that depend on the draw: every one on all images, each image keeping its own.

Several times the work of `ops.apply`, but always the same sequence of calls on tensors of the same sizes, so that
it can be compiled and recorded in a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment import blend, ops, warp
from fewlabels.augment.ops import Op
from fewlabels.augment.pixels import HALF, Shape, fill_value, upload
from fewlabels.augment.rescale import METHODS, rescale

_NEAREST = METHODS.index("nearest")


def apply(
    pixels: Tensor,
    op: NDArray[np.int64],
    value: NDArray[np.float64],
    shape: Shape,
    place: NDArray[np.int64],
    fill: int = 0,
) -> Tensor:
    """As `ops.apply`, but gives new pixels."""
    group = ops.groups(shape)[op]
    warped, cut = group == Op.ROTATE, group == Op.CUTOUT
    coefficients = np.zeros((len(op), 6), np.int32)
    coefficients[:] = warp.fixed_point(np.array([[1.0, 0, 0, 0, 1, 0]]))
    coefficients[warped] = warp.fixed_point(ops.matrices(op[warped], value[warped], shape))
    boxes = np.where(cut[:, None], ops.square(np.where(cut, value, 0), place), -1)
    code, magnitude = upload(group, pixels.device), upload(value.astype(np.float32), pixels.device)
    clear = fill & HALF
    mark = pixels & HALF if clear else None
    opaque = pixels if mark is None else pixels ^ mark

    def chosen(which: Op, image: Tensor, out: Tensor) -> Tensor:
        mine = (code == which).view(-1, *[1] * (pixels.ndim - 1))
        return torch.where(mine, image, out)

    out = chosen(Op.ROTATE, warp.affine(pixels, upload(coefficients, pixels.device), shape, fill), pixels)
    grey = fill_value(pixels.ndim == 2, ops.GREY) | clear
    out = chosen(Op.CUTOUT, warp.rectangle(pixels.clone(), upload(boxes, pixels.device), shape, grey), out)
    for which in (Op.RESCALE, Op.ZOOM):
        mine, zoom = group == which, which == Op.ZOOM
        method = np.where(mine, ops.BICUBIC if zoom else place[:, 0], _NEAREST)
        image = rescale(pixels, np.where(mine, value, 0), method, shape, corner=zoom)
        out = chosen(which, image, out)
    if pixels.ndim == 3:
        return out
    for which, partial in ops.PARTIAL.items():
        image = blend.blend(opaque, partial(opaque, shape), torch.where(code == which, magnitude, 1))
        out = chosen(which, image, out)
    for which, point in ops.POINT.items():
        image = point(opaque, torch.where(code == which, magnitude, 1), shape)
        if mark is not None and which in ops.SEES_ALPHA:
            image = image | mark
        out = chosen(which, image, out)
    return out
