"""What CTAugment draws from, in the two forms of google-research/fixmatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fewlabels.augment.ops import Op
from fewlabels.augment.pixels import Shape
from fewlabels.augment.rescale import METHODS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Operation:
    """One operation of a pool: parameter p in [0, 1] to its magnitude, and the bins of its parameters."""

    op: Op
    magnitude: Callable[[Array, Shape], Array]
    bins: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Operations and the rules for their rates."""

    operations: tuple[Operation, ...]
    threshold: float
    """Bins whose rate, relative to the best, is below it are not used."""
    epsilon: float = 0.0
    """Weight that even unused bins keep; where there is none, rates count 1 - decay more than they are."""
    probability: float = 1.0
    """With which a drawn operation is applied (in probes: always)."""
    averages: bool = False
    """Whether the hits of a batch on one bin move its rate once, by their mean, or each in turn."""
    cutout: bool = True
    """Whether a square of half the smaller side follows."""
    fill: int = 0
    """Level of what warps uncover."""

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Bins of each parameter, ``[operations, 2]``; 0 for a parameter that is not there."""
        return np.array([[*o.bins, 0, 0][:2] for o in self.operations])

    @cached_property
    def exists(self) -> NDArray[np.bool_]:
        """Which bins there are, ``[operations, 2, most bins]``."""
        exists: NDArray[np.bool_] = np.arange(self.bins.max()) < self.bins[:, :, None]
        return exists


def share(p: Array, _: Shape) -> Array:
    return p


def rest(p: Array, _: Shape) -> Array:
    return 1 - p


def factor(p: Array, _: Shape) -> Array:
    return 0.1 + 1.9 * p


def bits(p: Array, _: Shape) -> Array:
    return 1 + np.trunc(7.999 * p)


def slope(p: Array, _: Shape) -> Array:
    return (2 * p - 1) * 0.3


def side(p: Array, shape: Shape) -> Array:
    """Side of a cutout."""
    return 1 + np.trunc(0.499 * p * min(shape[1:]))


def _across(axis: int) -> Callable[[Array, Shape], Array]:
    return lambda p, shape: (2 * p - 1) * 100 / 224 * shape[axis]


_BINS = (17,)

# libml/ctaugment.py
FIXMATCH = Pool(
    (
        Operation(Op.AUTOCONTRAST, share, _BINS),
        Operation(Op.BLUR, share, _BINS),
        Operation(Op.BRIGHTNESS, factor, _BINS),
        Operation(Op.COLOR, factor, _BINS),
        Operation(Op.CONTRAST, factor, _BINS),
        Operation(Op.CUTOUT, side, _BINS),
        Operation(Op.EQUALIZE, share, _BINS),
        Operation(Op.INVERT, share, _BINS),
        Operation(Op.IDENTITY, share),
        Operation(Op.POSTERIZE, bits, (8,)),
        Operation(Op.RESCALE, lambda p, _: 0.25 * p, (*_BINS, len(METHODS))),
        Operation(Op.ROTATE, lambda p, _: np.rint(90 * p - 45), _BINS),
        Operation(Op.SHARPNESS, factor, _BINS),
        Operation(Op.SHEAR_X, slope, _BINS),
        Operation(Op.SHEAR_Y, slope, _BINS),
        Operation(Op.SMOOTH, share, _BINS),
        Operation(Op.SOLARIZE, lambda p, _: np.trunc(255.999 * p), _BINS),
        # less than a pixel, read at the nearest one: these two change nothing, in the original as here
        Operation(Op.TRANSLATE_X, slope, _BINS),
        Operation(Op.TRANSLATE_Y, slope, _BINS),
    ),
    threshold=0.8,
)

_LEVELS = (15,)

# imagenet/augment/ct_augment.py; 100 pixels of the original's 224 are scaled to the image
IMAGENET = Pool(
    (
        Operation(Op.AUTOCONTRAST, rest, _LEVELS),
        Operation(Op.BLUR, share, _LEVELS),
        Operation(Op.BRIGHTNESS, factor, _LEVELS),
        Operation(Op.COLOR, factor, _LEVELS),
        Operation(Op.CONTRAST, factor, _LEVELS),
        Operation(Op.EQUALIZE, rest, _LEVELS),
        Operation(Op.INVERT, rest, _LEVELS),
        Operation(Op.IDENTITY, share, _LEVELS),
        Operation(Op.POSTERIZE, bits, _LEVELS),
        Operation(Op.ZOOM, lambda p, _: 0.25 * p, _LEVELS),
        Operation(Op.ROTATE, lambda p, _: (2 * p - 1) * 45, _LEVELS),
        Operation(Op.SHARPNESS, factor, _LEVELS),
        Operation(Op.SHEAR_X, slope, _LEVELS),
        Operation(Op.SHEAR_Y, slope, _LEVELS),
        Operation(Op.SMOOTH, share, _LEVELS),
        Operation(Op.SOLARIZE, lambda p, _: np.trunc(256 * p), _LEVELS),
        Operation(Op.SOLARIZE_ADD, lambda p, _: np.trunc(110 * p), _LEVELS),
        Operation(Op.TRANSLATE_X, _across(2), _LEVELS),
        Operation(Op.TRANSLATE_Y, _across(1), _LEVELS),
    ),
    threshold=0.85,
    epsilon=0.001,
    probability=0.5,
    averages=True,
    cutout=False,
    fill=128,
)

POOLS: Mapping[str, Pool] = {"fixmatch": FIXMATCH, "imagenet": IMAGENET}
