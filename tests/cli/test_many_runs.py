"""`fewlabels train --seeds` and `--folds`: tiny trainings, in this process and in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels import many
from fewlabels.many import Job, Outcome, plan
from fewlabels.run import Run
from fewlabels.step import Trainer

Command = Callable[..., Any]
TINY = "--data digits@40 --net small-4 --batch 4 --uratio 2 --steps 12 --eval-every 6 --save-every 4 --log-every 3"
OPTIONS = ("train", *TINY.split(), "--no-baseline", "--no-progress")


def table(out: str) -> dict[str, list[str]]:
    """Rows by what stands in front."""
    words = [line.split() for line in out.splitlines()[1:]]
    return {" ".join(w[:2]) if w[0] in ("seed", "fold") else w[0]: w for w in words if w}


def state(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a training determines: weights, and all records but their times."""
    run = Run(path)
    records = [{k: v for k, v in r.items() if not k.endswith("_ms")} for r in run.metrics()]
    return (run.checkpoint().path / "weights.safetensors").read_bytes(), records


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


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

    before = files(tmp_path / "all")
    again = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path / "all")
    assert again.code == 0 and again.err == "" and files(tmp_path / "all") == before
    assert again.out.splitlines()[1:] == said.out.splitlines()[1:]
    assert "3 runs in" in again.out and ": 3 finished already; " in again.out


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
    # the same split as the name says
    split = json.loads(command("split", "digits.3@40", "--json").out)
    assert Run(root / "fold-3").split.fingerprint == split["fingerprint"]


def test_a_failed_seed_does_not_stop_the_others(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def broken(self: Trainer, number: int) -> None:
        step(self, number)
        if self.config.seed == 1 and number == 6:
            for weight in self.net.parameters():
                weight.data.fill_(float("nan"))
        if self.config.seed == 2 and number == 5:
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Trainer, "step", broken)
    said = command(*OPTIONS, "--seeds", "0..3", "--out", tmp_path)
    assert said.code == 1
    rows = {line[:6]: line for line in said.out.splitlines()}
    reason = "failed: the loss was not finite at step 8 ("
    assert reason in rows["seed 1"] and f"seed 1 {reason}" in said.err
    log = tmp_path / "seed-2.log"
    assert f"failed: ZeroDivisionError: division by zero (traceback in {log})" in rows["seed 2"]
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


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer, number: int) -> None:
        step(self, number)
        if self.config.seed == 1 and number == 6:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(Trainer, "step", interrupted)
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


def test_a_signal_while_the_data_are_read(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabels import training

    monkeypatch.setattr(training, "load_source", lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM))
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path)
    assert said.code == 143 and "stopped by SIGTERM with 0 of 3 runs finished" in said.err


def test_costs_of_all(command: Command, tmp_path: Path) -> None:
    assert command(*OPTIONS, "--seeds", "1", "--out", tmp_path / "all").code == 0
    before = files(tmp_path)
    said = command(*OPTIONS, "--seeds", "0..2", "--out", tmp_path / "all", "--dry-run")
    assert said.code == 0 and files(tmp_path) == before
    lines = said.out.splitlines()
    start = "".join(lines[: lines.index("}") + 1])
    assert json.loads(start)["steps"] == 12
    assert lines[-4].startswith("seed 0  about 0:0") and lines[-2].startswith("seed 2  about 0:0")
    assert lines[-3] == f"seed 1  finished already, {tmp_path / 'all' / 'seed-1'}"
    assert lines[-1].startswith("all     about 0:0") and " for 3 runs, one after another" in lines[-1]


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
            "--folds 1,2 --data.seed=3",
            "--folds says the seeds of the split: leave out --data.seed and the SEED of the data's name",
        ),
    ],
)
def test_asked_wrongly(command: Command, tmp_path: Path, words: str, sentence: str) -> None:
    said = command("train", *words.split(), "--out", tmp_path / "run")
    assert said.code == 2 and said.out == "" and said.sentence == sentence and not (tmp_path / "run").exists()


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
    monkeypatch.setenv("RANK", "0")
    assert command(*OPTIONS, "--seeds", "0,1").sentence == (
        "--seeds trains each run on one device: start it without torchrun, and it takes every visible GPU"
    )


