"""Picture files that are no files of their own: in memory, or a part of a tar file."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Blob(NamedTuple):
    """A picture file that is in memory."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


class Tar(NamedTuple):
    """A tar file, and its state when its members were looked up."""

    path: Path
    size: int
    changed: int
    """st_mtime_ns"""
    replaced: int
    """st_ctime_ns, which also changes when a file is replaced by an older one."""

    @classmethod
    def of(cls, path: Path, found: os.stat_result) -> Tar:
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class Member(NamedTuple):
    """A picture file within a tar file, which is read in place."""

    tar: Tar
    within: str
    """Its name there."""
    start: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar.path}{os.sep}{self.within}"

    def open(self) -> BinaryIO:
        """The file, which can be read and sought in as one of its own. Raises OSError, and ValueError where the tar
        file is another one by now: what lies at the place may be anything."""
        handle = io.FileIO(self.tar.path)
        try:
            now = os.fstat(handle.fileno())
            if (now.st_size, now.st_mtime_ns) != (self.tar.size, self.tar.changed):
                raise ValueError(f"{self.tar.path} has changed since its members were looked up; start again")
        except BaseException:
            handle.close()
            raise
        return cast(BinaryIO, io.BufferedReader(_Window(handle, self.start, self.size), 1 << 16))

    @property
    def data(self) -> bytes:
        """Its bytes. Errors as `open`; ValueError too where the tar file ends before them."""
        with self.open() as file:
            found = file.read()
        if len(found) != self.size:
            raise ValueError(f"{self.tar.path} ends within it")
        return found


Packed: TypeAlias = Blob | Member
"""With `data`, its bytes; `str` is what sentences call it."""


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self.at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self.file.fileno(), max(0, min(len(view), self.size - self.at)), self.start + self.at)
        view[: len(data)] = data
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.file.close()
        super().close()


def opened(file: Path | str | Packed) -> BinaryIO:
    """The content of a picture file, wherever it is. Raises OSError, and ValueError as `Member.open`."""
    return file.open() if isinstance(file, Packed) else cast(BinaryIO, open(file, "rb"))


def check_regular(file: Path | str | Packed) -> None:
    """Raise ValueError for what is no regular file: a pipe could wait for ever, a device never end."""
    if not isinstance(file, Packed) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("not a regular file")


def size_of(file: Path | Packed) -> int:
    """Bytes of a picture file. Raises OSError."""
    if isinstance(file, Blob):
        return len(file.data)
    return file.size if isinstance(file, Member) else os.stat(file).st_size
