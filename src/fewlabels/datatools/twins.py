"""Pictures that are in two parts of the data, or nearly so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.resized import taken
from fewlabels.data.source import Images, OnDemand
from fewlabels.datatools.check import digest
from fewlabels.datatools.features import small

SIDE = 16
"""Pixels of the longer side that are compared."""

ALIKE = 0.99
"""Correlation of two pictures, made so small, from which they count as nearly the same."""

FAINT = 4 / 255
"""Standard deviation of the pixels below which a picture is too even for a correlation to mean anything."""


class Sketches(NamedTuple):
    """What is compared of N pictures."""

    unit: NDArray[np.float32]
    """Small, grey, with mean 0 and length 1, ``[N, P]``; 0 where the picture is too even."""
    contrast: NDArray[np.float32]
    """Standard deviation of the small picture, ``[N]``."""
    digests: list[bytes]
    """Of the pixels as they are."""


def sketches(images: Images | OnDemand, rows: NDArray[np.int64], block: int = 512) -> Sketches:
    units, contrasts, digests = [], [], []
    for start in range(0, len(rows), block):
        pictures = taken(images, rows[start : start + block])
        digests += [digest(picture) for picture in pictures]
        x = small(pictures, SIDE).mean(-1).reshape(len(pictures), -1)
        x = x - x.mean(1, keepdims=True)
        contrast = x.std(1)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        units.append(np.where(contrast[:, None] >= FAINT, x / np.maximum(length, 1e-9), 0).astype(np.float32))
        contrasts.append(contrast.astype(np.float32))
    return Sketches(np.concatenate(units), np.concatenate(contrasts), digests)


class Twin(NamedTuple):
    """A picture of one part and the one of another part that is most like it, by position in each."""

    first: int
    second: int
    same: bool
    """Pixel for pixel."""
    likeness: float
    """Correlation of the small pictures."""


def twins(first: Sketches, second: Sketches, alike: float = ALIKE, block: int = 1024) -> Iterator[Twin]:
    """For each picture of `first` that has one in `second`: its twin, the same pixels or else the likest.

    Nearly the same: correlation of at least `alike`, and contrasts within a quarter of each other. At most
    ``block * 8 block`` correlations are in memory.
    """
    where = {key: position for position, key in reversed(list(enumerate(second.digests)))}
    for start in range(0, len(first.unit), block):
        part = first.unit[start : start + block]
        best, place = np.full(len(part), -1.0, np.float32), np.zeros(len(part), np.int64)
        for column in range(0, len(second.unit), 8 * block):
            likeness = part @ second.unit[column : column + 8 * block].T
            theirs = second.contrast[column : column + 8 * block]
            mine = first.contrast[start : start + block, None]
            likeness[(theirs > 1.25 * mine) | (mine > 1.25 * theirs)] = -1
            top = likeness.argmax(1)
            value = likeness[np.arange(len(part)), top]
            place, best = np.where(value > best, top + column, place), np.maximum(best, value)
        for i in range(len(part)):
            same = where.get(first.digests[start + i])
            if same is not None:
                yield Twin(start + i, same, True, 1.0)
            elif best[i] >= alike:
                yield Twin(start + i, int(place[i]), False, float(best[i]))
