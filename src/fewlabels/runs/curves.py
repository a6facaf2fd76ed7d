"""Medians, means and the best of a curve of evaluations. No torch here, so that a report starts at once."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence


def main_part(parts: Collection[str]) -> str | None:
    """The part of an evaluation whose accuracy is reported: test, else valid, else train."""
    return next((part for part in ("test", "valid", "train") if part in parts), None)


def curve(accuracies: Sequence[float]) -> dict[str, float]:
    """Medians over the last 1, 10, 20 and 50 evaluations, means over the last 10 and 20, and the best one.

    The FixMatch paper reports `last20`; kekmodel's code logs `mean20`; `best` looks at the set it reports on.
    """
    if not accuracies:
        return {}
    out = {f"last{n}": statistics.median(accuracies[-n:]) for n in (1, 10, 20, 50)}
    out |= {f"mean{n}": statistics.fmean(accuracies[-n:]) for n in (10, 20)}
    return {**out, "best": max(accuracies)}
