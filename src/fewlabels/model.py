"""A trained net with all that is needed to classify images: classes, image shape, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.augment.pixels import Normalize
from fewlabels.data.pictures import Fit
from fewlabels.data.store import Store
from fewlabels.run import Run, RunError

PIXELS_PER_BATCH = 2**20
"""Image positions (H * W) of one forward pass without gradient: 1024 images of 32 x 32."""


@torch.no_grad()
def logits_of(net: nn.Module, normalize: nn.Module, store: Store, rows: Tensor | None = None) -> Tensor:
    """Logits ``[n, K]`` float32 on the store's device, of the images at `rows` (None: all), in evaluation mode."""
    was_training = net.training
    net.eval()
    rows = torch.arange(len(store), device=store.device) if rows is None else rows
    _, height, width = store.shape
    size = max(1, PIXELS_PER_BATCH // (height * width))
    out = [net(normalize(store.take(part))).float() for part in torch.split(rows, size)]
    net.train(was_training)
    return torch.cat(out)


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
    fit: Fit = "crop"
    """How picture files are brought to `shape`; see `fewlabels.data.pictures.fit`."""

    def logits(self, images: NDArray[np.uint8]) -> Tensor:
        """Logits ``[N, K]`` on the CPU of images ``[N, H, W, C]`` uint8 of the training images' shape."""
        channels, height, width = self.shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, channels):
            raise ValueError(
                f"the model takes uint8 images [N, {height}, {width}, {channels}], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if not len(images):
            return torch.empty(0, len(self.classes))
        return logits_of(self.net, self.normalize, Store(images, self.device)).cpu()


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
    found.meta()
    config, data = run.config, run.data
    classes: Sequence[str] = data["classes"]
    channels, height, width = data["shape"]
    shape = (channels, height, width)
    net = config.net.build(len(classes), shape)
    net.load_state_dict(found.weights(weights))
    device = torch.device(device)
    net = net.to(device).to(memory_format=torch.channels_last).eval()
    normalize = Normalize(shape, data["mean"], data["std"]).to(device)
    return Model(net, normalize, tuple(classes), shape, found.step, weights, device, config.data.fit)
