"""Images that stay on the device as bytes, and which of them a step draws."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.source import Images
from fewlabels.runtime.rgb import pack, spread
from fewlabels.runtime.rng import philox


class Store:
    """A resident image set, and batches of it as packed pixels.

    Three channels are kept packed, so that a batch is one gather; one channel and other numbers as bytes.
    """

    ahead = 0
    """Steps that `expect` should be told of: none, everything is there."""

    def __init__(self, images: Images, device: torch.device | str = "cpu") -> None:
        """`images` is uint8 ``[N, H, W, C]``; the store keeps a copy."""
        assert images.dtype == np.uint8 and images.ndim == 4
        n, h, w, c = images.shape
        self.shape = (c, h, w)
        """(C, H, W)"""
        kept, form = {1: (torch.uint8, (h * w,)), 3: (torch.int32, (h * w,))}.get(c, (torch.uint8, (h * w, c)))
        self.data = torch.empty(n, *form, dtype=kept, device=device)
        size = max(1, 2**18 // (h * w))  # in pieces, which stay in the processor's cache while they are packed
        for start in range(0, n, size):
            piece = torch.from_numpy(images[start : start + size].copy())  # no view: torch warns of read-only ones
            self.data[start : start + size].copy_((pack(piece) if c == 3 else piece).view(-1, *form))

    def __len__(self) -> int:
        return len(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.data.nbytes

    @property
    def device(self) -> torch.device:
        return self.data.device

    rows_device = device
    """Where `take` wants its rows."""

    def expect(self, batches: Iterable[object]) -> None:
        """The rows of the next batches; see `Gather.expect`."""

    def take(self, rows: Tensor) -> Tensor:
        """Pixels of the images at `rows` (int64 ``[B]``, on the store's device).

        They are those of `fewlabels.runtime.rgb.pack`: int32 ``[B, H*W]`` or uint8 ``[B, H*W, C]``.
        """
        batch = self.data.index_select(0, rows)
        return spread(batch) if self.shape[0] == 1 else batch


LARGE = 2**16
"""Rows of a set whose next epoch is drawn in the background: a permutation of a million takes some 15 ms."""

_background = ThreadPoolExecutor(1, thread_name_prefix="epoch")


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
        if n >= LARGE and offset <= n // 2 < offset + len(part):
            _background.submit(_epoch, n, seed, purpose, epoch + 1)
        parts.append(part)
        start += len(part)
    return np.concatenate(parts)
