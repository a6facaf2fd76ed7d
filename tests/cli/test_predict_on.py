"""`fewlabels predict --shards N --on`: what each process is told, what becomes of those that end otherwise."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels import cli
from fewlabels.commands.options import parse
from fewlabels.commands.predict_options import Command
from fewlabels.commands.predict_shards import words_of
from fewlabels.inference.shards import Shard
from fewlabels.sweep import on_slurm, remote, shards
from fewlabels.sweep.on import On
from fewlabels.sweep.shards import ShardWork
from fewlabels.sweep.task import Task, process_of
from forked import forking

Run = Callable[..., Any]


def parsed(*words: str) -> Command:
    return parse(Command, list(words), prog="fewlabels predict")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--probabilities", "--top", "2", "--threshold", "0.25", "--calibrate", "--part-rows", "7"),
        ("--checkpoint", "best", "--weights", "raw", "--device", "cuda:1", "--max-pixels", "500", "--list", "a.txt"),
    ],
)
def test_a_shard_is_told_all_that_the_command_says(options: tuple[str, ...]) -> None:
    own = ("runs/x", "a b", "shards/", "-o", "out", *options)
    command = parsed(*own, "--shards", "3", "--on", "slurm", "--on.cpus", "2")
    words = words_of(command, Shard(2, 3))
    assert words[0] == "predict" and parsed(*words[1:]) == parsed(*own, "--shard", "2/3", "--no-progress")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--on slurm -o OUT", "--on is for --shards N, which are classified there"),
        ("--shards 2", "--shards writes a folder of parts: name it with -o DIR"),
        ("--shards 2 -o OUT.csv", "--shards writes a folder of parts, and -o OUT.csv is called as a file is"),
        ("--shards 2 -o OUT --shard 1/2", "--shard is one of the --shards: give one of the two"),
        ("--shards 0 -o OUT", "--shards must be 1 to 1000, got 0"),
        (
            "--shards 2 -o OUT --npy a.npy",
            "--npy does not go with --shards, whose parts are CSV files without an accuracy",
        ),
        (
            "--shards 2 -o OUT --overwrite",
            "--overwrite does not go with --shards, which goes on with the parts that are there",
        ),
        ("--shards 2 -o OUT --on.cpus 2", "--on.cpus is for --on slurm or ray, and the runs are trained on local"),
        ("--shards 2 -o OUT --on pbs", "--on must be one of 'local', 'slurm', 'ray', got 'pbs'"),
        ("- --shards 2 -o OUT", "--shards gives its processes no standard input: name the list with --list FILE"),
    ],
)
def test_asked_wrongly(command: Run, tmp_path: Path, words: str, sentence: str) -> None:
    out = str(tmp_path / "out")
    said = command("predict", tmp_path, tmp_path, *words.replace("OUT", out).split())
    assert said.code == 2 and said.out == "" and said.sentence == sentence.replace("OUT", out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_without_the_package(
    command: Run, photo_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = command("predict", photo_run.path, tmp_path, "--shards", 2, "--on", engine, "-o", tmp_path / "out")
    assert said.code == 2 and f"--on {engine} needs the package '{package}'" in said.sentence
    assert not list(tmp_path.iterdir())


class Here:
    """An engine that works on a task when it is looked at, in this process."""

    words, cpus = "here", 1

    def __init__(self, answers: dict[str, list[int | str]] | None = None) -> None:
        self.answers, self.tasks = answers or {}, list[tuple[str, dict[str, Any]]]()

    def submit(self, task: Task, name: str) -> tuple[str, dict[str, Any]]:
        order = json.loads(Path(task.file).read_text())
        assert order["token"] == task.token and process_of(order)[-1].endswith(
            "from fewlabels.cli import shard; shard()"
        )
        self.tasks.append((name, order))
        return self.tasks[-1]

    def look(self, handle: tuple[str, dict[str, Any]]) -> int | str:
        name, order = handle
        if self.answers.get(name):
            return self.answers[name].pop(0)
        said = answered(order["words"])
        Path(order["log"]).write_text(said.err)
        return int(said.code)

    def cancelled(self, handle: object) -> bool:
        return False

    def cancel(self, handle: object) -> None: ...

    def close(self) -> None: ...


def answered(words: list[str]) -> Any:
    from conftest import answer

    return answer(cli.run, *words)


def rows(out: Path) -> list[list[str]]:
    return sorted(row for path in out.glob("*-part-*.csv") for row in list(csv.reader(path.open()))[1:])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Here]:
    def use(answers: dict[str, list[int | str]] | None = None) -> Here:
        engine = Here(answers)
        monkeypatch.setattr(remote, "Slurm", lambda on, root, gpus: engine)
        monkeypatch.setattr(remote, "PACE", 0.0)
        return engine

    return use


@pytest.mark.slow
def test_shards_on_an_engine_are_the_table_and_checked(
    command: Run, photos: Path, photo_run: Any, here: Callable[..., Here], tmp_path: Path
) -> None:
    """One is told to end and goes on; a picture that cannot be read makes the status 1, and no failure."""
    engine = here({"shard 2 of 3": [143, -15]})
    out, words = tmp_path / "out", ("predict", photo_run.path, photos / "unlabeled", "--top", 1)
    said = command(*words, "--shards", 3, "--part-rows", 2, "--on", "slurm", "-o", out)
    assert said.code == 0 and said.out.startswith("each of 8 pictures stands in exactly one of "), said
    assert said.err.startswith("3 shards here\n") and "shard 2/3: " in said.err
    assert [name for name, _ in engine.tasks] == [f"shard {i} of 3" for i in (1, 2, 3, 2, 2)]
    whole = list(csv.reader(command(*words).out.splitlines()))[1:]
    assert [row[:2] for row in rows(out)] == [row[:2] for row in sorted(whole)]
    assert not list(out.glob(".*"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{broken}\n")
    said = command("predict", photo_run.path, "--list", listed, "--shards", 1, "--on", "slurm", "-o", tmp_path / "bad")
    assert said.code == 1 and "once among the 1 that could not be read" in said.out, said


@pytest.mark.slow
def test_a_shard_that_fails_is_named_and_the_others_are_there(
    command: Run, photos: Path, photo_run: Any, here: Callable[..., Here], tmp_path: Path
) -> None:
    here({"shard 1 of 2": ["Slurm ended its job 7 (OUT_OF_MEMORY)"]})
    out = tmp_path / "out"
    words = ("predict", photo_run.path, photos / "unlabeled", "--shards", 2, "--on", "slurm", "-o", out)
    said = command(*words)
    assert said.code == 1 and said.out == ""
    assert "shard 1 of 2 failed: Slurm ended its job 7 (OUT_OF_MEMORY)\n" in said.err
    assert list(out.glob("shard-2-*")) and not list(out.glob("shard-1-*"))
    here()
    again = command(*words)
    assert again.code == 0 and "each of 8 pictures" in again.out
    other = command(*words, "--top", 1)
    assert other.code == 1 and other.err.count("was begun otherwise: --top is 1 now, and was None") == 2


@pytest.mark.slow
def test_shards_on_this_machine_and_a_stop(
    command: Run, photos: Path, photo_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ("predict", photo_run.path, photos / "unlabeled", "--shards", 2, "-o", out)
    ended = shards.Said.end

    def stop(self: Any, job: ShardWork, outcome: Any) -> None:
        ended(self, job, outcome)
        os.kill(os.getpid(), signal.SIGTERM)

    with forking():
        monkeypatch.setattr(shards.Said, "end", stop)
        said = command(*words)
        monkeypatch.undo()
        assert said.code == 143 and "stopped by SIGTERM with 1 of 2 shards finished; the same command" in said.err
        with forking():
            said = command(*words)
    assert said.code == 0 and "each of 8 pictures" in said.out and not list(out.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif("FEWLABELS_ENGINES" not in os.environ, reason="minutes of imports; FEWLABELS_ENGINES=1 runs it")
@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_on_real_engines(
    command: Run,
    photos: Path,
    photo_run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    package: str,
) -> None:
    """On submitit's local cluster and a Ray cluster of this machine; the parts are those of one process."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr(on_slurm, "CLUSTER", "local")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
    words = ("predict", photo_run.path, photos / "unlabeled", "--part-rows", 3)
    more = ("--on", engine, "--on.cpus", 1, "--on.gpus", 0)
    said = command(*words, "--shards", 2, *more, "-o", tmp_path / "out")
    assert said.code == 0 and "each of 8 pictures" in said.out, said
    for i in (1, 2):
        assert command(*words, "--shard", f"{i}/2", "-o", tmp_path / "plain").code == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "plain").iterdir()
    }


def test_what_is_asked_of_slurm_is_what_a_sweep_asks() -> None:
    work = ShardWork(Shard(3, 12), Path("out"), ("predict", "x"))
    assert (work.name, work.file.name) == ("shard 3 of 12", ".shard-03-of-12.job")
    assert work.order() == {"words": ["predict", "x"]} and work.progress() == (0, False)
    assert On().name == "local"
