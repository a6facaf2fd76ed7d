"""Lists of picture files with labels, and the source that they make."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.blobs import Blob, Packed, size_of
from fewlabels.data.paths import Compact, Named, chosen
from fewlabels.data.pictures import PLAIN, Decoding, Size
from fewlabels.data.reading import contents_of, name_of, read_pictures
from fewlabels.data.source import Images, Labels, OnDemand, Progress, Source, Style, mark, own_style
from fewlabels.data.stream import Files, PictureFiles
from fewlabels.runtime.words import first

Row: TypeAlias = tuple[Path | Packed, str | None]
"""A file and its class; None: unlabeled."""


UNLABELED = ("", "-1", "-1.0")
"""Labels that mean unlabeled, as for `fit`."""

MISSING = frozenset(
    (
        *("nan", "-nan", "nat", "none", "null", "na", "n/a", "n.a.", "<na>", "#na", "#n/a", "#n/a n/a", "nil"),
        *("?", "-", "--", "unlabeled", "unlabelled", "unknown", "undefined", "missing"),
    )
)
"""Words by which programs write that a value is missing, and which may be the name of a class as well."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are read; see `reading.read_pictures`."""

    image_size: Size | None = None
    how: Decoding = PLAIN
    skip_corrupt: bool = False
    progress: Progress | None = None
    stream: bool | None = False


class Rows(Sequence[Row]):
    """Very many files and their classes, each pair made when it is asked for."""

    def __init__(self, files: Compact[Any, Any], labels: NDArray[np.int32], classes: tuple[str, ...]) -> None:
        """labels: ``[N]``, places in `classes`, -1: unlabeled."""
        self.files, self.labels, self.classes = files, labels, classes

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> Rows: ...
    def __getitem__(self, key: int | slice) -> Row | Rows:
        if isinstance(key, slice):
            return Rows(self.files[key], self.labels[key], self.classes)
        label = self.labels[key]
        return self.files[key], None if label < 0 else self.classes[label]

    def followed_by(self, other: Rows) -> Compact[Any, Any]:
        """The files of both."""
        return self.files + other.files


def _labels_of(rows: Sequence[Row]) -> set[str]:
    if isinstance(rows, Rows):
        return {rows.classes[label] for label in np.unique(rows.labels) if label >= 0}
    return {label for _, label in rows if label is not None}


