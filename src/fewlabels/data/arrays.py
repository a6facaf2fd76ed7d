"""A source from what is in memory already: arrays, torch tensors, Pillow's images, or a list of picture files."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.pictures import PLAIN, Decoding
from fewlabels.data.reading import read_open, read_pictures
from fewlabels.data.residency import host_memory
from fewlabels.data.source import Images, Labels, OnDemand, Progress, Source, own_style
from fewlabels.data.stream import Files
from fewlabels.runtime.words import amount

ARRAYS = "arrays"
"""Name of a source that was made from what was in memory: no run can find it again by name."""

NEARLY_CONSTANT = 16
"""Images whose values all lie within so few of 256 hardly show anything: masks of 0 and 1, 12 bits taken for 16."""


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    classes: Sequence[str] | None = None,
    *,
    name: str = ARRAYS,
    image_size: int | None = None,
    how: Decoding = PLAIN,
    progress: Progress | None = None,
) -> Source:
    """Make a source; label -1 means unlabeled.

    Args:
        images: ``[N, H, W, C]`` or ``[N, H, W]``, ndarray or torch tensor: uint8, other integers in 0..255,
            or floats in 0..1 (rounded to 8 bits, with a note); or a list of picture files or of Pillow's images.
        labels: integers ``[N]``, 0 .. K-1 or -1; see `as_labels`.
        test_images: like `images`, of the same kind; None: no test set.
        test_labels: integers ``[T]``, 0 .. K-1.
        classes: names by label; default "0", "1", ... up to the largest label.
        image_size, how: side in pixels for a list of files or pictures, and how they are read; see
            `reading.read_pictures`.
        progress: called as ``progress(done, total)`` while files are read.

    Raises:
        ValueError: an input has another form, with what was given and what is allowed.
    """
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images and test_labels belong together; one of them is missing")
    notes: tuple[str, ...] = ()
    given = [images] if test_images is None else [images, test_images]
    if all(are_paths(x) for x in given) or all(are_pictures(x) for x in given):
        n = len(images)
        flat = [one for x in given for one in x]
        if are_paths(images):
            read = read_pictures([Path(p) for p in flat], image_size=image_size, how=how, progress=progress)
        else:
            read = read_open(flat, image_size=image_size, how=how)
        x, test_x, notes = read.images[:n], read.images[n:], read.notes
    else:
        if image_size is not None:
            raise ValueError("image_size is for picture files; arrays are taken as they are")
        x = as_images(images)
        test_x = x[:0] if test_images is None else as_images(test_images, "test_images")
        if _array("images", images).dtype.kind == "f":
            notes = ("the images were floats; they were rounded to 8 bits",)
        for what, part in (("images", x), ("test images", test_x)):
            if part.size and (narrow := hardly_differ(part, what)):
                notes = (*notes, narrow)
    y = as_labels("labels", labels)
    test_y = y[:0] if test_labels is None else as_labels("test_labels", test_labels)
    count = 1 + max((int(part.max()) for part in (y, test_y) if len(part)), default=-1)
    if classes is None and count > 10_000 + len(y) + len(test_y):
        raise ValueError(f"a label is {count - 1}, of {len(y)} images; labels must be 0 .. K-1 for K classes")
    return Source(
        name=name,
        classes=tuple(str(c) for c in range(count)) if classes is None else tuple(map(str, classes)),
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


def are_pictures(x: Any) -> bool:
    """Whether `x` is a list of Pillow's images."""
    return isinstance(x, list | tuple) and len(x) > 0 and all(isinstance(p, Image.Image) for p in x)


def hardly_differ(images: Images, what: str = "images") -> str:
    """A sentence if all values of uint8 images lie close together, else an empty text."""
    low, high = int(images.min()), int(images.max())
    if high - low >= NEARLY_CONSTANT:
        return ""
    return f"the {what} hardly differ: their values lie in {low}..{high} of 0..255; spread them over 0..255"


def in_channels(images: Images | OnDemand, channels: int) -> Images | OnDemand:
    """Grey images ``[N, H, W, 1]`` as colours, or colours as grey, as `pictures.decode` does; others as they are."""
    if images.shape[3] == channels or {images.shape[3], channels} != {1, 3}:
        return images
    if isinstance(images, Files):
        return images.of(channels)
    assert isinstance(images, np.ndarray)
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    out = np.empty((*images.shape[:3], 1), np.uint8)
    for row, image in enumerate(images):
        out[row, ..., 0] = np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))
    return out


