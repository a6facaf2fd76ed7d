"""`fewlabels train --seeds` and `--folds`: tiny trainings, most of them in forks."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import fewlabels as fl
from fewlabels.commands.many import Bars, Plain
from fewlabels.runs.run import Run
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.sweep.plan import Job, plan
from fewlabels.sweep.pool import Outcome, start
from fewlabels.training.step import Trainer
from sweeps import OPTIONS, TINY, state, table

pytestmark = pytest.mark.usefixtures("forked")

Command = Callable[..., Any]


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_three_seeds(command: Command, tmp_path: Path) -> None:
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path / "all")
    assert said.code == 0
    assert said.out.splitlines()[0] == f"3 runs in {tmp_path / 'all'}: 3 new; one after another"
    results = [Run(tmp_path / "all" / f"seed-{i}").result for i in range(3)]
    assert [r["seed"] for r in results] == [0, 1, 2]
    rows = table(said.out)
    for i, result in enumerate(results):
        assert rows[f"seed {i}"][2:4] == [f"{result['accuracy']:.2f}", f"{result['last20']:.2f}"]
    for column, key in ((1, "accuracy"), (2, "last20")):
        values = [r[key] for r in results]
        assert rows["mean"][column] == f"{statistics.mean(values):.2f}"
        assert rows["std"][column] == f"{statistics.stdev(values):.2f}"
    assert rows["n"][1] == "3" and "over the training seed, with n - 1" in said.out
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith("seed 1: step")] == [
        line for line in lines if line.startswith(("seed 1: step 6/12 ", "seed 1: step 12/12 "))
    ]
    assert sum(line.startswith("fixmatch on digits@40: ") for line in lines) == 1  # said once
    # each is the run that --seed makes
    assert command(*OPTIONS, "--seed", 2, "--out", tmp_path / "single").code == 0
    assert state(tmp_path / "single") == state(tmp_path / "all" / "seed-2")

    report = json.loads(command("report", tmp_path / "all", "--json").out)  # which says the same
    (group,) = report["groups"]
    assert (group["n"], group["over"]) == (3, "training seed") and group["runs"] == [
        str(tmp_path / "all" / f"seed-{i}") for i in range(3)
    ]
    for name in ("mean", "std"):
        assert rows[name][1:3] == [f"{group[name][measure]:.2f}" for measure in ("accuracy", "last20")]

    before = files(tmp_path / "all")
    again = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path / "all")
    assert again.code == 0 and again.err == "" and files(tmp_path / "all") == before
    assert again.out.splitlines()[1:] == said.out.splitlines()[1:]
    assert "3 runs in" in again.out and ": 3 finished already; " in again.out


@pytest.mark.slow
def test_folds_with_their_baselines(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("train", *TINY.split(), "--baseline", "--no-progress", "--folds", "1,3")
    assert said.code == 0
    root = Path("runs/digits@40-fixmatch-folds")
    rows = table(said.out)
    for fold in (1, 3):
        run, baseline = Run(root / f"fold-{fold}"), Run(root / f"fold-{fold}" / "baseline")
        assert run.config.data.name == f"digits.{fold}@40" and run.config.seed == 1
        assert run.split.fingerprint == baseline.split.fingerprint
        assert isinstance(baseline.config.algorithm, fl.Supervised)
        numbers = [r.result[key] for r in (run, baseline) for key in ("accuracy", "last20")]
        assert rows[f"fold {fold}"][2:6] == [f"{n:.2f}" for n in numbers]
    values = [Run(root / f"fold-{fold}" / "baseline").result["accuracy"] for fold in (1, 3)]
    assert rows["mean"][3] == f"{statistics.mean(values):.2f}" and "over the split seed" in said.out
    groups = {g["algorithm"]: g for g in json.loads(command("report", root, "--json").out)["groups"]}
    for column, name in ((1, "fixmatch"), (3, "supervised")):
        assert (groups[name]["n"], groups[name]["over"]) == (2, "split seed")
        for row in ("mean", "std"):
            assert rows[row][column] == f"{groups[name][row]['accuracy']:.2f}"
    # the same split as the name says
    split = json.loads(command("split", "digits.3@40", "--json").out)
    assert Run(root / "fold-3").split.fingerprint == split["fingerprint"]


@pytest.mark.slow
def test_a_failed_seed_does_not_stop_the_others(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def broken(self: Trainer, number: int) -> None:
        step(self, number)
        if self.config.seed == 1 and number == 6:
            for weight in self.model.parameters():
                weight.data.fill_(float("nan"))
        if self.config.seed == 2 and number == 5:
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Trainer, "step", broken)
    said = command(*OPTIONS, "--seeds", "0..3", "--out", tmp_path)
    assert said.code == 1
    rows = {line[:6]: line.rstrip() for line in said.out.splitlines()}
    reason = "failed: the loss was not finite at step 8 ("
    assert reason in rows["seed 1"] and f"seed 1 {reason}" in said.err
    log = tmp_path / "seed-2.log"
    assert f"failed: ZeroDivisionError: division by zero (what it said is in {log})" in rows["seed 2"]
    assert "in broken" in log.read_text()
    accuracies = [Run(tmp_path / f"seed-{i}").result["accuracy"] for i in (0, 3)]
    assert table(said.out)["mean"][1] == f"{statistics.mean(accuracies):.2f}" and table(said.out)["n"][1] == "2"

    monkeypatch.undo()  # the same command goes on, from the steps that were saved
    again = command(*OPTIONS, "--seeds", "0..3", "--out", tmp_path)
    assert again.code == 0 and ": 2 finished already, 2 to go on with; " in again.out
    assert f"resuming {tmp_path / 'seed-1'} at step 4 of 12" in again.err
    assert table(again.out)["n"][1] == "4"
    assert command(*OPTIONS, "--seed", 1, "--out", tmp_path / "whole").code == 0
    assert state(tmp_path / "whole") == state(tmp_path / "seed-1")


def both(here: int, signum: int) -> None:
    """A signal to this process and to the one `here`, which may be the same."""
    if here != os.getpid():
        os.kill(here, signum)
    os.kill(os.getpid(), signum)


def signal_after(monkeypatch: pytest.MonkeyPatch, *, seed: int, steps: int, signum: int) -> None:
    """The training with `seed`, and this process, as a terminal has it, get a signal after so many steps."""
    step, here = Trainer.step, os.getpid()

    def interrupted(self: Trainer, number: int) -> None:
        step(self, number)
        if self.config.seed == seed and number + 1 == steps:
            both(here, signum)

    monkeypatch.setattr(Trainer, "step", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    signal_after(monkeypatch, seed=1, steps=7, signum=signum)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert said.code == 128 + signum and said.err.splitlines()[-1] == (
        f"fewlabels: stopped by {signal.Signals(signum).name} with 1 of 3 runs finished; the same command goes on with "
        "the others"
    )
    assert table(said.out)["seed 1"][-6:] == ["stopped", "at", "step", "7", "of", "12"]
    assert table(said.out)["seed 2"][-2:] == ["not", "begun"] and not (tmp_path / "seed-2").exists()
    monkeypatch.undo()
    assert command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path).code == 0
    assert command(*OPTIONS, "--seed", 1, "--out", tmp_path / "whole").code == 0
    assert state(tmp_path / "whole") == state(tmp_path / "seed-1")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_step_of_a_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    """That run is finished, and no other one begins."""
    signal_after(monkeypatch, seed=1, steps=12, signum=signum)
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path)
    name = signal.Signals(signum).name
    assert said.code == 128 + signum and f"stopped by {name} with 2 of 3 runs finished" in said.err.splitlines()[-1]
    assert Run(tmp_path / "seed-1").finished and not (tmp_path / "seed-2").exists()
    assert table(said.out)["seed 2"][-2:] == ["not", "begun"] and table(said.out)["n"][1] == "2"


@pytest.mark.slow
def test_a_signal_that_leaves_nothing_undone(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_after(monkeypatch, seed=1, steps=12, signum=signal.SIGTERM)
    said = command(*OPTIONS, "--seeds", "0,1", "--out", tmp_path)
    assert said.code == 0 and table(said.out)["n"][1] == "2"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["Job.progress", "Plain.end"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int, where: str
) -> None:
    """When the training is over and its end is being told."""
    module, _, name = where.partition(".")
    holder: Any = {"Job": Job, "Plain": Plain}[module]
    real, told = getattr(holder, name), []

    def signalled(*args: Any) -> Any:
        if not told and (tmp_path / "seed-0" / "result.json").exists():
            told.append(True)
            os.kill(os.getpid(), signum)
        return real(*args)

    monkeypatch.setattr(holder, name, signalled)
    said = command(*OPTIONS, "--seeds", "0,1", "--out", tmp_path)
    assert told and said.code == 128 + signum
    assert f"stopped by {signal.Signals(signum).name} with 1 of 2 runs finished" in said.err.splitlines()[-1]
    assert table(said.out)["n"][1] == "1" and not (tmp_path / "seed-1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_step_before_the_baseline(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    signal_after(monkeypatch, seed=1, steps=12, signum=signum)
    options = ("train", *TINY.split(), "--baseline", "--no-progress")
    path, name = tmp_path / "run", signal.Signals(signum).name
    said = command(*options, "--out", path)
    assert said.code == 128 + signum and Run(path).finished and not (path / "baseline").exists()
    assert said.err.splitlines()[-1] == (
        f"fewlabels: stopped by {name} before the baseline; {path} is finished, and "
        f"`fewlabels train --resume {path}` goes on with the baseline"
    )
    several = command(*options, "--seeds", "1", "--out", tmp_path / "all")
    assert (
        several.code == 128 + signum and f"stopped by {name} with 0 of 1 runs finished" in several.err.splitlines()[-1]
    )
    assert table(several.out)["seed 1"][-6:] == ["stopped", "at", "step", "12", "of", "24"]
    monkeypatch.undo()
    assert command("train", "--resume", path, "--baseline").code == 0 and Run(path / "baseline").finished
    assert command(*options, "--seeds", "1", "--out", tmp_path / "all").code == 0
    assert state(path / "baseline") == state(tmp_path / "all" / "seed-1" / "baseline")


@pytest.mark.slow
def test_sigterm_twice_ends_at_once_and_is_told_from_ctrl_c(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, here = Trainer.step, os.getpid()

    def impatient(self: Trainer, number: int) -> None:
        step(self, number)
        both(here, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", impatient)
    assert command(*OPTIONS, "--out", tmp_path / "run").code == 143
    said = command(*OPTIONS, "--seeds", "0,1", "--out", tmp_path / "all")
    assert said.code == 143 and "stopped by SIGTERM with 0 of 2 runs finished" in said.err.splitlines()[-1]


def test_a_signal_while_the_data_of_one_run_are_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewlabels.training import loop as training

    monkeypatch.setattr(training, "load_source", lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM))
    said = command(*OPTIONS, "--out", tmp_path / "run")
    assert said.code == 143 and said.sentence == "stopped; nothing was saved since the last checkpoint"


@pytest.mark.slow
def test_a_signal_while_the_data_are_read(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabels.training import loop as training

    here = os.getpid()
    monkeypatch.setattr(training, "load_source", lambda *args, **options: both(here, signal.SIGTERM))
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path)
    assert said.code == 143 and "stopped by SIGTERM with 0 of 3 runs finished" in said.err


@pytest.mark.slow
def test_what_an_old_run_left_is_not_in_the_table(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails before it replaces another one."""
    from fewlabels.training import loop as training

    assert command(*OPTIONS, "--seed", 0, "--out", tmp_path / "seed-0").code == 0
    monkeypatch.setattr(training, "load_source", lambda *args, **options: Path(tmp_path / "gone").read_text())
    said = command(*OPTIONS, "--steps", 13, "--seeds", "0", "--out", tmp_path, "--overwrite")
    assert said.code == 1 and Run(tmp_path / "seed-0").finished
    words = f"- - - failed: {tmp_path / 'gone'}: No such file or directory"
    assert " ".join(table(said.out)["seed 0"][2:]) == words


