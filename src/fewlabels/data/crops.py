"""Crops of random area: a function of numbers that are drawn before a picture is opened, and of the picture's size.

So a step's crops are known from the seed and the step alone, and each picture is opened once, by whichever process.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Crops: TypeAlias = NDArray[np.float32]
"""``[n, NUMBERS]`` in [0, 1): what decides the crops of n pictures; see `draw`."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom; the last column and row are outside."""

ATTEMPTS = 10
NUMBERS = 1 + 4 * ATTEMPTS
"""Whether to mirror; then for each attempt aspect ratio, height, row and column."""

AREA = (np.float32(0.08), np.float32(1))
ASPECT = (np.float32(3 / 4), np.float32(4 / 3))
COVERED = np.float32(0.1)
"""Share of the picture that a crop covers at least; where `AREA` allows less, another attempt is made."""

INNER = np.float32(0.875)
"""Share of the shorter side that an evaluated picture keeps: 224 of 256 pixels."""


def draw(generator: np.random.Generator, rows: int, *, flip: bool) -> Crops:
    """The numbers of `rows` pictures; without `flip` none is mirrored."""
    numbers = generator.random((rows, NUMBERS), dtype=np.float32)
    if not flip:
        numbers[:, 0] = 1
    return numbers


def area_box(numbers: Crops, height: int, width: int) -> Box:
    """The crop that one row of numbers ``[NUMBERS]`` means in a picture of this size.

    TensorFlow's sample_distorted_bounding_box as google-research/fixmatch calls it (imagenet/datasets/imagenet.py): of
    an aspect ratio uniform in 3/4 .. 4/3, a height uniform among those with 8 to 100 % of the area, which must cover a
    tenth of the picture; the place is uniform, and never the last one possible. After ten attempts, or where the crop
    is the whole picture, the `inner_box`.
    """
    for attempt in numbers[1:].reshape(ATTEMPTS, 4):
        if (found := _attempt(attempt, height, width)) is not None:
            return inner_box(height, width) if found == (0, 0, width, height) else found
    return inner_box(height, width)


def _attempt(numbers: Crops, height: int, width: int) -> Box | None:
    aspect = numbers[0] * (ASPECT[1] - ASPECT[0]) + ASPECT[0]  # float32, as there
    least, most = (share * np.float32(width) * np.float32(height) for share in AREA)
    low, high = (_round(np.sqrt(area / aspect)) for area in (least, most))
    if _round(high * aspect) > width:
        high = int((width + 0.5 - 1e-7) / float(aspect))
        high -= _round(high * aspect) > width
    high = min(high, height)
    low = min(low, high)
    tall = low + _below(numbers[1], high - low + 1)
    wide = _round(tall * aspect)
    if tall * wide < least:
        tall += 1
        wide = _round(tall * aspect)
    if tall * wide > most:
        tall -= 1
        wide = _round(tall * aspect)
    if not least <= tall * wide <= most or wide > width or tall > height or not wide or not tall:
        return None
    if np.float32(tall * wide) / np.float32(height * width) < COVERED:
        return None
    top = _below(numbers[2], height - tall) if tall < height else 0
    left = _below(numbers[3], width - wide) if wide < width else 0
    return left, top, left + wide, top + tall


def _round(value: np.float32 | float) -> int:
    return round(float(value))  # halves to even, as lrintf


def _below(number: np.float32, count: int) -> int:
    """An integer of 0 .. count - 1."""
    return int(float(number) * count)


def inner_box(height: int, width: int, shape: tuple[int, int] = (1, 1)) -> Box:
    """The middle of a picture that is evaluated: 7/8 of the shorter side, of the aspect ratio of `shape` (H, W).

    Of an odd rest the larger half is above and left (google-research/fixmatch, imagenet/datasets/imagenet.py).
    """
    unit = min(height / shape[0], width / shape[1])
    tall, wide = (max(1, int(INNER * np.float32(unit * side))) for side in shape)
    top, left = (height - tall + 1) // 2, (width - wide + 1) // 2
    return left, top, left + wide, top + tall


def cut(image: Image.Image, box: Box, size: tuple[int, int], *, mirror: bool = False) -> Image.Image:
    """The pixels in the box, brought to `size` (H, W) by Pillow's bicubic filter, the width first, and mirrored.

    What lies outside of the box has no part in it, and a filter that shrinks is as wide as what it takes together; the
    original's (tf.image.resize without antialias) is not.
    """
    return _resized(image.crop(box), size, mirror)


def _resized(image: Image.Image, size: tuple[int, int], mirror: bool) -> Image.Image:
    """Width first, then height: in one call the order, and so some bits, is up to the size and Pillow's version."""
    height, width = size
    for now in ((width, image.height), (width, height)):
        if image.size != now:
            image = image.resize(now, Image.Resampling.BICUBIC)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else image


def random_cut(image: Image.Image, numbers: Crops, size: tuple[int, int]) -> Image.Image:
    """The crop that `numbers` mean, at `size` (H, W)."""
    return cut(image, area_box(numbers, image.height, image.width), size, mirror=mirrored(numbers))


def mirrored(numbers: Crops) -> Any:
    """Whether each row of numbers ``[..., NUMBERS]`` mirrors its picture, bool ``[...]``."""
    return numbers[..., 0] < 0.5


def random_part(pixels: NDArray[np.uint8], numbers: Crops) -> NDArray[np.uint8]:
    """The crop of an array ``[H, W, C]`` that `numbers` mean, neither resized nor mirrored."""
    left, top, right, bottom = area_box(numbers, *pixels.shape[:2])
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def random_cut_of(pixels: NDArray[np.uint8], numbers: Crops, size: tuple[int, int]) -> Image.Image:
    """`random_cut` of an array ``[H, W, C]``."""
    return _resized(picture_of(random_part(pixels, numbers)), size, mirrored(numbers))


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pillow's picture of an array ``[H, W, C]`` of 1 or 3 channels."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


LARGEST_PART = 1 << 20
"""Pixels; larger crops are resized on the host."""


def small_part(pixels: NDArray[np.uint8], numbers: Crops, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`random_part`, brought to `size` (H, W) where it is large."""
    part = random_part(pixels, numbers)
    if part.shape[0] * part.shape[1] <= LARGEST_PART:
        return part
    return np.asarray(_resized(picture_of(part), size, False), np.uint8).reshape(*size, part.shape[-1])
