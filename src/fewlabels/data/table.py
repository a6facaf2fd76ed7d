"""A table of pictures: a CSV file with the columns ``path``, ``label`` and perhaps ``split``."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fewlabels.data.find import read_text
from fewlabels.data.listing import MISSING, UNLABELED, Listing, Row, class_order, short
from fewlabels.runtime.cells import uncell
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import first

ENDINGS = (".csv", ".tsv")
"""Endings of tables, in small or capital letters."""

PARTS = ("train", "labeled", "unlabeled", "test")
"""What the column ``split`` may say; empty: train."""

PARTS_ELSEWHERE = frozenset(
    ("set", "subset", "part", "partition", "phase", "fold", "usage", "is_train", "is_test", "is_valid", "test", "train")
)
"""Columns by which tables of other programs say what ``split`` says."""

LONGEST_LABEL = 400
"""Characters of a label."""

_SEPARATORS = (",", ";", "\t")


def list_table(path: Path, base: Path | None = None) -> Listing:
    """The pictures of a table; an empty label or -1 means unlabeled.

    Columns stand apart by commas, semicolons or tabs; their names may have capital letters. The text is UTF-8, or
    UTF-16 with a byte order mark. Empty rows are passed over. A word that may mean a missing label (`MISSING`) is a
    class only where the column ``split`` says labeled or test. Backslashes part folders where no file has them in its
    name. An apostrophe before what a spreadsheet would take for a formula (`cells.cell`) is taken off; of a path, where
    no file has it in its name.

    Args:
        base: folder that the paths start from, and that they stay in; default: the table's own.

    Raises:
        ValueError: the file is no such table, with the number of the line.
    """
    base = path.parent if base is None else base
    top = real(base)
    train: list[Row] = []
    test: list[Row] = []
    seen: dict[str, tuple[int, str | None]] = {}
    twice: list[str] = []
    minus = 0
    try:
        text = read_text(path)
        for line, (name, label, part) in rows_of(text, "path", "label", "split"):
            try:
                truth = _truth(label, part.casefold())
                picture = _inside(base, name, top)
            except ValueError as error:
                raise ValueError(f"line {line}: {error}") from error
            minus += label in UNLABELED[1:] and part.casefold() != "unlabeled"
            before = seen.setdefault(os.path.abspath(picture), (line, truth))
            if before[0] != line:
                labels = f", with the labels {before[1]!r} and {truth!r}" if before[1] != truth else ""
                twice.append(f"{short(name)} (lines {before[0]} and {line}{labels})")
            (test if part.casefold() == "test" else train).append((picture, truth))
    except OSError as error:
        raise ValueError(f"the table {str(path)!r} cannot be read: {error.strerror}") from error
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is no table of pictures: {error}") from error
    if twice:
        raise ValueError(f"{path} names pictures more than once: {first(twice)}")
    classes = sorted({label for _, label in train if label is not None}, key=class_order)
    if minus and len(classes) == 1:
        raise ValueError(
            f"{path} has one class only ({classes[0]}), as its label -1 means unlabeled; give that class another name"
        )
    notes = [] if test else [f"{path} has no test pictures (column split); there is no test accuracy"]
    _, columns = _columns(_head(text), "path", "label")
    if "split" not in columns and (others := [name for name in columns if name in PARTS_ELSEWHERE]):
        notes.append(
            f"the column {first(others)} of {path} is not read; if it says which pictures are for the test, it must be "
            f"called split and hold {', '.join(PARTS)}"
        )
    if minus:
        notes.append(f"{minus} pictures of {path} have the label -1: they are unlabeled")
    if not any(label is None for _, label in train):
        notes.append(f"{path} has no unlabeled pictures; the labeled ones serve as the unlabeled set")
    return Listing(name=path.stem, where=str(path), train=train, test=test, base=base, notes=notes)


def rows_of(text: str, path: str, label: str, split: str = "") -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Number of the line, and the cells under the columns `path`, `label` and `split` of each row that is not empty.

    The last column may be missing. Raises ValueError, with the number of the line, where the text is no such table.
    """
    longest = {path: 4000, label: LONGEST_LABEL, split: 20}
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"line {line} holds a zero byte, so this is no text; save the table as CSV in UTF-8")
    separator, columns = _columns(_head(text), path, label)
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t", strict=True
    )
    started = False
    while True:
        try:
            cells = [cell.strip() for cell in next(rows)]
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f'line {rows.line_num}: {error}; is a quote (") missing?') from error
        if not any(cells):
            continue
        if not started:
            started = True  # the names of the columns
            continue
        number, count = rows.line_num, len(columns)
        if len(cells) < count or any(cells[count:]):
            more = f"a cell with {separator!r} in it needs quotes"
            more = more if len(cells) > count else f"a cell may be empty, but needs its {separator!r}"
            raise ValueError(f"line {number}: {len(cells)} cells under {count} columns; {more}")
        row = dict(zip(columns, cells, strict=False))
        for name, most in longest.items():
            cell = row.get(name, "")
            wild = any(ord(x) < 32 or ord(x) == 127 for x in cell)
            if wild or len(cell) > most:
                what = "holds a line break or another control character" if wild else f"is {len(cell)} characters long"
                raise ValueError(f'line {number}: the {name} {short(cell)} {what}; is a quote (") missing?')
        yield number, (row[path], uncell(row[label]), row.get(split, ""))


