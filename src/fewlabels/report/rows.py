"""The cells of a table of runs, for the terminal and for a page. No torch here, so that a report starts at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewlabels.runs.report import MEASURES, Entry

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


def constants(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same in all rows of `Entry.row` and can stand apart from a table of them; None: unknown in all."""
    rows = list(rows)
    values = {k: {row[k] for row in rows} - {None} for k in ("data", "net", "steps", "labels", "device", "measured_on")}
    same = {k: next(iter(known), None) for k, known in values.items() if rows and len(known) < 2}
    if any(not row["finished"] for row in rows):
        same.pop("steps", None)
    return same


def compares(entries: Iterable[Entry]) -> bool:
    """Whether a run has something besides that it is compared with."""
    return any(entry.row["labels_only"] is not None for entry in entries)


def run_cells(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """A row of text for each run, by heading."""
    shown = [m for m in MEASURES if m != "last1" and (compares(entries) or m != "labels_only")]
    cells = []
    for row in (entry.row for entry in entries):
        text = {k: word(row[k]) for k in ("name", "algorithm", "data", "net", "labels", "device", "measured_on")}
        text |= {"seed": _seed(row), "steps": str(row["steps"])}
        if not row["finished"]:
            text["steps"] = f"{row['steps_done']} of {row['steps']}"
        cells.append({**text, **{HEADINGS[m]: _number(m, row[m]) for m in shown}})
    return cells


def group_cells(group: Mapping[str, Any], also: bool) -> dict[str, str]:
    """A row of text for one of `runs.report.groups`, by heading."""
    n, repeats = group["n"], group["repeats"]
    every = n + group["unfinished"]
    text = {k: word(group[k]) for k in ("algorithm", "data", "net", "steps", "labels")}
    if any(group["settings"].values()):
        text["settings"] = " ".join(f"{k}={word(v)}" for k, v in group["settings"].items())
    text["n"] = str(n) if n == every else f"{n} of {every}"
    text["over"] = word(group["over"]) + (f" ({repeats} repeated)" if repeats else "")
    for measure in MEASURES:
        if measure in ("last1", "last50", "mean10", "mean20"):  # --json has them
            continue
        if measure == "labels_only" and not also:
            continue
        mean, deviation = group["mean"][measure], group["std"][measure]
        text[HEADINGS[measure]] = _number(measure, mean)
        if deviation is not None:
            text[HEADINGS[measure]] += f" ± {_number(measure, deviation)}"
    return text


def _seed(row: Mapping[str, Any]) -> str:
    """One number where both seeds are the same, as in the usual protocol."""
    seed, split = row["seed"], row["split_seed"]
    return str(seed) if seed == split else f"{seed} (split {split})"


def word(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(measure: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if measure == "seconds" else f"{value:.2f}"
