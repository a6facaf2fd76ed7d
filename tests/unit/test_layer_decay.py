"""Learning rates by layer, and what is not decayed, against BEiT's rule written down by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import timm.optim
import torch
from torch import nn

import fewlabels as fl
from fewlabels import nets
from fewlabels.config.resolve import load_source, resolve, resolve_data, split_of
from fewlabels.training.optim import learning_rate, make_optimizer
from fewlabels.training.step import Trainer

CPU = torch.device("cpu")


def rates(net: nn.Module, config: fl.Optim) -> dict[str, tuple[float, float]]:
    """Scale of the learning rate and weight decay of each parameter by name."""
    names = {id(p): name for name, p in net.named_parameters()}
    groups = make_optimizer(net, config, CPU).param_groups
    found = {names[id(p)]: (g["scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == len(names) == sum(len(g["params"]) for g in groups)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "block", "first", "depth"),
    [
        ("timm:vit_tiny_patch16_224", r"backbone\.blocks\.(\d+)\.", ("cls_token", "pos_embed", "patch_embed"), 12),
        (
            "torchvision:vit_b_16",
            r"backbone\.encoder\.layers\.encoder_layer_(\d+)\.",
            ("class_token", "encoder.pos_embedding", "conv_proj"),
            12,
        ),
    ],
)
def test_vit(name: str, block: str, first: tuple[str, ...], depth: int) -> None:
    """Layer 0 is the embedding, block i is layer i + 1, the head depth + 1; a layer's rate is lr d^(depth + 1 - layer).

    The norm after the last block is of that block's layer, as in timm; BEiT counts it with the head.
    """
    with torch.device("meta"):
        net = nets.build(name, classes=10, shape=(3, 32, 32))
    seen = set()
    for key, (scale, decay) in rates(net, fl.Optim("adamw", weight_decay=0.05, layer_decay=0.65)).items():
        if match := re.match(block, key):
            layer = int(match[1]) + 1
        elif key.startswith("linear."):
            layer = depth + 1
        elif key.startswith(tuple(f"backbone.{part}" for part in first)):
            layer = 0
        else:
            assert key.rpartition(".")[0] in ("backbone.norm", "backbone.encoder.ln"), key
            layer = depth
        seen.add(layer)
        assert scale == pytest.approx(0.65 ** (depth + 1 - layer)), key
        token = key.endswith(("cls_token", "class_token", "pos_embed", "pos_embedding"))
        vector = key.endswith("bias") or ".norm" in key or ".ln" in key
        assert decay == (0.0 if token or vector else 0.05), key
    assert seen == set(range(depth + 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet18", "timm:test_convnext", "timm:test_vit"])
def test_any_net_of_timm_is_as_timm_does_it(name: str) -> None:
    """timm's own groups, for its own net with a head."""
    own = timm.create_model(name.removeprefix("timm:"), num_classes=10, **({"img_size": 32} if "vit" in name else {}))
    net = nets.build(name, classes=10, shape=(3, 32, 32))
    head = {key for key, _ in own.named_parameters()} - {key for key, _ in net.backbone.named_parameters()}
    names = {id(p): key for key, p in own.named_parameters()}
    skip = own.no_weight_decay() if hasattr(own, "no_weight_decay") else ()
    groups = timm.optim.param_groups_layer_decay(own, weight_decay=0.05, no_weight_decay_list=skip, layer_decay=0.5)
    theirs = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    ours = rates(net, fl.Optim(weight_decay=0.05, layer_decay=0.5))
    for key, expected in theirs.items():
        if key not in head:
            assert ours[f"backbone.{key}"] == pytest.approx(expected), key
    assert ours["linear.weight"] == (1.0, 0.05) and ours["linear.bias"] == (1.0, 0.0)


def test_without_layer_decay_there_are_two_groups() -> None:
    net = nets.build("timm:test_vit", classes=10, shape=(3, 32, 32), patch=8)
    groups = make_optimizer(net, fl.Optim(weight_decay=0.1), CPU).param_groups
    assert [(g["weight_decay"], g["scale"]) for g in groups] == [(0.1, 1.0), (0.0, 1.0)]
    decayed = {id(p) for p in groups[0]["params"]}
    plain = {key for key, p in net.named_parameters() if id(p) not in decayed and p.ndim > 1}
    assert plain >= {"backbone.pos_embed"} and all("token" in key or "pos_embed" in key for key in plain)


@pytest.mark.parametrize("name", ["wrn-10-1", "small-4", "torchvision:resnet18"])
def test_nets_that_cannot_say_their_layers(name: str) -> None:
    with torch.device("meta"):
        net = nets.build(name, classes=3, shape=(3, 32, 32))
    what = f"'{name}'" if ":" in name else "this one"
    message = rf"^Optim.layer_decay 0.5 needs a net that can say its layers, such as timm:\w+; {what} cannot$"
    with pytest.raises(ValueError, match=message):
        make_optimizer(net, fl.Optim(layer_decay=0.5), CPU)


@pytest.mark.slow
def test_layers_learn_at_their_own_rates_under_the_schedule(short: Callable[..., fl.Train]) -> None:
    """The step's rate times d^(depth + 1 - layer); the logged rate is that of the head."""
    config = short(
        net=fl.Net("timm:test_vit", patch=4), optim=fl.Optim(lr=0.5, layer_decay=0.5, schedule="linear", warmup=4)
    )
    config = replace(config, data=resolve_data(config.data))
    source = load_source(config.data)
    config = resolve(config, source)
    split = split_of(config.data, source)
    trainer = Trainer(config, source, split, device=CPU, mean=(0.5,), std=(0.5,))
    depth = len(trainer.model.net.backbone.blocks)
    for step, rate in ((0, 0.0), (2, 0.25), (8, 0.25)):
        trainer.step(step)
        lrs = {g["lr"] for g in trainer.optimizer.param_groups}
        assert lrs == {rate * 0.5**k for k in range(depth + 2)}
        assert trainer.optimizer.param_groups[0]["lr"] == rate == learning_rate(config.optim, step, 12)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"^Optim.layer_decay must be a number above 0 and at most 1, got"):
        fl.Optim(layer_decay=value)
