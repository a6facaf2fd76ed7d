"""Tar files in WebDataset's form as a data set: which is which part, and what the labels mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.contents import check_once, check_there, part_of, parts_in
from fewlabels.data.find import folders_in
from fewlabels.data.kinds import SUFFIXES
from fewlabels.data.listing import MISSING, UNLABELED, Listing, Rows, class_order, short
from fewlabels.data.paths import Members
from fewlabels.data.tars import Index, is_tar, members_of, tars_in
from fewlabels.data.tfrecord import MOST_CLASSES
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import first

PARTS = ("labeled", "unlabeled", "validation", "test")


def holds_tars(path: Path, labeled: Path | None = None) -> bool:
    """Whether a path means tar files: one, or a folder with some, and no pictures or class folders, in the place of the
    labeled pictures."""
    if not path.is_dir():
        return is_tar(path)
    place = labeled or next(iter(parts_in(path)["labeled"]), path)
    if not place.is_dir() or not any(is_tar(file) for file in place.iterdir()):
        return False
    classes = [folder for folder in folders_in(place) if place != path or part_of(folder.name) is None]
    return not classes and not any(file.suffix.lower() in SUFFIXES for file in place.iterdir())


def list_tars(
    path: Path,
    *,
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    validation: bool = True,
) -> Listing:
    """The pictures of ``labeled/*.tar``, ``unlabeled/*.tar``, ``test/*.tar`` and ``val/*.tar``, with the folders' names
    of `contents.WORDS`; or of tar files right in the folder, whose parts a word in their names says
    (``x-train-0001.tar``); or of one file, which is the labeled part.

    A label is the text of a sample's ``.cls``, or ``label`` of its ``.json``. If all of them are numbers, they are
    those of the classes, as in TFRecord files; else names. -1 and an empty text mean unlabeled. Those of the unlabeled
    part are not looked at. Pictures come part by part, file by file, in their order in there.

    Args:
        labeled, unlabeled, test: other folders for the parts.
        validation: read validation pictures beside a test part; without a test part they serve as it.

    Raises:
        ValueError: a file is not what it should be (`tars.index_of`), it is unclear which part it is, or a label is
            missing or none.
    """
    root, notes = path if path.is_dir() else path.parent, list[str]()
    parts = _parts(path, {"labeled": labeled, "unlabeled": unlabeled, "test": test}, notes)
    if parts["validation"] and not parts["test"]:
        parts["test"], parts["validation"] = parts["validation"], []
        notes.append(f"{path} has no test part; the validation part serves as one")
    elif not validation:
        parts["validation"] = []
    found = {part: members_of(tars) for part, tars in parts.items()}
    number, classes = _classes([index for part in PARTS if part != "unlabeled" for index in found[part][1]])
    labels = {part: _numbers(part, found[part][1], number) for part in PARTS}
    files: Members = found["labeled"][0] + found["unlabeled"][0] + found["validation"][0]
    train = np.concatenate([labels["labeled"], labels["unlabeled"], labels["validation"]])
    if not len(found["unlabeled"][0]) and (labels["labeled"] >= 0).all():
        notes.append(f"{path} has no unlabeled pictures; the labeled ones serve as the unlabeled set")
    if not len(found["test"][0]):
        notes.append(f"{path} has no test part; there is no test accuracy")
    return Listing(
        name=real(path).name,
        where=first([str(tar) for tar in parts["labeled"]], 1),
        train=Rows(files, train, classes),
        test=Rows(found["test"][0], labels["test"], classes),
        held=len(found["validation"][0]),
        classes=classes,
        base=root,
        notes=notes,
    )


def _parts(path: Path, given: Mapping[str, Path | None], notes: list[str]) -> dict[str, list[Path]]:
    """The tar files of each part. Raises ValueError where a file may be of any."""
    if not path.is_dir():
        return {part: [path] if part == "labeled" else [] for part in PARTS}
    check_there(given)
    named = parts_in(path)
    check_once(path, {part: folders for part, folders in named.items() if given.get(part) is None})
    folders = {part: given.get(part) or next(iter(named[part]), None) for part in PARTS}
    out = {part: tars_in(folder, _top(path, folder)) if folder else [] for part, folder in folders.items()}
    if empty := [str(folder) for part, folder in folders.items() if folder and not out[part]]:
        raise ValueError(f"{first(empty)} holds no tar files, as other parts do: put its pictures into some")
    beside = tars_in(path, path)
    if folders["labeled"] is None:
        for tar, part in _by_name(beside).items():
            if folders[part] is not None:
                raise ValueError(f"{path} has both {tar.name!r} and a folder {folders[part]} for its {part} part")
            out[part].append(tar)
    elif beside:
        notes.append(f"not read, as they are in no part of {path}: {first([tar.name for tar in beside])}")
    return out


def _top(path: Path, folder: Path) -> Path:
    """Where links in a part may lead: as in a folder of pictures."""
    return path if folder.is_relative_to(path) else folder


def _by_name(tars: Sequence[Path]) -> dict[Path, str]:
    """The part of each file, by a word in its name. Raises ValueError where some say it, and others do not."""
    found = {tar: {part for word in re.split("[^a-zA-Z]+", tar.stem) if (part := part_of(word))} for tar in tars}
    if not any(found.values()):
        return dict.fromkeys(tars, "labeled")
    if unclear := [tar.name for tar, parts in found.items() if len(parts) != 1]:
        raise ValueError(
            f"{first(unclear)} may be of any part, as the other tar files beside it say theirs: put them into folders "
            "labeled, unlabeled and test"
        )
    return {tar: parts.pop() for tar, parts in found.items()}


def _classes(indexes: Sequence[Index]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The class that each label means (-1: unlabeled), and the names of the classes. Raises ValueError for a label that
    means neither."""
    texts = {label for index in indexes for label in index.labels}
    known = texts - set(UNLABELED)
    numbers = all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in known)
    for text in sorted(known):
        if text.startswith("-") or (numbers and (len(text) > 9 or int(text) >= MOST_CLASSES)):
            allowed = f"0 to {MOST_CLASSES - 1}" if numbers else "names"
            raise ValueError(
                f"the label of {_where(indexes, text)} is {short(text)}; allowed are {allowed}, and -1 for an "
                "unlabeled picture"
            )
        if text.casefold() in MISSING:
            raise ValueError(
                f"the label of {_where(indexes, text)} is {short(text)}, which may mean that there is none; write -1 "
                "for an unlabeled picture"
            )
    if numbers:
        number = {text: int(text) for text in known}
        classes = tuple(map(str, range(1 + max(number.values(), default=-1))))
    else:
        classes = tuple(sorted(known, key=class_order))
        number = {text: label for label, text in enumerate(classes)}
    return number | dict.fromkeys(texts & set(UNLABELED), -1), classes


def _numbers(part: str, indexes: Sequence[Index], number: Mapping[str, int]) -> NDArray[np.int32]:
    """Classes of the pictures of a part, -1 where unlabeled. Raises ValueError where a labeled one has no label."""
    if part == "unlabeled":
        return np.full(sum(len(index.names) for index in indexes), -1, np.int32)
    out = [np.empty(0, np.int32)]
    least = -1 if part == "labeled" else 0
    for index in indexes:
        labels = np.array([*(number[text] for text in index.labels), -2], np.int32)[index.places[:, 2]]
        if len(wrong := np.flatnonzero(labels < least)):
            names = first([f"{index.tar.path}/{index.names[row]}" for row in wrong], 1)
            raise ValueError(
                f"a picture of the {part} part needs a label, a .cls file of its name, and has none: {names}"
                + ("; -1 in there means unlabeled" if part == "labeled" else "")
            )
        out.append(labels)
    return np.concatenate(out)


def _where(indexes: Sequence[Index], text: str) -> str:
    """A picture with this label."""
    index = next(index for index in indexes if text in index.labels)
    row = int(np.flatnonzero(index.places[:, 2] == index.labels.index(text))[0])
    return f"{index.tar.path}/{index.names[row]}"