@dataclass(kw_only=True)
class Listing:
    """What a folder, a table or a file of records holds, before it is read."""

    name: str
    where: str
    """What sentences call the place of the labeled pictures."""
    train: Sequence[Row]
    """Labeled and unlabeled ones, in the order that the source gets."""
    test: Sequence[Row]
    held: int = 0
    """The last so many of `train` are validation pictures."""
    classes: tuple[str, ...] = ()
    """Default: the labels of `train` in order, as numbers where all are numbers."""
    base: Path | None = None
    """Sentences name files relative to this folder."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = _labels_of(self.train)
        if not self.classes:
            self.classes = tuple(sorted(found, key=class_order))
        if not found:
            raise ValueError(f"{self.where} holds no labeled pictures")
        if len(self.classes) == 1:
            raise ValueError(f"{self.where} has one class only ({self.classes[0]}); at least 2 are needed")
        new = sorted(_labels_of(self.test) - set(self.classes), key=class_order)
        if new:
            raise ValueError(f"the test part has classes that {self.where} has not: {strangers(new, self.classes)}")
        if pairs := alike(self.classes):
            self.notes.append(f"classes of {self.where} that look like one are told apart: {first(pairs)}")

    def read(self, options: Options, style: Style | None = None) -> Source:
        """Decode everything. `style`: default `own_style` of the pictures' height."""
        files, all_labels = self._rows()
        read = read_pictures(
            files,
            image_size=options.image_size,
            how=options.how,
            skip_corrupt=options.skip_corrupt,
            progress=options.progress,
            base=self.base,
            stream=options.stream,
        )
        good = files if read.kept.all() else chosen(files, read.kept)
        labels = all_labels[read.kept]
        train, own = (int(read.kept[:n].sum()) for n in (len(self.train), len(self.train) - self.held))
        left = np.bincount(labels[:own] + 1, minlength=len(self.classes) + 1)[1:]
        before = np.bincount(all_labels[: len(self.train)] + 1, minlength=len(self.classes) + 1)[1:]
        gone = [self.classes[c] for c in np.flatnonzero((before > 0) & (left == 0))]
        if gone:
            raise ValueError(f"no picture of {first(gone)} in {self.where} can be read")
        states = contents_of(good, self.base) if style is None else map(_size, good)
        told = map(self._told, good, map(int, labels), states)
        notes = [*self.notes, *read.notes]
        images = read.images
        if isinstance(images, Files) and options.skip_corrupt:
            images = images.lenient(np.where(np.arange(len(labels)) < own, labels, labels + len(self.classes) + 1))
        if isinstance(images, OnDemand):
            notes.append("the pictures were not compared with each other, as they are not decoded yet")
        else:
            notes += self._twins(images, labels, good, train, own)
        return Source(
            name=self.name,
            classes=self.classes,
            images=images[:train],
            labels=labels[:train],
            test_images=images[train:],
            test_labels=labels[train:],
            style=style or own_style(images.shape[1]),
            notes=tuple(notes),
            pictures=(mark(islice(told, train)), mark(told)),
            files=() if style or any(isinstance(file, Packed) for file in good) else tuple(map(str, good[:train])),
            names=Named(good[:train], partial(name_of, base=self.base)),
            test_names=Named(good[train:], partial(name_of, base=self.base)),
            held=train - own,
        )

    def _rows(self) -> tuple[PictureFiles, Labels]:
        """All files, and the class of each, -1 where it is unlabeled."""
        number = {name: label for label, name in enumerate(self.classes)}
        train, test = self.train, self.test
        if isinstance(train, Rows) and isinstance(test, Rows) and train.classes == test.classes == self.classes:
            return train.followed_by(test), np.concatenate([train.labels, test.labels]).astype(np.int64)
        rows = [*train, *test]
        labels = np.array([-1 if label is None else number[label] for _, label in rows], np.int64)
        return [file for file, _ in rows], labels

    def _twins(self, images: Images, labels: Labels, files: PictureFiles, train: int, own: int) -> list[str]:
        """Sentences about labeled pictures whose decoded pixels are those of another class's, or of a test or
        validation picture's; of `train` rows those from `own` on are validation pictures.

        A picture of one colour says nothing about where it came from.
        """
        seen: dict[bytes, int] = {}
        mixed: list[str] = []
        tested: list[str] = []
        valid: list[str] = []
        for row in np.flatnonzero(labels >= 0).tolist():
            key = hashlib.blake2b(np.ascontiguousarray(images[row]).data, digest_size=16).digest()
            other = seen.setdefault(key, row) if row < own else seen.get(key, row)
            if other == row or images[row].min() == images[row].max():
                continue
            a, b = (name_of(files[r], self.base) for r in (other, row))
            if row >= own:
                (tested if row >= train else valid).append(f"{a} = {b}")
            if labels[row] != labels[other]:
                mixed.append(f"{a} ({self.classes[labels[other]]}) = {b} ({self.classes[labels[row]]})")
        notes = []
        if tested:
            some = f"{len(tested)} test pictures are labeled ones too, so the test accuracy is too good"
            notes.append(f"{some}: {first(tested)}")
        if valid:
            some = f"{len(valid)} validation pictures are labeled ones too, so the accuracy on them is too good"
            notes.append(f"{some}: {first(valid)}")
        if mixed:
            notes.append(f"{len(mixed)} labeled pictures are the same as one of another class: {first(mixed)}")
        return notes

    def _told(self, file: Path | Packed, label: int, state: bytes) -> bytes:
        """What tells a picture from others without decoding it: name, content and class."""
        name = self.classes[label] if label >= 0 else ""
        return mark([os.fsencode(name_of(file, self.base)), state, os.fsencode(name)]).encode()


def _size(file: Path | Packed) -> bytes:
    """What tells a picture of a known set from others: to read all of ImageNet would take long."""
    return file.data if isinstance(file, Blob) else str(size_of(file)).encode()


def short(text: str) -> str:
    """A text for a sentence: quoted, and cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def class_order(label: str) -> tuple[bool, float, str]:
    """Key that sorts class names: numbers by value, before all others; these by their characters."""
    number = re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", label) is not None
    return (not number, float(label) if number else 0.0, label)


def alike(classes: Sequence[str]) -> list[str]:
    """Pairs of class names that differ in capital letters, spaces, invisible characters, the way characters are
    composed or numbers are written only."""
    seen: dict[str, str] = {}
    pairs = []
    for name in classes:
        other = seen.setdefault(_plain(name), name)
        if other != name:
            look = ascii if unicodedata.normalize("NFKC", other) == unicodedata.normalize("NFKC", name) else repr
            pairs.append(f"{look(other)} and {look(name)}")
    return pairs


def _plain(name: str) -> str:
    """What a class name shows: one text for Cat and cat, or for 1, 01 and 1.0."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
    text = " ".join("".join(x for x in text if unicodedata.category(x) != "Cf").split())
    number = re.fullmatch(r"[+-]?\d{1,20}(\.\d{0,9})?(e[+-]?\d{1,3})?", text)
    return str(Decimal(text).normalize()) if number else text


def strangers(new: Sequence[str], classes: Sequence[str]) -> str:
    """Classes that are none of `classes` for a sentence, with those that they look like."""
    known = alike(classes)
    pairs = [pair for name in new for pair in alike([*classes, name])[len(known) :]]
    return first(new) + (f"; these look like one and are told apart: {first(pairs)}" if pairs else "")
