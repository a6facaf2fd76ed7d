"""Networks by name: ``wrn-28-2``, ``wrn-28-2-tf``, ``small``, ``small-64``."""

from __future__ import annotations

import difflib
import re

from torch import nn

from fewlabels.nets.small import SmallCNN
from fewlabels.nets.statistics import frozen_statistics
from fewlabels.nets.wrn import WideResNet, WideResNetTF, glorot_normal_

__all__ = [
    "EXAMPLES",
    "SmallCNN",
    "WideResNet",
    "WideResNetTF",
    "build",
    "frozen_statistics",
    "glorot_normal_",
]

EXAMPLES = ("wrn-28-2", "wrn-28-8", "wrn-28-2-tf", "wrn-28-8-tf", "wrn-37-2-tf", "small", "small-64")
"""Names that `build` knows; any other depth, width of the same form will do."""

_WRN = re.compile(r"wrn-(\d+)-([1-9]\d*)(-tf)?")
_SMALL = re.compile(r"small(?:-([1-9]\d*))?")


def build(
    name: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    dropout: float = 0.0,
    slope: float = 0.1,
    bn_momentum: float | None = None,
) -> nn.Module:
    """The network `name`, a `Net`, with fresh weights.

    Args:
        name: ``wrn-DEPTH-WIDTH`` (DEPTH = 6n + 4: three groups of n blocks), the same with ``-tf`` for the
            original TensorFlow form (also DEPTH = 8n + 5: four groups, as ``wrn-37-2-tf``), or
            ``small[-WIDTH]``.
        classes: number of outputs.
        shape: (C, H, W) of the images.
        dropout: probability; where it is applied is the network's own business.
        slope: of the leaky ReLU of the wide residual networks; `small` has plain ReLU.
        bn_momentum: weight of the newest batch in the running statistics of batch normalisation; None for the
            network's own (0.001 for wrn, 0.1 for small).

    Raises:
        ValueError: for an unknown name, or images with a side of less than 4 pixels.
    """
    channels, size = shape[0], min(shape[1:])
    if size < 4:
        raise ValueError(f"net {name!r} needs images of at least 4 x 4 pixels, got {shape[1]} x {shape[2]}")
    given = {"dropout": dropout}
    if bn_momentum is not None:
        given["bn_momentum"] = bn_momentum
    if match := _SMALL.fullmatch(name):
        return SmallCNN(classes, channels, size, int(match[1] or 32), **given)
    given["slope"] = slope
    if match := _WRN.fullmatch(name):
        depth, width, tf = int(match[1]), int(match[2]), bool(match[3])
        if not tf:
            _check_depth(name, depth, {3})
            return WideResNet(classes, channels, depth, width, **given)
        scales = _check_depth(name, depth, {3, 4})
        return WideResNetTF(classes, channels, 16 * width, _repeat(depth, scales), scales, **given)
    near = difflib.get_close_matches(name, EXAMPLES, n=1, cutoff=0.0)[0]
    raise ValueError(f"net {name!r} is unknown; did you mean {near!r}? Known: {', '.join(EXAMPLES)}")


def _repeat(depth: int, scales: int) -> int:
    """Blocks per group: depth = scales (2 repeat + 1) + 1."""
    return ((depth - 1) // scales - 1) // 2


def _check_depth(name: str, depth: int, allowed: set[int]) -> int:
    """Number of groups that the depth means; 6n + 4 is even and 8n + 5 odd, so that there is no doubt."""
    for scales in sorted(allowed):
        repeat = _repeat(depth, scales)
        if repeat >= 1 and depth == scales * (2 * repeat + 1) + 1:
            return scales
    known = [scales * (2 * n + 1) + 1 for scales in allowed for n in range(1, depth + 1)]
    near = min(known, key=lambda other: (abs(other - depth), other))
    form = "6n + 4 or 8n + 5" if 4 in allowed else "6n + 4"
    raise ValueError(f"net {name!r}: the depth must be {form} with n of at least 1, got {depth}; nearest is {near}")
