"""Labeled pictures from a list of file names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.config.settings import Data
from fewlabels.data.lists import with_list
from fewlabels.data.source import Source
from fewlabels.data.split import Split, read_split
from imagenet_tree import make_tree


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = make_tree(tmp_path_factory.mktemp("tree"))
    return Data("imagenet", root=str(root), image_size=8, residency="stream")


@pytest.fixture(scope="module")
def whole(data: Data) -> tuple[Split, Source]:
    source = load_source(data)
    return split_of(resolve_data(data), source), source


def written(folder: Path, text: str) -> Path:
    path = folder / "list.txt"
    path.write_text(text)
    return path


LIST = "n00000002_3.JPEG,0,0\nn00000000_1.JPEG,0,1\n\nn00000002_0.JPEG,1,0\n"
"""As imagenet/prep_imagenet_data/data_splits of google-research/fixmatch has it: name, shard, place."""


def test_the_named_pictures_are_the_labeled_ones(whole: tuple[Split, Source], tmp_path: Path) -> None:
    split, source = whole
    found = with_list(split, source, written(tmp_path, LIST))
    assert [source.names[row] for row in found.labeled] == [
        "train/n00000000/n00000000_1.JPEG", "train/n00000002/n00000002_0.JPEG", "train/n00000002/n00000002_3.JPEG",
    ]  # fmt: skip
    assert found.targets.tolist() == [0, 2, 2] and found.class_counts == (1, 0, 2, 0, 0, 0) and found.labels == 3
    assert np.array_equal(found.unlabeled, split.unlabeled) and len(found.unlabeled) == 36
    assert any("it names none of n00000001" in note for note in found.notes)
    found.check_fit(source)
    assert Split.from_json(found.to_json()) == found != split
    rest = with_list(split, source, written(tmp_path, LIST), rest=True)
    assert len(rest.unlabeled) == 33 and not np.isin(rest.labeled, rest.unlabeled).any()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no picture"),
        ("filename,shard\n", "names no picture"),
        ("n00000000_1.JPEG\nn9.JPEG\n", "names 1 pictures that imagenet has not: n9.JPEG"),
        ("n00000000_1.JPEG\ntrain/n00000000/n00000000_1.JPEG\n", "names a picture twice: train/n00000000/n00000000_1"),
    ],
)
def test_a_list_that_will_not_do(whole: tuple[Split, Source], tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_list(*whole, written(tmp_path, text))


def test_a_name_that_two_pictures_have(tmp_path: Path, photos: Path) -> None:
    data = resolve_data(Data(f"{photos}/", image_size=8))
    source = load_source(data)
    split = split_of(data, source)
    with pytest.raises(ValueError, match=r"names 0.png, which may be labeled/blue/0.png, labeled/red/0.png: say more"):
        with_list(split, source, written(tmp_path, "path\n0.png\n"))
    found = with_list(split, source, written(tmp_path, "path\nblue/0.png\nred/0.png\n"))
    assert found.class_counts == (1, 1)
    with pytest.raises(ValueError, match=r"1 pictures of .* have no label: unlabeled/blue0.png"):
        with_list(split, source, written(tmp_path, "unlabeled/blue0.png\n"))


@pytest.mark.slow
def test_the_command_writes_a_split_that_is_trained_on(data: Data, tmp_path: Path, command: Callable[..., Any]) -> None:
    out, root = tmp_path / "split.json", str(data.root)
    named = "--labeled-files", written(tmp_path, LIST)
    said = command("split", "imagenet", "--root", root, "--image-size", "8", *named, "-o", out)
    assert said.code == 0 and "3 labeled, 36 unlabeled" in said.out, said.err
    assert json.loads(out.read_text())["labels"] == 3 and read_split(out).targets.tolist() == [0, 2, 2]
    settings = "--net small-4 --steps 2 --batch 2 --data.image-size 16 --no-baseline --no-progress"
    options = [*settings.split(), "--data.root", root, "--data.split", str(out), "--out", str(tmp_path / "run")]
    said = command("train", "fixmatch", "--data", "imagenet", *options)
    assert said.code == 0 and "3 labeled and 36 unlabeled images" in said.out, said.err
    said = command("split", "imagenet@6", "--root", root, *named)
    assert "--labeled-files names the labeled pictures" in said.sentence
