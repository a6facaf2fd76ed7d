"""A folder of one's own pictures: ``labeled/CLASS/``, ``unlabeled/``, ``test/CLASS/``, or each part anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from fewlabels.data.listing import Listing, Options, Row
from fewlabels.data.pictures import Decoding, Fit, Unreadable, decode, find_images, scan
from fewlabels.data.source import Progress, Source, first

__all__ = ["LabelFrom", "Unreadable", "decode", "find_images", "list_folder", "read_folder"]

LabelFrom: TypeAlias = Literal["folder", "suffix"]
"""Whether a picture's class is the folder it lies in, or the last part of its name (RealMix's 12_cat.png)."""


def read_folder(
    path: Path | str,
    *,
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    label_from: LabelFrom = "folder",
    image_size: int | None = None,
    fit: Fit = "crop",
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> Source:
    """`list_folder`, read; size and channels: see `reading.read_pictures`."""
    listing = list_folder(path, labeled=labeled, unlabeled=unlabeled, test=test, label_from=label_from)
    return listing.read(Options(image_size=image_size, how=Decoding(fit), skip_corrupt=skip_corrupt, progress=progress))


def list_folder(
    path: Path | str,
    *,
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    label_from: LabelFrom = "folder",
) -> Listing:
    """The pictures of ``labeled/CLASS/**`` (or ``train/CLASS/**``), ``unlabeled/**`` and ``test/CLASS/**``.

    The last two may be missing. `labeled`, `unlabeled` and `test` name other folders for the parts. A ``val``
    folder serves as the test part where there is no other; one with Tiny-ImageNet's ``val_annotations.txt``
    always does, because the test part of such a set has no labels. With `label_from` "suffix" the pictures lie
    flat in their part, and ``12_cat.png`` is a cat. Classes are sorted by name; pictures come labeled first,
    then unlabeled, each sorted by path.

    Raises:
        ValueError: the folder has not this form.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(_no_folder(root))
    others: list[Path] = []
    notes: list[str] = []
    part = _given(labeled, "labeled") or _labeled_part(root)
    by_class = _classes_in(part, root, others, label_from)
    _check_classes(part, by_class)
    train: list[Row] = [(p, name) for name in sorted(by_class) for p in by_class[name]]

    if pool := _given(unlabeled, "unlabeled") or _folder(root, "unlabeled"):
        found, more = scan(pool, _within(pool, root))
        others += more
        train += [(p, None) for p in found]
        if not found:
            notes.append(f"{pool} holds no pictures; the labeled ones serve as the unlabeled set")
    else:
        notes.append(f"{root} has no folder 'unlabeled'; the labeled pictures serve as the unlabeled set")

    held: list[Row] = []
    if (annotations := root / "val" / "val_annotations.txt").is_file() and test is None:
        held = _annotated(annotations, by_class)
        notes.append(f"the test images are those of {annotations.parent}, which have labels")
    elif tested := _given(test, "test") or _folder(root, "test") or _folder(root, "val"):
        if tested.name == "val" and test is None:
            notes.append(f"{root} has no folder 'test'; {tested} serves as the test part")
        by_name = _classes_in(tested, root, others, label_from)
        new = sorted(set(by_name) - set(by_class))
        if new:
            raise ValueError(f"{tested} has classes that {part} has not: {first(new)}")
        held = [(p, name) for name in sorted(by_name) for p in by_name[name]]
        empty = [name for name in sorted(by_class) if not by_name.get(name)]
        if empty:
            notes.append(f"{tested} holds no pictures of {first(empty)}")
    else:
        notes.append(f"{root} has no folder 'test'; there is no test accuracy")
    if others:
        names = first([o.relative_to(root).as_posix() if o.is_relative_to(root) else o for o in sorted(others)])
        notes.append(f"{len(others)} files of {root} are no pictures and were left out: {names}")
    return Listing(
        name=root.resolve().name,
        where=str(part),
        train=train,
        test=held,
        classes=tuple(sorted(by_class)),
        base=root,
        notes=notes,
    )


def _no_folder(root: Path) -> str:
    if root.exists():
        return f"{str(root)!r} is a file; own data are a folder with labeled/CLASS/ in it, a .csv or a .tfrecord file"
    sentence = f"there is no folder {str(root)!r}"
    # photos/@40 or ./photos.1@40-5: the split of a named set, put behind a folder
    bare = str(root).split("@")[0].rstrip("/")
    if "@" in str(root) and bare and (Path(bare).is_dir() or Path(bare).with_suffix("").is_dir()):
        sentence += "; a folder's name carries no split, give labels, seed and valid as options"
    return sentence


def _given(folder: Path | None, what: str) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}, which was given as the {what} part")
    return folder


def _folder(root: Path, name: str) -> Path | None:
    return root / name if (root / name).is_dir() else None


def _within(part: Path, root: Path) -> Path:
    """Where symbolic links in `part` may lead: anywhere in the data's folder, or in a part that lies elsewhere."""
    return root if part.is_relative_to(root) else part.resolve()


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


def _classes_in(part: Path, root: Path, others: list[Path], label_from: LabelFrom) -> dict[str, list[Path]]:
    """Pictures of each class in `part`; files that are no pictures are added to `others`."""
    found, no_pictures = scan(part, _within(part, root))
    others += no_pictures
    by_class: dict[str, list[Path]] = {}
    if label_from == "suffix":
        nameless = [p.name for p in found if not p.stem.rpartition("_")[2] or "_" not in p.stem]
        if nameless:
            raise ValueError(f"{part} has pictures without a class after '_' in their names: {first(nameless)}")
        for p in found:
            by_class.setdefault(p.stem.rpartition("_")[2], []).append(p)
        return by_class
    loose = [p.name for p in found if p.parent == part]
    if loose:
        hint = "; for names like 12_CLASS.png set label_from to suffix" if all("_" in name for name in loose) else ""
        raise ValueError(f"{part} has pictures outside its class folders: {first(loose)}{hint}")
    for entry in part.iterdir():
        if entry.is_dir() and not entry.name.startswith("."):
            by_class[entry.name] = []
    for p in found:
        by_class[p.parts[len(part.parts)]].append(p)
    return by_class


def _annotated(file: Path, by_class: dict[str, list[Path]]) -> list[Row]:
    """Tiny-ImageNet's test pictures: lines of file name, class and a box, separated by tabs."""
    rows: list[Row] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in by_class or Path(fields[0]).name != fields[0]:
            raise ValueError(f"line {number} of {file} is not a file name and a class of the training part: {line!r}")
        rows.append((file.parent / "images" / fields[0], fields[1]))
    return rows


def _check_classes(labeled: Path, by_class: dict[str, list[Path]]) -> None:
    if not any(by_class.values()):
        raise ValueError(f"{labeled} holds no pictures; they belong into {labeled}/CLASS/")
    if len(by_class) == 1:
        raise ValueError(f"{labeled} has one class only ({next(iter(by_class))}); at least 2 are needed")
    empty = sorted(name for name, paths in by_class.items() if not paths)
    if empty:
        raise ValueError(f"{labeled} has class folders without pictures: {first(empty)}; fill them or remove them")
