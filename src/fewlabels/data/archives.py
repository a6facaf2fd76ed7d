"""The sets that torchvision downloads: CIFAR, SVHN, STL-10, Fashion-MNIST."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fewlabels.data.source import FACTS, Images, Source
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import first

T = TypeVar("T")


class DataUnavailable(ValueError):
    """A named source is not on the disk and cannot be fetched."""


def default_root() -> Path:
    """``$ML_DATA`` (FixMatch's variable), else ``fewlabels`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if root := os.environ.get("ML_DATA"):
        return expanded(root)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fewlabels"


def cifar(name: str, root: Path) -> Source:
    """CIFAR-10 and CIFAR-100 (Krizhevsky 2009); torchvision checks every file's MD5 before it reads."""
    from torchvision.datasets import CIFAR10, CIFAR100

    reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]

    def read(download: bool) -> tuple[Any, Any]:
        return reader(root, train=True, download=download), reader(root, train=False)

    train, test = _fetched(name, root, read, reader.filename, reader.url)
    return Source(
        name=name,
        classes=tuple(train.classes),
        images=train.data,
        labels=np.array(train.targets, np.int64),
        test_images=test.data,
        test_labels=np.array(test.targets, np.int64),
        style=FACTS[name].style,
    )


def svhn(name: str, root: Path) -> Source:
    """SVHN (Netzer et al. 2011), train then extra as in the papers; svhn_noextra is without the latter.

    The file's labels are 1 .. 10, 10 for the digit 0. FixMatch's classes are these less 1, so class 0 is the
    digit 1 and class 9 the digit 0; torchvision's are the digits. The published splits go by FixMatch's.
    """
    from torchvision.datasets import SVHN

    parts = ("train", "extra", "test") if name == "svhn" else ("train", "test")

    def read(download: bool) -> list[Any]:
        return [SVHN(root, split=part, download=download) for part in parts]

    files = " and ".join(SVHN.split_list[part][1] for part in parts)
    *train, test = _fetched(name, root, read, files, SVHN.split_list["train"][0].rpartition("/")[0])
    return Source(
        name=name,
        classes=tuple("1234567890"),
        images=_channels_last([part.data for part in train]),
        labels=(np.concatenate([part.labels for part in train]).astype(np.int64) - 1) % 10,
        test_images=_channels_last([test.data]),
        test_labels=(test.labels.astype(np.int64) - 1) % 10,
        style=FACTS[name].style,
    )


def stl10(name: str, root: Path) -> Source:
    """STL-10 (Coates et al. 2011): 5,000 labeled images, then 100,000 of unknown label; ten official folds."""
    from torchvision.datasets import STL10

    def read(download: bool) -> tuple[Any, Any]:
        return STL10(root, split="train+unlabeled", download=download), STL10(root, split="test")

    train, test = _fetched(name, root, read, STL10.filename, STL10.url)
    folder = root / STL10.base_folder
    lines = (folder / STL10.folds_list_file).read_text().splitlines()
    labels = train.labels.astype(np.int8).astype(np.int64)  # where the -1 came as uint8
    return Source(
        name=name,
        classes=tuple(train.classes),
        images=_channels_last([train.data]),
        labels=labels,
        test_images=_channels_last([test.data]),
        test_labels=test.labels.astype(np.int64),
        style=FACTS[name].style,
        folds=tuple(np.array(line.split(), np.int64) for line in lines if line.strip()),
    )


