"""What a reader returns: images, labels, and how they are usually augmented; checked here, once."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.crops import Crops
from fewlabels.runtime.words import first

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], object]
"""Called as ``progress(done, total)``, from the thread that asked."""


class OnDemand(ABC):
    """Images that are made when they are asked for; stands where an array ``[N, H, W, C]`` of them would."""

    shape: tuple[int, int, int, int]
    dtype = np.dtype(np.uint8)
    ndim = 4
    ahead: int
    """Steps of a training that should be asked for ahead of time."""

    def __len__(self) -> int:
        return self.shape[0]

    crops = False
    """Whether `read` takes the numbers of random crops."""

    def reserve(self, rows: Labels) -> None:  # noqa: B027  (nothing is read in place of another one, mostly)
        """Let no other image be read in place of one that cannot be, or the other way round: validation images."""

    def news(self) -> list[str]:
        """Sentences on what was found out while reading, each once."""
        return []

    def read_parts(self, rows: Labels, crops: Crops) -> list[Images]:
        """The crops ``[h, w, C]`` as they are, neither resized nor mirrored, where there are `crops`."""
        raise NotImplementedError

    @abstractmethod
    def read(self, rows: Labels, out: Images, crops: Crops | None = None) -> None:
        """Write the images at `rows`, int64 ``[n]``, into `out`, uint8 ``[n, H, W, C]``, or with the numbers `crops`
        ``[n, crops.NUMBERS]`` random crops of them. For one thread at a time."""


@dataclass(frozen=True)
class Style:
    """How images of a source are augmented and normalised unless the run says otherwise."""

    flip: bool = True
    """Whether a mirrored image keeps its meaning (not so for digits)."""
    shift: int = 4
    """Largest shift of the weak view, in pixels."""
    weak: Literal["ms", "s", "affine"] = "ms"
    """FixMatch's words: "ms" mirror and shift, "s" shift only; "affine" is for very small images."""
    strong: str = "rand:kekmodel"
    mean: tuple[float, ...] | None = None
    """Per channel, of images in 0..1; None: measured on the training images."""
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a named source without loading it."""

    classes: int
    shape: tuple[int, int, int]
    """(C, H, W)"""
    train: int
    test: int
    style: Style


_HALF = (0.5, 0.5, 0.5)
"""FixMatch's scaling to [-1, 1] (libml/data.py), for sets that kekmodel has no numbers for."""

