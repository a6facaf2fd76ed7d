"""Images at another size than they have."""

from __future__ import annotations

import numpy as np

from fewlabels.data.crops import Crops, picture_of
from fewlabels.data.pictures import Fit, fit
from fewlabels.data.source import Images, Labels, OnDemand


def taken(images: Images | OnDemand, rows: Labels) -> Images:
    """The images at `rows`, int64 ``[n]``: uint8 ``[n, H, W, C]``."""
    if isinstance(images, np.ndarray):
        return images[rows]
    out = np.empty((len(rows), *images.shape[1:]), np.uint8)
    images.read(rows, out)
    return out


def resized(images: Images, size: tuple[int, int], how: Fit = "crop") -> Images:
    """Images ``[N, H, W, C]`` brought to `size` (H, W), as `pictures.fit` does with each."""
    out = np.empty((len(images), *size, images.shape[-1]), np.uint8)
    for row, image in enumerate(images):
        out[row] = np.asarray(fit(picture_of(image), size, how)).reshape(out.shape[1:])
    return out


class Resized(OnDemand):
    """Images whose shorter side is brought to `side` pixels when they are asked for."""

    ahead = 0

    def __init__(self, images: Images | OnDemand, side: int) -> None:
        count, height, width, channels = images.shape
        shorter = min(height, width)
        self.images = images
        self.shape = (count, round(height * side / shorter), round(width * side / shorter), channels)

    def read(self, rows: Labels, out: Images, crops: Crops | None = None) -> None:
        assert crops is None, "nothing here is cropped at random"
        out[:] = resized(taken(self.images, rows), self.shape[1:3])
