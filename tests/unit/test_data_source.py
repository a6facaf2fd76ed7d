"""Sources: the checks at the boundary, arrays, digits, pixel statistics."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image

from fewlabels.data.arrays import as_images, check_archive, from_arrays, in_channels
from fewlabels.data.names import parse
from fewlabels.data.source import FACTS, channel_statistics
from fewlabels.data.sources import load
from fewlabels.datatools.convert import read_npz

IMAGES = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)
LABELS = np.array([0, 1, -1, 1, 0, -1])


def test_arrays_are_kept_as_they_are() -> None:
    source = from_arrays(IMAGES, LABELS, IMAGES[:2], [1, 0], classes=["cat", "dog"])
    assert source.images is IMAGES and source.classes == ("cat", "dog")
    assert from_arrays(IMAGES, LABELS, classes=[3, 7]).classes == ("3", "7")  # type: ignore[list-item]
    assert source.shape == (3, 4, 5)
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [0, 1, -1, 1, 0, -1]
    assert source.test_labels.tolist() == [1, 0]
    assert source.classes == ("cat", "dog")
    assert source.histogram().tolist() == [2, 2]
    assert source.notes == ()
    assert source.style.shift == 0 and source.style.strong == "rand:kekmodel"


def test_other_forms_of_the_same_images() -> None:
    for same in (torch.from_numpy(IMAGES), IMAGES.astype(np.int32), IMAGES.tolist()):
        assert np.array_equal(from_arrays(same, LABELS.tolist()).images, IMAGES)
    grey = from_arrays(IMAGES[..., 0], torch.from_numpy(LABELS))
    assert grey.shape == (1, 4, 5) and np.array_equal(grey.images[..., 0], IMAGES[..., 0])
    assert from_arrays(np.zeros((6, 8, 9, 6), np.uint8), LABELS).shape == (6, 8, 9)


def test_floats_are_rounded_to_bytes() -> None:
    source = from_arrays(IMAGES / np.float32(255), LABELS)
    assert np.array_equal(source.images, IMAGES)
    assert source.notes == ("the images were floats; they were rounded to 8 bits",)


def test_default_classes_are_numbers_up_to_the_largest_label() -> None:
    source = from_arrays(IMAGES, [0, 2, -1, 2, 0, -1], IMAGES[:1], [3])
    assert source.classes == ("0", "1", "2", "3")
    assert source.notes == ("arrays has no labeled image of 1, 3; without one such a class cannot be learned",)


NAN = np.full((6, 4, 5, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"images": NAN}, "images contain NaN or infinite"),
        ({"images": IMAGES.astype(np.float32)}, r"float32 must lie in 0..1, got 0.0 to 255.0"),
        ({"images": IMAGES.astype(np.int64) - 1}, r"int64 must lie in 0..255, got -1"),
        ({"images": IMAGES > 3}, "got bool"),
        ({"images": IMAGES[0, 0]}, r"\[N, H, W, C\] or \[N, H, W\], got the shape \[5, 3\]"),
        ({"images": np.zeros((6, 3, 32, 32), np.uint8)}, r"look like \[N, C, H, W\]"),
        ({"images": np.zeros((6, 4, 16, 16), np.uint8)}, r"look like \[N, C, H, W\]"),
        ({"images": np.zeros((6, 8, 16, 24), np.uint8)}, r"look like \[N, C, H, W\]"),
        ({"images": torch.zeros((6, 3, 4, 4))}, r"look like \[N, C, H, W\]"),
        ({"images": np.zeros((6, 1, 28, 28), bool)}, r"look like \[N, C, H, W\]"),
        ({"images": np.zeros((32, 30, 3), np.uint8)}, r"look like one picture \[H, W, C\]"),
        ({"images": IMAGES.astype(np.int8)}, "got int8; int8 ends at 127"),
        (
            {"images": IMAGES.astype(np.uint16) * 16},
            r"got 0 to 4080; or give uint8 \(x / 4095 brings 0..4095 to 0..1\)",
        ),
        ({"images": IMAGES / 127.5 - 1}, r"\(\(x \+ 1\) / 2 brings -1..1 there\)"),
        ({"images": IMAGES * 1.0}, r"got 0.0 to 255.0; or give uint8 \(x / 255 brings 0..255 to 0..1\)"),
        ({"images": IMAGES * 1j}, "got complex128"),
        ({"images": np.ma.masked_equal(IMAGES, 7)}, "images are masked in places"),
        ({"images": [Image.new("L", (8, 8)), IMAGES[0]]}, "images must be all of Pillow's images, or none"),
        ({"labels": [0, 1, np.nan, 1, 0, 1]}, "got float64 .*; where NaN means unlabeled"),
        ({"labels": [0, 1, 2.5, None, 0, 1]}, r"None or -1 for unlabeled, got 2.5 among them"),
        ({"labels": [0, 1, "cat", None, 0, 1]}, r"got 'cat' among them"),
        ({"labels": [True, False, None, True, True, True]}, r"got True among them"),
        ({"labels": LABELS > 0}, r"got bool \[6\]; astype\(int\) if True and False are the classes"),
        ({"labels": np.array(["0", "1"] * 3)}, r"got <U1 \[6\]; names become numbers by np.unique"),
        ({"labels": LABELS.astype(np.uint8)}, "labels hold 255, which is what -1 becomes in uint8"),
        (
            {"labels": np.array([0, 1, 2**63, 0, 1, 0], np.uint64)},
            r"labels must be below 2\*\*63, got 9223372036854775808",
        ),
        ({"labels": [0, 1, 2**70, 0, 1, 0]}, r"labels must be below 2\*\*63, got 1180591620717411303424"),
        ({"images": IMAGES / 250}, r"must lie in 0..1, got 0.0 to 1.02; or give uint8$"),
        ({"labels": np.eye(6, dtype=int)}, r"got int64 \[6, 6\]; one column for each class becomes numbers by argmax"),
        ({"labels": LABELS[:, None]}, r"ravel\(\) takes the column"),
        ({"labels": [0, 1, 0, 1, 0, 10**9]}, "a label is 1000000000, of 6 images"),
        ({"test_images": IMAGES, "test_labels": np.ma.masked_equal(LABELS * 0, 0)}, r"must lie in 0 .. 1, got -1"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "arrays has no training images"),
        ({"images": IMAGES[:, :0]}, "have no pixels"),
        ({"images": ["a.png", 3]}, "images must be"),
        ({"images": [IMAGES[0], IMAGES[0, :2]]}, "images cannot be made one array"),
        ({"images": {}}, "images must be an array of numbers, got dict"),
        ({"labels": LABELS[:5]}, r"must be int64 \[6\], one per image, got int64 \[5\]"),
        (
            {"labels": LABELS.astype(float)},
            r"labels must be integers \[N\], -1 for unlabeled, got float64 \[6\]; where NaN",
        ),
        ({"labels": ["a", "b"] * 3}, r"labels must be integers \[N\]"),
        ({"labels": LABELS - 1}, r"must lie in 0 .. 0 \(or -1|at least 2"),
        ({"labels": LABELS * 2 - 1, "classes": "ab"}, r"must lie in 0 .. 1 \(or -1 where unknown\), got -3"),
        ({"labels": [-1] * 6, "classes": "ab"}, "has no labeled image; every label is -1"),
        ({"labels": [0] * 6}, "has 1 class; at least 2"),
        ({"classes": ["a", "a"]}, "class name 'a' twice"),
        ({"test_images": IMAGES}, "test_images and test_labels belong together"),
        ({"test_images": IMAGES[:, :3], "test_labels": LABELS * 0}, "equal in height, width and channels"),
        ({"test_images": IMAGES, "test_labels": LABELS}, r"test labels of arrays must lie in 0 .. 1, got -1"),
        ({"image_size": 8}, "image_size is for picture files"),
        ({"images": "x.png"}, r"images must be a list or an array, got one str; a list of one is \[x\]"),
        ({"images": Path("x.png")}, "images must be a list or an array, got one PosixPath"),
        ({"images": Image.new("L", (8, 8))}, "images must be a list or an array, got one Image"),
        ({"images": np.array(["x.png", "y.png"])}, "images that are files must be a list of their names"),
        ({"images": np.array([Path("x.png"), "y.png"], object)}, "images that are files must be a list of their names"),
    ],
)
def test_what_does_not_fit_is_said(given_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_arrays(**({"images": IMAGES, "labels": LABELS} | given_))


class NAType:
    """As pandas has it: neither equal nor unequal to anything, and no truth value."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class Nullable:
    """As pandas has whole numbers, and categories of such, of which some are missing: NumPy gets floats."""

    class dtype:
        na_value = NAType()

    def __init__(self, values: list[int | None]) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if dtype is object:
            return np.array([NAType() if v is None else v for v in self.values], object)
        return np.array([np.nan if v is None else v for v in self.values], dtype or float)


