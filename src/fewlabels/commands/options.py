"""Options from dataclasses, through tyro, with every complaint in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable
from typing import TypeVar, get_args, get_type_hints

import tyro

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config import nearest

T = TypeVar("T")


class UsageError(ValueError):
    """The command line cannot be understood."""


def parse(cls: type[T], args: list[str], *, prog: str, default: T | None = None, positional: Iterable[str] = ()) -> T:
    """The dataclass `cls` from command-line arguments.

    positional: words that may stand where no option expects a value, for suggestions. Raises UsageError, or
    SystemExit(0) after printing the help.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            result: T | None
            result, unknown = tyro.cli(
                cls,
                args=args,
                prog=prog,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_first_sentence(said.getvalue())) from None
    if unknown:
        raise UsageError(_unknown(unknown[0], cls, prog, list(positional)))
    assert result is not None
    return result


def _unknown(word: str, cls: type, prog: str, positional: list[str]) -> str:
    command = prog.removeprefix("fewlabels ")
    if word in positional:
        return f"{command} takes one algorithm, and {word!r} is a second one"
    if not word.startswith("-"):
        kind = "algorithm" if positional else "argument"
        known = f" (known: {', '.join(positional)})" if positional else ""
        return f"{command} has no {kind} {word!r}{nearest(word, positional)}{known}"
    option = word.partition("=")[0].replace("_", "-")
    for name, algorithm in ALGORITHMS.items():
        if positional and option in options(algorithm):
            return f"{option} is an option of {name}, not of the algorithm that is trained here"
    every = [*options(cls), *(name for algorithm in ALGORITHMS.values() if positional for name in options(algorithm))]
    names = [name.lstrip("-") for name in every]
    hint = nearest(option.lstrip("-"), names).replace("mean ", "mean --")
    return f"{command} has no option {word.partition('=')[0]}{hint}"


def options(cls: type, prefix: str = "") -> list[str]:
    """The options that tyro makes of a dataclass (not those of a union's members)."""
    out: list[str] = []
    hints = get_type_hints(cls, include_extras=True)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        unnamed = any(getattr(mark, "name", None) == "" for mark in getattr(hint, "__metadata__", ()))
        plain = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        name = f.name.replace("_", "-")
        if dataclasses.is_dataclass(plain):
            out += options(plain, prefix if unnamed else f"{prefix}{name}.")  # type: ignore[arg-type]
        elif unnamed:
            out.append(f"--{prefix.rstrip('.')}")
        else:
            out.append(f"--{prefix}{name}")
            if plain is bool:
                out.append(f"--{prefix}no-{name}")
    return out


def _first_sentence(box: str) -> str:
    """What tyro says in its frame, without frame, title and the help that follows, in our words."""
    framed = box.startswith("╭")  # tyro draws frames with lines, or in ASCII with a ruler under the title
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in ("╭", "╰")]
    text: list[str] = []
    for line in lines if framed else lines[2:]:
        if line and set(line) <= {"─", "-"}:
            break
        text.append(line)
    sentence = " ".join(" ".join(text).split())
    for pattern, ours in _REPHRASED:
        sentence = re.sub(pattern, ours, sentence)
    return sentence or "the command line cannot be understood"


_REPHRASED = (
    # our own checks name class and field already
    (r"^Error parsing [\w.]+: (?=[A-Z]\w*\.)", ""),
    (r"^Command\.(\w+) must", r"--\1 must"),
    (r"^Error parsing (\S+): .*\bint\b.*: ('.*')$", r"\1 must be a whole number, got \2"),
    (r"^Error parsing (\S+): .*\bfloat\b.*: ('.*')$", r"\1 must be a number, got \2"),
    (r"^Missing from fewlabels (.*?): (\S+) (.*?)\.? \(required\)", r"\1 needs \2: \3"),
    (r"^Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"^Cannot select subcommand '(\S+)' .* used the flag '(\S+)'\..*", r"name the algorithm first: \1 before \2"),
    (r"^The subcommand '(\S+)' was already .* the flag '(\S+)'\..*", r"name the algorithm first: \1 before \2"),
    (r"^invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?),?\)\.$", r"\2 must be one of \3, got \1"),
)
"""tyro's sentences, and ours: thing, what is allowed, what was given."""
