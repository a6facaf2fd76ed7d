"""Reading files that are files: a pipe would be waited for without end, a device has no end, a bomb no measure."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_TEXT = 2**28
"""Bytes of a JSON file: many times what the split of the largest data set takes."""

LARGEST_LOG = 2**31
"""Bytes of a metrics.jsonl."""


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
    """The text of a JSON file. Raises OSError as `read_bytes`, UnicodeDecodeError where it is not UTF-8."""
    return read_bytes(path, LARGEST_TEXT).decode()
