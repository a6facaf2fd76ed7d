"""Pictures beside each other on one page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fewlabels.data.source import Images

TILE = 64
"""Side in pixels, about, of a picture on the sheet."""

MARGIN, GAP, BLOCK, HEAD = 24, 4, 28, 26
"""Pixels around the sheet, between pictures, between blocks of columns, and for a heading."""

INK, FAINT, PAPER = (33, 37, 41), (110, 117, 125), (255, 255, 255)


def grid(images: Images, captions: Sequence[str], title: str, columns: int = 8) -> Image.Image:
    """A page with pictures, uint8 ``[n, H, W, C]``, from left to right and from top to bottom, each with a caption."""
    height, width = tile_shape(images.shape[1:3])
    small, tiny = font(14), font(11)
    across = max(width, 72) + GAP
    total = 2 * MARGIN + max(columns * across, int(small.getlength(title)))
    down = height + 18
    page = Image.new("RGB", (total, 2 * MARGIN + HEAD + -(-len(images) // columns) * down), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN), title, font=small, fill=INK)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = MARGIN + i % columns * across, MARGIN + HEAD + i // columns * down
        paste(page, image[None], [x], y)
        pen.text((x, y + height + 1), clipped(caption, tiny, across - GAP), font=tiny, fill=FAINT)
    return page


def tile_shape(shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) on the sheet of images of `shape` (H, W): small ones enlarged by a whole number, large ones
    shrunk."""
    longest = max(shape)
    if longest <= 1.5 * TILE:
        factor = max(1, round(TILE / longest))
        return shape[0] * factor, shape[1] * factor
    return max(1, round(shape[0] * 1.5 * TILE / longest)), max(1, round(shape[1] * 1.5 * TILE / longest))


def paste(page: Image.Image, images: Images, places: Sequence[int], y: int) -> None:
    for image, x in zip(images, places, strict=False):
        height, width = tile_shape(image.shape[:2])
        how = Image.Resampling.NEAREST if height >= image.shape[0] else Image.Resampling.LANCZOS
        page.paste(Image.fromarray(rgb(image)).resize((width, height), how), (x, y))


def rgb(image: Images) -> Images:
    """One channel as grey, of two or more than three the first ones as red, green, blue."""
    channels = image.shape[-1]
    if channels == 2:
        return np.concatenate([image, np.zeros_like(image[..., :1])], -1)
    return np.ascontiguousarray(image[..., :3]) if channels >= 3 else np.repeat(image, 3, -1)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans where there is one (it knows many scripts), else the font that Pillow brings."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def clipped(text: str, face: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
