"""docs/leaderboard.md: what was published, and what we measured, each number with its source and its rule.

    python benchmarks/leaderboard.py                        # write the page from results/
    python benchmarks/leaderboard.py --list                 # our rows
    python benchmarks/leaderboard.py --rerun ROW [--dry-run] [--threads N]

`--rerun` runs the commands of a row again, of all its seeds, and says whether they give what is recorded: equal, within
the deviation of the recorded runs, or not, which ends it with exit status 1. Data sets are where the commands look for
them: `$ML_DATA`, or a folder here. results/published.jsonl has a line for each published row, as its source gives it;
the class `Published` says what stands in it.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.tables import Table, markdown
from fewlabels.algorithms import ALGORITHMS
from fewlabels.runs.report import mean_and_deviation
from own_rows import Row, again, rows, run, verdict
from results_table import _text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "leaderboard.md"
FILE = "published.jsonl"

RULES = {
    "last": "the weights after the last step",
    "last20": "the median of the last 20 checkpoints",
    "mean20": "the mean of the last 20 evaluations",
    "unstated": "the source does not say",
    "best": "the best on the test images over the run",
}
"""How a number was taken from its run, in the order of the tables."""


@dataclass(frozen=True)
class Board:
    """A table: one data set."""

    title: str
    about: str
    columns: tuple[str, ...]
    """Numbers of labels, or other settings of the task."""
    by: str
    """The column that orders the rows of one rule."""


BOARDS = {
    "cifar10": Board("CIFAR-10", "By the number of labels.", ("40", "250", "4000"), "250"),
    "cifar100": Board(
        "CIFAR-100",
        "By the number of labels. USB's net is WRN-28-2 here, too; most others have WRN-28-8, with 16 times as many "
        "weights. Numbers of one cannot be compared with those of the other.",
        ("400", "2500", "10000"),
        "2500",
    ),
    "svhn": Board("SVHN", "By the number of labels.", ("40", "250", "1000"), "250"),
    "stl10": Board("STL-10", "By the number of labels.", ("40", "250", "1000"), "1000"),
    "imagenet": Board(
        "ImageNet",
        "By the share of the labels, or their number. Accuracy is top-1.",
        ("1 %", "10 %", "100000"),
        "10 %",
    ),
    "cifar10-lt": Board(
        "CIFAR-10 with a long tail",
        "Columns: labels/unlabeled images of the largest class, then the ratio of the largest to the smallest class "
        "among labeled/unlabeled images; a negative ratio is reversed. The test images are balanced.",
        (
            *("1500/3000 50/50", "1500/3000 100/100", "1500/3000 100/-100", "1500/3000 150/150"),
            *("500/4000 100/100", "500/4000 100/-100", "500/4000 150/150"),
        ),
        "1500/3000 100/100",
    ),
    "cifar100-lt": Board(
        "CIFAR-100 with a long tail",
        "Columns as above.",
        ("150/300 10/10", "150/300 10/-10", "150/300 15/15", "150/300 20/20", "150/300 50/50", "150/300 100/100"),
        "150/300 10/10",
    ),
    "stl10-lt": Board(
        "STL-10 with a long tail",
        "Columns: labels of the largest class, all unlabeled images, the ratio among the labeled ones.",
        ("150/all 10", "150/all 20"),
        "150/all 10",
    ),
    "cifar10-lt-crest": Board(
        "CIFAR-10 with a long tail, a tenth labeled",
        "CReST's protocol, by the ratio of the largest to the smallest class.",
        ("50", "100", "200"),
        "100",
    ),
    "cifar10-mnar": Board(
        "CIFAR-10, labels missing not at random",
        "The protocol of [CADR](algorithms/cadr.md), by the ratio of the largest to the smallest class among the "
        "labels. CADR's own numbers are not here: no source of them could be opened.",
        ("20", "50", "100"),
        "50",
    ),
    "cifar100-mnar": Board("CIFAR-100, labels missing not at random", "As above.", ("50", "100", "200"), "100"),
    "mini-imagenet": Board(
        "mini-ImageNet",
        "1,000 labels; or labels missing not at random, by the ratio as above.",
        ("1000", "gamma 50", "gamma 100"),
        "1000",
    ),
    "cifar10-open": Board(
        "CIFAR-10, unlabeled images of no class",
        "The six animals are known, the other four classes only among the unlabeled images. Columns: known classes, "
        "labels. Accuracy on test images of the known classes.",
        ("6-24", "6-150"),
        "6-150",
    ),
    "cifar100-open": Board(
        "CIFAR-100, unlabeled images of no class",
        "Columns as above.",
        ("20-80", "20-500", "50-200", "50-1250", "80-320", "80-2000"),
        "50-1250",
    ),
    "usb-cv": Board(
        "USB's tasks with learned weights",
        "Columns: data set and number of labels. A net that has learned from other pictures is another contest than "
        "the tables above.",
        (
            *("cifar100_200", "cifar100_400", "stl10_40", "stl10_100", "eurosat_20", "eurosat_40"),
            *("tissuemnist_80", "tissuemnist_400", "semi_aves_3959"),
        ),
        "cifar100_400",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A line of results/published.jsonl: a method on a data set, as one source gives it."""

    method: str
    algorithm: str | None
    """Its name in fewlabels; None: not here."""
    data: str
    """A name of `BOARDS`."""
    measure: str
    """What the values are, `accuracy` or `error`, in percent."""
    values: Mapping[str, Mapping[str, Any]]
    """By column: `value` and `deviation` (or None), or `runs`, one value for each seed."""
    seeds: int | None
    """How many runs or draws are behind a value; None: the source does not say."""
    rule: str
    """A name of `RULES`."""
    net: str
    steps: int | None
    year: int
    source: Mapping[str, str]
    """`name` and `url`: the paper, or a file of a repository at a commit."""
    via: str | None
    """Where the numbers were read, if not in the source itself."""
    note: str | None
    """What to know before one compares."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("data", self.data, BOARDS),
            ("rule", self.rule, RULES),
            ("measure", self.measure, ("accuracy", "error")),
            ("algorithm", self.algorithm, (None, *ALGORITHMS)),
        ):
            if value not in known:
                raise ValueError(f"{self.method}: {name} is one of {', '.join(map(str, known))}, got {value!r}")
        if set(self.source) != {"name", "url"}:
            raise ValueError(f"{self.method}: source has name and url, got {sorted(self.source)}")
        if not self.values:
            raise ValueError(f"{self.method}: values are at least one, got none")
        for column, cell in self.values.items():
            if column not in BOARDS[self.data].columns:
                raise ValueError(f"{self.method}: {self.data} has no column {column!r}")
            if set(cell) not in ({"runs"}, {"value", "deviation"}):
                raise ValueError(f"{self.method}: a cell has runs, or value and deviation, got {sorted(cell)}")
            numbers = cell["runs"] if "runs" in cell else [cell["value"], cell["deviation"] or 0]
            if not numbers or not all(isinstance(n, int | float) and 0 <= n <= 100 for n in numbers):
                raise ValueError(f"{self.method}: numbers of {column!r} are in percent, 0 to 100, got {numbers}")

    def accuracy(self, column: str) -> tuple[float, float | None] | None:
        """Accuracy and deviation in percent; None where the source has none."""
        cell = self.values.get(column)
        if cell is None:
            return None
        runs = cell.get("runs")
        value, deviation = mean_and_deviation(runs) if runs else (cell["value"], cell["deviation"])
        return (value if self.measure == "accuracy" else 100 - value), deviation


def published(file: Path) -> list[Published]:
    """The lines of a file. Raises ValueError, with the line's number, for what is wrong or not there."""
    if not file.is_file():
        raise ValueError(f"{file} is not there: the published numbers belong there")
    names = {field.name for field in fields(Published)}
    out = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            values = json.loads(line)
            if values.keys() != names:
                raise ValueError(f"missing or unknown fields: {', '.join(sorted(values.keys() ^ names))}")
            out.append(Published(**values))
        except ValueError as fault:
            raise ValueError(f"{file.name}, line {number}: {fault}") from None
    return out


