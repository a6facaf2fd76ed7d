"""What RandAugment means in four code bases: operations, magnitudes, order, fill and cutout.

Sources: kekmodel/FixMatch-pytorch, dataset/randaugment.py (`RandAugmentMC(n=2, m=10)`); LeeDoYup/FixMatch-pytorch,
datasets/augmentation/randaugment.py (`RandAugment(3, 5)`); google-research/fixmatch, libml/augment.py with
third_party/auto_augment/augmentations.py, and its imagenet/augment/rand_augment.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.augment.ops import GREY, Op, square
from fewlabels.augment.pixels import Shape
from fewlabels.augment.plan import Colour
from fewlabels.augment.views import half_boxes

Array = NDArray[np.float64]
Boxes = Callable[[np.random.Generator, int, Shape], NDArray[np.int32]]


class Level(NamedTuple):
    """A drawn magnitude on its way to an operation's own units."""

    m: Array
    """Level, ``[n]``."""
    sign: Array
    """-1 or 1, ``[n]``."""
    shape: Shape


Magnitudes = Mapping[Op, Callable[[Level], Array]]


class Preset(NamedTuple):
    """One code base's policy; operations are drawn uniformly, with replacement."""

    slots: int
    """Operations per image."""
    probability: float
    """With which each drawn operation is applied."""
    levels: tuple[int, int] | None
    """Smallest and largest integer level, drawn uniformly; None: a real number, uniform on [0, 1)."""
    operations: Magnitudes
    """What can be drawn, and the operation's magnitude for a level."""
    boxes: Boxes | None
    """Draws the final cutout (`views.half_boxes`); None for no cutout."""
    colour: Colour | None = GREY
    """What the cutout is painted with; None for `pixels.MIDDLE`."""
    fill: Colour | None = (0, 0, 0)
    """What warps uncover; None: transparent pixels, which end as `pixels.MIDDLE`."""
    truncates: bool = False
    """Whether bytes come in through `plan.TRUNCATED`."""
    weak_last: bool = False
    """Whether flip and shift follow the cutout, and the border of the shift is black; else they come first."""


def _full(level: Level) -> Array:
    return np.ones_like(level.m)


def _fade(level: Level) -> Array:
    return level.m * 0.9 / 10 + 0.05


def _shear(level: Level) -> Array:
    return level.m * 0.3 / 10 * level.sign


def _turn(level: Level) -> Array:
    return np.trunc(level.m * 30 / 10) * level.sign


def _solarize(level: Level) -> Array:
    return 256 - np.trunc(level.m * 256 / 10)


def _between(low: float, high: float) -> Callable[[Level], Array]:
    return lambda level: low + (high - low) * level.m


def _share_of_side(axis: int) -> Callable[[Level], Array]:
    return lambda level: (-0.3 + 0.6 * level.m) * level.shape[axis]


def _enhance(level: Level) -> Array:
    return level.m * 1.8 / 10 + 0.1


def _whole_pixels(level: Level) -> Array:
    return np.trunc(level.m) * level.sign


def _across(axis: int) -> Callable[[Level], Array]:
    return lambda level: level.m / 10 * 100 / 224 * level.shape[axis] * level.sign


def _small_boxes(g: np.random.Generator, rows: int, shape: Shape) -> NDArray[np.int32]:
    """A square of a side uniform on [0, W / 2), its centre between W (H) and 1, the last row and column included."""
    _, height, width = shape
    side = g.random((rows, 1)) * 0.5 * width
    size = np.array([width, height])
    # the original asks NumPy for uniform(W), which reads W as the lower bound and 1 as the upper one
    centre = size + (1 - size) * g.random((rows, 2))
    first = np.maximum(centre - side / 2, 0).astype(np.int32)
    last = np.minimum(first + side, size).astype(np.int32)
    return np.concatenate([first, last], 1).astype(np.int32)


def square_boxes(side: int | None = None, percent: int = 0) -> Boxes:
    """A square about a uniform pixel, clipped: `side` pixels wide, or `percent` of the smaller image side."""

    def draw(g: np.random.Generator, rows: int, shape: Shape) -> NDArray[np.int32]:
        wide = side if side is not None else int(0.01 * percent * min(shape[1:]))
        centre = g.integers(0, [shape[2], shape[1]], (rows, 2))
        return square(np.full(rows, float(wide)), centre).astype(np.int32)

    return draw


