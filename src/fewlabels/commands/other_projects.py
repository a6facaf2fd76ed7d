"""The options of five published programs, and of many others, in our words: for the hint that one of them gets on our
command line.

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


EVERYBODY = "* "
"""Begins what stands in place of a project in the rows of words that many programs use, such as those of ultralytics,
timm and Keras; a command of ours follows, and the remark ends the sentence that our option begins."""


def projects() -> Mapping[str, tuple[Flag, ...]]:
    """Every option of each project, by its repository. CADR-FixMatch has those of google-research/fixmatch too."""
    return {project: flags for project, flags in _rows().items() if not project.startswith(EVERYBODY)}


@cache
def _rows() -> Mapping[str, tuple[Flag, ...]]:
    text = resources.files(__package__).joinpath("other_projects.tsv").read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    found: dict[str, list[Flag]] = {}
    for project, *cells in rows:
        found.setdefault(project, []).append(Flag(*cells))
    return {project: tuple(flags) for project, flags in found.items()}


def usual(command: str, word: str) -> str | None:
    """What to write for an option that many programs have under the name `word` (``--imgsz``), in a sentence."""
    return _usual().get((command, word.lstrip("-").partition("=")[0].replace("_", "-").lower()))


@cache
def _usual() -> Mapping[tuple[str, str], str]:
    """The rows of no project: our option and what it is, by command and name."""
    return {
        (project.removeprefix(EVERYBODY), name): " ".join(filter(None, (ours, remark)))
        for project, flags in _rows().items()
        if project.startswith(EVERYBODY)
        for name, ours, remark in flags
    }


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
