"""Tar files of pictures and labels in WebDataset's form: looked through once, and then read in place.

A sample is the files whose paths are one up to the first dot of the last part: ``a/0001.jpg`` and ``a/0001.cls``
(webdataset/webdataset, src/webdataset/tariterators.py).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fewlabels.data import cache
from fewlabels.data.blobs import Member, Tar
from fewlabels.data.find import check_link, is_helper
from fewlabels.data.kinds import SUFFIXES, UNREAD
from fewlabels.data.paths import Members
from fewlabels.data.workers import workers
from fewlabels.runtime.regular import real

ENDING = ".tar"

LARGEST_LABEL = 1 << 16
"""Bytes of a file with a label."""

USUAL = 1 << 15
"""Bytes of a sample, by which is guessed how long it takes to look through a file."""


class Index(NamedTuple):
    """What a tar file holds, as far as a data set needs it."""

    tar: Tar
    names: list[str]
    """Of the N pictures, in their order in the file."""
    places: NDArray[np.int64]
    """``[N, 3]``: start and size of each, and which of `labels` it has; -1: none."""
    labels: list[str]
    """The different labels, as they are written."""

    def label(self, row: int) -> str | None:
        number = self.places[row, 2]
        return None if number < 0 else self.labels[number]


def is_tar(path: Path) -> bool:
    """Whether a path means a tar file: by its ending, unless it is a folder."""
    return path.suffix.lower() == ENDING and not path.is_dir()


def tars_in(folder: Path, within: Path) -> list[Path]:
    """The tar files right in a folder, by name. Raises ValueError for a link that leads out of `within`."""
    found = sorted(p for p in folder.iterdir() if is_tar(p) and not p.name.startswith("."))
    for path in found:
        check_link(path, real(within))
    return found


def members_of(tars: list[Path]) -> tuple[Members, list[Index]]:
    """The pictures of all files, one file after the other, and what is in each. Raises ValueError as `index_of`."""
    with workers(sum(path.stat().st_size for path in tars if path.exists()) // USUAL) as run:
        found = list(run(index_of, [(path,) for path in tars]))
    places = np.concatenate([np.empty((0, 2), np.int64), *(index.places[:, :2] for index in found)])
    return Members.of(((index.tar, index.names) for index in found), places), found


def pictures_in(path: Path) -> list[Member]:
    """The pictures of a tar file in their order. Raises ValueError as `index_of`, and where there is none."""
    members, _ = members_of([path])
    if not len(members):
        raise ValueError(f"{path} holds no pictures")
    return list(members)


def index_of(path: Path) -> Index:
    """What is in a tar file: as the cache has it, as long as size and times of the file are the same, or looked up.

    Raises:
        ValueError: there is no such file, it is damaged, cut off or compressed, a name would lead out of it or is there
            twice, a sample is a link, or has two pictures or a label that is no line of text.
    """
    try:
        if not path.is_file():
            raise ValueError(f"{path} is no regular file" if path.exists() else f"there is no file {str(path)!r}")
        tar = Tar.of(path, path.stat())
        entry = cache.Entry(cache.digest(["members", real(path)]), cache.digest(["fewlabels 1", *tar[1:]]))
        if (known := _remembered(tar, entry)) is not None:
            return known
        found = _look_through(tar)
        if Tar.of(path, path.stat()) != tar:
            raise ValueError(f"{path} is being written; wait until it is whole")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    rows = np.ascontiguousarray(found.places).view(np.uint8)
    entry.store(rows, {"names": found.names, "labels": found.labels})
    return found


def _remembered(tar: Tar, entry: cache.Entry) -> Index | None:
    if (known := entry.load()) is None or known[0].ndim != 2 or known[0].shape[1] != 24:
        return None
    places = np.ascontiguousarray(known[0]).view(np.int64)
    names, labels = known[1].get("names"), known[1].get("labels")
    if not isinstance(names, list) or not isinstance(labels, list) or len(names) != len(places):
        return None
    return Index(tar, names, places, labels)


# ---- looking through a file


class _Header(tarfile.TarInfo):
    """A header without the negative size by which a file could lead a reader in a circle."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0:
            raise tarfile.HeaderError("negative size")
        return found


class _Sample:
    """The files of one name."""

    def __init__(self) -> None:
        self.picture: tarfile.TarInfo | None = None
        self.label: str | None = None
        self.facts: tarfile.TarInfo | None = None


