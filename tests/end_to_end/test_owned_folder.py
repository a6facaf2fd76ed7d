"""Several commands and one folder; folders that a kill, a failure or the user left in an odd form."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels.runs.owner import Lock
from fewlabels.runs.records import NotWritten, RunError
from fewlabels.runs.run import Run
from fewlabels.runtime import files, interrupt
from fewlabels.sweep import plan as many
from fewlabels.training import loop as training
from fewlabels.training.step import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

Command = Callable[..., Any]
FORK: Any = multiprocessing.get_context("fork")
SMALL = "--data digits@40 --net small-4 --batch 4 --uratio 1 --steps 12 --eval-every 6 --save-every 4 --log-every 3"
OPTIONS = ("train", *SMALL.split(), "--no-baseline", "--no-progress")


def content(path: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.fixture
def waiting() -> Iterator[Callable[[Callable[[], object], int], Any]]:
    """Starts a training in a child, which stands still after so many steps until it is killed, with what it started."""
    children = []

    def start(work: Callable[[], object], steps: int) -> Any:
        there, who = FORK.Event(), FORK.Value("i")

        def run() -> None:
            os.setsid()
            step = Trainer.step

            def still(self: Trainer, number: int) -> None:
                if number == steps:
                    who.value = os.getpid()
                    there.set()
                    time.sleep(120)
                step(self, number)

            Trainer.step = still  # type: ignore[method-assign]
            work()

        child = FORK.Process(target=run)
        child.start()
        children.append(child)
        assert there.wait(60)
        child.trains = who.value
        return child

    yield start
    for child in children:
        end(child)


def end(child: Any) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.join(30)


def test_nobody_else_touches_a_run_that_trains(command: Command, tmp_path: Path, waiting: Any) -> None:
    path = tmp_path / "run"
    child = waiting(lambda: command(*OPTIONS, "--out", path), 6)
    before = content(path)
    for words in (
        ("train", "--resume", path),
        (*OPTIONS, "--out", path, "--overwrite"),
        (*OPTIONS, "--out", path),
    ):
        said = command(*words)
        assert said.code == 2 and content(path) == before and said.out == ""
        if words[-1] != path or "--resume" in words:
            assert said.sentence.startswith(f"{path} is being trained by process {child.pid} on ")
    with pytest.raises(RunError, match="is being trained by process"):
        fl.resume(path)
    # who only reads is welcome
    assert command("evaluate", path).code == command("report", path).code == 0
    assert fl.load(path).model.step == 4 and content(path) == before
    end(child)
    assert command("train", "--resume", path).code == 0
    assert command(*OPTIONS, "--out", tmp_path / "whole").code == 0
    weights = [Run(p).checkpoint().weights("ema") for p in (path, tmp_path / "whole")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])


def test_the_same_seeds_twice_at_once(command: Command, tmp_path: Path, waiting: Any) -> None:
    root = tmp_path / "all"
    child = waiting(lambda: command(*OPTIONS, "--seeds", "0,1", "--out", root), 2)
    before = content(root)
    for words in (("--seeds", "0,1"), ("--seeds", "7"), ("--seeds", "0,1", "--overwrite"), ("--folds", "1,2")):
        said = command(*OPTIONS, *words, "--out", root)
        assert said.code == 2 and said.sentence.startswith(f"{root} is being trained by process {child.pid} on ")
    said = command(*OPTIONS, "--seed", 0, "--out", root / "seed-0", "--overwrite")
    assert said.code == 2 and said.sentence.startswith(f"{root}/seed-0 is being trained by process {child.trains} on ")
    assert content(root) == before


def test_one_of_the_seeds_is_trained_elsewhere(command: Command, tmp_path: Path, waiting: Any) -> None:
    path = tmp_path / "seed-1"
    child = waiting(lambda: command(*OPTIONS, "--seed", 1, "--out", path), 2)
    before = content(path)
    said = command(*OPTIONS, "--seeds", "0,1", "--out", tmp_path)
    assert said.code == 1 and content(path) == before
    assert f"seed 1 failed: {path} is being trained by process {child.pid} on " in said.err
    assert Run(tmp_path / "seed-0").finished


def test_a_run_whose_baseline_trains(command: Command, tmp_path: Path, waiting: Any) -> None:
    path = tmp_path / "run"
    assert command(*OPTIONS, "--out", path).code == 0
    run = Run(path)
    child = waiting(lambda: many.baseline(run, run.config, training.Output()), 6)
    before = content(path)
    for words in (("train", "--resume", path, "--baseline"), (*OPTIONS, "--out", path, "--overwrite")):
        said = command(*words)
        assert said.code == 2 and f"is being trained by process {child.pid} on " in said.err
        assert content(path) == before
    end(child)
    # the baseline alone
    waiting(lambda: fl.resume(path / "baseline"), 10)
    assert command(*OPTIONS, "--out", path, "--overwrite").sentence.startswith(f"{path}/baseline is being trained by ")


def test_two_trainings_without_a_name(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look for a free name before either has made its folder."""
    monkeypatch.chdir(tmp_path)
    free = training.free_folder
    both = FORK.Barrier(2)

    def at_once(parent: Path, name: str) -> Path:
        found = free(parent, name)
        if found.name == name:
            both.wait(60)
        return found

    monkeypatch.setattr(training, "free_folder", at_once)
    children = [FORK.Process(target=lambda: os._exit(command(*OPTIONS).code)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    names = ["digits@40-fixmatch-s1", "digits@40-fixmatch-s1-2"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == names
    results = [Run(tmp_path / "runs" / name).result["accuracy"] for name in names]
    assert results[0] == results[1]


# ---- folders in odd forms


@pytest.mark.parametrize("names", [[], [".config.json.tmp"], [".lock"], [".lock", ".split.json.tmp"]])
@pytest.mark.parametrize("words", [(), ("--overwrite",), ("--seeds", "1")])
def test_a_folder_that_a_kill_left_half_made(
    command: Command, tmp_path: Path, names: list[str], words: tuple[str, ...]
) -> None:
    path = tmp_path / "run" / "seed-1" if "--seeds" in words else tmp_path / "run"
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"")
    assert command(*OPTIONS, *words, "--out", tmp_path / "run").code == 0
    assert Run(path).finished and not [p.name for p in path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("words", [(), ("--overwrite",), ("--seeds", "1")])
def test_a_run_that_was_killed_before_its_first_step(
    command: Command, tmp_path: Path, waiting: Any, words: tuple[str, ...]
) -> None:
    path = tmp_path / "run" / "seed-1" if "--seeds" in words else tmp_path / "run"
    end(waiting(lambda: command(*OPTIONS, *words, "--out", tmp_path / "run"), 0))
    assert (path / "config.json").is_file()
    time.sleep(0.1)
    assert command(*OPTIONS, *words, "--out", tmp_path / "run").code == 0 and Run(path).finished


@pytest.mark.parametrize("there", [True, False])
def test_a_training_that_fails_on_its_way_leaves_nothing(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    path = tmp_path / "run"
    if there:
        path.mkdir()

    def broken(self: Trainer, number: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Trainer, "step", broken)
    with pytest.raises(ZeroDivisionError):
        fl.train(short(), out=path)
    assert path.is_dir() == there and not (there and list(path.iterdir()))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="nothing"):
        fl.train(short(data=fl.Data(f"{tmp_path}/nothing/")), out=path)
    assert path.is_dir() == there
    assert fl.train(short(), out=path).finished


def test_links_and_the_current_folder(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert command(*OPTIONS, "--out", tmp_path / "link").code == 0
    assert Run(tmp_path / "real").finished and (tmp_path / "link").is_symlink()
    assert command(*OPTIONS, "--out", tmp_path / "link", "--overwrite").code == 0
    assert Run(tmp_path / "real").finished and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command(*OPTIONS, "--out", ".").code == 0 and Run(tmp_path / "here").finished
    assert command(*OPTIONS, "--out", ".", "--overwrite").code == 0 and Run(tmp_path / "here").finished
    (tmp_path / "lost").symlink_to("nowhere")
    said = command(*OPTIONS, "--out", tmp_path / "lost")
    assert said.sentence == f"cannot make the run folder {tmp_path}/lost: a link to nowhere of that name exists"


def test_overwrite_takes_away_what_a_run_wrote_and_nothing_else(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert command(*OPTIONS, "--out", path).code == 0
    (path / "thesis.txt").write_text("mine")
    (path / "baseline").mkdir()
    assert command(*OPTIONS, "--seed", 2, "--out", path, "--overwrite").code == 0
    assert (path / "thesis.txt").read_text() == "mine" and not (path / "baseline").exists()
    # a folder of another program, which has a file of that name
    other = tmp_path / "model"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "vit"}')
    (other / "model.safetensors").write_bytes(b"weights")
    before = content(other)
    said = command(*OPTIONS, "--out", other, "--overwrite")
    assert said.code == 2 and content(other) == before
    assert said.sentence == (
        f"{other} is not a run folder (its config.json is not that of a run), so --overwrite leaves it"
    )


def test_a_full_disk_on_the_way_to_the_first_step(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went wrong, and was not asked wrongly: status 1. Nothing is left, and the next try works."""
    real = files.write_bytes

    def full(path: Path, data: bytes) -> None:
        if "split.json" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", full)
    said = command(*OPTIONS, "--out", tmp_path / "run")
    assert said.code == 1
    assert said.sentence == f"cannot write the run folder {tmp_path}/run: No space left on device"
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    assert command(*OPTIONS, "--out", tmp_path / "run").code == 0


def test_a_damaged_checkpoint_displaces_no_good_one(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    assert command(*OPTIONS, "--keep", 3, "--out", path).code == 0
    (path / "result.json").unlink()
    for step in (8, 12):
        damaged = path / "checkpoints" / f"step-{step:08d}" / "weights.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1])
    assert Run(path).last_saved() == "the last good checkpoint is step 4"
    step = Trainer.step

    def stopped(self: Trainer, number: int) -> None:
        step(self, number)
        if number == 5:
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(Trainer, "step", stopped)
    said = command("train", "--resume", path, "--keep", 1)
    assert said.code == 129 and "stopped by SIGHUP after step 6 of 12; the state is saved" in said.err
    assert Run(path).newest_good()[0].step == 6 and fl.load(path).model.step == 6
    monkeypatch.undo()
    assert command("train", "--resume", path).code == 0
    assert command(*OPTIONS, "--out", tmp_path / "whole").code == 0
    mine, whole = (Run(p).checkpoint().weights("raw") for p in (path, tmp_path / "whole"))
    assert all((mine[name] == whole[name]).all() for name in whole)


def test_nohup_is_respected() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.catch() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signum == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


# ---- what comes after a run


def signal_in(monkeypatch: pytest.MonkeyPatch, steps: int, signum: int) -> None:
    step, here = Trainer.step, os.getpid()

    def stopped(self: Trainer, number: int) -> None:
        step(self, number)
        if number + 1 == steps:
            for process in {here, os.getpid()}:
                os.kill(process, signum)

    monkeypatch.setattr(Trainer, "step", stopped)


@pytest.mark.parametrize("steps", [6, 12])
def test_a_baseline_that_had_not_begun_is_not_forgotten(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Stopped in the middle of the run, and in its very last step."""
    path = tmp_path / "run"
    options = ("train", *SMALL.split(), "--baseline", "--no-progress")
    signal_in(monkeypatch, steps, signal.SIGTERM)
    said = command(*options, "--out", path)
    assert said.code == 143 and f"`fewlabels train --resume {path}`" in said.err.splitlines()[-1]
    assert not (path / "baseline").exists() and Run(path).finished == (steps == 12)
    monkeypatch.undo()
    said = command("train", "--resume", path)
    assert said.code == 0 and Run(path / "baseline").finished
    assert command(*options, "--out", tmp_path / "whole").code == 0
    for part in ("", "baseline"):
        assert Run(path / part).result["accuracy"] == Run(tmp_path / "whole" / part).result["accuracy"]
    (path / "baseline" / "result.json").unlink()
    assert command("train", "--resume", path, "--no-baseline").code == 0
    assert not Run(path / "baseline").finished


def test_a_signal_in_the_last_step_of_a_seed(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_in(monkeypatch, 12, signal.SIGINT)
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path)
    assert said.code == 130 and "stopped by SIGINT with 1 of 3 runs finished" in said.err
    assert Run(tmp_path / "seed-0").finished and not (tmp_path / "seed-1").exists()


def test_another_runs_baseline(command: Command, tmp_path: Path) -> None:
    options = ("train", *SMALL.split(), "--baseline", "--no-progress")
    for name, seed in (("a", 1), ("b", 2)):
        assert command(*options, "--seed", seed, "--out", tmp_path / name).code == 0
    (tmp_path / "a" / "baseline").rename(tmp_path / "gone")
    (tmp_path / "b" / "baseline").rename(tmp_path / "a" / "baseline")
    said = command("train", "--resume", tmp_path / "a")
    assert said.code == 2
    assert f"{tmp_path}/a/baseline holds a run with another seed, which is no baseline of {tmp_path}/a" in said.err


def test_report_and_the_table_of_the_seeds_agree(command: Command, tmp_path: Path) -> None:
    """Runs that differ in what touches no result belong together in both."""
    import json

    assert command(*OPTIONS, "--seeds", "0", "--keep", 1, "--out", tmp_path).code == 0
    said = command(*OPTIONS, "--seeds", "0,1", "--keep", 3, "--device", "cpu", "--out", tmp_path)
    (group,) = json.loads(command("report", tmp_path, "--json").out)["groups"]
    n = next(line.split()[1] for line in said.out.splitlines() if line.startswith("n "))
    assert str(group["n"]) == n == "2"


def test_lock_files_of_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fewlabels.runs.owner.os.open", refuse)
    with pytest.raises(NotWritten, match=r"^cannot write the run folder .*: Permission denied$"):
        Lock(tmp_path)
