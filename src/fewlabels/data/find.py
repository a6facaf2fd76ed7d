"""Finding picture files in folders."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from fewlabels.data.kinds import HEAD, SUFFIXES, UNREAD, shown_by
from fewlabels.runtime import regular
from fewlabels.runtime.regular import real

HELPERS = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot", "lost+found"),
        *("__macosx", "__pycache__", "$recycle.bin", "recycler", "recycled", "system volume information"),
    )
)
"""Folders that disk stations, operating systems and Python make beside one's own, in small letters: thumbnails,
deleted files, resource forks."""


def read_text(path: Path) -> str:
    """The text of a regular file: UTF-8, or UTF-16 with a byte order mark.

    Raises OSError where there is none (a pipe or a device too: reading one could take for ever), ValueError where it
    is no such text.
    """
    return text_of(regular.read_bytes(path, regular.LARGEST_TEXT))


def read_hashed(path: Path) -> tuple[str, str]:
    """`read_text`, and the SHA-256 (hex) of the file: its bytes, which `sha256sum` takes too."""
    data = regular.read_bytes(path, regular.LARGEST_TEXT)
    return text_of(data), hashlib.sha256(data).hexdigest()


def text_of(data: bytes) -> str:
    """`read_text` of a file's bytes."""
    name, encoding = ("UTF-16", "utf-16") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("UTF-8", "utf-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not {name} text; save the file as UTF-8") from error


class Found(NamedTuple):
    """What lies in a folder and below, each sorted by relative path."""

    images: list[Path]
    others: list[Path]
    """Files that are no pictures."""
    helpers: list[Path]
    """Folders of other programs (`HELPERS`), which are passed over."""


def find_images(path: Path | str) -> list[Path]:
    """The picture files at `path`: the file itself, or all in the folder and below, sorted by relative path.

    The paths start with `path`, so that they can be opened. Hidden files and folders (leading dot) and those of
    other programs (`HELPERS`) are skipped. A picture is known by its ending, or by its first bytes where the ending
    is none of a picture. Formats that are not read (`kinds.UNREAD`) count too, so that decoding names them.

    Raises:
        ValueError: `path` does not exist, or a symbolic link leads out of the folder or in a circle.
    """
    return scan(Path(path)).images


def scan(path: Path, within: Path | None = None) -> Found:
    """`find_images`, and what else there is. Links may lead anywhere in `within` (default: `path`)."""
    if path.is_file():
        return Found([path], [], [])
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {str(path)!r}")
    found = Found([], [], [])
    top = real(within or path)
    check_link(path, top)
    _walk(path, top, (), found)
    return Found(*(sorted(paths, key=Path.as_posix) for paths in found))


def folders_in(path: Path) -> list[Path]:
    """The folders right below `path`, sorted, but for hidden ones and those of other programs."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and not is_helper(p.name))


def is_helper(name: str) -> bool:
    """Whether a folder of this name is another program's."""
    return name.casefold() in HELPERS


def _walk(folder: Path, within: Path, above: tuple[Path, ...], found: Found) -> None:
    above = (*above, real(folder))
    try:
        with os.scandir(folder) as listing:  # its entries know their kind without another look at the disk
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"the folder {str(folder)!r} cannot be listed: {error.strerror}") from error
    for entry in entries:
        path = folder / entry.name
        linked = entry.is_symlink()
        what = path if linked else entry  # an entry raises where a link goes in a circle
        if is_helper(entry.name) and what.is_dir():
            found.helpers.append(path)
            continue
        if linked:
            check_link(path, within)
            if real(path) in above:
                raise ValueError(f"{str(path)!r} is a symbolic link to a folder that it lies in")
        if what.is_dir():
            _walk(path, within, above, found)
        elif not what.is_file() and not (linked and not path.exists()):
            found.others.append(path)  # a pipe or a device: opening one could wait for ever
        elif (suffix := path.suffix.lower()) in SUFFIXES or suffix in UNREAD or _looks_like_picture(path):
            found.images.append(path)  # also a dangling link or an unread format: decoding lists it as unreadable
        else:
            found.others.append(path)


def check_link(path: Path, within: Path) -> None:
    """Raise ValueError if `path` is a symbolic link that leads out of `within` (resolved)."""
    if path.is_symlink() and not real(path).is_relative_to(within):
        raise ValueError(f"{str(path)!r} is a symbolic link that leaves {str(within)!r}; copy what it points to")


def _looks_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return shown_by(file.read(HEAD))
    except OSError:
        return False