def as_images(x: Any, what: str = "images") -> Images:
    """What `from_arrays` takes as arrays, as uint8 ``[N, H, W, C]``; `what` names it in errors."""
    array = _array(what, x)
    if array.ndim == 3 and array.shape[2] in (3, 4):
        raise ValueError(
            f"{what} of the shape {list(array.shape)} look like one picture [H, W, C]; {what} must be [N, H, W, C] or "
            "[N, H, W] (image[None] makes one of one)"
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        raise ValueError(f"{what} must be [N, H, W, C] or [N, H, W], got the shape {list(array.shape)}")
    n, second, third, last = array.shape
    if (last > 4 and 0 < second < min(third, last)) or (second in (1, 3) and third == last > second):
        raise ValueError(
            f"{what} of shape {list(array.shape)} look like [N, C, H, W]; move the channels to the end "
            "(transpose(0, 2, 3, 1), for a tensor permute(0, 2, 3, 1))"
        )
    if array.dtype == np.uint8:
        return array
    if n == 0:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or array.dtype == np.int8:
        ways = {"b": "; for True and False give astype(np.uint8) * 255", "i": "; int8 ends at 127"}
        raise ValueError(
            f"{what} must be uint8, integers in 0..255 or floats in 0..1, got {array.dtype}"
            f"{ways.get(array.dtype.kind, '')}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinite values; allowed are uint8, or floats in 0..1")
    low, high = array.min(), array.max()
    top = 1 if array.dtype.kind == "f" else 255
    if low < 0 or high > top:
        hint = ""
        if top == 1 and -1 <= low < 0 and high <= 1:
            hint = " ((x + 1) / 2 brings -1..1 there)"
        elif low >= 0 and high > 2:
            range_ = next((r for r in (255, 1023, 4095, 16383, 65535) if high <= r), high)
            hint = f" (x / {range_} brings 0..{range_} to 0..1)"
        raise ValueError(f"{what} of {array.dtype} must lie in 0..{top}, got {low} to {high}; or give uint8{hint}")
    out = np.empty(array.shape, np.uint8)
    for row, image in enumerate(array):  # one at a time: no float copy of the set
        out[row] = np.rint(image * 255) if top == 1 else image
    return out


def as_labels(what: str, x: Any, *, known: bool = False) -> Labels:
    """Labels as int64 ``[N]``, -1 where one is unknown: -1, None, pandas' NA, or masked.

    Raises ValueError for what is not integers: text, bool, floats, also with NaN. With `known` also for negative ones.
    """
    mask: Any = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    array = np.asarray(x) if mask is not None else _array(what, x, objects=True)
    if array.dtype.kind == "f" and hasattr(getattr(x, "dtype", None), "na_value"):
        array = np.asarray(x, object)  # whole numbers of pandas, which become floats where one is missing
    if array.dtype == object and array.ndim == 1:
        array = np.array([_label(what, value) for value in array], np.int64)
    if known and not array.size:
        array = np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        allowed = "integers [N]" if known else "integers [N], -1 for unlabeled"
        way = "" if known else _way(array)
        raise ValueError(f"{what} must be {allowed}, got {array.dtype} {list(array.shape)}{way}")
    if array.dtype.kind == "u" and array.size and int(array.max()) == np.iinfo(array.dtype).max:
        raise ValueError(f"{what} hold {array.max()}, which is what -1 becomes in {array.dtype}; give int64")
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{what} must be below 2**63, got {array.max()}")
    labels = array.astype(np.int64)
    labels = labels if mask is None else np.where(mask, -1, labels)
    if known and len(negative := np.flatnonzero(labels < 0)):
        raise ValueError(f"{what} must be integers from 0 on, and number {negative[0]} is {labels[negative[0]]}")
    return labels


def _label(what: str, value: Any) -> int:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not -(1 << 63) <= int(value) < 1 << 63:
            raise ValueError(f"{what} must be below 2**63, got {value}")
        return int(value)
    if value is None or value is np.ma.masked or type(value).__name__ == "NAType" or value != value:
        return -1
    raise ValueError(f"{what} must be integers [N], None or -1 for unlabeled, got {value!r} among them")


def _way(array: NDArray[Any]) -> str:
    """How labels of another form become integers."""
    if array.ndim == 2 and array.shape[1] > 1:
        return "; one column for each class becomes numbers by argmax(1)"
    if array.ndim == 2:
        return "; ravel() takes the column"
    if array.ndim != 1:
        return ""
    ways = {
        "f": "; where NaN means unlabeled: np.where(np.isnan(y), -1, y).astype(int)",
        "b": "; astype(int) if True and False are the classes",
        "U": "; names become numbers by np.unique(y, return_inverse=True)",
        "S": "; names become numbers by np.unique(y, return_inverse=True)",
    }
    return ways.get(array.dtype.kind, "")


def _array(what: str, x: Any, *, objects: bool = False) -> NDArray[Any]:
    """`x` as an array of numbers, with `objects` of anything."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.getmaskarray(x).any():
        raise ValueError(f"{what} are masked in places; fill them (x.filled(...)), or leave those out")
    if isinstance(x, list | tuple) and any(isinstance(one, Image.Image) for one in x):
        raise ValueError(f"{what} must be all of Pillow's images, or none")
    if isinstance(x, str | os.PathLike | Image.Image):
        raise ValueError(f"{what} must be a list or an array, got one {type(x).__name__}; a list of one is [x]")
    try:
        if isinstance(x, list | tuple) and x and all(hasattr(one, "detach") for one in x):
            array = np.stack([_tensor(one) for one in x])
        else:
            array = _tensor(x) if hasattr(x, "detach") else np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{what} cannot be made one array: {error}") from error
    alone = not isinstance(x, list | tuple) and not objects and array.ndim == 1
    if alone and array.dtype.kind in "OU" and isinstance(array.flat[:1][0], str | os.PathLike):
        raise ValueError(f"{what} that are files must be a list of their names; list(...) makes one")
    if array.dtype == object and not objects:
        raise ValueError(f"{what} must be an array of numbers, got {type(x).__name__} of mixed things")
    return array


def _tensor(x: Any) -> NDArray[Any]:
    x = x.detach().cpu()  # wherever it lies
    if x.is_floating_point() and x.element_size() < 4:
        x = x.float()  # NumPy has no bfloat16
    return np.asarray(x)


def check_archive(path: Path) -> None:
    """Look at what the arrays of an .npz file claim to hold, before memory is taken for them.

    Raises ValueError if they hold less than they claim, or more than half of the free memory.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            total += member.file_size
            with archive.open(member) as file:
                version = npy.read_magic(file)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(file)
            claimed = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and claimed > member.file_size:
                raise ValueError(f"{member.filename} claims {amount(claimed)} and holds {amount(member.file_size)}")
    if 2 * total > (free := host_memory()):
        raise ValueError(f"its arrays take {amount(total)}, more than half of the {amount(free)} of free memory")
