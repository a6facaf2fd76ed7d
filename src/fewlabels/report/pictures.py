"""Pictures on a page: small ones inside it, as data URIs, and larger ones by themselves."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fewlabels.data.source import Images
from fewlabels.data.tiles import rgb

SIDE = 112
"""Pixels of the longer side of a thumbnail, at most."""

LARGE = 1200
"""Of a picture by itself."""

SMALL = 64
"""Longer side up to which every pixel is kept, as a PNG; others are JPEGs."""


class Picture(NamedTuple):
    """A picture that the page shows, and what the model said of it."""

    name: str
    """Where it was read, or its number."""
    truth: int
    called: int
    confidence: float
    second: list[Any]
    """The next likely class and its probability."""
    image: str
    """A data URI."""
    height: int
    width: int


def encoded(image: Images) -> tuple[str, int, int]:
    """A uint8 image ``[H, W, C]`` as a data URI, not larger than `SIDE`, and its height and width then."""
    picture, small = _shrunk(image, SIDE)
    return _uri(picture, png=small), picture.height, picture.width


def enlarged(image: Images) -> tuple[bytes, str]:
    """A uint8 image ``[H, W, C]``, not larger than `LARGE`, as the bytes of a file, and their media type."""
    picture, small = _shrunk(image, LARGE)
    return _bytes(picture, png=small)


def _shrunk(image: Images, most: int) -> tuple[Image.Image, bool]:
    """The picture with a longer side of at most `most`, and whether it was `SMALL`."""
    picture = Image.fromarray(rgb(image))
    longest = max(picture.size)
    if longest > most:
        width, height = (max(1, round(side * most / longest)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture, longest <= SMALL


def encoded_sheet(page: Image.Image, shape: tuple[int, ...]) -> str:
    """A sheet of pictures of `shape` (H, W) as a data URI."""
    return _uri(page, png=max(shape) <= SMALL)


def _uri(picture: Image.Image, *, png: bool) -> str:
    data, kind = _bytes(picture, png=png)
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _bytes(picture: Image.Image, *, png: bool) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    if png:
        few = picture.convert("L") if _grey(picture) else picture
        few.save(buffer, format="PNG")
    else:
        picture.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue(), "image/png" if png else "image/jpeg"


def _grey(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
