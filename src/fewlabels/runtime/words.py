"""Pieces of sentences for people: names that may have been meant, the first few of many, amounts and durations."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence


def close(word: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known words nearest to `word`, upper and lower case alike, the best first: at most `most` of them.

    cutoff: least likeness, 0 to 1, of `difflib`.
    """
    spelling = {name.lower(): name for name in known}
    return [spelling[name] for name in difflib.get_close_matches(word.lower(), spelling, n=most, cutoff=cutoff)]


def did_you_mean(names: Iterable[str]) -> str:
    """``"; did you mean X or Y?"``, or nothing if there is no name."""
    text = " or ".join(names)
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
    return f"{word!r}{hint} (known: {', '.join(names)})" if names else f"{word!r}{hint}"


def first(items: Sequence[object], most: int = 10) -> str:
    """The first items for a sentence: ``a, b, c and 7 more``."""
    text = ", ".join(str(item) for item in items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def by_reason(broken: Mapping[str, str], most: int = 10) -> str:
    """The first files that are no use, and why, for a sentence: ``a.png, b.png (cut off), c.png (empty) and 7 more``"""
    files: dict[str, list[str]] = {}
    for file, reason in list(broken.items())[:most]:
        files.setdefault(reason, []).append(file)
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
