"""Views of images: batched on the device, every image with its own operations and magnitudes.

A view draws its parameters on the host (`View.draw`) and applies them to pixels (`View.forward`); see
`fewlabels.augment.pixels` for the form of the pixels and `Normalize` for the way from there to the network.
"""

from __future__ import annotations

import math

from fewlabels.augment.affine import Affine
from fewlabels.augment.ctaugment import CTAugment
from fewlabels.augment.ops import keeps_colour
from fewlabels.augment.pixels import Normalize, Shape, pack, unpack
from fewlabels.augment.randaugment import PRESETS, RandAugment
from fewlabels.augment.views import Cutout, Draw, Identity, View, Weak

__all__ = [
    "PRESETS",
    "STRONG",
    "WEAK",
    "Affine",
    "CTAugment",
    "Cutout",
    "Draw",
    "Identity",
    "Normalize",
    "RandAugment",
    "Shape",
    "View",
    "Weak",
    "drops_colour",
    "pack",
    "strong_view",
    "unpack",
    "weak_view",
]

WEAK = ("ms", "m", "s", "x", "affine")
"""Names of the weak views: m mirrors (flips), s shifts, x is the identity."""

STRONG = (*(f"rand:{preset}" for preset in PRESETS), "cta", "cutout", "none", "affine")
"""Names of the strong views; "none" is a second,
independent flip and shift."""


def weak_view(name: str, shape: Shape, *, shift: int = 4) -> View:
    """The weak view called `name` (one of `WEAK`) for images of this shape (C, H, W).

    `shift` counts for names with an s. ValueError for other names, or if the shift does not fit the image.
    """
    if name == "x":
        return Identity(shape)
    if name == "affine":
        return Affine(shape, degrees=math.degrees(0.08), scale=0.05, shear=0.0, shift=0.6)
    if name in WEAK:
        return Weak(shape, flip="m" in name, shift=shift if "s" in name else 0)
    raise ValueError(f"the weak view must be one of {', '.join(WEAK)}, not {name!r}.")


def strong_view(name: str, shape: Shape, *, flip: bool = True, shift: int = 4) -> View:
    """The strong view called `name` (one of `STRONG`) for images of this shape (C, H, W).

    `flip` and `shift` are those of the weak view that a strong view begins with. ValueError for other names,
    or if the shift does not fit the image.
    """
    if name.startswith("rand:") and name in STRONG:
        return RandAugment(shape, flip, shift, preset=name.removeprefix("rand:"))
    if name == "cta":
        return CTAugment(shape, flip, shift)
    if name == "cutout":
        return Cutout(shape, flip, shift)
    if name == "none":
        return Weak(shape, flip, shift)
    if name == "affine":
        degrees = math.degrees(0.35)
        return Affine(shape, degrees, scale=0.2, shear=0.25, shift=1.2, brightness=0.4, noise=0.15, cutout=3)
    raise ValueError(f"the strong view must be one of {', '.join(STRONG)}, not {name!r}.")


def drops_colour(name: str, channels: int) -> bool:
    """Whether the strong view called `name` has to leave out its colour operations at this channel count."""
    return (name.startswith("rand:") or name == "cta") and not keeps_colour(channels)
