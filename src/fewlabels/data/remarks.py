"""What is to be said of pictures that were read: what Pillow warns of, and what their pixels show."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from fewlabels.runtime.words import first


class PictureWarning(UserWarning):
    """A remark about a picture, with its name; shown in one line."""


@dataclass
class About:
    """What one picture showed beside its pixels."""

    remarks: list[str] = field(default_factory=list)
    peak: int | None = None
    """Largest value of a picture of 16 bits, in 0..65535 (where it uses N bits, times 2 ** (16 - N))."""
    look: bool = True
    """Whether the pixels are to be looked at too."""

    def __bool__(self) -> bool:
        return bool(self.remarks) or self.peak is not None


def sentences(abouts: Mapping[int, About], names: Sequence[str], bits: int = 16) -> tuple[str, ...]:
    """Notes about a set of pictures, each remark once with the pictures that it is about.

    abouts: by row of `names`. bits: what `Decoding.bits` was when they were read.
    """
    by_remark: dict[str, list[str]] = {}
    for row in sorted(abouts):
        for remark in dict.fromkeys(abouts[row].remarks):
            by_remark.setdefault(remark, []).append(names[row])
    out = [f"{len(some)} of {len(names)} pictures: {remark} ({first(some)})" for remark, some in by_remark.items()]
    dark = {row: peak for row, about in abouts.items() if (peak := about.peak) is not None and peak < 1 << 14}
    if dark:
        peak = max(dark.values())
        used = max(8, peak.bit_length() - 16 + bits)
        out.append(
            f"{len(dark)} of {len(names)} pictures of 16 bits have values of at most {peak >> 16 - bits} of "
            f"{(1 << bits) - 1}, so that only {(peak >> 8) + 1} of 256 grey values are left in their range: "
            f"{first([names[row] for row in sorted(dark)])} (--data.bits {used} reads {used} bits of grey pictures; or "
            "save them with 8 bits)"
        )
    return tuple(out)


_heard = threading.local()
_lock = threading.Lock()
_show_before: Any = None
_ALWAYS = ("always", None, Warning, re.compile(r"PIL\."), 0)
"""The filter that lets all of Pillow's warnings reach `_show`: by default only the first of each text would."""


@contextmanager
def hearing(name: object, about: About | None) -> Iterator[None]:
    """Take what Pillow warns of within the block, in this thread, as remarks about a picture.

    Without `about` they are warnings again at its end, with the picture's `name`. (`warnings.catch_warnings` is for
    one thread at a time.)
    """
    global _show_before
    with _lock:
        if warnings.showwarning is not _show:
            _show_before, warnings.showwarning = warnings.showwarning, _show
        if warnings.filters[:1] != [_ALWAYS]:  # a filter that was set since would come before it
            warnings.filterwarnings("always", module=r"PIL\.")
    remarks: list[str] = []
    _heard.remarks = remarks
    try:
        yield
    finally:
        _heard.remarks = None
        if about is not None:
            about.remarks += remarks
    if about is None:
        for remark in dict.fromkeys(remarks):
            warnings.warn(f"{name}: {remark}", PictureWarning, stacklevel=2)


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    remarks = getattr(_heard, "remarks", None)
    if remarks is not None and f"{os.sep}PIL{os.sep}" in filename:
        remarks.append(" ".join(str(message).split()).rstrip("."))
    elif issubclass(category, PictureWarning):
        stream = file or sys.stderr
        with suppress(OSError):  # as `warnings.showwarning` does
            if stream is not None:  # print would take standard output
                print(f"fewlabels: {message}", file=stream)
    else:
        _show_before(message, category, filename, lineno, file, line)
