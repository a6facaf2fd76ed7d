"""Labels from a file of predictions, as `fewlabels predict` writes it, for the unlabeled images of a split."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.find import read_hashed
from fewlabels.data.listing import short
from fewlabels.data.source import Source
from fewlabels.data.split import COUNTS, Split
from fewlabels.data.table import has_column, rows_of
from fewlabels.runtime.cells import uncell
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.rng import philox
from fewlabels.runtime.words import first, nearest

ROW = "row"
"""The column that says which image a prediction is of, where images are no files."""

UNSURE = "unsure"
"""What stands in place of a class whose probability is below a threshold."""


@dataclass(frozen=True)
class Guess:
    line: int
    row: int
    """Of the training images."""
    label: int
    confidence: float
    """0 .. 1; 1 where nobody asks for it."""


def with_predictions(
    split: Split,
    source: Source,
    path: Path | str,
    *,
    least: float,
    each: int | None = None,
    tail: float | None = None,
) -> Split:
    """`split` with the labels that a CSV file with the columns path, label and confidence gives to unlabeled images.

    Images that are labeled or validation ones, and predictions that are `UNSURE` (unless a class is called so), are
    passed over, and counted in a note. Paths are looked for from the folder that one is in, then from the file's own;
    of images that are no files the column is `ROW` in place of path, with the row of the training images. RealMix's
    ``--pseudolabel`` takes every prediction, and its ``--prediction_balance`` as many of each class
    (scripts/create_datasets.py).

    Args:
        source: what the split was made from.
        least: confidence from which a prediction counts, 0 .. 1; at 0 there need be no column of that name.
        each: take so many of each class, the most confident ones, those first in the file where equal; 0: as many as
            the class with the fewest has. None: all.
        tail: alpha of `tail_rates`; of each class its rate of the predictions is taken, rounded down, in that order.
            As in CReST, the images stay in the unlabeled set.

    Raises:
        ValueError: the file is no such table or names a picture or class that is not there; none is left.
    """
    assert each is None or tail is None
    if tail is not None and not 0 < tail < np.inf:
        raise ValueError(f"the alpha of the tail must be above 0, got {tail:g}")
    guesses, unsure, digest = _guesses(source, path, least, each, each is not None or tail is not None)
    free = set(np.setdiff1d(split.unlabeled, np.append(split.labeled, split.validation)).tolist())
    unlabeled = [guess for guess in guesses if guess.row in free]
    sure = [guess for guess in unlabeled if guess.confidence >= least]
    total = len(guesses) + unsure
    taken = sure if each is None else _balanced(sure, source.classes, each, least)
    if tail is not None:
        taken = _rarer_more(sure, tail_rates(split.class_counts, tail))
    if not taken:
        few = ", or too few are for the share of any class that the tail leaves" if sure and tail is not None else ""
        raise ValueError(
            f"{path}: none of its {total} predictions is of an unlabeled picture with a confidence of at least "
            f"{least:g}{few}"
        )
    rule = f"confidence at least {least:g}" if tail is None else tail_rule(tail, least)
    if each is not None:
        rule += f", {len(taken) // len(source.classes)} of each class"
    lineage = {"predictions": str(path), "sha256": digest, "rule": rule}
    if tail is not None:
        lineage[COUNTS] = " ".join(map(str, split.own_counts))
    rows, labels = [guess.row for guess in taken], [guess.label for guess in taken]
    new = split.with_labels(rows, labels, lineage=lineage, stay=True if tail is not None else None)
    left = {
        f"are {UNSURE}": unsure,
        "are not of unlabeled pictures": len(guesses) - len(unlabeled),
        f"have a confidence below {least:g}": len(unlabeled) - len(sure),
        "are less confident than those of their class": len(sure) - len(taken),
    }
    others = "".join(f", {n} {what}" for what, n in left.items() if n)
    note = f"of the {total} predictions in {path} {len(taken)} are taken{others}"
    return replace(new, notes=(*new.notes, note))


def with_even_unlabeled(split: Split, source: Source, path: Path | str, *, least: float = 0.0, each: int = 0) -> Split:
    """`split` with as many unlabeled images of each class, as far as a CSV file of predictions tells their class.

    Of a class of which there are more some are drawn by the split's seed; where there are fewer, all stand in the set
    several times, as equally often as they can. Images without a prediction that counts leave the set; the labeled and
    validation images in it stay. No label is given. RealMix balances its unlabeled set so (scripts/create_datasets.py
    ``--unlabel_balance``, with ``--prediction_balance``), but that it repeats the first images of a class more often,
    as augmented copies, and may leave out the last.

    Args:
        source: what the split was made from.
        least: confidence from which a prediction counts, 0 .. 1; at 0 there need be no column of that name.
        each: how many of each class; 0: as many as the class with the fewest has.

    Raises:
        ValueError: the file is no such table or names a picture or class that is not there; a class has no prediction.
    """
    guesses, unsure, digest = _guesses(source, path, least, each, False)
    known = np.isin(split.unlabeled, np.append(split.labeled, split.validation))
    free = set(split.unlabeled[~known].tolist())
    sure = [guess for guess in guesses if guess.row in free and guess.confidence >= least]
    groups = [np.array([g.row for g in sure if g.label == c], np.int64) for c in range(len(source.classes))]
    counts = [len(group) for group in groups]
    if min(counts) == 0:
        few = source.classes[counts.index(0)]
        raise ValueError(
            f"{path}: no unlabeled picture is predicted to be of class {few!r}"
            f"{f' with a confidence of at least {least:g}' if least else ''}, so that the set cannot be balanced"
        )
    each = each or min(counts)
    random = philox(split.seed, "unlabeled by predictions")
    rows = np.concatenate([np.resize(random.permutation(group), each) for group in groups])
    note = (
        f"unlabeled images are {each} of each class by the predictions in {path} (sha256 {digest}), "
        f"{len(np.unique(rows))} of {len(free)} pictures{_most(counts, each)}"
    )
    if unsure:
        note += f"; {unsure} predictions are {UNSURE}"
    return replace(split, unlabeled=np.sort(np.append(split.unlabeled[known], rows)), notes=(*split.notes, note))


def _most(counts: list[int], each: int) -> str:
    """How often a picture stands in a balanced set at most, as a clause; nothing where it is once."""
    most = max(-(-each // count) for count in counts)
    return f", some of them {most} times" if most > 1 else ""


def _guesses(
    source: Source, path: Path | str, least: float, each: int | None, ranked: bool
) -> tuple[list[Guess], int, str]:
    """The predictions in a file that name a class, how many do not, and the SHA-256 of the file.

    ranked: whether they are put in order by their confidence.
    """
    file = expanded(path)
    if not 0 <= least <= 1:
        raise ValueError(f"the least confidence must lie in 0 .. 1, got {least:g}")
    if each is not None and each < 0:
        raise ValueError(f"the predictions of each class must be at least 0 (as many as the fewest), got {each}")
    try:
        text, digest = read_hashed(file)
        guesses, unsure = _read(text, source, file.parent, least > 0 or ranked)
    except OSError as error:
        raise ValueError(f"the predictions {str(path)!r} cannot be read: {error.strerror}") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no file of predictions: {error}") from None
    return guesses, unsure, digest


def tail_rule(tail: float, least: float = 0.0) -> str:
    """What the lineage of a split says of how a tail chose among predictions."""
    return f"confidence at least {least:g}, tail {tail:g}"


def tail_rates(counts: Sequence[float], alpha: float) -> NDArray[np.float64]:
    """Which share of the predictions of each class become labels: more of a rarer one, ``[K]``, from 0 to 1.

    CReST (Wei et al. 2021, https://arxiv.org/abs/2102.09559, section 3.2): the class of rank l of K gets
    ``(n_(K+1-l) / n_1)^(1/alpha)``, where n are the sorted counts, the largest first, so that all of the rarest are
    taken. Classes with equal counts get the mean of their rates.

    counts: labels of each class, ``[K]``; a class without any counts as if it had one.
    """
    n = np.maximum(np.asarray(counts, np.float64), 1)
    rates = np.empty(len(n))
    rates[np.argsort(-n, kind="stable")] = (np.sort(n) / n.max()) ** (1 / alpha)
    return np.array([rates[n == own].mean() for own in n])


def _rarer_more(guesses: list[Guess], rates: NDArray[np.float64]) -> list[Guess]:
    """Of each class its share, rounded down, the most confident ones."""
    groups = _ranked(guesses, len(rates))
    return [g for group, rate in zip(groups, rates, strict=True) for g in group[: int(len(group) * rate + 1e-9)]]


def _ranked(guesses: list[Guess], classes: int) -> list[list[Guess]]:
    """The predictions of each class, the most confident ones first."""
    return [sorted((g for g in guesses if g.label == c), key=lambda g: -g.confidence) for c in range(classes)]


def _balanced(guesses: list[Guess], classes: tuple[str, ...], each: int, least: float) -> list[Guess]:
    """The same number of each class, the most confident ones."""
    groups = _ranked(guesses, len(classes))
    counts = list(map(len, groups))
    fewest = min(counts)
    if fewest < max(each, 1):
        few = classes[counts.index(fewest)]
        most = f"{fewest} of each class are the most" if fewest else "it cannot be balanced"
        raise ValueError(f"{fewest} predictions of class {few!r} have a confidence of at least {least:g}: {most}")
    return [guess for group in groups for guess in group[: each or fewest]]


def _read(text: str, source: Source, folder: Path, confident: bool) -> tuple[list[Guess], int]:
    """The predictions that name a class, and how many do not."""
    where = "path" if source.files else ROW
    if confident and not has_column(text, "confidence", where):
        raise ValueError("it has no column confidence, by which predictions are chosen")
    rows = {os.path.abspath(name): row for row, name in enumerate(source.files)}
    numbers = {name: c for c, name in enumerate(source.folders)} | {name: c for c, name in enumerate(source.classes)}
    real: dict[str, int] = {}
    seen: dict[int, Guess] = {}
    unsure = 0
    for line, (name, label, confidence) in rows_of(text, where, "label", "confidence"):
        row = _row(name, rows, folder) if source.files else _number_of(name, len(source.labels))
        if row is None and source.files:  # perhaps through a link
            real = real or {os.path.realpath(path): row for path, row in rows.items()}
            row = _row(name, real, folder, resolve=True)
        if row is None:
            raise ValueError(f"line {line}: {short(name)} is none of the training pictures of {source.name}")
        if label == UNSURE and label not in numbers:
            unsure += 1
            continue
        if label not in numbers:
            known = first(source.classes)
            raise ValueError(f"line {line}: there is no class {label!r}{nearest(label, numbers)} (known: {known})")
        if row in seen:
            raise ValueError(f"lines {seen[row].line} and {line} are both of {short(name)}")
        seen[row] = Guess(line, row, numbers[label], _number(line, confidence) if confident else 1.0)
    return list(seen.values()), unsure


def _row(name: str, rows: Mapping[str, int], folder: Path, *, resolve: bool = False) -> int | None:
    """The row of the picture that a cell names, as it is written or without the apostrophe of a protected cell."""
    place = os.path.realpath if resolve else os.path.abspath
    found = (rows.get(place(base / text)) for text in dict.fromkeys((name, uncell(name))) for base in (Path(), folder))
    return next((row for row in found if row is not None), None)


def _number_of(text: str, images: int) -> int | None:
    """The row that a cell says, of so many images."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 and int(text) < images else None


def _number(line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"line {line}: the confidence must be a number from 0 to 1, got {text!r}")
    return value
