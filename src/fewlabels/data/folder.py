"""A folder of one's own pictures as a source: ``labeled/CLASS/``, ``unlabeled/``, ``test/CLASS/``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewlabels.data.pictures import Unreadable, decode, find_images, read_pictures, scan
from fewlabels.data.source import Progress, Source, first, own_style

__all__ = ["Unreadable", "decode", "find_images", "read_folder"]


def read_folder(
    path: Path | str,
    *,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> Source:
    """Read ``labeled/CLASS/**`` (or ``train/CLASS/**``), ``unlabeled/**`` and ``test/CLASS/**``.

    The last two may be missing. Classes are the folder names of the labeled part in sorted order; pictures
    come labeled first, then unlabeled, each sorted by path. Size and channels: see
    `pictures.read_pictures`.

    Raises:
        ValueError: the folder has not this form, or pictures cannot be read and `skip_corrupt` is false.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(_no_folder(root))
    others: list[Path] = []
    labeled = _labeled_part(root)
    by_class = _class_folders(labeled, root, others)
    classes = tuple(sorted(by_class))
    _check_classes(labeled, by_class)

    notes: list[str] = []
    unlabeled: list[Path] = []
    if (root / "unlabeled").is_dir():
        unlabeled, more = scan(root / "unlabeled", root)
        others += more
        if not unlabeled:
            notes.append(f"{root / 'unlabeled'} holds no pictures; the labeled ones serve as the unlabeled set")
    else:
        notes.append(f"{root} has no folder 'unlabeled'; the labeled pictures serve as the unlabeled set")
    test: dict[str, list[Path]] = {}
    if (root / "test").is_dir():
        test = _class_folders(root / "test", root, others)
        new = sorted(set(test) - set(classes))
        if new:
            raise ValueError(f"{root / 'test'} has classes that {labeled} has not: {first(new)}")
        empty = [name for name in classes if not test.get(name)]
        if empty:
            notes.append(f"{root / 'test'} holds no pictures of {first(empty)}")
    else:
        notes.append(f"{root} has no folder 'test'; there is no test accuracy")
    if others:
        names = first([other.relative_to(root).as_posix() for other in sorted(others)])
        notes.append(f"{len(others)} files of {root} are no pictures and were left out: {names}")

    number = {name: label for label, name in enumerate(classes)}
    rows = [(p, number[name]) for name in classes for p in by_class[name]] + [(p, -1) for p in unlabeled]
    train = len(rows)
    rows += [(p, number[name]) for name in classes for p in test.get(name, [])]
    pictures = read_pictures(
        [p for p, _ in rows], image_size=image_size, skip_corrupt=skip_corrupt, progress=progress, base=root
    )
    labels = np.array([label for _, label in rows], np.int64)[pictures.kept]
    train = int(pictures.kept[:train].sum())
    gone = [name for label, name in enumerate(classes) if not (labels[:train] == label).any()]
    if gone:
        raise ValueError(f"no picture of {first(gone)} in {labeled} can be read")
    return Source(
        name=root.resolve().name,
        classes=classes,
        images=pictures.images[:train],
        labels=labels[:train],
        test_images=pictures.images[train:],
        test_labels=labels[train:],
        style=own_style(pictures.images.shape[1]),
        notes=(*notes, *pictures.notes),
    )


def _no_folder(root: Path) -> str:
    if root.exists():
        return f"{str(root)!r} is a file; own data are a folder with labeled/CLASS/ in it"
    sentence = f"there is no folder {str(root)!r}"
    # photos/@40 or ./photos.1@40-5: the split of a named set, put behind a folder
    bare = str(root).split("@")[0].rstrip("/")
    if "@" in str(root) and bare and (Path(bare).is_dir() or Path(bare).with_suffix("").is_dir()):
        sentence += "; a folder's name carries no split, give labels, seed and valid as options"
    return sentence


def _labeled_part(root: Path) -> Path:
    found = [root / name for name in ("labeled", "train") if (root / name).is_dir()]
    if not found:
        raise ValueError(
            f"{root} has no folder 'labeled' (or 'train'); own pictures lie in {root}/labeled/CLASS/, "
            "and beside it in unlabeled/ and test/CLASS/ if there are such"
        )
    if len(found) == 2:
        raise ValueError(f"{root} has both a folder 'labeled' and a folder 'train'; keep one of them")
    return found[0]


def _class_folders(part: Path, root: Path, others: list[Path]) -> dict[str, list[Path]]:
    """Pictures of each class folder in `part`; files that are no pictures are added to `others`."""
    found, no_pictures = scan(part, root)
    loose = [p.name for p in found if p.parent == part]
    if loose:
        raise ValueError(f"{part} has pictures outside its class folders: {first(loose)}")
    others += no_pictures
    by_class: dict[str, list[Path]] = {
        entry.name: [] for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    }
    for p in found:
        by_class[p.relative_to(part).parts[0]].append(p)
    return by_class


def _check_classes(labeled: Path, by_class: dict[str, list[Path]]) -> None:
    if not any(by_class.values()):
        raise ValueError(f"{labeled} holds no pictures; they belong into {labeled}/CLASS/")
    if len(by_class) == 1:
        raise ValueError(f"{labeled} has one class only ({next(iter(by_class))}); at least 2 are needed")
    empty = sorted(name for name, paths in by_class.items() if not paths)
    if empty:
        raise ValueError(f"{labeled} has class folders without pictures: {first(empty)}; fill them or remove them")
