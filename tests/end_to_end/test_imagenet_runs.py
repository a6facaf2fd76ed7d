"""A small set in ImageNet's form: trained on with random crops from its files, evaluated, stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import flat, whole

import fewlabels as fl
from fewlabels.config.recipes import changed, recipe
from fewlabels.config.settings import Train
from fewlabels.data.gather import Gather
from fewlabels.runs.run import Run
from fewlabels.training.batches import BatchLoader
from fewlabels.training.step import Trainer
from imagenet_tree import make_tree

pytestmark = pytest.mark.usefixtures("no_report")

SMALL = {
    "data.image_size": 16,
    "net.name": "small-4",
    "steps": 8,
    "batch": 2,
    "optim.lr": 0.05,
    "optim.warmup": 2,
    "ema.decay": 0.5,
    "eval_every": 4,
    "save_every": 2,
    "log_every": 2,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def settings(name: str, data: str, root: Path) -> Train:
    return changed(recipe(name, data), {**SMALL, "data.root": str(root)})


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data"), [("google-imagenet-fixmatch", "imagenet.1@12"), ("google-imagenet-supervised", "imagenet")]
)
def test_a_run_that_is_stopped_goes_on_with_the_same_bits(
    root: Path, name: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(name, data, root)
    uninterrupted = fl.train(config, out=tmp_path / "whole")
    step = Trainer.step

    def stops(trainer: Trainer, number: int) -> None:
        if number == 5:
            raise Stopped
        step(trainer, number)

    monkeypatch.setattr(Trainer, "step", stops)
    with pytest.raises(Stopped):
        fl.train(config, out=tmp_path / "run")
    monkeypatch.undo()
    assert Run(tmp_path / "run").newest_good()[0].step == 4
    assert whole(fl.resume(tmp_path / "run")) == whole(uninterrupted)
    for record in uninterrupted.metrics("eval"):
        for part, count in (("test", 12), ("train", 12 if "@" in data else 36)):
            for which in ("ema", "raw"):
                scores = record[part][which]
                assert scores["n"] == count and 0 <= scores["accuracy"] <= scores["top5"] <= 100


@pytest.mark.slow
def test_what_a_step_sees_does_not_depend_on_what_was_read_ahead_or_on_the_ranks(root: Path) -> None:
    config = settings("google-imagenet-fixmatch", "imagenet.1@12", root)
    one, other = loader(config), loader(config)
    batches = [one.batch(step) for step in range(3)]  # the second one is read ahead
    late = other.batch(2)
    assert flat([*batches[2].x, *batches[2].u, batches[2].y, batches[2].index]) == flat(
        [*late.x, *late.u, late.y, late.index]
    )
    parts = []
    for rank in range(2):
        half = loader(config)
        half.rank, half.world = rank, 2
        parts.append(half.batch(2))
    for view in range(2):
        assert torch.equal(torch.cat([part.u[view] for part in parts]), batches[2].u[view])
    assert torch.equal(torch.cat([part.x[0] for part in parts]), batches[2].x[0])
    numbers = [one.crops(step, 1) for step in (0, 0, 1)]
    assert np.array_equal(numbers[0], numbers[1]) and not np.array_equal(numbers[0], numbers[2])  # type: ignore[arg-type]


def loader(config: Train) -> BatchLoader:
    from fewlabels.config.resolve import load_source, resolve, resolve_data, split_of

    data = resolve_data(config.data)
    source = load_source(data)
    config = changed(resolve(config, source), {})
    trainer = Trainer(
        config, source, split_of(data, source), device=torch.device("cpu"), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    assert isinstance(trainer.batches.store, Gather)
    return trainer.batches


@pytest.mark.slow
def test_a_crop_needs_pictures_in_files(command: Callable[..., Any], root: Path, tmp_path: Path) -> None:
    said = command("train", "fixmatch", "--data", "digits@40", "--data.crop", "area", "--out", tmp_path / "run")
    assert said.sentence == "--data.crop area is for pictures that are read from their files, and digits is read whole"
    given = ("--data", "imagenet@12", "--data.root", root, "--data.crop", "area-flip", "--data.residency", "host")
    said = command("train", "fixmatch", *given, "--out", tmp_path / "run")
    assert "which --data.residency host does not keep: use auto or stream" in said.sentence


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--optim.schedule", "stairs"), "must be shares of the steps between 0 and 1, ascending, got none"),
        (("--optim.schedule", "stairs", "--optim.stairs", "0.5,0.3"), "ascending, got 0.5,0.3"),
        (("--optim.schedule", "stairs", "--optim.stairs", "0.5,1"), "ascending, got 0.5,1"),
        (("--optim.stairs", "0.5"), "--optim.stairs 0.5 is for the schedule stairs, not for cosine"),
        (("--optim.stair", "0.5"), "--optim.stair 0.5 is for the schedule stairs, not for cosine"),
        (("--optim.stairs", "half"), "--optim.stairs must be a number, got 'half'"),
    ],
)
def test_stairs_that_will_not_do(command: Callable[..., Any], given: tuple[str, ...], said: str) -> None:
    assert said in command("train", "fixmatch", *given, "--dry-run").sentence
