"""The options of five published programs in our words: for the hint that one of them gets on our command line.

They stand in other_projects.tsv, from which `python benchmarks/options_table.py` writes the tables of
docs/coming-from.md: project, option there, what does the same here, remark, with a tab between; cells that are empty at
the end of a row may be left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple


class Flag(NamedTuple):
    """An option of another program."""

    name: str
    """As it is written there, without dashes."""
    ours: str
    """What does the same here; empty if nothing has to."""
    remark: str = ""


@cache
def projects() -> Mapping[str, tuple[Flag, ...]]:
    """Every option of each project, by its repository. CADR-FixMatch has those of google-research/fixmatch too."""
    text = resources.files(__package__).joinpath("other_projects.tsv").read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    found: dict[str, list[Flag]] = {}
    for project, *cells in rows:
        found.setdefault(project, []).append(Flag(*cells))
    return {project: tuple(flags) for project, flags in found.items()}


_SIZE = "--data.image-size is the side of own pictures in pixels"

USUAL: Mapping[str, str] = {
    "epoch": "--steps counts steps of --batch labeled images",
    "epochs": "--steps counts steps of --batch labeled images",
    "num-epochs": "--steps counts steps of --batch labeled images",
    "time-limit": "--time 10m takes as many steps as fit into ten minutes",
    "max-time": "--time 10m takes as many steps as fit into ten minutes",
    "patience": "it trains all of --steps; `fewlabels evaluate RUN --checkpoint best` has the best state",
    "imgsz": _SIZE,
    "image-size": _SIZE,
    "model": "--net names the network",
    "weights": "--net.pretrained True, or FILE, starts from learned weights",
    "pretrained": "--net.pretrained True, or FILE, starts from learned weights",
    "learning-rate": "--optim.lr is the learning rate",
    "lr0": "--optim.lr is the learning rate",
    "project": "--out is the folder of the run",
    "output": "--out is the folder of the run",
    "gpus": "--device cuda:N names one GPU, and torchrun takes several",
}
"""Words of many programs for what `fewlabels train` calls otherwise."""


def hint(word: str) -> str | None:
    """What to write for the option `word` (``--mu`` or ``--mu=7``), if one of the projects has it."""
    name = word.lstrip("-").partition("=")[0]
    for same in (str, _loose):
        for wanted in (name, name.removeprefix("no")):  # absl turns a flag off with --noNAME
            rows = [(p, f) for p, flags in projects().items() for f in flags if same(f.name) == same(wanted)]
            if word.startswith("-") and rows:
                return _sentence(rows)
    return None


def _loose(name: str) -> str:
    return name.lower().replace("-", "_")


def _sentence(rows: list[tuple[str, Flag]]) -> str:
    (project, flag), *others = rows
    same = any(other.ours == flag.ours for _, other in others)
    who = f"--{flag.name} of {project.partition(',')[0]}{' and others' if same else ''}"
    text = f"{who} is {flag.ours} here" if flag.ours else f"{who} has no counterpart"
    return f"{text}: {flag.remark}" if flag.remark else text
