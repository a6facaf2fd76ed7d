"""Paths of very many files in little memory, and the listing of a tree in ImageNet's form that is made of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.data import imagenets
from fewlabels.data.folder import list_folder
from fewlabels.data.imagenets import list_imagenet
from fewlabels.data.listing import Listing, Options, Rows
from fewlabels.data.paths import Named, Paths
from imagenet_tree import make_tree

NAMES = ["a.jpg", "ünï.jpg", os.fsdecode(b"\xff.jpg"), "x" * 200 + ".jpg"]


def test_they_are_a_sequence_of_paths() -> None:
    listing = [(Path("/one"), NAMES), (Path("/empty"), []), (Path("/two/below"), ["z.jpg"])]
    expected = [folder / name for folder, names in listing for name in names]
    files = Paths.of(listing)
    assert (
        list(files) == expected and len(files) == 5 and files[-1] == expected[-1] and files[np.int64(1)] == expected[1]
    )
    assert list(files[1:4]) == expected[1:4] and list(files[::-2]) == expected[::-2]
    assert list(files[np.array([4, 0, 4])]) == [expected[4], expected[0], expected[4]]
    assert list(files[np.array([True, False, False, True, False])]) == [expected[0], expected[3]]
    assert list(files[2:] + files[:1]) == [*expected[2:], expected[0]]
    with pytest.raises(IndexError):
        files[5]
    assert not len(Paths.of([]))


def test_names_are_made_when_they_are_asked_for() -> None:
    asked: list[Path] = []
    names = Named([Path("a"), Path("b"), Path("c")], lambda path: asked.append(path) or str(path))  # type: ignore[func-returns-value]
    assert len(names) == 3 and not asked
    assert names[1] == "b" and list(names[1:]) == ["b", "c"] and asked == [Path("b"), Path("b"), Path("c")]
    assert names == ("a", "b", "c") and names == ("a", "b", "c") and names != ("a", "b", "d")


def general(folder: Path) -> Listing:
    return list_folder(folder, labeled=folder / "train", test=folder / "val", strict=True)


def test_a_tidy_tree_is_listed_as_any_other(tmp_path: Path) -> None:
    folder = make_tree(tmp_path) / "imagenet"
    (folder / "LICENSE").write_text("beside the parts")
    (folder / "train/n00000001/.hidden").write_text("")
    lean, other = list_imagenet("imagenet", tmp_path), general(folder)
    assert isinstance(lean.train, Rows) and not isinstance(other.train, Rows)
    assert list(lean.train) == list(other.train) and list(lean.test) == list(other.test)
    assert (lean.classes, lean.notes, lean.base) == (other.classes, other.notes, other.base)
    sources = [listing.read(Options(image_size=8, stream=True)) for listing in (lean, other)]
    assert sources[0].pictures == sources[1].pictures and sources[0].names == tuple(sources[1].names)
    assert np.array_equal(sources[0].labels, sources[1].labels) and sources[0].labels.dtype == np.int64
    assert np.array_equal(sources[0].images, sources[1].images)


def nested(folder: Path) -> None:
    (folder / "train/n00000002/more").mkdir()


def other_file(folder: Path) -> None:
    (folder / "train/n00000002/notes.txt").write_text("no picture")


def without_ending(folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "train/n00000002/picture", "PNG")


def linked(folder: Path) -> None:
    (folder / "train/n00000002/link.jpg").symlink_to(folder / "train/n00000001/n00000001_0.JPEG")


def missing_class(folder: Path) -> None:
    shutil.rmtree(folder / "val/n00000004")


def unlabeled_part(folder: Path) -> None:
    (folder / "unlabeled").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "unlabeled/a.png")


@pytest.mark.parametrize("change", [nested, other_file, without_ending, linked, missing_class, unlabeled_part])
def test_anything_else_is_listed_as_before(change: Callable[[Path], Any], tmp_path: Path) -> None:
    folder = make_tree(tmp_path) / "imagenet"
    change(folder)
    assert imagenets._tree(folder) is None
    found, expected = list_imagenet("imagenet", tmp_path), general(folder)
    assert found.train == expected.train and found.test == expected.test and found.notes == expected.notes
