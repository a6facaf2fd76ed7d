"""Many picture files to one uint8 array: common size and channels, in parallel, remembered on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data import cache
from fewlabels.data.blobs import Blob, Member, Packed, check_regular, opened
from fewlabels.data.kinds import formats
from fewlabels.data.paths import Named
from fewlabels.data.pictures import (
    LARGEST_SIDE,
    PLAIN,
    Decoding,
    Fit,
    Header,
    Size,
    Unreadable,
    decode,
    header,
    is_grey,
    pixels_of,
    upright_size,
)
from fewlabels.data.remarks import About, sentences
from fewlabels.data.residency import fits
from fewlabels.data.source import Images, Progress
from fewlabels.data.stream import Files, PictureFiles, decoded_of, faults_of
from fewlabels.data.workers import workers
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import by_reason

CHUNK = 64
"""Files that a worker takes at a time, at most."""

CHUNK_BYTES = 1 << 25
"""Bytes, at most, that it gives back at a time, of large images."""


class Pictures(NamedTuple):
    """The readable ones of a list of files."""

    images: Images
    """uint8 ``[n, H, W, C]``; read-only where they come from the cache; `stream.Files` where they stay in their
    files."""
    kept: NDArray[np.bool_]
    """Which of the files were read, ``[N]``, n of them true."""
    notes: tuple[str, ...]


def read_pictures(
    files: PictureFiles,
    *,
    image_size: Size | None = None,
    how: Decoding = PLAIN,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
    base: Path | None = None,
    stream: bool | None = False,
) -> Pictures:
    """Decode files in parallel to a common form, or take what `cache` has of them.

    Channels: 1 if every picture is grey, else 3. Size: `image_size`, or the shape that all
    share if it is within `LARGEST_SIDE`, or else a square of at most `LARGEST_SIDE`, of the median shorter side
    (fit "pad": longer side; "centre": the shortest side of all). See `pictures.fit`.

    Args:
        how: see `pictures.Decoding`.
        base: sentences name files relative to this folder.
        stream: leave the pictures in their files, and look at their headers only (with `skip_corrupt` each is
            decoded once, or the cache knows what came of it); None: if the cache has them not and they would take
            more than half of the free memory.

    Raises:
        ValueError: files cannot be read (the count and the first ten), unless `skip_corrupt`, then a note
            says so; or none can.
    """
    if isinstance(image_size, int) and image_size < 4:
        raise ValueError(f"image_size must be at least 4, got {image_size}")
    names = Named(files, partial(name_of, base=base))
    entry = _entry(files, names, base, image_size, how)
    images: Images | Files | None
    if not stream and (found := _remembered(entry, files, how)) is not None:
        images, broken, notes = found
        if progress is not None:
            progress(len(files), len(files))
    else:
        images, broken, abouts, notes = _read(files, image_size, how, progress, stream)
        if isinstance(images, Files) and skip_corrupt:
            more, abouts = _checked(entry, files, images, how, progress)
            broken = more | broken
        notes = (*notes, *sentences(abouts, names, how.bits))
        if isinstance(images, np.ndarray) and (skip_corrupt or not broken):
            facts = {"broken": [[row, reason] for row, reason in broken.items()], "notes": list(notes)}
            entry.store(images, facts)

    kept = np.ones(len(files), bool)
    kept[list(broken)] = False
    if broken:
        which = by_reason({names[row]: broken[row] for row in sorted(broken)})
        some = f"{len(broken)} of {len(files)} pictures cannot be read"
        if not skip_corrupt or not kept.any():
            raise ValueError(f"{some}: {which}; repair or remove them, or leave them out (--data.skip-corrupt)")
        assert images is not None
        images, notes = images[kept], (*notes, f"{some} and were left out: {which}")
    assert images is not None
    return Pictures(cast(Images, images), kept, notes)


def read_open(pictures: Sequence[Image.Image], *, image_size: Size | None = None, how: Decoding = PLAIN) -> Pictures:
    """The same for pictures that Pillow has opened or made. Raises ValueError for one without a defined range."""
    headers = [Header(*upright_size(picture), is_grey(picture)) for picture in pictures]
    channels = 1 if all(one.grey for one in headers) else 3
    shape, notes = common_size(headers, image_size, how.fit)
    images = np.empty((len(pictures), *shape, channels), np.uint8)
    abouts: dict[int, About] = {}
    for row, picture in enumerate(pictures):
        abouts[row] = About()
        try:
            images[row] = pixels_of(picture, channels, shape, how, abouts[row])
        except (ValueError, OSError) as error:
            raise ValueError(f"picture {row} cannot be read: {error}") from error
    names = [f"picture {row}" for row in range(len(pictures))]
    return Pictures(images, np.ones(len(pictures), bool), (*notes, *sentences(abouts, names, how.bits)))


def name_of(file: Path | Packed, base: Path | None) -> str:
    """What sentences call a file: its path in `base`, or else all of it. (`Path.relative_to` takes 14 us.)"""
    return str(file).removeprefix(f"{base}{os.sep}") if base is not None else str(file)


# ---- what tells pictures from others

SAMPLES, SAMPLE = 16, 1 << 12
"""Files of at most `SAMPLES * SAMPLE` bytes are looked at as a whole, others at so many places of so many bytes."""


def contents_of(files: PictureFiles, base: Path | None) -> list[bytes]:
    """A digest of 16 bytes for what is in each file, whether it is a picture or not; the cache remembers them."""
    names = Named(files, partial(name_of, base=base))
    entry = _entry(files, names, base, None, PLAIN).beside("contents")
    if (found := entry.load()) is not None and found[0].shape == (len(files), 16):
        return [row.tobytes() for row in np.asarray(found[0])]
    with workers(len(files)) as run:
        chunks = ((chunk,) for chunk in _chunks(files))
        digests = [one for some in run(digests_of, chunks) for one in some]
    if digests:
        entry.store(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16), {})
    return digests


def digests_of(files: PictureFiles) -> list[bytes]:
    """`contents_of` a few files. Of one that cannot be opened: that of an empty one."""
    return [hashlib.blake2b(_sample(file), digest_size=16).digest() for file in files]


def _sample(file: Path | Packed) -> bytes:
    try:
        check_regular(file)
        with opened(file) as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(0)
            if isinstance(file, Blob) or size <= SAMPLES * SAMPLE:
                return content.read()
            parts = [size.to_bytes(8, "little")]
            for i in range(SAMPLES):
                content.seek((size - SAMPLE) * i // (SAMPLES - 1))
                parts.append(content.read(SAMPLE))
            return b"".join(parts)
    except (OSError, ValueError):  # decoding says so
        return b""


# ---- what was read before


def _entry(
    files: PictureFiles, names: Sequence[str], base: Path | None, image_size: Size | None, how: Decoding
) -> cache.Entry:
    """The cache's place for these files and options, and their present state.

    The state of a file on the disk is its name, size, and the times of its last change (st_mtime_ns, and
    st_ctime_ns, which also changes when a file is replaced by an older one).
    """

    def state() -> Iterator[object]:
        yield f"fewlabels 2, Pillow {PIL.__version__}, {formats()}"
        for file in files:
            yield name_of(file, base)
            if isinstance(file, Blob):
                yield file.data
                continue
            if isinstance(file, Member):
                yield " ".join(map(str, (*file.tar[1:], file.start, file.size)))
                continue
            try:
                facts = os.stat(file)
                yield f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
            except OSError:
                yield "missing"

    where = real(base) if base is not None else cache.digest(names)
    return cache.Entry(cache.digest([where, image_size, *how]), cache.digest(state()))


def _chunks(files: PictureFiles, size: int = CHUNK) -> Iterator[PictureFiles]:
    """The files in lists of so many, each made when it is asked for."""
    return (list(files[start : start + size]) for start in range(0, len(files), size))


def _remembered(
    entry: cache.Entry, files: PictureFiles, how: Decoding
) -> tuple[Images, dict[int, str], tuple[str, ...]] | None:
    if (found := entry.load()) is None or len(found[0]) != len(files):
        return None
    images, facts = found
    broken: dict[int, str] = dict(facts["broken"])
    if _mended(files, broken, how):
        return None
    return images, broken, tuple(facts["notes"])


def _mended(files: PictureFiles, broken: dict[int, str], how: Decoding) -> bool:
    """Whether what could not be read can be now: its disk was away, or its permissions were changed."""

    def reads(file: Path | Packed) -> bool:
        try:
            decode(file, 1, None, how, About(look=False))
        except Unreadable:
            return False
        return True

    return any(reads(files[row]) for row in broken)


# ---- reading


def _read(
    files: PictureFiles, image_size: Size | None, how: Decoding, progress: Progress | None, stream: bool | None
) -> tuple[Images | Files | None, dict[int, str], dict[int, About], tuple[str, ...]]:
    """Images ``[N, H, W, C]`` (zeros where a file is broken; None if all are), reasons and remarks by row, notes."""
    Image.init()  # loads the format readers now: threads would race for it
    chunks = ((chunk, how) for chunk in _chunks(files))
    broken: dict[int, str] = {}
    abouts: dict[int, About] = {}
    headers: list[Header] = []
    known: dict[Header, Header] = {}  # the same ones once
    with workers(len(files)) as run:
        row = 0
        for found in run(headers_of, chunks):
            for one in found:
                if isinstance(one, str):
                    broken[row] = one
                else:
                    headers.append(known.setdefault(one, one))
                row += 1
            if progress is not None:
                progress(row // 2, len(files))
        if not headers:
            return None, broken, abouts, ()
        channels = 1 if all(one.grey for one in headers) else 3
        shape, notes = common_size(headers, image_size, how.fit)
        if stream or (stream is None and not fits(len(files) * channels * shape[0] * shape[1])):
            return Files(files, channels, shape, how), broken, abouts, notes
        images = np.zeros((len(files), *shape, channels), np.uint8)
        size = max(1, min(CHUNK, CHUNK_BYTES // images[0].nbytes))
        parts = ((part, channels, shape, how) for part in _chunks(files, size))
        row = 0
        for pixels, wrong, told in run(decoded_of, parts):
            images[row : row + len(pixels)] = pixels
            for offset, reason in wrong.items():
                broken.setdefault(row + offset, reason)
            abouts |= {row + offset: about for offset, about in told.items()}
            row += len(pixels)
            if progress is not None:
                progress((len(files) + row) // 2, len(files))
    return images, broken, abouts, notes


def _checked(
    entry: cache.Entry, files: PictureFiles, images: Files, how: Decoding, progress: Progress | None
) -> tuple[dict[int, str], dict[int, About]]:
    """Decode each file once: which are broken, and remarks; what the cache knows is not done again.

    So a set has the same rows streamed or not, on every rank and after a resume.
    """
    entry = entry.beside("checked")
    broken: dict[int, str] = {}
    abouts: dict[int, About] = {}
    if (found := entry.load()) is not None:
        broken, abouts = dict(found[1]["broken"]), {row: About(**about) for row, about in found[1]["abouts"]}
        if not _mended(files, broken, how):
            return broken, abouts
        broken, abouts = {}, {}
    options = images.shape[3], images.shape[1:3], how
    with workers(len(files)) as run:
        row = 0
        for wrong, told in run(faults_of, ((chunk, *options) for chunk in _chunks(files))):
            broken |= {row + offset: reason for offset, reason in wrong.items()}
            abouts |= {row + offset: about for offset, about in told.items()}
            row = min(row + CHUNK, len(files))
            if progress is not None:
                progress(row, len(files))
    facts = {"broken": [*broken.items()], "abouts": [(row, asdict(about)) for row, about in abouts.items()]}
    entry.store(np.zeros(0, np.uint8), facts)
    return broken, abouts


def headers_of(files: PictureFiles, how: Decoding) -> list[Header | str]:
    """The header of each file, or why it has none."""
    out: list[Header | str] = []
    for file in files:
        try:
            out.append(header(file, how))
        except Unreadable as error:
            out.append(error.reason)
    return out


def common_size(headers: list[Header], image_size: Size | None, fit: Fit) -> tuple[tuple[int, int], tuple[str, ...]]:
    shapes = {(header.height, header.width) for header in headers}
    if image_size is not None:
        return (image_size if isinstance(image_size, tuple) else (image_size, image_size)), ()
    if len(shapes) == 1 and max(shape := next(iter(shapes))) <= LARGEST_SIDE:
        return shape, ()
    sides = sorted((max if fit == "pad" else min)(header.height, header.width) for header in headers)
    side = min(sides[0] if fit == "centre" else sides[len(sides) // 2], LARGEST_SIDE)
    if side > 8 and sides[0] != sides[-1]:
        side -= side % 4  # the nets halve the side twice
    what = {
        "crop": "resized and cropped at the centre",
        "pad": "resized and padded with black",
        "centre": "cropped at the centre, without resizing,",
        "inner": "cropped at the centre to 7/8 and resized",
    }[fit]
    note = (
        f"the pictures' {'longer' if fit == 'pad' else 'shorter'} sides are {sides[0]} to {sides[-1]} px; they were "
        f"{what} to {side} x {side} px (image_size sets another side)"
    )
    return (side, side), (note,)