# ---- processes of their own


class Board:
    """Remembers how many trained at the same time."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, str]] = []
        self.ends: dict[str, Outcome] = {}
        self.on: set[str] = set()
        self.together: set[frozenset[str]] = set()

    def step(self, job: Job, step: int, text: str) -> None:
        self.steps.append((job.name, step, text))
        if "loss" in text:
            self.on.add(job.name)
            self.together.add(frozenset(self.on))

    def line(self, job: Job, text: str) -> None:
        pass

    said = line

    def end(self, job: Job, outcome: Outcome) -> None:
        self.on.discard(job.name)
        self.ends[job.name] = outcome


def test_two_processes_at_the_same_time(short: Callable[..., Any], tmp_path: Path) -> None:
    """Two on two devices at a time: one is killed from outside, one ends, and the third takes the place."""
    config = short(steps=60, save_every=10, log_every=2, eval_every=30)
    jobs = plan(config, "seed", range(3), out=tmp_path / "all")
    children: dict[str, many.Child] = {}
    killed = plan(short(steps=10**6, log_every=2), "seed", (9,), out=tmp_path / "all")[0]

    def launch(job: Job, device: str, post: many.Post) -> many.Child:
        children[job.name] = many.Child(job, device, post, 1)
        return children[job.name]

    class Deadly(Board):
        def step(self, job: Job, step: int, text: str) -> None:
            super().step(job, step, text)
            if {"seed 0", "seed 9"} <= self.on:
                children["seed 9"].process.kill()

    board = Deadly()
    slow = plan(short(steps=2000, log_every=2), "seed", (0,), out=tmp_path / "all")[0]
    outcomes, signum = many.spread([killed, slow, *jobs[1:]], ["cpu", "cpu"], board, launch)
    assert signum == 0 and frozenset({"seed 0", "seed 9"}) in board.together
    assert outcomes["seed 9"] == Outcome("failed", "its process was killed by SIGKILL")
    assert [outcomes[f"seed {i}"].kind for i in range(3)] == ["finished"] * 3
    assert not list((tmp_path / "all").glob("*.log"))  # nothing was said
    fl.train(jobs[2].config, out=tmp_path / "single")
    assert state(tmp_path / "single") == state(tmp_path / "all" / "seed-2")


SPREAD = """
import sys
from fewlabels import many
from fewlabels.commands import many as command
from fewlabels import cli
command.gpus = lambda device: ["cpu", "cpu"]
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_children_save_when_the_parent_is_stopped_or_dies(tmp_path: Path, signum: int) -> None:
    """Ctrl-C goes to the whole group, as a terminal sends it; after SIGKILL nobody is there to tell them."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    options = [*OPTIONS, "--seeds", "0..2", "--steps", "100000", "--save-every", "100000", "--out", str(tmp_path)]
    records = [tmp_path / f"seed-{i}" / "metrics.jsonl" for i in (0, 1)]
    with subprocess.Popen(
        [sys.executable, "-c", SPREAD, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as program:
        deadline = time.monotonic() + 120
        while not all(record.is_file() and record.stat().st_size for record in records):
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        if signum == signal.SIGKILL:
            program.kill()
        else:
            os.killpg(program.pid, signum)
        out, err = program.communicate(timeout=120)
    while not all(Run(tmp_path / f"seed-{i}").checkpoints() for i in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "seed-2").exists()
    if signum == signal.SIGINT:
        assert program.returncode == 130 and "stopped by SIGINT with 0 of 3 runs finished" in err.splitlines()[-1]
        step = Run(tmp_path / "seed-0").checkpoint().step
        assert f"stopped at step {step} of 100000" in out and "Traceback" not in err
        assert "one on each of the GPUs cpu, cpu" in out and not list(tmp_path.glob("*.log"))
