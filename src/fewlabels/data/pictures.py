"""One picture file to a uint8 array."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from fewlabels.data import jpeg, kinds
from fewlabels.data.blobs import Blob, Packed, check_regular, opened
from fewlabels.data.crops import Crops, cut, inner_box, picture_of, random_cut, random_cut_of
from fewlabels.data.find import find_images, scan
from fewlabels.data.remarks import About, hearing
from fewlabels.data.residency import host_memory
from fewlabels.data.source import Images
from fewlabels.runtime.words import amount

__all__ = [
    "LARGEST_SIDE",
    "MAX_PIXELS",
    "PLAIN",
    "About",
    "Blob",
    "Decoding",
    "Fit",
    "Header",
    "Size",
    "Unreadable",
    "decode",
    "find_images",
    "fit",
    "header",
    "is_grey",
    "is_plain",
    "pixels_of",
    "scan",
    "upright_size",
]

Fit: TypeAlias = Literal["crop", "pad", "centre", "inner"]
"""How a picture is brought to a size: see `fit`."""

LARGEST_SIDE = 96
"""Chosen sides stop here: STL-10 (96), mini-ImageNet (84) and Tiny-ImageNet (64) keep their pixels,
photographs are made small enough to train on. `image_size` asks for more."""

Size: TypeAlias = int | tuple[int, int]
"""Side of a square, or (H, W)."""

MAX_PIXELS = 89_478_485
"""Pillow's limit against decompression bombs: 256 MiB of colours."""


class Decoding(NamedTuple):
    """How the pixels of a file become an image, beside its size and channels."""

    fit: Fit = "crop"
    bits: int = 16
    """8 to 16: how many of 16 bits grey pictures use; the highest eight of these are kept."""
    max_pixels: int = MAX_PIXELS
    """Larger pictures are refused."""


PLAIN = Decoding()


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


def decode(
    file: Path | str | Packed,
    channels: int,
    size: Size | None,
    how: Decoding = PLAIN,
    about: About | None = None,
    crop: Crops | None = None,
    fast: bool = False,
) -> Images:
    """Read one picture, uint8 ``[H, W, C]``.

    First frame, turned as its EXIF orientation says. Of grey with 16 bits the highest 8 of ``how.bits`` are kept;
    colours under transparency are kept and the alpha dropped, as torchvision's loader does. One channel from colours
    is ITU-R 601 luma (Pillow's "L").

    Args:
        channels: 1 or 3.
        size: see `fit`; None keeps the picture's own size.
        about: gets what is to be said of the picture; None: it is not looked for, and Pillow's warnings become
            `remarks.PictureWarning`.
        crop: the numbers of a random crop, float32 ``[crops.NUMBERS]``, which is brought to `size` in place of the
            picture.
        fast: let `jpeg.decoder` decode what it can; the bits are the same, and nothing is said of the picture.

    Raises:
        Unreadable: a ValueError with the path and the reason.
    """
    if fast and (found := _fast(file, channels, size, how, crop)) is not None:
        return found
    with _opened(file, how.max_pixels, about) as picture:
        pixels = pixels_of(picture, channels, size, how, about, crop)
        if about is not None and about.look and picture.format == "JPEG" and _filled_up(file):
            about.remarks.append("the end of the file is missing and filled up with zeros, as a failed copy leaves it")
        return pixels


def _fast(
    file: Path | str | Packed, channels: int, size: Size | None, how: Decoding, crop: Crops | None
) -> Images | None:
    """`decode` by `jpeg.decoder`; None where Pillow has to do it, or to say what is wrong."""
    if (decoder := jpeg.decoder()) is None:
        return None
    try:
        check_regular(file)
        if kinds.refused(file):
            return None
        if isinstance(file, Packed):
            data = file.data
        else:
            with open(file, "rb", buffering=0) as content:
                data = content.read()
        frame = jpeg.frame(data)
        if frame is None or (channels == 1 and not frame.grey):
            return None
        _check_size("", frame.height * frame.width, how.max_pixels)
        pixels = decoder(data, channels == 1)
    except (OSError, ValueError, RuntimeError):
        return None
    if pixels.shape != (frame.height, frame.width, channels):
        return None
    if size is None:
        return pixels
    shape = (size, size) if isinstance(size, int) else size
    if crop is not None:
        small = random_cut_of(pixels, crop, shape)
    elif pixels.shape[:2] == shape and how.fit != "inner":
        return pixels
    else:
        small = fit(picture_of(pixels), shape, how.fit)
    return np.asarray(small, np.uint8).reshape(*shape, channels)


