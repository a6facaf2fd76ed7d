"""`fewlabels train self-training` with its stages, and `fewlabels report --choose`: tiny trainings, most in forks."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewlabels as fl
from fewlabels.inference.criteria import CRITERIA
from fewlabels.runs.run import Run
from fewlabels.training.step import Trainer
from sweeps import killed_once, state, times, undisturbed

pytestmark = pytest.mark.usefixtures("forked")

Command = Callable[..., Any]
TINY = "--data digits@40 --net small-4 --batch 4 --uratio 2 --steps 12 --eval-every 6 --save-every 4 --log-every 3"
OPTIONS = ("train", "self-training", *TINY.split(), "--no-progress", "--teacher-seeds", "1,2")


@pytest.fixture(scope="module")
def whole(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Two teachers and their student, undisturbed; a copy is as good where its parent is the working folder."""
    root = tmp_path_factory.mktemp("whole") / "all"
    return root, undisturbed(command, root, OPTIONS)


@pytest.mark.slow
def test_all_stages(command: Command, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, said = whole
    monkeypatch.chdir(root.parent)
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "3 runs in all: 3 new; one after another"
    names = ["teacher-1", "teacher-2", "student"]
    runs = {name: Run(root / name) for name in names}
    assert [(run.config.seed, type(run.config.algorithm)) for run in runs.values()] == [
        (1, fl.Supervised),
        (2, fl.Supervised),
        (1, fl.SelfTraining),
    ]
    assert len({run.split.fingerprint for run in runs.values()}) == 1
    rows = {line[:9].strip(): line[9:].split() for line in said.out.splitlines()}
    for name, run in runs.items():
        assert rows[name.replace("-", " ")][0] == f"{run.result['accuracy']:.2f}"
    assert "mean" not in rows and "the result is that of the student, the run all/student" in said.out
    assert "votes on 1,397 unlabeled images: all teachers agree on " in said.err

    # by name, the student is the same
    teachers = ("--teachers", root / "teacher-1", root / "teacher-2")
    own = command("train", "self-training", *teachers, *TINY.split(), "--no-progress", "--out", tmp_path / "student")
    assert own.code == 0 and state(tmp_path / "student") == state(root / "student")

    before = times(root)
    again = command(*OPTIONS, "--out", "all")
    assert again.code == 0 and again.err == "" and times(root) == before
    assert ": 3 finished already; " in again.out and again.out.splitlines()[1:] == said.out.splitlines()[1:]


@pytest.mark.slow
def test_a_student_of_other_teachers_is_not_taken_for_this_one(
    command: Command, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that is to be trained anew, or was, makes another student."""
    monkeypatch.chdir(tmp_path)
    root = shutil.copytree(whole[0], tmp_path / "all")
    other = [*OPTIONS[:-1], "1,3"]
    said = command(*other, "--out", "all")
    assert "all/teacher-2 holds a run with seed 2, and 3 is asked for; name another --out" in said.sentence
    before = state(root / "student")
    shutil.rmtree(root / "teacher-2")
    said = command(*OPTIONS, "--out", "all")
    assert said.code == 2 and said.sentence == (
        "all/student has learned from its teachers already, and all/teacher-2 is to be trained anew; name another "
        "--out, or add --overwrite to replace it"
    )
    assert not (root / "teacher-2").exists() and state(root / "student") == before
    assert command(*other, "--out", "all", "--overwrite").code == 0
    votes = np.load(root / "student" / "votes.npy")
    assert state(root / "student") != before and votes.shape == (1437, 2)
    weights = json.loads((root / "student" / "data.json").read_text())["teachers"]["runs"][1]["weights"]
    (digest,) = [
        json.loads(path.read_text())["sha256"]["weights.safetensors"]
        for path in (root / "teacher-2" / "checkpoints").glob("step-00000012/meta.json")
    ]
    assert weights == digest


@pytest.mark.slow
def test_a_failed_teacher_leaves_no_student(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def broken(self: Trainer, number: int) -> None:
        if self.config.seed == 1 and not isinstance(self.config.algorithm, fl.SelfTraining):
            raise ZeroDivisionError("division by zero")
        step(self, number)

    monkeypatch.setattr(Trainer, "step", broken)
    said = command(*OPTIONS, "--out", tmp_path / "all")
    assert said.code == 1
    assert "teacher 1 failed: ZeroDivisionError: division by zero" in said.err and "teacher 2: finished" in said.err
    rows = {line[:9].strip(): line[9:].split() for line in said.out.splitlines()}
    assert rows["student"] == ["-", "-", "-", "not", "begun"] and not (tmp_path / "all" / "student").exists()


@pytest.mark.slow
def test_dry_run(command: Command, tmp_path: Path) -> None:
    said = command(*OPTIONS, "--teacher-nets", "small-4", "small-8", "--dry-run", "--out", tmp_path / "all")
    assert said.code == 0 and not (tmp_path / "all").exists()
    lines = [line for line in said.out.splitlines() if str(tmp_path) in line]
    assert [line.split(" about ")[0] for line in lines] == [*(f"teacher {i}" for i in range(1, 5)), "student  "]
    assert "for 5 runs, one after another" in said.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("self-training --seeds 1..2", "--seeds: self-training without --teachers trains them first; give it a --seed"),
        ("self-training --folds 1..2", "--folds: self-training without --teachers trains them first; give it one"),
        ("self-training --time 1m", "--time: self-training without --teachers trains them first; give it --steps"),
        ("self-training --baseline", "--baseline: self-training without --teachers trains them first; its teachers"),
        (
            "self-training --dry-run --json",
            "--json: self-training without --teachers trains them first, and one object",
        ),
        ("self-training --teacher-seeds 3..1", "--teacher-seeds 3..1 counts downwards: write 1..3"),
        (
            "self-training --teachers a --teacher-seeds 1",
            "--teacher-seeds is for self-training that trains its teachers",
        ),
        ("fixmatch --teacher-nets small", "--teacher-nets is for self-training that trains its teachers itself"),
        ("self-training --teachers no/run", "there is no run folder no/run"),
    ],
)
def test_wrong(command: Command, words: str, sentence: str) -> None:
    said = command("train", *words.split())
    assert said.code == 2 and said.sentence.startswith(sentence)


UNTIL = {
    "the first teacher": "teacher-1/checkpoints/step-00000004",
    "the second teacher": "teacher-2/checkpoints/step-00000004",
    "the votes": "student/config.json",
    "the student": "student/checkpoints/step-00000004",
}
"""What is there when a kill comes."""


@pytest.mark.slow
def test_killed_in_each_stage(
    command: Command, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 to all processes at once, and the same command again: in the end there is what nobody disturbed."""
    step = Trainer.step

    def slow(self: Trainer, number: int) -> None:
        time.sleep(0.05)
        step(self, number)

    def work() -> None:
        command(*OPTIONS, "--out", root)

    monkeypatch.setattr(Trainer, "step", slow)
    root = tmp_path / "all"
    for stage, name in UNTIL.items():
        killed_once(name, root, work)
        assert not (root / "student" / "result.json").exists(), stage
    monkeypatch.undo()
    finished = times(root / "teacher-1")
    said = command(*OPTIONS, "--out", root)
    assert (
        said.code == 0 and "2 finished already, 1 to go on with" in said.out and times(root / "teacher-1") == finished
    )
    for name in ("teacher-1", "teacher-2", "student"):
        assert state(root / name) == state(whole[0] / name)


# ---- report --choose


@pytest.mark.slow
def test_choose(command: Command, whole: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = whole
    monkeypatch.setenv("COLUMNS", "80")
    told = json.loads(command("report", root, "--choose", "--json").out)
    assert told["split"] == Run(root / "student").split.fingerprint and told["images"] == 1437 - 40
    assert {row["path"] for row in told["runs"]} == {str(root / n) for n in ("teacher-1", "teacher-2", "student")}
    assert [row["mean_rank"] for row in told["runs"]] == sorted(row["mean_rank"] for row in told["runs"])
    for row in told["runs"]:
        ranks = [1 + sum(other[name] > row[name] for other in told["runs"]) for name in CRITERIA]
        assert row["mean_rank"] == pytest.approx(sum(ranks) / 7)  # no two are equal here
    said = command("report", root, "--choose")
    assert said.code == 0 and all(len(line) <= 80 for line in said.out.splitlines()[:-1])
    lines = said.out.splitlines()
    assert lines[0].split() == ["run", "AMI", "ARI", "V", "FMI", "CH", "RankMe", "BNM", "rank"]
    assert [line.split()[0] for line in lines[1:4]] == [Path(row["path"]).name for row in told["runs"]]
    assert lines[1].split()[1] == f"{told['runs'][0]['ami']:.3f}" and lines[1].split()[-1] == (
        f"{told['runs'][0]['mean_rank']:.2f}"
    )
    rows = list(csv.DictReader(io.StringIO(command("report", root, "--choose", "--csv").out)))
    assert [float(row["bnm"]) for row in rows] == [row["bnm"] for row in told["runs"]]


@pytest.mark.slow
def test_choose_refuses(command: Command, whole: tuple[Path, Any], tmp_path: Path) -> None:
    root, _ = whole
    one = root / "teacher-1"
    assert command("report", one, "--choose").sentence == f"--choose puts runs in order, and there is only {one}"
    other = command(
        "train", "supervised", *TINY.split(), "--data.seed", 2, "--no-progress", "--out", tmp_path / "other"
    )
    assert other.code == 0
    said = command("report", one, tmp_path / "other", "--choose")
    prints = [Run(path).split.fingerprint[:8] for path in (one, tmp_path / "other")]
    assert said.code == 2 and said.sentence == (
        f"{one} and {tmp_path / 'other'} have different splits ({prints[0]} and {prints[1]}); --choose compares runs "
        "of the same labels and the same unlabeled images"
    )
    begun = shutil.copytree(one, tmp_path / "begun")
    (begun / "result.json").unlink()
    assert command("report", one, begun, "--choose").sentence == (
        f"{begun} is not finished, and cannot be compared: `fewlabels train --resume {begun}` goes on with it"
    )
