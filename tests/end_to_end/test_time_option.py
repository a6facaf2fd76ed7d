"""`--time`: the run is the one that its steps alone give, bit for bit, and can be gone on with."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.training import loop
from fewlabels.training.budget import Budget, fit
from fewlabels.training.pace import Pace
from fewlabels.training.step import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

SMALL = ("--net", "small-4", "--batch", "4", "--no-progress")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Pace]:
    """The paces that were measured; the steps come from a stand-in: 20 of them."""
    found: list[Pace] = []

    def stand_in(config: fl.Train, paces: list[Pace], budget: Budget, spent: float) -> fl.Train:
        found.extend(paces)
        return fit(config, [Pace(2.4)], budget._replace(seconds=50))

    monkeypatch.setattr(loop, "fit", stand_in)
    return found


def weights(run: fl.Run) -> dict[str, torch.Tensor]:
    checkpoint, _, _ = run.newest_good()
    return {f"{which}.{k}": v for which in ("raw", "ema") for k, v in checkpoint.weights(which).items()}


def same(one: fl.Run, other: fl.Run) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_a_run_with_a_time_is_that_of_its_steps(
    command: Callable[..., Any], tmp_path: Path, measured: list[Pace]
) -> None:
    timed = command("train", "mixmatch", *SMALL, "--time", "1s", "--out", tmp_path / "timed")
    assert timed.code == 0, timed.err
    assert len(measured) == 2  # with the baseline
    assert all(pace.step > 0 and pace.evaluation > 0 and pace.save > 0 and pace.start > 0 for pace in measured)
    run = fl.Run(tmp_path / "timed")
    assert (run.config.steps, run.config.eval_every, run.config.algorithm.ramp_steps) == (20, 2, 20)  # type: ignore[union-attr]
    assert fl.Run(tmp_path / "timed/baseline").config.steps == 20
    line = next(line for line in timed.out.splitlines() if "steps fit into" in line)
    options = line.partition("in place of --time, ")[2].removesuffix(" repeat the run").split()
    assert options[:4] == ["--ramp-steps", "20", "--optim.warmup", "2"]
    again = command("train", "mixmatch", *SMALL, *options, "--no-baseline", "--out", tmp_path / "steps")
    assert again.code == 0, again.err
    other = fl.Run(tmp_path / "steps")
    assert other.config == run.config and same(run, other)
    refused = command("train", "--resume", run.path, "--time", "10m")
    assert refused.code == 2
    assert refused.sentence == "--resume goes on with the steps that the run began with: leave out --time"


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_steps(
    short: Callable[..., fl.Train], tmp_path: Path, measured: list[Pace], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fl.train(short(), out=tmp_path / "whole", budget=Budget(1.0))
    step = Trainer.step

    def stopped(self: Trainer, number: int) -> None:
        step(self, number)
        if number == 12 and self.config.steps == 20:  # those that are measured belong to a training of more
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        with pytest.raises(loop.Interrupted):
            fl.train(short(), out=tmp_path / "stopped", budget=Budget(1.0))
    run = fl.resume(tmp_path / "stopped")
    assert run.finished and run.config.steps == 20 and same(whole, run)


@pytest.mark.slow
def test_a_time_that_is_too_short_leaves_nothing(command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("train", *SMALL, "--batch", "2048", "--time", "1s", "--out", tmp_path / "run")
    assert said.code == 2
    assert said.sentence.startswith("a time of 1 s is too short: the least, 10 steps and an evaluation, takes about ")
    assert said.sentence.endswith(" s here with the baseline") and not (tmp_path / "run").exists()
