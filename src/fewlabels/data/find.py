"""Finding picture files in folders."""

from __future__ import annotations

import os
from pathlib import Path

from fewlabels.data.kinds import HEAD, SUFFIXES, UNREAD, shown_by


def find_images(path: Path | str) -> list[Path]:
    """The picture files at `path`: the file itself, or all in the folder and below, sorted by relative path.

    The paths start with `path`, so that they can be opened. Hidden files and folders (leading dot) are
    skipped. A picture is known by its ending, or by its first bytes where the ending is none of a picture. Formats
    that are not read (`kinds.UNREAD`) count too, so that decoding names them.

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
        elif (suffix := path.suffix.lower()) in SUFFIXES or suffix in UNREAD or _looks_like_picture(path):
            images.append(path)  # also a dangling link or an unread format: decoding lists it as unreadable
        else:
            others.append(path)


def _check_link(path: Path, within: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(within):
        raise ValueError(f"{str(path)!r} is a symbolic link that leaves {str(within)!r}; copy what it points to")


def _looks_like_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return shown_by(file.read(HEAD))
    except OSError:
        return False
