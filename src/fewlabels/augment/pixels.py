"""Images on their way through the views, and the step from there to the network's input.

Packed pixels (`fewlabels.runtime.rgb`) make a geometric move one gather per pixel instead of three, and posterize or
invert act on the whole pixel. On grey ones, (v, v, v), every operation gives what Pillow gives for mode "L".

The fourth byte is free, and views in the manner of google-research/fixmatch use it: there uncovered pixels end
as exactly 0 in [-1, 1], which is 127.5, no byte. A fourth byte of 1 (`HALF`) makes the pixel half a level
brighter, so that `MIDDLE` is that grey; `Normalize` reads it, `unpack` shows 127.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.runtime.rgb import RGB, packable

Shape = tuple[int, int, int]
"""(C, H, W) of the images."""

HALF = 1 << 24
"""Half a level more. While a view works, the mark of a transparent pixel (alpha 0)."""
MIDDLE = 0x7F7F7F | HALF
"""(127.5, 127.5, 127.5), packed."""


def octets(packed: Tensor) -> Tensor:
    """The bytes of packed pixels, uint8 ``[B, 4*H*W]``; shares memory."""
    return packed.contiguous().view(torch.uint8)


def planes(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Red, green and blue of packed pixels, each int32 ``[B, H*W]`` in 0..255."""
    return packed & 255, (packed >> 8) & 255, packed >> 16  # the top byte is 0: no sign to mask away


def join(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Packed pixels from planes in 0..255; the inverse of `planes`."""
    return red | (green << 8) | (blue << 16)


def grey(packed: Tensor) -> Tensor:
    """Luminance of packed pixels, int32 ``[B, H*W]``: ITU-R 601-2 in 16 bits, rounded, as Pillow's "L"."""
    red, green, blue = planes(packed)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def fill_value(packed: bool, colour: tuple[int, int, int]) -> int:
    """The number that paints `colour` (r, g, b) into pixels: a packed word, else the mean level."""
    if packed:
        return colour[0] | (colour[1] << 8) | (colour[2] << 16)
    return round(sum(colour) / 3)


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on the device, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Normalize(nn.Module):
    """Pixels to the network's input: ``(v / 255 - mean) / std``, float32 ``[B, C, H, W]``, channels last.

    Args:
        shape: (C, H, W) of the images.
        mean: Per channel, in units of pixels in [0, 1]; C numbers.
        std: Likewise; C positive numbers.
        halves: Whether pixels may be marked `HALF`.
    """

    mean: Tensor
    std: Tensor
    _scale: Tensor
    _bias: Tensor

    def __init__(self, shape: Shape, mean: Sequence[float], std: Sequence[float], halves: bool = False) -> None:
        super().__init__()
        channels, _, width = shape
        if len(mean) != channels or len(std) != channels or min(std) <= 0:
            raise ValueError(
                f"mean and std must be {channels} numbers each, std above 0, not {list(mean)}, {list(std)}."
            )
        self.shape, self.halves = shape, halves
        m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.register_buffer("mean", m.float())
        self.register_buffer("std", s.float())
        # One row of pixels at a time: a multiply-add over C numbers alone would not vectorise.
        self.register_buffer("_scale", (1 / (255 * s)).float().repeat(width), persistent=False)
        self.register_buffer("_bias", (-m / s).float().repeat(width), persistent=False)

    @property
    def scale(self) -> Tensor:
        """What a level 0..255 is multiplied with, float32 ``[C]``."""
        return self._scale[: self.shape[0]]

    @property
    def bias(self) -> Tensor:
        """What is then added, float32 ``[C]``."""
        return self._bias[: self.shape[0]]

    def forward(self, pixels: Tensor) -> Tensor:
        channels, height, width = self.shape
        n = len(pixels)
        out = torch.empty(n, height * width, channels, device=pixels.device)
        if packable(channels):
            half = (pixels >> 24) * 0.5 if self.halves else None
            for c, plane in enumerate(planes(pixels & RGB if self.halves else pixels)[:channels]):
                out[..., c] = plane if half is None else plane + half
        else:
            out.copy_(pixels)
        rows = out.view(n * height, width * channels)
        rows.mul_(self._scale).add_(self._bias)
        return out.view(n, height, width, channels).permute(0, 3, 1, 2)
