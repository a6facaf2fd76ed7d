"""TFRecord files of pictures, as google-research/fixmatch, CADR and RealMix write them, without TensorFlow.

A record is its length (uint64), the length's checksum, the bytes and their checksum (uint32 each, masked
CRC-32C), all little-endian; here the bytes are a `tf.train.Example` (a protocol buffer) with the features
``image`` (bytes, a picture file) and ``label`` (int64). The packages that read them either do not check the
checksums or bring TensorFlow or compiled code along.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.blobs import Blob
from fewlabels.data.listing import Listing, Row

MOST_CLASSES = 100_000
"""Classes that labels may ask for: a label is the number of its class, and all classes below it are made too."""


class Example(NamedTuple):
    """One record."""

    image: bytes
    """A picture file, PNG or JPEG."""
    label: int


def read(path: Path) -> list[Example]:
    """All records of a file. Raises ValueError for a damaged one, with the number of the record (from 0)."""
    if not path.is_file():
        raise ValueError(
            f"there is no file {str(path)!r}" if not path.exists() else f"{str(path)!r} is no regular file"
        )
    data = path.read_bytes()
    lengths: list[bytes] = []
    bodies: list[bytes] = []
    sums: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError(f"{path} ends within record {len(bodies)}")
        length, crc = struct.unpack_from("<QI", data, at)
        if at + 16 + length > len(data):
            raise ValueError(f"{path} ends within record {len(bodies)}, or is no TFRecord file")
        lengths.append(data[at : at + 8])
        bodies.append(data[at + 12 : at + 12 + length])
        sums.append((crc, struct.unpack_from("<I", data, at + 12 + length)[0]))
        at += 16 + length
    expected = np.array(sums, np.uint32).reshape(-1, 2)
    wrong = np.flatnonzero((masked_crc(lengths) != expected[:, 0]) | (masked_crc(bodies) != expected[:, 1]))
    if len(wrong):
        raise ValueError(f"record {wrong[0]} of {path} is damaged: its checksum does not fit")
    examples = []
    for number, body in enumerate(bodies):
        try:
            examples.append(_example(body))
        except (ValueError, IndexError, struct.error) as error:
            raise ValueError(
                f"record {number} of {path} is no example with an 'image' (bytes) and a 'label' (int64): {error}"
            ) from error
    return examples


def write(path: Path, examples: Iterable[Example]) -> None:
    """Write a file that `read` and TensorFlow read. Not atomic."""
    bodies = [_encoded(example) for example in examples]
    lengths = [struct.pack("<Q", len(body)) for body in bodies]
    with path.open("wb") as file:
        for length, body, a, b in zip(lengths, bodies, masked_crc(lengths), masked_crc(bodies), strict=True):
            file.write(length + struct.pack("<I", a) + body + struct.pack("<I", b))


# ---- the checksum


def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_TABLE = _table()


def masked_crc(records: Sequence[bytes]) -> NDArray[np.uint32]:
    """TFRecord's checksum of each record, uint32 ``[N]``: CRC-32C, turned right by 15 bits, plus a constant.

    Byte by byte over many records at once: NumPy's speed without compiled code. Longest first, so that the
    records that still go on are a prefix.
    """
    out = np.empty(len(records), np.uint32)
    order = np.argsort([-len(record) for record in records], kind="stable")
    for start in range(0, len(order), 4096):
        rows = order[start : start + 4096]
        sizes = np.array([len(records[row]) for row in rows])
        piece = np.zeros((len(rows), max(1, sizes[0])), np.uint8)
        for i, row in enumerate(rows):
            piece[i, : sizes[i]] = np.frombuffer(records[row], np.uint8)
        columns = np.ascontiguousarray(piece.T)
        crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
        going = np.searchsorted(-sizes, -np.arange(sizes[0]), side="left")  # records longer than i bytes
        for column, n in zip(columns, going, strict=False):
            crc[:n] = _TABLE[(crc[:n] ^ column[:n]) & 0xFF] ^ (crc[:n] >> 8)
        crc = ~crc
        out[rows] = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return out


# ---- the protocol buffer: Example{1: Features{1: map entries{1: name, 2: Feature{1: bytes list, 3: int64 list}}}}


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: an int for a varint, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
        else:
            raise ValueError("this is no protocol buffer")
        if at + size > len(data):
            raise ValueError("a field is longer than its message")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _inner(data: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    if isinstance(data, int):
        raise ValueError("a number stands in place of a message")
    return _fields(data)


def _example(body: bytes) -> Example:
    features: dict[bytes, int | bytes] = {}
    for number, content in _fields(body):
        for inner, entry in _inner(content) if number == 1 else ():
            if inner == 1:
                pair = dict(_inner(entry))
                name = pair.get(1, b"")
                for kind, values in _inner(pair.get(2, b"")):
                    for _, value in _inner(values):
                        if kind == 3 and isinstance(value, bytes):  # a packed list of numbers
                            value, _ = _varint(value, 0)
                        features[bytes(name) if isinstance(name, bytes) else b""] = value
    image, label = features.get(b"image"), features.get(b"label")
    if not isinstance(image, bytes) or not isinstance(label, int):
        raise ValueError(f"it has {', '.join(sorted(n.decode(errors='replace') for n in features)) or 'nothing'}")
    return Example(image, label - 2**64 if label >= 2**63 else label)


def _encoded(example: Example) -> bytes:
    def number(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def field(key: int, content: bytes) -> bytes:
        return number(key << 3 | 2) + number(len(content)) + content

    def feature(name: bytes, kind: int, content: bytes) -> bytes:
        return field(1, field(1, name) + field(2, field(kind, field(1, content))))

    image = feature(b"image", 1, example.image)
    return field(1, image + feature(b"label", 3, number(example.label % 2**64)))


# ---- as a source


def list_records(path: Path) -> Listing:
    """The split that ``SSL2/NAME.SEED@SIZE-label.tfrecord`` is, with its ``SSL2/NAME-unlabel.tfrecord`` (RealMix:
    ``NAME.SEED@SIZE-unlabel.tfrecord``) and ``NAME-test.tfrecord`` in the folder above; or any other
    ``.tfrecord`` file, whose records are all labeled.

    FixMatch's unlabeled file has the labeled records too: they are labeled where they stand. The other labels
    of the unlabeled file are not looked at.

    Raises:
        ValueError: a file is missing or damaged, or a label would make more than `MOST_CLASSES` classes.
    """
    examples = _labeled(path)
    stem = path.stem
    unlabeled: list[Example] = []
    train: list[Row]
    if not stem.endswith("-label"):
        train = _rows(path, examples)
        held = path.with_name(f"{stem.removesuffix('-train')}-test.tfrecord")
    else:
        split = stem.removesuffix("-label")
        base = split.split("@")[0].rpartition(".")[0] or split
        pools = [path.with_name(f"{name}-unlabel.tfrecord") for name in (split, base)]
        pool = next((p for p in pools if p.is_file()), None)
        if pool is None:
            raise ValueError(f"{path} has no unlabeled file beside it: neither {pools[0].name} nor {pools[1].name}")
        unlabeled = _labeled(pool)
        train = _merged(_rows(path, examples), _rows(pool, unlabeled))
        held = path.parent.parent / f"{base}-test.tfrecord"
    tested = _labeled(held) if held.is_file() and held != path else []
    notes = [] if tested else [f"there is no {held}; there is no test accuracy"]
    count = 1 + max((e.label for e in (*examples, *unlabeled, *tested)), default=-1)
    classes = tuple(str(c) for c in range(count))
    test = _rows(held, tested)
    return Listing(name=stem, where=str(path), train=train, test=test, classes=classes, notes=notes)


def _labeled(path: Path) -> list[Example]:
    """`read`, for records whose labels are numbers of classes."""
    examples = read(path)
    for number, example in enumerate(examples):
        if not -1 <= example.label < MOST_CLASSES:
            raise ValueError(
                f"record {number} of {path} has the label {example.label}; allowed are 0 to {MOST_CLASSES - 1}, and -1 "
                "for an unlabeled picture"
            )
    return examples


def _rows(path: Path, examples: list[Example]) -> list[Row]:
    return [
        (Blob(f"{path.name}[{i}]", e.image), str(e.label) if e.label >= 0 else None) for i, e in enumerate(examples)
    ]


def _merged(labeled: list[Row], pool: list[Row]) -> list[Row]:
    """The pool, where only the pictures of `labeled` keep a label; those that it does not have come first."""
    known: dict[bytes, list[Row]] = {}
    for file, label in labeled:
        assert isinstance(file, Blob)
        known.setdefault(file.data, []).append((file, label))
    out: list[Row] = []
    for file, _ in pool:
        assert isinstance(file, Blob)
        same = known.get(file.data)
        out.append((file, same.pop(0)[1] if same else None))
    return [row for rows in known.values() for row in rows] + out
