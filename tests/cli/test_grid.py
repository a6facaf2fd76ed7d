"""`fewlabels train --grid`: tiny trainings in forks."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels.commands import grid
from fewlabels.commands.options import UsageError
from fewlabels.commands.train_options import Command as Options
from fewlabels.runs.run import Run
from fewlabels.sweep.plan import plan_rows
from fewlabels.training.step import Trainer
from sweeps import OPTIONS, state

pytestmark = pytest.mark.usefixtures("forked", "no_report")

Command = Callable[..., Any]


def cells(out: str) -> dict[str, list[str]]:
    """The rows of the closing table by what stands in front, which has no space."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def put(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_methods_over_seeds(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each method, with mean and deviation; one run of each is stopped or fails, and goes on."""
    table = put(tmp_path / "methods.csv", "algorithm,tau,name", "fixmatch,0.7,", "", "supervised,,plain")
    options = (*OPTIONS[:1], *OPTIONS[1:], "--grid", table, "--seeds", "0,1", "--out", tmp_path / "all")
    step, here = Trainer.step, os.getpid()

    def broken(self: Trainer, number: int) -> None:
        step(self, number)
        if self.config.algorithm.name == "fixmatch" and self.config.seed == 1 and number == 6:
            raise ZeroDivisionError("division by zero")
        if self.config.algorithm.name == "supervised" and self.config.seed == 1 and number == 6:
            os.kill(here, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", broken)
    said = command(*options)
    assert said.code == 143 and "stopped by SIGTERM with 2 of 4 runs finished" in said.err.splitlines()[-1]
    assert said.out.startswith(f"4 runs in {tmp_path / 'all'}: 4 new; one after another\n")
    rows = cells(said.out)
    log = tmp_path / "all" / "fixmatch,tau=0.7" / "seed-1.log"
    assert "fixmatch,tau=0.7 seed 0: step 12/12  test " in said.err and "ZeroDivisionError" in log.read_text()
    why = f"seed 1 failed: ZeroDivisionError: division by zero (what it said is in {log})"
    assert " ".join(rows["fixmatch,tau=0.7"]).endswith(why) and rows["fixmatch,tau=0.7"][4] == "1"
    assert " ".join(rows["plain"]).endswith("seed 1 stopped at step 7 of 12") and rows["plain"][1] == "-"
    monkeypatch.undo()

    again = command(*options)
    assert again.code == 0 and "4 runs in" in again.out and ": 2 finished already, 2 to go on with; " in again.out
    assert again.out.splitlines()[1].split() == ["final", "std", "last", "20", "std", "n", "seconds"]
    assert "means and std: over the training seed, with n - 1" in again.out
    for name, row in {"fixmatch,tau=0.7": "fixmatch", "plain": "supervised"}.items():
        results = [Run(tmp_path / "all" / name / f"seed-{i}").result for i in (0, 1)]
        expected = []
        for key in ("accuracy", "last20"):
            values = [result[key] for result in results]
            expected += [f"{statistics.mean(values):.2f}", f"{statistics.stdev(values):.2f}"]
        assert cells(again.out)[name][:5] == [*expected, "2"]
        assert [(r["algorithm"], r["seed"]) for r in results] == [(row, 0), (row, 1)]
    # each is the run that its options make alone
    single = ("train", "fixmatch", "--tau", 0.7, *OPTIONS[1:], "--seed", 1, "--out", tmp_path / "single")
    assert command(*single).code == 0
    assert state(tmp_path / "single") == state(tmp_path / "all" / "fixmatch,tau=0.7" / "seed-1")
    assert (
        not list((tmp_path / "all").rglob("*.log"))
        and not (tmp_path / "all" / "plain" / "seed-0" / "baseline").exists()
    )


@pytest.mark.slow
def test_rows_without_seeds(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "rates.csv", "optim.lr,optim.nesterov", "0.03,true", "0.1,false")
    said = command(*OPTIONS, "--grid", "rates.csv")
    assert said.code == 0
    root = Path("runs/digits@40-rates")
    first, second = (
        Run(root / name) for name in ("optim.lr=0.03,optim.nesterov=true", "optim.lr=0.1,optim.nesterov=false")
    )
    assert [(run.config.optim.lr, run.config.optim.nesterov) for run in (first, second)] == [(0.03, True), (0.1, False)]
    assert cells(said.out)[second.path.name][:2] == [f"{second.result[k]:.2f}" for k in ("accuracy", "last20")]
    assert "mean" not in cells(said.out) and "std:" not in said.out
    assert f"2 runs in {root}: 2 finished already; " in command(*OPTIONS, "--grid=rates.csv").out
    # another row is another run; the others stay
    put(tmp_path / "rates.csv", "optim.lr,optim.nesterov", "0.03,true", "0.2,true", "0.1,false")
    costs = command(*OPTIONS, "--grid", "rates.csv", "--dry-run")
    assert costs.code == 0 and len(costs.out.splitlines()) == 4
    assert costs.out.splitlines()[0].split() == [first.path.name, "finished", "already,", str(first.path)]
    assert " about 0:0" in costs.out.splitlines()[1] and " for 3 runs, one after another" in costs.out.splitlines()[3]
    assert command(*OPTIONS, "--grid", "rates.csv", "--seeds", "1,2").sentence == (
        f"{first.path} is a single run: name another --out for several"
    )


@pytest.mark.slow
def test_what_a_row_means(tmp_path: Path) -> None:
    """It is the command line with its options behind; an empty cell leaves what stands there."""
    table = put(
        tmp_path / "g.csv", '\ufeffalgorithm, tau, steps,"data",name', "uda,,,,a", 'fixmatch,0.7,50,cifar10.3@250,"b"'
    )
    first, second = grid.rows(str(table), ["--data", "digits@40", "--steps", "20", "--tau", "0.8"])
    assert (first.name, first.command.train.algorithm.name, first.command.train.algorithm.tau) == ("a", "uda", 0.8)  # type: ignore[union-attr]
    assert (first.command.train.steps, first.command.train.data.name) == (20, "digits@40")
    assert (second.line, second.command.train.algorithm.tau, second.command.train.steps) == (3, 0.7, 50)  # type: ignore[union-attr]
    assert second.command.train.data.name == "cifar10.3@250"
    assert isinstance(first.command, Options) and first.command.grid is None
    jobs = plan_rows({row.name: row.command.train for row in (first, second)}, "g", "fold", (1, 2), out=tmp_path / "o")
    assert [job.name for job in jobs] == ["a fold 1", "a fold 2", "b fold 1", "b fold 2"]
    assert [job.path for job in jobs][2:] == [tmp_path / "o" / "b" / f"fold-{i}" for i in (1, 2)]
    assert [job.config.data.name for job in jobs][2:] == ["cifar10.1@250", "cifar10.2@250"]
    assert {job.root for job in jobs} == {tmp_path / "o"}


@pytest.mark.parametrize(
    ("lines", "more", "sentence"),
    [
        (
            ["stepz", "9"],
            "",
            "line 1: train has no option --stepz; did you mean steps? (a column is an option without its dashes)",
        ),
        (["tau", "0.9", "1.5"], "", "line 3: --tau must be a number from 0 to 1, got 1.5"),
        (["steps", ""], "", "has no row below its heads"),
        (["steps,name", "5,a", "many,b"], "", "line 3: --steps must be a whole number, got 'many'"),
        (["optim.nesterov", "yes"], "", "line 2: --optim.nesterov must be true or false, got 'yes'"),
        (["algorithm", "fixmtach"], "", "line 2: train has no algorithm 'fixmtach'; did you mean fixmatch? (known: "),
        (["algorithm,tau", "mixmatch,0.9"], "", "line 2: --tau is an option of "),
        (
            ["algorithm", "uda"],
            "fixmatch",
            "line 1: the column algorithm names the algorithms, and so does the command",
        ),
        (
            ["out", "a"],
            "",
            "line 1: --out is the same for all rows: leave out the column, and give it on the command line",
        ),
        (["tau,tau", "1,1"], "", "line 1: there are two columns tau"),
        (["tau,", "1,1"], "", "line 1: column 2 has no name: write the option that it holds"),
        (["tau", "1,1"], "", "line 2: there are 2 cells in place of 1"),
        (
            ["tau", "0.9", "0.8", "0.9"],
            "",
            "line 4: its name is tau=0.9, as that of line 2: give it another in a column name",
        ),
        (["tau,name", "1,../x"], "", "line 2: its folder cannot be called '../x'"),
        (["seed", "3"], "--seeds 0,1", "line 2: --seeds says the seeds of the training: leave out --seed"),
        (
            ["data", "digits"],
            "--folds 1,2",
            "line 2: --folds draws other labels for each seed, and here all labels of ",
        ),
        (["data", "digitz@40"], "", "line 2: "),
        (
            ["algorithm", "self-training"],
            "",
            "line 2: self-training in a grid needs --teachers that are trained already",
        ),
        (["tau", '"0.9'], "", 'is no CSV table: unexpected end of data; is a quote (") missing?'),
        ([""], "", "is empty: it needs a line of options, and a line of values for each run"),
    ],
)
def test_asked_wrongly(command: Command, tmp_path: Path, lines: list[str], more: str, sentence: str) -> None:
    table = put(tmp_path / "grid.csv", *lines)
    said = command("train", *more.split(), "--grid", table, "--out", tmp_path / "runs")
    separator = " " if sentence.startswith(("is ", "has ")) else ", "
    assert said.code == 2 and said.out == "" and said.sentence.startswith(f"--grid {table}{separator}{sentence}")
    assert not (tmp_path / "runs").exists()


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--grid .*/none.csv cannot be read: No such file or directory"):
        grid.rows(str(tmp_path / "none.csv"), [])
