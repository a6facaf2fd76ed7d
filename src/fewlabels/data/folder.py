"""A folder of one's own pictures as a training takes it."""

from __future__ import annotations

from pathlib import Path

from fewlabels.data.contents import Contents, LabelFrom, contents, part_of
from fewlabels.data.find import folders_in, scan
from fewlabels.data.listing import MISSING, Listing, Row, class_order, strangers
from fewlabels.data.pictures import Unreadable, decode, find_images
from fewlabels.data.tars import is_tar
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import first

__all__ = ["LabelFrom", "Unreadable", "decode", "find_images", "list_folder"]

NO_CLASS = frozenset({"unlabeled", "unlabelled", "-1"})
"""Names that no class folder can have."""


def list_folder(
    path: Path | str,
    *,
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    label_from: LabelFrom = "folder",
    validation: bool = True,
    strict: bool = False,
) -> Listing:
    """The pictures of a folder for a training; see `contents`.

    Classes are sorted by name, numbers by value; pictures come labeled first, then unlabeled, then those of a
    validation part beside a test part, each sorted by path.

    Raises:
        ValueError: the folder has not this form.
    """
    given = {"labeled": labeled, "unlabeled": unlabeled, "test": test}
    found = contents(path, **given, label_from=label_from, validation=validation, strict=strict)
    root, part, tested = found.root, found.labeled, found.test
    if found.plain:
        raise ValueError(found.plain)
    by_class, by_name, by_valid = (_by_class(found, where, label_from) for where in ("labeled", "test", "validation"))
    _check_classes(found, by_class)
    if not strict and labeled is None:
        _check_beside(found, by_class)
    notes = list(found.notes)
    unsure = [name for name in by_class if name.casefold() in MISSING]
    if unsure:
        notes.append(f"{first(unsure)} of {part} counts as a class; unlabeled pictures belong into {root}/unlabeled/")
    if parts := [name for name in by_class if part_of(name)]:
        notes.append(f"{first(parts)} of {part} counts as a class, though a part of a data set may be called so")
    if label_from == "folder" and (below := _sub_folders(part, by_class)):
        notes.append(f"sub-folders of a class of {part} are no classes of their own: {first(below)}")

    train: list[Row] = [(p, name) for name, paths in by_class.items() for p in paths]
    free: list[Row] = [(picture.path, None) for picture in found.pictures if picture.part == "unlabeled"]
    if free:
        pass
    elif found.unlabeled is None:
        notes.append(f"{root} has no folder 'unlabeled'; the labeled pictures serve as the unlabeled set")
    elif any(map(is_tar, found.others)):
        raise ValueError(
            f"{found.unlabeled} holds no pictures, and the parts of {root} hold tar files beside folders of pictures: "
            "either all parts are tar files (`fewlabels data convert FOLDER NEW --tar N` makes them), or none is"
        )
    else:
        notes.append(f"{found.unlabeled} holds no pictures; the labeled ones serve as the unlabeled set")
    tests: list[Row] = [(p, name) for name, paths in by_name.items() for p in paths]
    valid: list[Row] = [(p, name) for name, paths in by_valid.items() for p in paths]
    if found.annotated:  # their file has an order of its own
        tests = [(picture.path, picture.label) for picture in found.pictures if picture.part == "test"]
    if tested is None:
        notes.append(f"{root} has no folder 'test'; there is no test accuracy")
    else:
        notes += _missing(found, tested, by_class, by_name)
    if found.validation is not None:
        notes += _missing(found, found.validation, by_class, by_valid)
    if found.others:
        names = found.names(found.others)
        notes.append(f"{len(found.others)} files of {root} are no pictures and were left out: {names}")
    return Listing(
        name=real(root).name,
        where=str(part),
        train=[*train, *free, *valid],
        test=tests,
        held=len(valid),
        classes=tuple(by_class),
        base=root,
        notes=notes,
    )


def _missing(found: Contents, part: Path, classes: dict[str, list[Path]], there: dict[str, list[Path]]) -> list[str]:
    """What is to be said of classes that have no pictures in the test or validation part. Raises ValueError for
    classes of it that are new."""
    if new := [name for name in there if name not in classes]:
        raise ValueError(f"{part} has classes that {found.labeled} has not: {strangers(new, tuple(classes))}")
    empty = [name for name in classes if not there.get(name)]
    return [f"{part} holds no pictures of {first(empty)}"] if empty else []


