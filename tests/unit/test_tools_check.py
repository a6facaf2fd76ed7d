"""Counting, twins and the sheet, against small sets whose answers are known."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import read_folder
from PIL import Image

from fewlabels.augment import strong_view, weak_view
from fewlabels.data.arrays import from_arrays
from fewlabels.data.split import make_split
from fewlabels.datatools.check import Seen, check_folder, check_source, digest, report, size_tells_class, suggestion
from fewlabels.datatools.convert import class_folders, encoded, from_records, from_source
from fewlabels.datatools.layout import Step, check_distinct, fill, fresh_folder, layout, write_all, write_new
from fewlabels.report.sheet import Columns, sheet, tile_shape


def seen(where: str, part: str, label: str | None, key: int, shape: tuple[int, int] = (8, 8)) -> Seen:
    return Seen(where, (part,), label, shape, 3, bytes([key]))


def test_overlap_and_twins_of_a_known_set() -> None:
    result = report(
        "x",
        [
            seen("a", "labeled", "cat", 1),
            seen("b", "labeled", "dog", 1),
            seen("c", "labeled", "dog", 2),
            seen("d", "unlabeled", None, 2),
            seen("e", "unlabeled", None, 3),
            seen("f", "test", "cat", 3),
            seen("g", "test", "cat", 4),
        ],
        ["cat", "dog"],
    )
    assert result["overlap"] == {
        "labeled": {"labeled": 2, "unlabeled": 1, "test": 0},
        "unlabeled": {"labeled": 1, "unlabeled": 0, "test": 1},
        "test": {"labeled": 0, "unlabeled": 1, "test": 0},
    }
    assert result["duplicates"] == [["a", "b"], ["e", "f"]]  # c and d: an unlabeled copy is the protocol
    assert result["conflicts"] == [["a (cat)", "b (dog)"]]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("labeled", "unlabeled", "test")), st.integers(0, 5)), max_size=30))
def test_overlap_is_what_a_double_loop_finds(rows: list[tuple[str, int]]) -> None:
    images = [seen(str(i), part, None, key) for i, (part, key) in enumerate(rows)]
    overlap = report("x", images, ["a", "b"])["overlap"]
    for a, row in overlap.items():
        for b, count in row.items():
            assert count == sum(
                any(j != i and rows[j] == (b, rows[i][1]) for j in range(len(rows)))
                for i in range(len(rows))
                if rows[i][0] == a
            )


def test_the_size_that_tells_the_class() -> None:
    told = [seen(str(i), "labeled", "ab"[i % 2], i, (8, 8 + i % 2)) for i in range(10)]
    assert size_tells_class(told) == (1.0, 0.5)
    mixed = [seen(str(i), "labeled", "ab"[i % 2], i) for i in range(10)]
    assert size_tells_class(mixed) == (0.0, 0.5)  # without itself, the other class is the commoner one
    own = [seen(str(i), "labeled", "ab"[i % 2], i, (8, 8 + i)) for i in range(10)]
    assert size_tells_class(own)[0] == 0.0  # sizes of their own say nothing of the next picture
    assert any("size of an image alone" in note for note in report("x", told, ["a", "b"])["notes"])
    assert report("x", told, ["a", "b"])["suggestion"]["fit"] == "centre"


def test_suggestion() -> None:
    small = [seen(str(i), "labeled", "a", i, (32, 32)) for i in range(100)]
    assert suggestion(small) == {"image_size": None, "fit": "crop", "batch": 64}
    large = [seen(str(i), "labeled", "a", i, (300, 200 + i)) for i in range(20)]
    assert suggestion(large) == {"image_size": 96, "fit": "crop", "batch": 16}
    assert suggestion([])["batch"] is None


@pytest.mark.parametrize(
    "shapes", [[(30, 40), (30, 50)], [(200, 201)] * 3, [(9, 33), (12, 40)], [(7, 7)], [(300, 300)]]
)
def test_the_suggested_size_is_the_one_that_reading_chooses(tmp_path: Path, shapes: list[tuple[int, int]]) -> None:
    for i, (height, width) in enumerate(shapes * 2):
        path = tmp_path / f"photos/labeled/{'ab'[i // len(shapes)]}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    size = check_folder(tmp_path / "photos")["suggestion"]["image_size"]
    source = read_folder(tmp_path / "photos")
    assert source.shape[1:] == ((size, size) if size else shapes[0])


def test_digest_is_of_pixels_and_shape() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert digest(image) == digest(image.copy()) == digest(np.asfortranarray(image))
    assert digest(image) != digest(image.reshape(4, 2, 3)) and digest(image) != digest(image + 1)


def test_source_with_a_test_image_among_the_labeled() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    source = from_arrays(images[:6], np.array([0, 1, 0, 1, -1, -1]), images[[0, 7]], np.array([0, 1]))
    result = check_source("x", source, make_split(source, labels=None, seed=1, valid=0))
    assert result["overlap"]["labeled"]["test"] == 1 and ["train 0", "test 0"] in result["duplicates"]
    assert result["parts"]["labeled"]["images"] == 4 and result["parts"]["unlabeled"]["images"] == 6


def test_labeled_images_count_by_the_labels_of_the_split() -> None:
    images = np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8, 1)
    source = from_arrays(images, [0, 0, 1, 1, -1, -1])
    split = make_split(source, labels=None, seed=1).with_labels([4, 5], [1, 1], lineage={"file": "answers.csv"})
    result = check_source("x", source, split)
    assert result["parts"]["labeled"]["per_class"] == {"0": 2, "1": 4}
    assert any(note.startswith("labels that the data do not say: file answers.csv") for note in result["notes"])


# ---- layout


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def test_layout_of_plain_class_folders_and_of_own_data(tmp_path: Path) -> None:
    for name in ("plain/ball/1.png", "plain/ball/deep/2.png", "plain/small one/3.png", "plain/.hidden/4.png"):
        picture(tmp_path / name)
    found = layout(tmp_path / "plain")
    assert [(p.within.as_posix(), p.part, p.label) for p in found.pictures] == [
        ("ball/1.png", "labeled", "ball"),
        ("ball/deep/2.png", "labeled", "ball"),
        ("small one/3.png", "labeled", "small one"),
    ]
    for name in (
        "own/train/a/1.png",
        "own/unlabeled/x.png",
        "own/unlabeled/a/y.png",
        "own/test/a/2.png",
        "own/z/3.png",
    ):
        picture(tmp_path / name)
    (tmp_path / "own/train/b").mkdir()
    found = layout(tmp_path / "own")
    assert [(p.part, p.label) for p in found.pictures] == [
        ("test", "a"), ("labeled", "a"), ("unlabeled", "a"), ("unlabeled", None)
    ]  # fmt: skip
    assert found.others == [] and found.empty == ["train/b"] and found.classes == ["a"]
    assert found.notes == [f"not read, as they are no part of {tmp_path / 'own'}: z"] and found.plain == ""
    with pytest.raises(ValueError, match="no folder"):
        layout(tmp_path / "none")


def test_new_folders_and_files_never_replace(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists"), fresh_folder(tmp_path / "there"):
        pass
    with pytest.raises(RuntimeError), fresh_folder(tmp_path / "new") as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="exists"):
        write_new(tmp_path / "file", lambda path: path.write_text("new"))
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there"]
    with pytest.raises(ValueError, match="both become"):
        check_distinct([Step(Path("a"), Path("x/A.png")), Step(Path("b"), Path("x/a.png"))])


def litter(path: Path, process: int) -> Path:
    """The hidden name under which a process of this machine writes `path`."""
    return path.with_name(f".tmp-{zlib.crc32(socket.gethostname().encode())}-{process}-{path.name}")


def test_what_killed_tools_left_is_removed(tmp_path: Path) -> None:
    new, other = tmp_path / "new", tmp_path / "other"
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    for path in (litter(new, dead.pid), litter(new, os.getppid()), litter(other, dead.pid)):
        path.mkdir()
        (path / "x").write_text("x")
    with fresh_folder(new) as folder:
        (folder / "y").write_text("y")
    left = sorted(p.name for p in tmp_path.iterdir())  # that of a living process, and of another folder
    assert left == sorted([litter(new, os.getppid()).name, litter(other, dead.pid).name, "new"])
    assert [p.name for p in new.iterdir()] == ["y"]


def test_a_full_disk_is_named_with_the_place_and_leaves_nothing(tmp_path: Path) -> None:
    """As Linux reports it: a write names no file, a copy the file that is copied."""
    source = tmp_path / "source.png"
    picture(source)

    def full(*paths: str) -> OSError:
        error = OSError(errno.ENOSPC, "No space left on device", *paths[:1])
        error.filename2 = paths[1] if len(paths) > 1 else None
        return error

    def copy(old: Path, new: Path) -> None:
        new.write_bytes(b"half")
        raise full(str(old), str(new))

    with pytest.raises(OSError) as caught:
        fill(tmp_path / "new", [Step(source, Path("a/1.png"))], copy)
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "new"), None)

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise full()

    whole = tmp_path / "SSL2/a.tfrecord"
    with pytest.raises(OSError) as caught:
        write_all({whole: lambda path: path.write_bytes(b"all"), tmp_path / "b.tfrecord": write})
    assert caught.value.filename == str(tmp_path / "b.tfrecord")
    assert [p.name for p in tmp_path.iterdir()] == ["source.png"]
    write_all({whole: lambda path: path.write_bytes(b"all")})
    assert whole.read_bytes() == b"all" and [p.name for p in whole.parent.iterdir()] == ["a.tfrecord"]


# ---- convert


def test_class_folders_sort_as_the_classes_do() -> None:
    names = class_folders([str(i) for i in range(12)])
    assert names == sorted(names) and names[:2] == ["00", "01"]
    assert class_folders(["hot-dog", "cat"]) == ["hot-dog", "cat"]
    for bad in ("a/b", "", ".x", " a"):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            class_folders(["a", bad])


def test_class_folders_keep_classes_apart_and_are_read_again() -> None:
    assert class_folders(["1", "01", "10"]) == ["1", "01", "10"]  # with zeros in front two would be one
    for name in ("@eaDir", "lost+found", "__MACOSX"):
        with pytest.raises(ValueError, match="cannot be the name of a folder"):
            class_folders(["cat", name])


def test_pictures_that_others_read_otherwise_are_written_anew(tmp_path: Path) -> None:
    plain = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "odd.png", exif=b"Exif\0\0nonsense")
    assert encoded(tmp_path / "odd.png") == (tmp_path / "odd.png").read_bytes()
    assert encoded(tmp_path / "plain.png") == (tmp_path / "plain.png").read_bytes()
    turned = Image.fromarray(plain)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "again.png").write_bytes(encoded(tmp_path / "turned.png"))
    assert (np.asarray(Image.open(tmp_path / "again.png")) == np.rot90(plain, -1)).all()


def test_source_without_split_to_files() -> None:
    images = np.zeros((4, 8, 8, 2), np.uint8)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        from_source(from_arrays(images, np.array([0, 1, 0, 1])))
    new = from_source(from_arrays(images[..., :1], np.array([0, 1, -1, 1])))
    assert [n.to.as_posix() for n in new] == ["labeled/0/0", "labeled/1/1", "unlabeled/2", "labeled/1/3"]
    with pytest.raises(ValueError, match="no file"):
        from_records(Path("none.tfrecord"))


# ---- sheet


def test_tiles() -> None:
    assert tile_shape((8, 8)) == (64, 64) and tile_shape((32, 32)) == (64, 64) and tile_shape((96, 96)) == (96, 96)
    assert tile_shape((200, 100)) == (96, 48)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_sheet_shows_the_labeled_images(channels: int) -> None:
    shape = (channels, 32, 32)
    images = np.repeat(np.array([40, 200, 90, 160], np.uint8), 32 * 32 * channels).reshape(4, 32, 32, channels)
    source = from_arrays(images, np.array([0, 1, 0, 1]), classes=["a", "b"])
    split = make_split(source, labels=None, seed=1, valid=0)
    page = sheet(source, split, weak_view("ms", shape), strong_view("none", shape), columns=Columns(2, 1, 1))
    pixels = np.asarray(page)[..., 0]
    for value in (40, 200):  # labeled, weak, strong and unlabeled: four tiles of 64 x 64
        assert (pixels == value).sum() == pytest.approx(4 * 64 * 64, abs=40)
    for value in (90, 160):  # labeled and unlabeled
        assert (pixels == value).sum() == pytest.approx(2 * 64 * 64, abs=40)


def test_sheet_says_how_many_classes_it_leaves_out() -> None:
    images = np.zeros((30, 8, 8, 1), np.uint8)
    source = from_arrays(images, np.arange(30))
    split = make_split(source, labels=None, seed=1, valid=0)
    view = weak_view("s", (1, 8, 8), shift=1)
    small = sheet(source, split, view, view, rows=5)
    assert small.height < sheet(source, split, view, view, rows=30).height
