"""The command line of bench.py: finds the measurement, shows and files it."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import augment, ceiling, cost, e2e, loader, peers, record, scale, step, tables
from bench.measure import TOLERANCE, NotExact
from bench.options import Options, Stages
from fewlabels.commands.options import UsageError, parse
from fewlabels.runtime.words import nearest
from fewlabels.training.log import bar

HELP = """\
bench: how fast fewlabels is on this machine, as ratios to references that are timed in turn in the same process.
Results are compared first; a run whose reference does not take as long as itself ({tolerance:.0%}) does not count.

usage: python benchmarks/bench.py COMMAND [options]

{commands}

`python benchmarks/bench.py COMMAND --help` lists the options of a command; each has --json.
"""


@dataclass(frozen=True, kw_only=True)
class Render:
    """Put the tables of results/bench/ into README.md and docs/performance.md of a checkout."""

    check: bool = False
    """Change nothing; say whether the documents are up to date."""


Run = Callable[[Any, Stages], record.Result]

COMMANDS: dict[str, tuple[type, Run]] = {
    "augment": (augment.Augment, augment.run),
    "data": (loader.Data, loader.run),
    "step": (step.Steps, step.run),
    "cost": (cost.Cost, cost.run),
    "ceiling": (ceiling.Ceiling, ceiling.run),
    "e2e": (e2e.EndToEnd, lambda options, stages: (scale if options.images else e2e).run(options, stages)),
    "peers": (peers.Peers, peers.run),
}


CLASSES: dict[str, type] = {name: cls for name, (cls, _) in COMMANDS.items()} | {"render": Render}


def main(args: list[str]) -> int:
    """Run the command line `args`; returns the exit status. Raises ValueError for what was asked wrongly."""
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, CLASSES))
        lines = [f"  {name:{width}}  {str(cls.__doc__).splitlines()[0]}" for name, cls in CLASSES.items()]
        print(HELP.format(commands="\n".join(lines), tolerance=TOLERANCE), end="")
        return 0
    name = args[0]
    if name not in CLASSES:
        raise UsageError(f"bench has no command {name!r}{nearest(name, CLASSES)} (known: {', '.join(CLASSES)})")
    options: object = parse(CLASSES[name], args[1:], prog=f"bench {name}")
    if isinstance(options, Render):
        return render(options.check)
    assert isinstance(options, Options)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # as many workers as were asked for
    try:
        result = COMMANDS[name][1](options, partial(bar, progress=options.progress))
    except NotExact as error:
        print(f"fewlabels: {error}", file=sys.stderr)
        return 1
    path = record.write(result, options.out)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    said = f"written to {path}" if path else "not written"
    if result.get("wrong"):
        print(f"fewlabels: not timed, as their losses are off: {', '.join(result['wrong'])} ({said})", file=sys.stderr)
        return 1
    if result["valid"]:
        print(said, file=sys.stderr)
        return 0
    print(
        f"fewlabels: not valid: the reference took {result['control']:.3f} times as long as itself, "
        f"{TOLERANCE:.0%} are allowed; run it again when the machine is quiet ({said})",
        file=sys.stderr,
    )
    return 1


def show(result: record.Result) -> None:
    """The tables of a run."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for table in tables.tables(result):
        shown = Table(box=SIMPLE_HEAD)
        for i, head in enumerate(table.head):
            shown.add_column(head, justify="right" if i else "left")
        for row in table.rows:
            shown.add_row(*row)
        out.print(shown, markup=False)
    out.print(tables.caption(result), markup=False, soft_wrap=True)


def render(check: bool) -> int:
    """Write the documents of the checkout that this is the root of; 1 if `check` finds them out of date."""
    missing = [str(path) for path in tables.DOCUMENTS if not path.is_file()]
    if missing:
        raise UsageError(f"bench render works in the root of a checkout, and {missing[0]} is not here")
    records, late = tables.read(record.FOLDER), []
    for path in tables.DOCUMENTS:
        old = path.read_text()
        new = tables.render(old, records)
        if new != old:
            late.append(str(path))
            if not check:
                path.write_text(new)
    if check:
        print(f"out of date: {', '.join(late)}" if late else "up to date")
        return int(bool(late))
    print(f"written: {', '.join(late)}" if late else "nothing has changed")
    return 0
