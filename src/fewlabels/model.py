"""A trained net with all that is needed to classify images: classes, image shape, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.augment.pixels import Normalize
from fewlabels.checkpoint import check_tensors
from fewlabels.config import Data
from fewlabels.data.gather import AnyStore, make_store
from fewlabels.data.pictures import PLAIN, Decoding
from fewlabels.data.residency import choose
from fewlabels.data.source import OnDemand
from fewlabels.run import Run, RunError

PIXELS_PER_BATCH = 2**20
"""Image positions (H * W) of one forward pass without gradient: 1024 images of 32 x 32."""


@torch.no_grad()
def logits_of(
    nets: Sequence[nn.Module],
    normalize: nn.Module,
    store: AnyStore,
    rows: Tensor | None = None,
    *,
    even: bool = False,
) -> list[Tensor]:
    """Logits ``[n, K]`` float32 of each net, in evaluation mode, of the images at `rows` (None: all).

    The images are gathered and normalised once for all nets; nothing waits for the device, where the logits are.

    Args:
        rows: int64 ``[n]``, n above 0, on the store's `rows_device`.
        even: fill up the last batch, so that compiled nets see one shape only.
    """
    rows = torch.arange(len(store), device=store.rows_device) if rows is None else rows
    n, (_, height, width) = len(rows), store.shape
    size = max(1, PIXELS_PER_BATCH // (height * width))
    if even:
        rows = torch.cat((rows, rows[-1:].expand(-n % size)))
    batches = torch.split(rows, size)
    modes = [net.training for net in nets]
    out: list[list[Tensor]] = [[] for _ in nets]
    for net in nets:
        net.eval()
    for i, batch in enumerate(batches):
        x = normalize(store.take(batch))
        store.expect(later.numpy() for later in islice(batches, i + 1, i + 1 + store.ahead))
        for net, logits in zip(nets, out, strict=True):
            logits.append(net(x).float())
    for net, mode in zip(nets, modes, strict=True):
        net.train(mode)
    return [torch.cat(logits)[:n] for logits in out]


@dataclass(frozen=True, eq=False)
class Model:
    """A net ready to classify."""

    net: nn.Module
    normalize: Normalize
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W) of the images that it was trained on."""
    step: int
    weights: str
    """"ema" or "raw"."""
    device: torch.device
    how: Decoding = PLAIN
    """How picture files are read and brought to `shape`."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Class by the name that it has in the data, where it was given a display name."""

    def logits(self, images: NDArray[np.uint8] | OnDemand) -> Tensor:
        """Logits ``[N, K]`` on the CPU of images ``[N, H, W, C]`` uint8 of the training images' shape."""
        channels, height, width = self.shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the model takes uint8 images [N, {height}, {width}, {channels}], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if not len(images):
            return torch.empty(0, len(self.classes))
        kind = choose("auto", len(images), self.shape, self.device).kind
        (logits,) = logits_of([self.net], self.normalize, make_store(images, self.device, kind))
        return logits.cpu()


def load_model(
    run: Run, *, checkpoint: str = "last", weights: str = "ema", device: torch.device | str = "cpu"
) -> Model:
    """The model of a run.

    checkpoint: "last", "best" or a step; weights: "ema" or "raw". Raises RunError when the run has not what is
    asked for, or when the checkpoint is damaged.
    """
    if weights not in ("ema", "raw"):
        raise RunError(f"--weights must be ema or raw, got {weights!r}")
    found = run.checkpoint(checkpoint)
    config, data = run.config, run.data
    found.meta()
    classes: Sequence[str] = data["classes"]
    channels, height, width = data["shape"]
    shape = (channels, height, width)
    net = config.net.build(len(classes), shape, blank=True)
    state = found.weights(weights)
    check_tensors(state, net.state_dict(), f"the {weights} weights of checkpoint {found.path}")
    net.load_state_dict(state)
    device = torch.device(device)
    net = net.to(device).to(memory_format=torch.channels_last).eval()
    normalize = Normalize(shape, data["mean"], data["std"]).to(device)
    folders = dict(zip(data.get("folders", ()), classes, strict=False))
    how = decoding_of(config.data)
    return Model(net, normalize, tuple(classes), shape, found.step, weights, device, how, folders)


def decoding_of(data: Data) -> Decoding:
    """How the settings say that picture files are read."""
    return Decoding(data.fit, data.bits, data.max_pixels)
