"""`fewlabels report`: table, JSON and CSV of run folders made by hand and of real ones."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fewlabels.commands import report
from fewlabels.report.rows import HEADINGS

ACCURACIES = {1: [90.0, 94.0, 92.0], 2: [80.0, 81.0, 88.5], 3: [91.0, 89.0, 95.25]}


def make_run(path: Path, seed: int, accuracies: list[float], *, done: bool = True, algorithm: str = "fixmatch") -> None:
    train = {
        "algorithm": {"name": algorithm},
        "data": {"name": "digits@40", "seed": 1},
        "net": {"name": "small"},
        "steps": 300,
        "seed": seed,
    }
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"train": train}))
    (path / "data.json").write_text(json.dumps({"labeled_counts": [20, 20]}))
    records = [
        {"kind": "eval", "step": 100 * (i + 1), "test": {"ema": {"accuracy": a, "geometric_mean": a - 1}}}
        for i, a in enumerate(accuracies)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if done:
        result = {"seconds": 10.0 * seed, "seconds_from_step": 0, "device": "CPU, 1 thread(s)"}
        (path / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for seed, accuracies in ACCURACIES.items():
        make_run(folder / f"s{seed}", seed, accuracies)
    make_run(folder / "s1" / "baseline", 1, [70.0], algorithm="supervised")
    make_run(folder / "begun", 4, [50.0, 60.0], done=False)
    return folder


def strict(text: str) -> Any:
    """JSON without the NaN and Infinity that Python would take."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_json(command: Callable[..., Any], runs: Path) -> None:
    said = command("report", runs, "--json")
    assert said.code == 0 and said.err == ""
    answer = strict(said.out)
    rows = {row["name"]: row for row in answer["runs"]}
    assert list(rows) == ["begun", "s1", "s1/baseline", "s2", "s3"]
    assert rows["s2"]["accuracy"] == 88.5 and rows["s2"]["last20"] == 81 and rows["s2"]["best_on_test"] == 88.5
    assert rows["begun"]["accuracy"] is None and rows["begun"]["steps_done"] == 200
    (group,) = answer["groups"]
    assert (group["n"], group["unfinished"], group["over"]) == (3, 1, "training seed")
    final = [a[-1] for a in ACCURACIES.values()]
    assert group["mean"]["accuracy"] == pytest.approx(statistics.mean(final))
    assert group["std"]["accuracy"] == pytest.approx(statistics.stdev(final))
    assert group["mean"]["seconds"] == 20 and group["std"]["seconds"] == 10
    assert [Path(path).name for path in group["runs"]] == ["begun", "s1", "s2", "s3"]


def test_csv(command: Callable[..., Any], runs: Path) -> None:
    said = command("report", runs, "--csv")
    lines = list(csv.DictReader(io.StringIO(said.out)))
    assert said.code == 0 and [line["kind"] for line in lines] == ["run"] * 5 + ["mean", "std"]
    assert lines[3]["name"] == "s2" and float(lines[3]["last10"]) == 81 and lines[3]["n"] == ""
    assert lines[0]["accuracy"] == "" and lines[0]["finished"] == "False"
    final = [a[-1] for a in ACCURACIES.values()]
    assert float(lines[5]["accuracy"]) == pytest.approx(statistics.mean(final)) and lines[5]["n"] == "3"
    assert float(lines[6]["accuracy"]) == pytest.approx(statistics.stdev(final))
    assert "nan" not in said.out.lower()


def test_table_is_plain_and_whole_when_piped(command: Callable[..., Any], runs: Path) -> None:
    said = command("report", runs)
    assert said.code == 0 and "…" not in said.out and "\x1b" not in said.out
    lines = {line.split()[0]: line.split() for line in said.out.splitlines() if line}
    assert lines["s2"] == ["s2", "fixmatch", "2", "(split", "1)", "300", "88.50", "81.00", "81.00", "81.00", "83.17",
                           "83.17", "88.50", "87.50", "20"]  # fmt: skip
    assert "200 of 300" in " ".join(lines["begun"]) and "all runs: data digits@40, net small, labels 40" in said.out
    assert "best on test" in said.out and "1 of 5 runs not finished" in said.out
    assert "3 of 4  training seed  91.92 ± 3.38" in said.out  # by hand: (92 + 88.5 + 95.25) / 3


