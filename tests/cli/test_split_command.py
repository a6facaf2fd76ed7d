"""`fewlabels split` and `--data.split`: the images behind a name, written down and given back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewlabels import cli
from fewlabels.commands.train_options import read
from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.config.settings import Data
from fewlabels.data.split import read_split


def test_the_file_says_all_and_gives_the_split_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "split.json"
    args = ["split", "digits.2@20-30", "--rule", "cadr", "--imbalance", "10", "--keep-labeled", "0,1,2,3,4", "--remap"]
    args += ["--keep-test", "0,1,2,3,4", "--out", str(path), "--json"]
    assert cli.run(args) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(path.read_text())
    assert (shown["source"], shown["rule"], shown["seed"]) == ("digits", "cadr", 2)
    kept = [0, 1, 2, 3, 4]
    assert shown["parameters"] == {"imbalance": 10.0, "keep_labeled": kept, "keep_test": kept, "remap": True}
    # ceil(20 * 10 ** (-c / 9)) of the first five classes
    assert shown["class_counts"] == {"0": 20, "1": 16, "2": 12, "3": 10, "4": 8}
    assert shown["validation"] == sorted(shown["validation"]) and len(shown["validation"]) == 30
    assert shown["unlabeled_count"] == 1437 - 30
    data = resolve_data(Data("digits", split=str(path)))
    assert (data.labels, data.seed, data.valid, data.rule, data.imbalance) == (20, 2, 30, "cadr", 10.0)
    source = load_source(data)
    assert source.classes == ("0", "1", "2", "3", "4") and set(source.test_labels.tolist()) == set(kept)
    back = split_of(data, source)
    assert back.fingerprint == shown["fingerprint"] and back.labeled.tolist() == shown["labeled"]
    original = split_of(resolve_data(Data("digits.2@20-30", **_options(data))), source)
    assert back.validation.tolist() == original.validation.tolist()
    assert np.array_equal(back.unlabeled, original.unlabeled)
    assert back == original


def _options(data: Data) -> dict[str, Any]:
    names = ("rule", "imbalance", "keep_labeled", "keep_test", "remap")
    return {name: getattr(data, name) for name in names}


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["split", "digits.0@10-5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits.0@10-5: source digits, rule fixmatch, seed 0"
    assert lines[1] == "10 labeled, 1432 unlabeled, 5 validation, 360 test images"
    assert [line.split()[1] for line in lines[3:13]] == ["1"] * 10
    assert lines[-1].startswith("fingerprint ")


def test_a_split_file_names_the_data_set_and_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert cli.run(["split", "digits.2@40", "--out", str(path)]) == 0
    command = read(["fixmatch", "--data.split", str(path)])
    assert command.train.data.name == "digits" and command.train.net.name == "small"
    assert resolve_data(command.train.data).labels == 40


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["digits", "--out", "FILE"], "exists; name another file"),
        (["digits.3@40", "--split", "FILE"], "says seed 2, but --seed is 3"),
        (["digits", "--labels", "50", "--split", "FILE"], "says labels 40, but --labels is 50"),
        (["digits", "--imbalance", "2", "--split", "FILE"], "says imbalance None, but --imbalance is 2.0"),
        (["digits", "--unlabeled", "rest", "--split", "FILE"], "--unlabeled rest cannot be chosen"),
        (["digits", "--split", "FILE-not"], "cannot be read: No such file"),
        (["digits", "--split", "OTHER"], "this is not the JSON of a split"),
        (["digits", "--split", "CHANGED"], "was changed after it was written"),
        (["digits", "--split", "FOREIGN"], "the split was made from cifar10, not from digits"),
        (["digits@40", "--keep-test", "ten"], "keep_test: there is no class 'ten'"),
    ],
)
def test_what_does_not_fit_is_said(
    args: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = tmp_path / "split.json", tmp_path / "other.json"
    assert cli.run(["split", "digits.2@40", "--out", str(path)]) == 0
    raw = json.loads(path.read_text())
    other.write_text("{}")
    changed, foreign = tmp_path / "changed.json", tmp_path / "foreign.json"
    changed.write_text(json.dumps(raw | {"rule": "balanced"}))
    foreign.write_text(json.dumps(raw | {"source": "cifar10"}))
    files = {"FILE": path, "OTHER": other, "CHANGED": changed, "FOREIGN": foreign, "FILE-not": tmp_path / "none.json"}
    assert cli.run(["split", *(str(files.get(arg, arg)) for arg in args)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_split_of_other_labels_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    assert cli.run(["split", "digits.2@40", "--out", str(path)]) == 0
    source = load_source(resolve_data(Data("digits")))
    object.__setattr__(source, "labels", (source.labels + 1) % 10)
    with pytest.raises(ValueError, match="images have other labels than when it was made"):
        read_split(path).check_fit(source)


@pytest.mark.slow
def test_a_split_of_own_pictures_needs_its_folder(command: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    """A file says which pictures, and never where: its text opens no folder."""
    file = tmp_path / "split.json"
    assert command("split", f"{photos}/", "--output", file).code == 0
    said = command("train", "--data.split", file, "--dry-run")
    assert said.code == 2
    assert said.sentence == f"the split file {file} was made from own pictures ('photos'): say where they are (--data)"
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    assert command("split", f"{moved}/", "--split", file).code == 0
    (moved / "labeled/red/0.png").rename(moved / "labeled/red/9.png")
    said = command("split", f"{moved}/", "--split", file)
    assert said.code == 2 and said.sentence.startswith(
        "the split does not fit moved: the training pictures are others now"
    )


@pytest.mark.slow
def test_a_root_that_is_none(command: Callable[..., Any], tmp_path: Path) -> None:
    gone, file = tmp_path / "gone", tmp_path / "file"
    file.write_text("")
    for name, root, sentence in (
        ("tiny_imagenet", gone, f"there is no folder {gone} (--data.root), and tiny_imagenet is not downloaded"),
        ("photos.csv", gone, f"there is no folder {gone} (--data.root), and photos.csv is not downloaded"),
        ("cifar10@40", file, f"--data.root {file} is a file; it must be a folder"),
    ):
        said = command("train", "--data", name, "--data.root", root, "--dry-run")
        assert said.code == 2 and said.sentence == sentence