def fashion_mnist(name: str, root: Path) -> Source:
    """Fashion-MNIST (Xiao et al. 2017), 28 x 28 with two black pixels around, as FixMatch reads it."""
    from torchvision.datasets import FashionMNIST

    raw = root / "FashionMNIST" / "raw"

    def read(download: bool) -> tuple[Any, Any]:
        _check_idx(raw, FashionMNIST.resources)
        train = FashionMNIST(root, train=True, download=download)
        _check_idx(raw, FashionMNIST.resources)
        return train, FashionMNIST(root, train=False)

    def padded(images: Any) -> Images:
        return np.pad(images.numpy(), ((0, 0), (2, 2), (2, 2)))[..., None]

    files = " and ".join(file for file, _ in FashionMNIST.resources)
    train, test = _fetched(name, root, read, f"{files} (in FashionMNIST/raw)", FashionMNIST.mirrors[0])
    return Source(
        name=name,
        classes=tuple(train.classes),
        images=padded(train.data),
        labels=train.targets.numpy().astype(np.int64),
        test_images=padded(test.data),
        test_labels=test.targets.numpy().astype(np.int64),
        style=FACTS[name].style,
        notes=_unchecked(raw, FashionMNIST.resources),
    )


def _check_idx(raw: Path, resources: list[tuple[str, str]]) -> None:
    """What torchvision does not look at in files that are there already: header, size, and the checksum in the packed
    file that it leaves beside each. Raises DataUnavailable for a file that is not what it should be."""
    for packed, md5 in resources:
        path = raw / packed.removesuffix(".gz")
        if not path.is_file():
            continue
        data = path.read_bytes()
        images = "images" in packed
        magic, count, *shape = struct.unpack_from(">4i" if images else ">2i", data.ljust(16, b"\0"))
        size = 16 + 784 * count if images else 8 + count
        wrong = None
        if (magic, shape, len(data)) != ((2051, [28, 28], size) if images else (2049, [], size)):
            wrong = f"it has {len(data)} bytes, and not the header or the size of one"
        elif (beside := raw / packed).is_file():
            archive = beside.read_bytes()
            if hashlib.md5(archive, usedforsecurity=False).hexdigest() != md5:
                wrong = f"{packed} beside it has another checksum"
            elif struct.unpack("<II", archive[-8:]) != (zlib.crc32(data), len(data)):
                wrong = f"{packed} beside it holds other bytes"
        if wrong:
            raise DataUnavailable(
                f"{path} is no file of Fashion-MNIST: {wrong}; remove both, and they are fetched again"
            )


def _unchecked(raw: Path, resources: list[tuple[str, str]]) -> tuple[str, ...]:
    """A note about files that could not be compared with a checksum."""
    alone = [packed for packed, _ in resources if not (raw / packed).is_file()]
    some = f"{first(alone)} not in {raw}: these images were not compared with a checksum"
    return (some,) * bool(alone)


READERS: dict[str, Callable[[str, Path], Source]] = {
    "cifar10": cifar,
    "cifar100": cifar,
    "svhn": svhn,
    "svhn_noextra": svhn,
    "stl10": stl10,
    "fashion_mnist": fashion_mnist,
}


def _channels_last(parts: list[Any]) -> Images:
    """``[N, C, H, W]`` arrays one after another as ``[N, H, W, C]``, in pieces: SVHN is 1.8 GB."""
    n, (c, h, w) = sum(len(part) for part in parts), parts[0].shape[1:]
    out = np.empty((n, h, w, c), np.uint8)
    start = 0
    for part in parts:
        for at in range(0, len(part), 4096):
            piece = part[at : at + 4096]
            out[start : start + len(piece)] = piece.transpose(0, 2, 3, 1)
            start += len(piece)
    return out


def _fetched(name: str, root: Path, read: Callable[[bool], T], files: str, url: str) -> T:
    """``read(download)`` of what is on the disk, or else of what torchvision downloads (and shows as a bar)."""
    try:
        return read(False)
    except RuntimeError:  # absent or incomplete
        pass
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _patience(30):
            return read(True)
    except (OSError, RuntimeError, EOFError) as error:  # no network, room or permission; a wrong checksum
        for folder in made:  # a mistyped root shall leave nothing
            with suppress(OSError):  # it holds a part of the download
                folder.rmdir()
        reason = " ".join(str(error).split())
        raise DataUnavailable(
            f"{name} is not in {root} and cannot be downloaded ({reason}); "
            f"put {files} from {url} there or give the folder that has it (--data.root or $ML_DATA)"
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
