"""What makes steps faster leaves the training what it is, and every switch resumes with the same bits."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from bench import subjects
from fewlabels.runs.run import Run
from fewlabels.training.loop import Output

SWITCHES: dict[str, dict[str, Any]] = {
    "stratified": {"stratified": True, "strong": "rand:kekmodel"},
    "separate weak": {"algorithm": fl.FixMatch(bn="separate-weak")},
    "bfloat16": {"precision": "bf16"},
    "adam": {"optim": fl.Optim(name="adam", lr=1e-3)},
    "cta": {"strong": "cta"},
}


def without_the_end(run: Run, step: int, path: Path) -> Path:
    """A copy of a run as it was when the checkpoint of `step` had been written."""
    shutil.copytree(run.path, path)
    (path / "result.json").unlink()
    for checkpoint in Run(path).checkpoints():
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)
    return path


def weights(run: Run) -> bytes:
    return (run.checkpoint().path / "weights.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_resumed_with_a_switch(short: Callable[..., Any], tmp_path: Path, name: str) -> None:
    run = fl.train(short(**SWITCHES[name]), out=tmp_path / "whole")
    again = fl.resume(without_the_end(run, 8, tmp_path / "again"))
    assert again.checkpoint().step == 12 and weights(again) == weights(run)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_step_is_the_plain_one() -> None:
    """From the same state in each of 50 steps; alone, two trainings drift apart, as any rounding makes them."""
    settings: dict[str, Any] = {"batch": 4, "uratio": 2, "device": "cpu", "steps": 50}
    images, cpu = subjects.source(300, 16), torch.device("cpu")
    plain, fast = (
        subjects.trainer(subjects.config("tiny", compile=on, **settings), images, cpu) for on in (False, True)
    )
    loss = weight = 0.0
    for step in range(50):
        fast.load(plain.weights(), copy.deepcopy(plain.state()))
        for one in (plain, fast):
            one.step(step)
        a, b = plain.read_log()["loss"], fast.read_log()["loss"]
        loss = max(loss, abs(a - b) / a)
        p, q = (torch.cat([w.flatten() for w in one.model.parameters()]) for one in (plain, fast))
        weight = max(weight, ((p - q).abs().max() / p.abs().max()).item())
    assert 0 < loss < 1e-5 and 0 < weight < 1e-5, (loss, weight)  # 0 would mean that nothing was compiled


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_resumed_with_a_compiled_net(short: Callable[..., Any], tmp_path: Path) -> None:
    said: list[str] = []
    output = Output(say=said.append)
    run = fl.train(short(compile=True), out=tmp_path / "whole", output=output)
    assert sum(text.startswith("the first step, with its compilation, took ") for text in said) == 1
    again = fl.resume(without_the_end(run, 8, tmp_path / "again"))
    assert again.checkpoint().step == 12 and weights(again) == weights(run)
