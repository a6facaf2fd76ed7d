"""The labeled images of a split from a list of file names, as google-research/fixmatch publishes those of ImageNet."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewlabels.data.find import read_text
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import first

HEADERS = ("path", "file", "filename", "image", "name")
"""First words of a line that names the columns."""


def with_list(split: Split, source: Source, path: Path | str, *, rest: bool = False) -> Split:
    """`split` with the pictures that a text or CSV file names as its labeled ones, with the labels that they have.

    The first column of each line is a file name, or its path in the data as far as it needs to tell it from others
    (imagenet/prep_imagenet_data/data_splits/files2shards_train_size128116_split1.txt: name, shard, place in it).

    Args:
        split: one of the same source, whose unlabeled and validation images stay.
        rest: take the labeled images out of the unlabeled ones.

    Raises:
        ValueError: the file cannot be read, names nothing, names a picture twice or one that is not there, is a
            validation image, or has no label.
    """
    file = expanded(path)
    try:
        lines = [row[0].strip() for row in csv.reader(read_text(file).splitlines()) if row and row[0].strip()]
    except OSError as error:
        raise ValueError(f"the list of labeled files {file} cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"the list of labeled files {file} is no text: {error}") from None
    if lines and lines[0].lower() in HEADERS:
        del lines[0]
    if not lines:
        raise ValueError(f"the list of labeled files {file} names no picture")
    if not source.names:
        raise ValueError(f"a list of labeled files is for pictures in files, and {source.name} has none")
    rows = _rows(lines, source, file)
    if twice := [name for name, count in Counter(rows).items() if count > 1]:
        raise ValueError(f"{file} names a picture twice: {first([source.names[row] for row in twice])}")
    labeled = np.sort(np.array(rows, np.int64))
    for wrong, what in (
        (labeled[source.labels[labeled] < 0], "have no label"),
        (labeled[np.isin(labeled, split.validation)], "are validation images (--valid 0 takes none)"),
    ):
        if len(wrong):
            raise ValueError(f"{len(wrong)} pictures of {file} {what}: {first([source.names[row] for row in wrong])}")
    targets = source.labels[labeled]
    counts = np.bincount(targets, minlength=len(source.classes))
    notes = [f"the {len(labeled)} labeled images are those of {file.name}"]
    if without := [source.classes[c] for c in np.flatnonzero(counts == 0)]:
        notes.append(f"it names none of {first(without)}; such a class cannot be learned")
    return replace(
        split,
        labels=len(labeled),
        labeled=labeled,
        targets=targets,
        unlabeled=split.unlabeled[~np.isin(split.unlabeled, labeled)] if rest else split.unlabeled,
        class_counts=tuple(counts.tolist()),
        notes=tuple(notes),
    )


def _rows(lines: list[str], source: Source, file: Path) -> list[int]:
    """The rows of the source that the lines mean."""
    depths = {line.count("/") for line in lines}
    known: dict[str, list[int]] = {}
    wanted = set(lines)
    for row, name in enumerate(source.names):
        parts = name.split("/")
        for depth in depths:
            if (end := "/".join(parts[-1 - depth :])) in wanted and depth < len(parts):
                known.setdefault(end, []).append(row)
    if unknown := [line for line in lines if line not in known]:
        raise ValueError(f"{file} names {len(unknown)} pictures that {source.name} has not: {first(unknown)}")
    if unsure := [line for line in lines if len(known[line]) > 1]:
        which = first([source.names[row] for row in known[unsure[0]]])
        raise ValueError(f"{file} names {unsure[0]}, which may be {which}: say more of the path")
    return [known[line][0] for line in lines]
