"""A person's answers to the question what is on some pictures: from a table, or from what Label Studio exports."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewlabels.data.find import read_hashed
from fewlabels.data.listing import short
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.data.table import rows_of
from fewlabels.runtime.cells import uncell
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.streams import visible
from fewlabels.runtime.words import first, nearest


class Answer(NamedTuple):
    place: str
    """Where it stands: ``line 3`` or ``task 7``."""
    picture: str
    label: str


class Told(NamedTuple):
    """What a file of answers says."""

    answers: list[Answer]
    empty: int
    """Questions without an answer."""
    sha256: str
    folder: Path
    """Where the file lies."""


class Counts(NamedTuple):
    """How many answers there were."""

    new: int
    """Of pictures that had no label."""
    changed: int
    """Of labeled pictures, with another label."""
    known: int
    """Of pictures that were labeled so already."""
    empty: int

    def __str__(self) -> str:
        others = {"changed a label": self.changed, "were known": self.known, "had no answer": self.empty}
        return f"{self.new} answers are new" + "".join(f", {n} {what}" for what, n in others.items() if n)


def shown(name: str) -> str:
    """How a name is written where a person sees it: control characters and bytes that are no UTF-8 as escapes, and no
    spaces around it."""
    return visible(name, lines=False).strip()


def called(source: Source, row: int) -> str:
    """What a training image is called in questions and answers: its file, or its number."""
    return os.path.abspath(source.files[row]) if source.files else f"training image {row}"


def read_answers(path: Path | str) -> Told:
    """The answers in a CSV file with the columns ``path`` and ``label``, or in Label Studio's JSON export.

    An empty label is no answer; neither is a task of Label Studio that was skipped or has no choice. Raises ValueError
    where the file is neither, or a task has several choices.
    """
    file = expanded(path)
    try:
        text, digest = read_hashed(file)
        found = list(_tasks(text) if file.suffix.lower() == ".json" else _lines(text))
    except OSError as error:
        raise ValueError(f"the answers {str(path)!r} cannot be read: {error.strerror}") from None
    except (csv.Error, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is no file of answers: {error}") from None
    answers = [answer for answer in found if answer.label]
    return Told(answers, len(found) - len(answers), digest, file.parent)


def _lines(text: str) -> Iterable[Answer]:
    return (Answer(f"line {line}", name, label) for line, (name, label, _) in rows_of(text, "path", "label"))


def _tasks(text: str) -> Iterable[Answer]:
    """The annotations of Label Studio's JSON export, https://labelstud.io/guide/export: a list of tasks."""
    content = json.loads(text)
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise ValueError("it must be Label Studio's export as JSON, a list of tasks")
    for number, task in enumerate(content, 1):
        place = f"task {task.get('id', number)}"
        data, given = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(data.get("path"), str):
            raise ValueError(f"{place} has no data.path, by which fewlabels finds the picture (is it JSON_MIN?)")
        if not isinstance(given, list):
            raise ValueError(f"{place} has no annotations: export the project as JSON")
        words = [word for annotation in given for word in _choice(annotation, place)]
        for word in words or [""]:
            yield Answer(place, data["path"], word)


def _choice(annotation: Any, place: str) -> list[str]:
    """The class that one annotation says, if it does."""
    try:
        if annotation.get("was_cancelled"):
            return []
        results = [one["value"]["choices"] for one in annotation["result"] if one.get("type") == "choices"]
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{place} has an annotation without a list of results") from None
    words = [word for choices in results for word in choices]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"{place} has a choice that is no text: {short(str(words))}")
    if len(words) > 1:
        raise ValueError(f"{place} has several choices, {first([repr(w) for w in words])}: a picture has one class")
    return words


def aliases(names: Sequence[str]) -> dict[str, int]:
    """Numbers by name, and by how a name is `shown`, unless that may be another one."""
    exact = {name: number for number, name in enumerate(names)}
    also = Counter(shown(name) for name in names)
    return {shown(name): n for n, name in enumerate(names) if also[shown(name)] == 1} | exact


def number_of(name: str, places: Mapping[str, int], folder: Path) -> int | None:
    """The number of the picture that a cell names, as it is written or without the apostrophe of a protected cell; a
    path may start from the folder that one is in, or from `folder`."""
    texts = dict.fromkeys((name, uncell(name)))
    paths = (os.path.abspath(base / text) for text in texts if text for base in (Path(), folder))
    return next((places[text] for text in (*texts, *paths) if text in places), None)


def agreed(told: Told, places: Mapping[str, int], of: str) -> dict[int, Answer]:
    """The answer about each picture, by its number in `places`.

    Raises ValueError for a picture that is not there (none `of` ...) and for two answers that contradict each other.
    """
    out: dict[int, Answer] = {}
    for answer in told.answers:
        number = number_of(answer.picture, places, told.folder)
        if number is None:
            raise ValueError(f"{answer.place}: {short(answer.picture)} is none of {of}")
        before = out.setdefault(number, answer)
        if before.label != answer.label:
            raise ValueError(
                f"{before.place} and {answer.place} contradict each other about {short(answer.picture)}: "
                f"{before.label!r} and {answer.label!r}"
            )
    return out


def with_answers(split: Split, source: Source, path: Path | str) -> tuple[Split, Counts]:
    """`split` with the answers in a file, and how many of them there were; a label that a picture has may change.

    Args:
        source: what the split was made from.

    Raises:
        ValueError: the file is none of answers; a picture or class is not there; two answers contradict each other; a
            picture has no part in the training; no answer says anything new.
    """
    told = read_answers(path)
    places = aliases([called(source, row) for row in range(len(source.labels))])
    classes = aliases(source.folders) | aliases(source.classes)
    try:
        answers = agreed(told, places, f"the training pictures of {source.name}")
        labels = [class_of(answer, classes) for answer in answers.values()]
        now = dict(zip(split.labeled.tolist(), split.targets.tolist(), strict=True))
        change = [(row, label) for row, label in zip(answers, labels, strict=True) if now.get(row) != label]
        _check_part({row: answers[row] for row, _ in change}, split)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    new = sum(row not in now for row, _ in change)
    counts = Counts(new, len(change) - new, len(answers) - len(change), told.empty)
    if not change:
        raise ValueError(f"{path} says nothing new: {counts}")
    return split.with_labels(
        [row for row, _ in change],
        [label for _, label in change],
        lineage={"answers": str(path), "sha256": told.sha256},
        relabel=True,
    ), counts


def class_of(answer: Answer, classes: Mapping[str, int]) -> int:
    """The number of the class that an answer names. Raises ValueError where there is none."""
    if answer.label not in classes:
        known = first(list(dict.fromkeys(map(shown, classes))))
        near = nearest(answer.label, classes)
        raise ValueError(f"{answer.place}: there is no class {answer.label!r}{near} (known: {known})")
    return classes[answer.label]


def _check_part(answers: Mapping[int, Answer], split: Split) -> None:
    """Raises ValueError for a picture that is not trained on."""
    trained, held = set(np.append(split.labeled, split.unlabeled).tolist()), set(split.validation.tolist())
    for row, answer in answers.items():
        if row in held:
            raise ValueError(f"{answer.place}: {short(answer.picture)} is a validation picture, whose label stays")
        if row not in trained:
            raise ValueError(f"{answer.place}: {short(answer.picture)} has no part in the training")