def _check_beside(found: Contents, by_class: dict[str, list[Path]]) -> None:
    """Raise ValueError where a class has a folder in the labeled part and another one beside that."""
    names = {name.casefold() for name in by_class}
    twice = [f for f in found.beside if not found.bare and f.name.casefold() in names and f.is_dir()]
    if twice := [folder for folder in twice if scan(folder, found.root).images]:
        raise ValueError(
            f"{found.root} has class folders in {found.labeled.name}/ and others of these classes beside it "
            f"({found.names(twice)}); they lie either in {found.labeled.name}/ or right in {found.root}: put them "
            "together, or say which count with --data.labeled FOLDER"
        )


def _by_class(found: Contents, part: str, label_from: LabelFrom) -> dict[str, list[Path]]:
    """Pictures of each class of a part, in the order of the classes. Raises ValueError for pictures without one."""
    where = {"labeled": found.labeled, "test": found.test, "validation": found.validation}[part]
    pictures = [p for p in found.pictures if p.part == part]
    loose = [p.path.name for p in pictures if p.label is None]
    if loose and label_from == "suffix":
        raise ValueError(f"{where} has pictures without a class after '_' in their names: {first(loose)}")
    if loose and part != "labeled" and len(loose) == len(pictures) and not folders_in(where or found.root):
        own = f", or a class of this name into {found.root}/labeled/ with the others" if found.bare else ""
        raise ValueError(
            f"{where} has pictures and no class folders: {first(loose)}; they belong into {where}/CLASS/, or into "
            f"{found.root}/unlabeled/ where no class is known{own}"
        )
    if loose:
        hint = "; for names like 12_CLASS.png set label_from to suffix" if all("_" in name for name in loose) else ""
        raise ValueError(f"{where} has pictures outside its class folders: {first(loose)}{hint}")
    by_class: dict[str, list[Path]] = {folder.name: [] for folder in found.empty if folder.parent == where}
    for p in pictures:
        by_class.setdefault(str(p.label), []).append(p.path)
    return {name: by_class[name] for name in sorted(by_class, key=class_order)}


def _sub_folders(part: Path, by_class: dict[str, list[Path]]) -> list[str]:
    """Classes whose pictures lie in several folders, with these."""
    depth, out = len(part.parts) + 1, []
    for name, paths in by_class.items():
        below = sorted({p.parts[depth] for p in paths if len(p.parts) > depth + 1})
        if len(below) > 1:
            out.append(f"{name} ({first(below, 3)})")
    return out


def _check_classes(found: Contents, by_class: dict[str, list[Path]]) -> None:
    labeled = found.labeled
    if not any(by_class.values()):
        raise ValueError(f"{labeled} holds no pictures; they belong into {labeled}/CLASS/")
    if len(by_class) == 1:
        raise ValueError(f"{labeled} has one class only ({next(iter(by_class))}); at least 2 are needed")
    below = [f for name in by_class for f in folders_in(labeled / name)] if found.bare else []
    if sets := [f for f in below if part_of(f.name) == "labeled"]:
        raise ValueError(
            f"{sets[0].parent} may be a data set and no class of {labeled}, as it has a folder {sets[0].name!r}: give "
            f"the one or the other as the data; --data.labeled {labeled} takes the folders of {labeled} for the classes"
        )
    empty = [name for name, paths in by_class.items() if not paths]
    if empty:
        raise ValueError(f"{labeled} has class folders without pictures: {first(empty)}; fill them or remove them")
    if all(map(part_of, by_class)):
        raise ValueError(
            f"the class folders of {labeled} are called {first(list(by_class))}, as the parts of a data set are; if "
            f"that is what they are, give {labeled}/ as the data"
        )
    wrong = [name for name in by_class if name.casefold() in NO_CLASS]
    if wrong:
        raise ValueError(
            f"{labeled} has a class called {wrong[0]!r}, which means that there is none; unlabeled pictures belong "
            f"into {found.root}/unlabeled/"
        )
