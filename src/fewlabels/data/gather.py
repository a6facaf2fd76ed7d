"""Images that do not live on the device: the rows of a batch are read on the host and uploaded, ahead of time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.crops import Crops, mirrored
from fewlabels.data.residency import Kind, Place, choose
from fewlabels.data.shrink import resized
from fewlabels.data.source import Images, OnDemand, Source
from fewlabels.data.store import Store
from fewlabels.runtime.rgb import pack

Rows: TypeAlias = NDArray[np.int64]
Wanted: TypeAlias = Rows | tuple[Rows, Crops]
"""Rows of a batch, and the numbers of the crops that are taken of their images; else the images whole."""


class _Fetched(NamedTuple):
    pixels: Tensor
    """uint8 ``[B, H, W, C]`` on the device."""
    ready: torch.cuda.Event | None
    """When they are there; None on the CPU."""


class Gather:
    """The same as `Store`, bit for bit, of images in host memory or in files.

    One thread reads the rows that `expect` names, in that order, into pinned memory and uploads them on a stream
    of its own, while the device works on the batch before. Rows that were not expected are read when they are
    taken: what is expected changes the speed only.
    """

    rows_device = torch.device("cpu")
    """Where `take` wants its rows."""
    nbytes = 0
    """Bytes that stay on the device."""

    def __init__(
        self, images: Images | OnDemand, device: torch.device | str = "cpu", *, shrinks: bool | None = None
    ) -> None:
        """`images` is uint8 ``[N, H, W, C]`` and is not copied, unless its rows are scattered in memory.

        shrinks: resize crops on the device, and not where they are decoded; default: on a GPU.
        """
        assert images.dtype == np.uint8 and images.ndim == 4
        self.device = torch.device(device)
        n, h, w, c = images.shape
        self.shape = (c, h, w)
        """(C, H, W)"""
        self.ahead = images.ahead if isinstance(images, OnDemand) else 1
        """Steps that should be expected."""
        self._count = int(n)
        self._images = images if isinstance(images, OnDemand) else np.ascontiguousarray(images)
        self._cuda = self.device.type == "cuda"
        self._shrinks = self._cuda if shrinks is None else shrinks
        self._side = torch.cuda.Stream(self.device) if self._cuda else None  # type: ignore[no-untyped-call]
        self._coming: dict[bytes, Future[_Fetched]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gather")
        weakref.finalize(self, self._thread.shutdown, wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return self._count

    def expect(self, batches: Iterable[Wanted]) -> None:
        """Read these batches, the next ones that are taken, in this order; others that were expected are dropped."""
        coming: dict[bytes, Future[_Fetched]] = {}
        for wanted in batches:
            rows, crops = wanted if isinstance(wanted, tuple) else (wanted, None)
            key = _key(rows, crops)
            if key not in coming:
                known = key in self._coming
                coming[key] = self._coming.pop(key) if known else self._thread.submit(self._fetch, rows, crops)
        for dropped in self._coming.values():
            dropped.cancel()
        self._coming = coming

    def take(self, rows: Tensor, crops: Crops | None = None) -> Tensor:
        """Pixels of the images at `rows` (int64 ``[B]`` on the CPU), or of crops of them, on the device; see
        `Store.take`."""
        wanted = rows.cpu().numpy()
        coming = self._coming.pop(_key(wanted, crops), None)
        pixels, ready = coming.result() if coming else self._fetch(wanted, crops)
        if ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ready)
            pixels.record_stream(stream)
        return pack(pixels)

    def _fetch(self, rows: Rows, crops: Crops | None = None) -> _Fetched:
        """In the thread, or in the caller's for what was not expected."""
        assert not len(rows) or 0 <= rows.min() <= rows.max() < self._count
        assert crops is None or (isinstance(self._images, OnDemand) and self._images.crops)
        if crops is not None and self._shrinks:
            return self._shrunk(rows, crops)
        host = torch.empty(len(rows), *self._images.shape[1:], dtype=torch.uint8, pin_memory=self._cuda)
        if crops is not None:
            self._images.read(rows, host.numpy(), crops)  # type: ignore[union-attr]  # asserted above
        elif isinstance(self._images, OnDemand):
            self._images.read(rows, host.numpy())
        else:
            np.take(self._images, rows, axis=0, out=host.numpy(), mode="clip")  # the mode that writes without a copy
        return self._uploaded(host, lambda pixels: pixels)

    def _shrunk(self, rows: Rows, crops: Crops) -> _Fetched:
        """Crops that are resized on the device."""
        parts = self._images.read_parts(rows, crops)  # type: ignore[union-attr]  # asserted by the caller
        host = torch.empty(sum(part.nbytes for part in parts), dtype=torch.uint8, pin_memory=self._cuda)
        np.concatenate([part.reshape(-1) for part in parts], out=host.numpy())
        shapes = [(part.shape[0], part.shape[1]) for part in parts]
        channels, height, width = self.shape
        return self._uploaded(host, lambda flat: resized(flat, shapes, (height, width), channels, mirrored(crops)))

    def _uploaded(self, host: Tensor, then: Callable[[Tensor], Tensor]) -> _Fetched:
        """What `then` makes on the device of bytes in the host's memory."""
        if self._side is None:
            return _Fetched(then(host.to(self.device)), None)
        with torch.cuda.stream(self._side):
            # the host memory goes back to torch's cache, which waits for the upload before it gives it out again
            pixels = then(host.to(self.device, non_blocking=True))
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(self._side)
        return _Fetched(pixels, ready)


def _key(rows: Rows, crops: Crops | None) -> bytes:
    return rows.tobytes() if crops is None else rows.tobytes() + crops.tobytes()


AnyStore: TypeAlias = Store | Gather


def place(wanted: Literal["auto"] | Kind, source: Source, device: torch.device) -> Place:
    """Where the images of `source` live, as its reader left them. Raises ValueError for what cannot be had."""
    streamed = isinstance(source.images, OnDemand)
    if wanted == "stream" and not streamed:
        raise ValueError(
            f"Data.residency stream is for pictures that are read from their files, and {source.name} is read whole; "
            "use host or device"
        )
    count = len(source.images) + len(source.test_images)
    chosen = choose("stream" if streamed else wanted, count, source.shape, device)
    return chosen._replace(asked=wanted != "auto")


def make_store(images: Images | OnDemand, device: torch.device | str, kind: Kind = "device") -> AnyStore:
    """The images where `kind` says; images on demand stay where they are."""
    if kind == "device" and isinstance(images, np.ndarray):
        return Store(images, device)
    return Gather(images, device)
