"""Files whose pixels are not what their type says, or that are no pictures: read as shown, said, or refused."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fewlabels.data import kinds
from fewlabels.data.blobs import Blob
from fewlabels.data.pictures import About, Decoding, Unreadable, decode, find_images, header
from fewlabels.data.reading import read_pictures
from fewlabels.data.remarks import PictureWarning

RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), np.uint8)
SMOOTH = np.linspace(0, 255, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)

Entry = tuple[int, int, int, bytes]
"""Tag, type, count and value of an EXIF field (EXIF 2.3, 4.6.2)."""


def exif(entries: Sequence[Entry], gps: Entry | None = None) -> bytes:
    """An EXIF block of little-endian fields of four bytes at most, perhaps with one in a GPS part."""
    rows = [*entries, *([(0x8825, 4, 1, struct.pack("<I", 8 + 2 + 12 * (len(entries) + 1) + 4))] if gps else [])]

    def part(fields: Sequence[Entry]) -> bytes:
        packed = (struct.pack("<HHI", tag, kind, n) + value.ljust(4, b"\0") for tag, kind, n, value in fields)
        return struct.pack("<H", len(fields)) + b"".join(packed) + bytes(4)

    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + part(rows) + (part([gps]) if gps else b"")


SIX = {
    "short": (0x0112, 3, 1, b"\6\0"),
    "long": (0x0112, 4, 1, b"\6\0\0\0"),
    "byte": (0x0112, 1, 1, b"\6"),
    "undefined": (0x0112, 7, 1, b"\6"),
    "text": (0x0112, 2, 2, b"6\0"),
    "text without its end": (0x0112, 7, 1, b"6"),
    "two of them": (0x0112, 3, 2, b"\6\0\6\0"),
    "float": (0x0112, 11, 1, struct.pack("<f", 6)),
}
GPS = (6, 2, 4, b"12m\0")  # the altitude, which is a fraction by the standard


@pytest.mark.parametrize("kind", SIX)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_orientation_counts_whatever_its_type(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"x.{suffix}"
    for gps in (None, GPS):
        Image.fromarray(SMOOTH).save(
            path, exif=exif([SIX[kind]], gps), **({"lossless": True} if suffix == "webp" else {})
        )
        with Image.open(path) as plain:
            stored = np.asarray(plain)
        assert np.array_equal(decode(path, 3, None, about=About()), np.rot90(stored, -1))
        assert header(path)[:2] == (24, 16)


@pytest.mark.parametrize("value", ["6", 6])
def test_the_orientation_of_a_tiff_counts_once(tmp_path: Path, value: str | int) -> None:
    fields = TiffImagePlugin.ImageFileDirectory_v2()
    fields.tagtype[0x0112] = 2 if value == "6" else 3
    fields[0x0112] = value
    Image.fromarray(COLOUR).save(tmp_path / "x.tif", tiffinfo=fields)
    assert np.array_equal(decode(tmp_path / "x.tif", 3, None), np.rot90(COLOUR, -1))
    assert header(tmp_path / "x.tif")[:2] == (9, 6)


@pytest.mark.parametrize(
    "block", [exif([(0x0112, 2, 4, b"top\0")]), exif([(0x0112, 3, 1, b"\x09\0")]), b"Exif\0\0nonsense"]
)
def test_an_exif_block_that_says_nothing_turns_nothing(tmp_path: Path, block: bytes) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.png", exif=block)
    about = About()
    assert np.array_equal(decode(tmp_path / "x.png", 3, None, about=about), COLOUR)
    assert header(tmp_path / "x.png") == (6, 9, False)
    assert all(remark.startswith("not turned, as the EXIF block cannot be read: ") for remark in about.remarks)
    assert len(about.remarks) == (0 if b"\x09" in block else 1)


# ---- ranges


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_are_said_and_can_be_read(tmp_path: Path, suffix: str, bits: int) -> None:
    files = []
    for i in range(3):
        values = RANDOM.integers(0, 1 << bits, (16, 16)).astype(np.uint16)
        values[0, 0] = (1 << bits) - 1
        files.append(tmp_path / f"{i}.{suffix}")
        Image.fromarray(values).save(files[-1])
    (note,) = read_pictures(files, base=tmp_path).notes
    assert f"3 of 3 pictures of 16 bits have values of at most {(1 << bits) - 1} of 65535" in note
    assert f"only {1 << bits - 8} of 256 grey values are left" in note and f"--data.bits {bits} " in note
    read = read_pictures(files, how=Decoding(bits=bits))
    assert read.notes == () and np.array_equal(read.images[2, ..., 0], values >> bits - 8)
    with pytest.raises(ValueError, match=rf"a grey value of {(1 << bits) - 1} needs more than {bits - 1} bits"):
        read_pictures(files, how=Decoding(bits=bits - 1))


def test_a_dark_picture_among_others_is_named(tmp_path: Path) -> None:
    for name, high in (("bright", 65535), ("dark", 3000)):
        Image.fromarray(np.linspace(0, high, 256).reshape(16, 16).astype(np.uint16)).save(tmp_path / f"{name}.png")
    (note,) = read_pictures([tmp_path / "bright.png", tmp_path / "dark.png"], base=tmp_path).notes
    assert note.startswith("1 of 2 pictures of 16 bits have values of at most 3000 of 65535") and "dark.png" in note


def test_colours_of_sixteen_bits(tmp_path: Path) -> None:
    """Pillow keeps their high bytes and tells nobody."""

    def png(values: Any) -> Path:
        import zlib

        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        data = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
        return tmp_path / "x.png"

    values = RANDOM.integers(0, 65536, (8, 8, 3))
    read = read_pictures([png(values)])
    assert np.array_equal(read.images[0], values >> 8) and read.notes == ()
    (note,) = read_pictures([png(values >> 4)]).notes
    assert "1 of 1 pictures of 16 bits have values of at most 4095 of 65535" in note
    with pytest.raises(ValueError, match="of colours with 16 bits only the high bytes are read"):
        read_pictures([png(values >> 4)], how=Decoding(bits=12))


def test_a_tiff_says_its_bits_and_which_end_is_white(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 1 << 16, (8, 8)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as plain:
        white_is_zero = plain.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert white_is_zero
    assert np.array_equal(decode(tmp_path / "x.tif", 1, None)[..., 0], (65535 - values.astype(int)) >> 8)


def test_a_tiff_of_twelve_bits_is_spread_over_its_own_range(tmp_path: Path) -> None:
    """Written by hand, two values in three bytes (TIFF 6.0, section 8): Pillow has no writer for it."""
    values = RANDOM.integers(0, 4096, (4, 4))
    pairs = values.reshape(-1, 2)
    data = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1).astype(
        np.uint8
    )
    fields = {256: 4, 257: 4, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 4, 279: data.size}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    (tmp_path / "x.tif").write_bytes(b"II*\0\x08\0\0\0\x09\0" + directory + bytes(4) + data.tobytes())
    assert np.array_equal(decode(tmp_path / "x.tif", 1, None)[..., 0], values >> 4)
    assert np.array_equal(decode(tmp_path / "x.tif", 1, None, Decoding(bits=12))[..., 0], values >> 4)


@pytest.mark.parametrize("kind", ["int32", "float32", "signed 16 bits"])
def test_pixels_without_a_range_are_refused(tmp_path: Path, kind: str) -> None:
    signed = kind == "signed 16 bits"
    image = Image.fromarray(np.arange(64).reshape(8, 8).astype(np.uint16 if signed else kind))
    image.save(tmp_path / "x.tif", tiffinfo={339: 2} if signed else {})  # SampleFormat
    with pytest.raises(Unreadable, match="have no defined range; save them with 8 or 16 bits"):
        decode(tmp_path / "x.tif", 1, None)


def test_a_ppm_says_its_range(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 4095\n" + struct.pack(">2H", 4095, 2048))
    assert decode(tmp_path / "x.pgm", 1, None)[..., 0].tolist() == [[255, 128]]
    assert decode(tmp_path / "x.pgm", 1, None, Decoding(bits=12))[..., 0].tolist() == [[255, 128]]


def notes_of(tmp_path: Path, **pictures: Image.Image) -> tuple[str, ...]:
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    return read_pictures([tmp_path / f"{name}.png" for name in pictures], base=tmp_path).notes


def test_what_alpha_hides_is_said(tmp_path: Path) -> None:
    alpha = Image.fromarray(np.arange(0, 250, 250 / 256).reshape(16, 16).astype(np.uint8))
    shape, photo = Image.new("RGB", (16, 16), (9, 9, 9)), Image.fromarray(SMOOTH[:, :16])
    opaque = photo.convert("RGBA")
    grey = Image.merge("LA", (Image.new("L", (16, 16), 7), alpha))
    shape.putalpha(alpha)
    photo.putalpha(alpha)
    assert notes_of(tmp_path, shape=shape, photo=photo, opaque=opaque, grey=grey) == (
        "2 of 4 pictures: one colour all over, as the shape is in the alpha channel, which is left out; put them on a "
        "background (shape.png, grey.png)",
        "1 of 4 pictures: transparent parts show the colours under them, as the alpha channel is left out (photo.png)",
    )


def test_constant_pictures_are_said(tmp_path: Path) -> None:
    some, black = Image.fromarray(SMOOTH[:, :16]), Image.new("RGB", (16, 16))
    deep = Image.fromarray(np.full((16, 16), 40000, np.uint16))
    assert notes_of(tmp_path, some=some, black=black, deep=deep) == (
        "2 of 3 pictures: all pixels have one value (black.png, deep.png)",
    )


def test_only_the_first_page_is_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(SMOOTH[:, :16, i]) for i in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    read = read_pictures([tmp_path / "x.tif"], base=tmp_path)
    assert np.array_equal(read.images[0, ..., 0], SMOOTH[:, :16, 0])
    assert read.notes == ("1 of 1 pictures: only the first of 3 pages is read (x.tif)",)


# ---- files that are no pictures, or not read


WHAT = {
    "x.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer.*git lfs pull"),
    "a.jpg": (b"\n<!DOCTYPE HTML>\n<html><body>404</body></html>", "an HTML page, as a failed download leaves it"),
    "b.png": (b"<html lang='en'>", "an HTML page"),
    "c.png": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text, as a failed download"),
    "d.svg": (b"<?xml version='1.0'?>\n<!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG, a drawing.*export"),
    "e.HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC, which needs a decoder; `pip install pillow"),
    "f.jpg": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    "g.jxl": (b"\xff\x0a" + bytes(99), "JPEG XL, which needs a decoder"),
    "h.NEF": (b"MM\0*" + bytes(99), "a camera's raw file, which is not read"),
    "i.psd": (b"8BPS\0\1" + bytes(99), "a Photoshop file, .* export it as PNG"),
    "j.pdf": (b"%PDF-1.7\n", "PDF, a document; export its pages"),
    "k.jpg": (b"\0\0\0\x20ftypisom" + bytes(99), "a video; write its frames"),
    "l.jpg": (b"PK\3\4" + bytes(99), "a ZIP archive; unpack it"),
    "m.dcm": (bytes(128) + b"DICM" + bytes(99), "DICOM, which is not read"),
    "n.tga": (b"\0\0\2" + bytes(99) + b"x", "of a format that is not read; convert it to PNG"),
    "o.jpg": (bytes(600), "nothing but zeros"),
    "p.jpg": (b"\xff\xd8\xff", "it begins as a JPEG file, but is cut off, damaged"),
    "q.tif": (b"II*\0" + bytes(30), "it begins as a TIFF file, but is cut off, damaged or of a kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHAT)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    content, sentence = WHAT[name]
    (tmp_path / name).write_bytes(content)
    for file in (tmp_path / name, Blob(name, content)):
        with pytest.raises(Unreadable, match=sentence):
            decode(file, 3, None)
        with pytest.raises(Unreadable, match=sentence):
            header(file)
    assert find_images(tmp_path) == [tmp_path / name]  # so that it is counted and listed, and not passed over


def test_raw_files_are_not_read_by_their_preview(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.dng", "TIFF")
    with pytest.raises(Unreadable, match="a camera's raw file, which is not read"):
        decode(tmp_path / "x.dng", 3, None)


@pytest.mark.parametrize("suffix", ["avif", "jp2"])
def test_what_pillow_can_read_is_read(tmp_path: Path, suffix: str) -> None:
    if {"avif": "AVIF", "jp2": "JPEG2000"}[suffix] not in kinds.formats():
        pytest.skip("this Pillow is built without it")
    Image.fromarray(SMOOTH).save(tmp_path / f"x.{suffix}", quality=100) if suffix == "avif" else Image.fromarray(
        SMOOTH
    ).save(tmp_path / "x.jp2")
    (tmp_path / f"x.{suffix}").rename(tmp_path / "unnamed")
    (found,) = find_images(tmp_path)
    assert np.abs(decode(found, 3, None).astype(int) - SMOOTH).mean() < 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "endless.png")
    os.symlink(tmp_path / "pipe.png", tmp_path / "link.png")
    os.symlink(tmp_path / "round.png", tmp_path / "round.png")
    for name in ("pipe.png", "endless.png", "link.png", "."):
        with pytest.raises(Unreadable, match="not a regular file"):
            decode(tmp_path / name, 3, None)
    with pytest.raises(Unreadable, match="Too many levels of symbolic links"):
        decode(tmp_path / "round.png", 3, None)


@pytest.mark.slow
def test_a_picture_that_memory_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (8192, 8192)).save(tmp_path / "x.png")
    monkeypatch.setattr("fewlabels.data.pictures.host_memory", lambda: 256 << 20)
    with pytest.raises(Unreadable, match=r"8192 x 8192 pixels need 512 MiB of memory, and 256 MiB are free"):
        decode(tmp_path / "x.png", 1, 8)


# ---- what Pillow warns of


def damaged_exif(path: Path) -> Path:
    """A JPEG file whose EXIF block is shorter than it says: Pillow warns, and reads the picture."""
    Image.fromarray(SMOOTH).save(path, exif=exif([SIX["short"], (0x0100, 3, 1, b"\1\0")])[:-14])
    return path


def test_pillow_s_warnings_name_the_picture_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = damaged_exif(tmp_path / "one.jpg"), damaged_exif(tmp_path / "two.jpg")
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("default")
        read = read_pictures([one, two], base=tmp_path)
        assert len(read.images) == 2
        (note,) = (note for note in read.notes if "EXIF" in note)
        assert note.startswith("2 of 2 pictures: Corrupt EXIF data") and note.endswith("(one.jpg, two.jpg)")
        assert capsys.readouterr().err == "" and raw == []
        for _ in range(2):  # without anybody who listens
            decode(one, 3, None)
        assert capsys.readouterr().err.startswith(f"fewlabels: {one}: Corrupt EXIF data")
        assert raw == []
    with warnings.catch_warnings():
        warnings.simplefilter("error", PictureWarning)
        with pytest.raises(Unreadable, match="Corrupt EXIF data"):
            decode(two, 3, None)


@pytest.mark.parametrize("action", ["error", "default", "ignore"])
def test_a_filter_that_is_set_after_the_first_picture_changes_nothing(tmp_path: Path, action: Any) -> None:
    one = damaged_exif(tmp_path / "one.jpg")
    with warnings.catch_warnings():
        for _ in range(2):
            (note,) = (note for note in read_pictures([one], base=tmp_path).notes if "EXIF" in note)
            assert note.startswith("1 of 1 pictures: Corrupt EXIF data")
            warnings.simplefilter(action)


def test_a_closed_standard_error_sends_nothing_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = damaged_exif(tmp_path / "one.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr("sys.stderr", None)
        decode(one, 3, None)
    assert capsys.readouterr().out == ""


def test_other_warnings_are_left_alone() -> None:
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)
