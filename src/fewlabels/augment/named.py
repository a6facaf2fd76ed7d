"""Views by the names that the command line knows."""

from __future__ import annotations

import math
from typing import NamedTuple

from fewlabels.augment.affine import Affine
from fewlabels.augment.autoaugment import AutoAugment
from fewlabels.augment.ctaugment import CTAugment
from fewlabels.augment.ops import keeps_colour
from fewlabels.augment.pixels import Shape
from fewlabels.augment.presets import PRESETS
from fewlabels.augment.randaugment import RandAugment
from fewlabels.augment.views import Cutout, Identity, View, Weak

WEAK = ("ms", "m", "s", "x", "affine", "ms:zero", "s:zero")
"""Names of the weak views: m mirrors (flips), s shifts, x is the identity; `:zero` leaves the border black."""

STRONG = (
    *(f"rand:{preset}" for preset in PRESETS),
    "cta",
    "cta:imagenet",
    "autoaugment",
    "cutout",
    "none",
    "affine",
)
"""Names of the strong views; "none" is a second, independent flip and shift."""


class Moves(NamedTuple):
    """The arguments of `strong_view` that follow from the weak view."""

    flip: bool
    shift: int
    black: bool


def moves_of(weak: str, shift: int) -> Moves:
    """How a strong view beside the weak view called `weak` begins: with its flip and shift, if it has any."""
    letters, _, border = weak.partition(":")
    return Moves("m" in letters, shift if "s" in letters else 0, border == "zero")


def weak_view(name: str, shape: Shape, *, shift: int = 4) -> View:
    """The weak view called `name` (one of `WEAK`) for images of this shape (C, H, W).

    `shift` counts for names with an s. ValueError for other names, or if the shift does not fit the image.
    """
    if name == "x":
        return Identity(shape)
    if name == "affine":
        return Affine(shape, degrees=math.degrees(0.08), scale=0.05, shear=0.0, shift=0.6)
    if name in WEAK:
        return Weak(shape, *moves_of(name, shift))
    raise ValueError(f"the weak view must be one of {', '.join(WEAK)}, not {name!r}.")


def strong_view(
    name: str,
    shape: Shape,
    *,
    flip: bool = True,
    shift: int = 4,
    black: bool = False,
    cutout: bool = True,
    policy: str = "cifar",
    stratified: bool = False,
) -> View:
    """The strong view called `name` (one of `STRONG`) for images of this shape (C, H, W).

    `flip`, `shift` and `black` are those of the weak view that a strong view begins with; `cutout`: whether it
    ends with its cutout, if it has one; `policy`: AutoAugment's, a key of `autoaugment.POLICIES`; `stratified`:
    as in `RandAugment`, where it can be. ValueError for other names, or if the shift does not fit the image.
    """
    moves = Moves(flip, shift, black)
    if name.startswith("rand:") and name in STRONG:
        preset = name.removeprefix("rand:")
        return RandAugment(shape, flip, shift, preset, cutout, black, stratified)
    if name in ("cta", "cta:imagenet"):
        pool = name.partition(":")[2] or "fixmatch"
        return CTAugment(shape, flip, shift, cutout=cutout, black=black, pool=pool)
    if name == "autoaugment":
        return AutoAugment(shape, flip, shift, policy, cutout, black)
    if name == "cutout":
        if not cutout:
            raise ValueError("the strong view cutout is nothing without its cutout; the view none is that.")
        return Cutout(shape, *moves)
    if name == "none":
        return Weak(shape, *moves)
    if name == "affine":
        degrees, side = math.degrees(0.35), 3 if cutout else 0
        return Affine(shape, degrees, scale=0.2, shear=0.25, shift=1.2, brightness=0.4, noise=0.15, cutout=side)
    raise ValueError(f"the strong view must be one of {', '.join(STRONG)}, not {name!r}.")


def drops_colour(view: str | View, channels: int) -> bool:
    """Whether a strong view, or the one so called, has to leave out its colour operations at this channel count."""
    if isinstance(view, str):
        colours = view == "autoaugment" or view.startswith(("rand:", "cta"))
    else:
        colours = view.colours
    return colours and not keeps_colour(channels)
