"""AutoAugment (Cubuk et al. 2019, https://arxiv.org/abs/1805.09501) as google-research/fixmatch has it.

Source: third_party/auto_augment/policies.py and augmentations.py there. One sub-policy is drawn for each image:
two operations, each with its probability and magnitude. Fill, truncation and cutout are those of the RandAugment
preset `google`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fewlabels.augment.ops import Op
from fewlabels.augment.pixels import Shape
from fewlabels.augment.presets import GOOGLE, PRESETS, Magnitudes
from fewlabels.augment.randaugment import RandAugment, magnitudes

OPERATIONS: Magnitudes = {
    **GOOGLE,
    Op.INVERT: lambda level: np.ones_like(level.m),
    Op.CUTOUT: lambda level: np.trunc(level.m * 20 / 10),
}

_NAMES = {
    "ACo": Op.AUTOCONTRAST,
    "Bri": Op.BRIGHTNESS,
    "Col": Op.COLOR,
    "Con": Op.CONTRAST,
    "Cut": Op.CUTOUT,
    "Equ": Op.EQUALIZE,
    "Inv": Op.INVERT,
    "Pos": Op.POSTERIZE,
    "Rot": Op.ROTATE,
    "Shp": Op.SHARPNESS,
    "ShX": Op.SHEAR_X,
    "ShY": Op.SHEAR_Y,
    "Sol": Op.SOLARIZE,
    "TrX": Op.TRANSLATE_X,
    "TrY": Op.TRANSLATE_Y,
}

# Sub-policies as "operation probability magnitude + operation probability magnitude".
_CIFAR = """
Inv 0.1 7 + Con 0.2 6; Rot 0.7 2 + TrX 0.3 9; Shp 0.8 1 + Shp 0.9 3; ShY 0.5 8 + TrY 0.7 9; ACo 0.5 8 + Equ 0.9 2;
Sol 0.4 5 + ACo 0.9 3; TrY 0.9 9 + TrY 0.7 9; ACo 0.9 2 + Sol 0.8 3; Equ 0.8 8 + Inv 0.1 3; TrY 0.7 9 + ACo 0.9 1;
Sol 0.4 5 + ACo 0 2; TrY 0.7 9 + TrY 0.7 9; ACo 0.9 0 + Sol 0.4 3; Equ 0.7 5 + Inv 0.1 3; TrY 0.7 9 + TrY 0.7 9;
Sol 0.4 5 + ACo 0.9 1; TrY 0.8 9 + TrY 0.9 9; ACo 0.8 0 + TrY 0.7 9; TrY 0.2 7 + Col 0.9 6; Equ 0.7 6 + Col 0.4 9;
ShY 0.2 7 + Pos 0.3 7; Col 0.4 3 + Bri 0.6 7; Shp 0.3 9 + Bri 0.7 9; Equ 0.6 5 + Equ 0.5 1; Con 0.6 7 + Shp 0.6 5;
Bri 0.3 7 + ACo 0.5 8; ACo 0.9 4 + ACo 0.5 6; Sol 0.3 5 + Equ 0.6 5; TrY 0.2 4 + Shp 0.3 3; Bri 0 8 + Col 0.8 8;
Sol 0.2 6 + Col 0.8 6; Sol 0.2 6 + ACo 0.8 1; Sol 0.4 1 + Equ 0.6 5; Bri 0 0 + Sol 0.5 2; ACo 0.9 5 + Bri 0.5 3;
Con 0.7 5 + Bri 0 2; Sol 0.2 8 + Sol 0.1 5; Con 0.5 1 + TrY 0.2 9; ACo 0.6 5 + TrY 0 9; ACo 0.9 4 + Equ 0.8 4;
Bri 0 7 + Equ 0.4 7; Sol 0.2 5 + Equ 0.7 5; Equ 0.6 8 + Col 0.6 2; Col 0.3 7 + Col 0.2 4; ACo 0.5 2 + Sol 0.7 2;
ACo 0.2 0 + Equ 0.1 0; ShY 0.6 5 + Equ 0.6 5; Bri 0.9 3 + ACo 0.4 1; Equ 0.8 8 + Equ 0.7 7; Equ 0.7 7 + Sol 0.5 0;
Equ 0.8 4 + TrY 0.8 9; TrY 0.8 9 + TrY 0.6 9; TrY 0.9 0 + TrY 0.5 9; ACo 0.5 3 + Sol 0.3 4; Sol 0.5 3 + Equ 0.4 4;
Col 0.7 7 + TrX 0.5 8; Equ 0.3 7 + ACo 0.4 8; TrY 0.4 3 + Shp 0.2 6; Bri 0.9 6 + Col 0.2 8; Sol 0.5 2 + Inv 0 3;
ACo 0.1 5 + Bri 0 0; Cut 0.2 4 + Equ 0.1 1; Equ 0.7 7 + ACo 0.6 4; Col 0.1 8 + ShY 0.2 3; ShY 0.4 2 + Rot 0.7 0;
ShY 0.1 3 + ACo 0.9 5; TrY 0.3 6 + Cut 0.3 3; Equ 0.5 0 + Sol 0.6 6; ACo 0.3 5 + Rot 0.2 7; Equ 0.8 2 + Inv 0.4 0;
Equ 0.9 5 + Col 0.7 0; Equ 0.1 1 + ShY 0.1 3; ACo 0.7 3 + Equ 0.7 0; Bri 0.5 1 + Con 0.1 7; Con 0.1 4 + Sol 0.6 5;
Sol 0.2 3 + ShX 0 0; TrX 0.3 0 + TrX 0.6 0; Equ 0.5 9 + TrY 0.6 7; ShX 0.1 0 + Shp 0.5 1; Equ 0.8 6 + Inv 0.3 6;
ACo 0.3 9 + Cut 0.5 3; ShX 0.4 4 + ACo 0.9 2; ShX 0 3 + Pos 0 3; Sol 0.4 3 + Col 0.2 4; Equ 0.1 4 + Equ 0.7 6;
Equ 0.3 8 + ACo 0.4 3; Sol 0.6 4 + ACo 0.7 6; ACo 0.2 9 + Bri 0.4 8; Equ 0.1 0 + Equ 0 6; Equ 0.8 4 + Equ 0 4;
Equ 0.5 5 + ACo 0.1 2; Sol 0.5 5 + ACo 0.9 5; ACo 0.6 1 + ACo 0.7 8; Equ 0.2 0 + ACo 0.1 2; Equ 0.6 9 + Equ 0.4 4
"""
_SVHN = """
ShX 0.9 4 + Inv 0.2 3; ShY 0.9 8 + Inv 0.7 5; Equ 0.6 5 + Sol 0.6 6; Inv 0.9 3 + Equ 0.6 3; Equ 0.6 1 + Rot 0.9 3;
ShX 0.9 4 + ACo 0.8 3; ShY 0.9 8 + Inv 0.4 5; ShY 0.9 5 + Sol 0.2 6; Inv 0.9 6 + ACo 0.8 1; Equ 0.6 3 + Rot 0.9 3;
ShX 0.9 4 + Sol 0.3 3; ShY 0.8 8 + Inv 0.7 4; Equ 0.9 5 + TrY 0.6 6; Inv 0.9 4 + Equ 0.6 7; Con 0.3 3 + Rot 0.8 4;
ShX 0.9 3 + Inv 0.5 3; ShY 0.9 8 + Inv 0.4 5; Equ 0.6 3 + Sol 0.2 3; Inv 0.9 4 + Equ 0.5 6; Equ 0.6 1 + Rot 0.9 3;
Inv 0.8 5 + TrY 0 2; ShY 0.7 6 + Sol 0.4 8; Inv 0.6 4 + Rot 0.8 4; ShY 0.3 7 + TrX 0.9 3; ShX 0.1 6 + Inv 0.6 5;
Sol 0.7 2 + TrY 0.6 7; ShY 0.8 4 + Inv 0.8 8; ShX 0.7 9 + TrY 0.8 3; ShY 0.8 5 + ACo 0.7 3; ShX 0.7 2 + Inv 0.1 5;
ShY 0.8 9 + ShX 0.7 7; ShY 0.7 4 + Sol 0.9 7; ShY 0.9 5 + Inv 0 4; TrX 0.8 3 + ShY 0.7 7; Inv 0.1 7 + Sol 0.3 9;
Inv 0.6 2 + Inv 0.9 4; Equ 0.5 2 + Sol 0.9 7; ShY 0.6 7 + Sol 0.8 3; ShY 0.6 3 + Inv 0.6 1; ShX 0.4 2 + Rot 0.7 5
"""


def _parse(text: str) -> NDArray[np.float64]:
    """``[sub-policies, 2, 3]``: operation, probability, magnitude."""
    policies = []
    for policy in text.replace("\n", " ").split(";"):
        steps = [step.split() for step in policy.split("+")]
        policies.append([[float(_NAMES[name]), float(p), float(m)] for name, p, m in steps])
    return np.array(policies)


POLICIES: Mapping[str, NDArray[np.float64]] = {"cifar": _parse(_CIFAR), "svhn": _parse(_SVHN)}
"""95 sub-policies found on CIFAR-10 and 40 found on SVHN, each ``[sub-policies, 2, 3]``: operation (`Op`),
probability, magnitude."""


class AutoAugment(RandAugment):
    """A weak view of its own, then one sub-policy, then cutout.

    Args:
        shape, flip, shift, black: See `Weak`.
        policy: Key of `POLICIES`.
        cutout: Whether a square of 16 pixels follows (google's token `aac`; `aa` has none).
    """

    def __init__(
        self,
        shape: Shape,
        flip: bool,
        shift: int,
        policy: str = "cifar",
        cutout: bool = True,
        black: bool = False,
    ) -> None:
        super().__init__(shape, flip, shift, PRESETS["google"], cutout, black)
        if policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}.")
        self.policies = POLICIES[policy]

    def _sequence(
        self, g: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        policy = self.policies[g.integers(0, len(self.policies), rows)]
        op, probability, m = policy[..., 0].astype(np.int64), policy[..., 1], policy[..., 2]
        size = op.shape
        sign = g.integers(0, 2, size) * np.float64(2) - 1
        used = g.random(size) < probability
        place = g.integers(0, [self.shape[2], self.shape[1]], (*size, 2))
        return np.where(used, op, Op.IDENTITY), magnitudes(OPERATIONS, op, m, sign, self.shape), place
