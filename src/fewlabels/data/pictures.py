"""Picture files to uint8 arrays: finding, decoding, common size and channels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fewlabels.data.source import Images, Progress, first

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
"""Formats that are read."""

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "gif"),
        *("ppm", "pgm", "pbm", "pnm"),
    )
)

LARGEST_SIDE = 96
"""Chosen sides stop here: STL-10 (96), mini-ImageNet (84) and Tiny-ImageNet (64) keep their pixels,
photographs are made small enough to train on. `image_size` asks for more."""

_EXIF_ORIENTATION = 0x0112
T = TypeVar("T")


class Unreadable(ValueError):
    """A file that is no picture, or a broken one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read as a picture: {reason}")
        self.path, self.reason = path, reason


# ---- finding


def find_images(path: Path | str) -> list[Path]:
    """The picture files at `path`: the file itself, or all in the folder and below, sorted by relative path.

    The paths start with `path`, so that they can be opened. Hidden files and folders (leading dot) are
    skipped. A picture is known by its ending, or by its first bytes where the ending is none of `SUFFIXES`.

    Raises:
        ValueError: `path` does not exist, or a symbolic link leads out of the folder or in a circle.
    """
    return scan(Path(path))[0]


def scan(path: Path, within: Path | None = None) -> tuple[list[Path], list[Path]]:
    """`find_images`, and the files that are no pictures. Links may lead anywhere in `within` (default: `path`)."""
    if path.is_file():
        return [path], []
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {str(path)!r}")
    images: list[Path] = []
    others: list[Path] = []
    top = (within or path).resolve()
    _check_link(path, top)
    _walk(path, top, (), images, others)
    return sorted(images, key=Path.as_posix), sorted(others, key=Path.as_posix)


def _walk(folder: Path, within: Path, above: tuple[Path, ...], images: list[Path], others: list[Path]) -> None:
    above = (*above, folder.resolve())
    try:
        with os.scandir(folder) as listing:  # its entries know their kind without another look at the disk
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"the folder {str(folder)!r} cannot be listed: {error.strerror}") from error
    for entry in entries:
        path = folder / entry.name
        linked = entry.is_symlink()
        if linked:
            _check_link(path, within)
            if path.resolve() in above:
                raise ValueError(f"{str(path)!r} is a symbolic link to a folder that it lies in")
        if entry.is_dir():
            _walk(path, within, above, images, others)
        elif not entry.is_file() and not (linked and not path.exists()):
            others.append(path)  # a pipe or a device: opening one could wait for ever
        elif path.suffix.lower() in SUFFIXES or _looks_like_picture(path):
            images.append(path)  # also a dangling link: decoding lists it as unreadable
        else:
            others.append(path)


