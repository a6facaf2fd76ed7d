"""`fewlabels train --generations`: tiny trainings, in forks."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from fewlabels.commands import many
from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.data.split import read_split
from fewlabels.inference.model import load_predictor
from fewlabels.runs.run import Run
from fewlabels.sweep import generations
from fewlabels.sweep.plan import plan
from fewlabels.training.step import Trainer
from sweeps import killed_once, state, times, undisturbed

pytestmark = pytest.mark.usefixtures("forked")

Command = Callable[..., Any]
TINY = "--net small-4 --batch 4 --uratio 2 --steps 12 --eval-every 6 --save-every 4 --log-every 3 --no-baseline"
DIGITS = "fixmatch --data digits --data.rule cadr --data.labels 20 --data.imbalance 10 --imbalance crest"
OPTIONS = ("train", *DIGITS.split(), *TINY.split(), "--no-progress", "--generations", "3")


@pytest.fixture(scope="module")
def whole(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Three generations, undisturbed; a copy is as good where its parent is the working folder."""
    root = tmp_path_factory.mktemp("whole") / "all"
    return root, undisturbed(command, root, OPTIONS)


@pytest.mark.slow
def test_each_joins_predictions_of_the_one_before_to_the_first_labels(
    command: Command, whole: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, said = whole
    monkeypatch.chdir(root.parent)
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "3 runs in all: 3 new; one after another"
    runs = [Run(root / f"generation-{n}") for n in (1, 2, 3)]
    assert [run.config.algorithm.imbalance.strength for run in runs] == [1.0, 0.75, 0.5]  # type: ignore[union-attr]
    first, truth = runs[0].split, load_source(resolve_data(fl.Data("digits"))).labels
    shares = np.array(first.class_counts) / len(first.labeled)
    rows = {line[:12].strip(): line[12:].split() for line in said.out.splitlines()}
    assert rows["generation 1"][3:-1] == [str(len(first.labeled))]
    for n, run in enumerate(runs[1:], 2):
        split = run.split
        new = np.setdiff1d(split.labeled, first.labeled)
        given = split.targets[np.isin(split.labeled, new)]
        assert len(new) and len(split.labeled) == len(first.labeled) + len(new)
        np.testing.assert_array_equal(split.unlabeled, first.unlabeled)
        assert split.own_counts == first.class_counts
        right = 100 * float(np.mean(given == truth[new]))
        facts = run.data["generation"]
        assert facts["by_class"] == np.bincount(given, minlength=10).tolist() and facts["known"] == len(new)
        assert rows[f"generation {n}"][:2] == [f"{run.result['accuracy']:.2f}", f"{run.result['last20']:.2f}"]
        assert rows[f"generation {n}"][3:6] == [str(len(split.labeled)), str(len(new)), f"{right:.2f}"]
        t = (1.0, 0.75, 0.5)[n - 1]
        goal = torch.load(run.checkpoint().path / "state.pt", weights_only=True)["algorithm"]
        np.testing.assert_allclose(goal["imbalance.running.p_target"], shares**t / np.sum(shares**t), rtol=1e-5)
    assert f"the result is that of the last generation, the run {Path('all/generation-3')}" in said.out
    assert not (root / "generation-3" / "next-split.json").exists()

    before = times(root)
    again = command(*OPTIONS, "--out", "all")
    assert again.code == 0 and again.err == "" and times(root) == before
    assert ": 3 finished already; " in again.out and again.out.splitlines()[1:] == said.out.splitlines()[1:]


@pytest.mark.slow
def test_it_is_what_single_commands_make(
    photos: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train, predict, split --tail, train: the predictions, the split and the run are the same, byte for byte."""
    monkeypatch.chdir(photos.parent)
    words = ("train", "fixmatch", *TINY.split(), "--no-progress", "--data", "photos/")
    root = tmp_path / "all"
    assert command(*words, "--generations", 2, "--generations.tail", 2, "--out", root).code == 0
    assert command(*words, "--out", tmp_path / "g1").code == 0
    assert state(tmp_path / "g1") == state(root / "generation-1")
    told, split = root / "generation-1" / "next-predictions.csv", root / "generation-1" / "next-split.json"
    assert command("predict", tmp_path / "g1", "photos/unlabeled", "-o", tmp_path / "p.csv").code == 0
    assert (tmp_path / "p.csv").read_bytes() == told.read_bytes()
    assert command("split", "photos/", "--pseudo-labels", told, "--tail", 2, "-o", tmp_path / "g2.json").code == 0
    assert (tmp_path / "g2.json").read_bytes() == split.read_bytes()
    assert command(*words, "--data.split", tmp_path / "g2.json", "--out", tmp_path / "g2").code == 0
    assert state(tmp_path / "g2") == state(root / "generation-2")
    assert Run(tmp_path / "g2").split == Run(root / "generation-2").split == read_split(split)
    assert Run(root / "generation-2").data["generation"]["known"] == 0  # nobody knows their classes


UNTIL = {
    "the first training": "generation-1/checkpoints/step-00000004",
    "the predictions": "generation-1/next-predictions.csv",
    "the split": "generation-1/next-split.json",
    "the second training": "generation-2/checkpoints/step-00000004",
    "the last training": "generation-3/checkpoints/step-00000004",
}
"""What is there when a kill comes."""


@pytest.mark.slow
def test_killed_in_each_stage(
    command: Command, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 to all processes at once, and the same command again: in the end there is what nobody disturbed."""
    step, choose, read = Trainer.step, generations.with_predictions, generations.read_split

    def slow(function: Any, seconds: float) -> Any:
        def slower(*args: Any, **words: Any) -> Any:
            time.sleep(seconds)
            return function(*args, **words)

        return slower

    def work() -> None:
        command(*OPTIONS, "--out", "all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainer, "step", slow(step, 0.05))
    monkeypatch.setattr(generations, "with_predictions", slow(choose, 0.5))  # between the predictions and the split
    monkeypatch.setattr(generations, "read_split", slow(read, 0.2))
    root = tmp_path / "all"
    for stage, name in UNTIL.items():
        killed_once(name, root, work)
        assert not (root / "generation-3" / "result.json").exists(), stage
        if stage == "the predictions":
            assert not (root / "generation-1" / "next-split.json").exists()
        if stage == "the split":
            assert not (root / "generation-2").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    finished = times(root / "generation-1")
    said = command(*OPTIONS, "--out", "all")
    assert said.code == 0 and "2 finished already, 1 to go on with" in said.out
    assert times(root / "generation-1") == finished
    for n in (1, 2, 3):
        name = f"generation-{n}"
        assert state(root / name) == state(whole[0] / name)
        assert Run(root / name).data == Run(whole[0] / name).data
        own, other = (path / name / "next-split.json" for path in (root, whole[0]))
        assert n == 3 or own.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_nothing_of_another_configuration_is_replaced(
    command: Command, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(shutil.copytree(whole[0], tmp_path / "all"))
    before = times(root)
    other = command(*OPTIONS, "--generations.tail", 1, "--out", "all")
    assert other.code == 2 and other.sentence == (
        "all/generation-1/next-split.json has other labels than those by --generations.tail 1: name another --out, or "
        "add --overwrite to make it anew"
    )
    least = command(*OPTIONS, "--generations.least", 0, "--out", "all")
    assert least.code == 2 and "generation-2 holds a run with algorithm.imbalance.strength 0.75, and 0.5" in least.err
    (tmp_path / "all" / "generation-1").rename(tmp_path / "away")
    gone = command(*OPTIONS, "--out", "all")
    assert gone.code == 2 and gone.sentence == (
        "all/generation-2 has learned from all/generation-1 already, which is to be trained anew; name another --out, "
        "or add --overwrite to replace it"
    )
    assert not (root / "generation-1").exists()
    (tmp_path / "away").rename(root / "generation-1")
    assert times(root) == before

    states = [state(root / f"generation-{n}") for n in (1, 2, 3)]
    more = command(*OPTIONS, "--generations.tail", 1, "--out", "all", "--overwrite")
    assert more.code == 0, more.err
    assert [state(root / f"generation-{n}") == states[n - 1] for n in (1, 2, 3)] == [True, False, False]
    few, many = (read_split(path / "generation-1" / "next-split.json") for path in (root, whole[0]))
    assert len(few.labeled) < len(many.labeled) and few.lineage[0]["rule"] == "confidence at least 0, tail 1"


@pytest.mark.slow
def test_a_failed_generation_is_followed_by_none(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **words: Any) -> Any:
        raise ValueError("no labels today")

    monkeypatch.setattr(generations, "with_predictions", broken)
    said = command(*OPTIONS, "--out", tmp_path / "all")
    assert said.code == 1 and "generation 2 failed: no labels today" in said.err
    rows = {line[:12].strip(): line[12:].split() for line in said.out.splitlines()}
    assert rows["generation 3"][-2:] == ["not", "begun"] and not (tmp_path / "all" / "generation-2").exists()
    monkeypatch.undo()
    assert not (tmp_path / "all" / "generation-1" / "next-split.json").exists()


@pytest.mark.slow
def test_dry_run(command: Command, tmp_path: Path) -> None:
    said = command(*OPTIONS, "--dry-run", "--baseline", "--out", tmp_path / "all")
    assert said.code == 0 and not (tmp_path / "all").exists()
    lines = [line for line in said.out.splitlines() if str(tmp_path) in line]
    assert [line.split(" about ")[0] for line in lines] == [f"generation {n}" for n in (1, 2, 3)]
    assert "for 3 runs with a baseline, one after another" in said.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fixmatch --generations 1", "--generations must be a whole number from 2 to 100 or None, got 1"),
        ("fixmatch --generations 3 --generations.tail 0", "--generations.tail must be a number above 0, got 0"),
        ("fixmatch --generations.tail 2", "--generations.tail and --generations.least are for several generations"),
        ("fixmatch --generations 3 --generations.least 0.2", "--generations.least 0.2 is for --imbalance crest"),
        ("fixmatch --generations 3 --seeds 1..2", "--seeds: --generations trains runs one after another; give it a"),
        ("fixmatch --generations 3 --folds 1..2", "--folds: --generations trains runs one after another; give it one"),
        ("fixmatch --generations 3 --time 1m", "--time: --generations trains runs one after another; give the --steps"),
        (
            "fixmatch --generations 3 --dry-run --json",
            "--json: --generations trains runs one after another; one object",
        ),
        ("frozen --generations 3", "--generations is for trainings in steps, and frozen takes none"),
        ("self-training --teachers a --generations 3", "--generations changes the labels, and self-training learns"),
    ],
)
def test_wrong(command: Command, words: str, sentence: str) -> None:
    said = command("train", *words.split())
    assert said.code == 2 and said.sentence.startswith(sentence)


def test_wrong_in_a_grid_and_for_ranks(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "grid.csv"
    table.write_text("tau,generations\n0.9,3\n")
    said = command("train", "fixmatch", "--grid", table)
    assert "--generations is the same for all rows" in said.sentence
    table.write_text("tau\n0.9\n")
    said = command("train", "fixmatch", "--grid", table, "--generations", 3)
    assert said.code == 2 and "and a grid each by itself: leave it out" in said.sentence
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    said = command("train", "fixmatch", "--generations", 3)
    assert said.code == 2 and "start it without torchrun" in said.sentence


def test_strengths_fall_evenly_to_the_last() -> None:
    """t_g of the paper: from 1 to t_min, 6 generations as in its table; nothing else of the settings changes."""
    plan = generations.Generations(6)
    config = fl.Train(algorithm=fl.FixMatch(imbalance=fl.Imbalance("crest")))
    found = [generations.at(config, plan, n) for n in range(1, 7)]
    assert [one.algorithm.imbalance.strength for one in found] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]  # type: ignore
    assert found[0] == config and generations.at(fl.Train(), plan, 4) == fl.Train()


@pytest.mark.slow
def test_predictions_in_chunks_are_those_of_all_at_once(digits_run: Any) -> None:
    """What is written of each image is what the model says of it, whatever stands beside it."""
    run, source = Run(digits_run.path), load_source(resolve_data(fl.Data("digits")))
    rows = np.setdiff1d(run.split.unlabeled, run.split.labeled)[:600]
    lines = generations.predictions(run, source, rows, "cpu").splitlines()
    assert lines[0] == "row,label,confidence" and len(lines) == 601
    probs = load_predictor(run).logits(source.images[rows]).double().softmax(1)
    for row, line, p in zip(rows.tolist(), lines[1:], probs, strict=True):
        number, label, sure = line.split(",")
        assert (int(number), label) == (row, source.classes[int(p.argmax())])
        assert float(sure) == pytest.approx(float(p.max()), abs=2e-6)


def test_right_ones_are_counted_where_the_truth_is_known() -> None:
    source = load_source(resolve_data(fl.Data("digits@40")))
    config = resolve_data(fl.Data("digits@40"))
    base = split_of(config, source)
    free = np.setdiff1d(base.unlabeled, base.labeled)[:5]
    given = source.labels[free].copy()
    given[0] = (given[0] + 1) % 10
    joined = base.with_labels(free, given, lineage={"a": "b"})
    facts = generations._facts(base, joined, source)
    assert (facts["labels"], facts["known"], facts["right"], sum(facts["by_class"])) == (5, 5, 4, 5)
    assert json.loads(json.dumps(facts)) == facts


def test_they_take_one_gpu_whatever_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fl.Train(data=fl.Data("digits@40"), net=fl.Net("small-4"), steps=9)
    jobs = generations.generations(config, generations.Generations(3), out=tmp_path)
    monkeypatch.setattr(many, "gpus", lambda device: ["0", "1"])
    assert many._places(jobs) == [None] and many._places(plan(config, "seed", (1, 2), out=tmp_path)) == ["0", "1"]
    assert [(job.last, job.known, job.config.data.split) for job in jobs] == [
        (False, False, None),
        (True, False, str(tmp_path / "generation-1" / "next-split.json")),
        (True, False, str(tmp_path / "generation-2" / "next-split.json")),
    ]
