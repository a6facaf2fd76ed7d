"""Operations that send each byte through a table of 256 entries, one table per image (and channel).

All take packed pixels, int32 ``[B, H*W]``, and return new ones; each equals Pillow's operation of that name
on 8-bit images bit for bit (``PIL/ImageOps.py`` and ``PIL/ImageEnhance.py``). Where the table is plain
arithmetic it is computed instead of looked up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.augment.pixels import grey, octets, planes
from fewlabels.runtime.rgb import RGB


def invert(packed: Tensor) -> Tensor:
    """255 - v."""
    return packed ^ RGB


def posterize(packed: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` bits (float or integer ``[B]``, 0..8) of each byte."""
    mask = (256 - (1 << (8 - bits.to(torch.int32)))) & 255
    return packed & (mask * 0x010101).view(-1, 1)


def solarize(packed: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is not below `threshold` (float ``[B]``, 0..256)."""
    at = threshold.ceil().to(torch.int32).clamp_(0, 256).view(-1, 1)  # bytes below t are those below ceil(t)
    value = octets(packed)
    high = (value >= at.clamp(max=255).to(torch.uint8)).view(torch.uint8).neg()  # 255 or 0
    high &= (at < 256).view(torch.uint8).neg()
    return high.bitwise_xor_(value).view(torch.int32) & RGB


def solarize_add(packed: Tensor, addition: Tensor) -> Tensor:
    """Add `addition` (float ``[B]``, whole, 0..255) to bytes below 128, up to 255."""
    value = octets(packed)
    more = (value.short() + addition.short().view(-1, 1)).clamp_(max=255).to(torch.uint8)
    return torch.where(value < 128, more, value).view(torch.int32) & RGB


def brightness(packed: Tensor, factor: Tensor) -> Tensor:
    """Factor times v, clipped; `factor` float32 ``[B]``, 1 keeps the image."""
    value = octets(packed).float()
    return value.mul_(factor.view(-1, 1)).clamp_(0, 255).to(torch.uint8).view(torch.int32)


def contrast(packed: Tensor, factor: Tensor) -> Tensor:
    """Away from the image's mean luminance, rounded; `factor` float32 ``[B]``, 1 keeps the image."""
    total = grey(packed).sum(1, dtype=torch.int64)
    mean = (total.double() / packed.shape[1] + 0.5).floor().float().view(-1, 1)
    value = octets(packed).float().sub_(mean).mul_(factor.view(-1, 1)).add_(mean)
    return value.clamp_(0, 255).to(torch.uint8).view(torch.int32) & RGB


def autocontrast(packed: Tensor) -> Tensor:
    """Stretch each channel to 0..255."""
    channel = torch.stack(planes(packed), 1)
    low, high = channel.amin(-1, keepdim=True), channel.amax(-1, keepdim=True)
    i = torch.arange(256, device=packed.device, dtype=torch.float64)
    span = high - low
    # a tensor of 255s, because torch computes 255.0 / tensor as 255 * (1 / tensor), which rounds twice
    scale = torch.full_like(span, 255, dtype=torch.float64) / span.clamp(min=1)
    table = (i * scale - low * scale).clamp_(0, 255)
    return _look_up(_cells(channel), torch.where(span > 0, table, i).to(torch.int32))


def equalize(packed: Tensor) -> Tensor:
    """Flatten each channel's histogram."""
    cells = _cells(torch.stack(planes(packed), 1))
    count = _histogram(cells)
    below = count.cumsum(-1) - count
    i = torch.arange(256, device=packed.device)
    last = torch.where(count > 0, i, -1).amax(-1, keepdim=True)
    step = (packed.shape[1] - count.gather(-1, last)) // 255
    divisor = step.clamp(min=1)
    # small images give entries above 255, which Pillow clips
    table = ((divisor // 2 + below) // divisor).clamp_(0, 255)
    return _look_up(cells, torch.where(step > 0, table, i).to(torch.int32))


def _cells(channel: Tensor) -> Tensor:
    """Bytes, int32 ``[B, 3, H*W]``, to indices into all tables of the batch, ``[B * 3 * 256]``; in place."""
    n, c, _ = channel.shape
    start = torch.arange(0, n * c * 256, 256, device=channel.device, dtype=torch.int32)
    return channel.add_(start.view(n, c, 1))


def _histogram(cells: Tensor) -> Tensor:
    """int64 ``[B, 3, 256]``."""
    n, c, _ = cells.shape
    index, size = cells.flatten(), n * c * 256
    if cells.device.type == "cpu":
        return torch.bincount(index, minlength=size).view(n, c, 256)
    # bincount would wait for the device
    count = torch.zeros(size, dtype=torch.int64, device=cells.device)
    return count.scatter_add_(0, index.long(), torch.ones_like(index, dtype=torch.int64)).view(n, c, 256)


def _look_up(cells: Tensor, table: Tensor) -> Tensor:
    """Packed pixels from `_cells` and int32 tables ``[B, 3, 256]``."""
    table = table << torch.arange(0, 24, 8, dtype=torch.int32, device=table.device).view(3, 1)
    red, green, blue = table.flatten().index_select(0, cells.flatten()).view_as(cells).unbind(1)
    return red | green | blue
