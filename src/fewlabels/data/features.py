"""Features by picture on the disk, and those of a set in place of its pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data import cache
from fewlabels.data.source import Images, Labels

KEY = 16
"""Bytes that tell a picture from others: a digest of its pixels."""

MOST = 2**32
"""Bytes of an entry, from which on it is begun anew with what the run needs."""


def key_of(image: Images) -> bytes:
    """What tells a picture ``[H, W, C]`` from others of its shape: `KEY` bytes over its pixels."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=KEY).digest()


class Table:
    """Features by picture, as an entry of the cache holds them: a row is the picture's key and its float16 values.

    What is read is what was written: a digest over all rows stands beside them, so that a damaged entry, or one that
    two processes wrote half each, is none.
    """

    def __init__(self, entry: cache.Entry, dim: int) -> None:
        self.entry, self.dim = entry, dim
        self.known: dict[bytes, NDArray[np.float16]] = {}
        self.new = 0
        self._add(self._read())

    def _read(self) -> NDArray[np.uint8] | None:
        found = self.entry.load()
        if found is None or found[0].ndim != 2 or found[0].shape[1] != KEY + 2 * self.dim:
            return None
        rows = np.asarray(found[0])
        return rows if found[1].get("blake2b") == _digest(rows) else None

    def _add(self, rows: NDArray[np.uint8] | None) -> None:
        if rows is None:
            return
        values = np.ascontiguousarray(rows[:, KEY:]).view(np.float16)
        for key, value in zip(rows[:, :KEY], values, strict=True):
            self.known.setdefault(key.tobytes(), value)

    def get(self, key: bytes) -> NDArray[np.float16] | None:
        return self.known.get(key)

    def put(self, key: bytes, value: NDArray[np.float16]) -> None:
        self.known[key] = value
        self.new += 1

    def store(self, needed: set[bytes]) -> None:
        """Keep what is known, with what another process has stored in the meantime, as far as the disk takes it."""
        if not self.new:
            return
        self._add(self._read())
        whole = len(self.known) * (KEY + 2 * self.dim) <= MOST
        kept = [key for key in self.known if whole or key in needed]
        rows = np.empty((len(kept), KEY + 2 * self.dim), np.uint8)
        for row, key in zip(rows, kept, strict=True):
            row[:KEY] = np.frombuffer(key, np.uint8)
            row[KEY:] = self.known[key].view(np.uint8)
        self.entry.store(rows, {"blake2b": _digest(rows)})
        self.new = 0


def _digest(rows: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(rows).data, digest_size=16).hexdigest()


class FeatureStore:
    """Features of some images of a set; stands where a store of their pixels would, and `take` gives features."""

    ahead = 0

    def __init__(self, features: Tensor, rows: Labels, count: int, shape: tuple[int, int, int]) -> None:
        """`features` float16 ``[n, D]`` are those of the images at `rows`, int64 ``[n]``, of a set of `count`."""
        self.shape, self._count = shape, count
        """(C, H, W) of the images."""
        self._features = features
        places = np.full(count, -1, np.int64)
        places[rows] = np.arange(len(rows))
        self._places = torch.from_numpy(places).to(features.device)

    def __len__(self) -> int:
        return self._count

    @property
    def rows_device(self) -> torch.device:
        """Where `take` wants its rows."""
        return self._features.device

    def holds(self, rows: Labels) -> bool:
        """Whether the features of all images at `rows`, int64 ``[n]``, are there."""
        return bool((self._places[torch.from_numpy(rows).to(self.rows_device)] >= 0).all())

    def expect(self, batches: object) -> None:
        """Everything is there."""

    def take(self, rows: Tensor) -> Tensor:
        """float32 ``[B, D]`` of the images at `rows`, int64 ``[B]``."""
        places = self._places[rows]
        return self._features.index_select(0, places).float()
