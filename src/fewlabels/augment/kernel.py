"""A whole view in one Triton kernel: one program an image, from the resident set to the net's input.

The images are read where they live; flip, shift, every operation with its own magnitude, cutout and the scaling
happen in registers and shared memory, and what is written is the normalised view, channels last. Gives the
bits of `plan.run` (which are Pillow's). Needs Triton, so it is imported only where that is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment import ops, warp
from fewlabels.augment.ops import Op
from fewlabels.augment.pixels import HALF, MIDDLE, Normalize, Shape, upload
from fewlabels.augment.plan import Plan, paint, truncation, uncovered
from fewlabels.augment.rescale import TAPS, kept, taps
from fewlabels.runtime.rgb import packable

LARGEST = 1 << 14
"""Pixels of the largest image that one program holds: 128 x 128."""
LARGEST_BEFORE_AMPERE = 1 << 12
"""The same for GPUs with 64 KiB of shared memory for a program, all of which 96 x 96 would take: 64 x 64."""

_AUTOCONTRAST = tl.constexpr(int(Op.AUTOCONTRAST))
_EQUALIZE = tl.constexpr(int(Op.EQUALIZE))
_INVERT = tl.constexpr(int(Op.INVERT))
_BLUR = tl.constexpr(int(Op.BLUR))
_SMOOTH = tl.constexpr(int(Op.SMOOTH))
_BRIGHTNESS = tl.constexpr(int(Op.BRIGHTNESS))
_COLOR = tl.constexpr(int(Op.COLOR))
_CONTRAST = tl.constexpr(int(Op.CONTRAST))
_SHARPNESS = tl.constexpr(int(Op.SHARPNESS))
_POSTERIZE = tl.constexpr(int(Op.POSTERIZE))
_SOLARIZE = tl.constexpr(int(Op.SOLARIZE))
_ROTATE = tl.constexpr(int(Op.ROTATE))
_TRANSLATE_Y = tl.constexpr(int(Op.TRANSLATE_Y))
_CUTOUT = tl.constexpr(int(Op.CUTOUT))
_RESCALE = tl.constexpr(int(Op.RESCALE))
_ZOOM = tl.constexpr(int(Op.ZOOM))
_SOLARIZE_ADD = tl.constexpr(int(Op.SOLARIZE_ADD))
_HALF = tl.constexpr(HALF)
_MIDDLE = tl.constexpr(MIDDLE)
_GREY = tl.constexpr(0x7F7F7F)


@triton.jit
def _blend(low, high, factor):
    """`low + factor (high - low)` of bytes, clipped and truncated, in the order of `blend.blend`."""
    base = low.to(tl.float32)
    mixed = (high.to(tl.float32) - base) * factor + base
    return tl.minimum(tl.maximum(mixed, 0.0), 255.0).to(tl.int32)


@triton.jit
def _stretched(v, inside):
    """Autocontrast of one channel."""
    low = tl.min(tl.where(inside, v, 255), 0)
    span = tl.max(tl.where(inside, v, 0), 0) - low
    scale = tl.full((1,), 255.0, tl.float64) / tl.maximum(span, 1).to(tl.float64)
    wide = v.to(tl.float64) * scale - low.to(tl.float64) * scale
    return tl.where(span > 0, tl.minimum(tl.maximum(wide, 0.0), 255.0).to(tl.int32), v)


@triton.jit
def _flattened(v, inside, PIXELS: tl.constexpr):
    """Equalize of one channel."""
    count = tl.histogram(v, 256, mask=inside)
    i = tl.arange(0, 256)
    last = tl.max(tl.where(count > 0, i, -1), 0)
    step = (PIXELS - tl.sum(tl.where(i == last, count, 0), 0)) // 255
    divisor = tl.maximum(step, 1)
    below = tl.cumsum(count, 0) - count
    table = tl.minimum((divisor // 2 + below) // divisor, 255)
    return tl.gather(tl.where(step > 0, table, i), v, 0)


@triton.jit
def _at(v, q, LAST: tl.constexpr):
    return tl.gather(v, tl.minimum(tl.maximum(q, 0), LAST), 0)


@triton.jit
def _mean13(v, q, W: tl.constexpr, LAST: tl.constexpr):
    """Sums of 3 x 3 with weight 5 in the centre; `v` may hold two lanes of 16 bits."""
    row = _at(v, q - 1, LAST) + v + _at(v, q + 1, LAST)
    return _at(row, q - W, LAST) + row + _at(row, q + W, LAST) + 4 * v


@triton.jit
def _smoothed(p, q, x, y, H: tl.constexpr, W: tl.constexpr, LAST: tl.constexpr):
    inner = (x > 0) & (x < W - 1) & (y > 0) & (y < H - 1)
    rb = _mean13(p & 0xFF00FF, q, W, LAST)
    g = _mean13((p >> 8) & 255, q, W, LAST)
    red = (((rb & 0xFFFF) + 6) * 20165) >> 18
    blue = (((rb >> 16) + 6) * 20165) >> 18
    green = ((g + 6) * 20165) >> 18
    return tl.where(inner, red | (green << 8) | (blue << 16), p)


@triton.jit
def _rim(v, q, W: tl.constexpr, LAST: tl.constexpr):
    """Sums of the 16 pixels on the rim of 5 x 5."""
    pair = _at(v, q - 2, LAST) + _at(v, q + 2, LAST)
    row = pair + _at(v, q - 1, LAST) + v + _at(v, q + 1, LAST)
    total = _at(row, q - 2 * W, LAST) + _at(row, q + 2 * W, LAST)
    return total + _at(pair, q - W, LAST) + pair + _at(pair, q + W, LAST)


@triton.jit
def _blurred(p, q, x, y, H: tl.constexpr, W: tl.constexpr, LAST: tl.constexpr):
    inner = (x > 1) & (x < W - 2) & (y > 1) & (y < H - 2)
    rb = _rim(p & 0xFF00FF, q, W, LAST) + 0x080008
    g = _rim((p >> 8) & 255, q, W, LAST) + 8
    return tl.where(inner, ((rb >> 4) & 0xFF00FF) | ((g >> 4) << 8), p)


@triton.jit
def _affine(p, word, x, y, fill, H: tl.constexpr, W: tl.constexpr):
    """Nearest pixel in 16.16 fixed point, `fill` outside."""
    column = (tl.load(word) * x + (tl.load(word + 1) * y + tl.load(word + 2))) >> 16
    row = (tl.load(word + 3) * x + (tl.load(word + 4) * y + tl.load(word + 5))) >> 16
    there = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    return tl.where(there, tl.gather(p, tl.where(there, row * W + column, 0), 0), fill)


@triton.jit
def _weighted(v, start, weight, step: tl.constexpr, base, last, TAPS: tl.constexpr):
    """Weighted sums of bytes along one axis, in 22 fractional bits, rounded to bytes."""
    total = v * 0 + (1 << 21)
    for k in tl.static_range(TAPS):
        total += tl.gather(v, base + tl.minimum(start + k, last) * step, 0) * tl.load(weight + k)
    return tl.minimum(tl.maximum(total >> 22, 0), 255)


@triton.jit
def _resized(p, taps, x, y, H: tl.constexpr, W: tl.constexpr, TAPS: tl.constexpr):
    """Columns, then rows; for each output column and row `taps` has the first input one and TAPS weights."""
    LENGTH: tl.constexpr = TAPS + 1
    own = taps + x * LENGTH
    first = tl.load(own)
    below = tl.minimum(y, H - 1)
    r = _weighted(p & 255, first, own + 1, 1, below * W, W - 1, TAPS)
    g = _weighted((p >> 8) & 255, first, own + 1, 1, below * W, W - 1, TAPS)
    e = _weighted((p >> 16) & 255, first, own + 1, 1, below * W, W - 1, TAPS)
    own = taps + (W + below) * LENGTH
    first = tl.load(own)
    r = _weighted(r, first, own + 1, W, x, H - 1, TAPS)
    g = _weighted(g, first, own + 1, W, x, H - 1, TAPS)
    e = _weighted(e, first, own + 1, W, x, H - 1, TAPS)
    return r | (g << 8) | (e << 16)


@triton.jit
def _reflected(at, size: tl.constexpr):
    at = tl.abs(at)
    return tl.where(at > size - 1, 2 * (size - 1) - at, at)


@triton.jit
def _moved(p, word, x, y, BLACK: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Flip, then a shift whose border is reflected, or black."""
    down = y + tl.load(word + 1)
    right = x + tl.load(word + 2)
    row = _reflected(down, H)
    column = _reflected(right, W)
    column = tl.where(tl.load(word) > 0, W - 1 - column, column)
    p = tl.gather(p, tl.minimum(tl.maximum(row, 0), H - 1) * W + column, 0)
    if BLACK:
        p = tl.where((down >= 0) & (down < H) & (right >= 0) & (right < W), p, 0)
    return p


