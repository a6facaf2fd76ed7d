"""Pictures in a zip file: unpacked once into the cache folder, and then read as a folder."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fewlabels.data import cache
from fewlabels.data.find import is_helper
from fewlabels.runtime.words import first


def is_zip(path: Path) -> bool:
    """Whether a path means a zip file: by its ending, unless it is a folder."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def unpacked(path: Path) -> Path:
    """The folder with the content of a zip file, ``fewlabels/unpacked/DIGEST/NAME`` of the cache folder.

    It is made where it is missing, or not whole any more: names, sizes and check sums in the archive say which one it
    is. Hidden files and those of other programs are left in the archive.

    Raises:
        ValueError: there is no such file, it is broken or encrypted, an entry would leave the folder or is a link, or
            the disk has no room for it.
    """
    if not path.exists():
        raise ValueError(f"there is no file {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, and no zip file")
    place = path
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(path, archive)
            told = (x for name, info in sorted(entries.items()) for x in (name, info.CRC, info.file_size))
            place = cache.folder().with_name("unpacked") / cache.digest(told) / path.name
            if not _whole(place, entries):
                _unpack(path, archive, entries, place)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a zip file: {error}; make it anew") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be unpacked into {place}: {error.strerror or error}") from error
    return place


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive that are taken, by name. Raises ValueError for one that cannot be, and for none."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if "\0" in info.orig_filename or name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise ValueError(f"{path} holds {info.orig_filename!r}, which leads out of the archive; make it anew")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{path} holds the symbolic link {name!r}; make it anew with what that points to")
        if name.endswith("/") or any(part.startswith(".") or is_helper(part) for part in parts):
            continue
        if info.flag_bits & 1:
            raise ValueError(f"{path} is encrypted ({name}); unpack it, and give the folder")
        plain = "/".join(parts)
        if plain in entries:
            raise ValueError(f"{path} holds {plain!r} twice; make it anew")
        entries[plain] = info
    if not entries:
        raise ValueError(f"{path} holds no files")
    return entries


def _whole(place: Path, entries: dict[str, zipfile.ZipInfo]) -> bool:
    """Whether the files are there with their sizes. Raises ValueError where there are others."""
    there = {p.relative_to(place).as_posix(): p.stat().st_size for p in place.rglob("*") if not p.is_dir()}
    if others := sorted(there.keys() - entries.keys()):
        raise ValueError(f"{place} holds files that the archive has not: {first(others)}; move them away")
    return there == {name: info.file_size for name, info in entries.items()}


def _unpack(path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], place: Path) -> None:
    """Unpack under another name, which becomes `place` when all of it is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    need, free = sum(info.file_size for info in entries.values()), shutil.disk_usage(place.parent).free
    if need > free:
        raise ValueError(f"{path} needs {need:,} bytes unpacked, and {place.parent} has {free:,} left")
    new = Path(tempfile.mkdtemp(dir=place.parent, prefix=".part-"))
    try:
        for name, info in entries.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as packed, target.open("xb") as file:
                shutil.copyfileobj(packed, file, 2**20)
        if place.exists() and not _whole(place, entries):
            shutil.rmtree(place)  # what is left of them
        if not place.exists():
            os.rename(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
