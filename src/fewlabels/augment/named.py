"""Views by the names that the command line knows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fewlabels.augment.affine import Affine
from fewlabels.augment.autoaugment import AutoAugment
from fewlabels.augment.ctaugment import CTAugment
from fewlabels.augment.ops import keeps_colour
from fewlabels.augment.pixels import Shape
from fewlabels.augment.presets import PRESETS, Preset
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
        return _affine(shape, 1.0, cutout)
    raise ValueError(f"the strong view must be one of {', '.join(STRONG)}, not {name!r}.")


def medium_view(name: str, shape: Shape, **options: Any) -> View:
    """The view between the weak one and the strong one called `name`, with the same options.

    Of RandAugment one operation, always applied, as in beandkay/SequenceMatch; of `affine` half of the moves and of
    the noise; of the others, which cannot be halved, another draw of the strong view itself.
    """
    strong = strong_view(name, shape, **options)
    if isinstance(strong, RandAugment):
        weak, cutout = strong.weak, strong.boxes is not None
        black = weak.black and not strong.preset.weak_last
        return RandAugment(shape, weak.flip, weak.shift, milder(strong.preset), cutout, black, strong.stratified)
    if name == "affine":
        return _affine(shape, 0.5, options.get("cutout", True))
    return strong


def milder(preset: Preset) -> Preset:
    """One operation of it, always applied."""
    return preset._replace(slots=1, probability=1.0)


def _affine(shape: Shape, share: float, cutout: bool) -> Affine:
    """The strong view `affine`, with this share of everything but its cutout."""
    degrees, side = share * math.degrees(0.35), 3 if cutout else 0
    scale, shear, shift, brightness, noise = (share * value for value in (0.2, 0.25, 1.2, 0.4, 0.15))
    return Affine(
        shape, degrees, scale=scale, shear=shear, shift=shift, brightness=brightness, noise=noise, cutout=side
    )


def drops_colour(view: str | View, channels: int) -> bool:
    """Whether a strong view, or the one so called, has to leave out its colour operations at this channel count."""
    if isinstance(view, str):
        colours = view == "autoaugment" or view.startswith(("rand:", "cta"))
    else:
        colours = view.colours
    return colours and not keeps_colour(channels)
