"""Row numbers in JSON, and values of JSON that are what they should be."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from fewlabels.data.rules import Indices

T = TypeVar("T")

PACKED_AT_MOST = 100
"""Bytes that one byte of packed rows may stand for; rows in order have 5, and a file made to fill the memory 1,000."""


def pack(rows: Indices) -> dict[str, Any]:
    """Row numbers for JSON: how many, and zlib in base64 of their int64 bytes."""
    packed = base64.b64encode(zlib.compress(rows.astype("<i8").tobytes(), 6)).decode()
    return {"count": len(rows), "zlib_int64_base64": packed}


def unpack(packed: dict[str, Any]) -> Indices:
    """The rows of `pack`. What unpacks to more than it says, or than rows can, is not unpacked to the end."""
    content = base64.b64decode(packed["zlib_int64_base64"], validate=True)
    size = 8 * typed(int, packed["count"])
    if not 0 <= size <= 64 + PACKED_AT_MOST * len(content):
        raise ValueError(f"{packed['count']} rows cannot be packed in {len(content)} bytes")
    stream = zlib.decompressobj()
    plain = stream.decompress(content, size + 1)  # 0 would mean without a limit
    if len(plain) != size or not stream.eof:
        raise ValueError(f"{packed['count']} rows are said to be packed, and others are")
    return row_numbers(np.frombuffer(plain, "<i8"))


def row_numbers(values: Any) -> Indices:
    """A list of numbers from 0 on as int64 ``[N]``. Raises ValueError or TypeError where it is none."""
    rows = np.array(values) if len(values) else np.empty(0, np.int64)
    if rows.ndim != 1 or rows.dtype.kind != "i" or rows.min(initial=0) < 0:
        raise ValueError("rows must be whole numbers from 0 on")
    return rows.astype(np.int64)


def typed(kind: type[T], value: Any) -> T:
    """`value`, if it is of this kind. Raises TypeError otherwise; True and False are no numbers."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def named_texts(value: Any) -> dict[str, str]:
    """A mapping of names to texts, one or more, as a dict. Raises ValueError where it is none."""
    good = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
    if not good or not value or not all(text.strip() for pair in value.items() for text in pair):
        raise ValueError(
            f"lineage must be texts by name, such as {{'run': 'runs/a'}}, none of them empty, got {value!r}"
        )
    return dict(value)
