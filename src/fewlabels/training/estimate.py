"""The cost of a training, measured on a few small steps: parameters, memory, time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from fewlabels import nets
from fewlabels.config.resolve import load_source, options_of, pixel_statistics, resolve, resolve_data, split_of
from fewlabels.config.settings import Data, Train
from fewlabels.data import names
from fewlabels.data.imagenets import FOLDERS
from fewlabels.data.protocol import Options
from fewlabels.data.residency import choose
from fewlabels.data.source import FACTS, OnDemand, Source, Style
from fewlabels.data.split import make_split, read_split
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.words import about, amount
from fewlabels.training import curriculum
from fewlabels.training.step import Trainer, parameters

SAMPLE = 48
"""Images of a measured step on the CPU, about; a GPU measures whole steps."""

QUICK = 0.3
"""Seconds of a pass with a few images, below which so many are too few for a measurement."""


class Estimate(NamedTuple):
    """The cost of a training on this machine."""

    config: Train
    """Resolved."""
    lines: dict[str, str]
    """A sentence each for data, net, step, memory, images and time."""
    seconds: float
    """Of the whole training, without the evaluations."""


def estimate(config: Train) -> Estimate:
    """The cost of a training, from a few steps on noise; own pictures and the digits are read, other sets are not.

    Raises ValueError where the settings fit neither each other nor the data.
    """
    config.net.check()
    config = replace(config, data=resolve_data(config.data))
    name = names.parse(config.data.name)
    facts = FACTS.get(name.base)
    tests = ""
    if facts is None or name.folder or name.base == "digits":
        source = load_source(config.data)
        shape, classes, style = source.shape, len(source.classes), source.style
        images, test, files = len(source.images), len(source.test_images), isinstance(source.images, OnDemand)
        split = split_of(config.data, source)
        counts = _counts(len(split.labeled), len(split.unlabeled))
    else:
        shape, classes, style = facts.shape, facts.classes, facts.style
        if side := config.data.image_size:
            shape = shape[0], side, side
        images, test, files = facts.train, facts.test, name.base in FOLDERS
        counts = _counts_by_name(config.data, facts.train)
        if config.data.imbalance_test is not None:
            tests = f"some of {test:,} test images"
    device = pick_device(config.device)
    trainer, used, seconds = _measured(config, _noise(name.base, shape, classes, style), device)
    seconds *= curriculum.work(config, trainer.algorithm.views)
    most = getattr(config.algorithm, "most", None)
    looked = test + (images if most is None else min(images, most + (config.data.labels or 0)))
    whole = seconds * config.steps if config.steps else _seconds_of_features(trainer) * looked
    still = sum(p.numel() for p in trainer.objective.parameters() if not p.requires_grad)
    weights = 16 * parameters(trainer.objective) + 4 * still
    learning = f"{parameters(trainer.model.net):,} parameters" + (f" that learn, beside {still:,}" if still else "")
    wanted = "stream" if config.data.crop != "none" else config.data.residency
    where = choose(wanted, images + test, shape, device, files=files)
    pixels = where.needed if where.kind == "device" else 0
    views = trainer.algorithm.views
    each = config.batch * len(views.labeled), config.batch * config.uratio * len(views.unlabeled)
    kept = {k: getattr(trainer.config, k) for k in ("weak", "strong", "shift")}
    form = "x".join(map(str, shape))
    lines = {
        "data": f"{config.data.name}: {counts} of {form}, {classes} classes, {tests or f'{test:,} test images'}",
        "net": f"{config.net.name}, {learning}",
        "step": f"{config.batch * (1 + config.uratio * bool(views.unlabeled))} images, "
        f"{each[0]} labeled and {each[1]} unlabeled views",
        "memory": f"about {amount(used + weights + pixels)} on {device}, beside the program itself: {amount(pixels)} "
        f"images, {amount(weights)} weights and optimizer, {amount(used)} activations",
        "images": str(where).removeprefix("images "),
        "time": f"about {about(whole)} for {config.steps:,} steps without the evaluations "
        f"({1000 * seconds:.0f} ms each, from a sample)"
        + ("; --time 10m would take as many as fit into that" if whole > 1200 else "")
        if config.steps
        else f"about {about(whole)} for the features of {looked:,} images that are not kept from before "
        f"({1000 * whole / looked:.1f} ms each, from a sample)",
    }
    return Estimate(replace(config, **kept), lines, whole)


def _counts(labeled: int, unlabeled: int) -> str:
    return f"{labeled:,} labeled and {unlabeled:,} unlabeled images"


def _counts_by_name(data: Data, images: int) -> str:
    """Labeled and unlabeled images of a set that is not read, as far as they follow from its size.

    images: training images; data: resolved.
    """
    if data.split is not None:  # which may have more labels than its rule picked
        split = read_split(data.split)
        return _counts(len(split.labeled), len(split.unlabeled))
    known = images if names.parse(data.name).base != "stl10" else None  # most images of which have no label
    labeled = data.labels or (known and known - (data.valid or 0))
    plain = options_of(data) == Options() and data.rule in ("fixmatch", "balanced")
    overlap = data.unlabeled == "rest" and data.valid  # of validation and labels, which may have images in common
    if labeled is None or not plain or overlap:
        what = "all" if data.labels is None else f"{data.labels:,}"
        largest = " of the largest class" if data.imbalance is not None else ""
        return f"{what} labels{largest} and the unlabeled images of the rule {data.rule}, out of {images:,} images"
    unlabeled = images - (data.valid or 0) - labeled * (data.unlabeled == "rest")
    return _counts(labeled, unlabeled)


def _noise(name: str, shape: tuple[int, int, int], classes: int, style: Style) -> Source:
    """Noise images in place of the set `name`, four of each class; one of large ones, if there are many classes."""
    channels, height, width = shape
    rng = np.random.default_rng(0)
    count = classes * (4 if classes * height * width <= 2**24 else 1)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    labels = np.arange(count) % classes
    return Source(
        name,
        tuple(map(str, range(classes))),
        images,
        labels,
        images[:0],
        labels[:0],
        style,
    )


def _measured(config: Train, source: Source, device: torch.device) -> tuple[Trainer, int, float]:
    """A trainer; bytes of the activations of a whole step, and its seconds, from steps with fewer images on the CPU."""
    if device.type != "cpu":
        trainer, share = _trainer(config, source, device, config.batch, config.uratio)
        return trainer, _activations(trainer, share), _seconds(trainer, share)
    unit = 4 if config.batch % 4 == 0 else 1
    trainer, share = _trainer(config, source, device, unit, 1)
    start = time.perf_counter()
    used = _activations(trainer, share)
    if time.perf_counter() - start > QUICK:
        return trainer, used, _seconds(trainer, share, steps=1)
    batch = -(-SAMPLE // (1 + 2 * config.uratio) // unit) * unit
    trainer, share = _trainer(config, source, device, min(config.batch, batch), config.uratio)
    return trainer, _activations(trainer, share), _seconds(trainer, share)


def _trainer(config: Train, source: Source, device: torch.device, batch: int, uratio: int) -> tuple[Trainer, float]:
    """A trainer with another batch, and how many of its steps have as many images as a real one."""
    data = replace(config.data, residency="device", crop="none")
    few = replace(
        curriculum.without(config),
        steps=max(1, config.steps),
        batch=batch,
        uratio=uratio,
        accumulate=1,
        compile=False,
    )
    small = replace(resolve(few, source), data=data)
    split = make_split(source, labels=None, seed=1)
    mean, std = pixel_statistics(config, source)
    trainer = Trainer(small, source, split, device=device, mean=mean, std=std, blank=True)
    views = trainer.algorithm.views

    def images(train: Train) -> int:
        return train.batch * (len(views.labeled) + train.uratio * len(views.unlabeled))

    return trainer, images(config) / images(small)


def _activations(trainer: Trainer, share: float) -> int:
    """Bytes that the backward pass keeps, scaled to the whole batch."""
    batch = trainer.batch(0)
    losses, used = nets.kept(lambda: trainer.objective(batch, trainer.average.model), trainer.objective.parameters())
    losses.total.backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return int(used * share)


def _seconds_of_features(trainer: Trainer) -> float:
    """Seconds for the features of one image."""
    store = trainer.batches.store
    rows = torch.arange(min(8, len(store)), device=store.rows_device)
    model, normalize = trainer.model.twin().eval(), trainer.batches.normalize
    with torch.no_grad():
        for _ in range(2):  # the first is a warm-up
            start = time.perf_counter()
            model.features(normalize(store.take(rows)))
            if trainer.device.type == "cuda":
                torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(rows)


def _seconds(trainer: Trainer, share: float, steps: int = 3) -> float:
    """Seconds of one whole step: the fastest of some, several of which have a warm-up before them."""
    best = float("inf")
    for step in range(steps + (steps > 1)):
        start = time.perf_counter()
        trainer.step(step)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        if step or steps == 1:
            best = min(best, time.perf_counter() - start)
    return best * share
