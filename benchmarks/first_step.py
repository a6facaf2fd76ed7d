"""Seconds from the command to the first step of a training, without and with the imports.

    ML_DATA=DIR python benchmarks/first_step.py cifar10.3@250-1 [--compile]

The second call finds the decoded images in the cache. Nothing is trained: the process ends after the first step.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from typing import Any

start = time.perf_counter()

import timm  # noqa: E402, F401
import torchvision  # noqa: E402, F401
from torch.utils.tensorboard import SummaryWriter  # noqa: E402, F401

from fewlabels.commands.train_options import read  # noqa: E402
from fewlabels.training.loop import train  # noqa: E402
from fewlabels.training.step import Trainer  # noqa: E402

imported = time.perf_counter()


class Done(Exception):
    pass


def main() -> None:
    step = Trainer.step

    def first(self: Trainer, number: int) -> None:
        begun = time.perf_counter()
        step(self, number)
        ended = time.perf_counter()
        print(f"imports {imported - start:.1f} s, then {begun - imported:.1f} s to the first step, which took ", end="")
        print(f"{ended - begun:.1f} s")
        raise Done

    changed: Any = Trainer
    changed.step = first
    config = read(["fixmatch", "--data", *sys.argv[1:]]).train
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
        train(config, out=f"{folder}/run")


if __name__ == "__main__":
    main()
