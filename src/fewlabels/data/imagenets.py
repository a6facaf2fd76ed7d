"""ImageNet and its small relatives, from folders that the user has: none may be downloaded without an account,
or comes from one place only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fewlabels.data.archives import DataUnavailable
from fewlabels.data.contents import part_of
from fewlabels.data.find import check_link, folders_in, is_helper, read_text, scan
from fewlabels.data.folder import NO_CLASS, list_folder
from fewlabels.data.kinds import RAW, SUFFIXES
from fewlabels.data.listing import MISSING, Listing, Row, Rows, alike, class_order
from fewlabels.data.paths import Paths
from fewlabels.data.table import rows_of
from fewlabels.runtime.regular import real

FOLDERS = {
    "mini_imagenet": ("mini-imagenet", "mini_imagenet", "miniImageNet"),
    "tiny_imagenet": ("tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet"),
    "imagenet": ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
}
"""Where each set lies in the root: the first of these that is there."""

_FORMS = {
    "mini_imagenet": "train/CLASS/ and test/CLASS/, or train.csv, val.csv, test.csv and images/",
    "tiny_imagenet": "train/WNID/images/ and val/val_annotations.txt",
    "imagenet": "train/WNID/ and val/WNID/",
}


def list_imagenet(name: str, root: Path) -> Listing:
    """The pictures of one of `FOLDERS`. Raises DataUnavailable, with the form that is expected."""
    folder = next((root / f for f in FOLDERS[name] if (root / f).is_dir()), None)
    if folder is None:
        raise DataUnavailable(
            f"{name} is not in {root} and is not downloaded; put {FOLDERS[name][0]}/ with {_FORMS[name]} there, "
            "or give the folder that has it (--data.root or $ML_DATA)"
        )
    if name == "mini_imagenet":
        listing = _mini(folder)
    elif name == "tiny_imagenet":
        listing = list_folder(folder, strict=True)
    else:
        listing = _tree(folder) or list_folder(folder, labeled=folder / "train", test=folder / "val", strict=True)
    listing.name = name
    return listing


def _tree(folder: Path) -> Listing | None:
    """The listing of `list_folder`, in little memory, of a folder that holds what it should: ``train/WNID/`` and
    ``val/WNID/``, the same classes in both, and nothing but files of pictures in them; None for any other, of which
    `list_folder` says what it is."""
    names = [f.name for f in folders_in(folder)]
    if not {"train", "val"} <= set(names) or [
        n for n in names if n != "train" and part_of(n) in ("labeled", "unlabeled")
    ]:
        return None
    parts: list[Rows] = []
    classes: tuple[str, ...] = ()
    for part in ("train", "val"):
        below = sorted(entry.name for entry in os.scandir(folder / part) if not entry.name.startswith("."))
        if not classes:
            classes = tuple(sorted(below, key=class_order))
            wrong = [n for n in below if part_of(n) or is_helper(n) or n.casefold() in (*NO_CLASS, *MISSING)]
            if wrong or len(classes) < 2 or alike(classes):
                return None
        if set(below) != set(classes):
            return None
        found = [(folder / part / name, _plain_names(folder / part / name)) for name in classes]
        if not all(names for _, names in found):
            return None
        counts = [len(names or ()) for _, names in found]
        files = Paths.of((where, names or ()) for where, names in found)
        parts.append(Rows(files, np.repeat(np.arange(len(classes), dtype=np.int32), counts), classes))
    note = f"{folder} has no folder 'unlabeled'; the labeled pictures serve as the unlabeled set"
    where = str(folder / "train")
    return Listing(
        name=folder.name, where=where, train=parts[0], test=parts[1], classes=classes, base=folder, notes=[note]
    )


def _plain_names(folder: Path) -> list[str] | None:
    """The names of the files in a folder, sorted; None where there is anything but regular files of pictures."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            ending = os.path.splitext(entry.name)[1].lower()
            if entry.is_symlink() or not entry.is_file() or ending not in SUFFIXES or ending in RAW.endings:
                return None
            names.append(entry.name)
    return sorted(names)


def _mini(folder: Path) -> Listing:
    """Mini-ImageNet (Vinyals et al. 2016): 100 classes of 600 pictures.

    Folders train and test with the same classes are taken as they are. The three parts of few-shot learning
    (64, 16 and 20 classes; folders, or csv files with the columns filename and label) are put together, and
    then 5 of 6 pictures of each class are for training: classes in sorted order, file names sorted, and one
    ``RandomState(0).permutation`` per class, whose first 500 of 600 are the training pictures. Both parts keep
    the sorted order.
    """
    by_class: dict[str, list[Path]] = {}
    tables = [folder / f"{part}.csv" for part in ("train", "val", "test")]
    if any(table.is_file() for table in tables):
        for table in tables:
            for path, label in _table(table):
                by_class.setdefault(label, []).append(path)
    else:
        parts = [folder / part for part in ("train", "val", "test") if (folder / part).is_dir()]
        classes = [{p.name for p in folders_in(part)} for part in parts]
        if len(parts) < 2 or classes[0] & set().union(*classes[1:]):
            return list_folder(folder, strict=True)
        for part in parts:
            for path in scan(part, folder).images:
                by_class.setdefault(path.relative_to(part).parts[0], []).append(path)
    random = np.random.RandomState(0)
    train: list[Row] = []
    test: list[Row] = []
    for name in sorted(by_class):
        files = sorted(by_class[name], key=lambda p: p.name)
        order = random.permutation(len(files))
        cut = len(files) * 5 // 6
        train += [(files[i], name) for i in sorted(order[:cut])]
        test += [(files[i], name) for i in sorted(order[cut:])]
    note = f"{folder} holds the few-shot parts; 5 of 6 pictures of each of the {len(by_class)} classes are for training"
    return Listing(name="mini_imagenet", where=str(folder), train=train, test=test, base=folder, notes=[note])


def _table(table: Path) -> list[tuple[Path, str]]:
    files = []
    try:
        for line, (name, label, _) in rows_of(read_text(table), "filename", "label"):
            if not name or Path(name).name != name:
                raise ValueError(f"line {line} names {name!r}, which is no plain file name")
            if not label:
                raise ValueError(f"line {line} has no label")
            files.append((table.parent / "images" / name, label))
            check_link(files[-1][0], real(table.parent))
    except OSError as error:
        raise DataUnavailable(f"mini_imagenet needs {table}, which cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{table} is no table with the columns filename and label: {error}") from error
    return files
