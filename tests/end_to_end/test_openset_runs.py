"""Trainings with unlabeled images of other classes: what they leave in the run folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewlabels as fl
from algorithm_cases import toy, toy_training
from fewlabels.config.resolve import load_source
from fewlabels.data.split import make_split
from fewlabels.runs.run import Run
from fewlabels.training.findings import table
from fewlabels.types import Findings

pytestmark = pytest.mark.usefixtures("no_report")


def listed(run: Path) -> list[dict[str, str]]:
    with (run / "foreign.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_digits_of_other_classes_are_the_most_foreign(command: Callable[..., Any], tmp_path: Path) -> None:
    run, known = tmp_path / "run", "0,1,2,3,4"
    words = f"train fixmatch --data digits@25 --data.keep-labeled {known} --data.keep-test {known} --openset energy"
    size = "--net small-8 --steps 80 --batch 16 --uratio 4 --log-every 20 --eval-every 80 --no-baseline --no-progress"
    said = command(*words.split(), *size.split(), "--openset.by", "percentile", "--openset.share", "0.3", "--out", run)
    assert said.code == 0, said.err
    rows, result = listed(run), json.loads((run / "result.json").read_text())["foreign"]
    labels = load_source(fl.Data("digits")).labels
    strange = np.array([labels[int(row["row"])] >= 5 for row in rows])
    assert strange[:64].mean() > 0.7 > 0.6 > strange.mean()
    assert sorted(int(row["row"]) for row in rows) == list(range(1437))
    scores = [float(row["score"]) for row in rows if row["score"]]
    assert scores == sorted(scores) and {row["class"] for row in rows} <= {*"01234", ""}
    aside = sum(row["set_aside"] == "yes" for row in rows)
    assert result["set_aside"] == aside > 0 and result["of"] == 1437
    below = [score < np.float32(result["threshold"]) for score in scores]
    assert below == [row["set_aside"] == "yes" for row in rows[: len(scores)]]
    assert f"note: {aside} of 1,437 unlabeled images were set aside as foreign at the end (energy below " in said.err
    sheet = Image.open(run / "foreign.png")
    sheet.load()
    assert min(sheet.size) > 8 * 64
    last = Run(run).metrics("log")[-1]
    assert 0.1 < last["foreign"] < 0.4 and "threshold" in last


@pytest.mark.slow
@pytest.mark.parametrize("words", ["iomatch", "fixmatch --openset ova --openset.start 0"])
def test_digits_of_other_classes_are_named_by_one_vs_all_classifiers(
    command: Callable[..., Any], tmp_path: Path, words: str
) -> None:
    run, known = tmp_path / "run", "0,1,2,3,4"
    data = f"--data digits@25 --data.keep-labeled {known} --data.keep-test {known}"
    size = "--net small-8 --steps 80 --batch 16 --uratio 4 --log-every 20 --eval-every 80 --no-baseline --no-progress"
    said = command("train", *words.split(), *data.split(), *size.split(), "--out", run)
    assert said.code == 0, said.err
    rows, result = listed(run), json.loads((run / "result.json").read_text())["foreign"]
    labels = load_source(fl.Data("digits")).labels
    strange = np.array([labels[int(row["row"])] >= 5 for row in rows])
    assert strange[:64].mean() > 0.7 > 0.6 > strange.mean()
    scores = [float(row["score"]) for row in rows if row["score"]]
    assert scores == sorted(scores) and 0 <= scores[0] < scores[-1] <= 1
    assert [score < 0.5 for score in scores] == [row["set_aside"] == "yes" for row in rows[: len(scores)]]
    assert result["threshold"] == 0.5 and result["of"] == 1437
    assert result["set_aside"] == sum(row["set_aside"] == "yes" for row in rows)
    note = f"{result['set_aside']:,} of 1,437 unlabeled images were set aside as foreign at the end (ova below 0.5)"
    assert note in said.err
    assert {"loss_ova", "foreign", "threshold"} <= Run(run).metrics("log")[-1].keys()


def training(**changes: Any) -> Any:
    openset = fl.OpenSet("energy", by="percentile", share=0.4, start=0.0)
    return toy_training(fl.FixMatch(tau=0.4, openset=openset), save_every=4, **changes)


@pytest.mark.slow
def test_a_resumed_run_lists_the_same(tmp_path: Path) -> None:
    run = fl.train(training(), out=tmp_path / "whole", source=toy()).path
    other = shutil.copytree(run, tmp_path / "half")
    for part in ("result.json", "foreign.csv", "foreign.png"):
        (other / part).unlink()
    shutil.rmtree(other / "checkpoints" / "step-00000008")
    fl.resume(other, source=toy())
    for part in ("foreign.csv", "foreign.png"):
        assert (other / part).read_bytes() == (run / part).read_bytes()
    assert "yes" in {row["set_aside"] for row in listed(run)}
    plain = replace(training(), algorithm=fl.FixMatch(tau=0.4))
    fl.train(plain, out=run, source=toy(), overwrite=True)
    assert not list(run.glob("foreign*"))  # they are part of the run that is replaced


@pytest.mark.slow
def test_the_names_of_pictures_are_safe_for_spreadsheets(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for name in ("labeled/a", "labeled/b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            pixels = chance.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "unlabeled").mkdir()
    for name in ("=1+1.png", "+x.png", "@y.png", "plain.png"):
        Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "data" / "unlabeled" / name)
    config = replace(training(steps=4), data=fl.Data(str(tmp_path / "data")), batch=4, uratio=1)
    rows = listed(fl.train(config, out=tmp_path / "run").path)
    names = {row["name"].removeprefix("unlabeled/") for row in rows}
    assert {"=1+1.png", "plain.png"} <= names and list(rows[0]) == ["row", "name", "score", "set_aside", "class"]


def test_a_table_names_rows_of_the_training_images() -> None:
    source = toy()
    split = make_split(source, labels=12, seed=1)
    split = replace(split, unlabeled=split.unlabeled[5:])
    names = tuple("=1+1" if row == split.unlabeled[2] else f"{row}.png" for row in range(300))
    source = replace(source, names=names)
    found = Findings("foreign", "", torch.tensor([2, 0]), {"score": ["-1.5", None]}, (), {})
    expected = f"row,name,score\n{split.unlabeled[2]},'=1+1,-1.5\n{split.unlabeled[0]},{split.unlabeled[0]}.png,\n"
    assert table(found, source, split).decode() == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fixmatch --openset energy --openset.share 0.2", "OpenSet.share 0.2 means nothing with OpenSet.by otsu"),
        ("fixmatch --openset.by value", "OpenSet.by value means nothing with OpenSet.name none"),
        ("uda --openset energy --openset.by value", "OpenSet.by value needs OpenSet.threshold, the score from which"),
        ("fixmatch --openset mahalanobis", "--openset"),
        ("mixmatch --openset energy", "--openset"),
    ],
)
def test_one_sentence(command: Callable[..., Any], tmp_path: Path, words: str, sentence: str) -> None:
    said = command("train", *words.split(), "--data", "digits@40", "--out", tmp_path / "run")
    assert said.code != 0 and sentence in said.sentence
    assert not (tmp_path / "run").exists()
