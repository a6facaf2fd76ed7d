"""Pieces of sentences for people: names that may have been meant, the first few of many, amounts, lengths of time.

A name stays in its line, whatever it holds (`streams.visible`): one sentence is one line.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from fewlabels.runtime.streams import visible


def close(word: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known words nearest to `word`, upper and lower case alike, the best first: at most `most` of them.

    cutoff: least likeness, 0 to 1, of `difflib`.
    """
    spelling = {name.lower(): name for name in known}
    return [spelling[name] for name in difflib.get_close_matches(word.lower(), spelling, n=most, cutoff=cutoff)]


def did_you_mean(names: Iterable[str]) -> str:
    """``"; did you mean X or Y?"``, or nothing if there is no name."""
    text = " or ".join(_line(name) for name in names)
    return f"; did you mean {text}?" if text else ""


def nearest(word: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str:
    """`did_you_mean` of the known words that are `close` to `word`."""
    return did_you_mean(close(word, known, most, cutoff))


def unknown(word: str, known: Iterable[str], remark: str | None = None) -> str:
    """The end of a sentence about a word that is no known one: ``'trian'; did you mean train? (known: a, b)``.

    remark: what is said in place of the nearest word.
    """
    names = list(known)
    hint = nearest(word, names) if remark is None else f"; {remark}"
    return f"{word!r}{hint} (known: {', '.join(map(_line, names))})" if names else f"{word!r}{hint}"


def first(items: Sequence[object], most: int = 10) -> str:
    """The first items for a sentence: ``a, b, c and 7 more``."""
    text = ", ".join(map(_line, items[:most]))
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def _line(name: object) -> str:
    return visible(str(name), lines=False)


def reason(error: BaseException) -> str:
    """What an exception says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def by_reason(broken: Mapping[str, str], most: int = 10) -> str:
    """The first files that are no use, and why, for a sentence: ``a.png, b.png (cut off), c.png (empty) and 7 more``"""
    files: dict[str, list[str]] = {}
    for file, reason in list(broken.items())[:most]:
        files.setdefault(reason, []).append(_line(file))
    text = ", ".join(f"{', '.join(names)} ({reason})" for reason, names in files.items())
    return text if len(broken) <= most else f"{text} and {len(broken) - most} more"


def amount(count: float) -> str:
    """Bytes in words: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def about(seconds: float) -> str:
    """A length of time in words, as exact as one that is estimated can be: ``45 s``, ``12 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, left = divmod(5 * round(minutes / 5), 60)
    if hours >= 48:
        return f"{round(seconds / 86400)} days"
    return f"{hours} h {left} min" if left else f"{hours} h"


def seconds_of(text: str) -> int:
    """The seconds that ``90s``, ``10m``, ``1h30m`` or ``2h`` mean.

    Raises ValueError, with the end of a sentence, for anything else, for 0 and for more than 1000 hours.
    """
    found = re.fullmatch(r"(?:(\d{1,7})h)?(?:(\d{1,7})m)?(?:(\d{1,7})s)?", text.strip().lower(), re.ASCII)
    if not found or not any(found.groups()):
        raise ValueError(f"must be a length of time such as 90s, 10m, 1h30m or 2h, got {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total <= 3_600_000:
        raise ValueError(f"must be more than 0s and at most 1000h, got {text!r}")
    return total
