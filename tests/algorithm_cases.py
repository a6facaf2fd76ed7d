"""What the tests of all algorithms go over: each of the registry, with each of its choices, on toy images.

An algorithm that joins the union is here by itself; only combinations of options are written down.
"""

from __future__ import annotations

import atexit
import copy
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewlabels as fl
from fewlabels import nets
from fewlabels.algorithms import ALGORITHMS, Algorithm, Imbalance, Missing, OpenSet
from fewlabels.config.settings import Train
from fewlabels.inference.model import Model
from fewlabels.runtime.rng import Rng
from fewlabels.training.loop import Output
from fewlabels.training.step import Trainer
from fewlabels.types import Batch, Info

K = 3
"""Classes of the toy problem."""
SHAPE = (3, 8, 8)

QUICK = {
    "tau": 0.45,
    "ramp_steps": 4,
    "tsa_ramp": 40,
    "xi": 1.0,
    "eps": 1.0,
    "epoch_steps": 1,
    "wait_epochs": 2,
    "votes": 6,
    "start": 2,
}
"""In place of the authors' values, so that each part of a loss counts within a few steps of a few images, and so that
VAT's moves, the trial long and the change short, do not depend on rounding."""

QUICK_OF: dict[str, dict[str, Any]] = {
    "adamatch": {"tau": 1.0},
    "regmixmatch": {"tau_m": 0.6},
    "iomatch": {"inlier": 0.487},
}
"""The same for single algorithms."""

COMBINATIONS: dict[str, list[dict[str, Any]]] = {
    "pseudo-label": [{"ramp": 0.0}],
    "vat": [{"w_entropy": 0.0}],
    "remixmatch": [
        {"strong_views": 2, "redux": "mean"},
        {"w_kl": 0.0, "w_rot": 0.0, "redux": "1st"},
        {"p_unlabeled": (0.5, 0.3, 0.2)},
    ],
    "realmix": [
        {"percent_mask": 0.25, "tsa": "linear", "copy_kind": "cutout", "copies": 3},
        {"confidence_mask": 0.6, "tsa": "exp", "tsa_on": "logits", "copy_kind": "color"},
    ],
    "uda": [{"temperature": 0.4, "w_entropy": 0.5, "tsa": "exp"}],
    "regmixmatch": [{"many_labels": 1}, {"tau_m": 1.0}],
    "iomatch": [{"open_start": 0.0, "tau_open": 0.2, "alignment": "uniform", "target": "hard"}],
    "crmatch": [{"w_rotation": 0.0}, {"w_distance": 0.0}],
    "fixmatch": [
        {"temperature": 0.5},
        {"temperature": 0.5, "target": "soft"},
        {"temperature": 0.3, "loss_temperature": 0.4},
        {"anchoring": "strong.weak", "teacher": "ema-batch", "target": "soft"},
        {"imbalance": Imbalance("adjust")},
        {"imbalance": Imbalance("reweight", scale="largest"), "missing": Missing("cadr", weighting="weighted")},
        {"imbalance": Imbalance("abc"), "missing": Missing("cap", weighting="weighted")},
        {"imbalance": Imbalance("abc", target="hard", masks="expected", reach="head"), "openset": OpenSet("energy")},
        {"imbalance": Imbalance("darp", start=0.0, every=1), "tau": 0.8},
        {"imbalance": Imbalance("daso", start=0.0, every=1, queue=2)},
        {"imbalance": Imbalance("debiased", momentum=0.5), "missing": Missing("cai")},
        {"imbalance": Imbalance("saw", every=2)},
        {"imbalance": Imbalance("tras", start=0.0)},
        {"imbalance": Imbalance("cossl"), "openset": OpenSet("confidence")},
        {"imbalance": Imbalance("adsh", every=2)},
        {"imbalance": Imbalance("crest", strength=0.5, momentum=0.5)},
        {"openset": OpenSet("energy")},
        {"openset": OpenSet("confidence", by="percentile", share=0.3, use="weight")},
        {"openset": OpenSet("energy", by="value", threshold=1.2), "missing": Missing("cap", weighting="weighted")},
        {"openset": OpenSet("ova", start=0.0, momentum=0.5)},
    ],
}
"""What the values of single options, below, leave out."""
assert COMBINATIONS.keys() <= ALGORITHMS.keys()


