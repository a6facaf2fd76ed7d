"""Very many picture files in some forty bytes each: their names in one block, and numbers that say where each is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class Paths(Sequence[Path]):
    """Paths of files as a sequence that makes each when it is asked for; a slice, a mask or row numbers give `Paths`.

    Those of it share the names with it.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        block: bytes,
        folder: NDArray[np.int32],
        start: NDArray[np.int64],
        length: NDArray[np.uint16],
    ) -> None:
        """block: file names as the system has them, one after the other; folder, start, length: ``[N]``, of each file
        its folder among `folders`, and its name in the block."""
        self._folders, self._block = folders, block
        self._folder, self._start, self._length = folder, start, length

    @classmethod
    def of(cls, listing: Iterable[tuple[Path, Sequence[str]]]) -> Paths:
        """From folders and the names in each."""
        folders: list[Path] = []
        counts: list[int] = []
        block = bytearray()
        length: list[NDArray[np.uint16]] = []
        for folder, names in listing:
            encoded = [os.fsencode(name) for name in names]
            block += b"".join(encoded)
            length.append(np.fromiter(map(len, encoded), np.uint16, len(encoded)))
            folders.append(folder)
            counts.append(len(encoded))
        lengths = np.concatenate([*length, np.empty(0, np.uint16)])
        ends = np.cumsum(lengths, dtype=np.int64)
        which = np.repeat(np.arange(len(folders), dtype=np.int32), counts)
        return cls(folders, bytes(block), which, ends - lengths, lengths)

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, key: int) -> Path: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Paths: ...
    def __getitem__(self, key: Any) -> Path | Paths:
        if isinstance(key, int | np.integer):
            start = self._start[key]
            name = self._block[start : start + self._length[key]]
            return Path(self._folders[self._folder[key]], os.fsdecode(name))
        return Paths(self._folders, self._block, self._folder[key], self._start[key], self._length[key])

    def __add__(self, other: Paths) -> Paths:
        return Paths(
            [*self._folders, *other._folders],
            self._block + other._block,
            np.concatenate([self._folder, other._folder + np.int32(len(self._folders))]),
            np.concatenate([self._start, other._start + len(self._block)]),
            np.concatenate([self._length, other._length]),
        )

    def __iter__(self) -> Iterator[Path]:
        return (self[row] for row in range(len(self)))


class Named(Sequence[str]):
    """What files are called, each made when it is asked for."""

    def __init__(self, files: Sequence[Any], name: Callable[[Any], str]) -> None:
        self._files, self._name = files, name

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Named: ...
    def __getitem__(self, key: Any) -> str | Named:
        if isinstance(key, slice):
            return Named(self._files[key], self._name)
        return self._name(self._files[key])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # like a list


def chosen(files: Sequence[Any], key: NDArray[Any]) -> Sequence[Any]:
    """The files at row numbers or a mask."""
    return files[key] if isinstance(files, Paths) else [files[row] for row in np.arange(len(files))[key]]
