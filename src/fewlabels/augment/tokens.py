"""The `--augment` grammar of google-research/fixmatch (libml/augment.py): tokens joined by dots, one a view.

The first token is for the labeled images, the others are for the unlabeled ones.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fewlabels.augment.presets import PRESETS, Preset, square_boxes

ALLOWED = (
    "d, x, m, s, ms, aa, aac, ra, rac, rac2 to rac9, or rN_M_C with N from 1 to 4, M from 1 to 15 and C one of "
    "0, 25, 50, 75"
)

_GOOGLE = PRESETS["google"]
_FIXED = re.compile(r"r([1-4])_([1-9]|1[0-5])_(0|25|50|75)")


class Token(NamedTuple):
    text: str
    weak: str = "d"
    """Flip and shift: a name of a weak view, or d for the data set's own."""
    strong: Preset | str | None = None
    """What follows: a preset of RandAugment, "autoaugment", or nothing."""
    cutout: bool = True
    """Whether a cutout ends what follows."""


def parse(text: str) -> tuple[Token, ...]:
    """The tokens of `text`. Raises ValueError for words that are none."""
    return tuple(_token(word, text) for word in text.split("."))


def _token(word: str, text: str) -> Token:
    if word in ("d", "x", "m", "s", "ms"):
        return Token(word, word)
    if word in ("aa", "aac"):
        return Token(word, strong="autoaugment", cutout=word == "aac")
    if word in ("ra", "rac"):
        return Token(word, strong=_GOOGLE, cutout=word == "rac")
    if re.fullmatch("rac[2-9]", word):  # the bound is exclusive, which leaves rac1 no magnitude
        return Token(word, strong=_GOOGLE._replace(levels=(1, int(word[-1]) - 1)))
    if match := _FIXED.fullmatch(word):
        slots, level, percent = map(int, match.groups())
        boxes = square_boxes(percent=percent)
        preset = _GOOGLE._replace(slots=slots, probability=1.0, levels=(level, level), boxes=boxes)
        return Token(word, strong=preset, cutout=percent > 0)
    raise ValueError(f"Train.augment must be tokens joined by dots, each one of {ALLOWED}, got {word!r} in {text!r}")


def check(text: str, *, weak: str, strong: str, cutout: bool) -> None:
    """Raises ValueError if `text` is none of the grammar or disagrees with the other settings of the views."""
    tokens = parse(text)
    if strong != "auto":
        raise ValueError(f"Train.augment {text} says what the strong views are, and so does Train.strong {strong}")
    if weak != "auto" and not uses_default(text):
        raise ValueError(
            f"Train.augment {text} says what the weak views are, and so does Train.weak {weak}, which names what "
            "the token d stands for"
        )
    for token in tokens:
        if token.strong is not None and not cutout:
            raise ValueError(f"Train.cutout cannot be False: the token {token.text} says itself whether there is one")


def uses_default(text: str) -> bool:
    """Whether a token of `text` begins with the data set's own flip and shift."""
    return any(token.weak == "d" for token in parse(text))
