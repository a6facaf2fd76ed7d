"""Lists of picture files with labels, and the source that they make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fewlabels.data.pictures import PLAIN, Blob, Decoding, Size
from fewlabels.data.reading import name_of, read_pictures
from fewlabels.data.source import Images, OnDemand, Progress, Source, Style, first, own_style

Row: TypeAlias = tuple[Path | Blob, str | None]
"""A file and its class; None: unlabeled."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are read; see `reading.read_pictures`."""

    image_size: Size | None = None
    how: Decoding = PLAIN
    skip_corrupt: bool = False
    progress: Progress | None = None
    stream: bool | None = False


@dataclass(kw_only=True)
class Listing:
    """What a folder, a table or a file of records holds, before it is read."""

    name: str
    where: str
    """What sentences call the place of the labeled pictures."""
    train: list[Row]
    """Labeled and unlabeled ones, in the order that the source gets."""
    test: list[Row]
    classes: tuple[str, ...] = ()
    """Default: the labels of `train` in order, as numbers where all are numbers."""
    base: Path | None = None
    """Sentences name files relative to this folder."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = {label for _, label in self.train if label is not None}
        if not self.classes:
            self.classes = tuple(sorted(found, key=_order))
        if not found:
            raise ValueError(f"{self.where} holds no labeled pictures")
        if len(self.classes) == 1:
            raise ValueError(f"{self.where} has one class only ({self.classes[0]}); at least 2 are needed")
        new = sorted({label for _, label in self.test if label is not None} - set(self.classes), key=_order)
        if new:
            raise ValueError(f"the test part has classes that {self.where} has not: {first(new)}")

    def read(self, options: Options, style: Style | None = None) -> Source:
        """Decode everything. `style`: default `own_style` of the pictures' height."""
        number = {name: label for label, name in enumerate(self.classes)}
        rows = [*self.train, *self.test]
        files = [file for file, _ in rows]
        read = read_pictures(
            files,
            image_size=options.image_size,
            how=options.how,
            skip_corrupt=options.skip_corrupt,
            progress=options.progress,
            base=self.base,
            stream=options.stream,
        )
        kept = [row for row, good in zip(rows, read.kept, strict=True) if good]
        labels = np.array([-1 if label is None else number[label] for _, label in kept], np.int64)
        train = int(read.kept[: len(self.train)].sum())
        before = {label for _, label in self.train}
        gone = [name for c, name in enumerate(self.classes) if name in before and not (labels[:train] == c).any()]
        if gone:
            raise ValueError(f"no picture of {first(gone)} in {self.where} can be read")
        notes = [*self.notes, *read.notes]
        labeled = np.flatnonzero(labels[:train] >= 0)
        if isinstance(read.images, OnDemand):
            notes.append("the pictures were not compared with the test pictures, as they are not decoded yet")
        elif twice := _in_both(read.images, labeled, range(train, len(kept))):
            pairs = first([f"{name_of(kept[a][0], self.base)} = {name_of(kept[b][0], self.base)}" for a, b in twice])
            notes.append(f"{len(twice)} test pictures are labeled ones too, so the test accuracy is too good: {pairs}")
        return Source(
            name=self.name,
            classes=self.classes,
            images=read.images[:train],
            labels=labels[:train],
            test_images=read.images[train:],
            test_labels=labels[train:],
            style=style or own_style(read.images.shape[1]),
            notes=tuple(notes),
        )


def _order(label: str) -> tuple[bool, int, str]:
    number = label.isascii() and label.isdigit()
    return (not number, int(label) if number else 0, label)


def _in_both(images: Images, some: np.ndarray[tuple[int], np.dtype[np.int64]], others: range) -> list[tuple[int, int]]:
    """Pairs of a row of `some` and one of `others` whose decoded pixels are equal.

    A picture of one colour says nothing about where it came from.
    """

    def key(row: int) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(images[row]).data, digest_size=16).digest()

    seen = {key(int(row)): int(row) for row in some} if others else {}
    return [(seen[k], row) for row in others if (k := key(row)) in seen and images[row].min() < images[row].max()]
