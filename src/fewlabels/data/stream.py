"""Pictures that stay in their files: decoded when a batch needs them, by processes or threads, ahead of time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from fewlabels.data.blobs import Packed
from fewlabels.data.crops import Crops, small_part
from fewlabels.data.paths import chosen
from fewlabels.data.pictures import PLAIN, About, Decoding, Unreadable, decode
from fewlabels.data.source import Images, Labels, OnDemand
from fewlabels.data.workers import Map, count, workers

PictureFiles: TypeAlias = Sequence[Path | Packed]


class Files(OnDemand):
    """Picture files as if they were an array ``[N, H, W, C]``.

    An index gives a decoded picture, a slice, a mask or row numbers give `Files` again, `np.asarray` decodes
    everything. A picture that cannot be decoded raises `Unreadable` where it is read, or with `groups` is left out: the
    next readable one of its group stands in for it, the same in every step, on every rank and after a resume.
    """

    ahead = 3
    """Steps: the decoders go on while a batch is gathered and uploaded."""
    crops = True

    def __init__(
        self,
        files: PictureFiles,
        channels: int,
        size: tuple[int, int],
        how: Decoding = PLAIN,
        *,
        pool: Pool | None = None,
        groups: Labels | None = None,
    ) -> None:
        """channels, size, how: see `pictures.decode`. groups: int64 ``[N]``, whose pictures may stand in for others."""
        self.shape = (len(files), *size, channels)
        self._files, self._how, self._groups = files, how, groups
        self._pool = pool or Pool(len(files))

    def __getitem__(self, key: Any) -> Files | Images:
        if isinstance(key, int | np.integer):
            return decode(self._files[int(key)], self.shape[3], self.shape[1:3], self._how, About(look=False))
        files = chosen(self._files, key)
        groups = None if self._groups is None else self._groups[key]
        return Files(files, self.shape[3], self.shape[1:3], self._how, pool=self._pool, groups=groups)

    def of(self, channels: int) -> Files:
        """The same pictures with this number of channels, 1 or 3."""
        return Files(self._files, channels, self.shape[1:3], self._how, pool=self._pool, groups=self._groups)

    def lenient(self, groups: Labels) -> Files:
        """The same pictures, where those that cannot be read are left out."""
        return Files(self._files, self.shape[3], self.shape[1:3], self._how, pool=self._pool, groups=groups)

    def reserve(self, rows: Labels) -> None:
        if self._groups is not None and len(rows):
            self._groups = self._groups.copy()
            self._groups[rows] += 1 + self._groups.max() - self._groups.min()

    def news(self) -> list[str]:
        new, self._pool.left_out = self._pool.left_out, {}
        self._pool.told |= new.keys()
        return [
            f"{name} cannot be read any more and is left out, another one stands in: {why}" for name, why in new.items()
        ]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Images:
        out = np.empty(self.shape, np.uint8)
        self.read(np.arange(len(self)), out)
        return out if dtype is None else cast(Images, out.astype(dtype, copy=False))

    def read(self, rows: Labels, out: Images, crops: Crops | None = None) -> None:
        for start, stop, (pixels, broken, _) in self._run(decoded_of, rows, self._options, crops):
            out[start:stop] = pixels
            for offset, reason in broken.items():
                at = start + offset
                out[at] = self._stand_in(int(rows[at]), reason, None if crops is None else crops[at], decoded_of)

    def read_parts(self, rows: Labels, crops: Crops) -> list[Images]:
        out: list[Images] = []
        for start, _, (parts, broken, _) in self._run(parts_of, rows, self._options, crops):
            for offset, reason in broken.items():
                at = start + offset
                parts[offset] = self._stand_in(int(rows[at]), reason, crops[at], parts_of)
            out += parts
        return out

    @property
    def _options(self) -> tuple[int, tuple[int, int], Decoding, bool]:
        return self.shape[3], self.shape[1:3], self._how, False

    def _run(
        self, work: Callable[..., Any], rows: Labels, options: tuple[Any, ...], crops: Crops | None
    ) -> Iterator[tuple[int, int, Any]]:
        """The results of `work` for the pictures at `rows`, from and to which place each is."""
        share = max(1, min(64, -(-len(rows) // (2 * count()))))  # two jobs a worker: pictures differ in size
        files = [self._files[row] for row in rows]
        jobs = [slice(start, min(start + share, len(files))) for start in range(0, len(files), share)]
        drawn = [(files[job], *options, None if crops is None else crops[job]) for job in jobs]
        for job, made in zip(jobs, self._pool.run(work, drawn), strict=True):
            yield job.start, job.stop, made

    def _stand_in(self, row: int, reason: str, crop: Crops | None, work: Callable[..., Any]) -> Images:
        """What is read in place of the picture at `row`."""
        name = str(self._files[row])
        if self._groups is None:
            raise Unreadable(name, f"{reason}; mend it and resume, or leave such out (--data.skip-corrupt)")
        others = np.flatnonzero(self._groups == self._groups[row])
        for other in np.roll(others, -1 - np.searchsorted(others, row))[:-1]:
            drawn = None if crop is None else crop[None]
            pixels, broken, _ = work([self._files[other]], *self._options, drawn)
            if not broken:
                if name not in self._pool.told:
                    self._pool.left_out[name] = reason
                return cast(Images, pixels[0])
        raise Unreadable(name, f"{reason}; no other picture of its class can be read")


class Pool:
    """The decoders of `Files` and of its parts: started at first use, ended with the last of them."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._run: Map[Any] | None = None
        self.left_out: dict[str, str] = {}
        """Pictures that could not be read, and why, which nobody has asked for; and those of earlier:"""
        self.told: set[str] = set()

    @property
    def run(self) -> Map[Any]:
        if self._run is None:
            stack = ExitStack()
            self._run = stack.enter_context(workers(self._files))
            weakref.finalize(self, stack.close)
        return self._run


