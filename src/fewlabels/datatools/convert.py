"""Arrays, TFRecord and tar files to a folder of pictures, and back."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from fewlabels.data import tfrecord
from fewlabels.data.arrays import check_archive, from_arrays
from fewlabels.data.blobs import Member, Packed
from fewlabels.data.crops import picture_of
from fewlabels.data.find import is_helper
from fewlabels.data.folder import NO_CLASS
from fewlabels.data.listing import Listing
from fewlabels.data.pictures import PLAIN, About, Decoding, decode, is_plain
from fewlabels.data.reading import read_pictures
from fewlabels.data.remarks import sentences
from fewlabels.data.source import Images, Progress, Source
from fewlabels.data.split import Split
from fewlabels.data.tarset import list_tars
from fewlabels.datatools.layout import Layout, check_absent, fresh_folder, in_order, write_all, write_new
from fewlabels.runtime.allocator import keep_freed_memory
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import first

ARRAYS = ("images", "labels", "test_images", "test_labels", "classes")
"""What an .npz file may hold: the arguments of `fewlabels.data.arrays.from_arrays`."""


class New(NamedTuple):
    """A picture file to write."""

    to: Path
    """Relative to the new folder, without an ending."""
    make: Callable[[], tuple[bytes, str]]
    """Its bytes and the ending that suits them."""


# ---- to a folder


def from_source(source: Source, split: Split | None = None) -> list[New]:
    """All images of a source as PNG files: ``labeled/CLASS/ROW``, ``unlabeled/ROW``, ``test/CLASS/ROW``.

    Without a split the images of known label are the labeled ones. With one, its labeled images are; the others,
    validation images too, are unlabeled.

    Raises:
        ValueError: a class name is no name for a folder, or the images have not 1 or 3 channels.
    """
    if source.shape[0] not in (1, 3):
        raise ValueError(f"PNG files hold 1 or 3 channels, the images of {source.name} have {source.shape[0]}")
    names = class_folders(source.classes)
    if split is None:
        known = np.flatnonzero(source.labels >= 0)
        labels, rows = (
            dict(zip(known.tolist(), source.labels[known].tolist(), strict=True)),
            list(range(len(source.images))),
        )
    else:
        labels = dict(zip(split.labeled.tolist(), split.targets.tolist(), strict=True))
        rows = sorted({*labels, *split.unlabeled.tolist(), *split.validation.tolist()})
    width, test_width = len(str(len(source.images) - 1)), len(str(max(len(source.test_images) - 1, 0)))
    out = []
    for row in rows:
        folder = f"labeled/{names[labels[row]]}" if row in labels else "unlabeled"
        out.append(New(Path(folder) / f"{row:0{width}}", _png_maker(source.images, row)))
    for row, label in enumerate(source.test_labels):
        out.append(New(Path("test") / names[label] / f"{row:0{test_width}}", _png_maker(source.test_images, row)))
    return out


def class_folders(classes: Sequence[str]) -> list[str]:
    """Folder names that sort in the order of the classes where these are numbers: 00, 01, .. for 10 and more.

    Raises ValueError for a class name that cannot be the name of a folder.
    """
    for name in classes:
        if (
            not name
            or name.startswith(".")
            or is_helper(name)
            or name.casefold() in NO_CLASS
            or any(c in name for c in "/\\\0")
            or name != name.strip()
        ):
            raise ValueError(f"the class name {name!r} cannot be the name of a folder")
    padded = [name.zfill(max(map(len, classes))) for name in classes]
    numbers = all(name.isdecimal() for name in classes)
    return padded if numbers and len(set(padded)) == len(classes) else list(classes)  # "1" and "01" stay apart


def _png_maker(images: Images, row: int) -> Callable[[], tuple[bytes, str]]:
    return lambda: (png(images[row]), ".png")


def png(image: Images) -> bytes:
    """uint8 ``[H, W, C]`` of 1 or 3 channels as a PNG file."""
    buffer = io.BytesIO()
    picture_of(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(to: Path, new: Sequence[New], progress: Progress | None = None) -> None:
    """Make the folder `to`; raises ValueError if it exists."""
    with fresh_folder(to) as folder, ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for parent in {folder / n.to.parent for n in new}:
            parent.mkdir(parents=True, exist_ok=True)

        def write(n: New) -> None:
            data, ending = n.make()
            (folder / f"{n.to}{ending}").write_bytes(data)

        for done, _ in enumerate(pool.map(write, new), 1):
            if progress is not None and (done % 256 == 0 or done == len(new)):
                progress(done, len(new))


# ---- arrays


def read_npz(path: Path) -> Source:
    """An .npz file with `images` and `labels`, and perhaps `test_images`, `test_labels`, `classes`.

    Raises ValueError when it is not one; pickled arrays are refused.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as an .npz file of plain arrays: {error}") from error
    unknown = sorted(set(arrays) - set(ARRAYS))
    if unknown or "images" not in arrays or "labels" not in arrays:
        more = ", ".join(ARRAYS[2:])
        raise ValueError(f"{path} holds {first(sorted(arrays))}; it must hold images and labels, and may hold {more}")
    if "classes" in arrays:
        names = np.atleast_1d(arrays["classes"]).tolist()
        arrays["classes"] = [n.decode("utf-8", "backslashreplace") if isinstance(n, bytes) else str(n) for n in names]
    return from_arrays(**arrays, name=path.name)


