"""Reading files that are files: a pipe would be waited for without end, a device has no end, a bomb no measure."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fewlabels.runtime.urls import bare, is_url

LARGEST_TEXT = 2**28
"""Bytes of a JSON file: many times what the split of the largest data set takes."""

LARGEST_LOG = 2**31
"""Bytes of a metrics.jsonl."""


def real(path: Path) -> Path:
    """The path without links; one whose links go in a circle stays as far as it leads.

    For `Path.resolve`, which raises RuntimeError for such a path on Python 3.11 and 3.12.
    """
    return Path(os.path.realpath(path))


def expanded(path: Path | str) -> Path:
    """The path with a home folder in place of its ``~``. Raises ValueError where that is not known, and for a URL.

    For `Path.expanduser`, which raises RuntimeError.
    """
    if is_url(path):
        raise ValueError(f"{bare(str(path))} is a URL, and what is asked for here is a file or folder of this machine")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: no home folder is known for that; write the whole path, or set HOME") from None


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError where there is none, or where it has more than `limit` bytes."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, and {limit} are the most", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read() if limit is None else file.read(limit)
    finally:
        os.close(handle)


def read_text(path: Path) -> str:
    """The text of a JSON file, without the mark that Windows puts before it.

    Raises OSError as `read_bytes`, UnicodeDecodeError where it is not UTF-8.
    """
    return read_bytes(path, LARGEST_TEXT).decode().removeprefix("\ufeff")
