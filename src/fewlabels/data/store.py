"""Images that stay on the device as bytes, and which of them a step draws."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.source import Images
from fewlabels.rng import philox


class Store:
    """A resident image set, and batches of it as packed pixels.

    Three channels are kept as one int32 a pixel (bytes R, G, B, 0 from the lowest), so that a batch is one
    gather; one channel and other numbers as bytes.
    """

    def __init__(self, images: Images, device: torch.device | str = "cpu") -> None:
        """`images` is uint8 ``[N, H, W, C]``; the store keeps a copy."""
        assert images.dtype == np.uint8 and images.ndim == 4
        n, h, w, c = images.shape
        self.shape = (c, h, w)
        """(C, H, W)"""
        flat = images.reshape(n, h * w, c)
        if c == 3:
            self._data = torch.empty(n, h * w, dtype=torch.int32, device=device)
            for start in range(0, n, 4096):  # in pieces: the packed copy on the host is a third larger than the set
                piece = flat[start : start + 4096]
                packed = np.zeros((*piece.shape[:2], 4), np.uint8)
                packed[..., :3] = piece
                self._data[start : start + 4096] = torch.from_numpy(packed.view("<i4")[..., 0]).to(device)
        else:
            one = np.array(flat[..., 0] if c == 1 else flat, order="C")  # a copy, so that the caller's may change
            self._data = torch.from_numpy(one).to(device)

    def __len__(self) -> int:
        return len(self._data)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._data.nbytes

    @property
    def device(self) -> torch.device:
        return self._data.device

    def take(self, rows: Tensor) -> Tensor:
        """Pixels of the images at `rows` (int64 ``[B]``, on the store's device).

        One or three channels: int32 ``[B, H*W]``, bytes R, G, B, 0 (grey: R = G = B). Others: uint8 ``[B,
        H*W, C]``.
        """
        batch = self._data.index_select(0, rows)
        return batch.int() * 0x010101 if self.shape[0] == 1 else batch


@lru_cache(maxsize=8)  # the current and the next epoch of the few streams of a run
def _epoch(n: int, seed: int, purpose: str, epoch: int) -> NDArray[np.int64]:
    order = philox(seed, purpose, epoch).permutation(n).astype(np.int64, copy=False)
    order.flags.writeable = False
    return order


def draw_rows(n: int, batch: int, step: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Rows ``0 .. n-1`` of one step, int64 ``[batch]``: each epoch of n draws is a permutation.

    Draw i of the step is number ``step * batch + i`` of one endless stream, so that the draw depends on
    nothing but the arguments, and a batch may be larger than the set.
    """
    assert n > 0 and batch > 0 and step >= 0
    start, stop = step * batch, (step + 1) * batch
    parts = []
    while start < stop:
        epoch, offset = divmod(start, n)
        part = _epoch(n, seed, purpose, epoch)[offset : offset + stop - start]
        parts.append(part)
        start += len(part)
    return np.concatenate(parts)
