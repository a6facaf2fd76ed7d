"""Decoding of real small files in every form, against the pixels they were made from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from fewlabels.data.blobs import Blob
from fewlabels.data.folder import Unreadable, decode, find_images
from fewlabels.data.pictures import PLAIN, About, Decoding, fit
from fewlabels.data.reading import read_pictures

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
SMOOTH = np.linspace(0, 255, 16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif", "ppm"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    image = Image.fromarray(COLOUR)
    if suffix == "gif":
        image = image.quantize(54)  # every pixel its own colour
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(decode(path, 3, None), np.asarray(image.convert("RGB")))
    if suffix != "gif":
        assert np.array_equal(decode(path, 3, None), COLOUR)


@pytest.mark.parametrize(("suffix", "allowed"), [("jpg", 6), ("webp", 6)])
def test_lossy_formats(tmp_path: Path, suffix: str, allowed: int) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(SMOOTH).save(path, quality=95)
    difference = np.abs(decode(path, 3, None).astype(int) - SMOOTH)
    assert difference.mean() < allowed
    with Image.open(path) as plain:
        assert np.array_equal(decode(path, 3, None), np.asarray(plain))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 511], [32767, 32768, 65279, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    got = decode(tmp_path / f"x.{suffix}", 1, None)
    assert got[..., 0].tolist() == [[0, 0, 1, 1], [127, 128, 254, 255]]
    assert decode(tmp_path / f"x.{suffix}", 3, None)[1, 1].tolist() == [128, 128, 128]


def test_grey_values_of_more_than_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[70000, 0]], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="32-bit or signed grey values have no defined range"):
        decode(tmp_path / "x.tif", 1, None)
    Image.fromarray(np.array([[0.5, 0]], np.float32)).save(tmp_path / "y.tif")
    with pytest.raises(ValueError, match="floating-point"):
        decode(tmp_path / "y.tif", 1, None)


def test_one_bit_and_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "bit.png")
    assert np.array_equal(decode(tmp_path / "bit.png", 1, None)[..., 0], np.where(GREY > 99, 255, 0))
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    assert np.array_equal(decode(tmp_path / "grey.png", 1, None)[..., 0], GREY)
    assert np.array_equal(decode(tmp_path / "grey.png", 3, None), np.stack([GREY] * 3, -1))


def test_one_channel_of_colours_is_luma(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(tmp_path / "x.png", 1, None)[..., 0] - luma).max() < 0.51


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_dropped_and_the_colours_stay(tmp_path: Path, suffix: str) -> None:
    alpha = np.full((6, 9, 1), 128, np.uint8)
    Image.fromarray(np.concatenate([COLOUR, alpha], -1)).save(
        tmp_path / f"x.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    assert np.array_equal(decode(tmp_path / f"x.{suffix}", 3, None), COLOUR)
    Image.fromarray(np.stack([GREY, GREY], -1)).save(tmp_path / "la.png")
    assert np.array_equal(decode(tmp_path / "la.png", 1, None)[..., 0], GREY)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
@pytest.mark.filterwarnings("error")
def test_palette_with_and_without_transparency(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 200, 10, 5, 6, 7])
    image.save(tmp_path / "x.png", **({} if transparency is None else {"transparency": transparency}))
    with Image.open(tmp_path / "x.png") as plain:
        assert plain.mode == "P"
    red, green, blue = [255, 0, 0], [0, 200, 10], [5, 6, 7]
    assert decode(tmp_path / "x.png", 3, None).tolist() == [[red, green, blue], [blue, green, red]]


def test_cmyk(tmp_path: Path) -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[..., 0] = 255  # all cyan: no red
    Image.fromarray(inks, "CMYK").save(tmp_path / "x.jpg", quality=100)
    assert np.abs(decode(tmp_path / "x.jpg", 3, None).astype(int) - [0, 255, 255]).max() <= 3
    Image.fromarray(inks, "CMYK").save(tmp_path / "x.tif")
    assert decode(tmp_path / "x.tif", 3, None)[0, 0].tolist() == [0, 255, 255]


def test_only_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    for suffix in ("gif", "tif", "webp", "png"):
        frames[0].save(
            tmp_path / f"x.{suffix}",
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if suffix == "webp" else {}),
        )
        assert (decode(tmp_path / f"x.{suffix}", 1, None) == 10).all()


# What a stored picture must go through to be upright (EXIF 2.3, tag 0x0112).
TURN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURN)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_rotation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SMOOTH).save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as plain:
        stored = np.asarray(plain) if suffix != "tif" else SMOOTH
    assert np.array_equal(decode(tmp_path / f"x.{suffix}", 3, None), TURN[orientation](stored))
    read = read_pictures([tmp_path / f"x.{suffix}"])
    assert np.array_equal(read.images[0], TURN[orientation](stored)) and read.notes == ()


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24))
def test_fit_is_torchvisions_resize_and_centre_crop(height: int, width: int, side: int) -> None:
    image = Image.fromarray(np.random.default_rng(height * 41 + width).integers(0, 256, (height, width), np.uint8))
    expected = CenterCrop(side)(Resize(side, InterpolationMode.BILINEAR)(image))
    assert np.array_equal(np.asarray(fit(image, side)), np.asarray(expected))


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24))
def test_fit_always_gives_the_size(height: int, width: int, h: int, w: int) -> None:
    assert fit(Image.new("L", (width, height)), (h, w)).size == (w, h)


def test_equal_shorter_side_is_cropped_without_resizing(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    assert np.array_equal(decode(tmp_path / "x.png", 3, 6), COLOUR[:, 2:8])


BROKEN = {
    "text": (b"no picture at all", "not a picture of a known format"),
    "empty": (b"", "an empty file; copy or download it again"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_picture(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN[kind]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(Unreadable, match=rf"x\.png cannot be read as a picture: {reason}") as caught:
        decode(tmp_path / "x.png", 3, None)
    assert caught.value.reason == reason and caught.value.path == tmp_path / "x.png"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF")
def test_truncated_files_are_unreadable(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{suffix}")
    whole = (tmp_path / f"x.{suffix}").read_bytes()
    for part in (5, 30, len(whole) // 2, len(whole) * 9 // 10):
        (tmp_path / f"cut.{suffix}").write_bytes(whole[:part])
        with pytest.raises(Unreadable):
            decode(tmp_path / f"cut.{suffix}", 3, 8)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(data=st.data(), suffix=st.sampled_from(["png", "jpg", "webp", "bmp", "gif", "tif"]))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / f"x.{suffix}"
    Image.fromarray(SMOOTH).save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for attempt in (lambda: decode(path, 3, 8), lambda: read_pictures([path], image_size=8).images[0]):
        try:
            assert attempt().shape == (8, 8, attempt().shape[-1])
        except ValueError as error:
            assert "cannot be read" in str(error)


def test_wrong_endings_are_read_by_content(tmp_path: Path) -> None:
    for name in ("png.jpg", "png.txt", "png"):
        Image.fromarray(COLOUR).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("about these pictures")
    found = find_images(tmp_path)
    assert [path.name for path in found] == ["png", "png.jpg", "png.txt"]
    assert all(np.array_equal(decode(path, 3, None), COLOUR) for path in found)


@pytest.mark.parametrize("limit", [9999, 4999])  # Pillow warns above its limit, and refuses above twice that
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    shape = {9999: "100 x 100", 4999: "10000"}[limit]
    sentence = f"{shape} pixels are over the limit of {limit}; make it smaller, or raise the limit (--data.max-pixels, "
    with pytest.raises(Unreadable) as caught:
        decode(tmp_path / "x.png", 1, None, Decoding(max_pixels=limit))
    assert caught.value.reason == f"{sentence}--max-pixels)"
    read = read_pictures([tmp_path / "x.png"], how=Decoding(max_pixels=10_000))
    assert read.images.shape[0] == 1


def test_finding_is_sorted_deep_and_skips_hidden(tmp_path: Path) -> None:
    names = ["b.PNG", "a b/ü 图.jpeg", "a b/.x.png", ".git/y.png", "a.gif", "a/z.webp", "-f.bmp", "#[1].tiff"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["#[1].tiff", "-f.bmp", "a b/ü 图.jpeg", "a.gif", "a/z.webp", "b.PNG"]
    assert find_images(str(tmp_path / "b.PNG")) == [tmp_path / "b.PNG"]
    with pytest.raises(ValueError, match="there is no file or folder"):
        find_images(tmp_path / "nowhere")


def test_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    for folder in (inside, outside):
        Image.fromarray(COLOUR).save(folder / "x.png")
    os.symlink(inside / "x.png", inside / "deep" / "link.png")
    assert [path.name for path in find_images(inside)] == ["link.png", "x.png"]
    os.symlink(outside / "x.png", inside / "away.png")
    with pytest.raises(ValueError, match=r"away\.png' is a symbolic link that leaves"):
        find_images(inside)
    (inside / "away.png").unlink()
    os.symlink(outside, inside / "folder", target_is_directory=True)
    with pytest.raises(ValueError, match="folder' is a symbolic link that leaves"):
        find_images(inside)
    (inside / "folder").unlink()
    os.symlink(inside, inside / "deep" / "circle", target_is_directory=True)
    with pytest.raises(ValueError, match="circle' is a symbolic link to a folder that it lies in"):
        find_images(inside)
    (inside / "deep" / "circle").unlink()
    os.symlink(inside / "gone.png", inside / "dangling.png")
    with pytest.raises(Unreadable, match="No such file"):
        decode(find_images(inside)[0], 3, None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    assert find_images(tmp_path) == []


def test_lab_colours_become_grey_too(tmp_path: Path) -> None:
    """Pillow converts them to RGB only; of grey levels nothing but rounding is lost on the way."""
    grey = Image.linear_gradient("L").resize((32, 32))
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.profileToProfile(grey.convert("RGB"), *profiles, outputMode="LAB")
    assert lab is not None
    lab.save(tmp_path / "x.tif")
    for channels in (1, 3):
        image = decode(tmp_path / "x.tif", channels, None)
        assert np.abs(image.astype(int) - np.asarray(grey)[..., None]).max() <= 3


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_jpeg_file_whose_end_is_zeros_is_said(tmp_path: Path, share: float) -> None:
    """A download that made room first, or a disk that was full: the decoder makes the rest grey without a word."""
    path = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    data = path.read_bytes()
    for content, said in (
        (data, []),
        (data + bytes(3000), []),  # padding behind the end mark: some cameras do so
        (data[: int(len(data) * share)].ljust(len(data), b"\0"), ["the end of the file is missing and filled up"]),
    ):
        path.write_bytes(content)
        for file in (path, Blob("x", content)):
            about = About()
            decode(file, 3, 32, PLAIN, about)
            assert [remark.partition(" with zeros")[0] for remark in about.remarks] == said
