"""Python processes of our own, which take no file of the current folder for a module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = str(Path(__file__).parents[2])


def command(module: str, function: str) -> list[str]:
    """Command line of a process that calls a function of the package, and leaves Ctrl-C to this one.

    It finds modules where this process finds them, but for the current folder: that holds the user's files, and a
    `signal.py` among them would be run. -P keeps the folder out until the path is set.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # the folder was removed
        here = ""
    path = [entry for entry in sys.path if entry and os.path.realpath(entry) != here]
    path += [PACKAGE] if PACKAGE not in path else []  # last, if that is where we are
    code = (
        f"import sys; sys.path[:] = {path!r}; import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"from {module} import {function}; {function}()"
    )
    return [sys.executable, "-P", "-c", code]


def environment(**values: str) -> dict[str, str]:
    """Environment of such a process: the path is told it, and its own children keep away from the folder as well."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "PYTHONSAFEPATH": "1", **values}
