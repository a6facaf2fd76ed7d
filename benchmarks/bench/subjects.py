"""What is measured: photographs, trainings on them, and a net that leaves the time to everything else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.algorithms import FixMatch
from fewlabels.algorithms.consistency import Passes
from fewlabels.config.resolve import pixel_statistics, resolve
from fewlabels.config.settings import Data, Ema, Net, Train
from fewlabels.data.source import Images, Source, Style
from fewlabels.data.split import make_split
from fewlabels.training.step import Trainer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
"""CIFAR-10's, so that floats have the usual range."""
CLASSES = 10
STEPS = 2**20
"""Of the papers' trainings."""


@lru_cache(maxsize=2)
def photos(count: int, side: int) -> Images:
    """Squares cut from the two photographs that ship with scikit-learn, uint8 ``[count, side, side, 3]``.

    Beyond 4,096 they repeat.
    """
    from sklearn.datasets import load_sample_images  # here: importing it takes longer than some of the measurements

    random = np.random.default_rng(0)
    pictures = load_sample_images().images
    out = np.empty((count, side, side, 3), np.uint8)
    made = min(count, 4096)
    for row in range(made):
        picture = pictures[row % 2]
        coarse = 1 + row % 2  # every pixel, or every second one
        room = np.array(picture.shape[:2]) - coarse * side
        y, x = random.integers(0, room + 1)
        out[row] = picture[y : y + coarse * side : coarse, x : x + coarse * side : coarse]
    for start in range(made, count, made):
        part = out[start : start + made]
        part[:] = out[: len(part)]
    return out


def source(count: int, side: int = 32) -> Source:
    """`photos` as a data set of ten classes, 25 labels each to be taken."""
    images = photos(count, side)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    style = Style(shift=round(side / 8), mean=MEAN, std=STD)
    test = min(count, 256)
    return Source("photos", tuple(map(str, range(CLASSES))), images, labels, images[:test], labels[:test], style)


class TinyNet(nn.Module):
    """Two convolutions with strides of 4 and 2: next to no work, so that the data takes most of a usual step.

    5,466 parameters at 10 classes. Beside it Pillow's views take about twelve times as long on one core, as beside
    a real net on a fast GPU with a few workers.
    """

    def __init__(self, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.dim = 32
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
        )
        self.linear = nn.Linear(32, classes)

    def features(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.body(x).mean((2, 3))
        return pooled

    def head(self, f: Tensor) -> Tensor:
        logits: Tensor = self.linear(f)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@dataclass(frozen=True)
class _Tiny(Net):
    def build(self, classes: int, shape: tuple[int, int, int], *, blank: bool = False) -> nn.Module:
        return TinyNet(classes, shape[0])


def net(name: str) -> Net:
    """The net of a configuration; `tiny` is `TinyNet`."""
    return _Tiny("tiny") if name == "tiny" else Net(name)


def config(name: str, *, bn: Passes = "joint", **settings: Any) -> Train:
    """FixMatch as in the papers; every pseudo-label counts, so that numbers can be compared from the first step.

    settings: further fields of `Train`.
    """
    algorithm = FixMatch(tau=0.0, bn=bn)
    return Train(algorithm=algorithm, data=Data("photos"), net=net(name), ema=Ema(decay=0.999), **settings)


def trainer(train: Train, images: Source, device: torch.device) -> Trainer:
    """A training on `images` with 250 labels, or as many as there are."""
    train = resolve(train, images)
    labels = min(250, len(images.labels))
    mean, std = pixel_statistics(train, images)
    return Trainer(train, images, make_split(images, labels=labels, seed=1), device=device, mean=mean, std=std)
