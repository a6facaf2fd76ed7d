"""Networks by name: `wrn-28-2`, `wrn-28-2-tf`, `small`, `cnn13`, ..., `timm:NAME`, `torchvision:NAME`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import nn

from fewlabels.nets.body import Learning, digest, freeze
from fewlabels.nets.convnets import CNN13, ConvNet
from fewlabels.nets.fast import FastNet
from fewlabels.nets.groups import parameter_groups
from fewlabels.nets.layers import glorot_normal_, map_size
from fewlabels.nets.lora import adapt, is_bypass, merged
from fewlabels.nets.recompute import kept, recompute, share_kept
from fewlabels.nets.resnet import ResNet18, ResNet50, ResNeXt
from fewlabels.nets.shake import ShakeNet
from fewlabels.nets.small import SmallCNN
from fewlabels.nets.statistics import frozen_statistics
from fewlabels.nets.weights import adopt, read
from fewlabels.nets.wrn import WideResNet, WideResNetTF
from fewlabels.nets.zoo import PREFIXES, check_parts, elsewhere, is_zoo, normalization, synchronized
from fewlabels.nets.zoo import build as build_zoo
from fewlabels.nets.zoo import check as check_zoo
from fewlabels.runtime.words import close, did_you_mean

__all__ = [
    "CNN13",
    "EXAMPLES",
    "ConvNet",
    "FastNet",
    "Learning",
    "ResNeXt",
    "ResNet18",
    "ResNet50",
    "ShakeNet",
    "SmallCNN",
    "WideResNet",
    "WideResNetTF",
    "adapt",
    "build",
    "check",
    "check_parts",
    "digest",
    "freeze",
    "frozen_statistics",
    "glorot_normal_",
    "is_bypass",
    "is_zoo",
    "kept",
    "map_size",
    "merged",
    "normalization",
    "parameter_groups",
    "recompute",
    "share_kept",
    "synchronized",
]

# fmt: off
EXAMPLES = (
    "wrn-28-2", "wrn-28-8", "wrn-37-2", "wrn-28-2-tf", "wrn-28-8-tf", "wrn-37-2-tf", "small", "small-64",
    "fast", "fast-64", "cnn13", "cnn13-32", "convnet", "shake", "shake-96", "resnet18", "resnet50",
    "resnext-28-4x4", "resnext-29-8x64",
)
# fmt: on
"""Names that `build` knows; any other depth, width of the same form will do."""

_WRN = re.compile(r"wrn-(\d+)-([1-9]\d*)(-tf)?")
_RESNEXT = re.compile(r"resnext-(\d+)-([1-9]\d*)x([1-9]\d*)")
_WIDTH = re.compile(r"(small|fast|cnn13|convnet|shake|resnet18|resnet50)(?:-([1-9]\d*))?")

_WIDTHS: dict[str, tuple[Callable[..., nn.Module], int, tuple[str, ...]]] = {
    "small": (SmallCNN, 32, ("width",)),
    "fast": (FastNet, 32, ("stages", "width")),
    "cnn13": (CNN13, 128, ("width", "slope")),
    "convnet": (ConvNet, 32, ("stages", "width", "slope")),
    "shake": (ShakeNet, 32, ("stages", "blocks", "width")),
    "resnet18": (ResNet18, 64, ("width", "slope")),
    "resnet50": (ResNet50, 64, ("width",)),
}
"""Nets whose name says no more than the width: class, default width, options."""


class _Plan(NamedTuple):
    make: Callable[..., nn.Module]
    settings: dict[str, Any]
    """What the name says; the options given beside it are stronger."""
    options: tuple[str, ...]
    """Which options there are: stages, blocks, width, slope."""


def build(
    name: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    stages: int | None = None,
    blocks: int | None = None,
    width: int | None = None,
    dropout: float = 0.0,
    slope: float | None = None,
    bn_momentum: float | None = None,
    patch: int | None = None,
    drop_path: float = 0.0,
    pretrained: bool | str = False,
) -> nn.Module:
    """The network `name`, a `Net`.

    Args:
        name: ``wrn-DEPTH-WIDTH`` (DEPTH = 6n + 4: three stages of n blocks, or 8n + 5: four; the first stage has
            16 WIDTH channels), the same with ``-tf`` for the original TensorFlow form, ``resnext-DEPTH-CxD``
            (three stages of (DEPTH - 2) // 9 blocks, C groups of D channels), one of ``small``, ``fast``, ``cnn13``,
            ``convnet``, ``shake``, ``resnet18``, ``resnet50``, each perhaps with ``-WIDTH``, the channels of the first
            stage; ``timm:NAME`` or ``torchvision:NAME``.
        classes: number of outputs.
        shape: (C, H, W) of the images.
        stages: scales of the image, in place of what the name says.
        blocks: residual blocks per stage, likewise.
        width: channels of the first stage, likewise.
        dropout: probability; between the convolutions of a block in wrn, before the linear layer elsewhere.
        slope: of the leaky ReLU; None for the network's own.
        bn_momentum: weight of the newest batch in the running statistics of batch normalisation; None for the
            network's own (0.001 for the authors' nets, 0.1 for small and fast).
        patch: side of a ViT's patches (timm); None for its own.
        drop_path: share of images that skip the last residual block in a step, growing from 0 at the first one (timm).
        pretrained: True for the weights that timm or torchvision offers, or a local file of weights; the head is
            new in both cases.

    Raises:
        ValueError: for an unknown name, an option that the network has not, images that are too small, weights
            that do not fit or cannot be had.
    """
    if is_zoo(name):
        given = {"stages": stages, "blocks": blocks, "width": width, "slope": slope}
        _check_options(name, given, ())
        return build_zoo(
            name,
            classes=classes,
            shape=shape,
            dropout=dropout,
            bn_momentum=bn_momentum,
            patch=patch,
            drop_path=drop_path,
            pretrained=pretrained,
        )
    check_parts(name, drop_path=drop_path)
    check(name, stages=stages, blocks=blocks, width=width, slope=slope, patch=patch, pretrained=pretrained is True)
    given = {"stages": stages, "blocks": blocks, "width": width, "slope": slope}
    plan = _plan(name)
    settings = plan.settings | {option: value for option, value in given.items() if value is not None}
    _check_size(name, shape, settings)
    if bn_momentum is not None and plan.make is not ConvNet:  # which has no batch normalisation
        settings["bn_momentum"] = bn_momentum
    if plan.make is SmallCNN:
        settings["size"] = min(shape[1:])
    net = plan.make(classes, shape[0], dropout=dropout, **settings)
    if isinstance(pretrained, str):
        adopt(net, read(pretrained), name)
    return net


def check(
    name: str,
    *,
    stages: int | None = None,
    blocks: int | None = None,
    width: int | None = None,
    slope: float | None = None,
    patch: int | None = None,
    pretrained: bool | str = False,
) -> None:
    """Raises the ValueError of `build` for what has nothing to do with the images, so that it comes before they are
    read: the name, the options, the weights, which are fetched to the library's cache if they are to be."""
    given = {"stages": stages, "blocks": blocks, "width": width, "slope": slope}
    if is_zoo(name):
        _check_options(name, given, ())
        check_zoo(name, pretrained=pretrained)
        return
    _check_options(name, given, _plan(name).options)
    if patch is not None:
        raise ValueError(f"Net.patch is for nets of timm, not for {name!r}")
    if pretrained is True:
        raise ValueError(f"net {name!r} has no pretrained weights; give a file, or a net of timm: or torchvision:")
    if isinstance(pretrained, str):
        read(pretrained)


