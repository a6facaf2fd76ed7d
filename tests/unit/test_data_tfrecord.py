"""TFRecord files, against tensorboard's record writer and the protobuf library."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from fewlabels.data.names import parse
from fewlabels.data.sources import load
from fewlabels.data.tfrecord import Example, list_records, masked_crc, read, write


def example_class() -> Any:
    """tf.train.Example, from tensorflow/core/example/{example,feature}.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    Field = descriptor_pb2.FieldDescriptorProto

    def message(parent: Any, name: str, **fields: tuple[int, int, bool, str | None]) -> Any:
        made = parent.add(name=name)
        for key, (number, kind, repeated, type_name) in fields.items():
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            made.field.add(name=key, number=number, type=kind, label=label, type_name=type_name)
        return made

    message(file.message_type, "BytesList", value=(1, Field.TYPE_BYTES, True, None))
    message(file.message_type, "Int64List", value=(1, Field.TYPE_INT64, True, None))
    message(
        file.message_type,
        "Feature",
        bytes_list=(1, Field.TYPE_MESSAGE, False, ".t.BytesList"),
        int64_list=(3, Field.TYPE_MESSAGE, False, ".t.Int64List"),
    )
    features = message(file.message_type, "Features", feature=(1, Field.TYPE_MESSAGE, True, ".t.Features.FeatureEntry"))
    entry = message(
        features.nested_type,
        "FeatureEntry",
        key=(1, Field.TYPE_STRING, False, None),
        value=(2, Field.TYPE_MESSAGE, False, ".t.Feature"),
    )
    entry.options.map_entry = True
    message(file.message_type, "Example", features=(1, Field.TYPE_MESSAGE, False, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


Proto = example_class()


def official(image: bytes, label: int, *, first: str = "image") -> bytes:
    example = Proto()
    for name in (first, "label" if first == "image" else "image"):
        feature = example.features.feature[name]
        if name == "image":
            feature.bytes_list.value.append(image)
        else:
            feature.int64_list.value.append(label)
    data: bytes = example.SerializeToString()
    return data


def save(path: Path, bodies: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for body in bodies:
            writer.write(body)
    return path


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=9))
def test_checksums(records: list[bytes]) -> None:
    assert masked_crc(records).tolist() == [masked_crc32c(record) for record in records]


def test_the_known_checksum_of_castagnoli() -> None:
    crc = 0xE3069283  # CRC-32C of "123456789": RFC 3720 and the catalogue of CRC algorithms
    assert masked_crc([b"123456789"]).tolist() == [((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF]


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=4))
def test_examples_go_both_ways(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[bytes, int]]) -> None:
    examples = [Example(*pair) for pair in pairs]
    path = tmp_path_factory.mktemp("records") / "x.tfrecord"
    save(path, [official(*pair, first="label" if i % 2 else "image") for i, pair in enumerate(pairs)])
    assert read(path) == examples
    write(path, examples)
    assert read(path) == examples
    for body, example in zip(bodies(path.read_bytes()), examples, strict=True):
        parsed = Proto.FromString(body)
        assert parsed.features.feature["image"].bytes_list.value[0] == example.image
        assert parsed.features.feature["label"].int64_list.value[0] == example.label


def bodies(data: bytes) -> list[bytes]:
    out = []
    while data:
        size = int.from_bytes(data[:8], "little")
        body = data[12 : 12 + size]
        assert masked_crc32c(data[:8]).to_bytes(4, "little") == data[8:12]
        assert masked_crc32c(body).to_bytes(4, "little") == data[12 + size : 16 + size]
        out.append(body)
        data = data[16 + size :]
    return out


