"""Pictures that stay in their files: decoded when a batch needs them, by processes or threads, ahead of time."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from fewlabels.data.crops import Crops
from fewlabels.data.pictures import PLAIN, About, Blob, Decoding, Unreadable, decode
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
    crops = True

    def __init__(
        self,
        files: PictureFiles,
        channels: int,
        size: tuple[int, int],
        how: Decoding = PLAIN,
        *,
        pool: Pool | None = None,
    ) -> None:
        """channels, size, how: see `pictures.decode`."""
        self.shape = (len(files), *size, channels)
        self._files, self._how = files, how
        self._pool = pool or Pool(len(files))

    def __getitem__(self, key: Any) -> Files | Images:
        if isinstance(key, int | np.integer):
            return decode(self._files[int(key)], self.shape[3], self.shape[1:3], self._how, About(look=False))
        files = [self._files[row] for row in np.arange(len(self))[key]]
        return Files(files, self.shape[3], self.shape[1:3], self._how, pool=self._pool)

    def of(self, channels: int) -> Files:
        """The same pictures with this number of channels, 1 or 3."""
        return Files(self._files, channels, self.shape[1:3], self._how, pool=self._pool)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Images:
        out = np.empty(self.shape, np.uint8)
        self.read(np.arange(len(self)), out)
        return out if dtype is None else cast(Images, out.astype(dtype, copy=False))

    def read(self, rows: Labels, out: Images, crops: Crops | None = None) -> None:
        share = max(1, min(64, -(-len(rows) // (2 * count()))))  # two jobs a worker: pictures differ in size
        files = [self._files[row] for row in rows]
        jobs = [slice(start, start + share) for start in range(0, len(files), share)]
        options = self.shape[3], self.shape[1:3], self._how, False
        drawn = [(files[job], *options, None if crops is None else crops[job]) for job in jobs]
        start = 0
        for pixels, broken, _ in self._pool.run(decoded_of, drawn):
            for offset, reason in broken.items():
                file = files[start + offset]
                raise Unreadable(
                    file.name if isinstance(file, Blob) else file,
                    f"{reason}; mend it and resume (--data.skip-corrupt leaves such out before a training begins)",
                )
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
            images[row] = decode(file, channels, shape, how, about, None if crops is None else crops[row])
        except Unreadable as error:
            broken[row] = error.reason
        else:
            if about:
                abouts[row] = about
    return images, broken, abouts


def faults_of(files: PictureFiles, channels: int, shape: tuple[int, int], how: Decoding) -> Faults:
    """What `decoded_of` says of the files, without the images."""
    broken: dict[int, str] = {}
    abouts: dict[int, About] = {}
    for row, file in enumerate(files):  # one at a time: images of any size need no memory together
        _, wrong, told = decoded_of([file], channels, shape, how)
        broken |= {row + one: reason for one, reason in wrong.items()}
        abouts |= {row + one: about for one, about in told.items()}
    return broken, abouts