WITH: dict[tuple[str, str], dict[str, Any]] = {
    ("cadr", option): {"missing": Missing("cadr", weighting="weighted")} for option in ("teacher", "bn")
}
"""What a choice of an algorithm needs beside it: other weights, where the weak views have no gradient."""

START_LOW = {"flexmatch", "freematch", "softmatch", "dash", "cgmatch", "regmixmatch"}


def starts_low(config: Any) -> bool:
    """Whether its thresholds grow from low values as the training goes on, or it has a warm-up, so that in its first
    steps every image counts."""
    return config.name in START_LOW or getattr(config, "flexible", False)


UNSURE = {"freematch,clip=thresholds"}
"""Whose thresholds no toy image reaches."""

CLASS_LAYERS = ("net.linear", "heads.shrink.6", "heads.balanced", "heads.pairs", "heads.open")
"""Linear layers whose outputs are classes, some times over, and perhaps one that is of none."""

OF_CLASSES = ("select.last", "align.labels", "gaps.past.labels", "openset.guess")
"""Buffers whose values are classes, or -1 for none."""

CLASSES_FIRST = ("imbalance.labeled.rows",)
"""Buffers with a row for each class."""


class Case(NamedTuple):
    name: str
    config: Any
    """One of the union."""


def choices(cls: Any) -> list[dict[str, Any]]:
    """Each value of each option that is a choice, other than the default."""
    found = []
    for field in dataclasses.fields(cls):
        hint = get_type_hints(cls)[field.name]
        values = (True, False) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        found += [{field.name: value} for value in values if value != field.default]
    return found


def quick(cls: Any, **options: Any) -> Any:
    known = {field.name for field in dataclasses.fields(cls)}
    own = QUICK_OF.get(cls.name, {})
    return cls(**{name: value for name, value in QUICK.items() if name in known} | own | options)


def cases(options: Callable[[type], list[dict[str, Any]]]) -> list[Case]:
    found = []
    for name, cls in ALGORITHMS.items():
        for changes in options(cls):
            words = [f"{key}={getattr(value, 'name', value)}" for key, value in changes.items()]
            needed = {k: v for option in changes for k, v in WITH.get((name, option), {}).items()}
            found.append(Case(",".join([name, *words]), quick(cls, **changes, **needed)))
    return found


MAIN = cases(lambda cls: [{}])
"""Each algorithm once."""

COMBINED = cases(lambda cls: COMBINATIONS.get(cls.name, []))
"""Each of the combinations."""

CASES = MAIN + cases(choices) + COMBINED
"""Each algorithm, with each of its choices, and with the combinations."""

EVERY = [pytest.param(case, id=case.name, marks=[] if case in MAIN else [pytest.mark.slow]) for case in CASES]
"""The same as parameters of a test; all but each algorithm once are slow together."""


def uratio(config: Any) -> int:
    """How many unlabeled images the algorithm can have for each labeled one: 3, or only 1."""
    try:
        config.build(info(4, 12))
    except ValueError:
        return 1
    return 3


def info(batch: int = 4, unlabeled: int = 12, steps: int = 10) -> Info:
    return Info(K, SHAPE, PlainNet.dim, torch.full((K,), 4), 100, steps, batch, unlabeled)


class PlainNet(nn.Module):
    """A net without batch statistics: what it says about an image does not depend on the others."""

    dim = 12

    def __init__(self, classes: int = K, channels: int = SHAPE[0]) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, self.dim, 3, stride=2)
        self.body = nn.Sequential(first, nn.GELU(), second, nn.GELU())
        self.linear = nn.Linear(self.dim, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))

    def head(self, f: Tensor) -> Tensor:
        return self.linear(f)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def opinionated(seed: int = 0) -> PlainNet:
    """A net that is sure of some images and not of others."""
    return copy.deepcopy(_opinionated(seed))