def test_damage_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tfrecord", [official(b"a" * 50, 1), official(b"b" * 50, 2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"?" + whole[-19:])
    with pytest.raises(ValueError, match=r"record 1 of .* is damaged: its checksum does not fit"):
        read(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="ends within record 1"):
        read(path)
    save(path, [b"\x0a\x03abc"])
    with pytest.raises(ValueError, match=r"record 0 of .* is no example with an 'image'"):
        read(path)
    example = Proto()
    example.features.feature["other"].int64_list.value.append(1)
    save(path, [example.SerializeToString()])
    with pytest.raises(ValueError, match=r"is no example .* it has other"):
        read(path)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60))
def test_any_record_gives_an_example_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = save(tmp_path_factory.mktemp("any") / "x.tfrecord", [body])
    try:
        read(path)
    except ValueError as error:
        assert "record 0" in str(error)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def test_a_split_of_fixmatch(tmp_path: Path) -> None:
    """The unlabeled file holds all images with their labels; only those of the label file keep theirs."""
    save(tmp_path / "SSL2" / "toy.3@2-label.tfrecord", [official(png(30), 2), official(png(10), 0)])
    save(tmp_path / "SSL2" / "toy-unlabel.tfrecord", [official(png(10 * i), i % 3) for i in range(5)])
    save(tmp_path / "toy-test.tfrecord", [official(png(77), 1)])
    source = load(parse(str(tmp_path / "SSL2" / "toy.3@2-label.tfrecord")))
    assert source.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert source.labels.tolist() == [-1, 0, -1, 2, -1] and source.classes == ("0", "1", "2")
    assert source.test_images[:, 3, 3, 2].tolist() == [77] and source.test_labels.tolist() == [1]


def test_a_split_of_realmix(tmp_path: Path) -> None:
    """Its unlabeled file is that of the split and lacks the labeled images: they come first."""
    save(tmp_path / "SSL" / "toy.1@2-label.tfrecord", [official(png(1), 0), official(png(2), 1)])
    save(tmp_path / "SSL" / "toy.1@2-unlabel.tfrecord", [official(png(3), 0)])
    source = load(parse(str(tmp_path / "SSL" / "toy.1@2-label.tfrecord")))
    assert source.images[:, 0, 0, 0].tolist() == [1, 2, 3] and source.labels.tolist() == [0, 1, -1]
    assert any("there is no test accuracy" in note for note in source.notes)
    (tmp_path / "SSL" / "toy.1@2-unlabel.tfrecord").unlink()
    with pytest.raises(ValueError, match=r"has no unlabeled file beside it: neither toy.1@2-unlabel.tfrecord nor toy-"):
        load(parse(str(tmp_path / "SSL" / "toy.1@2-label.tfrecord")))


def test_a_whole_file_and_a_broken_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "toy-train.tfrecord", [official(png(1), 0), official(png(2), 1), official(b"no", 1)])
    save(tmp_path / "toy-test.tfrecord", [official(png(3), 1)])
    with pytest.raises(ValueError, match=r"1 of 4 pictures cannot be read: toy-train.tfrecord\[2\] \(not a picture"):
        load(parse(str(path)))
    assert load(parse(str(path)), skip_corrupt=True).labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="there is no file"):
        load(parse("gone.tfrecord"))


@pytest.mark.parametrize("label", [10**6, 2**62, -2, -(2**63)])
def test_a_label_that_makes_too_many_classes(tmp_path: Path, label: int) -> None:
    """Classes are made up to the largest label, and a record of a few bytes may say any."""
    path = tmp_path / "SSL2" / "x.1@2-label.tfrecord"
    path.parent.mkdir()
    write(path, [Example(b"a", 0), Example(b"b", 1)])
    pool = path.with_name("x-unlabel.tfrecord")
    write(pool, [Example(b"a", 0), Example(b"c", label)])
    sentence = rf"record 1 of .*{pool.name} has the label {label}; allowed are 0 to 99999, and -1 for an unlabeled"
    with pytest.raises(ValueError, match=sentence):
        list_records(path)


def test_a_pipe_is_no_file_of_records(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tfrecord")
    with pytest.raises(ValueError, match=r"x\.tfrecord' is no regular file"):
        read(tmp_path / "x.tfrecord")