HEAD = """\
# Leaderboard

Written by `python benchmarks/leaderboard.py` from [results/published.jsonl](../results/published.jsonl) and our own
records in `results/`. Accuracy in percent, errors of the sources subtracted from 100; behind ± the deviation that the
source gives, or that of a sample where it gives each run.

Before you compare two numbers:

- **Best on test is not a result one can have.** Whoever takes the best of many evaluations on the test images has
  looked at the answers. The column `rule` says how a number was taken:
{rules}
- **At 40 labels the draw of the labels dominates.** The sources' means for FixMatch on CIFAR-10 go from {low:.1f} to
  {high:.1f} there. A few draws say little about methods, and one draw nothing.
- **Nets, steps and views differ** between the sources.
- **Second-hand numbers** say where they were read (*via*). What could not be read anywhere is left out.
- Ours are **bold**, and *not run* where we have not measured a method that fewlabels has. They share the papers' data
  and numbers of labels, and nothing else: nets and lengths stand beside them, and the papers' long trainings have not
  been made. What we measured on other tasks is on [the page of results](results.md).

Rows are in order of the rule, what one can have first, then of the accuracy in the column that a table names.
"""
OWN = """\
## How ours were run

`python benchmarks/leaderboard.py --rerun ROW` runs a row again and compares; `--list` has these rows and those of
[results.md](results.md), but for the label loop and for baselines that a run makes itself. CIFAR-10 is looked for in
`$ML_DATA`.
"""


