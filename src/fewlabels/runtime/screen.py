"""What is shown on a terminal, through rich: text, and lines that break between words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from fewlabels.runtime import streams
from fewlabels.runtime.words import about, amount


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


FIRST_WORD, NEXT_WORD = 3.0, 30.0
"""Seconds after which a log file hears how fast bytes come, and between further lines."""


@contextmanager
def moving(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function ``show(done)`` of the bytes that have come: a bar on standard error where it is a terminal, else
    lines; both say how long it will take as soon as that is known."""
    screen = Screen(stderr=True)
    if screen.is_terminal:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return
    start = time.monotonic()
    due = start + FIRST_WORD

    def show(done: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and done:
            due = now + NEXT_WORD
            speed = done / (now - start)
            left = about((total - done) / speed)
            print_line(screen, f"{what}: {amount(done)} of {amount(total)}, {amount(speed)} a second, {left} left")

    yield show
