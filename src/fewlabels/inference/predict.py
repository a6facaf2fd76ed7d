"""Classifying image files and folders with a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.blobs import Member
from fewlabels.data.contents import LabelFrom, class_in_name
from fewlabels.data.find import scan
from fewlabels.data.pictures import About, Unreadable, decode
from fewlabels.data.remarks import sentences
from fewlabels.data.source import Progress
from fewlabels.data.tars import is_tar, members_of, pictures_in
from fewlabels.data.workers import count
from fewlabels.inference import tables
from fewlabels.inference.model import Predictor
from fewlabels.inference.tables import Form, Rows
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

    def csv(self, form: Form | None = None) -> str:
        """The .csv text."""
        return tables.csv(self.rows, form or Form(self.classes))

    def write(self, path: Path, form: Form | None = None) -> list[Path]:
        """Write .csv, .json, .npy or .parquet, and return the files written (`tables.write`)."""
        return tables.write(path, self.rows, form or Form(self.classes))

    @property
    def rows(self) -> Rows:
        return Rows(self.paths, self.ids, self.probabilities)

    def unsure(self, form: Form) -> int:
        """How many pictures have no class in that form."""
        return sum(not form.sure(p) for p in self.confidence.tolist())


def _named(file: Path | Member, ends: Sequence[str]) -> str | None:
    """The class in a file's name: the longest known one (``ZSU_23_4``), else what follows the last ``_``."""
    path = Path(str(file))
    return next((name for name in ends if path.stem.endswith(f"_{name}")), class_in_name(path))


class Picture(NamedTuple):
    file: Path | Member
    relative: str
    """Its path below the folder that was named; the path of a file that was named itself."""
    folder: str | None = None
    """The first folder on that path; of a picture in a tar file there is none."""


def pictures(paths: Iterable[Path | str]) -> Iterator[Picture]:
    """The image files, and all images under the folders, in this order and sorted by relative path within a folder. A
    tar file is as a folder of its pictures, in their order in there.

    Raises ValueError for a path that does not exist, for folders and tar files without any image, and for a tar file
    that is damaged (`tars.index_of`).
    """
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}")
        if not path.is_dir():
            yield from _of_file(path)
            continue
        found = scan(path)
        inside = sorted([*found.images, *filter(is_tar, found.others)], key=Path.as_posix)
        if not inside:
            raise ValueError(f"there is no image in {path}")
        for file in inside:
            relative = file.relative_to(path)
            if is_tar(file):
                yield from (Picture(one, str(relative / one.within)) for one in members_of([file])[0])
            else:
                yield Picture(file, str(relative), relative.parts[0] if len(relative.parts) > 1 else None)


def _of_file(path: Path) -> Iterator[Picture]:
    """A file that was named itself, or the pictures of a tar file."""
    return (Picture(file, str(file)) for file in (pictures_in(path) if is_tar(path) else [path]))


def listed(data: bytes, name: str) -> Iterator[Picture]:
    """The pictures of a list: one path of a picture or tar file on each line, or ended by a NUL if there are any; empty
    ones are passed over.

    data: the list, which is called `name` in errors. Raises ValueError for an empty list and for a path that is no
    file; the lines count from 1.
    """
    zeros = b"\0" in data
    lines = data.split(b"\0") if zeros else [line.removesuffix(b"\r") for line in data.split(b"\n")]
    if not any(lines):
        raise ValueError(f"{name} names no picture: it must hold one path on each line")
    for number, line in enumerate(lines, 1):
        file = Path(os.fsdecode(line))
        if line and not file.is_file():
            what = "is a folder, and no picture" if file.is_dir() else "is no file" if file.exists() else "is not there"
            raise ValueError(f"{name}, {'entry' if zeros else 'line'} {number}: {os.fsdecode(line)} {what}")
        if line:
            yield from _of_file(file)


def predict(
    model: Predictor,
    paths: Sequence[Path | str],
    *,
    label_from: LabelFrom = "folder",
    progress: Progress | None = None,
) -> Predictions:
    """`classify` the `pictures` at these paths."""
    return classify(model, list(pictures(paths)), label_from=label_from, progress=progress)


def classify(
    model: Predictor,
    found: Sequence[Picture],
    *,
    temperature: float = 1.0,
    label_from: LabelFrom = "folder",
    progress: Progress | None = None,
) -> Predictions:
    """Classify pictures; files that cannot be read are listed in the result.

    Images are brought to the model's channels and size as own training images are.

    Args:
        temperature: divides the logits, which changes no class.
        label_from: what the truth is said by, the folder in a folder that a picture lies in, or the end of its name.
    """
    ends = sorted((*model.classes, *model.folders), key=len, reverse=True)
    kept: list[int] = []
    abouts: dict[int, About] = {}
    corrupt: dict[int, str] = {}
    numbers = [np.empty(0, np.int64)]
    probabilities = [np.empty((0, len(model.classes)), np.float32)]
    for rows, images, done in decoded_chunks(model, [picture.file for picture in found], abouts, corrupt):
        kept += rows
        ids, probs = asked(model, images, temperature)
        numbers.append(ids)
        probabilities.append(probs)
        if progress:
            progress(done, len(found))
    told = [_named(one.file, ends) if label_from == "suffix" else one.folder for one in (found[i] for i in kept)]
    return Predictions(
        paths=tuple(str(found[i].file) for i in kept),
        ids=np.concatenate(numbers),
        probabilities=np.concatenate(probabilities),
        classes=model.classes,
        corrupt=tuple((str(found[i].file), reason) for i, reason in corrupt.items()),
        notes=sentences(abouts, [str(picture.file) for picture in found], model.how.bits),
        truth=tuple(None if t is None else model.folders.get(t, t) for t in told),
    )


def asked(
    model: Predictor, images: NDArray[np.uint8], temperature: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class numbers ``[N]`` and probabilities ``[N, K]`` of images ``[N, H, W, C]``, the logits divided by the
    temperature."""
    logits = model.logits(images)
    if temperature != 1:
        probabilities = (logits.double() / temperature).softmax(1).float()
    else:
        probabilities = logits.softmax(1)
    return logits.argmax(1).numpy(), probabilities.numpy()


def chunk_of(shape: tuple[int, int, int]) -> int:
    """How many images of this shape (C, H, W) go through the net together; the last bits may depend on it."""
    channels, height, width = shape
    return max(1, min(CHUNK, CHUNK_BYTES // (channels * height * width)))


def decoded_chunks(
    model: Predictor, files: Sequence[Path | Member], abouts: dict[int, About], corrupt: dict[int, str]
) -> Iterator[tuple[list[int], NDArray[np.uint8], int]]:
    """`files` as the model's images, in chunks: rows of those that can be read, uint8 ``[n, H, W, C]``, files so far.

    abouts, corrupt: filled by row with what is to be said of a picture, and why one cannot be read.
    """
    channels, height, width = model.shape
    size = chunk_of(model.shape)
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