def pixels_of(
    picture: Image.Image,
    channels: int,
    size: Size | None,
    how: Decoding = PLAIN,
    about: About | None = None,
    crop: Crops | None = None,
) -> Images:
    """`decode` for a picture that Pillow has opened or made. Raises ValueError for pixels without a defined range."""
    assert channels in (1, 3)
    bits = _bits(picture, how.bits)  # before the pixels are there: Pillow forgets how they were stored
    picture.load()  # first: TIFF files turn themselves here
    image = _eight_bit(picture, bits, about)
    turn = _TURNS.get(_orientation(picture, about))
    if turn is not None:
        image = image.transpose(turn)
    mode = "L" if channels == 1 else "RGB"
    plain = image if image.mode == mode else image.convert(mode)
    if about is not None and about.look:
        _look(picture, image, plain, about)
    if size is not None:
        shape = (size, size) if isinstance(size, int) else size
        plain = fit(plain, shape, how.fit) if crop is None else random_cut(plain, crop, shape)
    return np.array(plain, np.uint8).reshape(plain.height, plain.width, channels)


def fit(image: Image.Image, size: Size, how: Fit = "crop") -> Image.Image:
    """Bring a picture to `size` (side of a square, or (H, W)).

    "crop" resizes until the size is just covered and cuts out the centre: for a square the same pixels as
    torchvision's ``Resize(size)``, ``CenterCrop(size)``. "pad" resizes until the picture just fits and puts it
    in the middle of a black one, as RealMix's preprocess_crops.py does. "centre" does not resize: it cuts out
    the centre, with black around smaller pictures, as ``CenterCrop(size)``. Resizing is bilinear with
    antialiasing. "inner" cuts out the inner 7/8 of the largest part of this form and resizes that with a bicubic
    filter (`crops.inner_box`).
    """
    height, width = (size, size) if isinstance(size, int) else size
    if how == "inner":
        return cut(image, inner_box(image.height, image.width, (height, width)), (height, width))
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
def _opened(file: Path | str | Packed, max_pixels: int, about: About | None) -> Iterator[Image.Image]:
    name = str(file) if isinstance(file, Packed) else file
    try:
        check_regular(file)
        if kind := kinds.refused(name):
            raise ValueError(str(kind))
        if max_pixels > (Image.MAX_IMAGE_PIXELS or max_pixels):
            Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's limit is one for the whole process
        with ExitStack() as stack:
            content = stack.enter_context(file.open()) if isinstance(file, Packed) else file
            stack.enter_context(hearing(name, about))
            picture = stack.enter_context(Image.open(content, formats=kinds.formats()))
            _check_size(f"{picture.width} x {picture.height}", picture.width * picture.height, max_pixels)
            yield picture
    except UnidentifiedImageError as error:
        raise Unreadable(name, kinds.reason(name, _head(file))) from error
    except Image.DecompressionBombError as error:
        raise Unreadable(name, _too_large("".join(re.findall(r"\((\d+) pixels\)", str(error))), max_pixels)) from error
    except Exception as error:
        # Broken bytes make Pillow's readers raise almost anything: OSError, SyntaxError, struct.error,
        # IndexError.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(name, reason or type(error).__name__) from error


def _check_size(shape: str, pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise ValueError(_too_large(shape, max_pixels))
    needed = 8 * pixels  # four bytes each, and a copy
    if needed > 1 << 28 and needed > (free := host_memory()):
        raise ValueError(
            f"{shape} pixels need {amount(needed)} of memory, and {amount(free)} are free; make it smaller"
        )


def _too_large(shape: str, max_pixels: int) -> str:
    way = "make it smaller, or raise the limit (--data.max-pixels, --max-pixels)"
    return f"{shape} pixels are over the limit of {max_pixels}; {way}"


_END = 1 << 16


def _filled_up(file: Path | str | Packed) -> bool:
    """Whether a JPEG file ends with zeros, and not with its end mark before them; its decoder makes such parts grey."""
    with opened(file) as content:
        content.seek(max(0, content.seek(0, os.SEEK_END) - _END))
        end = content.read()
    return end.endswith(bytes(16)) and not end.rstrip(b"\0").endswith(b"\xff\xd9")


def _head(file: Path | str | Packed) -> bytes:
    with opened(file) as content:
        return content.read(kinds.HEAD)


# ---- pixels


_BITS_PER_SAMPLE, _PHOTOMETRIC, _EXIF_ORIENTATION = 258, 262, 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _bits(picture: Image.Image, asked: int) -> int | None:
    """Bits of the range that the pixels lie in, of 16 that they are stored with; None where they are stored with 8."""
    deep = any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    if not picture.mode.startswith("I"):
        if deep and asked != 16:
            raise ValueError("of colours with 16 bits only the high bytes are read; save them with 8 bits")
        return 16 if deep else None
    if picture.format in ("PPM", "JPEG2000"):  # Pillow spreads their values over 16 bits
        return 16
    if picture.format == "TIFF":
        return min(asked, int(picture.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]))  # type: ignore[attr-defined]
    return asked


