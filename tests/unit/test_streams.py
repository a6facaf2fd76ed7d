"""What is printed is shown as text, breaks between words, and costs nothing where it cannot be written."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from fewlabels import cli
from fewlabels.runtime import streams
from fewlabels.runtime.screen import Screen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Bär, 猫, e\u0301, \u202f, \U0001f408\u200d\u2b1b", "Bär, 猫, e\u0301, \u202f, \U0001f408\u200d\u2b1b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),  # the one-character form of ESC [
        ("a\rb\x08c\x7f", "a\\rb\\x08c\\x7f"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),  # turns the direction of writing
        ("\u2066\u2028", "\\u2066\\u2028"),
        (os.fsdecode(b"gr\xfc\xdfe"), "gr\\xfc\\xdfe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert streams.visible(text) == shown


def test_visible_names_are_one_line() -> None:
    assert streams.visible("a\nb\tc") == "a\nb\tc" and streams.visible("a\nb\tc", lines=False) == "a\\nb\\tc"


def test_wrapped() -> None:
    line = "step 40/500  test 88.89 %  loss 0.523  8.9 steps/s"
    assert streams.wrapped(line, 50) == line
    assert streams.wrapped(line, 40) == "step 40/500  test 88.89 %  loss 0.523\n             8.9 steps/s"
    # a number stays with its unit, and with its name
    assert streams.wrapped("seen 4974 images in 12 s at 32 x 32 px", 21) == "seen 4974 images in\n  12 s at 32 x 32 px"
    assert streams.wrapped("median  1: 85.00  50: 84.86", 21) == "median  1: 85.00\n  50: 84.86"
    assert streams.wrapped("one two three four five six", 20) == "one two three four\n  five six"
    long = "https://arxiv.org/abs/2001.07685"
    assert streams.wrapped(f"see {long} there", 20) == f"see\n  {long}\n  there"
    for width in range(20, 60):
        assert streams.wrapped(line, width).split() == line.split()
        assert max(map(len, streams.wrapped(line, width).splitlines())) <= width
    assert streams.wrapped('{"a": 1, "b": "two words"}', 20) == '{"a": 1, "b": "two words"}'


class Broken(io.StringIO):
    """Takes nothing."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.tries = error, 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise self.error


BROKEN = [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space"), ValueError("closed file")]


@pytest.mark.parametrize("error", BROKEN, ids=["pipe", "full", "closed"])
def test_a_stream_that_takes_nothing_is_tried_once(error: Exception) -> None:
    under = Broken(error)
    stream: Any = streams.Stream(under)
    for _ in range(3):
        print("lost", file=stream, flush=True)
        stream.data("lost")
        print("lost", file=stream.rich_proxied_file)
    assert under.tries == 1 and isinstance(stream.sink.lost, OSError)


def test_a_stream_that_is_not_there() -> None:
    stream: Any = streams.Stream(None)
    stream.flush()
    assert stream.sink.lost is None and not stream.isatty()
    print("lost", file=stream)
    assert stream.sink.lost.errno == errno.EBADF


def test_an_encoding_that_has_not_the_letter() -> None:
    under = io.TextIOWrapper(io.BytesIO(), "ascii")
    print("1 ± 2", file=streams.Stream(under))  # type: ignore[arg-type]
    assert under.buffer.getvalue() == b"1 \\xb1 2\n"  # type: ignore[attr-defined]


def test_data_is_byte_for_byte_but_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsdecode(b"\xfc\x1b[31m.png")
    for terminal, right in ((False, b"\xfc\x1b[31m.png"), (True, b"\\xfc\\x1b[31m.png")):
        under = io.TextIOWrapper(io.BytesIO(), "utf-8")
        monkeypatch.setattr(under, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stdout", under)
        with streams.guarded():
            streams.put(name)
        assert under.buffer.getvalue() == right  # type: ignore[attr-defined]


def test_a_download_may_draw_its_bar() -> None:
    under = io.StringIO()
    streams.Stream(under).write("\r 50% of x\rfile")  # type: ignore[arg-type]
    assert under.getvalue() == "\r 50% of x\\rfile"


def test_tables_take_text_for_text() -> None:
    """Markup, emoji and escapes of rich are none in a name."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        screen = Screen(width=200)
        table = Table("class", title="[b]t[/b]")
        for name in ("nut [/b]", "[red]", ":cat:", "\x1b[31m", "\udcff", "[@click=x]y"):
            table.add_row(name)
        screen.print(table)
        screen.print("[/] \x1b[0m")
    text = out.getvalue()
    for name in ("[b]t[/b]", "nut [/b]", "[red]", ":cat:", "\\x1b[31m", "\\xff", "[@click=x]y", "[/] \\x1b[0m"):
        assert name in text
    assert "\x1b" not in text


@pytest.mark.parametrize("error", BROKEN, ids=["pipe", "full", "closed"])
@pytest.mark.parametrize(
    "args", [[], ["--version"], ["data"], ["data", "list"], ["list", "views"], ["train", "--help"]]
)
def test_the_status_says_that_the_answer_could_not_be_shown(args: list[str], error: Exception) -> None:
    err = io.StringIO()
    with contextlib.redirect_stdout(Broken(error)), contextlib.redirect_stderr(err):
        assert cli.run(args) == 1
    what = {"Broken pipe": "", "No space": "No space"}.get(getattr(error, "strerror", None) or "", "it is closed")
    assert err.getvalue() == (f"fewlabels: standard output could not be written: {what}\n" if what else "")


def test_sentences_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("no\x1b[31m  run", os.fsdecode(b"no\xffrun")):
        assert cli.run(["evaluate", name]) == 2
        shown = name.replace("\x1b", "\\x1b").replace("\udcff", "\\xff")
        assert capsys.readouterr().err == f"fewlabels: there is no run folder {shown}\n"  # with both its spaces


def test_warnings_have_no_place_in_our_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    from fewlabels.commands import report

    def warn(args: list[str]) -> int:
        warnings.warn("Image size (12 pixels)\nexceeds", stacklevel=1)
        return 0

    monkeypatch.setattr(report, "main", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.run(["report"]) == 0
    assert capsys.readouterr().err == "note: Image size (12 pixels) exceeds\n"
