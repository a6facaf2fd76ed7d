"""Classifying image files and folders with a trained model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.contents import LabelFrom, class_in_name
from fewlabels.data.pictures import About, Unreadable, decode, find_images
from fewlabels.data.remarks import sentences
from fewlabels.data.workers import count
from fewlabels.inference.model import Predictor
from fewlabels.runtime import files
from fewlabels.runtime.allocator import keep_freed_memory

CHUNK = 256
"""Files, at most, that are decoded before they go through the net together."""

CHUNK_BYTES = 1 << 27
"""Bytes, at most, that these take, of large images."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Classes and probabilities of N readable image files."""

    paths: tuple[str, ...]
    """As found under the arguments, sorted by relative path within each."""
    ids: NDArray[np.int64]
    """Class numbers, ``[N]``."""
    probabilities: NDArray[np.float32]
    """``[N, K]``."""
    classes: tuple[str, ...]
    corrupt: tuple[tuple[str, str], ...]
    """Path and reason of every file that could not be read."""
    notes: tuple[str, ...]
    """Remarks on the pixels of the others, in sentences."""
    truth: tuple[str | None, ...]
    """The class that an image's folder, where the argument was a folder of class folders, or its name tells (by its
    display name). One that the model does not know stands for itself."""

    @property
    def labels(self) -> list[str]:
        return [self.classes[i] for i in self.ids]

    @property
    def confidence(self) -> NDArray[np.float32]:
        best: NDArray[np.float32] = self.probabilities.max(1, initial=0.0)
        return best

    @property
    def unknown_classes(self) -> list[str]:
        """Classes of folders or names that the model does not know."""
        return sorted({t for t in self.truth if t is not None and t not in self.classes})

    @property
    def accuracy(self) -> float | None:
        """Percent right of the images whose class the model knows; None without any."""
        right = [t == label for t, label in zip(self.truth, self.labels, strict=True) if t in self.classes]
        return 100 * sum(right) / len(right) if right else None

    def write(self, path: Path, *, probabilities: bool = False) -> list[Path]:
        """Write .csv, .json or .npy, and return the files written.

        .csv has the columns ``path,label,confidence`` and, with `probabilities`, one per class; .json an object
        per image; .npy int64 class numbers, with a .json of class names and paths beside it.
        """
        if path.suffix == ".csv":
            # a name that is not UTF-8 stays the bytes that it is on the disk
            return [_write(path, self.csv(probabilities).encode("utf-8", "surrogateescape"))]
        if path.suffix == ".json":
            return [_write(path, (json.dumps(self.records(probabilities), indent=1) + "\n").encode())]
        buffer = io.BytesIO()
        np.save(buffer, self.probabilities if probabilities else self.ids)
        names = {"classes": self.classes, "paths": self.paths}
        beside = path.with_suffix(".json")
        return [
            _write(path, buffer.getvalue()),
            _write(beside, (json.dumps(names, indent=1) + "\n").encode()),
        ]

    def records(self, probabilities: bool = False) -> list[dict[str, Any]]:
        """One object per image: path, label, confidence and perhaps the probabilities by class."""
        out = []
        for path, label, sure, row in zip(self.paths, self.labels, self.confidence, self.probabilities, strict=True):
            record: dict[str, Any] = {"path": path, "label": label, "confidence": round(float(sure), 6)}
            if probabilities:
                record["probabilities"] = {c: round(float(p), 6) for c, p in zip(self.classes, row, strict=True)}
            out.append(record)
        return out

    def csv(self, probabilities: bool = False) -> str:
        """The .csv text; `cells.cell` says what is done about formulas."""
        rows: list[list[str]] = [["path", "label", "confidence", *(self.classes if probabilities else ())]]
        for path, label, row in zip(self.paths, self.labels, self.probabilities, strict=True):
            extra = [f"{p:.6f}" for p in row] if probabilities else []
            rows.append([path, label, f"{row.max():.6f}", *extra])
        return files.csv_text(rows)


