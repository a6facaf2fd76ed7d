"""JPEG files by torchcodec's decoder, where it is installed and gives Pillow's bits: about a third faster.

Both decode with libjpeg-turbo. Only files that leave nothing to interpret come this way, and whatever torchcodec does
not read is left to Pillow, which then says what is wrong with it.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from PIL import Image

from fewlabels.data.source import Images

Decoder: TypeAlias = Callable[[bytes, bool], Images]
"""``(file, grey) -> [H, W, C]``. Raises RuntimeError for what it does not read."""


class Frame(NamedTuple):
    """What the header says of a file that every reader takes for the same pixels."""

    height: int
    width: int
    grey: bool


@cache
def decoder() -> Decoder | None:
    """torchcodec's, if it is installed and gives Pillow's bits for a few pictures that are made to see that."""
    try:
        torch: Any = importlib.import_module("torch")  # the processes that decode with Pillow do without
        decode_jpeg: Any = importlib.import_module("torchcodec.decoders").decode_jpeg
    except Exception:  # not installed, or not made for this torch: whatever its libraries have to say
        return None

    def decode(data: bytes, grey: bool) -> Images:
        file = torch.frombuffer(bytearray(data), dtype=torch.uint8)  # of bytes it would be warned, and slower
        pixels: Any = decode_jpeg(file, mode="GRAY" if grey else "RGB")
        return cast(Images, pixels.permute(1, 2, 0).numpy())

    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((53, 37))
    kinds: list[dict[str, Any]] = [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 95}]
    for picture in (noise, noise.convert("L")):
        for kind in kinds:
            file = io.BytesIO()
            picture.save(file, "JPEG", **kind)
            with Image.open(file) as opened:
                expected = np.asarray(opened)
            try:
                found = decode(file.getvalue(), picture.mode == "L")
            except RuntimeError:
                return None
            if not np.array_equal(found, expected.reshape(found.shape)):
                return None
    return decode


def frame(data: bytes) -> Frame | None:
    """The header of a JPEG file of 8 bits in grey or YCbCr that is not turned; None for all others.

    Left to Pillow are files of Adobe's (their colours may be others), several pictures in one file, and any that say
    more of their orientation than that there is none.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, size = 2, len(data)
    while at + 4 <= size and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker in (0xC0, 0xC1, 0xC2):
            if len(body) < 6 + 3:
                return None
            bits, height, width, parts = struct.unpack_from(">BHHB", body)
            ours = parts == 1 or (parts == 3 and body[6::3][:3] == b"\x01\x02\x03")
            return Frame(height, width, parts == 1) if bits == 8 and ours and height and width else None
        if marker == 0xE1 and not _upright(body):
            return None
        if marker in (0xE2, 0xEE) and not body.startswith(b"ICC_PROFILE"):
            return None
        if marker in (0xD8, 0xD9, 0xDA) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xCC)):
            return None
        at += 2 + length
    return None


def _upright(body: bytes) -> bool:
    """Whether a block of EXIF or XMP data leaves the picture as it is."""
    if not body.startswith(b"Exif\0\0"):
        return b"Orientation" not in body
    try:
        exif = Image.Exif()
        exif.load(body)
        return bool(exif.get(0x0112, 1) == 1)
    except Exception:  # damaged: as `pictures` reads it
        return False
