"""What test_distributed.py compares: run by two ranks, and by the test in one process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fewlabels as fl
from algorithm_cases import CASES, MAIN, QUIET, opinionated, quick, toy, toy_training
from compositions import Contrast
from fewlabels import cli, nets
from fewlabels.algorithms import FixMatch, Missing, shrinkmatch
from fewlabels.config.resolve import in_memory, resolve, split_of
from fewlabels.config.settings import Train
from fewlabels.runtime import parallel
from fewlabels.training.step import Trainer

STEPS = 6


def without_statistics(name: str, **settings: Any) -> Any:
    return opinionated()


@contextlib.contextmanager
def without_norm() -> Iterator[None]:
    build, nets.build = nets.build, without_statistics
    norm, shrinkmatch.Norm = shrinkmatch.Norm, nn.Identity  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        nets.build, shrinkmatch.Norm = build, norm  # type: ignore[misc]


def config(name: str, **changes: Any) -> Train:
    train = fl.recipe(name, "digits@40")
    every = {"eval_every": 10, "save_every": 10, "log_every": 1}
    small = replace(train, net=fl.Net("small-4"), optim=fl.Optim(lr=0.2), steps=STEPS, batch=8, uratio=1, **every)
    return replace(small, **changes)


SHORT: dict[str, Any] = {"steps": STEPS, "optim": fl.Optim(lr=0.01)}  # no rounding grows into a difference
with without_norm():  # which the teachers have not, either
    SAME: dict[str, Train] = {case.name: toy_training(case.config, **SHORT) for case in MAIN}
SAME["cta"] = replace(SAME["fixmatch"], strong="cta")
SAME["contrast"] = toy_training(Contrast(tau=0.42), **SHORT)  # some guesses count in each step
SAME["openset"] = replace(
    toy_training(fl.FixMatch(tau=0.42, openset=fl.OpenSet("energy", by="percentile", share=0.3, start=0.3)), **SHORT),
    uratio=10,
)
"""Trainings that must not depend on the number of ranks, without batch norm."""

OTHERS = [case for case in CASES if case not in MAIN and not case.name.endswith("copy_kind=stl-10")]  # of larger images
with without_norm():
    STEPPED: dict[str, Train] = {case.name: toy_training(case.config, **SHORT) for case in OTHERS}
"""The same of the other options; only their first steps are taken."""

MISSING: dict[str, Train] = {
    ",".join([f"missing={missing.name}", missing.weighting, missing.prior]): toy_training(
        quick(FixMatch, missing=missing), steps=20, optim=fl.Optim(lr=0.01)
    )
    for missing in (
        Missing("cap", momentum=0.5),
        Missing("cap", prior="batch"),
        Missing("cadr", momentum=0.5),
        Missing("cadr", momentum=0.5, weighting="weighted"),
        Missing("cap+dr", momentum=0.5, weighting="likelihood", prior="batch"),
    )
}
"""Weights of labeled images that are made from the guesses of all ranks, over more steps."""

NORM = config("remixmatch", net=fl.Net("small-4", dropout=0.2), steps=8, save_every=4, log_every=3)
"""A training with batch norm and dropout."""


def train_without_norm(folder: Path) -> None:
    with without_norm():
        for name, train in SAME.items():
            fl.train(train, out=folder / name, source=toy(), output=QUIET)


def train_bypasses(folder: Path, weights: Path) -> None:
    """LoRA beside the body in a file, from a head that is fitted to its features."""
    net = fl.Net("timm:test_vit", patch=4, pretrained=str(weights), train="lora", head="probe")
    config = toy_training(fl.FixMatch(tau=0.4), steps=STEPS, optim=fl.Optim(lr=0.1), net=net)
    fl.train(config, out=folder / "lora", source=toy(), output=QUIET)


def step_without_norm() -> dict[str, Any]:
    """Logged values, weights and algorithm's state after two steps of each of `STEPPED`, and all of `MISSING`."""
    after = {}
    with without_norm():
        for name, train in {**STEPPED, **MISSING}.items():
            config = resolve(replace(train, data=in_memory(train.data, toy())), toy())
            split = split_of(config.data, toy())
            cpu, half = torch.device("cpu"), (0.5,) * 3
            trainer = Trainer(config, toy(), split, device=cpu, mean=half, std=half)
            logs = []
            for step in range(train.steps) if name in MISSING else (1, STEPS - 1):
                trainer.step(step)
                logs.append(trainer.read_log())
            state = {**trainer.model.state_dict(), **trainer.algorithm.state_dict()}
            after[name] = {"logs": logs, "state": {k: v.clone() for k, v in state.items()}}
    return after


def said(*args: object) -> dict[str, Any]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run([str(a) for a in args])
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def batch_norm(folder: Path) -> None:
    """Leaves both ranks' nets, and a run that was rewound and resumed."""
    trainers: list[Trainer] = []
    make = Trainer.__init__

    def kept(self: Trainer, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        trainers.append(self)

    Trainer.__init__ = kept  # type: ignore[method-assign]
    fl.train(NORM, out=folder / "norm")
    Trainer.__init__ = make  # type: ignore[method-assign]
    torch.save({k: dict(v) for k, v in trainers[0].weights().items()}, folder / f"norm{parallel.rank()}.pt")
    if parallel.rank() == 0:
        shutil.copytree(folder / "norm", folder / "resumed")
        (folder / "resumed" / "result.json").unlink()
        shutil.rmtree(folder / "resumed" / "checkpoints" / "step-00000008")
    parallel.barrier()
    fl.resume(folder / "resumed")


def commands(folder: Path) -> dict[str, Any]:
    """What this rank says on the command line."""
    small = "--data digits@40 --net small-4 --batch 4 --uratio 1 --steps 40 --log-every 5 --no-baseline --no-progress"
    options = ["train", *small.split(), "--out"]
    answers = {
        "trained": said(*options, folder / "trained"),
        "exists": said(*options, folder / "trained"),
        "odd": said(*options, folder / "odd", "--batch", 5),
        "diverged": said(*options, folder / "diverged", "--optim.lr", "1e30"),
    }
    step = Trainer.step

    def interrupted(self: Trainer, number: int) -> None:
        step(self, number)
        if number == 3 and parallel.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    Trainer.step = interrupted  # type: ignore[method-assign]
    answers["stopped"] = said(*options, folder / "stopped")
    Trainer.step = step  # type: ignore[method-assign]
    return answers


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with parallel.session("cpu"):
        train_without_norm(folder)
        train_bypasses(folder, folder / "body.safetensors")
        torch.save(step_without_norm(), folder / f"stepped{parallel.rank()}.pt")
        batch_norm(folder)
        answers = commands(folder)
    (folder / f"answers{os.environ['RANK']}.json").write_text(json.dumps(answers))