def _write(path: Path, data: bytes) -> Path:
    files.write_file(path, data)
    return path


def targets(path: Path, *, probabilities: bool = False) -> list[Path]:
    """The files that `Predictions.write` makes for `path`. Raises ValueError for an unknown suffix."""
    if path.suffix not in (".csv", ".json", ".npy"):
        raise ValueError(f"predictions can be written as .csv, .json or .npy, not as {path.name!r}")
    return [path, path.with_suffix(".json")] if path.suffix == ".npy" else [path]


def _named(file: Path, ends: Sequence[str]) -> str | None:
    """The class in a file's name: the longest known one (``ZSU_23_4``), else what follows the last ``_``."""
    return next((name for name in ends if file.stem.endswith(f"_{name}")), class_in_name(file))


def predict(
    model: Predictor,
    paths: Sequence[Path | str],
    *,
    label_from: LabelFrom = "folder",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Classify image files and all images under folders.

    Images are brought to the model's channels and size as own training images are. What the truth is said by is
    `label_from`: the folder in a folder that a picture lies in, or the end of its name. Raises ValueError for a path
    that does not exist and for folders without any image; files that cannot be read are listed in the result.
    """
    found: list[tuple[Path, str | None]] = []
    ends = sorted((*model.classes, *model.folders), key=len, reverse=True)
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        inside = find_images(path)
        if not inside:
            raise ValueError(f"there is no image in {path}")
        for file in inside:
            parts = file.relative_to(path).parts if path.is_dir() else ()
            folder = parts[0] if len(parts) > 1 else None
            found.append((file, _named(file, ends) if label_from == "suffix" else folder))
    kept: list[int] = []
    abouts: dict[int, About] = {}
    corrupt: dict[int, str] = {}
    probabilities = []
    for rows, images, done in decoded_chunks(model, [file for file, _ in found], abouts, corrupt):
        kept += rows
        if rows:
            probabilities.append(model.logits(images).softmax(1).numpy())
        if progress:
            progress(done, len(found))
    k = len(model.classes)
    probs = np.concatenate(probabilities) if probabilities else np.empty((0, k), np.float32)
    return Predictions(
        paths=tuple(str(found[i][0]) for i in kept),
        ids=probs.argmax(1).astype(np.int64),
        probabilities=probs,
        classes=model.classes,
        corrupt=tuple((str(found[i][0]), reason) for i, reason in corrupt.items()),
        notes=sentences(abouts, [str(file) for file, _ in found], model.how.bits),
        truth=tuple(None if t is None else model.folders.get(t, t) for t in (found[i][1] for i in kept)),
    )


def decoded_chunks(
    model: Predictor, files: Sequence[Path], abouts: dict[int, About], corrupt: dict[int, str]
) -> Iterator[tuple[list[int], NDArray[np.uint8], int]]:
    """`files` as the model's images, in chunks: rows of those that can be read, uint8 ``[n, H, W, C]``, files so far.

    abouts, corrupt: filled by row with what is to be said of a picture, and why one cannot be read.
    """
    channels, height, width = model.shape
    size = max(1, min(CHUNK, CHUNK_BYTES // (channels * height * width)))
    keep_freed_memory()

    def one(row: int) -> NDArray[np.uint8] | Unreadable:
        about = About()
        try:
            image = decode(files[row], channels, (height, width), model.how, about)
        except Unreadable as error:
            return error
        if about:
            abouts[row] = about
        return image

    with ThreadPoolExecutor(count()) as pool:  # each holds a picture at its full size
        for start in range(0, len(files), size):
            rows = range(start, min(start + size, len(files)))
            images = dict(zip(rows, pool.map(one, rows), strict=True))
            corrupt |= {i: error.reason for i, error in images.items() if isinstance(error, Unreadable)}
            good = {i: image for i, image in images.items() if isinstance(image, np.ndarray)}
            pixels = np.stack(list(good.values())) if good else np.empty((0, height, width, channels), np.uint8)
            yield list(good), pixels, rows.stop
