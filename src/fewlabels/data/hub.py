"""Data sets of the Hugging Face hub, through its package `datasets`."""

from __future__ import annotations

from typing import Any

from fewlabels.data.archives import DataUnavailable
from fewlabels.data.listing import Listing, Row
from fewlabels.data.pictures import Blob
from fewlabels.data.source import first

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
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataUnavailable(f"{name} cannot be loaded: {reason}") from error
    if "train" not in parts:
        raise ValueError(f"{name} has no split 'train', only {first(list(parts))}")
    picture, label = _columns(name, parts["train"].features)
    names: list[str] | None = getattr(parts["train"].features[label], "names", None)

    def rows(part: str) -> list[Row]:
        table = parts[part].cast_column(picture, datasets.Image(decode=False))
        out: list[Row] = []
        for i, row in enumerate(table):
            value, content = row.get(label), row[picture]
            known = value is not None and value != -1 and part not in ("unlabeled", "unsupervised")
            data = content.get("bytes")
            if data is None:
                with open(content["path"], "rb") as file:
                    data = file.read()
            out.append((Blob(f"{part}[{i}]", data), (names[value] if names else str(value)) if known else None))
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