def has_column(text: str, name: str, path: str = "path") -> bool:
    """Whether a table of pictures, named in the column `path`, has a column of this name. Raises ValueError where the
    text is no such table."""
    return name in _columns(_head(text), path, "label")[1]


def _head(text: str) -> str:
    """The first line that is not empty."""
    return next((line for line in io.StringIO(text, newline="") if line.strip()), "")


def _columns(head: str, path: str, label: str) -> tuple[str, list[str]]:
    """The separator of a table, and the names of its columns, by its first line."""
    for separator in _SEPARATORS:
        cells = next(csv.reader([head], delimiter=separator, skipinitialspace=separator != "\t"), [])
        names = [cell.strip().casefold() for cell in cells]
        while names and not names[-1]:
            names.pop()  # a spreadsheet program's empty columns
        if {path, label} <= set(names):
            again = next((name for name in names if name and names.count(name) > 1), None)
            if again:
                raise ValueError(f"its first line names the column {again} more than once")
            return separator, names
    got = short(", ".join(cell.strip() for cell in head.split(",")))
    raise ValueError(f"its first line must name the columns {path} and {label}, got {got}")


def _truth(label: str, part: str) -> str | None:
    """The class that a cell means, None for unlabeled. Raises ValueError where it cannot be told."""
    if part not in ("", *PARTS):
        raise ValueError(f"split must be one of {', '.join(PARTS)}, got {short(part)}")
    if part == "unlabeled":
        return None
    if label in UNLABELED:
        if part in ("labeled", "test"):
            raise ValueError(f"a {part} picture needs a label" + (f", and {label} means unlabeled" if label else ""))
        return None
    unsure = label.casefold() in MISSING or re.fullmatch(r"[-\u2212\u2013][0-9.]+(e[+-]?[0-9]+)?", label) is not None
    if unsure and part not in ("labeled", "test"):
        raise ValueError(
            f"the label {label!r} may mean that there is none; leave it empty for an unlabeled picture, or write "
            "labeled into the column split if it is a class"
        )
    return label


def _inside(base: Path, name: str, top: Path) -> Path:
    if not name:
        raise ValueError("the row has no path")
    if not os.path.lexists(base / name):
        name = uncell(name)
    picture = base / name
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name) and not os.path.lexists(picture):
        raise ValueError(f"the path {short(name)} is an address; download the picture, and name its file")
    if "\\" in name and not os.path.lexists(picture):
        if name[1:2] == ":":
            raise ValueError(f"the path {short(name)} begins with a Windows drive; paths start from {str(top)!r}")
        picture = base / name.replace("\\", "/")
    if not real(picture).is_relative_to(top):
        raise ValueError(
            f"the picture {short(name)} is not in {str(top)!r}; --data.root names another folder to start from"
        )
    return picture
