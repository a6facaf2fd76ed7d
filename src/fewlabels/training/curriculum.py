"""What the first steps of a training have less of than the later ones: pixels, and unlabeled images."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels import nets
from fewlabels.config.settings import Curriculum, Train, algorithm_name
from fewlabels.types import Views

GROWS = 0.5
"""Share of the steps over which the unlabeled images of a step become more."""

SAMPLES = 1000
"""Steps, evenly spaced, whose work stands for that of all."""


def uratio(config: Train, step: int) -> int:
    """Unlabeled images per labeled one in step `step`, counted from 0."""
    first = config.curriculum.uratio
    if first is None:
        return config.uratio
    return first + int((config.uratio - first) * min(1.0, step / max(1.0, GROWS * config.steps)))


def halved(config: Train, step: int) -> bool:
    """Whether the net sees views of half the height and width in step `step`."""
    return step < config.curriculum.half_size * config.steps


def check(config: Train, net: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises ValueError where `net`, for images of `shape` (C, H, W), does not take those of half the height and width
    that it is to be shown, or the algorithm wants maps of one size."""
    if not config.curriculum.half_size:
        return
    _, height, width = shape
    if getattr(config.algorithm, "on_maps", False) and nets.map_size(net, shape):
        raise ValueError(
            f"Curriculum.half_size {config.curriculum.half_size:g} is not for {algorithm_name(config.algorithm)}, "
            "which has a layer on maps of one size"
        )
    weight, training = next(net.parameters()), net.training
    try:
        with torch.no_grad():
            net.eval()(shrunk(torch.zeros(1, *shape, device=weight.device)))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"Curriculum.half_size {config.curriculum.half_size:g} shows the net images of {height // 2} x "
            f"{width // 2} pixels, which {config.net.name!r} does not take"
        ) from error
    finally:
        net.train(training)


def without(config: Train) -> Train:
    """The settings with all of the work from the first step on, which `work` says the share of."""
    return replace(config, curriculum=Curriculum())


def shrunk(images: Tensor) -> Tensor:
    """Images ``[N, C, H, W]`` of half the height and width, ``[N, C, H // 2, W // 2]``, each pixel the mean of four."""
    return F.avg_pool2d(images, 2)


def work(config: Train, views: Views, first: int = 0, stop: int | None = None) -> float:
    """Work of the steps from `first` to before `stop` as a share of that of as many steps without a curriculum, by the
    images and pixels that the net sees."""
    stop = config.steps if stop is None else stop
    labeled, unlabeled = len(views.labeled), len(views.unlabeled)
    whole = labeled + unlabeled * config.uratio
    count = min(SAMPLES, max(1, stop - first))
    steps = [first + i * max(1, stop - first) // count for i in range(count)]
    shares = (
        (labeled + unlabeled * uratio(config, step)) / whole / (4 if halved(config, step) else 1) for step in steps
    )
    return sum(shares) / count
