"""One picture file to a uint8 array."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fewlabels.data.find import find_images, scan
from fewlabels.data.source import Images

__all__ = ["LARGEST_SIDE", "Blob", "Fit", "Header", "Unreadable", "decode", "find_images", "fit", "header", "scan"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
"""Formats that are read."""

Fit: TypeAlias = Literal["crop", "pad", "centre"]
"""How a picture is brought to a size: see `fit`."""

LARGEST_SIDE = 96
"""Chosen sides stop here: STL-10 (96), mini-ImageNet (84) and Tiny-ImageNet (64) keep their pixels,
photographs are made small enough to train on. `image_size` asks for more."""

_EXIF_ORIENTATION = 0x0112


class Blob(NamedTuple):
    """A picture file that is in memory."""

    name: str
    data: bytes


class Unreadable(ValueError):
    """A file that is no picture, or a broken one."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path} cannot be read as a picture: {reason}")
        self.path, self.reason = path, reason


class Header(NamedTuple):
    """What is known of a picture without decoding it."""

    height: int
    width: int
    grey: bool


def decode(file: Path | str | Blob, channels: int, size: int | tuple[int, int] | None, how: Fit = "crop") -> Images:
    """Read one picture, uint8 ``[H, W, C]``.

    First frame, turned as its EXIF orientation says. Grey with 16 bits keeps the high byte; colours under
    transparency are kept and the alpha dropped, as torchvision's loader does. One channel from colours is
    ITU-R 601 luma (Pillow's "L").

    Args:
        channels: 1 or 3.
        size, how: see `fit`; None keeps the picture's own size.

    Raises:
        Unreadable: a ValueError with the path and the reason.
    """
    assert channels in (1, 3)
    with _opened(file) as picture:
        picture.load()  # first: TIFF files turn themselves here
        ImageOps.exif_transpose(picture, in_place=True)
        image = _eight_bit(picture)
        mode = "L" if channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if size is not None:
            image = fit(image, size, how)
        return np.array(image, np.uint8).reshape(image.height, image.width, channels)


def fit(image: Image.Image, size: int | tuple[int, int], how: Fit = "crop") -> Image.Image:
    """Bring a picture to `size` (side of a square, or (H, W)).

    "crop" resizes until the size is just covered and cuts out the centre: for a square the same pixels as
    torchvision's ``Resize(size)``, ``CenterCrop(size)``. "pad" resizes until the picture just fits and puts it
    in the middle of a black one, as RealMix's preprocess_crops.py does. "centre" does not resize: it cuts out
    the centre, with black around smaller pictures, as ``CenterCrop(size)``. Resizing is bilinear with
    antialiasing.
    """
    height, width = (size, size) if isinstance(size, int) else size
    w, h = image.size
    # The side that needs the larger (pad: smaller) factor decides; integers, so that the other never falls short.
    by_width = (width, max(1, h * width // w))
    by_height = (max(1, w * height // h), height)
    if how == "centre":
        new = image.size
    else:
        new = by_width if (width * h >= height * w) == (how == "crop") else by_height
    if new != image.size:
        image = image.resize(new, Image.Resampling.BILINEAR)
    if new == (width, height):
        return image
    if new[0] < width or new[1] < height:
        canvas = Image.new(image.mode, (max(new[0], width), max(new[1], height)))
        canvas.paste(image, ((canvas.width - new[0]) // 2, (canvas.height - new[1]) // 2))
        image = canvas
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@contextmanager
def _opened(file: Path | str | Blob) -> Iterator[Image.Image]:
    path, content = (file.name, io.BytesIO(file.data)) if isinstance(file, Blob) else (file, file)
    try:
        with Image.open(content, formats=FORMATS) as picture:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and picture.width * picture.height > limit:
                raise ValueError(f"{picture.width} x {picture.height} pixels are over the limit of {limit}")
            yield picture
    except UnidentifiedImageError as error:
        raise Unreadable(path, "not a picture of a known format") from error
    except Exception as error:
        # Broken bytes make Pillow's readers raise almost anything: OSError, SyntaxError, struct.error,
        # IndexError.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(path, reason or type(error).__name__) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """Modes of more than 8 bits, and palettes, as modes that Pillow converts without loss or warning."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("grey values need more than 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))  # Pillow's own conversion clips at 255
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    return image


def header(file: Path | Blob) -> Header:
    """Size, as `decode` gives it, and whether the picture is grey. Raises `Unreadable`."""
    with _opened(file) as picture:
        height, width = picture.height, picture.width
        if picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5:  # turned by a quarter
            if picture.format == "TIFF":  # Pillow's reader turns these itself, by version at opening or at loading
                picture.load()
                height, width = picture.height, picture.width
            else:
                height, width = width, height
        grey = picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
        if picture.mode == "P":
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            grey = bool((palette == palette[:, :1]).all())
        return Header(height, width, grey)
