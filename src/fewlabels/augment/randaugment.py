"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719) as semi-supervised code has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.ops import GREY, Op, apply
from fewlabels.augment.pixels import Shape, fill_value, upload
from fewlabels.augment.views import View, Weak, WeakDraw, half_boxes, own
from fewlabels.augment.warp import rectangle
from fewlabels.rng import Rng

Array = NDArray[np.float64]


class Level(NamedTuple):
    """A drawn magnitude on its way to an operation's own units."""

    m: Array
    """Level, ``[n]``."""
    sign: Array
    """-1 or 1, ``[n]``."""
    shape: Shape


class Preset(NamedTuple):
    """One code base's policy; operations are drawn uniformly, with replacement."""

    slots: int
    """Operations per image."""
    probability: float
    """With which each drawn operation is applied."""
    levels: tuple[int, int]
    """Smallest and largest integer level, drawn uniformly."""
    operations: Mapping[Op, Callable[[Level], Array]]
    """What can be drawn, and the operation's magnitude for a level."""
    boxes: Callable[[np.random.Generator, int, Shape], NDArray[np.int32]]
    """Draws the final cutout (`views.half_boxes`)."""
    colour: tuple[int, int, int]
    """What the cutout is painted with."""


def _full(level: Level) -> Array:
    return np.ones_like(level.m)


def _fade(level: Level) -> Array:
    return level.m * 0.9 / 10 + 0.05


def _shear(level: Level) -> Array:
    return level.m * 0.3 / 10 * level.sign


PRESETS: Mapping[str, Preset] = {
    # kekmodel/FixMatch-pytorch, dataset/randaugment.py, RandAugmentMC(n=2, m=10)
    "kekmodel": Preset(
        slots=2,
        probability=0.5,
        levels=(1, 9),
        operations={
            Op.AUTOCONTRAST: _full,
            Op.BRIGHTNESS: _fade,
            Op.COLOR: _fade,
            Op.CONTRAST: _fade,
            Op.EQUALIZE: _full,
            Op.IDENTITY: _full,
            Op.POSTERIZE: lambda level: np.trunc(level.m * 4 / 10) + 4,
            Op.ROTATE: lambda level: np.trunc(level.m * 30 / 10) * level.sign,
            Op.SHARPNESS: _fade,
            Op.SHEAR_X: _shear,
            Op.SHEAR_Y: _shear,
            Op.SOLARIZE: lambda level: 256 - np.trunc(level.m * 256 / 10),
            Op.TRANSLATE_X: lambda level: np.trunc(_shear(level) * level.shape[2]),
            Op.TRANSLATE_Y: lambda level: np.trunc(_shear(level) * level.shape[1]),
        },
        boxes=half_boxes,
        colour=GREY,
    ),
}


class RandDraw(NamedTuple):
    weak: WeakDraw
    op: NDArray[np.int64]
    """``[B, slots]``, members of `Op`; IDENTITY where an operation was drawn but is not applied."""
    value: Array
    """``[B, slots]``, magnitudes."""
    box: NDArray[np.int32]
    """``[B, 4]``, the final cutout."""


class RandAugment(View):
    """A weak view of its own, then randomly drawn operations with random magnitudes, then cutout.

    Args:
        shape, flip, shift: See `Weak`.
        preset: Key of `PRESETS`.
    """

    def __init__(self, shape: Shape, flip: bool, shift: int, preset: str = "kekmodel") -> None:
        super().__init__(shape)
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}.")
        self.preset = PRESETS[preset]
        self.weak = Weak(shape, flip, shift)

    def draw(self, rng: Rng, rows: int, purpose: str) -> RandDraw:
        preset, total = self.preset, rows * rng.world
        g = rng.generator(f"{purpose}/rand")
        size = (total, preset.slots)
        op = np.array(list(preset.operations), np.int64)[g.integers(0, len(preset.operations), size)]
        m = g.integers(preset.levels[0], preset.levels[1] + 1, size).astype(np.float64)
        sign = g.integers(0, 2, size) * 2.0 - 1
        used = g.random(size) < preset.probability
        value = np.zeros(size)
        for code, magnitude in preset.operations.items():
            mine = op == code
            value[mine] = magnitude(Level(m[mine], sign[mine], self.shape))
        box = preset.boxes(rng.generator(f"{purpose}/cutout"), total, self.shape)
        op = np.where(used, op, Op.IDENTITY)
        return RandDraw(self.weak.draw(rng, rows, purpose), own(rng, op), own(rng, value), own(rng, box))

    def forward(self, pixels: Tensor, draw: RandDraw) -> Tensor:
        pixels = self.weak(pixels, draw.weak)
        for op, value in zip(draw.op.T, draw.value.T, strict=True):
            apply(pixels, op, value, self.shape)
        fill = fill_value(pixels, self.preset.colour)
        return rectangle(pixels, upload(draw.box, pixels.device), self.shape, fill)
