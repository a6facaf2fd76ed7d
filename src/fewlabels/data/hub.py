"""Data sets of the Hugging Face hub, through its package `datasets`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fewlabels.data.archives import DataUnavailable
from fewlabels.data.blobs import Blob
from fewlabels.data.listing import UNLABELED, Listing, Row, short
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.words import first, reason

PREFIX = "hf:"
LABELS = ("label", "labels", "fine_label", "class", "target")
"""Columns that hold the label, the likeliest first; one with class names is preferred."""


def list_hub(name: str) -> Listing:
    """The pictures of ``hf:OWNER/NAME`` (or ``hf:OWNER/NAME:CONFIG``).

    The split "train" is labeled (-1 or no label: unlabeled), "unlabeled" or "unsupervised" is not, "test" (or
    else "validation") is the test part. The pictures are those of the one column of pictures, the classes those
    of the label column, in the data set's order.

    Raises:
        DataUnavailable: the package is not installed, or the data set cannot be had.
        ValueError: it has no such splits or columns.
    """
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataUnavailable(
            f"{name} needs the package 'datasets': install fewlabels[hub] (pip install 'fewlabels[hub]')"
        ) from error
    repository, _, config = name.removeprefix(PREFIX).partition(":")
    try:
        parts: Any = datasets.load_dataset(repository, config or None)
    except Exception as error:  # its own kinds, those of its network and of its file formats
        raise DataUnavailable(f"{name} cannot be loaded: {reason(error)}") from error
    if "train" not in parts:
        raise ValueError(f"{name} has no split 'train', only {first(list(parts))}")
    picture, label = _columns(name, parts["train"].features)
    folders = _folders(datasets, repository)
    names: list[str] | None = getattr(parts["train"].features[label], "names", None)

    def rows(part: str) -> list[Row]:
        table = parts[part].cast_column(picture, datasets.Image(decode=False))
        out: list[Row] = []
        for i, row in enumerate(table):
            what = f"picture {i} of the split {part!r} of {name}"
            truth = None if part in ("unlabeled", "unsupervised") else _truth(what, row.get(label), names)
            out.append((Blob(f"{part}[{i}]", _content(what, row[picture], folders)), truth))
        return out

    train = [row for part in ("train", "unlabeled", "unsupervised") if part in parts for row in rows(part)]
    held = next((part for part in ("test", "validation") if part in parts), None)
    test = rows(held) if held else []
    notes = [] if held else [f"{name} has no split 'test' or 'validation'; there is no test accuracy"]
    if any(truth is None for _, truth in test):
        test, notes = [], [f"the split {held!r} of {name} has no labels; there is no test accuracy"]
    return Listing(
        name=repository.rpartition("/")[2],
        where=f"the split 'train' of {name}",
        train=train,
        test=test,
        classes=tuple(names) if names else (),
        notes=notes,
    )


def _truth(what: str, value: Any, names: list[str] | None) -> str | None:
    """The class that a label means, None for unlabeled. Raises ValueError where it is neither."""
    if value is None or value != value or str(value) in UNLABELED:  # NaN is not itself
        return None
    if names is None and isinstance(value, str | int | float):
        return str(value)
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    allowed = "one text or number" if names is None else f"0 to {len(names) - 1}"
    raise ValueError(
        f"{what} has the label {short(str(value))}; allowed are {allowed}, and -1 for an unlabeled picture"
    )


def _content(what: str, cell: Any, folders: list[Path]) -> bytes:
    """The picture file of a cell; a path in it leads no further than where the hub's package keeps its files."""
    if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
        raise ValueError(f"{what} is missing: its cell is empty")
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    path = Path(cell["path"])
    if not any(real(path).is_relative_to(folder) for folder in folders):
        raise ValueError(f"{what} is said to be {str(path)!r}, which is not in {first(folders)}")
    if not path.is_file():
        raise ValueError(f"{what} is said to be {str(path)!r}, and there is no such file")
    return path.read_bytes()


def _folders(datasets: Any, repository: str) -> list[Path]:
    """Where files of the data set may lie: the package's own folders, and the data set itself if it is a folder."""
    config = getattr(datasets, "config", None)
    kept = ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH")
    folders = [getattr(config, name, None) for name in kept]
    folders += [os.environ.get("HF_HUB_CACHE"), repository if Path(repository).is_dir() else None]
    return list(dict.fromkeys(real(expanded(folder)) for folder in folders if folder))


def _columns(name: str, features: Any) -> tuple[str, str]:
    pictures = [column for column, kind in features.items() if type(kind).__name__ == "Image"]
    if len(pictures) != 1:
        raise ValueError(f"{name} must have one column of pictures, it has {first(pictures) or 'none'}")
    labels = [column for column in LABELS if column in features]
    named = [column for column, kind in features.items() if getattr(kind, "names", None)]
    best = [column for column in labels if column in named] or named or labels
    if not best:
        raise ValueError(f"{name} has no column of labels; its columns are {first(list(features))}")
    return pictures[0], best[0]
