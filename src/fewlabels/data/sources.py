"""The named sources, and the door to all readers: `load`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewlabels.data.folder import read_folder
from fewlabels.data.names import DataName
from fewlabels.data.pictures import fit
from fewlabels.data.source import FACTS, Images, Progress, Source


class DataUnavailable(ValueError):
    """A named source is not on the disk and cannot be fetched."""


def default_root() -> Path:
    """``$ML_DATA`` (FixMatch's variable), else ``fewlabels`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if root := os.environ.get("ML_DATA"):
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fewlabels"


def load(
    name: DataName,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> Source:
    """Read the source that `name` names (its split is not looked at), downloading it where it is missing.

    Args:
        root: folder of the named sources; default `default_root()`. A folder of pictures is where it is.
        image_size: side in pixels; None: the source's own.
        skip_corrupt: leave out pictures that cannot be read, instead of raising.
        progress: called while pictures of a folder are decoded.

    Raises:
        DataUnavailable: a named source is absent and cannot be downloaded.
        ValueError: a folder is not what it should be.
    """
    if name.folder:
        return read_folder(name.base, image_size=image_size, skip_corrupt=skip_corrupt, progress=progress)
    if image_size is not None and image_size < 4:
        raise ValueError(f"image_size must be at least 4, got {image_size}")
    source = _digits() if name.base == "digits" else _cifar(name.base, root or default_root())
    return source if image_size is None else _resized(source, image_size)


def _digits() -> Source:
    """scikit-learn's digits: 1,797 grey pictures of 8x8 with values 0..16.

    They come without a test part. The first 360 of ``RandomState(0).permutation(1797)`` are the test
    images, the other 1,437 the training images, both in file order: the sets of scikit-learn's
    ``train_test_split(..., test_size=360, random_state=0)``. The same writers are in both.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    order = np.random.RandomState(0).permutation(len(images))
    test, train = np.sort(order[:360]), np.sort(order[360:])
    return Source(
        name="digits",
        classes=tuple("0123456789"),
        images=images[train],
        labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        style=FACTS["digits"].style,
    )


def _cifar(name: str, root: Path) -> Source:
    """CIFAR-10 and CIFAR-100 (Krizhevsky 2009) through torchvision, which checks every file's MD5 before it
    reads."""
    from torchvision.datasets import CIFAR10, CIFAR100

    reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        train = reader(str(root), train=True)
    except RuntimeError:  # absent or incomplete
        train = _download(name, reader, root)
    test = reader(str(root), train=False)
    return Source(
        name=name,
        classes=tuple(train.classes),
        images=train.data,
        labels=np.array(train.targets, np.int64),
        test_images=test.data,
        test_labels=np.array(test.targets, np.int64),
        style=FACTS[name].style,
    )


def _download(name: str, reader: Any, root: Path) -> Any:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _patience(30):
            return reader(str(root), train=True, download=True)
    except (OSError, RuntimeError) as error:  # no network, no room or permission; a wrong checksum
        raise DataUnavailable(
            f"{name} is not in {root} and cannot be downloaded ({error}); "
            f"put {reader.filename} from {reader.url} there or give the folder that has it (root or $ML_DATA)"
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let a silent network fail: torchvision opens its connections without a time limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _resized(source: Source, side: int) -> Source:
    def resize(images: Images) -> Images:
        out = np.empty((len(images), side, side, images.shape[-1]), np.uint8)
        for row, image in enumerate(images):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            out[row] = np.asarray(fit(picture, side)).reshape(out.shape[1:])
        return out

    if source.shape[1:] == (side, side):
        return source
    return replace(source, images=resize(source.images), test_images=resize(source.test_images))
