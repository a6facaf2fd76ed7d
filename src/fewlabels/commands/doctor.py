"""fewlabels doctor"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Annotated

import tyro

from fewlabels.commands.options import parse
from fewlabels.commands.page import known
from fewlabels.report.doctor import unseen
from fewlabels.report.story import sound, tell
from fewlabels.runs.run import Run
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.screen import Screen, print_line


@dataclass(frozen=True, kw_only=True)
class Command:
    """Say what may be wrong with a training, by its records: each finding with its number and the option that may help.

    The exit status is 0 with findings, too."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    json: bool = False
    """Print one JSON object."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels doctor")
    run = Run(expanded(command.run))
    story = known(tell(run.path))
    with sound(run.path):
        verdict, found, blind = story.verdict(), story.findings, [*unseen(story.case), *story.notes]
    if command.json:
        rows = [each._asdict() for each in found]
        print(json.dumps({"run": str(run.path), "findings": rows, "not_looked_at": blind}, indent=1, allow_nan=False))
        return 0
    out = Screen()
    print_line(out, f"{run.path}: {verdict}")
    for each in found:
        print_line(out, f"\n{each.name}: {each.text}")
        print_line(out, f"  may help: {each.option.replace('RUN', shlex.quote(str(run.path)))}")
    if not found:
        print_line(out, "\nnothing that the records show looks wrong")
    if blind:
        print_line(out, f"\nnot looked at: {'; '.join(blind)}")
    return 0
