"""What is shown on a terminal, through rich: text, and lines that break between words."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
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


def print_line(screen: Console, text: str) -> None:
    """A line of text, which on a terminal breaks between words."""
    screen.print(streams.wrapped(text, screen.width) if screen.is_terminal else text, soft_wrap=True)
