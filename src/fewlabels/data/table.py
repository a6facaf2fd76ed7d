"""A table of pictures: a CSV file with the columns ``path``, ``label`` and perhaps ``split``."""

from __future__ import annotations

import csv
from pathlib import Path

from fewlabels.data.listing import Listing, Row
from fewlabels.data.source import first

PARTS = ("train", "labeled", "unlabeled", "test")
"""What the column ``split`` may say; empty: train."""


def list_table(path: Path, base: Path | None = None) -> Listing:
    """The pictures of a table; an empty label means unlabeled.

    Args:
        base: folder that the paths start from, and that they stay in; default: the table's own.

    Raises:
        ValueError: the file is no such table, with the number of the line.
    """
    base = path.parent if base is None else base
    top = base.resolve()
    train: list[Row] = []
    test: list[Row] = []
    seen: dict[Path, int] = {}
    twice: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in table.fieldnames or ()]
            if not {"path", "label"} <= set(columns):
                raise ValueError(f"its first line must name the columns path and label, got {', '.join(columns)!r}")
            table.fieldnames = columns
            for row in table:
                name, label, part = ((row.get(c) or "").strip() for c in ("path", "label", "split"))
                picture = _inside(base / name, top, name)
                if part not in ("", *PARTS):
                    raise ValueError(f"line {table.line_num}: split must be one of {', '.join(PARTS)}, got {part!r}")
                if part in ("labeled", "test") and not label:
                    raise ValueError(f"line {table.line_num}: a {part} picture needs a label")
                if picture in seen:
                    twice.append(f"{name} (lines {seen[picture]} and {table.line_num})")
                seen[picture] = table.line_num
                if part == "test":
                    test.append((picture, label))
                else:
                    train.append((picture, label if label and part != "unlabeled" else None))
    except OSError as error:
        raise ValueError(f"the table {str(path)!r} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} is no table of pictures: {error}") from error
    if twice:
        raise ValueError(f"{path} names pictures more than once: {first(twice)}")
    notes = [] if test else [f"{path} has no test pictures (column split); there is no test accuracy"]
    if not any(label is None for _, label in train):
        notes.append(f"{path} has no unlabeled pictures; the labeled ones serve as the unlabeled set")
    return Listing(name=path.stem, where=str(path), train=train, test=test, base=base, notes=notes)


def _inside(picture: Path, top: Path, name: str) -> Path:
    if not name:
        raise ValueError("a line has no path")
    if "\0" in name or not picture.resolve().is_relative_to(top):
        raise ValueError(f"the picture {name!r} is not in {str(top)!r}; --data.root names another folder to start from")
    return picture