def _eight_bit(image: Image.Image, bits: int | None, about: About | None) -> Image.Image:
    """Modes of more than 8 bits, and palettes, as modes that Pillow converts without loss or warning."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; save them with 8 or 16 bits")
    if image.mode.startswith("I"):
        assert bits is not None
        if image.mode == "I" and image.format != "PPM":
            raise ValueError("32-bit or signed grey values have no defined range; save them with 8 or 16 bits")
        values, top = np.asarray(image), (1 << bits) - 1
        if (peak := int(values.max())) > top:
            raise ValueError(f"a grey value of {peak} needs more than {bits} bits (--data.bits)")
        if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
            values = top - values  # 0 is white, which Pillow heeds for 8 bits only
        if about is not None:
            about.peak = int(values.max()) << 16 - bits
        return Image.fromarray((values >> bits - 8).astype(np.uint8))  # Pillow's own conversion clips at 255
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow knows no other way from there
    if bits is not None and about is not None:
        about.peak = max(_extrema(image.convert("RGB"))[1]) << 8 | 255
    return image


def _extrema(image: Image.Image) -> tuple[list[int], list[int]]:
    """Smallest and largest value of each band of an image of 8 bits."""
    found: Any = image.getextrema()
    bands = [found] if isinstance(found[0], int | float) else found
    return [int(low) for low, _ in bands], [int(high) for _, high in bands]


def _look(picture: Image.Image, image: Image.Image, plain: Image.Image, about: About) -> None:
    """Remarks about pixels that are not what a viewer shows; `plain` is `image` without its alpha."""
    low, high = _extrema(plain)
    alike = low == high
    alpha = image.getchannel("A").getextrema() if "A" in image.getbands() else (255, 255)
    if alike and alpha[0] != alpha[1]:
        about.remarks.append(
            "one colour all over, as the shape is in the alpha channel, which is left out; put them on a background"
        )
    elif alpha[0] != 255:
        about.remarks.append("transparent parts show the colours under them, as the alpha channel is left out")
    elif alike:
        about.remarks.append("all pixels have one value")
    if image.mode == "CMYK":
        about.remarks.append("CMYK colours are converted without a colour profile")
    if picture.format == "TIFF" and (frames := getattr(picture, "n_frames", 1)) > 1:
        about.remarks.append(f"only the first of {frames} pages is read")


def _orientation(picture: Image.Image, about: About | None) -> int:
    """1 to 8; 1 where the EXIF block says nothing that can be understood, as in viewers."""
    try:
        value: Any = picture.getexif().get(_EXIF_ORIENTATION, 1)
        if isinstance(value, tuple | bytes) and len(value) == 1:
            value = value[0]
        number = int(value.strip(b" \0" if isinstance(value, bytes) else " \0") if hasattr(value, "strip") else value)
        number -= ord("0") if number > ord("0") else 0
    except Exception as error:  # like broken pixels: almost anything
        if about is not None:
            about.remarks.append(f"not turned, as the EXIF block cannot be read: {error}")
        return 1
    return number if 1 <= number <= 8 else 1


def is_plain(file: Path | Packed, how: Decoding = PLAIN) -> bool:
    """Whether every reader takes the file for the pixels that `decode` gives: PNG or JPEG of 8 bits, not turned.

    Raises `Unreadable`.
    """
    with _opened(file, how.max_pixels, About()) as picture:
        plain = picture.format in ("PNG", "JPEG") and picture.mode in ("L", "RGB")
        return plain and _bits(picture, 16) is None and _orientation(picture, None) == 1


def header(file: Path | Packed, how: Decoding = PLAIN) -> Header:
    """Size, as `decode` gives it, and whether the picture is grey. Raises `Unreadable`."""
    with _opened(file, how.max_pixels, About()) as picture:  # decoding says it again
        return Header(*upright_size(picture), is_grey(picture))


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(H, W) of an opened picture when it is turned as its EXIF orientation says."""
    if _orientation(picture, None) >= 5 and picture.format == "TIFF":
        picture.load()  # Pillow's reader turns these itself, by version at opening or at loading
    turned = _orientation(picture, None) >= 5  # by a quarter
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours by its mode, or by its palette."""
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