GOOGLE: Magnitudes = {
    Op.IDENTITY: _full,
    Op.AUTOCONTRAST: _full,
    Op.EQUALIZE: _full,
    Op.ROTATE: _turn,
    Op.SOLARIZE: _solarize,
    Op.COLOR: _enhance,
    Op.CONTRAST: _enhance,
    Op.BRIGHTNESS: _enhance,
    Op.SHARPNESS: _enhance,
    Op.SHEAR_X: _shear,
    Op.TRANSLATE_X: _whole_pixels,
    Op.TRANSLATE_Y: _whole_pixels,
    Op.POSTERIZE: lambda level: np.maximum(4 - np.trunc(level.m * 4 / 10), 0),
    Op.SHEAR_Y: _shear,
}
"""RandAugment's operations in google-research/fixmatch for levels up to 15; AutoAugment has these and two more."""

PRESETS: Mapping[str, Preset] = {
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
            Op.ROTATE: _turn,
            Op.SHARPNESS: _fade,
            Op.SHEAR_X: _shear,
            Op.SHEAR_Y: _shear,
            Op.SOLARIZE: _solarize,
            Op.TRANSLATE_X: lambda level: np.trunc(_shear(level) * level.shape[2]),
            Op.TRANSLATE_Y: lambda level: np.trunc(_shear(level) * level.shape[1]),
        },
        boxes=half_boxes,
    ),
    "leedoyup": Preset(
        slots=3,
        probability=1.0,
        levels=None,
        operations={
            Op.AUTOCONTRAST: _full,
            Op.BRIGHTNESS: _between(0.05, 0.95),
            Op.COLOR: _between(0.05, 0.95),
            Op.CONTRAST: _between(0.05, 0.95),
            Op.EQUALIZE: _full,
            Op.IDENTITY: _full,
            Op.POSTERIZE: lambda level: np.trunc(4 + 4 * level.m),
            Op.ROTATE: _between(-30, 30),
            Op.SHARPNESS: _between(0.05, 0.95),
            Op.SHEAR_X: _between(-0.3, 0.3),
            Op.SHEAR_Y: _between(-0.3, 0.3),
            Op.SOLARIZE: _between(0, 256),
            Op.TRANSLATE_X: _share_of_side(2),
            Op.TRANSLATE_Y: _share_of_side(1),
        },
        boxes=_small_boxes,
        colour=(125, 123, 114),
        weak_last=True,
    ),
    "google": Preset(
        slots=2,
        probability=0.5,
        levels=(1, 9),
        operations=GOOGLE,
        boxes=square_boxes(16),
        colour=None,
        fill=None,
        truncates=True,
    ),
    # The original's translations are 100 pixels at the full level, for its images of 224 pixels.
    "imagenet": Preset(
        slots=2,
        probability=0.5,
        levels=(0, 10),
        operations={
            Op.AUTOCONTRAST: _full,
            Op.EQUALIZE: _full,
            Op.INVERT: _full,
            Op.ROTATE: lambda level: level.m * 30 / 10 * level.sign,
            # TensorFlow shifts a byte by at most 7 bits, so that 0 bits are 1
            Op.POSTERIZE: lambda level: np.maximum(np.trunc(level.m * 4 / 10), 1),
            Op.SOLARIZE: lambda level: np.minimum(np.trunc(level.m * 256 / 10), 255),
            Op.COLOR: _enhance,
            Op.CONTRAST: _enhance,
            Op.BRIGHTNESS: _enhance,
            Op.SHARPNESS: _enhance,
            Op.SHEAR_X: _shear,
            Op.SHEAR_Y: _shear,
            Op.TRANSLATE_X: _across(2),
            Op.TRANSLATE_Y: _across(1),
            Op.SOLARIZE_ADD: lambda level: np.trunc(level.m * 110 / 10),
            Op.IDENTITY: _full,
        },
        boxes=None,
        fill=(128, 128, 128),
    ),
}