def _check_link(path: Path, within: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(within):
        raise ValueError(f"{str(path)!r} is a symbolic link that leaves {str(within)!r}; copy what it points to")


def _looks_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    magic = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
    return head.startswith(magic) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


# ---- one file


class _Header(NamedTuple):
    height: int
    width: int
    grey: bool


def decode(path: Path | str, channels: int, size: int | tuple[int, int] | None) -> Images:
    """Read one picture, uint8 ``[H, W, C]``.

    First frame, turned as its EXIF orientation says. Grey with 16 bits keeps the high byte; colours under
    transparency are kept and the alpha dropped, as torchvision's loader does. One channel from colours is
    ITU-R 601 luma (Pillow's "L").

    Args:
        channels: 1 or 3.
        size: see `fit`; None keeps the picture's own.

    Raises:
        Unreadable: a ValueError with the path and the reason.
    """
    assert channels in (1, 3)
    with _opened(Path(path)) as picture:
        picture.load()  # first: TIFF files turn themselves here
        ImageOps.exif_transpose(picture, in_place=True)
        image = _eight_bit(picture)
        mode = "L" if channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if size is not None:
            image = fit(image, size)
        return np.array(image, np.uint8).reshape(image.height, image.width, channels)


def fit(image: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    """Resize until `size` (side of a square, or (H, W)) is just covered, then cut out the centre.

    Bilinear with antialiasing; for a square the same pixels as torchvision's ``Resize(size)``,
    ``CenterCrop(size)``.
    """
    height, width = (size, size) if isinstance(size, int) else size
    w, h = image.size
    # The side that needs the larger factor decides; integers, so that the other one never falls short.
    new = (width, h * width // w) if width * h >= height * w else (w * height // h, height)
    if new != image.size:
        image = image.resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - width) / 2), round((new[1] - height) / 2)
    return image if new == (width, height) else image.crop((left, top, left + width, top + height))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as picture:
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


def _header(path: Path) -> _Header:
    with _opened(path) as picture:
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
        return _Header(height, width, grey)


# ---- many files


class Pictures(NamedTuple):
    """The readable ones of a list of files."""

    images: Images
    """uint8 ``[n, H, W, C]``"""
    kept: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """Which of the files were read, ``[N]``, n of them true."""
    notes: tuple[str, ...]


def read_pictures(
    paths: Sequence[Path],
    *,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
    base: Path | None = None,
) -> Pictures:
    """Decode files in parallel to a common form.

    Channels: 1 if every picture is grey, else 3. Size: a square of `image_size`, or the shape that all
    share if it is within `LARGEST_SIDE`, or else a square of the median shorter side, at most
    `LARGEST_SIDE`. See `fit`.

    Args:
        base: sentences name files relative to this folder.

    Raises:
        ValueError: files cannot be read (the count and the first ten), unless `skip_corrupt`, then a note
            says so; or none can.
    """
    if image_size is not None and image_size < 4:
        raise ValueError(f"image_size must be at least 4, got {image_size}")
    Image.init()  # loads the format readers now: threads would race for it
    broken: dict[int, str] = {}

    def attempt(work: Callable[[int], T], rows: Sequence[int]) -> list[T | None]:
        done: list[T | None] = []
        for row in rows:
            try:
                done.append(work(row))
            except Unreadable as error:
                broken[row] = error.reason
                done.append(None)
        return done

    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        chunks = [range(start, min(start + 64, len(paths))) for start in range(0, len(paths), 64)]
        headers: dict[int, _Header] = {}
        for rows, found in zip(
            chunks, pool.map(lambda rows: attempt(lambda i: _header(paths[i]), rows), chunks), strict=True
        ):
            headers |= {row: header for row, header in zip(rows, found, strict=True) if header is not None}
        if not headers:
            raise ValueError(_sentence(paths, broken, base))
        channels = 1 if all(header.grey for header in headers.values()) else 3
        (height, width), notes = _common_size(list(headers.values()), image_size)
        images = np.zeros((len(paths), height, width, channels), np.uint8)

        def read(row: int) -> None:
            images[row] = decode(paths[row], channels, (height, width))

        done = 0
        chunks_left = [[row for row in rows if row in headers] for rows in chunks]
        for rows, _ in zip(chunks, pool.map(lambda rows: attempt(read, rows), chunks_left), strict=True):
            done += len(rows)
            if progress is not None:
                progress(done, len(paths))

    kept = np.ones(len(paths), bool)
    kept[list(broken)] = False
    if broken:
        if not skip_corrupt or not kept.any():
            raise ValueError(_sentence(paths, broken, base))
        names = _names(paths, broken, base)
        notes = (*notes, f"{len(broken)} of {len(paths)} pictures cannot be read and were left out: {names}")
        images = images[kept]
    return Pictures(images, kept, notes)


def _names(paths: Sequence[Path], broken: dict[int, str], base: Path | None) -> str:
    return first(
        [f"{paths[row].relative_to(base).as_posix() if base else paths[row]} ({broken[row]})" for row in sorted(broken)]
    )


def _sentence(paths: Sequence[Path], broken: dict[int, str], base: Path | None) -> str:
    return (
        f"{len(broken)} of {len(paths)} pictures cannot be read: {_names(paths, broken, base)}; "
        "repair or remove them, or skip corrupt pictures (skip_corrupt)"
    )


def _common_size(headers: list[_Header], image_size: int | None) -> tuple[tuple[int, int], tuple[str, ...]]:
    shapes = {(header.height, header.width) for header in headers}
    if image_size is not None:
        return (image_size, image_size), ()
    if len(shapes) == 1 and max(shape := next(iter(shapes))) <= LARGEST_SIDE:
        return shape, ()
    shorter = sorted(min(header.height, header.width) for header in headers)
    side = min(shorter[len(shorter) // 2], LARGEST_SIDE)
    if side > 8 and shorter[0] != shorter[-1]:
        side -= side % 4  # the nets halve the side twice
    note = (
        f"the pictures' shorter sides are {shorter[0]} to {shorter[-1]} px; they were resized and cropped at "
        f"the centre to {side} x {side} px (image_size sets another side)"
    )
    return (side, side), (note,)
