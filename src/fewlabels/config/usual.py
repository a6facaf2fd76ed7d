# ruff: noqa: E501  (rows of a table)
"""Settings by algorithm and data set, by dotted name, where they are not the defaults of the dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewlabels import nets
from fewlabels.data.aliases import ALIASES
from fewlabels.data.names import DataName
from fewlabels.nets import learned

Settings = Mapping[str, Any]

ADAM: Settings = {
    "optim.name": "adamw",
    "optim.lr": 0.002,
    "optim.weight_decay": 0.02,
    "optim.schedule": "constant",
}
"""F's Adam scripts: a constant rate, and weights that shrink by lr * weight_decay."""

METHODS: Mapping[str, Settings] = {
    "supervised": {**ADAM, "optim.weight_decay": 0.002},
    "supervised-mixup": {**ADAM, "optim.weight_decay": 0.002},
    "pseudo-label": {"uratio": 1},
    "pi-model": {"uratio": 1},
    "mean-teacher": {"uratio": 1},
    "vat": {**ADAM, "uratio": 1},
    "ict": {**ADAM, "uratio": 1},
    "mixup": {**ADAM, "uratio": 1},
    "mixmatch": {"uratio": 1},
    "remixmatch": {"uratio": 1},
    "realmix": {**ADAM, "uratio": 1},
    "self-training": {"uratio": 1, "batch": 32},  # V's config/template/pet.yaml
}
"""Settings of an algorithm's script in F, or R's or V's for its own, that are not FixMatch's, which are the defaults."""

DATASETS: Mapping[str, Settings] = {
    "cifar100": {"net.name": "wrn-28-8", "optim.weight_decay": 0.001},  # F issue 26: --filters=128, wd 0.001
    "stl10": {"net.name": "wrn-37-2"},  # F issue 34: --scales=4
    "mini_imagenet": {"net.name": "resnet18"},  # C run.sh, and its README on the backbone
}
"""Settings of the published numbers on a data set."""

BOTH: Mapping[tuple[str, str], Settings] = {  # F fully_supervised/runs/all.sh
    ("supervised", "cifar10"): {"optim.weight_decay": 0.02, "algorithm.smoothing": 0.001},
    ("supervised", "cifar100"): {"optim.weight_decay": 0.02, "algorithm.smoothing": 0.001},
    ("supervised", "svhn"): {"algorithm.smoothing": 0.01},
    ("supervised", "svhn_noextra"): {"algorithm.smoothing": 0.01},
    ("cadr", "cifar100"): {"optim.weight_decay": 0.0015},  # C run.sh
    # T models/freematch_entropy/freematch_utils.py
    ("freematch", "svhn"): {"algorithm.clip": "thresholds"},
    ("freematch", "svhn_noextra"): {"algorithm.clip": "thresholds"},
    # hhrd9/regmixmatch, models/freematch_entropy/freematch_utils.py
    ("regmixmatch", "svhn"): {"algorithm.clip": "thresholds"},
    ("regmixmatch", "svhn_noextra"): {"algorithm.clip": "thresholds"},
    ("iomatch", "cifar100"): {"net.name": "wrn-28-2", "algorithm.alignment": "uniform"},  # nukezil/IOMatch, config
    ("cgmatch", "svhn"): {"algorithm.clip": True},  # BoCheng-96/CGMatch, semilearn/algorithms/cgmatch
    ("cgmatch", "svhn_noextra"): {"algorithm.clip": True},
}

CADR: Settings = {"steps": 2**17}
"""C's `train_kimg` of 8,192, for the names of its splits."""

SMALL: Mapping[str, Settings] = {
    # some twenty seconds on two CPU cores
    "digits": {
        "net.name": "small",
        "optim.lr": 0.1,
        "optim.warmup": 30,
        "ema.decay": 0.99,
        "ema.warmup": True,
        "ema.buffers": "averaged",
        "steps": 500,
        "batch": 32,
        "uratio": 4,
        "eval_every": 50,
        "save_every": 100,
        "log_every": 10,
    },
    # minutes on a GPU; on a core of a CPU about 1 hour for pictures of 32 pixels, 3 for 64, 8 for 96
    "a folder": {
        "net.name": "wrn-10-2",
        "net.bn_momentum": 0.01,
        "ema.warmup": True,
        "steps": 3000,
        "batch": 32,
        "uratio": 4,
        "eval_every": 250,
        "save_every": 250,
        "log_every": 25,
    },
}
"""Short trainings. One optimizer for all algorithms, so that they can be compared: those of `METHODS` are left out."""

