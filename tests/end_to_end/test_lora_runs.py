"""Runs that learn bypasses beside a body that stays: what they hold, that they go on, and what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import fewlabels as fl
from algorithm_cases import SHAPE, killed_in, toy, toy_training
from fewlabels import nets
from fewlabels.config.resolve import pixel_statistics
from fewlabels.inference.evaluate import evaluate
from fewlabels.inference.model import load_predictor
from fewlabels.runs.run import Run
from fewlabels.runtime.words import amount
from fewlabels.training.estimate import estimate
from fewlabels.training.loop import Output
from fewlabels.training.step import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

VIT = "timm:test_vit"
LAYERS = 6 * 4
"""qkv, proj, fc1 and fc2 of each block."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights" / "w.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(nets.build(VIT, classes=7, shape=SHAPE, patch=4).state_dict(), path)
    return path


def lora(weights: Path, algorithm: Any = None, *, net: dict[str, Any] | None = None, **changes: Any) -> fl.Train:
    settings = {"patch": 4, "pretrained": str(weights), "train": "lora", "rank": 2, **(net or {})}
    optim = fl.Optim("adamw", lr=0.01)
    return toy_training(algorithm or fl.FixMatch(tau=0.4), net=fl.Net(VIT, **settings), optim=optim, **changes)


def wide(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path / "weights.safetensors")


@pytest.mark.slow
def test_the_head_and_the_bypasses_learn(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers: list[Trainer] = []
    original = Trainer.step

    def watched(self: Trainer, number: int) -> None:
        original(self, number)
        trainers[:] = [self]

    monkeypatch.setattr(Trainer, "step", watched)
    run = fl.train(lora(weights, steps=4, eval_every=2), out=tmp_path / "run", source=toy())
    trainer, given = trainers[0], safetensors.torch.load_file(weights)
    body = {key for key in given if not key.startswith("linear.")}
    for model in (trainer.model, trainer.average.model):
        state = model.net.state_dict()
        assert all(torch.equal(state[key], given[key]) for key in body)
    mine = dict(trainer.average.model.net.named_parameters())
    assert all(mine[key] is p for key, p in trainer.model.net.named_parameters() if key in body), "held once"

    checkpoints = run.checkpoints()
    assert {c.best for c in checkpoints} == {True, False}
    for checkpoint in checkpoints:
        held = {key.partition(".")[2].removeprefix("net.") for key in wide(checkpoint.path)}
        assert len(held) == 2 + 2 * LAYERS and held & body == set()
        assert all(key.startswith("linear.") or key.endswith((".lora_a", ".lora_b")) for key in held)
    raw = wide(run.checkpoint().path)
    moved = [key for key in raw if key.startswith("raw.") and not torch.equal(raw[key], raw[f"ema.{key[4:]}"])]
    assert len(moved) == 2 + 2 * LAYERS
    learning = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for p in trainer.model.parameters() if p.requires_grad}
    trained = run.result["parameters"]
    assert trained == 3 * 64 + 3 + sum(raw[key].numel() for key in raw if key[:3] == "raw" and "lora" in key)
    # two models, and two means of AdamW; keys, shapes and what a file of torch adds
    size = sum(f.stat().st_size for f in checkpoints[0].path.iterdir())
    assert size < 4 * 4 * trained + 150_000 < 4 * sum(v.numel() for v in given.values()) + 150_000


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(weights: Path, tmp_path: Path) -> None:
    config = lora(weights, steps=6, save_every=3, net={"drop_path": 0.3, "head": "probe"})
    whole = fl.train(config, out=tmp_path / "whole", source=toy())
    killed_in(4, config, tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    run = fl.resume(tmp_path / "run", source=toy())
    for one, two in ((whole.checkpoint().path, run.checkpoint().path), (whole.path, run.path)):
        first, second = wide(one), wide(two)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert whole.result["accuracy"] == run.result["accuracy"]


@pytest.mark.slow
def test_a_finished_run_predicts_without_the_body(weights: Path, tmp_path: Path) -> None:
    """With a whole net of the ordinary names: what it gives are the bits of the averaged net with its bypasses."""
    run = fl.train(lora(weights), out=tmp_path / "run", source=toy())
    found = load_predictor(run, weights="raw")
    assert found.model.frozen
    averaged = load_predictor(Run(run.path))
    assert not averaged.model.frozen
    found.model.adopt(run.checkpoint().weights("ema"))
    images = toy().test_images
    assert torch.equal(found.logits(images), averaged.logits(images))
    assert evaluate(Run(run.path), toy())["accuracy"] == run.result["accuracy"] > 40  # chance is 33.3 %

    weights.unlink()
    expected = averaged.logits(images[:9]).softmax(1).numpy()
    np.testing.assert_allclose(fl.load(run.path).predict_proba(images[:9]), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"holds the head and the bypasses of its net only, and the file of the body"):
        load_predictor(Run(run.path), weights="raw")

    # as a start for another training, of all of the net
    start = toy_training(fl.Supervised(), net=fl.Net(VIT, patch=4, pretrained=str(run.path)), steps=1)
    second = fl.train(start, out=tmp_path / "second", source=toy())
    told = second.data["pretrained"]
    assert (told["run"], told["step"]) == (str(run.path), 8)
    assert told["weights"] == str(run.path / "weights.safetensors")

    whole = run.path / "weights.safetensors"
    content = bytearray(whole.read_bytes())
    content[-1] ^= 1
    whole.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.safetensors has changed since it was written"):
        fl.load(run.path)


@pytest.mark.slow
def test_the_body_is_another_one(weights: Path, tmp_path: Path) -> None:
    run = fl.train(lora(weights, steps=2), out=tmp_path / "run", source=toy())
    told = json.loads((run.path / "data.json").read_text())["body"]
    assert told["weights"] == str(weights.resolve()) and len(told["sha256"]) == 64
    (run.path / "result.json").unlink()
    start = toy_training(fl.Supervised(), net=fl.Net(VIT, patch=4, pretrained=str(run.path)), steps=1)
    with pytest.raises(ValueError) as error:
        fl.train(start, out=tmp_path / "second", source=toy())
    assert str(error.value) == (
        f"{run.path} holds the head and the bypasses of its net only, which is nothing to start from; the weights of "
        f"its body are had with Net.pretrained {weights.resolve()}"
    )
    state = safetensors.torch.load_file(weights)
    state["backbone.blocks.3.norm1.bias"] = state["backbone.blocks.3.norm1.bias"] + 1e-3
    safetensors.torch.save_file(state, weights)
    with pytest.raises(ValueError) as error:
        fl.resume(run.path, source=toy())
    assert str(error.value) == (
        f"the weights in {weights.resolve()} are others than when {run.path} was trained on their features: put back "
        "those, or train a new run"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "trains"), [(1.0, ("all", "lora", "head")), (0.07, ("lora",))])
