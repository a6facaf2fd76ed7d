"""fewlabels data: look at data sets and turn one form into another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fewlabels.commands import data_look as look
from fewlabels.commands import data_make as make
from fewlabels.commands import data_probe
from fewlabels.commands.options import UsageError, parse
from fewlabels.runtime.words import unknown

HELP = """\
fewlabels data: look at data sets, check them, and turn one form into another. Nothing is ever overwritten.

usage: fewlabels data COMMAND [options]

{commands}

`fewlabels data COMMAND --help` lists the options of a command; each has --json.
"""

COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "list": (look.List, look.run_list),
    "prepare": (look.Prepare, look.run_prepare),
    "check": (look.Check, look.run_check),
    "show": (look.Show, look.run_show),
    "probe": (data_probe.Probe, data_probe.run_probe),
    "filter": (make.Filter, make.run_filter),
    "crop": (make.Crop, make.run_crop),
    "rename": (make.Rename, make.run_rename),
    "convert": (make.Convert, make.run_convert),
}


def main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {str(cls.__doc__).splitlines()[0]}" for name, (cls, _) in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if args[0] not in COMMANDS:
        raise UsageError(f"data has no command {unknown(args[0], COMMANDS)}")
    cls, run = COMMANDS[args[0]]
    return run(parse(cls, args[1:], prog=f"fewlabels data {args[0]}"))