def test_a_narrow_terminal_shows_all_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    jobs = plan(fl.Train(steps=10**6), "seed", (10, 11), out=tmp_path)
    board = Bars(jobs)
    board.step(jobs[1], 123_456, "test 72.50 %  loss 0.496" + 9 * "  loss 0.496")
    out = io.StringIO()
    Console(file=out, width=80).print(*board.progress.get_renderables())
    every, one = map(str.rstrip, out.getvalue().splitlines())
    assert every.startswith("all ") and " 123456/2000000 " in every and every.endswith(" 0 of 2 runs finished")
    assert one.startswith("seed 11 ") and " 123456/1000000 " in one and one.endswith("…") and len(one) <= 77  # and ^C


@pytest.mark.slow
def test_costs_of_all(command: Command, tmp_path: Path) -> None:
    assert command(*OPTIONS, "--seeds", "1", "--out", tmp_path / "all").code == 0
    before = files(tmp_path)
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path / "all", "--dry-run")
    assert said.code == 0 and files(tmp_path) == before
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["data", "net", "step", "memory", "images", "time"]
    assert lines[-4].startswith("seed 0   about 0:0") and lines[-2].startswith("seed 2   about 0:0")
    assert lines[-3] == f"seed 1   finished already, {tmp_path / 'all' / 'seed-1'}"
    assert lines[-1].startswith("all      about 0:0") and " for 3 runs, one after another" in lines[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--seeds 0..", "--seeds must be numbers such as 0..4 or 1,3,5, got '0..'"),
        ("--folds 5..1", "--folds 5..1 counts downwards: write 1..5"),
        (
            "--seeds 0,1 --folds 1,2",
            "give --seeds or --folds: the deviation over both kinds of seeds at once would be that of neither",
        ),
        ("--seeds 0,1 --seed 3", "--seeds says the seeds of the training: leave out --seed"),
        (
            "--folds 1,2 --data digits.3@40",
            "--folds says the seeds of the split: leave out --data.seed and the SEED of the data's name",
        ),
        (
            "--folds 1,2 --data digits",
            "--folds draws other labels for each seed, and here all labels of digits are used: add --data.labels",
        ),
        (
            "--folds 1,2 --data.seed=3",
            "--folds says the seeds of the split: leave out --data.seed and the SEED of the data's name",
        ),
    ],
)
def test_asked_wrongly(command: Command, tmp_path: Path, words: str, sentence: str) -> None:
    said = command("train", *words.split(), "--out", tmp_path / "run")
    assert said.code == 2 and said.out == "" and said.sentence == sentence and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_asked_wrongly_about_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    assert command(*OPTIONS, "--out", path).code == 0
    assert command("train", "--resume", path, "--seeds", "0,1").sentence == (
        "--resume goes on with one run; with --seeds the same command as before goes on with all"
    )
    assert command(*OPTIONS, "--seeds", "0,1", "--out", path).sentence == (
        f"{path} is a single run: name another --out for several"
    )
    assert command(*OPTIONS, "--folds", "0,1", "--data.split", path / "split.json").sentence == (
        "--folds draws a split for each seed: leave out --data.split"
    )
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert command(*OPTIONS, "--seeds", "0,1").sentence == (
        "--seeds trains each run on one device: start it without torchrun, and it takes every visible GPU"
    )


