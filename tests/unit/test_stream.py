"""Pictures decoded when a step needs them: by which decoder, and what becomes of those that break meanwhile."""

from __future__ import annotations

import io
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fewlabels as fl
from fewlabels.config.recipes import changed, recipe
from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data
from fewlabels.data import crops, jpeg, shrink
from fewlabels.data.blobs import Blob
from fewlabels.data.gather import Gather
from fewlabels.data.pictures import PLAIN, Decoding, Unreadable, decode
from fewlabels.data.stream import Files
from fewlabels.training import loop
from imagenet_tree import make_tree

# ---- torchcodec's decoder


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + random.integers(-9, 10, pixels.shape)).clip(0, 255).astype(np.uint8))


def jpeg_file(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


KINDS: list[dict[str, Any]] = [
    {"quality": 90},
    {"quality": 30},
    {"quality": 95, "subsampling": 0},
    {"quality": 80, "subsampling": 1},
    {"quality": 75, "progressive": True},
    {"quality": 60, "restart_marker_blocks": 3},
    {"quality": 85, "icc_profile": b"profile" * 9},
]
needs_torchcodec = pytest.mark.skipif(
    jpeg.decoder() is None, reason="torchcodec is not installed (pip install 'fewlabels[fast]'), or has other bits"
)


@needs_torchcodec
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("fit", ["crop", "inner", "centre", "pad"])
def test_both_decoders_give_the_same_bits(kind: dict[str, Any], mode: str, fit: Any, monkeypatch: Any) -> None:
    opened: list[object] = []
    plain = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: opened.append(args) or plain(*args, **kwargs))
    for seed, (width, height) in enumerate([(61, 40), (16, 16), (33, 87), (128, 96)]):
        file = Blob("a.jpg", jpeg_file(smooth(width, height, seed).convert(mode), **kind))
        numbers = crops.draw(np.random.default_rng(seed), 1, flip=True)[0]
        for channels in (3, 1) if mode == "L" else (3,):
            for size, crop in ((None, None), (24, None), ((20, 30), numbers)):
                expected = decode(file, channels, size, Decoding(fit), crop=crop)
                opened.clear()
                found = decode(file, channels, size, Decoding(fit), crop=crop, fast=True)
                assert np.array_equal(found, expected) and found.dtype == np.uint8 and not opened


@needs_torchcodec
def test_whatever_is_wrong_or_unusual_is_left_to_pillow() -> None:
    whole = jpeg_file(smooth(60, 50), quality=90)
    random, read, broken = np.random.default_rng(0), 0, 0
    for i in range(300):
        data = bytearray(whole)
        if i % 3 == 0:
            data[int(random.integers(200, len(data)))] = int(random.integers(256))
        elif i % 3 == 1:
            del data[int(random.integers(1, len(data))) :]
        else:
            data[int(random.integers(300, len(data))) :] = b""
            data += bytes(50)
        outcomes = []
        for fast in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    outcomes.append(decode(Blob("a.jpg", bytes(data)), 3, 16, fast=fast).tobytes())
                except Unreadable as error:
                    outcomes.append(str(error).encode())
        assert outcomes[0] == outcomes[1]
        read += outcomes[0].startswith(b"a.jpg cannot") is False
        broken += outcomes[0].startswith(b"a.jpg cannot")
    assert read > 50 and broken > 50


def test_the_header_says_which_files_leave_nothing_to_interpret() -> None:
    picture = smooth(40, 30)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    assert jpeg.frame(jpeg_file(picture)) == (30, 40, False)
    assert jpeg.frame(jpeg_file(picture.convert("L"), progressive=True)) == (30, 40, True)
    assert jpeg.frame(jpeg_file(picture, exif=exif, comment=b"c" * 9)) == (30, 40, False)
    exif[0x0112] = 6
    adobe = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\0\x64\0\0\0\0\0"
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"
    plain = jpeg_file(picture)
    with_xmp = plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp + plain[2:]
    for other in (
        jpeg_file(picture, exif=exif),
        jpeg_file(picture.convert("CMYK")),
        plain[:2] + adobe + plain[2:],
        with_xmp,
        plain[:50],
        b"",
        b"\x89PNG",
    ):
        assert jpeg.frame(other) is None
    for turned in (jpeg_file(picture, exif=exif), with_xmp):
        file = Blob("a.jpg", turned)
        assert np.array_equal(decode(file, 3, None, fast=True), decode(file, 3, None))


def test_a_decoder_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Off:
        @staticmethod
        def decode_jpeg(data: Any, mode: str) -> Any:
            with Image.open(io.BytesIO(data.numpy().tobytes())) as picture:
                pixels = np.asarray(picture.convert("L" if mode == "GRAY" else "RGB")).copy()
            return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1) + self_off).permute(2, 0, 1)

    try:
        for self_off in (0, 1):
            monkeypatch.setitem(sys.modules, "torchcodec", Off())
            monkeypatch.setitem(sys.modules, "torchcodec.decoders", Off())
            jpeg.decoder.cache_clear()
            assert (jpeg.decoder() is None) == (self_off == 1)
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # as if it were not installed
        jpeg.decoder.cache_clear()
        assert jpeg.decoder() is None
        data = jpeg_file(smooth(40, 30))
        assert np.array_equal(decode(Blob("a", data), 3, 16, fast=True), decode(Blob("a", data), 3, 16, PLAIN))
    finally:
        monkeypatch.undo()
        jpeg.decoder.cache_clear()


