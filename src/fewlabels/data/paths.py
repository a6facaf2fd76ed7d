"""Very many picture files in some forty bytes each (sixteen more in tar files): their names in one block, and numbers
that say where each is."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.blobs import Member, Tar

F = TypeVar("F")
H = TypeVar("H")


class Compact(Sequence[F], Generic[F, H]):
    """Files as a sequence that makes each when it is asked for; a slice, a mask or row numbers give such a sequence.

    Those of it share the names with it. F is a file, H what holds some.
    """

    def __init__(
        self,
        holders: Sequence[H],
        block: bytes,
        holder: NDArray[np.int32],
        start: NDArray[np.int64],
        length: NDArray[np.uint16],
        places: NDArray[np.int64],
    ) -> None:
        """block: names as the system has them, one after the other; holder, start, length: ``[N]``, of each file its
        place among `holders`, and its name in the block; places: ``[N, P]``, where it lies in there."""
        self._holders, self._block = holders, block
        self._holder, self._start, self._length, self._places = holder, start, length, places

    @classmethod
    def of(cls, listing: Iterable[tuple[H, Sequence[str]]], places: NDArray[np.int64] | None = None) -> Self:
        """From what holds files, and the names in each."""
        folders: list[H] = []
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
        nowhere = np.empty((len(lengths), 0), np.int64)
        return cls(folders, bytes(block), which, ends - lengths, lengths, nowhere if places is None else places)

    @abstractmethod
    def _make(self, holder: H, name: str, place: Sequence[int]) -> F:
        """The file."""

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, key: int) -> F: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any]) -> Self: ...
    def __getitem__(self, key: Any) -> F | Self:
        if isinstance(key, int | np.integer):
            start = self._start[key]
            name = self._block[start : start + self._length[key]]
            return self._make(self._holders[self._holder[key]], os.fsdecode(name), self._places[key].tolist())
        parts = (self._holder[key], self._start[key], self._length[key], self._places[key])
        return type(self)(self._holders, self._block, *parts)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            [*self._holders, *other._holders],
            self._block + other._block,
            np.concatenate([self._holder, other._holder + np.int32(len(self._holders))]),
            np.concatenate([self._start, other._start + len(self._block)]),
            np.concatenate([self._length, other._length]),
            np.concatenate([self._places, other._places]),
        )

    def __iter__(self) -> Iterator[F]:
        return (self[row] for row in range(len(self)))


class Paths(Compact[Path, Path]):
    """Files in folders."""

    def _make(self, holder: Path, name: str, place: Sequence[int]) -> Path:
        return Path(holder, name)


class Members(Compact[Member, Tar]):
    """Files in tar files, whose places are their start and size."""

    def _make(self, holder: Tar, name: str, place: Sequence[int]) -> Member:
        return Member(holder, name, *place)


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
    return files[key] if isinstance(files, Compact) else [files[row] for row in np.arange(len(files))[key]]