def render(folder: Path) -> str:
    """The text of docs/leaderboard.md for a folder of results."""
    lines = published(folder / FILE)
    ours = [row for row in rows(folder).values() if row.data in BOARDS and row.labels in BOARDS[row.data].columns]
    told = [line.accuracy("40") for line in lines if (line.algorithm, line.data) == ("fixmatch", "cifar10")]
    means = [cell[0] for cell in told if cell]
    rules = "\n".join(f"    - `{rule}`: {what}" for rule, what in RULES.items())
    parts = [HEAD.format(rules=rules, low=min(means, default=math.nan), high=max(means, default=math.nan))]
    for data, board in BOARDS.items():
        about = f"{board.about} Ordered by {board.by}."
        own = [row for row in ours if row.data == data]
        table = _table(board, [line for line in lines if line.data == data], own)
        parts.append(
            f"## {board.title}\n\n{about}\n\n{markdown(table, left=(0, *(len(board.columns) + i for i in (1, 3, 5))))}"
        )
    blocks = [
        f"`{row.name}`: {row.device}; net {row.net}; commit {', '.join(row.commits)}.\n\n"
        + "\n".join(["```bash", *row.commands, "```\n"])
        for row in ours
    ]
    return "\n".join([*parts, OWN, *blocks])


def _table(board: Board, lines: Sequence[Published], ours: Sequence[Row]) -> Table:
    """Published and own rows by rule and accuracy, and what we have not run below our own."""
    order = sorted(board.columns, key=lambda column: column != board.by)
    entries: list[tuple[Any, list[str]]] = []

    def add(rule: str, accuracies: Mapping[str, tuple[float, float | None] | None], cells: list[str]) -> None:
        told = [accuracies.get(column) for column in order]
        key = (list(RULES).index(rule), [-cell[0] if cell else math.inf for cell in told], cells[0])
        entries.append((key, cells))

    for line in lines:
        known = {column: line.accuracy(column) for column in board.columns}
        name = f"[{line.method}](algorithms/{line.algorithm}.md)" if line.algorithm else line.method
        numbers = [_text(*cell, 2) if cell else "" for cell in known.values()]
        add(line.rule, known, [name, *numbers, line.rule, str(line.seeds or ""), line.net, *_origin(line)])
    for row in ours:
        numbers = [f"**{_text(*row.measured, 2)}**" if column == row.labels else "not run" for column in board.columns]
        how = "[how](#how-ours-were-run)"
        cells = [f"**{row.label}**", *numbers, "last", str(len(row.accuracies)), row.net, _steps(row.steps), how]
        add("last", {row.labels: row.measured}, cells)
    left = [name for name in ALGORITHMS if name not in {row.algorithm for row in ours}]
    names = ", ".join(left) if ours else f"all {len(left)} methods of fewlabels"
    width = len(board.columns)
    entries.append(((0, [math.inf] * (width + 1), ""), [f"**{names}**", *["not run"] * width, "last", "", "", "", ""]))
    head = ("method", *board.columns, "rule", "seeds", "net", "steps", "source")
    return Table(head, [cells for _, cells in sorted(entries, key=lambda entry: entry[0])])


def _origin(line: Published) -> list[str]:
    """Steps, and the source with what is to be known of it."""
    words = [f"[{line.source['name']}]({line.source['url']})", f"via {line.via}" if line.via else None, line.note]
    return [_steps(line.steps), "; ".join(word for word in words if word)]


def _steps(steps: int | None) -> str:
    """Powers of two as the papers write them."""
    if steps and steps >= 2**15 and steps & (steps - 1) == 0:
        return f"2^{steps.bit_length() - 1}"
    return f"{steps:,}" if steps else ""


def rerun(name: str, folder: Path, threads: int | None, dry_run: bool) -> int:
    """Run a row again and compare; exit status. Raises ValueError for a name that no row has."""
    known = rows(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise ValueError(f"there is no row {name!r}{f'; is {near[0]} meant?' if near else ''} --list has all of them")
    row = known[name]
    if dry_run:
        print("\n".join(row.commands))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        found = again(row, Path(temporary), threads or row.threads, run)
    if found is None:
        return 1
    agrees, told = verdict(row.accuracies, found)
    before, now = (_text(*mean_and_deviation(values), 2) for values in (row.accuracies, found))
    print(f"{name}: recorded {before} ({len(row.accuracies)} runs), now {now} ({len(found)} runs): {told}")
    return 0 if agrees else 1


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name and accuracy of each row of ours")
    parser.add_argument("--rerun", metavar="ROW", help="run the commands of a row again and compare")
    parser.add_argument("--dry-run", action="store_true", help="with --rerun: print the commands")
    parser.add_argument("--threads", type=int, help="CPU threads of a run; default: as many as it had")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl files")
    options = parser.parse_args(args)
    if options.dry_run and not options.rerun:
        parser.error("--dry-run goes with --rerun")
    try:
        if options.rerun:
            return rerun(options.rerun, options.results, options.threads, options.dry_run)
        if options.list:
            for name, row in rows(options.results).items():
                print(f"{name}  {_text(*row.measured, 2)}  ({len(row.accuracies)} runs)")
            return 0
        PAGE.write_text(render(options.results))
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
