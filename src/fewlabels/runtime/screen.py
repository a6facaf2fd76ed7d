"""Tables, bars and lines on a terminal, through rich."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.text import Text

from fewlabels.runtime import streams


class Screen(Console):
    """A rich console that takes text for text: no markup, no emoji, and `streams.visible`.

    It writes to standard output or error as they are when it is made, and drops what they do not take.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        file = streams.sink(sys.stderr if stderr else sys.stdout)
        super().__init__(file=file, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(streams.visible(text), **options)


def width_of(screen: Console, table: RenderableType) -> int:
    """The width that a table needs."""
    return Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum


def print_whole(screen: Console, table: RenderableType) -> None:
    """A table as wide as it must be: on a terminal that is too narrow its rows go on in the next line, and no cell
    is cut."""
    narrow, screen.width = screen.width, max(screen.width, width_of(screen, table))
    screen.print(table, soft_wrap=True)
    screen.width = narrow


def print_line(screen: Console, text: str) -> None:
    """A line of text, which on a terminal breaks between words."""
    screen.print(streams.wrapped(text, screen.width) if screen.is_terminal else text, soft_wrap=True)