@functools.cache
def _opinionated(seed: int) -> PlainNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = PlainNet()
        with torch.no_grad():
            net.linear.weight.normal_(0, 5)
            net.linear.bias.zero_()
            net.linear.bias -= net(torch.randn(200, *SHAPE)).mean(0)
    return net


def build(config: Any, told: Info) -> Algorithm:
    """The algorithm, the heads that it asks for always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return config.build(told).train()


def with_heads(net: nn.Module, algorithm: Algorithm) -> Model:
    """The net as the algorithm sees it, with heads as it asks for."""
    return Model(net, copy.deepcopy(dict(algorithm.heads)), algorithm.rule)


def make_batch(algorithm: Algorithm, rows: int, unlabeled: int, seed: int = 0, progress: float = 0.5) -> Batch:
    """Noise; the views of an image resemble each other."""
    g = torch.Generator().manual_seed(seed)

    def look(n: int, views: tuple[str, ...]) -> tuple[Tensor, ...]:
        images = torch.randn(n, *SHAPE, generator=g)
        return tuple(images + 0.3 * torch.randn(n, *SHAPE, generator=g) for _ in views)

    x, u = look(rows, algorithm.views.labeled), look(unlabeled, algorithm.views.unlabeled)
    y = torch.randperm(max(rows, K), generator=g)[:rows] % K
    index = torch.arange(unlabeled if u else 0)
    return Batch(x, y, u, index, torch.tensor(progress), Rng(seed, 5), torch.arange(len(y)))


@functools.cache
def toy() -> fl.Source:
    """Stripes along, stripes across and a chess board, at random places, under noise; 150 test images."""
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:8, :8]

    def draw(n: int) -> tuple[Any, Any]:
        labels = np.arange(n) % K
        images = []
        for label in labels:
            i, j = rows + chance.integers(4), columns + chance.integers(4)
            pattern = (i // 2 % 2, j // 2 % 2, (i // 2 + j // 2) % 2)[label]
            clean = 128 + 60 * chance.uniform(0.5, 1.0, 3) * (2 * pattern - 1)[:, :, None]
            images.append(np.clip(clean + chance.normal(0, 60, (8, 8, 3)), 0, 255).astype(np.uint8))
        return np.stack(images), labels

    return fl.from_arrays(*draw(300), *draw(150))


def toy_teacher() -> str:
    """A run on the labels of `toy` alone, of the net that is built at present."""
    return _toy_teacher(nets.build)


@functools.cache
def _toy_teacher(build: Any) -> str:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    train = toy_training(fl.Supervised(), steps=60, log_every=60)
    with mock.patch.dict(os.environ):
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # each rank makes its own
            os.environ.pop(name, None)
        return str(fl.train(train, out=f"{folder.name}/teacher", source=toy(), output=QUIET).path)


class Killed(Exception):
    pass


def killed_in(step: int, train: Train, out: Path) -> fl.Run:
    """A training on `toy` that dies when it begins that step, counted from 0."""
    original = Trainer.step

    def step_or_die(self: Trainer, number: int) -> None:
        if number == step:
            raise Killed
        original(self, number)

    with mock.patch.object(Trainer, "step", step_or_die), pytest.raises(Killed):
        fl.train(train, out=out, source=toy(), output=QUIET)
    return fl.Run(out)


QUIET = Output(report=False)
"""Of trainings whose report nobody reads, which takes as long as some of their steps."""


def toy_training(config: Any, **changes: Any) -> Train:
    """A training on 12 labels of `toy`; one that has no teachers and needs some gets `toy_teacher`."""
    if isinstance(config, fl.SelfTraining) and not config.teachers:
        config = dataclasses.replace(config, teachers=(toy_teacher(),))
    train = Train(
        algorithm=config,
        data=fl.Data("arrays", labels=12),
        net=fl.Net("small-8"),
        optim=fl.Optim(lr=0.1),
        ema=fl.Ema(decay=0.9, warmup=True, buffers="averaged"),
        batch=6,
        uratio=uratio(config),
        steps=8,
        weak="s",
        shift=1,
        strong="affine",
        eval_every=1000,
        save_every=1000,
        log_every=1,
    )
    return dataclasses.replace(train, **changes)
