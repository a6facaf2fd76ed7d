"""The name grammar ``NAME.SEED@SIZE-VALID`` of FixMatch (google-research/fixmatch, libml/data.py).

Every part but the first may be left out: ``digits``, ``digits@40``, ``cifar10.3@250-1``, ``cifar10-5000``.
Unlike the original, which lists its combinations one by one, any seed, size and validation size is a name.
NAME is a source or an alias, the name of a published protocol on one (`fewlabels.data.aliases`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fewlabels.data.aliases import ALIASES
from fewlabels.data.source import FACTS
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.urls import is_url, stem_of
from fewlabels.runtime.words import nearest

DEFAULT_SEED = 1
"""The split seed where a name gives none. Not 0: FixMatch's seed 0 means "do not shuffle", so that it picks
the first images of each class, which is no random draw; the papers' splits are numbered from 1."""

NO_FOLDER = (".csv", ".tsv", ".tfrecord")
"""Endings of files with own pictures or their paths that are no folders of pictures."""

MAX_SEED = 2**32 - 1
"""numpy's legacy generator, which the published splits come from, takes 32 bits."""

# The base is lazy and the three suffixes are anchored at the end, so that digits and underscores inside a
# base (cifar10, cifar10_LT_50) stay in it.
_GRAMMAR = re.compile(
    r"(?P<base>[A-Za-z][A-Za-z0-9_]*)(?:\.(?P<seed>[0-9]+))?(?:@(?P<labels>[0-9]+))?(?:-(?P<valid>[0-9]+))?"
)


@dataclass(frozen=True)
class DataName:
    """What a data name says; None where it is silent."""

    base: str
    """A known source's name, or the text of the folder as it was given."""
    seed: int | None = None
    labels: int | None = None
    """Number of labels in total (not per class)."""
    valid: int | None = None
    """Number of validation images."""
    folder: bool = False
    """`base` is a path; a folder's name carries no split, its options do."""
    alias: str | None = None
    """The name of a protocol that was given in place of the source's, such as ``cifar10_LT_50``."""

    def __str__(self) -> str:
        text = self.alias or self.base
        text += "" if self.seed is None else f".{self.seed}"
        text += "" if self.labels is None else f"@{self.labels}"
        return text + ("" if self.valid is None else f"-{self.valid}")


def is_folder(text: str) -> bool:
    """Whether `text` means a folder or a file: it has a path separator, starts with ``.`` or ``~``, ends with
    ``.zip``, ``.tar``, ``.csv``, ``.tsv`` or ``.tfrecord``; a URL; or a data set of the Hugging Face hub,
    ``hf:NAME``."""
    special = text.startswith((".", "~", "hf:")) or text.lower().endswith((".zip", ".tar", *NO_FOLDER))
    return special or any(sep in text for sep in {"/", os.sep, os.altsep or os.sep})


def is_pictures(text: str) -> bool:
    """Whether `text` means a folder of pictures, a zip file of one or tar files, here or at a URL; no table, file of
    records or data set."""
    table = text.lower().endswith(NO_FOLDER) and not Path(text).is_dir()
    return is_url(text) or (is_folder(text) and not text.startswith("hf:") and not table)


def stem(text: str) -> str:
    """What files about a data set are called: a name as it is, the last part of a path or a URL. Raises ValueError for
    a path whose home folder is not known."""
    if is_url(text):
        return stem_of(text)
    return real(expanded(text)).name if is_folder(text) else text


def parse(text: str) -> DataName:
    """Read a data name or the path of a folder.

    A folder is taken as a whole, also when it looks like a split (``./a.3@4/``); whether it exists is asked
    when it is loaded. Raises ValueError for an unknown base name (with the nearest known ones) and for a
    text that the grammar does not cover.
    """
    text = text.strip()
    if is_folder(text):
        return DataName(text, folder=True)
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError(
            f"data name {text!r} is not of the form NAME.SEED@SIZE-VALID (for example cifar10.3@250-5000); "
            "a folder needs a path separator (photos/)"
        )
    base = match["base"]
    alias = base if base in ALIASES else None
    if alias:
        base = ALIASES[alias].base
    elif base not in FACTS:
        raise ValueError(_unknown(base, text))
    seed, labels, valid = (None if match[part] is None else int(match[part]) for part in ("seed", "labels", "valid"))
    if seed is not None and seed > MAX_SEED:
        raise ValueError(f"data name {text!r} has the seed {seed}; allowed are 0 to {MAX_SEED}")
    if labels == 0:
        raise ValueError(f"data name {text!r} asks for 0 labels; give at least 1, or no @SIZE for all of them")
    return DataName(base, seed, labels, valid, alias=alias)


def _unknown(base: str, text: str) -> str:
    known = sorted(FACTS)
    # only a name with its parts can mean an alias
    names = (*known, *(ALIASES if "_" in base else ()))
    sentence = f"unknown data set {base!r}{nearest(base, names, most=3, cutoff=0.5)} (known: {', '.join(known)}"
    if Path(text).is_dir():
        return f"{sentence}; for the folder of this name write {text}/)"
    return f"{sentence}; a folder is written with a path separator, such as photos/)"