Faults: TypeAlias = tuple[dict[int, str], dict[int, About]]
"""Why files cannot be read, and what is to be said of the others; by row."""


def decoded_of(
    files: PictureFiles,
    channels: int,
    shape: tuple[int, int],
    how: Decoding = PLAIN,
    look: bool = True,
    crops: Crops | None = None,
) -> tuple[Images, dict[int, str], dict[int, About]]:
    """Images ``[n, H, W, C]``, zeros where a file is broken, and its `Faults`; without `look` nothing is said.

    crops: numbers ``[n, crops.NUMBERS]`` of a random crop of each.
    """
    images = np.zeros((len(files), *shape, channels), np.uint8)
    broken: dict[int, str] = {}
    abouts: dict[int, About] = {}
    for row, file in enumerate(files):
        about = About(look=look)
        try:
            crop = None if crops is None else crops[row]
            images[row] = decode(file, channels, shape, how, about, crop, fast=not look)
        except Unreadable as error:
            broken[row] = error.reason
        else:
            if about:
                abouts[row] = about
    return images, broken, abouts


def parts_of(
    files: PictureFiles, channels: int, shape: tuple[int, int], how: Decoding, look: bool, crops: Crops
) -> tuple[list[Images], dict[int, str], dict[int, About]]:
    """The crop of each, as `decoded_of` makes it, before it is resized to `shape` and mirrored."""
    parts: list[Images] = []
    broken: dict[int, str] = {}
    for row, file in enumerate(files):
        try:
            whole = decode(file, channels, None, how, About(look=look), fast=not look)
        except Unreadable as error:
            broken[row] = error.reason
            parts.append(np.empty((0, 0, channels), np.uint8))
        else:
            parts.append(small_part(whole, crops[row], shape))
    return parts, broken, {}


def faults_of(files: PictureFiles, channels: int, shape: tuple[int, int], how: Decoding) -> Faults:
    """What `decoded_of` says of the files, without the images."""
    broken: dict[int, str] = {}
    abouts: dict[int, About] = {}
    for row, file in enumerate(files):  # one at a time: images of any size need no memory together
        _, wrong, told = decoded_of([file], channels, shape, how)
        broken |= {row + one: reason for one, reason in wrong.items()}
        abouts |= {row + one: about for one, about in told.items()}
    return broken, abouts