# Mean and standard deviation of CIFAR: kekmodel/FixMatch-pytorch, dataset/cifar.py; of ImageNet: torchvision's
# pretrained nets. Shifts and mirrors: google-research/fixmatch, libml/augment.py and libml/data.py.
FACTS: dict[str, Facts] = {
    "digits": Facts(
        10, (1, 8, 8), 1437, 360, Style(flip=False, shift=1, weak="affine", strong="affine")
    ),
    "cifar10": Facts(
        10, (3, 32, 32), 50_000, 10_000, Style(mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616))
    ),
    "cifar100": Facts(
        100, (3, 32, 32), 50_000, 10_000, Style(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
    ),
    "svhn": Facts(10, (3, 32, 32), 604_388, 26_032, Style(flip=False, weak="s", mean=_HALF, std=_HALF)),
    "svhn_noextra": Facts(10, (3, 32, 32), 73_257, 26_032, Style(flip=False, weak="s", mean=_HALF, std=_HALF)),
    "stl10": Facts(10, (3, 96, 96), 105_000, 8_000, Style(shift=12, mean=_HALF, std=_HALF)),
    "fashion_mnist": Facts(10, (1, 32, 32), 60_000, 10_000, Style(mean=(0.5,), std=(0.5,))),
    "mini_imagenet": Facts(100, (3, 84, 84), 50_000, 10_000, Style(mean=_HALF, std=_HALF)),
    "tiny_imagenet": Facts(200, (3, 64, 64), 100_000, 10_000, Style(shift=8, mean=_HALF, std=_HALF)),
    "imagenet": Facts(
        1000, (3, 64, 64), 1_281_167, 50_000, Style(shift=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    ),
}  # fmt: skip


def own_style(height: int) -> Style:
    """The style of pictures that we know nothing about: FixMatch's, with 4 px of 32 scaled to their
    height."""
    return Style(shift=round(height / 8))


@dataclass(frozen=True, eq=False)
class Source:
    """A data set in memory. Raises ValueError when the parts do not fit together."""

    name: str
    classes: tuple[str, ...]
    """Display names; the label is the position."""
    images: Images
    """Training images, uint8 ``[N, H, W, C]``, or an `OnDemand` in the array's place; the test images likewise."""
    labels: Labels
    """int64 ``[N]``, 0 .. K-1, or -1 where the label is unknown."""
    test_images: Images
    """uint8 ``[T, H, W, C]``; T may be 0."""
    test_labels: Labels
    """int64 ``[T]``, 0 .. K-1."""
    style: Style
    notes: tuple[str, ...] = ()
    """Sentences that the run prints."""
    folders: tuple[str, ...] = ()
    """What the classes are called in the data, where `classes` are display names."""
    folds: tuple[Labels, ...] = ()
    """Official sets of labeled rows (STL-10's ten), each int64; a source that has them follows the published
    protocol though some labels are unknown."""
    whole: Source | None = None
    """The source as it was read, where classes or test images were left out (`protocol.restrict`)."""
    pictures: tuple[str, ...] = ()
    """What tells these pictures from others (`mark` of the training and of the test pictures, by name and content);
    (): the pixels do, or the name where the set is a known one."""
    names: Sequence[str] = ()
    """What each training image is called where it was read, such as its path in the folder; () where it has no name."""
    test_names: Sequence[str] = ()
    """The same of the test images."""

    files: tuple[str, ...] = ()
    """Path of each training image, of own pictures in files."""
    held: int = 0
    """The last so many training images are those of the data's own validation part, with known labels."""

    def __post_init__(self) -> None:
        _check_images(f"the training images of {self.name}", self.images)
        _check_images(f"the test images of {self.name}", self.test_images)
        if len(self.images) == 0:
            raise ValueError(f"{self.name} has no training images")
        if self.test_images.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"the test images of {self.name} are {_shape(self.test_images)}, "
                f"the training images {_shape(self.images)}; they must be equal in height, width and channels"
            )
        if len(self.names) not in (0, len(self.images)):
            raise ValueError(f"{self.name} has {len(self.names)} names for {len(self.images)} training images")
        if len(self.test_names) not in (0, len(self.test_images)):
            raise ValueError(f"{self.name} has {len(self.test_names)} names for {len(self.test_images)} test images")
        count = len(self.classes)
        if count < 2:
            raise ValueError(f"{self.name} has {count} class{'' if count else 'es'}; at least 2 are needed")
        if len(set(self.classes)) < count:
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise ValueError(f"{self.name} has the class name {twice!r} twice")
        _check_labels(f"the labels of {self.name}", self.labels, len(self.images), count, least=-1)
        _check_labels(f"the test labels of {self.name}", self.test_labels, len(self.test_images), count, least=0)
        histogram = self.histogram()
        if not histogram.any():
            raise ValueError(f"{self.name} has no labeled image; every label is -1 (unknown)")
        missing = [self.classes[c] for c in np.flatnonzero(histogram == 0)]
        if missing:
            note = f"{self.name} has no labeled image of {first(missing)}; without one such a class cannot be learned"
            if note not in self.notes:  # a copy of a source has it already
                object.__setattr__(self, "notes", (*self.notes, note))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        _, h, w, c = self.images.shape
        return c, h, w

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """`pictures`, or marks of the pixels and test labels of arrays; () for a known set with its own class names."""
        in_memory = isinstance(self.images, np.ndarray) and isinstance(self.test_images, np.ndarray)
        if self.pictures or self.name in FACTS or not in_memory:
            return self.pictures
        tests = zip(self.test_images, self.test_labels, strict=True)
        return mark(x.tobytes() for x in self.images), mark(x.tobytes() + y.tobytes() for x, y in tests)

    def histogram(self) -> Labels:
        """Training images with a known label per class, int64 ``[K]``; unknown labels are not counted."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).astype(np.int64)


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation per channel of v / 255, exact up to the last float64 operation.

    Images are uint8 ``[N, H, W, C]``, or made on demand, and then all of them are. From histograms, so that no
    float copy of the set is made. A constant channel gets the standard deviation 1: normalising it must not divide
    by zero.
    """
    values = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256), np.int64)
    size = max(1, 2**22 // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):  # np.bincount widens to int64: eight bytes a pixel, so in pieces
        piece = np.asarray(images[start : start + size])
        for channel, count in enumerate(counts):
            count += np.bincount(piece[..., channel].ravel(), minlength=256)
    means, stds = [], []
    for count in counts:
        share = count / count.sum()
        mean = float(share @ values)
        std = float(np.sqrt(share @ (values - mean) ** 2))
        means.append(mean)
        stds.append(std if np.count_nonzero(count) > 1 else 1.0)
    return tuple(means), tuple(stds)


def mark(items: Iterable[bytes]) -> str:
    """``COUNT DIGEST`` of items in their order."""
    digest, count = hashlib.blake2b(digest_size=16), 0
    for item in items:
        digest.update(len(item).to_bytes(8, "little") + item)
        count += 1
    return f"{count} {digest.hexdigest()}"


def _shape(images: Images) -> str:
    return "x".join(str(n) for n in images.shape[1:])


def _check_images(what: str, images: Images) -> None:
    if not isinstance(images, np.ndarray | OnDemand) or images.dtype != np.uint8 or images.ndim != 4:
        got = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"{what} must be uint8 [N, H, W, C], got {got}")
    if 0 in images.shape[1:]:
        raise ValueError(f"{what} have no pixels: their shape is {list(images.shape)}")


def _check_labels(what: str, labels: Labels, n: int, classes: int, *, least: int) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (n,):
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise ValueError(f"{what} must be int64 [{n}], one per image, got {got}")
    wrong = labels[(labels < least) | (labels >= classes)]
    if len(wrong):
        unknown = " (or -1 where unknown)" if least < 0 else ""
        raise ValueError(f"{what} must lie in 0 .. {classes - 1}{unknown}, got {wrong[0]}")