@triton.jit
def _painted(p, box, x, y, colour):
    inside = (x >= tl.load(box)) & (y >= tl.load(box + 1)) & (x <= tl.load(box + 2)) & (y <= tl.load(box + 3))
    return tl.where(inside, colour, p)


@triton.jit
def _view(
    data, rows, words, taps, truncated, out, scale, bias, colour, fill,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, SLOTS: tl.constexpr, N: tl.constexpr, TAPS: tl.constexpr,
    LAST: tl.constexpr, BLACK: tl.constexpr, ALPHA: tl.constexpr, TRUNCATES: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Program b makes view b; `words` and `taps` are `Plan.words`, N is the power of two from H * W up."""
    PIXELS: tl.constexpr = H * W
    END: tl.constexpr = PIXELS - 1
    b = tl.program_id(0)
    word = words + b * (7 + 8 * SLOTS)
    q = tl.arange(0, N)
    inside = q < PIXELS
    y = q // W
    x = q % W

    p = tl.load(data + tl.load(rows + b) * PIXELS + tl.minimum(q, END)).to(tl.int32)
    if BYTES:
        p = p * 0x010101
    if not LAST:
        p = _moved(p, word, x, y, BLACK, H, W)
    if TRUNCATES:
        r = tl.load(truncated + (p & 255)).to(tl.int32)
        g = tl.load(truncated + ((p >> 8) & 255)).to(tl.int32)
        p = r | (g << 8) | (tl.load(truncated + (p >> 16)).to(tl.int32) << 16)

    for slot in tl.static_range(SLOTS):
        own = word + 7 + 8 * slot
        op = tl.load(own)
        value = tl.load(own + 1).to(tl.float32, bitcast=True)
        if op >= _ROTATE and op <= _TRANSLATE_Y:
            p = _affine(p, own + 2, x, y, fill, H, W)
        elif op == _CUTOUT:
            p = _painted(p, own + 2, x, y, _GREY | (_HALF if ALPHA else 0))
        elif (op == _RESCALE) | (op == _ZOOM):
            p = _resized(p, taps + tl.load(own + 2) * (TAPS + 1), x, y, H, W, TAPS)
        elif op > 0:
            mark = p & _HALF
            p = p & 0xFFFFFF
            r = p & 255
            g = (p >> 8) & 255
            e = p >> 16
            # most operations are a blend; each one gives its other end, or the result and a factor of 1
            factor = value
            lr, lg, le = r, g, e
            hr, hg, he = r, g, e
            if op == _AUTOCONTRAST:
                hr, hg, he = _stretched(r, inside), _stretched(g, inside), _stretched(e, inside)
            elif op == _EQUALIZE:
                hr, hg, he = _flattened(r, inside, PIXELS), _flattened(g, inside, PIXELS), _flattened(e, inside, PIXELS)
            elif op == _INVERT:
                hr, hg, he = 255 - r, 255 - g, 255 - e
            elif op == _BLUR:
                s = _blurred(p, q, x, y, H, W, END)
                hr, hg, he = s & 255, (s >> 8) & 255, s >> 16
            elif op == _SMOOTH:
                s = _smoothed(p, q, x, y, H, W, END)
                hr, hg, he = s & 255, (s >> 8) & 255, s >> 16
            elif op == _SHARPNESS:
                s = _smoothed(p, q, x, y, H, W, END)
                lr, lg, le = s & 255, (s >> 8) & 255, s >> 16
            elif op == _BRIGHTNESS:
                lr, lg, le = r * 0, g * 0, e * 0
            elif op == _COLOR:
                grey = (r * 19595 + g * 38470 + e * 7471 + 32768) >> 16
                lr, lg, le = grey, grey, grey
            elif op == _CONTRAST:
                grey = tl.where(inside, (r * 19595 + g * 38470 + e * 7471 + 32768) >> 16, 0)
                mean = (2 * tl.sum(grey, 0) + PIXELS) // (2 * PIXELS)
                lr, lg, le = r * 0 + mean, r * 0 + mean, r * 0 + mean
            elif op == _POSTERIZE:
                mask = (256 - (1 << (8 - value.to(tl.int32)))) & 255
                hr, hg, he = r & mask, g & mask, e & mask
                factor = value * 0 + 1
            elif op == _SOLARIZE:
                edge = tl.ceil(value).to(tl.int32)
                hr = tl.where(r >= edge, 255 - r, r)
                hg = tl.where(g >= edge, 255 - g, g)
                he = tl.where(e >= edge, 255 - e, e)
                factor = value * 0 + 1
            elif op == _SOLARIZE_ADD:
                more = value.to(tl.int32)
                hr = tl.where(r < 128, tl.minimum(r + more, 255), r)
                hg = tl.where(g < 128, tl.minimum(g + more, 255), g)
                he = tl.where(e < 128, tl.minimum(e + more, 255), e)
                factor = value * 0 + 1
            p = _blend(lr, hr, factor) | (_blend(lg, hg, factor) << 8) | (_blend(le, he, factor) << 16)
            if (op == _BRIGHTNESS) | (op == _COLOR) | (op == _CONTRAST) | (op == _SHARPNESS):
                p = p | mark

    if ALPHA:
        p = tl.where(p >= _HALF, _MIDDLE, p)
    p = _painted(p, word + 3, x, y, colour)
    if LAST:
        p = _moved(p, word, x, y, BLACK, H, W)
    half = (p >> 24).to(tl.float32) * 0.5
    place = out + (b * PIXELS + q) * C
    for c in tl.static_range(C):
        level = ((p >> (8 * c)) & 255).to(tl.float32) + half
        level = level * tl.load(scale + c) + tl.load(bias + c)
        tl.store(place + c, level.to(out.dtype.element_ty), mask=inside)


def fits(shape: Shape, capability: tuple[int, int]) -> bool:
    """Whether the kernel can make views of images of this shape on a GPU of this compute capability."""
    most = LARGEST if capability >= (8, 0) else LARGEST_BEFORE_AMPERE
    return packable(shape[0]) and shape[1] * shape[2] <= most


def render(images: Tensor, rows: Tensor, plan: Plan, normalize: Normalize) -> Tensor:
    """The normalised views ``[B, C, H, W]`` float32, channels last, that `plan` makes of some images.

    Args:
        images: The resident set as `data.store.Store` keeps it: int32 ``[N, H*W]`` packed, or uint8 for
            one channel.
        rows: int64 ``[B]``, on the device of `images`.
        plan: For images of a shape that `fits`.
        normalize: What turns pixels into floats.
    """
    channels, height, width = shape = normalize.shape
    words, weights = encode(plan, shape)
    out = torch.empty(len(rows), height, width, channels, device=images.device)
    n = triton.next_power_of_2(height * width)
    _view[(len(rows),)](
        images,
        rows,
        upload(words, images.device),
        _no_taps(images.device) if weights is None else upload(weights, images.device),
        truncation(images.device),
        out,
        normalize.scale,
        normalize.bias,
        paint(plan.colour, shape),
        uncovered(plan, shape),
        **constants(plan, shape),
        BYTES=images.dtype == torch.uint8,
        N=n,
        **options(n),
    )
    return out.permute(0, 3, 1, 2)


@cache
def _no_taps(device: torch.device) -> Tensor:
    """What a plan without a rescale refers to: nothing."""
    return torch.zeros((1, TAPS + 1), dtype=torch.int32, device=device)


def constants(plan: Plan, shape: Shape) -> dict[str, int | bool]:
    """What the kernel is compiled for, but for the number of pixels."""
    return {
        "C": shape[0],
        "H": shape[1],
        "W": shape[2],
        "SLOTS": plan.op.shape[1],
        "TAPS": TAPS,
        "LAST": plan.moves_last,
        "BLACK": plan.black,
        "ALPHA": plan.fill is None,
        "TRUNCATES": plan.truncates,
    }


def options(pixels: int) -> dict[str, int | bool]:
    """How a program for so many pixels, a power of two, is compiled: in no case with more threads than pixels."""
    warps = min(pixels // 32, max(4, min(16, pixels // 512)))
    # a multiply-add that rounds once would give other bits
    return {"num_warps": max(1, warps), "enable_fp_fusion": False}


def encode(plan: Plan, shape: Shape) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """A plan as the kernel reads it.

    Returns:
        int32 ``[B, 7 + 8 slots]``: the move, the box, and for each slot the operation, its magnitude (the bits of
        a float32) and six numbers more; and the rows of `rescale.taps` that these refer to, columns before rows, if
        any image is rescaled.
    """
    n, slots = plan.op.shape
    words = np.zeros((n, 7 + 8 * slots), np.int32)
    words[:, : plan.moves.shape[1]] = plan.moves
    words[:, 3:7] = plan.box if plan.box.shape[1] else (0, 0, -1, -1)
    tables: list[NDArray[np.int32]] = []
    used = 0
    for slot in range(slots):
        own, op, value = words[:, 7 + 8 * slot : 15 + 8 * slot], plan.op[:, slot], plan.value[:, slot]
        own[:, 0], own[:, 1] = op, value.astype(np.float32).view(np.int32)
        warped, cut = np.isin(op, ops.WARPS), op == Op.CUTOUT
        own[warped, 2:] = warp.fixed_point(ops.matrices(op[warped], value[warped], shape))
        own[cut, 2:6] = ops.square(value[cut], plan.place[cut, slot])
        for kind in (Op.RESCALE, Op.ZOOM):
            mine, zoom = op == kind, kind == Op.ZOOM
            if not mine.any():
                continue
            method = np.full(mine.sum(), ops.BICUBIC) if zoom else plan.place[mine, slot, 0]
            columns, rows = (kept(value[mine], size, zoom) for size in (shape[2], shape[1]))
            each, which = np.unique(np.column_stack([columns, rows, method]), axis=0, return_inverse=True)
            own[mine, 2] = used + which.ravel() * (shape[2] + shape[1])
            for left, right, top, bottom, how in each.tolist():
                tables += taps(left, right, shape[2], how), taps(top, bottom, shape[1], how)
            used += len(each) * (shape[2] + shape[1])
    return words, np.concatenate(tables) if used else None