# ---- processes of their own


LONG = ("--steps", 100_000, "--save-every", 100_000, "--eval-every", 100_000)


@pytest.mark.slow
def test_two_processes_at_the_same_time(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When both train, one is killed; then comes Ctrl-C, to this process and to the other one, as a terminal has it."""
    children: dict[str, Any] = {}
    training: set[str] = set()

    def watched(job: Job, place: str | None, threads: int) -> Any:
        children[job.name] = start(job, place, threads)
        return children[job.name]

    class Impatient(Plain):
        def step(self, job: Job, step: int, text: str) -> None:
            if "loss" in text:
                training.add(job.name)
            if training == {"seed 0", "seed 9"}:
                children["seed 9"].kill()

        def end(self, job: Job, outcome: Outcome) -> None:
            super().end(job, outcome)
            if job.name == "seed 9":
                os.kill(os.getpid(), signal.SIGINT)
                children["seed 0"].send_signal(signal.SIGINT)

    monkeypatch.setattr("fewlabels.sweep.pool.start", watched)
    monkeypatch.setattr("fewlabels.commands.many.Plain", Impatient)
    monkeypatch.setattr("fewlabels.commands.many.gpus", lambda device: ["cpu", "cpu"])
    said = command(*OPTIONS, *LONG, "--seeds", "0,9", "--out", tmp_path)
    assert said.code == 130 and "stopped by SIGINT with 0 of 2 runs finished" in said.err.splitlines()[-1]
    assert said.out.startswith(f"2 runs in {tmp_path}: 2 new; one on each of the GPUs cpu, cpu\n")
    rows = {line[:6]: line.rstrip() for line in said.out.splitlines()}
    log = tmp_path / "seed-9.log"
    assert rows["seed 9"].endswith(f"failed: its process was killed by SIGKILL (what it said is in {log})")
    assert log.read_text().startswith("fixmatch on digits@40: ")
    step = Run(tmp_path / "seed-0").checkpoint().step
    assert rows["seed 0"].endswith(f"stopped at step {step} of 100000") and list(tmp_path.glob("*.log")) == [log]
    # what it trained is what this process trains
    signal_after(monkeypatch, seed=0, steps=6, signum=signal.SIGTERM)
    with pytest.raises(Interrupted):
        fl.train(Run(tmp_path / "seed-0").config, out=tmp_path / "single")
    assert len(state(tmp_path / "single")[1]) == 2
    assert state(tmp_path / "single")[1] == state(tmp_path / "seed-0")[1][:2]


@pytest.mark.slow
def test_children_save_when_the_parent_is_killed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there to tell them, and neither may keep the input of the other one open."""
    monkeypatch.setattr("fewlabels.sweep.pool.start", start)
    monkeypatch.setattr("fewlabels.commands.many.gpus", lambda device: ["cpu", "cpu"])
    options = (*OPTIONS, *LONG, "--seeds", "0,1", "--out", tmp_path)
    parent = multiprocessing.get_context("fork").Process(target=command, args=options)
    parent.start()
    records = [tmp_path / f"seed-{i}" / "metrics.jsonl" for i in (0, 1)]
    until(lambda: not parent.is_alive() or all(r.is_file() and r.stat().st_size for r in records))
    assert parent.is_alive()
    parent.kill()
    until(lambda: all(Run(tmp_path / f"seed-{i}").checkpoints() for i in (0, 1)))


def until(true: Callable[[], bool]) -> None:
    """Wait; what never comes is an error after minutes that the busiest machine does not need."""
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
