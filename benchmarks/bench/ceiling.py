"""`bench ceiling`: what the device can do, and how near a training step comes to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch

from bench import pillow, subjects, work
from bench.augment import one_by_one, pairs
from bench.measure import Timings, Work, alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from bench.step import Ours, fixed
from fewlabels.runtime.checked import Range


@dataclass(frozen=True, kw_only=True)
class Ceiling(Options):
    """What the device can do: copies, matrix products, launches, images of a core; the floor of a step."""

    rounds: Annotated[int, Range(1, None)] = 5
    """Counted rounds."""
    net: str = "wrn-28-2"
    """The network, or `tiny`."""
    batch: Annotated[int | None, Range(1, None)] = None
    """Labeled images of a step; default: 64 on a GPU, 4 on the CPU."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    matrix: Annotated[int | None, Range(16, None)] = None
    """Side of the matrices that are multiplied; default: 8192 on a GPU, 1024 on the CPU."""
    megabytes: Annotated[int | None, Range(1, None)] = None
    """Size of what is copied; default: 2048 on a GPU, 256 on the CPU."""
    compile: bool = False
    """Compile the net for the step that is compared with the floor."""


def run(options: Ceiling, stages: Stages) -> Result:
    """Rates, the floor of the configuration at these rates, and the share of it that our step reaches."""
    device = options.prepare()
    cuda = device.type == "cuda"
    batch, repeats = options.batch or (64 if cuda else 4), 20 if cuda else 1
    settings: dict[str, Any] = {"batch": batch, "uratio": options.uratio, "device": options.device}
    train = subjects.config(options.net, compile=options.compile, **settings)
    trainer = subjects.trainer(train, subjects.source(4096, options.side), device)
    fixed(trainer, 4)
    low = trainer.dtype is not None
    side = options.matrix or (8192 if cuda else 1024)
    size = (options.megabytes or (2048 if cuda else 256)) * 2**20

    def go(candidates: dict[str, Work], title: str, repeats: int = 1) -> Timings:
        with stages(title) as tick:
            return alternate(candidates, rounds=options.rounds, device=device, repeats=repeats, tick=tick)

    copies = go({"copy": _copy(size, device)}, "copying")
    products = go({"matrix product": _product(side, device, low)}, "multiplying matrices")
    launches = go({"launches": _launches(device)}, "launching") if cuda else None
    images = subjects.photos(4096, options.side)
    policy = pillow.POLICIES["kekmodel"]
    loaders = {
        "Pillow": one_by_one(pillow.Pairs(images, policy, subjects.MEAN, subjects.STD), 64, torch.device("cpu")),
        "fewlabels": pairs(images, policy, 448, torch.device("cpu")),
    }
    with stages("augmenting") as tick:
        rate = alternate(loaders, rounds=options.rounds, device=torch.device("cpu"), basis="cpu", tick=tick)
    steps = go({"step": Ours(trainer)}, "training", repeats)

    bandwidth = 2 * size / _fastest(copies)
    flops = 2 * side**3 / _fastest(products)
    seconds = steps.median("step")
    bytes_each = 2 if low else 4
    floors = []
    for separate in (False, True):
        count = work.step(trainer.model.net, trainer.shape, batch=batch, uratio=options.uratio, separate=separate)
        for compiled in (False, True):
            floors.append(
                {
                    "weak_without_gradient": separate,
                    "compiled": compiled,
                    "gflop": count.flops / 1e9,
                    "gigabytes": count.elements(compiled=compiled) * bytes_each / 1e9,
                    "seconds": count.seconds(flops, bandwidth, bytes_each=bytes_each, compiled=compiled),
                }
            )
    ours = next(f for f in floors if not f["weak_without_gradient"] and f["compiled"] == options.compile)
    runs = [t for t in (copies, products, launches, rate, steps) if t is not None]
    return result(
        "ceiling",
        device,
        {**asdict(options), "batch": batch, "matrix": side, "megabytes": size // 2**20},
        worst(*(t.control for t in runs)),
        bytes_per_second=bandwidth,
        flops=flops,
        precision=str(trainer.dtype or torch.float32),
        launches_per_second=1000 / _fastest(launches) if launches else None,
        pairs_per_second_per_core={
            "Pillow": 64 / rate.median("Pillow"),
            "fewlabels": 448 / rate.median("fewlabels"),
        },
        floors=floors,
        step_seconds=seconds,
        share_of_floor=ours["seconds"] / seconds,
        hours_for_2_20=subjects.STEPS * seconds / 3600,
        measured=[t.as_json() for t in runs],
    )


def _fastest(timings: Timings) -> float:
    """A ceiling is what was reached once."""
    return min(timings.seconds(timings.names[0]))


def _copy(size: int, device: torch.device) -> Work:
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.ones_like(a)
    return lambda: b.copy_(a)


def _product(side: int, device: torch.device, low: bool) -> Work:
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16 if low else torch.float32) for _ in range(2))
    return lambda: a @ b


def _launches(device: torch.device) -> Work:
    """A thousand kernels with next to nothing to do."""
    one = torch.zeros(1, device=device)
    return lambda: [one.add_(1) for _ in range(1000)]
