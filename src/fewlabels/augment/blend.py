"""Operations that blend an image with a degenerate copy of itself, and the filters that make such copies.

All take packed pixels, int32 ``[B, H*W]``, and return new ones; each equals Pillow's operation bit for bit
(``PIL/ImageEnhance.py``, ``PIL/ImageFilter.py``, ``src/libImaging/Blend.c`` and ``Filter.c``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.augment.pixels import Shape, grey, octets
from fewlabels.runtime.rgb import spread


def blend(low: Tensor, high: Tensor, factor: Tensor) -> Tensor:
    """low + factor (high - low) per byte, clipped, truncated; `factor` float32 ``[B]``, any real number."""
    base = octets(low).float()
    value = octets(high).float().sub_(base).mul_(factor.view(-1, 1)).add_(base)
    return value.clamp_(0, 255).to(torch.uint8).view(torch.int32)


def colour(packed: Tensor, factor: Tensor) -> Tensor:
    """Away from the grey image; `factor` 1 keeps the image, 0 gives grey."""
    return blend(spread(grey(packed)), packed, factor)


def sharpness(packed: Tensor, factor: Tensor, shape: Shape) -> Tensor:
    """Away from the smoothed image; `factor` 1 keeps the image, 0 smooths it."""
    return blend(smooth(packed, shape), packed, factor)


def smooth(packed: Tensor, shape: Shape) -> Tensor:
    """3x3 mean with weight 5 in the centre, over 13, rounded; the outermost pixels stay."""
    _, height, width = shape
    out = packed.clone()
    if min(height, width) < 3:
        return out
    image = packed.view(-1, height, width)
    red_blue, green = (
        image & 0xFF00FF,
        (image >> 8) & 0xFF,
    )  # two 16-bit lanes a word, for sums below 4096

    def total(lane: Tensor) -> Tensor:
        s = lane[:, :-2] + lane[:, 1:-1] + lane[:, 2:]
        s = s[:, :, :-2] + s[:, :, 1:-1] + s[:, :, 2:]
        return s.add_(lane[:, 1:-1, 1:-1], alpha=4)

    def mean(s: Tensor) -> Tensor:
        return ((s + 6) * 20165) >> 18  # (s + 6) // 13 for every sum up to 13 * 255

    rb, g = total(red_blue), total(green)
    out.view_as(image)[:, 1:-1, 1:-1] = mean(rb & 0xFFFF) | (mean(rb >> 16) << 16) | (mean(g) << 8)
    return out


def blur(packed: Tensor, shape: Shape) -> Tensor:
    """Mean of the 16 pixels on the rim of a 5x5 square, rounded; the two outermost pixels stay."""
    _, height, width = shape
    out = packed.clone()
    if min(height, width) < 5:
        return out
    image = packed.view(-1, height, width)

    def mean(lane: Tensor) -> Tensor:
        columns = lane[:, :, :-4] + lane[:, :, 1:-3] + lane[:, :, 2:-2] + lane[:, :, 3:-1] + lane[:, :, 4:]
        rim = columns[:, :-4] + columns[:, 4:]
        for row in (slice(1, -3), slice(2, -2), slice(3, -1)):
            rim = rim + lane[:, row, :-4] + lane[:, row, 4:]
        return rim

    rb, g = mean(image & 0xFF00FF) + 0x080008, mean((image >> 8) & 0xFF) + 8
    out.view_as(image)[:, 2:-2, 2:-2] = ((rb >> 4) & 0xFF00FF) | ((g >> 4) << 8)
    return out
