"""Mini-ImageNet, Tiny-ImageNet and ImageNet from small folders in their forms."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.names import parse
from fewlabels.data.sources import DataUnavailable, load


def put(path: Path, value: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def test_mini_imagenet_merges_the_three_tables(tmp_path: Path) -> None:
    root = tmp_path / "mini-imagenet"
    for part, label, base in (("train", "n02", 0), ("val", "n01", 100), ("test", "n03", 200)):
        lines = ["filename,label"]
        for i in range(12):
            put(root / "images" / f"{label}_{i:02d}.png", base + i)
            lines.insert(1, f"{label}_{i:02d}.png,{label}")  # not in the order of names
        (root / f"{part}.csv").write_text("\n".join(lines) + "\n")
    source = load(parse("mini_imagenet"), root=tmp_path, image_size=8)
    assert source.classes == ("n01", "n02", "n03") and source.name == "mini_imagenet"
    random = np.random.RandomState(0)
    train, test = [], []
    for base in (100, 0, 200):  # classes in sorted order
        order = random.permutation(12)
        train += [base + i for i in sorted(order[:10])]
        test += [base + i for i in sorted(order[10:])]
    assert source.images[:, 4, 4, 0].tolist() == train and source.test_images[:, 0, 0, 0].tolist() == test
    assert source.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert any("few-shot" in note for note in source.notes)
    (root / "val.csv").unlink()
    with pytest.raises(DataUnavailable, match=r"mini_imagenet needs .*val.csv, which cannot be read"):
        load(parse("mini_imagenet"), root=tmp_path)
    (root / "val.csv").write_text("filename,label\n../../secret.png,n01\n")
    with pytest.raises(ValueError, match="which is no plain file name"):
        load(parse("mini_imagenet"), root=tmp_path)
    os.symlink(tmp_path / "secret.png", root / "images/link.png")
    for text, sentence in (
        ("n01_00.png,n01\nn01_01.png\n", "val.csv is no table .*: line 3: 1 cells under 2 columns"),
        ("n01_00.png,\n", "line 2 has no label"),
        ("link.png,n01\n", r"link.png' is a symbolic link that leaves"),
    ):
        (root / "val.csv").write_text(f"filename,label\n{text}")
        with pytest.raises(ValueError, match=sentence):
            load(parse("mini_imagenet"), root=tmp_path)


def test_mini_imagenet_folders_that_share_classes_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, name, value in (("train", "a", 1), ("train", "b", 2), ("test", "a", 3), ("test", "b", 4)):
        put(tmp_path / "mini-imagenet" / part / name / "x.png", value)
    source = load(parse("mini_imagenet"), root=tmp_path)
    assert source.shape == (1, 84, 84)
    assert source.images[:, 0, 0, 0].tolist() == [1, 2] and source.test_images[:, 0, 0, 0].tolist() == [3, 4]


def test_mini_imagenet_few_shot_folders_are_merged(tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        for i in range(6):
            put(tmp_path / "mini-imagenet" / part / name / f"{i}.png", i)
    source = load(parse("mini_imagenet"), root=tmp_path, image_size=8)
    assert source.histogram().tolist() == [5, 5, 5] and source.test_labels.tolist() == [0, 1, 2]


def test_tiny_imagenet_takes_the_annotated_pictures_for_the_test(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for i, name in enumerate(("n1", "n2")):
        put(root / "train" / name / "images" / f"{name}_0.JPEG", 40 * i, (64, 64))
        (root / "train" / name / f"{name}_boxes.txt").write_text("")
    for i in range(3):
        put(root / "val" / "images" / f"val_{i}.JPEG", 10 * i, (64, 64))
    put(root / "test" / "images" / "test_0.JPEG", 99, (64, 64))
    lines = ["val_0.JPEG\tn2\t0\t0\t9\t9", "val_1.JPEG\tn1\t0\t0\t9\t9", "val_2.JPEG\tn1\t0\t0\t9\t9"]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    source = load(parse("tiny_imagenet"), root=tmp_path)
    assert source.test_images[:, 5, 5, 0].tolist() == [0, 10, 20] and source.test_labels.tolist() == [1, 0, 0]
    assert source.shape == (1, 64, 64) and source.labels.tolist() == [0, 1]
    own = load(parse(f"{root}/"))
    assert np.array_equal(own.test_images, source.test_images)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is not a file name and a class"):
        load(parse("tiny_imagenet"), root=tmp_path)


def test_imagenet_takes_val_for_the_test_at_a_resident_size(tmp_path: Path) -> None:
    for name, value in (("n1", 1), ("n2", 2)):
        put(tmp_path / "imagenet" / "train" / name / "x.JPEG", value, (200, 100))
        put(tmp_path / "imagenet" / "val" / name / "y.JPEG", value + 10, (50, 90))
    source = load(parse("imagenet"), root=tmp_path)
    assert source.shape == (1, 64, 64) and source.test_labels.tolist() == [0, 1]
    assert source.style.mean == (0.485, 0.456, 0.406)
    with pytest.raises(DataUnavailable, match=r"tiny_imagenet is not in .* put tiny-imagenet-200/ with train/WNID"):
        load(parse("tiny_imagenet"), root=tmp_path)