@pytest.mark.parametrize(
    "labels",
    [
        np.ma.masked_array([0, 1, 1, 1, 0, 0], mask=[0, 0, 1, 0, 0, 1]),
        [0, 1, None, 1, 0, None],
        np.array([0, 1, float("nan"), 1, 0, NAType()], object),
        torch.tensor([0, 1, -1, 1, 0, -1], dtype=torch.int8),
        Nullable([0, 1, None, 1, 0, None]),
    ],
)
def test_unknown_labels_in_other_forms(labels: Any) -> None:
    assert from_arrays(IMAGES, labels).labels.tolist() == [0, 1, -1, 1, 0, -1]


def test_tensors_of_half_precision_and_lists_of_them() -> None:
    some = torch.linspace(0, 1, 6 * 8 * 8).reshape(6, 8, 8, 1)
    nearest = np.rint(some.numpy() * 255).astype(int)
    for same, allowed in ((some.bfloat16(), 1), (list(some), 0), ([one.half() for one in some], 1)):
        assert np.abs(as_images(same).astype(int) - nearest).max() <= allowed


def test_images_that_hardly_differ_are_said() -> None:
    assert from_arrays(IMAGES // 16, LABELS).notes == (
        "the images hardly differ: their values lie in 0..15 of 0..255; spread them over 0..255",
    )
    assert from_arrays(IMAGES // 8, LABELS).notes == ()
    assert from_arrays(IMAGES, LABELS, IMAGES[:2] / np.float32(255) / 16, [0, 1]).notes == (
        "the test images hardly differ: their values lie in 0..7 of 0..255; spread them over 0..255",
    )


def test_pillows_images(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    colours = [Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(3)]
    palettes = [one.quantize(64) for one in colours]
    source = from_arrays(palettes, [0, 1, -1])
    assert np.array_equal(source.images, np.stack([np.asarray(one.convert("RGB")) for one in palettes]))
    grey = from_arrays([one.convert("L") for one in colours[:2]], [0, 1], [colours[2].convert("LA")], [1])
    assert grey.shape == (1, 8, 8) and np.array_equal(grey.test_images[0, ..., 0], np.asarray(colours[2].convert("L")))
    exif = Image.Exif()
    exif[0x0112] = 6
    colours[0].save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as turned:
        other = from_arrays([turned, colours[1].resize((16, 8))], [0, 1])
    assert other.shape == (3, 8, 8) and np.array_equal(other.images[0], np.rot90(np.asarray(colours[0]), -1))
    with pytest.raises(ValueError, match="picture 1 cannot be read: floating-point pixels have no defined range"):
        from_arrays([colours[0], Image.new("F", (8, 8))], [0, 1])


def npz(path: Any, **members: bytes) -> Any:
    """An .npz file of these bytes, deflated as NumPy's are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def test_what_an_archive_claims_is_looked_at_first(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def header(shape: tuple[int, ...]) -> bytes:
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()

    check_archive(npz(tmp_path / "fine.npz", images=header((4, 2)) + bytes(8)))
    with pytest.raises(ValueError, match=r"^images\.npy claims 1024\.0 GiB and holds \d+ B$"):
        check_archive(npz(tmp_path / "short.npz", images=header((1 << 20, 1 << 20)) + bytes(8)))
    large = npz(tmp_path / "large.npz", images=header((1 << 22,)) + bytes(1 << 22))
    assert large.stat().st_size < 1 << 14
    monkeypatch.setattr("fewlabels.data.arrays.host_memory", lambda: 1 << 22)
    with pytest.raises(ValueError, match=r"^its arrays take 4 MiB, more than half of the 4 MiB of free memory$"):
        check_archive(large)
    with pytest.raises(
        ValueError, match=r"large\.npz cannot be read as an \.npz file of plain arrays: its arrays take"
    ):
        read_npz(large)


def test_channels_between_grey_and_colours() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 8, 9, 3), np.uint8)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    grey = in_channels(colours, 1)
    assert grey.shape == (4, 8, 9, 1) and np.abs(grey[..., 0] - luma).max() < 0.51  # type: ignore[index]
    assert (in_channels(grey, 3) == grey).all() and in_channels(grey, 3).shape == (4, 8, 9, 3)
    assert in_channels(colours, 3) is colours and in_channels(colours, 4) is colours


def test_picture_files_as_images(tmp_path: Any) -> None:
    files = []
    for i in range(4):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(files[-1])
    source = from_arrays(files[:3], [0, 1, -1], files[3:], [1])
    assert source.shape == (3, 8, 8)
    assert source.images[:, 0, 0, 0].tolist() == [0, 40, 80] and source.test_images[0, 7, 7, 2] == 120
    assert from_arrays(files[:3], [0, 1, -1], image_size=4).shape == (3, 4, 4)


def test_digits_are_scikit_learns_with_its_train_test_split() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source, facts = load(parse("digits")), FACTS["digits"]
    data = load_digits()
    train, test = train_test_split(np.arange(1797), test_size=360, random_state=0)
    assert len(source.images) == facts.train == 1437 and len(source.test_images) == facts.test == 360
    assert source.shape == facts.shape and len(source.classes) == facts.classes
    assert np.array_equal(source.labels, data.target[np.sort(train)])
    assert np.array_equal(source.test_labels, data.target[np.sort(test)])
    expected = np.floor(data.images[np.sort(test)] * 255 / 16 + 0.5)
    assert np.array_equal(source.test_images[..., 0], expected)
    assert source.images.max() == 255


def test_named_sources_can_be_resized() -> None:
    source = load(parse("digits"), image_size=16)
    assert source.shape == (1, 16, 16) and source.test_images.shape == (360, 16, 16, 1)
    small = Image.fromarray(load(parse("digits")).images[5, :, :, 0])
    assert np.array_equal(source.images[5, :, :, 0], np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR)))


@pytest.mark.slow
@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_channel_statistics_are_numpys(images: Any) -> None:
    mean, std = channel_statistics(images)
    flat = images.reshape(-1, images.shape[-1]) / 255
    np.testing.assert_allclose(mean, flat.mean(0), atol=1e-12)
    spread = flat.std(0)
    np.testing.assert_allclose(std, np.where(np.ptp(flat, axis=0) == 0, 1, spread), atol=1e-9)


def test_as_images_names_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="the query must be"):
        as_images(IMAGES[0, 0], "the query")
