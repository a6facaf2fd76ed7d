"""A source from what is in memory already: arrays, torch tensors, or a list of picture files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.reading import read_pictures
from fewlabels.data.source import Images, Labels, Source, own_style

ARRAYS = "arrays"
"""Name of a source that was made from what was in memory: no run can find it again by name."""


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = ARRAYS,
    image_size: int | None = None,
) -> Source:
    """Make a source; label -1 means unlabeled.

    Args:
        images: ``[N, H, W, C]`` or ``[N, H, W]``, ndarray or torch tensor: uint8, other integers in 0..255,
            or floats in 0..1 (rounded to 8 bits, with a note); or a list of picture files.
        labels: integers ``[N]``, 0 .. K-1 or -1.
        test_images: like `images`, of the same kind; None: no test set.
        test_labels: integers ``[T]``, 0 .. K-1.
        classes: names by label; default "0", "1", ... up to the largest label.
        image_size: side in pixels for a list of files; see `pictures.read_pictures`.

    Raises:
        ValueError: an input has another form, with what was given and what is allowed.
    """
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images and test_labels belong together; one of them is missing")
    notes: tuple[str, ...] = ()
    given = [images] if test_images is None else [images, test_images]
    if all(are_paths(x) for x in given):
        n = len(images)
        read = read_pictures([Path(p) for x in given for p in x], image_size=image_size)
        x, test_x, notes = read.images[:n], read.images[n:], read.notes
    else:
        if image_size is not None:
            raise ValueError("image_size is for picture files; arrays are taken as they are")
        x = as_images(images)
        test_x = x[:0] if test_images is None else as_images(test_images, "test_images")
        if _array("images", images).dtype.kind == "f":
            notes = ("the images were floats; they were rounded to 8 bits",)
    y = _labels("labels", labels)
    test_y = y[:0] if test_labels is None else _labels("test_labels", test_labels)
    count = 1 + max((int(part.max()) for part in (y, test_y) if len(part)), default=-1)
    return Source(
        name=name,
        classes=tuple(str(c) for c in range(count)) if classes is None else tuple(classes),
        images=x,
        labels=y,
        test_images=test_x,
        test_labels=test_y,
        style=own_style(x.shape[1]),
        notes=notes,
    )


def are_paths(x: Any) -> bool:
    """Whether `x` is a list of file names."""
    return isinstance(x, list | tuple) and len(x) > 0 and all(isinstance(p, str | os.PathLike) for p in x)


def _array(what: str, x: Any) -> NDArray[Any]:
    if hasattr(x, "detach"):  # a torch tensor, wherever it lies
        x = x.detach().cpu()
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{what} cannot be made one array: {error}") from error
    if array.dtype == object:
        raise ValueError(f"{what} must be an array of numbers, got {type(x).__name__} of mixed things")
    return array


def as_images(x: Any, what: str = "images") -> Images:
    """What `from_arrays` takes, as uint8 ``[N, H, W, C]``; `what` names it in errors."""
    array = _array(what, x)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        raise ValueError(f"{what} must be [N, H, W, C] or [N, H, W], got the shape {list(array.shape)}")
    n, second, _, last = array.shape
    if second in (1, 3) and last > 4:
        raise ValueError(
            f"{what} of shape {list(array.shape)} look like [N, C, H, W]; move the channels to the end "
            "(transpose(0, 2, 3, 1), for a tensor permute(0, 2, 3, 1))"
        )
    if array.dtype == np.uint8:
        return array
    if n == 0:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{what} must be uint8, integers in 0..255 or floats in 0..1, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinite values; allowed are uint8, or floats in 0..1")
    low, high = array.min(), array.max()
    top = 1 if array.dtype.kind == "f" else 255
    if low < 0 or high > top:
        raise ValueError(f"{what} of {array.dtype} must lie in 0..{top}, got {low} to {high}; or give uint8")
    return np.rint(array * 255).astype(np.uint8) if top == 1 else array.astype(np.uint8)


def _labels(what: str, x: Any) -> Labels:
    array = _array(what, x)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} must be integers [N], got {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)
