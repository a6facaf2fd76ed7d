"""Tables of the commands: columns of words and numbers, as wide as they must be."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[str] = (),
    ruled: bool = False,
    whole: bool = False,
) -> Table:
    """A table without a frame, a cell of each row for each of the `heads`.

    left: heads of the columns that begin on the left, of words; the others, of numbers, end on the right.
    ruled: with a line under the heads.
    whole: no cell goes on in a second line.
    """
    made = Table(box=SIMPLE_HEAD if ruled else None, pad_edge=False)
    for head in heads:
        made.add_column(head, justify="left" if head in left else "right", no_wrap=whole)
    for row in rows:
        made.add_row(*row)
    return made


def width_of(screen: Console, made: Table) -> int:
    """The width that a table needs."""
    return Measurement.get(screen, screen.options.update(max_width=10_000), made).maximum


def print_whole(screen: Console, made: Table) -> None:
    """A table as wide as it must be: on a terminal that is too narrow its rows go on in the next line, and no cell
    is cut."""
    narrow, screen.width = screen.width, max(screen.width, width_of(screen, made))
    screen.print(made, soft_wrap=True)
    screen.width = narrow


def left_out(damaged: Sequence[str]) -> int:
    """Name on standard error the runs that could not be read, a sentence for each; the exit status."""
    for sentence in damaged:
        print(sentence, file=sys.stderr)
    if damaged:
        print(f"fewlabels: {len(damaged)} run(s) could not be read and are left out", file=sys.stderr)
    return 1 if damaged else 0