def write_npz(path: Path, source: Source) -> None:
    """The arrays of a source, as `read_npz` reads them. Raises ValueError if the file exists."""
    arrays: dict[str, Any] = {"images": source.images, "labels": source.labels, "classes": np.array(source.classes)}
    if len(source.test_labels):
        arrays |= {"test_images": source.test_images, "test_labels": source.test_labels}
    write_new(path, lambda file: np.savez(file, **arrays))


def to_source(
    found: Layout,
    *,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
    how: Decoding = PLAIN,
) -> Source:
    """The pictures of a folder as arrays of one size; classes in the order of a training's, unlabeled ones have -1.

    Raises ValueError for pictures that cannot be read, and for labeled ones outside class folders.
    """
    classes = labeled_classes(found)
    number = {name: i for i, name in enumerate(classes)}
    read = read_pictures(
        [p.path for p in found.pictures],
        image_size=image_size,
        skip_corrupt=skip_corrupt,
        progress=progress,
        base=found.root,
        how=how,
    )
    labels = np.array([-1 if p.part == "unlabeled" else number[str(p.label)] for p in found.pictures], np.int64)
    test = np.array([p.part == "test" for p in found.pictures])[read.kept]
    labels = labels[read.kept]
    source = from_arrays(
        read.images[~test], labels[~test], read.images[test], labels[test], classes, name=real(found.root).name
    )
    return replace(source, notes=(*read.notes, *source.notes))


# ---- TFRecord


def from_records(path: Path) -> list[New]:
    """The pictures of TFRecord files, byte for byte, in class folders; which files: see `tfrecord.list_records`.

    RealMix's scripts/tfrecord_to_image.py writes flat files INDEX_LABEL.png.
    """
    return _from_listing(tfrecord.list_records(path))


def from_tars(path: Path) -> list[New]:
    """The pictures of tar files, byte for byte, in class folders; which files: see `tarset.list_tars`."""
    return _from_listing(list_tars(path))


def _from_listing(listing: Listing) -> list[New]:
    folder = dict(zip(listing.classes, class_folders(listing.classes), strict=True))
    width = len(str(max(len(listing.train), len(listing.test)) - 1))
    own = len(listing.train) - listing.held
    out = []
    for part, rows in (("labeled", listing.train[:own]), ("val", listing.train[own:]), ("test", listing.test)):
        for row, (file, label) in enumerate(rows):
            assert isinstance(file, Packed)
            to = Path("unlabeled") if label is None else Path(part) / folder[label]
            out.append(New(to / f"{row:0{width}}", partial(_with_ending, file)))
    return out


def _with_ending(file: Packed) -> tuple[bytes, str]:
    data = file.data
    return data, PurePath(file.within).suffix if isinstance(file, Member) else ending_of(data)


def ending_of(data: bytes) -> str:
    """The ending of a JPEG or PNG file."""
    return ".jpg" if data.startswith(b"\xff\xd8") else ".png"


