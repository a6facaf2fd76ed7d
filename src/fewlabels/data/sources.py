"""The door to all readers: `load`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.data.archives import READERS, DataUnavailable, default_root
from fewlabels.data.contents import LabelFrom
from fewlabels.data.find import read_text
from fewlabels.data.folder import list_folder
from fewlabels.data.hub import PREFIX, list_hub
from fewlabels.data.imagenets import list_imagenet
from fewlabels.data.listing import Listing, Options, class_order
from fewlabels.data.names import DataName
from fewlabels.data.pictures import MAX_PIXELS, Decoding, Fit, Size
from fewlabels.data.remote import here
from fewlabels.data.resized import resized
from fewlabels.data.source import FACTS, Progress, Source
from fewlabels.data.table import ENDINGS, list_table
from fewlabels.data.tars import is_tar
from fewlabels.data.tarset import holds_tars, list_tars
from fewlabels.data.tfrecord import list_records
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.urls import is_url

__all__ = ["DataUnavailable", "default_root", "load"]


def load(
    name: DataName,
    *,
    root: Path | None = None,
    shard_cache: float | None = None,
    image_size: Size | None = None,
    fit: Fit = "crop",
    bits: int = 16,
    max_pixels: int = MAX_PIXELS,
    label_from: LabelFrom = "folder",
    labeled: Path | None = None,
    unlabeled: Path | None = None,
    test: Path | None = None,
    classes: Path | None = None,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
    stream: bool | None = False,
    validation: bool = True,
) -> Source:
    """Read the source that `name` names (its split is not looked at), downloading it where it is missing.

    Args:
        root: folder of the named sources; default `default_root()`. A folder of pictures is where it is; the
            paths in a table start from its own folder, or from `root`.
        shard_cache: see `remote.here`, for tar files at a URL.
        image_size: side in pixels, or (H, W); None: the source's own.
        fit: how pictures of other sizes are brought to it; see `pictures.fit`.
        bits, max_pixels: see `pictures.Decoding`.
        label_from, labeled, unlabeled, test: see `folder.list_folder`.
        classes: JSON file of display names; see `renamed`.
        skip_corrupt: leave out pictures that cannot be read, instead of raising.
        progress: called while pictures are decoded.
        stream: leave pictures in their files; see `reading.read_pictures`.
        validation: read the validation part of a folder beside its test part; see `contents.contents`.

    Raises:
        DataUnavailable: a named source, or what is at a URL, is absent and cannot be downloaded.
        ValueError: what is named is not what it should be.
    """
    if isinstance(image_size, int) and image_size < 4:
        raise ValueError(f"image_size must be at least 4, got {image_size}")
    remote = here(name.base, shard_cache) if is_url(name.base) else None
    path = remote.path if remote else expanded(name.base)
    ending = path.suffix.lower()
    plain = not name.folder or name.base.startswith(PREFIX) or ending in (*ENDINGS, ".tfrecord") or is_tar(path)
    given = {"labeled": labeled, "unlabeled": unlabeled, "test": test}
    if plain and (wrong := next((part for part, folder in given.items() if folder is not None), None)):
        raise ValueError(f"{wrong} names a part of a folder of own pictures, and {name.base} is none")
    how = Decoding(fit, bits, max_pixels)
    options = Options(image_size=image_size, how=how, skip_corrupt=skip_corrupt, progress=progress, stream=stream)
    if not name.folder:
        source = _named(name.base, root or default_root(), options)
    else:
        listing: Listing
        if name.base.startswith(PREFIX):
            listing = list_hub(name.base)
        elif ending in ENDINGS and not path.is_dir():
            listing = list_table(path, root)
        elif ending == ".tfrecord" and not path.is_dir():
            listing = list_records(path)
        elif remote or holds_tars(path, labeled):
            listing = list_tars(path, labeled=labeled, unlabeled=unlabeled, test=test, validation=validation)
            listing.notes += remote.notes if remote else []
        else:
            listing = list_folder(
                path, labeled=labeled, unlabeled=unlabeled, test=test, label_from=label_from, validation=validation
            )
        source = listing.read(options)
    return source if classes is None else replace(renamed(source, classes), folders=source.classes)


def _named(name: str, root: Path, options: Options) -> Source:
    if name in READERS or name == "digits":
        source = _digits() if name == "digits" else READERS[name](name, root)
        return source if options.image_size is None else _resized(source, options.image_size, options.how.fit)
    facts = FACTS[name]
    return list_imagenet(name, root).read(
        replace(options, image_size=options.image_size or facts.shape[1]), style=facts.style
    )


def _digits() -> Source:
    """scikit-learn's digits: 1,797 grey pictures of 8x8 with values 0..16.

    They come without a test part. The first 360 of ``RandomState(0).permutation(1797)`` are the test
    images, the other 1,437 the training images, both in file order: the sets of scikit-learn's
    ``train_test_split(..., test_size=360, random_state=0)``. The same writers are in both.
    """
    package = find_spec("sklearn")  # not imported: that takes longer than to train on a thousand of its digits
    assert package is not None and package.origin is not None, "a dependency"
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = np.rint(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = table[:, 64].astype(np.int64)
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


def _resized(source: Source, size: Size, how: Fit) -> Source:
    shape = size if isinstance(size, tuple) else (size, size)
    if source.shape[1:] == shape:
        return source
    images, tests = (resized(part, shape, how) for part in (source.images, source.test_images))
    return replace(source, images=images, test_images=tests)


def renamed(source: Source, path: Path) -> Source:
    """The source with the display names of a JSON file.

    It holds a list of names in the order of the classes, or an object from class name or number to display
    name, or (as RealMix writes it) from display name to class number. Classes that it leaves out keep theirs. Where
    class names are numbers a number means a name, not a place; a place means nothing where the classes' order may
    not be the one that a reader thinks of (class_10 before class_2).

    Raises:
        ValueError: the file cannot be read, or names a class that is not there.
    """
    try:
        content: Any = json.loads(read_text(expanded(path)), object_pairs_hook=tuple)
    except OSError as error:
        raise ValueError(f"the class names {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    count, in_turn = len(source.classes), isinstance(content, list)
    if not isinstance(content, list | tuple) or (in_turn and len(content) != count):
        raise ValueError(f"{path} must hold an object from class to display name, or a list of {count} names")
    names: dict[int, str] = {}
    for key, value in enumerate(content) if in_turn else content:
        old, new = (value, key) if isinstance(value, int) and not isinstance(key, int) else (key, value)
        row = _unsure(path, source, key) if in_turn else _row_of(path, source, old)
        if not isinstance(new, str) or not new.strip():
            raise ValueError(f"{path} gives the class {old!r} the name {new!r}, which is no text")
        if names.setdefault(row, new) != new:
            raise ValueError(f"{path} gives the class {source.classes[row]!r} two names: {names[row]!r} and {new!r}")
    classes = tuple(names.get(row, name) for row, name in enumerate(source.classes))
    told = (f"0 {source.name}", f"0 {source.name}")  # a named set with names of its own
    return replace(source, classes=classes, pictures=source.identity or told)


def _row_of(path: Path, source: Source, old: object) -> int:
    """The class that a name or number means."""
    if str(old) in source.classes:
        return source.classes.index(str(old))
    if str(old).isdecimal():
        if all(name.isdecimal() for name in source.classes):  # "7" is the class "007"
            same = [row for row, name in enumerate(source.classes) if int(name) == int(str(old))]
        else:
            same = [_unsure(path, source, int(str(old)))] if int(str(old)) < len(source.classes) else []
        if len(same) == 1:
            return same[0]
    raise ValueError(f"{path} names the class {old!r}, which {source.name} has not")


def _unsure(path: Path, source: Source, row: int) -> int:
    """`row`, if the place of a class is sure. Raises ValueError where sorted names are not in a reader's order."""

    def natural(name: str) -> list[Any]:
        return [int(part) if part.isdecimal() else part.casefold() for part in re.split("([0-9]+)", name)]

    expected = sorted(source.classes, key=natural)
    if sorted(source.classes, key=class_order) == list(source.classes) != expected:
        i = next(i for i, name in enumerate(source.classes) if name != expected[i])
        raise ValueError(
            f"{path} names classes by their place, and class {i} of {source.name} is {source.classes[i]!r} where one "
            f'may expect {expected[i]!r}; name them: {{"{source.classes[i]}": "...", ...}}'
        )
    return row
