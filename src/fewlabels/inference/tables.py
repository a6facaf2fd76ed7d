"""What is written of each picture that was classified, and files of it."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.predictions import UNSURE
from fewlabels.runtime import files

SUFFIXES = (".csv", ".json", ".npy", ".parquet")


@dataclass(frozen=True)
class Form:
    """Which columns there are, and when a class is written.

    Raises ValueError where `top` or `threshold` cannot be had with these classes.
    """

    classes: tuple[str, ...]
    probabilities: bool = False
    """The probability of every class too."""
    top: int | None = None
    """So many of the most probable classes too, with their probabilities."""
    threshold: float | None = None
    """Probability, 0 .. 1, below which the class is called `UNSURE`."""
    of: str = "path"
    """Name of the column that says which picture."""

    def __post_init__(self) -> None:
        if self.top is not None and not 1 <= self.top <= len(self.classes):
            raise ValueError(f"--top must be from 1 to {len(self.classes)}, the number of classes, got {self.top}")
        if self.threshold is None:
            return
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"--threshold must be a number from 0 to 1, got {self.threshold:g}")
        if UNSURE in self.classes:
            raise ValueError(
                f"the run has a class that is called {UNSURE!r}, which --threshold could not be told from: leave it "
                "out, and choose by the column confidence"
            )

    @property
    def head(self) -> list[str]:
        """The names of the columns. Raises ValueError where two are the same."""
        tops = [name for n in range(1, (self.top or 0) + 1) for name in (f"class{n}", f"probability{n}")]
        names = [self.of, "label", "confidence", *tops, *(self.classes if self.probabilities else ())]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"the class {twice[0]!r} has the name of a column: write .json, or leave out --probabilities"
            )
        return names

    def sure(self, confidence: float) -> bool:
        """Whether a class of this probability is written; as a reader of the six digits would say."""
        return self.threshold is None or round(float(confidence), 6) >= self.threshold

    def label(self, number: int, row: NDArray[np.float32]) -> str:
        """The class of a picture with the probabilities `row`, ``[K]``."""
        return self.classes[number] if self.sure(row[number]) else UNSURE

    def best(self, number: int, row: NDArray[np.float32]) -> list[tuple[str, float]]:
        """The most probable classes, the one that was predicted first, and their probabilities."""
        if not self.top:
            return []
        order = [number, *(c for c in np.argsort(-row, kind="stable").tolist() if c != number)]
        return [(self.classes[c], float(row[c])) for c in order[: self.top]]

    def cells(self, path: str, number: int, row: NDArray[np.float32]) -> list[str]:
        """The cells under `head`, numbers with six digits."""
        tops = [text for name, p in self.best(number, row) for text in (name, f"{p:.6f}")]
        extra = [f"{p:.6f}" for p in row] if self.probabilities else []
        return [path, self.label(number, row), f"{row[number]:.6f}", *tops, *extra]

    def record(self, path: str, number: int, row: NDArray[np.float32]) -> dict[str, Any]:
        """The same as an object of JSON."""
        record: dict[str, Any] = {
            "path": path,
            "label": self.label(number, row),
            "confidence": round(float(row[number]), 6),
        }
        if self.top:
            record["top"] = [{"label": name, "probability": round(p, 6)} for name, p in self.best(number, row)]
        if self.probabilities:
            record["probabilities"] = {c: round(float(p), 6) for c, p in zip(self.classes, row, strict=True)}
        return record


@dataclass(frozen=True, eq=False)
class Rows:
    """Classes and probabilities of N pictures."""

    paths: tuple[str, ...]
    ids: NDArray[np.int64]
    """Class numbers, ``[N]``."""
    probabilities: NDArray[np.float32]
    """``[N, K]``."""

    def __iter__(self) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
        return zip(self.paths, self.ids.tolist(), self.probabilities, strict=True)


def csv(rows: Rows, form: Form) -> str:
    """The .csv text; `cells.cell` says what is done about formulas."""
    return files.csv_text([form.head, *(form.cells(*row) for row in rows)])


def write(path: Path, rows: Rows, form: Form) -> list[Path]:
    """Write .csv, .json, .npy or .parquet, and return the files written.

    .csv and .parquet have the columns of `Form.head`; .json an object per image; .npy int64 class numbers, -1 below
    the threshold, or float32 ``[N, K]`` with `Form.probabilities`, and a .json of class names and paths beside it.
    """
    if path.suffix == ".csv":
        # a name that is not UTF-8 stays the bytes that it is on the disk
        return _write({path: csv(rows, form).encode("utf-8", "surrogateescape")})
    if path.suffix == ".json":
        return _write({path: _json([form.record(*row) for row in rows])})
    if path.suffix == ".parquet":
        return _write({path: _parquet(rows, form)})
    buffer = io.BytesIO()
    unsure = [not form.sure(row[number]) for _, number, row in rows]
    np.save(buffer, rows.probabilities if form.probabilities else np.where(unsure, -1, rows.ids).astype(np.int64))
    names = {"classes": form.classes, "paths": rows.paths}
    return _write({path: buffer.getvalue(), path.with_suffix(".json"): _json(names)})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _write(contents: Mapping[Path, bytes]) -> list[Path]:
    for path, data in contents.items():
        files.write_file(path, data)
    return list(contents)


def _parquet(rows: Rows, form: Form) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    numbers = np.fromiter((row[number] for _, number, row in rows), np.float32, len(rows.paths))
    labels = [form.label(number, row) for _, number, row in rows]
    tops = [form.best(number, row) for _, number, row in rows]
    columns: list[Any] = [pa.array(rows.paths, pa.string()), pa.array(labels, pa.string()), pa.array(numbers)]
    for n in range(form.top or 0):
        columns.append(pa.array([top[n][0] for top in tops], pa.string()))
        columns.append(pa.array([top[n][1] for top in tops], pa.float32()))
    if form.probabilities:
        columns += [pa.array(np.ascontiguousarray(column)) for column in rows.probabilities.T]
    out = io.BytesIO()
    parquet.write_table(pa.table(columns, names=form.head), out)
    return out.getvalue()


def targets(path: Path) -> list[Path]:
    """The files that `write` makes for `path`. Raises ValueError for an unknown suffix, and without pyarrow."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"predictions can be written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, not as {path.name!r}"
        )
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(
            f"{path.name} needs the package 'pyarrow': install fewlabels[parquet] (pip install 'fewlabels[parquet]')"
        )
    return [path, path.with_suffix(".json")] if path.suffix == ".npy" else [path]


def check_text(path: Path, names: Sequence[str]) -> None:
    """Raises ValueError for a name that is not UTF-8, which Parquet cannot hold."""
    if path.suffix != ".parquet":
        return
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} is not UTF-8, and Parquet holds no other text: write .csv or .json") from None
