"""Batch normalisation that keeps the statistics of learned weights while the net learns: `Net.freeze_bn`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import fewlabels as fl
from fewlabels import nets
from fewlabels.inference.model import Model

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net whose statistics are not those of a new one."""
    net = nets.build("small-4", classes=10, shape=(1, 8, 8))
    for _ in range(3):
        net.train()(torch.randn(16, 1, 8, 8) * 2 + 1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    safetensors.torch.save_file(net.state_dict(), path)
    return path


def held(path: Path) -> Model:
    net = nets.build("small-4", classes=10, shape=(1, 8, 8), pretrained=str(path))
    return Model(net, {"other": nn.BatchNorm1d(net.dim)}, held=True)  # type: ignore[arg-type]


def test_the_net_in_training_is_the_net_in_evaluation(weights: Path) -> None:
    model, x = held(weights), torch.randn(8, 1, 8, 8) * 3 - 1
    expected = model.eval()(x)
    before = copy.deepcopy(model.net.state_dict())
    for trained in (model.train(), model.train().twin(), copy.deepcopy(model.train())):
        assert trained.training and torch.equal(trained(x), expected)
        with nets.frozen_statistics(trained):
            assert torch.equal(trained(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())
    live = Model(model.net).train()
    assert not torch.allclose(live(x), expected, atol=1e-3)


def test_other_heads_are_as_they_were(weights: Path) -> None:
    model = held(weights)
    features = torch.randn(8, model.dim) + 5
    model.train().heads["other"](features)
    assert model.heads["other"].running_mean.abs().min() > 0.1


@pytest.mark.parametrize("algorithm", [fl.FixMatch(), fl.MixMatch(), fl.MeanTeacher()])
def test_a_training_moves_scales_and_no_statistics(
    algorithm: Any, weights: Path, short: Callable[..., Any], no_report: None, tmp_path: Path
) -> None:
    net = fl.Net("small-4", pretrained=str(weights), freeze_bn=True)
    base = short(algorithm.name, net=net, steps=3, eval_every=3, uratio=1)
    run = fl.train(replace(base, algorithm=algorithm), out=tmp_path / "run")
    start, own = safetensors.torch.load_file(weights), run.checkpoint("last").weights("raw")
    kept = [name for name in start if name.endswith(STATISTICS)]
    assert kept and all(torch.equal(own[f"net.{name}"], start[name]) for name in kept)
    moved = [name for name in start if name not in kept and not name.startswith("linear")]
    assert moved and all(not torch.equal(own[f"net.{name}"], start[name]) for name in moved)
    average = run.checkpoint("last").weights("ema")
    assert all(torch.allclose(average[f"net.{name}"].float(), start[name].float()) for name in kept)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "Net.freeze_bn keeps the statistics of learned weights: give Net.pretrained True or a file of weights"),
        ({"pretrained": True, "train": "head"}, "Net.freeze_bn is for a body that learns; with Net.train head its"),
        ({"pretrained": True, "train": "lora"}, "Net.freeze_bn is for a body that learns; with Net.train lora its"),
        (
            {"pretrained": True, "bn_momentum": 0.1},
            "Net.bn_momentum 0.1 is of statistics that move, and Net.freeze_bn, which",
        ),
    ],
)
def test_what_it_does_not_go_with(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        fl.Net("timm:test_vit", freeze_bn=True, **settings).check()
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("data", "net", "settings", "frozen"),
    [
        ("photos/", "timm:resnet18", {"pretrained": True}, True),
        ("digits@40", "torchvision:resnet18", {"pretrained": "weights.pth"}, True),
        ("photos/", "timm:resnet18", {}, False),
        ("photos/", "timm:resnet18", {"pretrained": True, "train": "head"}, False),
        ("photos/", "wrn-10-2", {"pretrained": "runs/one"}, False),
        ("cifar10@40", "timm:resnet18", {"pretrained": True}, False),  # as the papers train
    ],
)
def test_recipes_for_own_pictures_keep_them(data: str, net: str, settings: dict[str, Any], frozen: bool) -> None:
    assert fl.recipe("fixmatch", data, net=net, **settings).net.freeze_bn == frozen
