"""`bench data`: a labeled and an unlabeled batch on the device, from DataLoaders with workers and from ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import lcm
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from bench import pillow, subjects
from bench.measure import Work, alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from bench.step import Batches
from fewlabels.runtime.checked import Range

WITHOUT = "DataLoader, 0 workers"
OURS = "fewlabels"


@dataclass(frozen=True, kw_only=True)
class Data(Options):
    """Seconds until a labeled and an unlabeled batch lie on the device: DataLoaders with Pillow, and ours."""

    rounds: Annotated[int, Range(1, None)] = 5
    """Counted rounds."""
    batch: Annotated[int, Range(1, None)] = 64
    """Labeled images of a batch."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    check: Annotated[int, Range(1, None)] = 500
    """Random sequences that are compared with Pillow first."""
    workers: tuple[int, ...] = ()
    """Worker counts of each DataLoader; default: 0, 1, 2 and all cores."""


class Loaders:
    """The two DataLoaders of the usual code, each with its own workers; a call brings one batch of each.

    `begin` starts the workers and takes the first batch, so that a block of calls, a multiple of the number of
    workers, sees the rate at which they keep on delivering.
    """

    def __init__(self, options: Data, workers: int, device: torch.device) -> None:
        images = subjects.photos(4096, options.side)
        shared: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda", "drop_last": True}
        self.device = device
        self.loaders = []
        for preset, size in ((None, options.batch), (pillow.POLICIES["kekmodel"], options.batch * options.uratio)):
            data = pillow.Pairs(images, preset, subjects.MEAN, subjects.STD)
            sampler = RandomSampler(data, replacement=True, num_samples=size * 100_000)
            self.loaders.append(DataLoader(data, batch_size=size, sampler=sampler, **shared))
        self.iterators: list[Iterator[Any]] = []

    def begin(self) -> None:
        self.iterators = [iter(loader) for loader in self.loaders]
        if any(loader.num_workers for loader in self.loaders):
            self()

    def end(self) -> None:
        self.iterators = []  # ends the workers

    def __call__(self) -> list[Tensor]:
        x, (weak, strong) = (next(iterator) for iterator in self.iterators)
        return [t.to(self.device, non_blocking=True) for t in (x, weak, strong)]


def run(options: Data, stages: Stages) -> Result:
    """Pixels first. In processor time against the loader without workers, on the wall against all of them."""
    device = options.prepare()
    cores = os.cpu_count() or 1
    workers = sorted(set(options.workers or (0, 1, 2, cores)))
    images = subjects.photos(4096, options.side)
    with stages("comparing with Pillow") as tick:
        policy = pillow.POLICIES["kekmodel"]
        exact = pillow.check("kekmodel", policy, images, device, count=options.check, tick=tick)
    train = subjects.config("tiny", batch=options.batch, uratio=options.uratio, device=options.device)
    ours = Batches(subjects.trainer(train, subjects.source(4096, options.side), device))
    with stages("timing without workers") as tick:
        candidates: dict[str, Work] = {WITHOUT: Loaders(options, 0, device), OURS: ours}
        alone = alternate(candidates, rounds=options.rounds, device=device, basis="cpu", even=True, tick=tick)
    block = lcm(*(w for w in workers if w), 1)
    with stages("timing with workers") as tick:
        several: dict[str, Work] = {f"DataLoader, {w} workers": Loaders(options, w, device) for w in workers}
        several[OURS] = ours
        wall = alternate(several, rounds=options.rounds, device=device, basis="wall", repeats=block, tick=tick)
    shown = {w: wall.ratio(OURS, f"DataLoader, {w} workers").median for w in workers}
    return result(
        "data",
        device,
        asdict(options),
        worst(alone.control, wall.control),
        exact=exact,
        ratio=alone.ratio(OURS).median,
        ratio_by_workers={str(w): r for w, r in shown.items()},
        processor={**alone.as_json()},
        wall={**wall.as_json()},
    )
