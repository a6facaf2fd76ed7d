"""fewlabels train --recipe: weaker than --config and options, stronger than the automatic recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels.commands.options import parse
from fewlabels.commands.train_options import Command, read
from fewlabels.config.recipes import recipe
from fewlabels.config.settings import algorithm_name


@pytest.mark.slow
def test_the_recipe_is_the_default() -> None:
    assert read(["--recipe", "google-vat-svhn"]).train == recipe("google-vat-svhn")
    assert read(["vat", "--recipe=google-vat-svhn"]).train == recipe("google-vat-svhn")
    assert read(["--recipe", "google-vat-svhn"]).train.algorithm == fl.VAT(eps=6.0)
    assert read(["--recipe", "google-ict-svhn", "--recipe", "google-vat-svhn"]).train.algorithm == fl.VAT(eps=6.0)


@pytest.mark.slow
def test_options_and_the_file_are_stronger(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"optim": {"lr": 0.7, "weight_decay": 0.5}, "data": {"name": "svhn.4@40"}}))
    given = ("--recipe", "google-vat-svhn", "--config", str(file))
    one = read([*given]).train
    assert (one.optim.name, one.optim.lr, one.optim.weight_decay, one.data.name) == ("adamw", 0.7, 0.5, "svhn.4@40")
    two = read([*given, "--optim.lr", "0.9", "--eps", "3", "--data", "photos/"]).train
    assert (two.optim.lr, two.optim.weight_decay, two.data.name) == (0.9, 0.5, "photos/")
    assert two.algorithm == fl.VAT(eps=3.0) and two.steps == 2**20  # the recipe's, not that of a folder


@pytest.mark.slow
def test_the_net_of_options_and_file_decides_what_follows_from_it(tmp_path: Path) -> None:
    """Of a folder: momentum of batch norm and learning rate, unless they are given."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"net": {"name": "timm:resnet18", "pretrained": "w.pth"}}))
    folder = ("--data", "photos/")

    def found(*args: str) -> tuple[str, float | None, float]:
        train = read([*args]).train
        return train.net.name, train.net.bn_momentum, train.optim.lr

    assert found(*folder) == ("wrn-10-2", 0.01, 0.03)
    assert found(*folder, "--net", "wrn-28-2") == ("wrn-28-2", 0.01, 0.03)
    assert found(*folder, "--net", "small") == ("small", None, 0.03)
    assert found(*folder, "--net=torchvision:resnet18") == ("torchvision:resnet18", None, 0.03)
    learned = (*folder, "--net", "torchvision:resnet18", "--net.pretrained", "True")
    assert found("uda", *learned) == ("torchvision:resnet18", None, 0.003)
    moving = ("--net.bn-momentum", "0.01", "--net.no-freeze-bn")
    assert found(*learned, *moving, "--optim.lr", "0.03") == ("torchvision:resnet18", 0.01, 0.03)
    with pytest.raises(ValueError, match=r"--net.no-freeze-bn\) with it$"):
        read([*learned, *moving[:2]]).train.net.check()
    assert found(*folder, "--config", str(file)) == ("timm:resnet18", None, 0.003)
    assert found(*folder, "--config", str(file), "--net", "wrn-28-2") == ("wrn-28-2", 0.01, 0.003)  # of w.pth still
    assert found("--data", "digits@40", "--net.pretrained", "w.pth") == ("small", None, 0.003)
    net = {"name": "timm:resnet18", "bn_momentum": 0.2, "freeze_bn": False}
    file.write_text(json.dumps({"net": net, "optim": {"lr": 0.5}}))
    assert found(*folder, "--config", str(file), "--net.pretrained", "True") == ("timm:resnet18", 0.2, 0.5)
    assert found("--recipe", "google-vat-svhn", *learned) == ("torchvision:resnet18", None, 0.002)


@pytest.mark.slow
def test_hint_for_another_net(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line on standard error; the settings on standard output stay JSON and four lines."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    said = command("train", "--data", "cifar100@400", "--net", "small-2", "--dry-run", "--json")
    assert said.code == 0 and said.err == "note: published CIFAR-100 numbers use wrn-28-8, weight decay 0.001\n"
    assert json.loads(said.out)["train"]["net"]["name"] == "small-2"
    assert command("train", "--data", "cifar10@40", "--net", "small-2", "--dry-run").err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "fixmatch --data cifar10.2@250 --tau 0.7 --optim.lr 0.1 --optim.lr=0.2 --no-baseline",
        "vat --data=digits.1@20 --xi 0.5 --steps 9 --data.keep-labeled 0,1 --no-compile",
        "uda --data stl10.1@1000 --missing cadr --missing.momentum 0.5 --openset energy --openset.use weight",
        "--data svhn.1@250 --lambda_u 2 --net wrn-28-2 --net.bn_momentum 0.01 --seed 3",
    ],
)
def test_options_over_defaults_are_what_parsing_over_them_gives(words: str) -> None:
    args = words.split()
    command = read(args)
    algorithm, data = algorithm_name(command.train.algorithm), command.train.data.name
    default = Command(train=recipe(algorithm, data, net=command.train.net.name))
    assert command == parse(Command, args, prog="fewlabels train", default=replace(default, baseline=command.baseline))
