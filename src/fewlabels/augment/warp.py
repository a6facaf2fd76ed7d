"""Geometry: every image of the batch moves by its own matrix, in one gather.

The nearest-neighbour affine map is Pillow's, which computes in 16.16 fixed point (its
``src/libImaging/Geometry.c``); with the same integer coefficients the same pixels are read.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.pixels import Shape, upload


@cache
def _axes(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    y = torch.arange(height, dtype=torch.int32, device=device).view(1, height, 1)
    x = torch.arange(width, dtype=torch.int32, device=device).view(1, 1, width)
    return y, x


def _starts(rows: int, pixels: int, device: torch.device) -> Tensor:
    """Where each row's pixels begin in the flattened batch, int32 ``[rows, 1, 1]``."""
    return torch.arange(0, rows * pixels, pixels, dtype=torch.int32, device=device).view(rows, 1, 1)


def _take(pixels: Tensor, index: Tensor) -> Tensor:
    """Pixels by their index ``[B, H, W]`` into the flattened batch."""
    return pixels.flatten(0, 1).index_select(0, index.flatten()).view_as(pixels)


def check_shift(shift: int, shape: Shape) -> None:
    """ValueError unless images of this shape can be reflected by `shift` pixels."""
    _, height, width = shape
    if not 0 <= shift < min(height, width):
        raise ValueError(
            f"shift must be at least 0 and below the smaller image side, {min(height, width)}, not {shift}."
        )


def _reflect(at: Tensor, size: int) -> Tensor:
    at = at.abs()
    return torch.where(at >= size, 2 * (size - 1) - at, at)


def flip_shift(pixels: Tensor, moves: Tensor, shape: Shape, *, black: bool = False) -> Tensor:
    """Left-right flip, then a shift whose uncovered border is reflected without repeating the edge pixel.

    Args:
        pixels: As in `fewlabels.augment.pixels`.
        moves: int32 ``[B, 3]``: flip (0 or 1); rows and columns by which the image is read off centre (the
            offset of a padded crop minus the padding), each less than min(H, W) in size.
        shape: (C, H, W).
        black: Leave the border black instead.
    """
    _, height, width = shape
    y, x = _axes(height, width, pixels.device)
    flip, dy, dx = moves.view(-1, 3, 1, 1).unbind(1)
    row = _reflect(y + dy, height)
    column = _reflect(x + dx, width)
    column = torch.where(flip > 0, width - 1 - column, column)
    start = _starts(len(pixels), height * width, pixels.device)
    out = _take(pixels, (row * width + start) + column)
    if not black:
        return out
    row, column = y + dy, x + dx
    return _paint(out, (row | (height - 1 - row) | column | (width - 1 - column)) >> 31, 0)


def fixed_point(matrix: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pillow's 16.16 coefficients of affine maps (a, b, c, d, e, f): ``[n, 6]`` to int32 ``[n, 6]``.

    Output pixel (x, y) is read at (a x + b y + c, d x + e y + f), where pixel centres lie at half-integers.
    Pillow takes another route, in floating point, for maps without rotation or shear; there a whole-pixel
    translation equal to what it reads is stored instead.
    """
    a, b, c, d, e, f = matrix.T
    plain = (b == 0) & (d == 0) & (a == 1) & (e == 1)
    c = np.where(plain, np.floor(c + 0.5), c)
    f = np.where(plain, np.floor(f + 0.5), f)
    six = np.stack([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5], 1)
    return np.floor(six * 65536.0 + 0.5).astype(np.int32)


def affine(pixels: Tensor, coefficients: Tensor, shape: Shape, fill: int = 0) -> Tensor:
    """Nearest-neighbour affine map, one per image.

    Args:
        pixels: As in `fewlabels.augment.pixels`.
        coefficients: int32 ``[B, 6]`` from `fixed_point`.
        shape: (C, H, W), each side below 32768.
        fill: What uncovered pixels become (`pixels.fill_value`).
    """
    _, height, width = shape
    y, x = _axes(height, width, pixels.device)
    a, b, c, d, e, f = coefficients.view(-1, 6, 1, 1).unbind(1)
    column = (a * x + (b * y + c)) >> 16
    row = (d * x + (e * y + f)) >> 16
    # negative just where the source is outside; masks of whole words are faster than booleans
    outside = (column | (width - 1 - column) | row | (height - 1 - row)) >> 31
    start = _starts(len(pixels), height * width, pixels.device)
    out = _take(pixels, (row * width + start).add_(column).bitwise_and_(~outside))
    return _paint(out, outside, fill)


def _paint(pixels: Tensor, where: Tensor, fill: int | Tensor) -> Tensor:
    """`fill`, or that of each image ``[B]``, where the int32 mask ``[B, H, W]`` is -1 (elsewhere it is 0), in place."""
    if isinstance(fill, Tensor):
        fill = fill.to(pixels.dtype).view(-1, *[1] * (pixels.ndim - 1))
    mask = where.view(len(pixels), -1)
    if pixels.ndim == 3:
        mask = mask.to(torch.uint8).unsqueeze(-1)
    return pixels.bitwise_xor_((pixels ^ fill).bitwise_and_(mask))


def rectangle(pixels: Tensor, box: Tensor, shape: Shape, fill: int | Tensor) -> Tensor:
    """Paint one rectangle per image, in place.

    Args:
        pixels: As in `fewlabels.augment.pixels`.
        box: Integer ``[B, 4]``: x0, y0, x1, y1, the last column and row included, as Pillow draws. What lies
            outside the image is ignored; x1 < x0 paints nothing.
        shape: (C, H, W).
        fill: See `pixels.fill_value`; of all images, or of each, integer ``[B]``.
    """
    _, height, width = shape
    y, x = _axes(height, width, pixels.device)
    x0, y0, x1, y1 = box.view(-1, 4, 1, 1).unbind(1)
    inside = -((x >= x0) & (x <= x1)).int() & -((y >= y0) & (y <= y1)).int()
    return _paint(pixels, inside, fill)


def bilinear(images: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear affine map with black outside, one per image.

    Args:
        images: Float ``[B, C, H, W]``.
        matrix: Float ``[B, 2, 3]``; output (x, y) is read at ``matrix @ (x, y, 1)``, in pixels off centre.
    """
    height, width = images.shape[2:]
    size = upload(np.array([width, height], np.float32), matrix.device)
    # affine_grid wants coordinates in which the image spans -1..1
    linear = matrix[:, :, :2] * size.view(1, 1, 2) / size.view(1, 2, 1)
    theta = torch.cat([linear, matrix[:, :, 2:] * 2 / size.view(1, 2, 1)], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