def test_the_head_starts_as_a_logistic_regression(
    weights: Path, tmp_path: Path, temperature: float, trains: tuple[str, ...]
) -> None:
    """That of scikit-learn on the features of the file's own net; with bypasses, which start with nothing, too."""
    from sklearn.linear_model import LogisticRegression

    heads = []
    for train in trains:
        net = {"train": train, "head": "probe"} | ({} if train == "lora" else {"rank": 4})
        said: list[str] = []
        optim = fl.Optim("adamw", lr=1e-12)
        config = replace(lora(weights, fl.FixMatch(loss_temperature=temperature), net=net, steps=1), optim=optim)
        run = fl.train(config, out=tmp_path / train, source=toy(), output=Output(say=said.append))
        assert any(line.startswith("the head starts as a logistic regression on 12 labels, of which") for line in said)
        heads.append([wide(run.checkpoint().path)[f"raw.net.linear.{part}"].double() for part in ("weight", "bias")])
    for one in heads[1:]:
        torch.testing.assert_close(one, heads[0], rtol=0, atol=2e-3 * temperature)

    net = nets.build(VIT, classes=3, shape=SHAPE, patch=4, pretrained=str(weights)).eval()
    mean, std = (np.array(part) for part in pixel_statistics(run.config, toy()))

    def features(images: Any) -> Any:
        x = torch.from_numpy((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
        with torch.no_grad():
            return net.features(x).double().numpy()

    rows = run.split.labeled
    f = features(toy().images[rows])
    middle, length = f.mean(0), np.sqrt(((f - f.mean(0)) ** 2).sum(1).mean())
    model = LogisticRegression(C=10, max_iter=10_000, tol=1e-8).fit((f - middle) / length, toy().labels[rows])
    tests = features(toy().test_images)
    theirs = model.predict_proba((tests - middle) / length)
    weight, bias = (part.numpy() for part in heads[0])
    logits = (tests @ weight.T + bias) / temperature
    mine = np.exp(logits - logits.max(1, keepdims=True))
    assert np.abs(mine / mine.sum(1, keepdims=True) - theirs).max() < 0.01
    predicted = fl.load(run.path).predict_proba(toy().test_images)
    assert np.abs(predicted - theirs).max() < 0.01


@pytest.mark.slow
def test_a_dry_run_counts_the_body_too(weights: Path) -> None:
    """Once, 4 bytes a value; what learns takes 16: twice, and with two means of AdamW."""
    safetensors.torch.save_file(nets.build(VIT, classes=7, shape=(1, 8, 8), patch=4).state_dict(), weights)
    net = fl.Net(VIT, patch=4, pretrained=str(weights), train="lora", rank=2)
    lines = estimate(replace(toy_training(fl.Supervised(), net=net), data=fl.Data("digits@40"))).lines
    body = sum(p.numel() for p in timm.create_model("test_vit", img_size=8, patch_size=4, in_chans=1).parameters())
    body -= 1000 * 64 + 1000  # its head
    learning = 64 * 10 + 10 + 6 * 2 * ((64 + 192) + (64 + 64) + (64 + 192) + (192 + 64))
    assert lines["net"] == f"{VIT}, {learning:,} parameters that learn, beside {body:,}"
    assert f", {amount(16 * learning + 4 * body)} weights and optimizer" in lines["memory"]


@pytest.mark.slow
def test_what_cannot_be(weights: Path, tmp_path: Path) -> None:
    def refused(message: str, config: fl.Train) -> None:
        with pytest.raises(ValueError) as error:
            fl.train(config, out=tmp_path / "run", source=toy())
        assert str(error.value) == message
        assert not (tmp_path / "run").exists()

    needs = (
        "beside which Net.train lora learns; a ViT or a ConvNeXt of timm has them, such as "
        "timm:vit_small_patch14_dinov2.lvd142m"
    )
    config = lora(weights)
    for name in ("wrn-10-1", "timm:tf_efficientnet_lite0", "torchvision:vit_b_16"):
        net = fl.Net(name, pretrained=str(weights), train="lora")
        refused(f"net {name!r} has no linear layers of attention or MLP, {needs}", replace(config, net=net))
    refused(
        "Net.train lora leaves the body of the net as it is, which then must be a learned one: give Net.pretrained "
        "True or a file of weights",
        replace(config, net=fl.Net(VIT, train="lora")),
    )
    refused(
        "Net.head probe is fitted to the features of a learned net: give Net.pretrained True or a file of weights",
        replace(config, net=fl.Net(VIT, head="probe")),
    )
    refused(
        "net 'timm:vgg11' has no paths to drop (Net.drop_path is 0.2)",
        replace(config, net=fl.Net("timm:vgg11", drop_path=0.2)),
    )
    for name in ("wrn-10-1", "torchvision:vit_b_16"):
        net = fl.Net(name, drop_path=0.2)
        refused(f"Net.drop_path is for nets of timm, not for {name!r}", replace(config, net=net))
    for field, value in (("rank", 8), ("alpha", 2.0)):
        with pytest.raises(ValueError, match=rf"^Net.{field} {value:g} is for Net.train lora, not for all$"):
            fl.Net(**{field: value})
    with pytest.raises(ValueError, match=r"^Net.drop_path 0.1 is for a body that learns, not for Net.train head$"):
        fl.Net(drop_path=0.1, train="head")
    head = fl.Net("wrn-10-1", train="head", pretrained="w.pth")
    with pytest.raises(ValueError, match=r"^Optim.body 0.01 is for a body that learns, not for Net.train head$"):
        fl.Train(net=head, optim=fl.Optim(body=0.01))
    with pytest.raises(ValueError, match=r"^Net.head probe is not for frozen, which fits the head itself$"):
        fl.Train(algorithm=fl.Frozen(), net=replace(head, head="probe"))
    with pytest.raises(ValueError, match=r"^Missing.name cadr goes by .*CADR.loss_temperature 0.07 trains others"):
        fl.train(lora(weights, fl.CADR(loss_temperature=0.07)), out=tmp_path / "run", source=toy())
