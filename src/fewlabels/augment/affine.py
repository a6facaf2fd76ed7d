"""Smooth geometry for images too small for RandAugment, such as 8 x 8 digits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.pixels import Shape, upload
from fewlabels.augment.views import View
from fewlabels.augment.warp import bilinear, rectangle
from fewlabels.runtime.rgb import pack, unpack
from fewlabels.runtime.rng import Rng


class AffineDraw(NamedTuple):
    matrix: NDArray[np.float32]
    """``[B, 2, 3]``: where an output pixel is read, in pixels from the centre."""
    brightness: NDArray[np.float32]
    """``[B]``, factor."""
    noise: NDArray[np.float32]
    """``[B, H, W, C]``, added, in units of the range 0..1; ``[B, 0]`` without noise."""
    box: NDArray[np.int32]
    """``[B, 4]``, the cutout."""


class Affine(View):
    """Bilinear rotation, scale, shear and sub-pixel shift with black outside; brightness, noise, cutout.

    Each image draws its own parameters, uniformly and symmetrically about "no change".

    Args:
        shape: (C, H, W) of the images.
        degrees: Largest rotation, at least 0.
        scale: Largest relative change of the size of what is read, in [0, 1).
        shear: Largest shear, columns per row, at least 0.
        shift: Largest translation along each axis in pixels, at least 0; fractions count.
        brightness: The factor lies in [1 - brightness, 1 + brightness]; in [0, 1].
        noise: Largest standard deviation of normal noise, in units of the range 0..1, at least 0; each image
            draws its own from [0, noise].
        cutout: Side of a black square about a uniform centre, in pixels; 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        degrees: float,
        scale: float,
        shear: float,
        shift: float,
        brightness: float = 0.0,
        noise: float = 0.0,
        cutout: int = 0,
    ) -> None:
        super().__init__(shape)
        ranges = {"degrees": degrees, "shear": shear, "shift": shift, "noise": noise, "cutout": cutout}
        for name, value in ranges.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}.")
        if not 0 <= scale < 1 or not 0 <= brightness <= 1:
            raise ValueError(f"scale must lie in [0, 1) and brightness in [0, 1], not {scale} and {brightness}.")
        self.degrees, self.scale, self.shear, self.shift = degrees, scale, shear, shift
        self.brightness, self.noise, self.cutout = brightness, noise, cutout

    def draw(self, rng: Rng, rows: int, purpose: str) -> AffineDraw:
        channels, height, width = self.shape
        total = rows * rng.world
        g = rng.generator(f"{purpose}/affine")
        turn, scale, shear, x, y, light = g.uniform(-1, 1, (6, total))
        turn, scale = turn * np.radians(self.degrees), 1 + scale * self.scale
        cos, sin = np.cos(turn), np.sin(turn)
        top = [cos * scale, (shear * self.shear - sin) * scale, x * self.shift]
        bottom = [sin * scale, cos * scale, y * self.shift]
        matrix = np.array([top, bottom]).transpose(2, 0, 1).astype(np.float32)

        noise = np.zeros((total, 0), np.float32)
        if self.noise:
            deviation = g.random((total, 1, 1, 1)) * self.noise
            normal = rng.generator(f"{purpose}/noise").standard_normal((total, height, width, channels))
            noise = (normal * deviation).astype(np.float32)
        first = rng.generator(f"{purpose}/cutout").integers(0, [width, height], (total, 2)) - self.cutout // 2
        box = np.concatenate([first, first + self.cutout - 1], 1).astype(np.int32)
        light = (1 + light * self.brightness).astype(np.float32)
        return AffineDraw(rng.shard(matrix), rng.shard(light), rng.shard(noise), rng.shard(box))

    def forward(self, pixels: Tensor, draw: AffineDraw) -> Tensor:
        device = pixels.device
        images = unpack(pixels, self.shape).permute(0, 3, 1, 2).float()
        images = bilinear(images, upload(draw.matrix, device)).permute(0, 2, 3, 1)
        images = images * upload(draw.brightness, device).view(-1, 1, 1, 1)
        if draw.noise.shape[1]:
            images = images + upload(draw.noise, device) * 255
        out = pack(images.round().clamp(0, 255).to(torch.uint8))
        return rectangle(out, upload(draw.box, device), self.shape, 0)
