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
from fewlabels.commands.tables import left_out, print_whole, table, width_of
from fewlabels.report.rows import COMPARED, LEGEND, compares, constants, group_cells, run_cells, word
from fewlabels.runs.report import MEASURES, DamagedRun, Entry, find, groups, read
from fewlabels.runtime import files, streams
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.screen import Screen, print_line

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
    html: str | None = None
    """Write a page that holds all it shows: what one run has learnt, or several beside each other."""
    choose: bool = False
    """Put finished runs on the same split in order of how good they may be, by their unlabeled images alone."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels report")
    if not command.runs:
        raise UsageError("report needs run folders, or a folder of runs such as runs/")
    if command.json and command.csv:
        raise UsageError("report prints either --json or --csv")
    if command.html is not None and (command.json or command.csv or command.choose):
        raise UsageError("--html writes a page: leave out --json, --csv and --choose")
    paths, others = _paths(command.runs)
    for sentence in others:
        print(f"{sentence}; it is left out", file=sys.stderr)
    return max(_reported(command, paths), 1 if others else 0)


def _reported(command: Command, paths: Sequence[Path]) -> int:
    """The report in the form that was asked for; the exit status."""
    if command.html is not None:
        from fewlabels.commands.page import write  # with torch, which a report does without

        return write(paths, expanded(command.html))
    if command.choose:
        from fewlabels.commands.choose import show  # with torch, which a report does without

        return show(paths, "json" if command.json else "csv" if command.csv else "table")
    entries, damaged = _read(paths)
    together = groups(entries)
    if command.json:
        print(json.dumps({"runs": [entry.row for entry in entries], "groups": together}, indent=1, allow_nan=False))
    elif command.csv:
        _csv(entries, together)
    else:
        _show(entries, together)
    return left_out(damaged)


def _paths(folders: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Every run once, in the order of the folders, and a sentence for each name that leads to none.

    Beside runs lie other things, such as the questions of `fewlabels label`, and runs/* names them too. Raises
    ValueError for what is not there, and where no name leads to a run.
    """
    paths: dict[Path, Path] = {}
    others: list[str] = []
    for folder in map(expanded, folders):
        try:
            for path in find(folder):
                paths.setdefault(real(path), path)
        except ValueError as error:
            if len(folders) == 1 or not folder.exists():
                raise
            others.append(str(error))
    if not paths:
        raise UsageError(others[0])
    return list(paths.values()), others


def _read(paths: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """What the runs say, and a sentence for each that cannot be read."""
    entries, damaged = [], []
    for path in paths:
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
    rows, cells = [entry.row for entry in entries], run_cells(entries)
    same, also = constants(rows), compares(entries)
    out = Screen()
    _print(out, cells, hidden=same)
    if said := ", ".join(f"{k.replace('_', ' ')} {word(v)}" for k, v in same.items()):
        print_line(out, f"{'all runs' if len(rows) > 1 else 'the run'}: {said}")
    if unfinished := sum(not row["finished"] for row in rows):
        print_line(out, f"{unfinished} of {len(rows)} runs not finished: their medians are those so far")
    if together:
        print("\nmean ± standard deviation over seeds, of finished runs")
        _print(out, [group_cells(group, also) for group in together], hidden=same)
    print_line(out, f"\n{LEGEND}")
    if also:
        print_line(out, COMPARED)


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
