"""A folder of own pictures as a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_folders import read_folder
from PIL import Image

from fewlabels.data.names import parse
from fewlabels.data.source import Style
from fewlabels.data.sources import load

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a picture of one colour (grey for an integer), but for one pixel, below the folder `photos`."""

    def write(name: str, value: int | tuple[int, int, int] = 0, size: tuple[int, int] = (16, 16)) -> Path:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L" if isinstance(value, int) else "RGB", size, value)
        image.putpixel((size[0] // 2, size[1] - 1), 255 if isinstance(value, int) else (255, 255, 255))
        image.save(path)
        return path

    return write


def test_the_parts_of_a_folder(put: Put, tmp_path: Path) -> None:
    put("labeled/zebra/1.png", 10)
    put("labeled/ant/b/2.png", 20)
    put("labeled/ant/a.bmp", 30)
    put("unlabeled/x.png", 40)
    put("unlabeled/deep/er/y ü.png", 50)
    put("test/zebra/t.png", 60)
    put("test/ant/t.png", 70)
    seen: list[tuple[int, int]] = []
    source = read_folder(tmp_path / "photos", progress=lambda done, total: seen.append((done, total)))
    assert source.name == "photos" and source.classes == ("ant", "zebra")
    assert source.shape == (1, 16, 16)
    assert source.images[:, 3, 3, 0].tolist() == [30, 20, 10, 50, 40]
    assert source.labels.tolist() == [0, 0, 1, -1, -1]
    assert source.test_images[:, 15, 0, 0].tolist() == [70, 60] and source.test_labels.tolist() == [0, 1]
    assert source.style == Style(flip=True, shift=2, weak="ms", strong="rand:kekmodel", mean=None, std=None)
    assert source.notes == () and seen[-1] == (7, 7)


def test_train_is_another_word_for_labeled(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("train/a/1.png", (1, 2, 3))
    put("train/b/1.png", 9)
    monkeypatch.chdir(tmp_path)
    source = load(parse("photos/"))
    assert source.shape == (3, 16, 16)
    assert source.images[:, 0, 0].tolist() == [[1, 2, 3], [9, 9, 9]]
    assert len(source.test_images) == 0
    assert [note.split(";")[0] for note in source.notes] == [
        "photos has no folder 'unlabeled'",
        "photos has no folder 'test'",
    ]
    put("labeled/a/1.png")
    with pytest.raises(ValueError, match="both a folder 'labeled' and a folder 'train'"):
        load(parse("./photos"))


def sizes(put: Put, *shapes: tuple[int, int]) -> None:
    for row, shape in enumerate(shapes):
        put(f"labeled/{row % 2}/{row}.png", row, shape)


@pytest.mark.parametrize(
    ("shapes", "asked", "result"),
    [
        ([(30, 20)] * 3, None, (20, 30)),  # all alike and small: as they are
        ([(96, 96)] * 3, None, (96, 96)),
        ([(97, 97)] * 3, None, (96, 96)),
        ([(20, 50), (30, 40), (90, 80)], None, (28, 28)),  # the median 30, a multiple of 4
        ([(20, 50), (50, 20), (20, 20)], None, (20, 20)),  # cropped, not resized
        ([(500, 400), (300, 900)], None, (96, 96)),
        ([(6, 5), (5, 9), (7, 7)], None, (5, 5)),
        ([(30, 20)] * 3, 12, (12, 12)),
        ([(500, 400), (300, 900)], 128, (128, 128)),
    ],
)
def test_the_common_size(
    put: Put, tmp_path: Path, shapes: list[tuple[int, int]], asked: int | None, result: tuple[int, int]
) -> None:
    sizes(put, *shapes)
    source = read_folder(tmp_path / "photos", image_size=asked)
    assert source.shape[1:] == result
    assert source.style.shift == round(result[0] / 8)
    chosen = asked is None and len({*shapes, result[::-1]}) > 1
    assert any(f"{result[0]} x {result[1]} px (image_size sets another side)" in n for n in source.notes) == chosen


def test_grey_palettes_are_grey_and_one_colour_makes_all_colour(put: Put, tmp_path: Path) -> None:
    put("labeled/a/1.gif", 33)
    path = put("labeled/b/2.png", 44)
    values = np.full((16, 16), 44 * 257, np.uint16)
    Image.fromarray(values).save(path)
    source = read_folder(tmp_path / "photos")
    assert source.shape == (1, 16, 16) and source.images[:, 0, 0, 0].tolist() == [33, 44]
    put("unlabeled/c.jpg", (200, 0, 0))
    assert read_folder(tmp_path / "photos").shape == (3, 16, 16)


def test_corrupt_pictures_stop_or_are_left_out(put: Put, tmp_path: Path) -> None:
    for row in range(4):
        put(f"labeled/{row % 2}/{row}.png", row)
        put(f"test/{row % 2}/{row}.png", 100 + row)
    for row in range(12):
        broken = put(f"unlabeled/{row:02}.png", row)
        broken.write_bytes(broken.read_bytes()[: 4 * row])
    put("unlabeled/fine.png", 77)
    put("test/1/3.png").write_text("not a picture")
    root = tmp_path / "photos"
    with pytest.raises(ValueError, match=r"13 of 21 pictures cannot be read: unlabeled/00\.png \(an empty") as caught:
        read_folder(root)
    assert "unlabeled/09.png" in str(caught.value) and "unlabeled/10.png" not in str(caught.value)
    assert "and 3 more" in str(caught.value)
    source = read_folder(root, skip_corrupt=True)
    assert source.images[:, 0, 0, 0].tolist() == [0, 2, 1, 3, 77]
    assert source.labels.tolist() == [0, 0, 1, 1, -1]
    assert source.test_images[:, 0, 0, 0].tolist() == [100, 102, 101] and source.test_labels.tolist() == [0, 0, 1]
    assert "13 of 21 pictures cannot be read and were left out" in source.notes[-1]
    for row in (1, 3):
        put(f"labeled/1/{row}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no picture of 1 in .*labeled can be read"):
        read_folder(root, skip_corrupt=True)


def test_other_files_are_named(put: Put, tmp_path: Path) -> None:
    sizes(put, (8, 8), (8, 8))
    (tmp_path / "photos/labeled/0/notes.txt").write_text("x")
    (tmp_path / "photos/labeled/readme.md").write_text("x")
    (tmp_path / "photos/labeled/.DS_Store").write_text("x")
    notes = read_folder(tmp_path / "photos").notes
    assert notes[-1].endswith("no pictures and were left out: labeled/0/notes.txt, labeled/readme.md")
    assert notes[-1].startswith("2 files")


def test_missing_test_classes_are_noted(put: Put, tmp_path: Path) -> None:
    sizes(put, (8, 8), (8, 8))
    put("test/0/x.png", 0, (8, 8))
    (tmp_path / "photos/unlabeled").mkdir()
    notes = read_folder(tmp_path / "photos").notes
    assert any(note.endswith("test holds no pictures of 1") for note in notes)
    assert any("unlabeled holds no pictures; the labeled ones serve" in note for note in notes)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "has no folder 'labeled'"),
        (["cat/1.png"], "has no folder 'labeled' (or 'train'), and one class folder only (cat)"),
        (["labeled/a/"], "labeled holds no pictures; they belong into"),
        (["labeled/"], "labeled holds no pictures"),
        (["labeled/a/1.png"], "labeled has one class only (a); at least 2"),
        (["labeled/a/1.png", "labeled/b/", "labeled/c/1.png"], "class folders without pictures: b;"),
        (["labeled/1.png"], "labeled has pictures outside its class folders: 1.png"),
        (["labeled/a/1.png", "labeled/b/1.png", "test/c/1.png"], "test has classes that"),
    ],
)
def test_what_is_missing_is_said(put: Put, tmp_path: Path, files: list[str], sentence: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in files:
        if name.endswith("/"):
            (tmp_path / "photos" / name).mkdir(parents=True)
        else:
            put(name)
    with pytest.raises(ValueError) as caught:
        read_folder(tmp_path / "photos")
    assert sentence in str(caught.value)


def test_a_folder_that_is_none(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes(put, (8, 8), (8, 8))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder 'fotos'$"):
        load(parse("fotos/"))
    for text in ("./photos@40", "photos/@40-5", "./photos.1@40"):
        with pytest.raises(ValueError, match="carries no split, give labels, seed and valid as options"):
            load(parse(text))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; own data are a folder"):
        load(parse("./file"))
    (tmp_path / "photos").rename(tmp_path / "a.3@4")
    assert load(parse("./a.3@4/")).name == "a.3@4"
    with pytest.raises(ValueError, match="image_size must be at least 4, got 1"):
        load(parse("./a.3@4/"), image_size=1)


def test_links_stay_within_the_folder(put: Put, tmp_path: Path) -> None:
    sizes(put, (8, 8), (8, 8))
    root = tmp_path / "photos"
    (root / "unlabeled").mkdir()
    os.symlink(root / "labeled/1/1.png", root / "unlabeled/again.png")
    assert read_folder(root).labels.tolist() == [0, 1, -1]
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", root / "test", target_is_directory=True)
    with pytest.raises(ValueError, match="test' is a symbolic link that leaves"):
        read_folder(root)


def test_a_linked_folder_is_fine_itself(put: Put, tmp_path: Path) -> None:
    sizes(put, (8, 8), (8, 8))
    os.symlink(tmp_path / "photos", tmp_path / "link", target_is_directory=True)
    assert len(read_folder(tmp_path / "link").images) == 2


@pytest.mark.slow
def test_many_pictures_keep_their_order(put: Put, tmp_path: Path) -> None:
    for row in range(300):
        put(f"labeled/{row % 2}/{row:03}.png", row % 256, (4, 4))
    source = read_folder(tmp_path / "photos")
    rows = [*range(0, 300, 2), *range(1, 300, 2)]
    assert source.images[:, 0, 0, 0].tolist() == [row % 256 for row in rows]


def test_links_that_go_in_a_circle(put: Put, tmp_path: Path) -> None:
    """Python 3.11 raises RuntimeError for them where it is to follow links, and OSError for entries of a folder."""
    for name in ("labeled/a/0.png", "labeled/a/1.png", "labeled/b/0.png", "labeled/b/1.png"):
        put(name, (10, 20, 30) if "a/" in name else (200, 20, 30))
    root = tmp_path / "photos"
    (root / "labeled" / "a" / "loop.png").symlink_to("loop.png")
    (root / "@eaDir").symlink_to("@eaDir")
    with pytest.raises(ValueError, match=r"1 of 5 pictures cannot be read: labeled/a/loop\.png"):
        read_folder(root)
    assert len(read_folder(root, skip_corrupt=True).images) == 4
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(ValueError, match="there is no folder"):
        read_folder(tmp_path / "one")