def test_a_narrow_terminal_gets_fewer_columns(runs: Path) -> None:
    headings = [heading for heading in HEADINGS.values() if heading != "labels only"]  # of runs that have it
    rows = [{"name": "a", **dict.fromkeys(headings, "12.34")}]
    said = {}
    for width in (160, 81, 80, 30):
        out = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False, markup=False)
        report._print(out, rows, hidden={})
        assert isinstance(out.file, io.StringIO) and out.width == width
        said[width] = re.sub(r"\x1b\[[\d;]*m", "", out.file.getvalue())
    assert all(heading in said[160] for heading in headings) and "no room" not in said[160]
    # by hand: the other eight have 58 letters, seven gaps of three spaces, and a space at either end
    assert said[81].splitlines()[-1] == "no room for mean 20, mean 10, last 50: --csv and --json have all"
    assert said[80].splitlines()[-1] == "no room for mean 20, mean 10, last 50, last 10: --csv and --json have all"
    assert max(map(len, said[81].splitlines())) == 81 and "geom. mean" in said[80]
    table, note = said[30].rsplit("no room for ", 1)
    assert " ".join(note.split()).startswith("mean 20, mean 10, last 50, last 10, geom. mean, seconds: ")
    assert "final" in table and "best on test" in table, "these stay, whatever the width"


def test_the_report_of_a_training_is_its_result(command: Callable[..., Any], digits_run: Any) -> None:
    (row,) = strict(command("report", digits_run.path, "--json").out)["runs"]
    result = json.loads((digits_run.path / "result.json").read_text())
    for key in ("accuracy", "last1", "last10", "last20", "last50", "mean10", "mean20", "geometric_mean", "seconds"):
        assert row[key] == result[key]
    assert row["best_on_test"] == result["best"] and row["labels"] == 40 and row["steps"] == 120


def test_a_run_named_twice_counts_once(command: Callable[..., Any], runs: Path) -> None:
    said = command("report", runs / "s3", runs, runs / "s3", "--json")
    assert [row["name"] for row in strict(said.out)["runs"]] == ["s3", "begun", "s1", "s1/baseline", "s2"]


def test_damaged_runs_are_named_and_left_out(command: Callable[..., Any], runs: Path) -> None:
    (runs / "s1" / "config.json").write_text("{")
    said = command("report", runs, "--json")
    assert said.code == 1 and [row["name"] for row in strict(said.out)["runs"]] == ["begun", "s1/baseline", "s2", "s3"]
    first, last = said.err.splitlines()
    assert first == f"{runs / 's1' / 'config.json'} is not JSON"
    assert last == "fewlabels: 1 run(s) could not be read and are left out"
    for other in ("begun", "s2", "s3", "s1/baseline"):
        shutil.rmtree(runs / other)
    assert command("report", runs).code == command("report", runs, "--csv").code == 1


def test_what_lies_beside_runs_is_left_out(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    """`runs/*` names the questions that `label RUN --page` has put there, too."""
    questions, page = tmp_path / "run-label", tmp_path / "all.html"
    questions.mkdir()
    (questions / "label.csv").write_text("path,label\n")
    page.touch()
    said = command("report", digits_run.path, questions, page, "--json")
    assert said.code == 1 and [row["path"] for row in strict(said.out)["runs"]] == [str(digits_run.path)]
    why = "is not a run folder and has none below it: there is no config.json; it is left out"
    assert said.err.splitlines() == [f"{questions} {why}", f"{page} is a file, and no run; it is left out"]
    assert command("report", questions, page).code == command("report", digits_run.path, tmp_path / "none").code == 2


def test_wrong_reports(command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = command("report", tmp_path / "empty")
    assert said.code == 2 and "is not a run folder and has none below it" in said.sentence
    assert command("report", tmp_path / "none").sentence == f"there is no run folder {tmp_path / 'none'}"
    assert command("report").sentence == "report needs run folders, or a folder of runs such as runs/"
    assert command("report", "x", "--json", "--csv").sentence == "report prints either --json or --csv"
    assert command("report", "x", "--jsn").sentence == "report has no option --jsn; did you mean --json?"


@pytest.mark.slow
def test_a_report_does_not_import_torch(runs: Path) -> None:
    program = (
        "import sys; from fewlabels import cli; code = cli.run(['report', sys.argv[1]]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(runs)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
