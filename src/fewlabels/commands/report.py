"""fewlabels report"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from fewlabels.commands.options import UsageError, parse
from fewlabels.commands.tables import print_whole, table, width_of
from fewlabels.runs.report import MEASURES, DamagedRun, Entry, find, groups, read
from fewlabels.runtime import files, streams
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.screen import Screen, print_line

HEADINGS = {
    "accuracy": "final",
    "last1": "last 1",
    "last10": "last 10",
    "last20": "last 20",
    "last50": "last 50",
    "mean10": "mean 10",
    "mean20": "mean 20",
    "best_on_test": "best on test",
    "geometric_mean": "geom. mean",
    "labels_only": "labels only",
    "seconds": "seconds",
}
LEGEND = """\
accuracies in percent, of the averaged weights
final: after the last step
last N: median over the last N evaluations (over all, if there are fewer)
mean N: their mean
best on test: chosen by the test images that it is measured on"""
COMPARED = "labels only: logistic regression on the features of a learned net, of the same labels"

WORDS = ("name", "algorithm", "data", "net", "settings", "over", "device", "measured on")
"""Columns that hold no numbers."""

SPARE = ("mean 20", "mean 10", "last 50", "last 10", "geom. mean", "seconds")
"""Columns that a terminal too narrow for the table does without, the first one first; --csv has them."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Put runs into one table: final, medians, means and best of each; mean and standard deviation over seeds."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run folders, or folders with runs in them; baselines come along."""
    json: bool = False
    """Print one JSON object."""
    csv: bool = False
    """Print CSV."""
    choose: bool = False
    """Put finished runs on the same split in order of how good they may be, by their unlabeled images alone."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels report")
    if not command.runs:
        raise UsageError("report needs run folders, or a folder of runs such as runs/")
    if command.json and command.csv:
        raise UsageError("report prints either --json or --csv")
    if command.choose:
        from fewlabels.commands.choose import show  # with torch, which a report does without

        return show(_paths(command.runs), "json" if command.json else "csv" if command.csv else "table")
    entries, damaged = _read(command.runs)
    together = groups(entries)
    if command.json:
        print(json.dumps({"runs": [entry.row for entry in entries], "groups": together}, indent=1, allow_nan=False))
    elif command.csv:
        _csv(entries, together)
    else:
        _show(entries, together)
    for sentence in damaged:
        print(sentence, file=sys.stderr)
    if damaged:
        print(f"fewlabels: {len(damaged)} run(s) could not be read and are left out", file=sys.stderr)
    return 1 if damaged else 0


def _paths(folders: Sequence[str]) -> list[Path]:
    """Every run once, in the order of the folders."""
    paths: dict[Path, Path] = {}
    for folder in folders:
        for path in find(expanded(folder)):
            paths.setdefault(real(path), path)
    return list(paths.values())


def _read(folders: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Every run once, in the order of the folders, and a sentence for each that cannot be read."""
    entries, damaged = [], []
    for path in _paths(folders):
        try:
            entries.append(read(path))
        except DamagedRun as error:
            damaged.append(str(error))
    return entries, damaged


def _csv(entries: Sequence[Entry], together: Sequence[Mapping[str, Any]]) -> None:
    """A line per run, then two per group, `mean` and `std`; what is not known is empty."""
    runs = [{"kind": "run", **entry.row} for entry in entries]
    lines = [
        {"kind": kind, **group, "path": " ".join(group["runs"]), **group[kind]}
        for group in together
        for kind in ("mean", "std")
    ]
    identity = [name for name in runs[0] if name not in MEASURES] if runs else []
    columns = [*identity, "n", "unfinished", "over", "repeats", *MEASURES]
    streams.put(files.csv_text([columns, *([row.get(name) for name in columns] for row in [*runs, *lines])]))


def _show(entries: Sequence[Entry], together: Sequence[Mapping[str, Any]]) -> None:
    rows = [entry.row for entry in entries]
    values = {k: {row[k] for row in rows} - {None} for k in ("data", "net", "steps", "labels", "device", "measured_on")}
    same = {k: next(iter(known), None) for k, known in values.items() if rows and len(known) < 2}
    if any(not row["finished"] for row in rows):
        same.pop("steps", None)
    out = Screen()
    cells = []
    compares = any(row["labels_only"] is not None for row in rows)
    shown = [m for m in MEASURES if m != "last1" and (compares or m != "labels_only")]
    for row in rows:
        text = {k: _text(row[k]) for k in ("name", "algorithm", "data", "net", "labels", "device", "measured_on")}
        text |= {"seed": _seed(row), "steps": str(row["steps"])}
        if not row["finished"]:
            text["steps"] = f"{row['steps_done']} of {row['steps']}"
        cells.append({**text, **{HEADINGS[m]: _number(m, row[m]) for m in shown}})
    _print(out, cells, hidden=same)
    if said := ", ".join(f"{k.replace('_', ' ')} {_text(v)}" for k, v in same.items()):
        print_line(out, f"{'all runs' if len(rows) > 1 else 'the run'}: {said}")
    if unfinished := sum(not row["finished"] for row in rows):
        print_line(out, f"{unfinished} of {len(rows)} runs not finished: their medians are those so far")
    if together:
        print("\nmean ± standard deviation over seeds, of finished runs")
        _print(out, [_group_cells(group, compares) for group in together], hidden=same)
    print_line(out, f"\n{LEGEND}")
    if compares:
        print_line(out, COMPARED)


def _group_cells(group: Mapping[str, Any], compares: bool) -> dict[str, str]:
    n, repeats = group["n"], group["repeats"]
    every = n + group["unfinished"]
    text = {k: _text(group[k]) for k in ("algorithm", "data", "net", "steps", "labels")}
    if any(group["settings"].values()):
        text["settings"] = " ".join(f"{k}={_text(v)}" for k, v in group["settings"].items())
    text["n"] = str(n) if n == every else f"{n} of {every}"
    text["over"] = _text(group["over"]) + (f" ({repeats} repeated)" if repeats else "")
    for measure in MEASURES:
        if measure in ("last1", "last50", "mean10", "mean20"):  # --json has them
            continue
        if measure == "labels_only" and not compares:
            continue
        mean, deviation = group["mean"][measure], group["std"][measure]
        text[HEADINGS[measure]] = _number(measure, mean)
        if deviation is not None:
            text[HEADINGS[measure]] += f" ± {_number(measure, deviation)}"
    return text


def _print(out: Screen, rows: Sequence[Mapping[str, str]], hidden: Mapping[str, Any]) -> None:
    """A table as wide as it must be; on a terminal with a line under its head, and without `SPARE` if it must."""
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in hidden]
    made = _table(out, columns, rows)
    left_out: list[str] = []
    for name in SPARE if out.is_terminal else ():
        if width_of(out, made) > out.width and name in columns:
            left_out.append(name)
            made = _table(out, [column for column in columns if column not in left_out], rows)
    print_whole(out, made)
    if left_out:
        print_line(out, f"no room for {', '.join(left_out)}: --csv and --json have all")


def _table(out: Screen, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Table:
    cells = [[row.get(name, "") for name in columns] for row in rows]
    return table([name.replace("_", " ") for name in columns], cells, left=WORDS, ruled=out.is_terminal, whole=True)


def _seed(row: Mapping[str, Any]) -> str:
    """One number where both seeds are the same, as in the usual protocol."""
    seed, split = row["seed"], row["split_seed"]
    return str(seed) if seed == split else f"{seed} (split {split})"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(measure: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if measure == "seconds" else f"{value:.2f}"
