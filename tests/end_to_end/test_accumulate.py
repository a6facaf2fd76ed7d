"""--accumulate: a step in turns is the same step, where no statistics are taken over a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from two_ranks import config

import fewlabels as fl
from algorithm_cases import killed_in, opinionated, toy, toy_training
from fewlabels import nets
from fewlabels.data import gather
from fewlabels.data.gather import Gather
from fewlabels.runs.run import Run
from fewlabels.training.step import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

STEPS = 5


@pytest.fixture
def without_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "build", lambda name, **settings: opinionated())


def remembered(run: Run) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    logs = [{k: v for k, v in log.items() if k != "kind" and not k.endswith("_ms")} for log in run.metrics("log")]
    return logs, {**run.checkpoint().weights("raw"), **run.checkpoint().weights("ema")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithm",
    [fl.FixMatch(tau=0.42), fl.MixUp(), fl.PiModel(), fl.MeanTeacher()],
    ids=lambda algorithm: algorithm.name,
)
def test_turns_add_up_to_the_step(algorithm: Any, without_norm: None, tmp_path: Path) -> None:
    plain = toy_training(algorithm, steps=STEPS, log_every=1, batch=6, uratio=2, optim=fl.Optim(lr=0.01))
    runs = {
        turns: fl.train(replace(plain, accumulate=turns), out=tmp_path / str(turns), source=toy())
        for turns in (1, 2, 3)
    }
    logs, weights = remembered(runs[1])
    assert len(logs) == STEPS and len({log["loss"] for log in logs}) == STEPS
    for turns in (2, 3):
        others, theirs = remembered(runs[turns])
        if not isinstance(algorithm, fl.MixUp):  # which mixes the images of a share with one another
            torch.testing.assert_close(others, logs, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(theirs, weights, rtol=0, atol=1e-6)
        else:
            assert others != logs


@pytest.mark.slow
def test_a_learning_view_learns_from_all_turns(without_norm: None, tmp_path: Path) -> None:
    plain = replace(toy_training(fl.FixMatch(tau=0.42), steps=8, batch=6, optim=fl.Optim(lr=0.01)), strong="cta")
    one, two = (
        fl.train(replace(plain, accumulate=turns), out=tmp_path / str(turns), source=toy()).checkpoint()
        for turns in (1, 2)
    )
    rates = [{k: v for k, v in c.state()["views"].items() if "rates" in k} for c in (one, two)]
    assert any((v != v.flatten()[0]).any() for v in rates[0].values())
    torch.testing.assert_close(rates[1], rates[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    train = toy_training(
        fl.FixMatch(), steps=7, save_every=4, log_every=3, accumulate=2, net=fl.Net("small-4", dropout=0.3)
    )
    whole = fl.train(train, out=tmp_path / "whole", source=toy())
    run = killed_in(5, train, tmp_path / "run")
    fl.resume(run.path, source=toy())
    assert remembered(run)[0] == remembered(whole)[0]
    torch.testing.assert_close(remembered(run)[1], remembered(whole)[1], rtol=0, atol=0)


@pytest.mark.slow
def test_pictures_are_read_ahead_turn_by_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step a streamed training asks for nothing that it did not expect, but for what comes first."""
    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / "photos" / (f"labeled/c{i % 2}" if i < 12 else "unlabeled")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{i}.png")
    missed: list[bool] = []
    steps: list[int] = []
    take, step = Gather.take, Trainer.step

    def watched(self: Gather, rows: Any, crops: Any = None) -> Any:
        if len(steps) < 4:
            missed.append(gather._key(rows.cpu().numpy(), crops) not in self._coming)
        return take(self, rows, crops)

    def stepped(self: Trainer, number: int) -> None:
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(Gather, "take", watched)
            step(self, number)
        steps.append(number)

    monkeypatch.setattr(Trainer, "step", stepped)
    data = fl.Data(f"{tmp_path}/photos/", residency="stream", image_size=8)
    fl.train(config("fixmatch", data=data, steps=4, accumulate=2), out=tmp_path / "run")
    assert steps == [0, 1, 2, 3] and missed == [True, True] + [False] * (4 * 2 * 2 - 2)


@pytest.mark.parametrize(("batch", "turns", "sentence"), [(6, 4, "Train.accumulate must divide Train.batch, 6, got 4")])
def test_shares_that_are_not_equal(batch: int, turns: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        fl.train(toy_training(fl.FixMatch(), batch=batch, accumulate=turns), out=tmp_path / "run", source=toy())
    assert not (tmp_path / "run").exists()
