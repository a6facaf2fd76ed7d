"""The named sources: what is known of them, whether they are here, and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewlabels.data import names, sources
from fewlabels.data.imagenets import FOLDERS
from fewlabels.data.source import FACTS, Progress

_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html"
_SVHN = "http://ufldl.stanford.edu/housenumbers"

ORIGIN: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits": ("comes with scikit-learn", ()),
    "cifar10": (_CIFAR, ("cifar-10-batches-py",)),
    "cifar100": (_CIFAR, ("cifar-100-python",)),
    "svhn": (_SVHN, ("train_32x32.mat", "extra_32x32.mat", "test_32x32.mat")),
    "svhn_noextra": (_SVHN, ("train_32x32.mat", "test_32x32.mat")),
    "stl10": ("https://cs.stanford.edu/~acoates/stl10", ("stl10_binary",)),
    "fashion_mnist": ("https://github.com/zalandoresearch/fashion-mnist", ("FashionMNIST/raw",)),
    "mini_imagenet": ("own folder", ()),
    "tiny_imagenet": ("own folder, from http://cs231n.stanford.edu/tiny-imagenet-200.zip", ()),
    "imagenet": ("own folder, from https://image-net.org with an account", ()),
}
"""Where each comes from, and the files under the root by which it is known to be here."""


def present(name: str, root: Path) -> bool:
    """Whether the files of a named source are under `root`; nothing is opened."""
    if name in FOLDERS:
        return any((root / folder).is_dir() for folder in FOLDERS[name])
    return all((root / file).exists() for file in ORIGIN[name][1])


def known(root: Path | None = None) -> list[dict[str, Any]]:
    """One row of plain values for each named source. Nothing is read but the names of files."""
    root = root or sources.default_root()
    rows = []
    for name, facts in FACTS.items():
        channels, height, width = facts.shape
        rows.append(
            {
                "name": name,
                "train": facts.train,
                "test": facts.test,
                "classes": facts.classes,
                "height": height,
                "width": width,
                "channels": channels,
                "present": present(name, root),
                "origin": ORIGIN[name][0],
                "root": str(root),
            }
        )
    return rows


def prepare(text: str, root: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Load a named source, downloading it where it is missing, and compare it with `FACTS`.

    Raises:
        ValueError: the name is unknown or a folder's; the source cannot be fetched; or it is not what it should be.
    """
    name = names.parse(text)
    if name.folder:
        raise ValueError(f"{text} is a folder; `fewlabels data check` looks at it")
    root = root or sources.default_root()
    source = sources.load(name, root=root, progress=progress)
    facts = FACTS[name.base]
    for what, found, right in (
        ("training images", len(source.images), facts.train),
        ("test images", len(source.test_images), facts.test),
        ("classes", len(source.classes), facts.classes),
        ("pixels and channels", source.shape, facts.shape),
    ):
        if found != right:
            raise ValueError(f"{name.base} in {root} has {found} {what}, and should have {right}")
    return {
        "name": name.base,
        "root": str(root),
        "train": len(source.images),
        "test": len(source.test_images),
        "classes": len(source.classes),
        "height": source.shape[1],
        "width": source.shape[2],
        "channels": source.shape[0],
        "notes": list(source.notes),
    }
