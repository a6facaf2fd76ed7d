"""The command line: finds the command, turns every foreseen error into one sentence. Imports no torch itself."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

import fewlabels

COMMANDS = {
    "train": ("train a classifier", "train [ALGORITHM] --data NAME|FOLDER [options]"),
    "evaluate": ("measure a run on its test images or on others", "evaluate RUN"),
    "predict": ("classify your own pictures", "predict RUN PATH... -o FILE"),
    "report": ("put runs into one table, with mean and deviation over seeds", "report RUN..."),
    "list": ("list algorithms, recipes, nets, views or data sets", "list [TOPIC]"),
    "split": ("show which images a data name labels", "split NAME"),
    "data": ("list, fetch, check, show and convert data sets", "data COMMAND"),
}
"""What each command does, and how it is called."""

ELSEWHERE = {"bench": "speed is measured in a checkout, with `python benchmarks/bench.py`"}
"""What is asked for here and found in another place."""

HELP = """\
fewlabels {version}: train an accurate image classifier from a few labels and many
unlabeled pictures.

usage: fewlabels COMMAND [options]

{commands}

`fewlabels COMMAND --help` lists the options of a command. Without any,
`fewlabels train` trains FixMatch on 40 labels of the handwritten digits that
ship with scikit-learn.
"""


def main(argv: Sequence[str] | None = None, command: Callable[[list[str]], int] | None = None) -> None:
    """Run the command line and exit: 0, 1 (it went wrong), 2 (it was asked wrongly), 128 + signal."""
    args = list(sys.argv[1:] if argv is None else argv)
    os.environ["PYTHONSAFEPATH"] = "1"  # no file of the user's folder is a module to what torch or we start
    try:
        code = run(args, command)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has seen enough
        code = 1
    sys.exit(code)


def run(args: list[str], command: Callable[[list[str]], int] | None = None) -> int:
    """Run the command line `args`; returns the exit status.

    command: what takes the arguments and returns the exit status; default: the command that the first of them names.
    """
    if command is not None:
        return _attempt(command, args)
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        commands = "\n".join(
            f"  {name:{width}}  {what}\n  {'':{width}}    fewlabels {usage}" for name, (what, usage) in COMMANDS.items()
        )
        print(HELP.format(version=fewlabels.__version__, commands=commands), end="")
        return 0
    if args[0] in ("-V", "--version"):
        print(f"fewlabels {fewlabels.__version__}")
        return 0
    if args[0] not in COMMANDS:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        hint = f"; {ELSEWHERE[args[0]]}" if args[0] in ELSEWHERE else f"; did you mean {near[0]}?" if near else ""
        return complain(f"there is no command {args[0]!r}{hint} (known: {', '.join(COMMANDS)})")
    return _attempt(lambda rest: importlib.import_module(f"fewlabels.commands.{args[0]}").main(rest), args[1:])


def _attempt(command: Callable[[list[str]], int], args: list[str]) -> int:
    """The exit status of `command`; a foreseen error becomes one sentence, another one is raised."""
    try:
        return command(args)
    except KeyboardInterrupt as stop:  # ours name their signal
        return complain("stopped; nothing was saved since the last checkpoint", 128 + (*stop.args, signal.SIGINT)[0])
    except BrokenPipeError:
        raise
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say a foreseen error in one sentence; an unforeseen one keeps its traceback."""
    from fewlabels.interrupt import Interrupted
    from fewlabels.run import NotWritten
    from fewlabels.training import Diverged, foreseen

    sentence = foreseen(error)
    if sentence is None:
        raise error
    if isinstance(error, Interrupted | Diverged):
        code = 128 + error.signum if isinstance(error, Interrupted) else 1
        # every rank stops; one says so
        return complain(sentence, code) if os.environ.get("RANK", "0") == "0" else code
    return complain(sentence, 2 if isinstance(error, ValueError) and not isinstance(error, NotWritten) else 1)


def complain(sentence: str, code: int = 2) -> int:
    print(f"fewlabels: {' '.join(sentence.split())}", file=sys.stderr)
    return code
