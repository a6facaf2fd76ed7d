"""Views of images: batched on the device, every image with its own operations and magnitudes.

A view draws its parameters on the host (`View.draw`) and applies them to pixels (`View.forward`); see
`fewlabels.augment.pixels` for the form of the pixels and `Normalize` for the way from there to the network.
"""

from __future__ import annotations

from fewlabels.augment.affine import Affine
from fewlabels.augment.assign import ViewSet, make_views
from fewlabels.augment.autoaugment import AutoAugment
from fewlabels.augment.copies import CopyMaker
from fewlabels.augment.ctaugment import CTAugment
from fewlabels.augment.named import STRONG, WEAK, drops_colour, moves_of, strong_view, weak_view
from fewlabels.augment.pixels import Normalize, Shape
from fewlabels.augment.presets import PRESETS
from fewlabels.augment.randaugment import RandAugment
from fewlabels.augment.views import Cutout, Draw, Identity, View, Weak
from fewlabels.runtime.rgb import pack, unpack

__all__ = [
    "PRESETS",
    "STRONG",
    "WEAK",
    "Affine",
    "AutoAugment",
    "CTAugment",
    "CopyMaker",
    "Cutout",
    "Draw",
    "Identity",
    "Normalize",
    "RandAugment",
    "Shape",
    "View",
    "ViewSet",
    "Weak",
    "drops_colour",
    "make_views",
    "moves_of",
    "pack",
    "strong_view",
    "unpack",
    "weak_view",
]
