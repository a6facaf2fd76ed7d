"""What is about to be trained, in a few lines, and its settings in one."""

from __future__ import annotations

import torch

from fewlabels.config.departures import departures
from fewlabels.config.settings import Train, algorithm_name
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.runtime import ranks
from fewlabels.training.recorder import device_name
from fewlabels.training.step import Trainer, parameters
from fewlabels.training.switches import autotunes


def summary(
    trainer: Trainer, source: Source, split: Split, recipe: str | None, usual: Train | None = None
) -> list[str]:
    """What is about to be trained, in a few lines. recipe, usual: as of `settings`."""
    config, net = trainer.config, trainer.model.net
    channels, height, width = source.shape
    precision = str(trainer.dtype or torch.float32).removeprefix("torch.")
    work = f"{config.steps} steps of {trainer.images_per_step} images" if config.steps else "fitted without steps"
    return [
        f"{algorithm_name(config.algorithm)} on {config.data.name}: {len(split.labeled)} labeled and "
        f"{len(split.unlabeled)} unlabeled images of {channels}x{height}x{width}, {len(source.classes)} classes, "
        f"{len(source.test_labels)} test images",
        f"{config.net.name}, {parameters(net):,} parameters, {precision} on {device_name(trainer.device)}; {work}",
        *([_shares(trainer)] if trainer.world > 1 else []),
        settings(config, source, recipe, usual),
        str(trainer.batches.place),
        *([_switches(trainer)] if trainer.device.type == "cuda" else []),
    ]


def _shares(trainer: Trainer) -> str:
    """How the ranks share a batch."""
    machines, config = ranks.machines(trainer.world), trainer.config
    where = f"on {machines} machines" if machines > 1 else "on one machine"
    batches = [config.batch, *([config.batch * config.uratio] if trainer.algorithm.views.unlabeled else [])]
    whole, own = (" and ".join(str(n // share) for n in batches) for share in (1, trainer.world))
    what = "labeled and unlabeled images" if batches[1:] else "labeled images"
    return f"{trainer.world} processes {where}; a batch of {whole} {what}, {own} in each process"


def _switches(trainer: Trainer) -> str:
    """What makes the steps fast on a GPU."""
    config = trainer.config
    said = {
        "TF32": config.precision == "tf32",
        "cuDNN autotuning": autotunes(trainer),
        "compiled net": config.compile,
        "recorded step": config.graph,
    }
    switches = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in said.items())
    return f"{switches}; views by the way {trainer.batches.way!r}"


def settings(config: Train, source: Source, named: str | None = None, usual: Train | None = None) -> str:
    """The seeds, the recipe, and which of the settings are not the recipe's.

    config: resolved. named: the recipe of a project, where one was asked for. usual: what stands in place of a recipe
    for images in memory.
    """
    said, changes = departures(config, source, named, usual)
    other = ", ".join(f"{k}={v}" for k, v in changes.items())
    seeds = f"seed {config.seed}, split seed {config.data.seed}"
    return f"settings: {seeds}; {said}" + (f", but {other}" if other else "")
