"""New folders from a folder of pictures: some classes of it, cropped pictures, other file names."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewlabels.data.find import read_text
from fewlabels.data.pictures import Decoding, decode, fit
from fewlabels.datatools.layout import Layout, Picture, Step, check_distinct
from fewlabels.runtime import files
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import first, nearest

# ---- filter


def select(found: Layout, classes: Sequence[str], parts: Sequence[str]) -> list[Step]:
    """What stays of a folder when only `classes` are kept in `parts`; other parts stay whole.

    Class folders keep their names (RealMix's scripts/filter_dataset.py keeps the numbers of its classes). A
    picture of unknown class stays.

    Raises:
        ValueError: a class that the folder has not, or nothing would be left of the labeled part.
    """
    known = found.classes
    for name in classes:
        if name not in known:
            raise ValueError(f"{found.root} has no class {name!r}{nearest(name, known)} (it has: {first(known, 20)})")
    kept = [p for p in found.pictures if p.part not in parts or p.label is None or p.label in classes]
    if not any(p.part == "labeled" for p in kept):
        raise ValueError(f"no labeled picture of {found.root} would be left")
    return [Step(p.path, p.within) for p in kept]


# ---- crop


def crop_steps(found: Layout, suffix: str) -> list[Step]:
    """The same tree with another file ending."""
    steps = [Step(p.path, p.within.with_suffix(suffix)) for p in found.pictures]
    check_distinct(steps)
    return steps


def crop(path: Path, to: Path, size: int, how: Decoding) -> None:
    """Write one picture as a square of `size` pixels, see `pictures.fit`; "pad" is RealMix's
    scripts/preprocess_crops.py.

    Grey stays grey, transparency and EXIF rotation are resolved. Raises Unreadable.
    """
    pixels = decode(path, 3, None, how)
    grey = bool((pixels == pixels[..., :1]).all())
    image = fit(Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels), size, how.fit)
    image.save(to, quality=95) if to.suffix == ".jpg" else image.save(to)


# ---- rename


def numbered(found: Layout, start: int) -> list[Step]:
    """Names ``NUMBER_CLASS.ending`` in the folders where the pictures lie, as RealMix's scripts/rename_files.py.

    Numbers run over the whole folder in the order of the paths, with leading zeros. CLASS is the whole name of
    the class folder, of a picture without one (unlabeled) it is left out; the original takes the folder that
    holds the picture, without its hyphens, and skips folders with "all" in their names.
    """
    width = len(str(start + len(found.pictures) - 1))

    def name(number: int, p: Picture) -> str:
        text = f"{number:0{width}}"
        return f"{text if p.label is None else f'{text}_{p.label}'}{p.path.suffix}"

    return [Step(p.path, p.within.with_name(name(start + i, p))) for i, p in enumerate(found.pictures)]


def rename_in_place(root: Path, steps: Sequence[Step], log: Path, *, dry_run: bool = False) -> None:
    """Rename ``step.path`` to ``root / step.to``, after writing both names of each to the JSON file `log`.

    Raises ValueError before anything is renamed if a new name or the log exists; `dry_run` looks only.
    """
    check_distinct(steps)
    taken = [root / s.to for s in steps if os.path.lexists(root / s.to) and root / s.to != s.path]
    if taken:
        raise ValueError(
            f"{len(taken)} of the new names exist already: {first(taken)}; nothing was renamed (--index begins with "
            "another number)"
        )
    if os.path.lexists(log):
        raise ValueError(f"{log} exists; it may be needed to undo an earlier renaming, move it away first")
    if dry_run:
        return
    pairs = [[s.path.relative_to(root).as_posix(), s.to.as_posix()] for s in steps if root / s.to != s.path]
    files.write_json(log, {"root": str(real(root)), "renamed": pairs})
    _move(root, pairs)


def undo(log: Path, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Give the pictures their old names back; returns the pairs (new, old). The log becomes ``LOG.undone``.

    A renaming that was broken off is undone as far as it went. Raises ValueError before anything is renamed if
    the log is none, or says anything that `rename_in_place` does not write: a folder that is not beside it, names that
    leave that folder; or if a picture is gone or its old name taken.
    """
    try:
        content: Any = json.loads(read_text(log))
        root = Path(content["root"])
        pairs = [(str(new), str(old)) for old, new in content["renamed"]]
    except OSError as error:
        raise ValueError(f"the log {str(log)!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{log} is not the log of a renaming") from error
    beside = real(log).parent
    if "\0" in str(root) or real(root).parent != beside or not root.is_dir():
        raise ValueError(f"{log} is of the folder {str(root)!r}, which is not beside it in {beside}; put both together")
    _check_names(log, real(root), pairs)
    todo = [pair for pair in pairs if not (os.path.lexists(root / pair[1]) and not os.path.lexists(root / pair[0]))]
    gone = [new for new, _ in todo if not os.path.lexists(root / new)]
    taken = [old for _, old in todo if os.path.lexists(root / old)]
    if gone or taken:
        what = f"{first(gone)} are gone" if gone else f"the old names {first(taken)} are taken"
        raise ValueError(f"the renaming of {root} cannot be undone: {what}; nothing was renamed")
    done = log.with_name(f"{log.name}.undone")
    if os.path.lexists(done):
        raise ValueError(f"{done} exists; move it away first")
    if not dry_run:
        _move(root, todo)
        log.rename(done)
    return todo


def _check_names(log: Path, root: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError unless each pair is two names in one folder in `root`, links followed, and none comes twice."""
    for pair in pairs:
        parents = {Path(name).parent for name in pair}
        folder = root / parents.pop()
        plain = all("\0" not in name and Path(name).name and ".." not in Path(name).parts for name in pair)
        if not plain or parents or not real(folder).is_relative_to(root):
            raise ValueError(f"{log} names {pair[0]!r} and {pair[1]!r}, which are not in one folder in {root}")
    for names in zip(*pairs, strict=True):
        twice = next((name for name, n in Counter(names).items() if n > 1), None)
        if twice is not None:
            raise ValueError(f"{log} names {twice!r} twice; nothing was renamed")


def _move(root: Path, pairs: Sequence[Sequence[str]]) -> None:
    for old, new in pairs:
        if os.path.lexists(root / new):  # it was not there when we looked
            raise ValueError(f"{root / new} has appeared meanwhile; the log of the renaming can undo what was done")
        (root / old).rename(root / new)
