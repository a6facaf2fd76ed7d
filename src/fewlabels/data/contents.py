"""What a folder of one's own pictures consists of: the one place that knows its form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from fewlabels.data.find import check_link, folders_in, read_text, scan
from fewlabels.data.kinds import SUFFIXES
from fewlabels.data.unpacked import is_zip, unpacked
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.words import first

LabelFrom: TypeAlias = Literal["folder", "suffix"]
"""Whether a picture's class is the folder it lies in, or the last part of its name (RealMix's 12_cat.png)."""

WORDS = {
    "labeled": ("labeled", "labelled", "train", "training"),
    "unlabeled": ("unlabeled", "unlabelled"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev", "eval"),
}
"""What the folder of a part may be called, in small or capital letters; validation serves where there is no test."""

MIXED = ("train", "training")
"""Labeled parts in which pictures beside the class folders are unlabeled ones."""


class Picture(NamedTuple):
    path: Path
    part: str
    """labeled, unlabeled, validation or test."""
    label: str | None
    """The folder right below the part that it lies in, or what else says its class; None without one. In the unlabeled
    part it says nothing."""


@dataclass(kw_only=True)
class Contents:
    """A folder of own pictures, whether or not a training can take it."""

    root: Path
    labeled: Path
    unlabeled: Path | None
    test: Path | None
    validation: Path | None = None
    plain: str
    """Why a training does not take it, where no folder is the labeled part and its own folders are no classes."""
    bare: bool = False
    """The folders at the top are the classes."""
    pictures: list[Picture] = field(default_factory=list)
    """Those of each part sorted by path."""
    others: list[Path] = field(default_factory=list)
    """Files of the parts that are no pictures."""
    empty: list[Path] = field(default_factory=list)
    """Class folders without pictures."""
    loose: list[Path] = field(default_factory=list)
    """Pictures beside the class folders of the labeled part, which are unlabeled."""
    beside: list[Path] = field(default_factory=list)
    """Folders and pictures at the top that are no part, and are not read."""
    annotated: bool = False
    """The classes of the test part are those of a file, whose order it has."""
    notes: list[str] = field(default_factory=list)

    def names(self, paths: list[Path]) -> str:
        """The first of some paths for a sentence, relative to the folder."""
        root = self.root
        return first([p.relative_to(root).as_posix() if p.is_relative_to(root) else str(p) for p in sorted(paths)])


def part_of(name: str) -> str | None:
    """The part that a folder of this name is: labeled, unlabeled, test or validation; None: none."""
    return next((part for part, words in WORDS.items() if name.casefold() in words), None)


def parts_in(root: Path) -> dict[str, list[Path]]:
    """The folders right in `root` that are called as each part is."""
    named: dict[str, list[Path]] = {part: [] for part in WORDS}
    for folder in folders_in(root):
        if part := part_of(folder.name):
            named[part].append(folder)
    return named


def check_once(root: Path, named: Mapping[str, list[Path]]) -> None:
    """Raise ValueError where two folders are the same part."""
    for folders in named.values():
        if len(folders) > 1:
            a, b = folders[:2]
            raise ValueError(f"{root} has both a folder {a.name!r} and a folder {b.name!r}; keep one of them")


def check_there(given: Mapping[str, Path | None]) -> None:
    """Raise ValueError where a folder that was given as a part is none."""
    for what, folder in given.items():
        if folder is not None and not folder.is_dir():
            raise ValueError(f"there is no folder {str(folder)!r}, which was given as the {what} part")


def contents(
    path: Path | str,
    *,
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    label_from: LabelFrom = "folder",
    validation: bool = True,
    strict: bool = False,
) -> Contents:
    """The pictures of a folder or a zip file: ``labeled/CLASS/**``, ``unlabeled/**``, ``test/CLASS/**`` and
    ``val/CLASS/**``, with the names of `WORDS`.

    All but the first may be missing. Without a labeled part two or more folders at the top are the classes, and the
    pictures beside them unlabeled (`bare`), as are those beside the classes in ``train/``. `labeled`, `unlabeled` and
    `test` name other folders for the parts. A folder of validation pictures serves as the test part where there is no
    other; one with Tiny-ImageNet's ``val_annotations.txt`` always does, because the test part of such a set has no
    labels. With `label_from` "suffix" the pictures lie flat in their part, and ``12_cat.png`` is a cat.

    Args:
        validation: read validation pictures beside a test part; else they are no part.
        strict: only the parts count, and nothing beside class folders is unlabeled, as in the named sets.

    Raises:
        ValueError: there is no such folder, two folders are the same part, or a link leads out of the folder.
    """
    root = origin = expanded(path)
    if is_zip(root):
        root = _inner(unpacked(root))
    if not root.is_dir():
        raise ValueError(_no_folder(root))
    given = {"labeled": labeled, "unlabeled": unlabeled, "test": test}
    check_there(given)
    taken = {real(folder) for folder in given.values() if folder is not None}
    named = parts_in(root)
    files = [f / "val_annotations.txt" for f in named["validation"] if test is None]
    annotations = next((file for file in files if file.is_file()), None)
    tested = test is not None or bool(named["test"])
    if annotations:
        named["test"], named["validation"] = [annotations.parent], []
    elif tested:
        named["validation"] = [f for f in named["validation"] if validation and not strict and real(f) not in taken]
    check_once(root, {part: folders for part, folders in named.items() if given.get(part) is None})

    def chosen(part: str) -> Path | None:
        return given[part] or next(iter(named[part]), None)

    found = Contents(root=root, labeled=root, unlabeled=chosen("unlabeled"), test=chosen("test"), plain="")
    if root != origin:
        found.notes.append(f"{origin} was unpacked into {root}")
    mixed = False
    if part_folder := chosen("labeled"):
        found.labeled = part_folder
        mixed = labeled is None and part_folder.name.casefold() in MIXED
    else:
        others = [f for f in folders_in(root) if part_of(f.name) is None and real(f) not in taken]
        runs = [] if strict else [f for f in others if _holds_runs(f)]
        taken |= {real(f) for f in runs}
        classes = [f for f in others if f not in runs]
        mixed = found.bare = not strict and label_from == "folder" and len(classes) > 1
        found.plain = "" if found.bare else _no_labeled(root, classes, strict=strict or label_from != "folder")
        if runs:
            found.notes.append(f"{found.names(runs)} of {root} holds runs of trainings and is no class")
    if found.bare:
        found.notes.append(f"{root} has no folder 'labeled'; its folders are the classes")
    if named["validation"] and not tested:
        found.test = named["validation"][0]
        found.notes.append(f"{root} has no folder 'test'; {found.test} serves as the test part")
    elif named["validation"]:
        found.validation = named["validation"][0]
    if annotations:
        found.notes.append(f"the test images are those of {annotations.parent}, which have labels")

    helpers = _read(found, "labeled", found.labeled, label_from, taken if found.bare else set())
    if found.unlabeled is not None:
        helpers += _read(found, "unlabeled", found.unlabeled, label_from)
    if found.validation is not None:
        helpers += _read(found, "validation", found.validation, label_from)
    if annotations:
        found.pictures += _annotated(annotations, found)
        found.annotated = True
    elif found.test is not None:
        helpers += _read(found, "test", found.test, label_from)
    if mixed and label_from == "folder" and not strict:
        _set_loose(found)
    _look_beside(found)
    if helpers:
        found.notes.append(f"{len(helpers)} folders of other programs were passed over: {found.names(helpers)}")
    return found


def _holds_runs(folder: Path, depth: int = 2) -> bool:
    """Whether a folder is the run of a training, or some lie in it: they have pictures of their own."""
    if all((folder / name).is_file() for name in ("config.json", "split.json")):
        return True
    with os.scandir(folder) as entries:
        below = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)] if depth else []
    return any(_holds_runs(each, depth - 1) for each in below)


def _inner(root: Path) -> Path:
    """The one folder that an archive was made of, if it has folders itself and is no part; else the archive's."""
    inside = [p for p in root.iterdir() if not p.name.startswith(".")]
    if len(inside) != 1 or part_of(inside[0].name) or not inside[0].is_dir() or not folders_in(inside[0]):
        return root
    return _inner(inside[0])


def _set_loose(found: Contents) -> None:
    """Take labeled pictures outside the class folders for unlabeled ones, if there are others in these."""
    labeled = [p for p in found.pictures if p.part == "labeled"]
    if not any(p.label for p in labeled):
        return
    found.loose = [p.path for p in labeled if p.label is None]
    rest = [p for p in found.pictures if p.part != "labeled" or p.label is not None]
    found.pictures = rest + [Picture(path, "unlabeled", None) for path in found.loose]
    if found.loose:
        found.notes.append(
            f"{len(found.loose)} pictures of {found.labeled} that lie in no class folder are unlabeled: "
            f"{found.names(found.loose)}"
        )


def _read(
    found: Contents, part: str, folder: Path, label_from: LabelFrom, taken: Set[Path] = frozenset()
) -> list[Path]:
    """Add the pictures of a part; returns the folders of other programs in it, which were passed over.

    taken: folders that were given as other parts, which are no classes.
    """
    # Links may lead anywhere in the data's folder, or in a part that lies elsewhere.
    images, others, helpers = scan(folder, found.root if folder.is_relative_to(found.root) else real(folder))
    at_top = folders_in(folder) if real(folder) == real(found.root) else []
    apart = {f for f in at_top if part_of(f.name) or real(f) in taken}
    images, others, helpers = ([p for p in paths if not apart & {*p.parents}] for paths in (images, others, helpers))
    found.others += others
    for path in images:
        within = path.parts[len(folder.parts) : -1]
        label: str | None = within[0] if within else None
        if label_from == "suffix":
            label = class_in_name(path)
        found.pictures.append(Picture(path, part, label))
    if part != "unlabeled" and label_from == "folder":
        full = {p.label for p in found.pictures if p.part == part}
        found.empty += [f for f in folders_in(folder) if f.name not in full and f not in apart]
    return helpers


def class_in_name(path: Path) -> str | None:
    """The class of a picture that is called like RealMix's, ``12_cat.png``: what follows the last ``_``."""
    return path.stem.rpartition("_")[2] or None if "_" in path.stem else None


def _look_beside(found: Contents) -> None:
    """Find what lies at the top and is not read, and say so."""
    parts = [real(p) for p in (found.labeled, found.unlabeled, found.validation, found.test) if p is not None]
    found.beside = [f for f in folders_in(found.root) if not any(p.is_relative_to(real(f)) for p in parts)]
    if real(found.root) in parts:  # its other folders are classes
        found.beside = [f for f in found.beside if part_of(f.name)]
    else:
        pictures = [f for f in found.root.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file()]
        found.beside += [f for f in pictures if not f.name.startswith(".")]
    if found.beside:
        found.notes.append(f"not read, as they are no part of {found.root}: {found.names(found.beside)}")


def _annotated(file: Path, found: Contents) -> list[Picture]:
    """Tiny-ImageNet's test pictures: lines of file name, class and a box, separated by tabs."""
    pictures, known = [], {p.label for p in found.pictures if p.part == "labeled"}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in known or Path(fields[0]).name != fields[0]:
            raise ValueError(
                f"line {number} of {file} is not a file name and a class of the training part: {line[:60]!r}"
            )
        path = file.parent / "images" / fields[0]
        check_link(path, real(found.root))
        pictures.append(Picture(path, "test", fields[1]))
    return pictures


def _no_folder(root: Path) -> str:
    if root.exists():
        return (
            f"{str(root)!r} is a file; own data are a folder with labeled/CLASS/ in it, or a .zip, .tar, .csv, .tsv "
            "or .tfrecord file"
        )
    sentence = f"there is no folder {str(root)!r}"
    # photos/@40 or ./photos.1@40-5: the split of a named set, put behind a folder
    bare = str(root).split("@")[0].rstrip("/")
    if "@" in str(root) and bare and (Path(bare).is_dir() or Path(bare).with_suffix("").is_dir()):
        sentence += "; a folder's name carries no split, give labels, seed and valid as options"
    return sentence


def _no_labeled(root: Path, folders: list[Path], *, strict: bool) -> str:
    names = first([f.name for f in folders])
    if strict:
        sentence = (
            f"{root} has no folder 'labeled' (or 'train'); own pictures lie in {root}/labeled/CLASS/, "
            "and beside it in unlabeled/ and test/CLASS/ if there are such"
        )
        if len(folders) > 1:
            sentence += f"; --data.labeled {root} takes its folders for the classes: {names}"
        return sentence
    there = f"one class folder only ({names})" if folders else "no class folders"
    sentence = (
        f"{root} has no folder 'labeled' (or 'train'), and {there}; own pictures lie in {root}/CLASS/ or in "
        f"{root}/labeled/CLASS/ with at least 2 classes, and beside it in unlabeled/ and test/CLASS/ if there are such"
    )
    if folders and folders_in(folders[0]):
        sentence += f"; if the classes are the folders of {folders[0]}, give that as the data"
    return sentence