def record_files(found: Layout, to: Path) -> dict[Path, list[tuple[Path, int]]]:
    """The TFRecord files that a folder becomes, each with its pictures and their labels (-1: unknown).

    For ``DIR/NAME.tfrecord`` these are the names that FixMatch gives to its files: DIR/NAME-train.tfrecord, or, if
    there is an unlabeled part, DIR/SSL2/NAME.1@SIZE-label.tfrecord and DIR/SSL2/NAME-unlabel.tfrecord; and
    DIR/NAME-test.tfrecord. Labels are the places of the classes in their order.
    """
    classes = labeled_classes(found)
    parts: dict[str, list[tuple[Path, int]]] = {"labeled": [], "unlabeled": [], "test": []}
    for p in found.pictures:
        parts[p.part].append((p.path, -1 if p.part == "unlabeled" else classes.index(str(p.label))))
    name, size = to.stem, len(parts["labeled"])
    if parts["unlabeled"]:
        names = [f"SSL2/{name}.1@{size}-label", f"SSL2/{name}-unlabel", f"{name}-test"]
    else:
        names = [f"{name}-train", "", f"{name}-test"]
    return {to.parent / f"{file}.tfrecord": rows for file, rows in zip(names, parts.values(), strict=True) if rows}


def write_records(
    files: Mapping[Path, Sequence[tuple[Path, int]]], progress: Progress | None = None, how: Decoding = PLAIN
) -> tuple[str, ...]:
    """Write `record_files`, and return what is to be said of the pictures.

    Nothing is replaced, and nothing written if a picture cannot be read (Unreadable).
    """
    keep_freed_memory()
    abouts: dict[int, About] = {}
    pictures = [str(picture) for rows in files.values() for picture, _ in rows]
    total, done = sum(map(len, files.values())), 0
    contents: dict[Path, list[tfrecord.Example]] = {}
    for path, rows in files.items():
        check_absent(path)
        contents[path] = []
        for picture, label in rows:
            abouts[done] = About()
            contents[path].append(tfrecord.Example(encoded(picture, how, abouts[done]), label))
            done += 1
            if progress is not None:
                progress(done, total)
    write_all({path: partial(tfrecord.write, examples=examples) for path, examples in contents.items()})
    return sentences(abouts, pictures, how.bits)


def labeled_classes(found: Layout) -> list[str]:
    """Names of the class folders of the labeled and test part, in the order of a training's.

    Raises ValueError for pictures there that lie in none.
    """
    loose = [p.within.as_posix() for p in found.pictures if p.part != "unlabeled" and p.label is None]
    if loose:
        raise ValueError(f"{len(loose)} pictures of {found.root} lie outside class folders: {first(loose)}")
    return in_order(p.label for p in found.pictures if p.part != "unlabeled")


def encoded(path: Path, how: Decoding = PLAIN, about: About | None = None) -> bytes:
    """The bytes of a PNG or JPEG file that every reader takes for the same pixels, others as a new PNG file.

    Palettes, 16 bits, transparency and EXIF rotation are resolved as training does. Raises Unreadable.
    """
    pixels = decode(path, 3, None, how, about)
    if is_plain(path, how):
        return path.read_bytes()
    grey = bool((pixels == pixels[..., :1]).all())
    return png(pixels[..., :1] if grey else pixels)


def filter_records(path: Path, classes: Sequence[int], *, remap: bool = False) -> tuple[list[tfrecord.Example], int]:
    """The records of some classes, and how many there were in all; records of unknown class (-1) stay.

    Labels stay as they are (RealMix's scripts/filter_dataset.py), or with `remap` become the positions in
    `classes`. Raises ValueError for a class that the file has not.
    """
    records = tfrecord.read(path)
    known = {record.label for record in records}
    missing = [c for c in classes if c not in known]
    if missing:
        raise ValueError(f"{path} has no records of class {first(missing)} (it has {first(sorted(known), 20)})")
    kept = [record for record in records if record.label < 0 or record.label in classes]
    if remap:
        kept = [r if r.label < 0 else r._replace(label=classes.index(r.label)) for r in kept]
    return kept, len(records)
