"""The table of --grid: a column for each option, a row for each run."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewlabels.algorithms import ALGORITHMS
from fewlabels.commands.options import UsageError, flags, last_value
from fewlabels.commands.train_options import Command, names_algorithm, read
from fewlabels.runs.run import RunError
from fewlabels.runtime import regular
from fewlabels.runtime.words import nearest, unknown

COMMON = frozenset(
    (
        "out",
        "overwrite",
        "resume",
        "baseline",
        "seeds",
        "folds",
        "grid",
        "time",
        "dry-run",
        "json",
        "progress",
        "device",
    )
) | {"teacher-seeds", "teacher-nets"}
"""Options that are those of all runs, or of none of a grid."""

LONGEST = 100
"""Letters of a folder's name."""


@dataclass(frozen=True)
class Row:
    """A row with its command, as the whole command line says it."""

    file: str
    line: int
    name: str
    args: list[str]
    command: Command

    def named(self) -> contextlib.AbstractContextManager[None]:
        """What is wrong with the row names its line."""
        return _named(self.file, self.line)


def of(args: Sequence[str]) -> str | None:
    """The file that --grid names, which has to be read before the other options are understood."""
    return last_value(args, "--grid") or None


def stem(file: str) -> str:
    """The name of the table's file without its ending."""
    return Path(file).stem


def rows(file: str, args: list[str]) -> list[Row]:
    """The rows of the table, each read as the command line `args` with the options of the row behind it.

    The text is CSV in UTF-8. An empty cell leaves its option as the command line has it. The column ``algorithm`` names
    the method, the column ``name`` the row; without it the row's values do. Empty lines are passed over.

    Raises UsageError with file and line: no table, a column that is no option, a wrong value, two rows of one name.
    """
    (first, heads), *lines = _cells(file)
    with _named(file, first):
        _check_heads(heads)
        if "algorithm" in heads and names_algorithm(args):
            raise UsageError(
                "the column algorithm names the algorithms, and so does the command: leave one of them out"
            )
    found: dict[str, Row] = {}
    for line, cells in lines:
        with _named(file, line):
            if len(cells) != len(heads):
                raise UsageError(f"there are {len(cells)} cells in place of {len(heads)}")
            values = {head: cell for head, cell in zip(heads, cells, strict=True) if cell}
            name = values.pop("name", None) or _name(values)
            if name in found:
                raise UsageError(
                    f"its name is {name}, as that of line {found[name].line}: give it another in a column name"
                )
            if not re.fullmatch(r"\w[\w.=,@+-]*", name) or len(name) > LONGEST:
                raise UsageError(
                    f"its folder cannot be called {name!r}: give it a name of at most {LONGEST} letters, digits and "
                    ".=,@+- in a column name"
                )
            words = _words(values, args)
            found[name] = Row(file, line, name, words, read(words))
    if not found:
        raise UsageError(f"--grid {file} has no row below its heads")
    return list(found.values())


@contextlib.contextmanager
def _named(file: str, line: int) -> Iterator[None]:
    try:
        yield
    except RunError:  # which names a folder
        raise
    except ValueError as error:
        raise UsageError(f"--grid {file}, line {line}: {error}") from error


def _cells(file: str) -> list[tuple[int, list[str]]]:
    """Number of the line and cells of each line that is not empty; the first are the heads."""
    try:
        text = regular.read_text(regular.expanded(Path(file)))
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise UsageError(f"--grid {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--grid {file} is no text in UTF-8") from None
    except csv.Error as error:
        raise UsageError(f'--grid {file} is no CSV table: {error}; is a quote (") missing?') from None
    found = [(line, cells) for line, cells in found if any(cells)]
    if not found:
        raise UsageError(f"--grid {file} is empty: it needs a line of options, and a line of values for each run")
    return found


def _check_heads(heads: Sequence[str]) -> None:
    known = {option.removeprefix("--") for option in _options()} - COMMON | {"algorithm", "name"}
    for i, head in enumerate(heads):
        if not head:
            raise UsageError(f"column {i + 1} has no name: write the option that it holds")
        if head in heads[:i]:
            raise UsageError(f"there are two columns {head}")
        if head in COMMON or head.partition(".")[0] in ("on", "generations"):
            raise UsageError(
                f"--{head} is the same for all rows: leave out the column, and give it on the command line"
            )
        if head not in known:
            raise UsageError(
                f"train has no option --{head}{nearest(head, known)} (a column is an option without its dashes)"
            )


def _options() -> dict[str, int | None]:
    """How many words follow each option, of the command or of any algorithm."""
    return {option: count for cls in (*ALGORITHMS.values(), Command) for option, count in flags(cls).items()}


def _name(values: dict[str, str]) -> str:
    """``fixmatch,tau=0.9`` for the values of a row."""
    parts = [cell if head == "algorithm" else f"{head}={cell}" for head, cell in values.items()]
    return re.sub(r"[^\w.=,@+-]+", "_", ",".join(parts)) or "default"


def _words(values: dict[str, str], args: Sequence[str]) -> list[str]:
    """The command line of a row."""
    words = list(args)
    if (algorithm := values.pop("algorithm", None)) is not None:
        if algorithm not in ALGORITHMS:
            raise UsageError(f"train has no algorithm {unknown(algorithm, ALGORITHMS)}")
        words.insert(0, algorithm)
    takes = _options()
    for head, cell in values.items():
        option = f"--{head}"
        if takes[option] == 0:
            if cell not in ("true", "false"):
                raise UsageError(f"{option} must be true or false, got {cell!r}")
            before, _, last = head.rpartition(".")
            words.append(option if cell == "true" else f"--{before}{'.' * bool(before)}no-{last}")
        elif takes[option] == 1:
            words.append(f"{option}={cell}")
        else:
            words += [option, *cell.split()]
    return words