PER_CLASS: Mapping[str, str] = {
    "pi-model": "weight",
    "mean-teacher": "weight",
    "mixmatch": "w_match",
    "realmix": "w_match",
}
"""Weights of a squared error that is a mean over the classes: a short training takes them by number of classes. ICT,
which has one too, was no better for it (LOG.md)."""

RAMPS: Mapping[str, tuple[str, float]] = {
    "mixmatch": ("ramp_steps", 1),  # as in YU1ut/MixMatch-pytorch; after a quarter it collapses with few classes
    "realmix": ("ramp_steps", 1),
    "remixmatch": ("ramp_steps", 0.25),
    "uda": ("tsa_ramp", 0.25),
    "simmatch": ("start", 0.1),
    "cgmatch": ("start", 0.1),
    "dash": ("epoch_steps", 0.004),  # 1024 of them are a long training; its threshold falls in the first eighth
}
"""Ramps that the papers count in steps of a long training, and the share of a short one that they take."""


def short(algorithm: str, steps: int) -> Settings:
    """Settings of the algorithm itself in a short training, whose published values are for a long one on ten classes."""
    found: dict[str, Any] = {}
    if algorithm in PER_CLASS:
        found[f"algorithm.{PER_CLASS[algorithm]}"] = None
    if algorithm in RAMPS:
        option, share = RAMPS[algorithm]
        found[f"algorithm.{option}"] = max(1, int(share * steps))
    return found


FITTED: Mapping[str, Settings] = {
    # seconds for 1,000 pictures on two CPU cores
    "frozen": {
        "net.name": "timm:tf_efficientnet_lite0",
        "net.pretrained": True,
        "net.train": "head",
        "data.image_size": 128,
        "steps": 0,
    },
}
"""Algorithms that are fitted, with whatever images: a small net that takes images of any size, which small pictures are
enlarged to."""

FINE_TUNING: Settings = {"optim.lr": 0.003}
"""Settings of a short training that starts from learned weights: the rates of `SMALL` are for new ones."""


LORA: Settings = {"optim.name": "adamw", "optim.lr": 0.001, "optim.weight_decay": 0.0005}
"""The same where bypasses learn (OSU-MLB/SSL-Foundation-Models, config/lora), with a warm-up of this share of the steps:"""

LORA_WARMUP = 0.025


def tuning(train: str, steps: int) -> Settings:
    """Settings of a short training that starts from learned weights, of which `train` learns."""
    return {**LORA, "optim.warmup": int(LORA_WARMUP * steps)} if train == "lora" else FINE_TUNING


def settings(
    algorithm: str,
    name: DataName,
    net: str | None = None,
    pretrained: bool | str = False,
    train: str = "all",
) -> Settings:
    """The settings of `recipe` that are no defaults of the dataclasses, without `net`, `pretrained` and `train`
    themselves."""
    if algorithm in FITTED:
        fitted = FITTED[algorithm]
        own = {} if net or pretrained else {"net.pretrained": learned.pretrained(fitted["net.name"])}
        return {**fitted, **own}
    method = METHODS.get(algorithm, {})
    kind = "a folder" if name.folder else name.base
    if kind in SMALL:
        small = {**SMALL[kind], **(tuning(train, SMALL[kind]["steps"]) if pretrained else {})}
        if net and _own_momentum(net):
            small.pop("net.bn_momentum", None)
        if net and nets.is_zoo(net) and pretrained and train == "all":
            small["net.freeze_bn"] = True
        own = {k: v for k, v in method.items() if not k.startswith("optim.")}
        return {**small, **own, **short(algorithm, small["steps"])}
    protocol = CADR if name.alias and ALIASES[name.alias].options.get("rule") == "cadr" else {}
    return {**DATASETS.get(kind, {}), **protocol, **method, **BOTH.get((algorithm, kind), {})}


def _own_momentum(net: str) -> bool:
    """Whether a net's batch norm follows the data fast enough for a short training; that of the authors' nets,
    0.001, does not."""
    return nets.is_zoo(net) or net.startswith(("small", "fast"))
