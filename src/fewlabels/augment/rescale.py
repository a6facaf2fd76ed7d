"""Crop and resize back to full size, per image, bit for bit as Pillow (``src/libImaging/Resample.c``).

Pillow resizes 8-bit images in two passes, columns and then rows, each a weighted sum with weights rounded to
22 fractional bits, rounded back to bytes in between. Here each pass is a batched matrix product in float64,
which holds these integers exactly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.pixels import Shape, upload
from fewlabels.runtime.rgb import pack, unpack

Array = NDArray[np.float64]

METHODS = ("lanczos", "bicubic", "bilinear", "box", "hamming", "nearest")
_SUPPORT = {"lanczos": 3.0, "bicubic": 2.0, "bilinear": 1.0, "box": 0.5, "hamming": 1.0}
_ONE = 1 << 22


def _kernel(method: str, x: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    size = np.abs(x)
    if method == "lanczos":
        return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)
    if method == "bicubic":  # a = -0.5
        near = (1.5 * size - 2.5) * size * size + 1
        far = (((size - 5) * size + 8) * size - 4) * -0.5
        return np.where(size < 1, near, np.where(size < 2, far, 0.0))
    if method == "bilinear":
        return np.where(size < 1, 1 - size, 0.0)
    if method == "box":
        return ((x > -0.5) & (x <= 0.5)).astype(np.float64)
    return np.where(size < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)


@lru_cache(maxsize=4096)
def weights(first: int, last: int, size: int, method: str) -> NDArray[np.float32]:
    """Stretch the pixels first..last-1 to `size` pixels: weights times 2**22, whole, ``[size, size]``."""
    length = last - first
    out = np.zeros((size, size), np.float32)  # weights stay below 2**24: float32 holds them exactly
    scale = length / size
    if method == "nearest":
        # Pillow steps along by repeated addition
        at = np.add.accumulate(np.full(size, scale) - np.eye(1, size)[0] * scale * 0.5)
        out[np.arange(size), first + at.astype(np.int64)] = _ONE
        return out
    support = _SUPPORT[method]
    for i in range(size):
        centre = (i + 0.5) * scale
        begin = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), length)
        k = _kernel(method, np.arange(begin, end) - centre + 0.5)
        k = k / k.sum() * _ONE
        out[i, first + begin : first + end] = np.trunc(k + np.where(k < 0, -0.5, 0.5))
    return out


def kept(crop: Array, size: int, corner: bool) -> NDArray[np.int64]:
    """First and last + 1 of the `size` pixels that are left of each side, ``[B] -> [B, 2]``."""
    if corner:
        first = (crop * size).astype(np.int64)
        return np.stack([first, np.full_like(first, size)], 1)
    # np.rint rounds halves to even, as Python's round does in Pillow's crop
    return np.stack([np.rint(crop * size), np.rint(size * (1 - crop))], 1).astype(np.int64)


TAPS = 7
"""Most pixels that one pixel of a stretched image is made of: three on each side, and one."""


@lru_cache(maxsize=4096)
def taps(first: int, last: int, size: int, method: int) -> NDArray[np.int32]:
    """The weights that stretch the pixels first..last-1 to `size` pixels, int32 ``[size, 1 + TAPS]``, read-only.

    For each output pixel: the first input pixel, and the weights times 2**22 from there on.
    """
    out = np.zeros((size, 1 + TAPS), np.int32)
    for line, row in zip(weights(first, last, size, METHODS[method]), out, strict=True):
        begin = int(np.flatnonzero(line)[0])
        part = line[begin : begin + TAPS]
        assert not line[begin + TAPS :].any()
        row[0], row[1 : 1 + len(part)] = begin, part
    out.flags.writeable = False
    return out


def rescale(pixels: Tensor, crop: Array, method: NDArray[np.int64], shape: Shape, *, corner: bool = False) -> Tensor:
    """Cut a share of each side away and resize what is left to the old size.

    Args:
        pixels: As in `fewlabels.augment.pixels`.
        crop: Share of the width and height cut from each of the four sides, ``[B]`` in [0, 0.5); borders are
            rounded to whole pixels.
        method: Index into `METHODS`, ``[B]``.
        shape: (C, H, W).
        corner: Cut from the top and the left only, whole pixels rounded down.
    """
    channels, height, width = shape

    def matrices(size: int) -> Tensor:
        ends = kept(crop, size, corner).tolist()
        rows = [weights(*end, size, METHODS[m]) for end, m in zip(ends, method.tolist(), strict=True)]
        return upload(np.stack(rows), pixels.device).double()

    def rounded(total: Tensor) -> Tensor:
        return total.add_(_ONE / 2).div_(_ONE).floor_().clamp_(0, 255)

    n = len(pixels)
    x = unpack(pixels, shape).permute(0, 3, 1, 2).double().reshape(n, channels * height, width)
    x = rounded(x.bmm(matrices(width).mT))
    x = x.view(n, channels, height, width).transpose(1, 2).reshape(n, height, channels * width)
    x = rounded(matrices(height).bmm(x))
    return pack(x.to(torch.uint8).view(n, height, channels, width).transpose(2, 3)).view_as(pixels)