# ---- crops that are resized on the device


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
    at_once=st.sampled_from([1, 4000, 1 << 24]),
)
def test_the_device_s_way_to_resize_has_pillow_s_bits(
    shapes: list[tuple[int, int]], size: tuple[int, int], channels: int, seed: int, at_once: int
) -> None:
    random = np.random.default_rng(seed)
    pictures = [random.choice([0, 1, 128, 254, 255], (h, w, channels)).astype(np.uint8) for h, w in shapes]
    mirror = random.random(len(shapes)) < 0.5
    flat = torch.from_numpy(np.concatenate([picture.reshape(-1) for picture in pictures]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shrink, "AT_ONCE", at_once)
        found = shrink.resized(flat, shapes, size, channels, mirror).numpy()
    for picture, turned, got in zip(pictures, mirror, found, strict=True):
        image = Image.fromarray(picture[..., 0] if channels == 1 else picture)
        for now in ((size[1], image.height), size[::-1]):  # one pass each
            image = image.resize(now, Image.Resampling.BICUBIC)
        expected = np.asarray(image).reshape(*size, channels)
        assert np.array_equal(got, expected[:, ::-1] if turned else expected)


@pytest.mark.parametrize("limit", [crops.LARGEST_PART, 900])
def test_crops_are_the_same_wherever_they_are_resized(tmp_path: Path, monkeypatch: Any, limit: int) -> None:
    root = make_tree(tmp_path)
    files = sorted((root / "imagenet/train").rglob("*.JPEG"))
    Image.open(files[4]).rotate(90, expand=True).save(files[4], exif=_turned())  # one that Pillow must decode
    monkeypatch.setattr(crops, "LARGEST_PART", limit)
    numbers = crops.draw(np.random.default_rng(0), 12, flip=True)
    rows = torch.arange(12)
    host, device = (Gather(Files(files, 3, (20, 24)), shrinks=shrinks) for shrinks in (False, True))
    device.expect([(rows.numpy(), numbers)])
    assert torch.equal(host.take(rows, numbers), device.take(rows, numbers))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


# ---- pictures that break while a training goes on


def test_a_picture_of_the_same_class_stands_in_for_one_that_breaks(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    files = sorted((root / "imagenet/train").rglob("*.JPEG"))
    labels = np.repeat(np.arange(6), 6)
    plain, lenient = Files(files, 3, (16, 16)), Files(files, 3, (16, 16)).lenient(labels)
    numbers = crops.draw(np.random.default_rng(0), 3, flip=True)
    rows = np.array([6, 11, 20])
    before = np.empty((3, 16, 16, 3), np.uint8)
    plain.read(rows, before, numbers)
    files[11].write_bytes(b"\xff\xd8\xff broken")
    after = np.empty_like(before)
    with pytest.raises(Unreadable, match=r"n00000001_5.JPEG cannot be read as a picture: .*--data.skip-corrupt"):
        plain.read(rows, after, numbers)
    lenient.read(rows, after, numbers)
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert np.array_equal(after[1], decode(files[6], 3, (16, 16), crop=numbers[1]))  # the next of its six, in a circle
    (said,) = lenient.news()
    assert said.startswith(f"{files[11]} cannot be read any more and is left out") and not lenient.news()
    lenient.read(rows, after, numbers)
    assert not lenient.news()  # once is enough
    lenient.reserve(np.array([6, 7]))
    lenient.read(rows, after, numbers)
    assert np.array_equal(after[1], decode(files[8], 3, (16, 16), crop=numbers[1]))  # 6 and 7 are for validation
    for file in files[6:12]:
        file.unlink()
    with pytest.raises(Unreadable, match="no other picture of its class can be read"):
        lenient.read(rows, after, numbers)


@pytest.mark.slow
@pytest.mark.parametrize("skip", [False, True])
def test_a_training_names_a_picture_that_breaks_and_stops_or_goes_on(tmp_path: Path, skip: bool) -> None:
    root = make_tree(tmp_path / "tree")
    small = {"data.image_size": 16, "net.name": "small-4", "steps": 12, "batch": 6, "log_every": 3, "optim.warmup": 1}
    config = changed(recipe("google-imagenet-fixmatch", "imagenet"), {**small, "data.root": str(root)})
    config = changed(config, {"data.skip_corrupt": skip})
    source = load_source(config.data)
    victim = root / "imagenet/train/n00000003/n00000003_2.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    said: list[str] = []
    if not skip:
        with pytest.raises(Unreadable, match=str(victim)):
            fl.train(config, out=tmp_path / "run", source=source)
        return
    run = loop.train(config, out=tmp_path / "run", source=source, output=loop.Output(say=said.append))
    assert run.finished and sum(str(victim) in text and "is left out" in text for text in said) == 1


def test_data_without_skip_corrupt_has_no_stand_ins(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    for skip in (False, True):
        source = load_source(Data("imagenet", root=str(root), image_size=8, residency="stream", skip_corrupt=skip))
        assert isinstance(source.images, Files) and (source.images._groups is not None) == skip
