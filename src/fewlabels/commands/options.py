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
    if not word.startswith("-"):
        kind = "algorithm" if positional else "argument"
        known = f" (known: {', '.join(positional)})" if positional else ""
        return f"{prog} has no {kind} {word!r}{nearest(word, positional)}{known}"
    option = word.partition("=")[0].replace("_", "-")
    for name, algorithm in ALGORITHMS.items():
        if option in options(algorithm):
            return f"{option} is an option of {name}, not of the algorithm that is trained here"
    return f"{prog} has no option {word.partition('=')[0]}{nearest(option, options(cls))}"


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
    """What tyro says in its frame, without the frame and without the help that follows."""
    text: list[str] = []
    for line in box.splitlines():
        inner = line.strip("│ ")
        if line[:1] in ("╭", "╰"):
            continue
        if inner and set(inner) == {"─"}:
            break
        text.append(inner)
    sentence = " ".join(text)
    # our own checks name class and field already; tyro's words for a number are Python's
    sentence = re.sub(r"^Error parsing [\w.]+: (?=[A-Z]\w*\.)", "", sentence)
    sentence = re.sub(
        r"^Error parsing (--[\w.-]+): .*?(int|float)\b.*: ('.*')$",
        r"\1 must be a number (\2), got \3",
        sentence,
    )
    sentence = re.sub(r"^Missing from (.*?): (\S+) (.*?)\.? \(required\)", r"\1 needs \2: \3", sentence)
    return sentence or "the command line cannot be understood"
