"""Standard output and error of the command line: what cannot be written is lost, and nothing else is.

Text is shown as text: what could steer a terminal is escaped, and on a terminal lines break between words.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, TextIO, cast

_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, line separators, marks that turn the direction of writing, lone surrogates
(in which Python keeps the bytes of names that are not UTF-8)."""


def visible(text: str, *, lines: bool = True) -> str:
    """`text` with what could steer a terminal escaped: ``\\x1b``, ``\\u202e``; ``\\xff`` for a byte that is no UTF-8.

    lines: keep newlines and tabs; without, they are escaped too, as in the name of a file.
    """
    text = _STEERS.sub(_escaped, text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as `os.fsdecode` hides it
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii")


_GLUE = "\0"
_JOINED = re.compile(r"(?<=  )\S+( \S+){1,2}(?=  |$)|(?<![^\s(])[\d.,:/]*\d [^\s\d]|: \d")
"""Where a line does not break: in two or three words between double spaces, after a number, and before its value."""


def wrapped(line: str, width: int) -> str:
    """Each line of `line` in lines of at most `width` characters, broken at spaces only; those after the first stand
    under the second column (what follows two spaces), or are indented by two."""
    if "\n" in line:
        return "\n".join(wrapped(part, width) for part in line.split("\n"))
    if len(line) <= width or width < 20 or line[:1] in ("{", "["):  # JSON stays one line
        return line
    start = len(line) - len(line.lstrip())
    column = re.match(r"\s*\S+( \S+)?  +", line)
    indent = column.end() if column and column.end() <= width // 3 else start + 2
    text = textwrap.wrap(
        _JOINED.sub(lambda match: match[0].replace(" ", _GLUE), line.strip()),
        width,
        initial_indent=" " * start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(text).replace(_GLUE, " ")


class Sink:
    """A stream that never raises: what it cannot write it drops, and remembers why."""

    def __init__(self, under: TextIO | None) -> None:
        self.under = under
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.under is not None and self.under.isatty()
        return False

    def write(self, text: str) -> int:
        if text and not self.lost:
            self._try(self._write, text)
        return len(text)

    def flush(self) -> None:
        if self.under is not None and not self.lost:
            self._try(self.under.flush)

    def data(self, text: str) -> None:
        """`text` in UTF-8, with the very bytes of names that are not."""
        if self.lost:
            return
        if self.under is None or not hasattr(self.under, "buffer"):
            self.write(text)
            return
        self.flush()
        self._try(self.under.buffer.write, text.encode("utf-8", "surrogateescape"))
        self.flush()

    def _write(self, text: str) -> None:
        if self.under is None:
            raise OSError(errno.EBADF, "it is closed")
        try:
            self.under.write(text)
        except UnicodeEncodeError as error:
            self.under.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        if "\n" in text:
            self.under.flush()

    def _try(self, write: Any, *args: Any) -> None:
        try:
            write(*args)
        except OSError as error:
            self.lost = error
        except ValueError:  # of a file object that is closed
            self.lost = OSError(errno.EBADF, "it is closed")
        if self.lost and self.under is not None:  # what is left in its buffer must not fail when Python ends
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.under.fileno())
                os.close(null)


class Stream:
    """What the commands print to: text for a person, `visible` and, on a terminal, `wrapped`."""

    def __init__(self, under: TextIO | None) -> None:
        self.rich_proxied_file = self.sink = Sink(under)
        """For rich, which writes escape sequences of its own."""
        self.aside = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)

    def write(self, text: str) -> int:
        # a leading carriage return is that of the progress bar of a download
        back = text[: len(text) - len(text.lstrip("\r"))]
        shown = visible(text[len(back) :])
        if self.isatty():
            width = shutil.get_terminal_size().columns
            shown = wrapped(shown, width)
        self.sink.write(back + shown)
        return len(text)

    def data(self, text: str) -> None:
        if self.isatty():
            self.sink.write(visible(text))
        else:
            self.sink.data(text)


def sink(stream: TextIO | None) -> TextIO:
    """The stream without escapes and line breaks, for what brings its own; it never raises."""
    return cast(TextIO, stream.sink if isinstance(stream, Stream) else Sink(stream))


def put(text: str) -> None:
    """Write data, such as CSV, to standard output: as it is, but on a terminal `visible`."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.data(text)
    else:
        sys.stdout.write(text)


def aside() -> None:
    """From here on the command's work is not what it prints, so that it may go on, and well, without being read."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.aside = True


@contextlib.contextmanager
def guarded() -> Iterator[Stream]:
    """Within the block standard output, which is yielded, and standard error are `Stream`s."""
    old = sys.stdout, sys.stderr
    out, err = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = old


def occupy() -> None:
    """Give descriptors 0, 1 and 2, where they are closed, to the null device: a file of ours must not get them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
