"""Copies of images, each changed by chance once and for all, that are made when they are needed.

RealMix (Nair et al. 2019) writes N changed copies of each unlabeled image to the disk and trains on them
(uizard-technologies/realmix, scripts/make_aug_copy.py and third_party/random_eraser.py). Here copy c of image i is a
function of (seed, i, c), so that nothing is stored, and each time that an image is drawn one of its copies is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.pixels import Shape, fill_value, join, planes, upload
from fewlabels.augment.warp import flip_shift, rectangle
from fewlabels.runtime.rgb import packable
from fewlabels.runtime.rng import Rng, philox_pairs
from fewlabels.types import CopyKind

PURPOSE = "aug-copy"
"""Of the random numbers."""

SHIFT: dict[CopyKind, int] = {"cifar10": 4, "svhn": 4, "stl-10": 12, "color": 4, "cutout": 0}
"""Largest shift in pixels along each axis."""
NO_FLIP = ("svhn", "cutout")
ERASED = 0.3
"""Probability with which an image of the kind cutout loses a rectangle."""


class CopyDraw(NamedTuple):
    """What is done to B images; an array with no columns: nothing to do."""

    moves: NDArray[np.int32]
    """``[B, 3]``: flip (0 or 1), rows and columns off centre."""
    colour: NDArray[np.float32]
    """``[B, 4]``: added brightness, added hue in turns, factors of saturation and contrast."""
    box: NDArray[np.int32]
    """``[B, 4]``: x0, y0, x1, y1, the last column and row included; x1 < x0 where nothing is erased."""
    grey: NDArray[np.int32]
    """``[B]``: what is in the box, 0..254."""


class CopyMaker:
    """Makes copies of images.

    - ``cifar10``: left-right flip with probability 1/2, then a shift by up to 4 pixels with reflected borders
    - ``svhn``: the shift alone
    - ``stl-10``: as ``cifar10``, by up to 12 pixels
    - ``color``: brightness, hue, saturation and contrast (`recoloured`), then as ``cifar10``
    - ``cutout``: with probability 0.3 a rectangle of one random grey (`erased`)

    Args:
        shape: (C, H, W) of the images.
        kind: one of these.
        number: of the copies of each image.

    Raises ValueError for images that are too small for the kind, or have no colours.
    """

    def __init__(self, shape: Shape, kind: CopyKind, number: int) -> None:
        if kind not in SHIFT or number < 1:
            known = ", ".join(SHIFT)
            raise ValueError(f"copies must be at least 1 of a kind out of {known}, not {number} of {kind!r}")
        self.shape, self.kind, self.number = shape, kind, number
        _, height, width = shape
        if min(height, width) <= SHIFT[kind]:
            raise ValueError(
                f"copies of the kind {kind} need images of more than {SHIFT[kind]} pixels on each side, "
                f"not {height} x {width}"
            )
        if kind == "color" and not packable(shape[0]):
            raise ValueError(f"copies of the kind color need images with 1 or 3 channels, not {shape[0]}")

    def draw(self, rng: Rng, images: NDArray[np.int64]) -> CopyDraw:
        """One of the copies of each of this rank's `images`, their row numbers in the source."""
        chosen = rng.shard(rng.generator(f"{PURPOSE}/which").integers(0, self.number, len(images) * rng.world))
        generators = philox_pairs(rng.seed, PURPOSE, np.stack([images, chosen], 1))
        rows, (_, height, width) = len(images), self.shape
        if self.kind == "cutout":
            boxes = np.array([erased(g, height, width) for g in generators], np.int32).reshape(rows, 5)
            return CopyDraw(np.zeros((rows, 0), np.int32), np.zeros((rows, 0), np.float32), boxes[:, :4], boxes[:, 4])
        shares = np.array([g.random(7) for g in generators]).reshape(rows, 7)
        flip = (shares[:, :1] < 0.5) & (self.kind not in NO_FLIP)
        shift = SHIFT[self.kind]
        offset = np.floor(shares[:, 1:3] * (2 * shift + 1)) - shift
        moves = np.concatenate([flip, offset], 1).astype(np.int32)
        colour = np.zeros((rows, 0))
        if self.kind == "color":
            low, high = np.array([-0.1, -0.5, 0.1, 0.5]), np.array([0.1, 0.5, 3.0, 1.5])
            colour = low + shares[:, 3:] * (high - low)
        return CopyDraw(moves, colour.astype(np.float32), np.zeros((rows, 0), np.int32), np.zeros(rows, np.int32))

    def make(self, pixels: Tensor, draw: CopyDraw) -> Tensor:
        """Pixels (`fewlabels.augment.pixels`) to new pixels of the same form."""
        device = pixels.device
        if draw.box.shape[1]:
            level = upload(draw.grey * fill_value(packable(self.shape[0]), (1, 1, 1)), device)
            return rectangle(pixels.clone(), upload(draw.box, device), self.shape, level)
        if draw.colour.shape[1]:
            pixels = recoloured(pixels, upload(draw.colour, device))
        return flip_shift(pixels, upload(draw.moves, device), self.shape)


def erased(g: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int, int]:
    """A rectangle x0, y0, x1, y1, the last column and row included, and its grey: random erasing.

    With probability 0.7 it holds nothing. Else its area is U(0.02, 0.4) of the image's and its height U(0.3, 1 / 0.3)
    times its width, all drawn anew until it fits (Zhong et al. 2017, as in realmix's third_party/random_eraser.py).
    """
    if g.random() > ERASED:
        return 0, 0, -1, -1, 0
    while True:
        area, ratio = g.uniform(0.02, 0.4) * height * width, g.uniform(0.3, 1 / 0.3)
        w, h = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        left, top = int(g.integers(width)), int(g.integers(height))
        if left + w <= width and top + h <= height:
            return left, top, left + w - 1, top + h - 1, int(g.uniform(0, 255))


def recoloured(packed: Tensor, change: Tensor) -> Tensor:
    """Brightness, hue, saturation and contrast of packed pixels, int32 ``[B, H*W]``, in [0, 1], rounded to bytes.

    Args:
        packed: see `fewlabels.augment.pixels`.
        change: float32 ``[B, 4]``: what is added to each channel; turns that are added to the hue; a factor of the
            saturation; a factor of the distance from each channel's mean. The first and the last two are clipped.
    """
    light, turn, saturation, contrast = change.view(-1, 4, 1, 1).unbind(1)
    rgb = (torch.stack(planes(packed), 1).float() / 255 + light).clamp(0, 1)

    value, low = rgb.amax(1, keepdim=True), rgb.amin(1, keepdim=True)
    chroma = value - low
    red, green, blue = (channel[:, None] for channel in rgb.unbind(1))
    divisor = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(value == red, (green - blue) / divisor, 2 + (blue - red) / divisor)
    sector = torch.where((value == blue) & (value != red) & (value != green), 4 + (red - green) / divisor, sector)
    share = chroma / torch.where(value > 0, value, 1)

    # the way back: channel n is v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6 and n = 5, 3, 1
    place = 5 - 2 * torch.arange(3, device=packed.device).view(1, 3, 1)
    k = (place + sector + 6 * turn).remainder(6)
    rgb = value - value * (share * saturation).clamp(0, 1) * torch.minimum(k, 4 - k).clamp(0, 1)

    mean = rgb.mean(2, keepdim=True)
    rgb = ((rgb - mean) * contrast + mean).clamp(0, 1)
    return join(*(rgb * 255).round().int().unbind(1))
