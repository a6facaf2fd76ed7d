"""Packed pixels, the form in which images leave the data for the views.

Images with one or three channels are int32 words, one a pixel, with the bytes R, G, B, 0 from the lowest; grey ones are
(v, v, v). Images with any other number of channels stay bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RGB = 0xFFFFFF
"""The bits of a packed pixel's colour."""


def packable(channels: int) -> bool:
    """Whether images with this many channels are packed."""
    return channels in (1, 3)


def pack(images: Tensor) -> Tensor:
    """Images, uint8 ``[N, H, W, C]``, as pixels: int32 ``[N, H*W]``, or uint8 ``[N, H*W, C]``.

    Raises:
        ValueError: other types or dimensions.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 of dimensions N, H, W, C, not {images.dtype} {list(images.shape)}.")
    n, h, w, c = images.shape
    if c == 1:
        return spread(images.reshape(n, h * w))
    if c != 3:
        return images.reshape(n, h * w, c)
    if images.device.type == "cpu" and images.numel():
        return _words(images).view(n, h * w)
    words = torch.zeros(n, h * w, 4, dtype=torch.uint8, device=images.device)
    words[..., :3] = images.reshape(n, h * w, 3)
    return words.view(torch.int32).view(n, h * w)


def spread(levels: Tensor) -> Tensor:
    """Grey levels, whole numbers 0..255, as packed pixels of the same shape (int32)."""
    return levels.int() * 0x010101


def unpack(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Pixels as uint8 images ``[B, H, W, C]`` of `shape` (C, H, W); the inverse of `pack`."""
    c, h, w = shape
    if packable(c):
        return pixels.contiguous().view(torch.uint8).view(-1, h, w, 4)[..., :c]
    return pixels.view(-1, h, w, c)


def _words(images: Tensor) -> Tensor:
    """int32 ``[P]`` of P pixels of three channels: four bytes are read at every third, and the fourth is masked."""
    octets = images.contiguous().numpy().reshape(-1)
    words = np.empty(len(octets) // 3, np.int32)
    # The last pixel has no fourth byte.
    np.bitwise_and(np.ndarray(len(words) - 1, np.int32, octets.data, strides=(3,)), RGB, out=words[:-1])
    words[-1] = int.from_bytes(octets[-3:].tobytes(), "little")
    return torch.from_numpy(words)