def _look_through(tar: Tar) -> Index:
    path = tar.path
    samples: dict[str, _Sample] = {}
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, errors="surrogateescape") as archive:
                for key, ending, info in _files(tar, archive):
                    _take(path, archive, samples.setdefault(key, _Sample()), ending, info)
                _check_end(tar, file, archive.offset)
                for sample in samples.values():
                    if sample.label is None and sample.facts is not None and sample.picture is not None:
                        sample.label = _label_in(_content(archive, sample.facts))
        except (tarfile.TarError, EOFError, RecursionError, OverflowError, UnicodeError) as error:
            raise ValueError(f"{path} {_damage(path)}: {error}") from error
    found = [s for s in samples.values() if s.picture is not None]
    if alone := next((key for key, s in samples.items() if s.picture is None and s.label is not None), None):
        raise ValueError(f"{path} holds a label for {alone!r} and no picture")
    numbers: dict[str | None, int] = {None: -1}
    places = np.empty((len(found), 3), np.int64)
    names = []
    for row, sample in enumerate(found):
        assert sample.picture is not None
        number = numbers.setdefault(sample.label, len(numbers) - 1)
        places[row] = sample.picture.offset_data, sample.picture.size, number
        names.append(sample.picture.name)
    return Index(tar, names, places, [label for label in numbers if label is not None])


def _files(tar: Tar, archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key and ending of the files of the archive that count, in their order. Raises ValueError for what cannot."""
    path, at = tar.path, -1
    seen: set[str] = set()
    while (info := archive.next()) is not None:
        if archive.offset <= at or info.size < 0:
            raise tarfile.ReadError("its headers lead in a circle")
        at = archive.offset
        parts = PurePosixPath(info.name).parts
        if info.name.startswith("/") or ".." in parts or "\0" in info.name:
            raise ValueError(f"{path} holds {info.name!r}, which leads out of the archive; make it anew")
        if info.isdir() or any(part.startswith(".") or is_helper(part) for part in parts):
            continue
        if not info.isreg() or info.issparse():
            what = "a link" if info.issym() or info.islnk() else "no plain file"
            raise ValueError(f"{path} holds {info.name!r}, which is {what}; make it anew with the file itself")
        if info.offset_data + info.size > tar.size:
            raise tarfile.ReadError(f"it ends within {info.name!r}")
        info.name = "/".join(parts)
        if info.name in seen:
            raise ValueError(f"{path} holds {info.name!r} twice; make it anew")
        seen.add(info.name)
        folder, _, last = info.name.rpartition("/")
        stem, _, ending = last.partition(".")
        yield f"{folder}/{stem}" if folder else stem, ending.lower(), info


def _take(path: Path, archive: tarfile.TarFile, sample: _Sample, ending: str, info: tarfile.TarInfo) -> None:
    """Put a file of the archive into its sample. Raises ValueError where that has one already."""
    suffix = f".{ending.rpartition('.')[2]}"
    if ending == "cls":
        if info.size > LARGEST_LABEL:
            raise ValueError(f"{info.name} of {path} has {info.size} bytes, and is no label")
        text = _content(archive, info).decode("utf-8", "replace").strip()
        if not text.isprintable() or "\ufffd" in text:
            raise ValueError(f"{info.name} of {path} is no label: it must be one line of text or a number")
        sample.label = text
    elif ending == "json":
        sample.facts = info
    elif suffix in SUFFIXES or suffix in UNREAD:
        if sample.picture is not None:
            raise ValueError(
                f"{path} holds two pictures of one sample, {sample.picture.name!r} and {info.name!r}: the name up to "
                "the first dot says which sample a file is of"
            )
        sample.picture = info


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(info)
    assert content is not None
    return content.read()


def _label_in(data: bytes) -> str | None:
    """What ``label`` of a JSON object says, if it is a number of a class or a text."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    label = found.get("label") if isinstance(found, dict) else None
    return str(label) if isinstance(label, int | str) and not isinstance(label, bool) else None


def _check_end(tar: Tar, file: Any, at: int) -> None:
    """Raise `tarfile.ReadError` unless nothing but zeros follows, a block of 512 at least.

    `tarfile` takes a header that it cannot read for the end, and so would lose what follows; as it would the second of
    two tar files that were put one after the other.
    """
    if tar.size - at < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off: the empty blocks that end a tar file are missing")
    file.seek(at)
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"what follows byte {at} is no file of it, though the tar file does not end there")


def _damage(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(6)
    packed = re.match(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", head)
    return "is compressed, and cannot be read in place; unpack it" if packed else "cannot be read as a tar file"
