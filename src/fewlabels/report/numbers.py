"""Numbers of a report, from records alone. No torch here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IN_USE = ("mask", "mask_mixed")
"""Logged values that are the share of the unlabeled images that count; the first that there is, is shown."""

MATRIX = 20
"""Classes up to which a confusion matrix is shown whole."""


@dataclass(frozen=True)
class Counts:
    """A confusion matrix of K classes."""

    classes: int
    cells: Mapping[tuple[int, int], int]
    """Images by class and by what they are called, where there are any."""
    true: tuple[int, ...]
    """Images of each class."""
    called: tuple[int, ...]

    @classmethod
    def of(cls, classes: int, confusion: Iterable[Sequence[int]]) -> Counts:
        """From ``[class, called, images]``."""
        cells = {(i, j): n for i, j, n in confusion if n}
        true, called = [0] * classes, [0] * classes
        for (i, j), n in cells.items():
            true[i] += n
            called[j] += n
        return cls(classes, cells, tuple(true), tuple(called))

    @property
    def images(self) -> int:
        return sum(self.true)

    def right(self, c: int) -> int:
        return self.cells.get((c, c), 0)

    def recall(self, c: int) -> float | None:
        """Share of the class's images that are called so, in percent."""
        return 100 * self.right(c) / self.true[c] if self.true[c] else None

    def precision(self, c: int) -> float | None:
        """Share of the images called so that are of the class, in percent."""
        return 100 * self.right(c) / self.called[c] if self.called[c] else None

    def f1(self, c: int) -> float | None:
        """Harmonic mean of both, in percent; 0 for a class that is there and never right."""
        both = self.true[c] + self.called[c]
        return 200 * self.right(c) / both if both else None

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Class, what it is called, images: the most frequent first."""
        wrong = [(i, j, n) for (i, j), n in self.cells.items() if i != j]
        return sorted(wrong, key=lambda each: (-each[2], each[0], each[1]))

    def most_taken_for(self, c: int) -> tuple[int, int] | None:
        """The class that this one is most often taken for, and of how many images."""
        return next(((j, n) for i, j, n in self.mistakes_of(c)), None)

    def mistakes_of(self, c: int) -> list[tuple[int, int, int]]:
        wrong = [(i, j, n) for (i, j), n in self.cells.items() if i == c != j]
        return sorted(wrong, key=lambda each: (-each[2], each[1]))


def in_use(logs: Iterable[Mapping[str, Any]]) -> str | None:
    """The name of the logged share of unlabeled images that count, if there is one."""
    logged = {name for record in logs for name in record}
    return next((name for name in IN_USE if name in logged), None)


def unjudged(logs: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the log does not say how often the pseudo-labels are right, a clause; None where it does, or has none."""
    share = in_use(logs)
    if share is None or any("pseudo_accuracy" in record for record in logs):
        return None
    if not any(record.get(share) for record in logs):
        return "no unlabeled picture counted"
    return "the true classes of the unlabeled pictures are not known"


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Total variation distance of two shares, given as amounts."""
    return sum(abs(x / sum(a) - y / sum(b)) for x, y in zip(a, b, strict=True)) / 2


def margin(accuracy: float, n: int) -> float:
    """How far an accuracy on n images, in percent, may be off by the choice of the images, in percent points.

    Half the width of Wilson's interval of 95 %, which is not empty where all of them are right (Wilson 1927).
    """
    p, z = accuracy / 100, 1.96
    return 100 * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)


def against(accuracy: float, other: float, n: int) -> str:
    """How two accuracies on n images compare: `better`, `worse`, or `alike` where they are no farther apart than both
    may be off together, as if they were measured on images drawn apart."""
    difference, both = accuracy - other, math.hypot(margin(accuracy, n), margin(other, n))
    return "alike" if abs(difference) <= both else "better" if difference > 0 else "worse"