def _plan(name: str) -> _Plan:
    if not is_zoo(name) and (large := [n for n in re.findall(r"\d+", name) if len(n) > 4]):
        raise ValueError(f"net {name!r}: its numbers have at most four digits, got {large[0]}")
    if match := _WIDTH.fullmatch(name):
        make, width, options = _WIDTHS[match[1]]
        return _Plan(make, {"width": int(match[2] or width)}, options)
    if match := _WRN.fullmatch(name):
        stages, blocks = _stages(name, int(match[1]))
        settings = {"width": 16 * int(match[2]), "blocks": blocks, "stages": stages}
        return _Plan(WideResNetTF if match[3] else WideResNet, settings, ("stages", "blocks", "width", "slope"))
    if match := _RESNEXT.fullmatch(name):
        depth, cardinality, base = map(int, match.groups())
        if depth < 11:
            raise ValueError(f"net {name!r}: the depth must be at least 11, got {depth}")
        # kekmodel's "depth 28" is a net of 20 layers
        settings = {"cardinality": cardinality, "base": base, "blocks": (depth - 2) // 9}
        return _Plan(ResNeXt, settings, ("stages", "blocks"))
    longer = [example for example in EXAMPLES if example.startswith(name)]
    slips = [
        example
        for example in close(name, EXAMPLES, cutoff=0.8)
        if re.findall(r"\d+", example) == re.findall(r"\d+", name)
    ]
    near = longer or slips or elsewhere(name) or close(name, EXAMPLES)
    meant = did_you_mean(repr(example) for example in near[: bool(name)]) or "."
    known = ", ".join([*EXAMPLES, *(f"{prefix}NAME" for prefix in PREFIXES)])
    raise ValueError(f"net {name!r} is unknown{meant} Known: {known}")


def _stages(name: str, depth: int) -> tuple[int, int]:
    """Stages and blocks per stage that the depth means; 6n + 4 is even and 8n + 5 odd, so that there is no doubt."""
    forms = {stages * (2 * n + 1) + 1: (stages, n) for stages in (3, 4) for n in range(1, depth + 1)}
    if depth in forms:
        return forms[depth]
    near = min(forms, key=lambda other: (abs(other - depth), other), default=10)
    raise ValueError(
        f"net {name!r}: the depth must be 6n + 4 or 8n + 5 with n of at least 1, got {depth}; nearest is {near}"
    )


def _check_options(name: str, given: dict[str, Any], options: Iterable[str]) -> None:
    for option, value in given.items():
        if value is not None and option not in options:
            has = f"it has {', '.join(options)}" if options else "its name says all of it"
            raise ValueError(f"net {name!r} has no option {option} (Net.{option} is {value}); {has}")


def _check_size(name: str, shape: tuple[int, int, int], settings: dict[str, Any]) -> None:
    least = 4
    if name.startswith("cnn13"):
        least = 12  # two poolings leave the 3 x 3 that its convolution without padding needs
    if name.startswith("convnet"):
        least = max(4, 2 ** settings.get("stages", 3))
    if name.startswith("fast"):
        least = 2 ** (1 + settings.get("stages", 3))
    if min(shape[1:]) < least:
        raise ValueError(f"net {name!r} needs images of at least {least} x {least} pixels, got {shape[1]} x {shape[2]}")
