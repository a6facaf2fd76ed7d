"""Features of images as they are, computed once for each picture and kept on the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels import nets
from fewlabels.augment.pixels import Normalize
from fewlabels.config.settings import Net
from fewlabels.data import cache
from fewlabels.data.features import Table, key_of
from fewlabels.data.source import Images, Labels, OnDemand, Progress
from fewlabels.inference.model import PIXELS_PER_BATCH, Model
from fewlabels.nets import freeze, learned
from fewlabels.runtime.rgb import pack

VIEW = "as it is"
"""The one view whose features are kept: the identity."""

SIDE = 128
"""Pixels at which a learned net looks at pictures where nothing else was said."""

EVERY = 60.0
"""Seconds after which features that were computed are first put aside; then after twice as many, and so on."""


class Body(NamedTuple):
    """What makes features: a model in evaluation mode, and how its input is scaled."""

    model: Model
    normalize: Normalize
    shape: tuple[int, int, int]
    """(C, H, W) of the images."""
    device: torch.device

    def table(self, source: str) -> Table:
        """What the cache has of the images of a source."""
        scale = [*self.normalize.mean.tolist(), *self.normalize.std.tolist()]
        state = self.model.state_dict()
        # bypasses add nothing before the first step, and later nobody asks
        names = [n for n in state if n.startswith("net.") and not n.startswith("net.linear.") and not nets.is_bypass(n)]
        precision = self.model.dtype or torch.float32
        parts = [
            "features 1",
            nets.digest(state, names, fitted=True),
            *self.shape,
            *scale,
            VIEW,
            precision,
            self.device.type,
        ]
        return Table(cache.Entry(cache.digest(["features", source, *parts]), "1"), self.model.dim)

    @torch.no_grad()
    def features(self, images: Images) -> NDArray[np.float16]:
        """``[n, D]`` of images ``[n, H, W, C]`` uint8. Raises ValueError for one that float16 cannot hold."""
        pixels = pack(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        found = self.model.features(self.normalize(pixels)).half()
        if not bool(found.isfinite().all()):
            raise ValueError("the features of the net are no numbers, or larger than 65,504, which float16 cannot hold")
        return found.cpu().numpy()


def learned_body(
    net: learned.Learned,
    shape: tuple[int, int, int],
    device: torch.device,
    scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Body:
    """A learned net that stays as it is, for images of `shape` (C, H, W).

    scale: mean and standard deviation of the pixels per channel; default: what the weights were made with.
    """
    weights = learned.pretrained(net.net)
    built = Net(net.net, pretrained=weights, train="head").build(2, shape)  # a body has no classes: any number does
    scale = scale or nets.normalization(net.net, shape[0], weights)
    model = Model(built, frozen=freeze(built, "head")).to(device)
    return Body(model.eval(), Normalize(shape, *scale).to(device), shape, device)


def features_of(
    body: Body, images: Images | OnDemand, rows: Labels, table: Table, progress: Progress | None = None
) -> Tensor:
    """Features ``[n, D]`` float16, on the body's device, of the images at `rows`, int64 ``[n]``.

    Those that `table` has are not computed again, whatever set the picture is in now; it keeps the new ones.
    """
    modes = body.model.training
    body.model.eval()
    out = np.empty((len(rows), body.model.dim), np.float16)
    needed: set[bytes] = set()
    done, last, pause = 0, time.monotonic(), EVERY
    try:
        for some in _chunks(images, rows, body.shape):
            keys = list(map(key_of, some))
            missing = {key: row for row, key in enumerate(keys) if table.get(key) is None}
            if missing:
                for key, value in zip(missing, body.features(some[list(missing.values())]), strict=True):
                    table.put(key, value)
            for row, key in enumerate(keys, done):
                out[row] = table.known[key]
            needed.update(keys)
            done += len(some)
            if progress is not None:
                progress(done, len(rows))
            if time.monotonic() - last > pause:
                table.store(needed)
                last, pause = time.monotonic(), 2 * pause
    finally:
        table.store(needed)
        body.model.train(modes)
    return torch.from_numpy(out).to(body.device)


def _chunks(images: Images | OnDemand, rows: Labels, shape: tuple[int, int, int]) -> Iterator[Images]:
    channels, height, width = shape
    size = max(1, PIXELS_PER_BATCH // (height * width))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if isinstance(images, OnDemand):
            some = np.empty((len(part), height, width, channels), np.uint8)
            images.read(part, some)
            yield some
        else:
            yield images[part]
