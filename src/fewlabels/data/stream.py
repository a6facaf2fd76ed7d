"""Pictures that stay in their files: decoded when a batch needs them, by processes or threads, ahead of time."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from fewlabels.data.pictures import Blob, Fit, Unreadable, decode
from fewlabels.data.source import Images, Labels, OnDemand
from fewlabels.data.workers import Map, count, workers

PictureFiles: TypeAlias = Sequence[Path | Blob]


class Files(OnDemand):
    """Picture files as if they were an array ``[N, H, W, C]``.

    An index gives a decoded picture, a slice, a mask or row numbers give `Files` again, `np.asarray` decodes
    everything. A picture that cannot be decoded raises `Unreadable` where it is read.
    """

    ahead = 3
    """Steps: the decoders go on while a batch is gathered and uploaded."""

    def __init__(
        self, files: PictureFiles, channels: int, size: tuple[int, int], fit: Fit = "crop", *, pool: Pool | None = None
    ) -> None:
        """channels, size, fit: see `pictures.decode`."""
        self.shape = (len(files), *size, channels)
        self._files, self._fit = files, fit
        self._pool = pool or Pool(len(files))

    def __getitem__(self, key: Any) -> Files | Images:
        if isinstance(key, int | np.integer):
            return decode(self._files[int(key)], self.shape[3], self.shape[1:3], self._fit)
        files = [self._files[row] for row in np.arange(len(self))[key]]
        return Files(files, self.shape[3], self.shape[1:3], self._fit, pool=self._pool)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Images:
        out = np.empty(self.shape, np.uint8)
        self.read(np.arange(len(self)), out)
        return out if dtype is None else cast(Images, out.astype(dtype, copy=False))

    def read(self, rows: Labels, out: Images) -> None:
        share = max(1, min(64, -(-len(rows) // (2 * count()))))  # two jobs a worker: pictures differ in size
        files = [self._files[row] for row in rows]
        jobs = [files[start : start + share] for start in range(0, len(files), share)]
        options = self.shape[3], self.shape[1:3], self._fit
        start = 0
        for pixels, broken in self._pool.run(decoded_of, [(job, *options) for job in jobs]):
            for offset, reason in broken.items():
                file = files[start + offset]
                raise Unreadable(file.name if isinstance(file, Blob) else file, reason)
            out[start : start + len(pixels)] = pixels
            start += len(pixels)


class Pool:
    """The decoders of `Files` and of its parts: started at first use, ended with the last of them."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._run: Map[Any] | None = None

    @property
    def run(self) -> Map[Any]:
        if self._run is None:
            stack = ExitStack()
            self._run = stack.enter_context(workers(self._files))
            weakref.finalize(self, stack.close)
        return self._run


def decoded_of(files: PictureFiles, channels: int, shape: tuple[int, int], fit: Fit) -> tuple[Images, dict[int, str]]:
    """Images ``[n, H, W, C]``, zeros where a file is broken, and the reasons by row."""
    images = np.zeros((len(files), *shape, channels), np.uint8)
    broken: dict[int, str] = {}
    for row, file in enumerate(files):
        try:
            images[row] = decode(file, channels, shape, fit)
        except Unreadable as error:
            broken[row] = error.reason
    return images, broken
