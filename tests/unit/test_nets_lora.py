"""Bypasses of LoRA in nets of timm: where they are, what they add, and how fast they learn."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import timm
import torch
from torch import nn

import fewlabels as fl
from fewlabels import nets
from fewlabels.nets import lora
from fewlabels.training.optim import make_optimizer

SMALL: dict[str, dict[str, Any]] = {
    "test_vit": {"img_size": 32},
    "test_convnext": {},
    "beit_base_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 4},
}


def adapted(name: str, *, alpha: float | None = None, moved: bool = True) -> nn.Module:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0, **SMALL[name])
    lora.adapt(net, 4, alpha)
    for module in net.modules():
        if isinstance(module, lora.Adapted) and moved:
            nn.init.normal_(module.lora_b, std=0.2)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        # qkv, proj, fc1 and fc2 of each block and nothing else, such as a linear layer on patches
        ("vit_small_patch14_dinov2", 12 * 4),
        ("tiny_vit_5m_224", 10 * 4),
        ("convnext_tiny", (3 + 3 + 9 + 3) * 2),
        ("swinv2_tiny_window8_256", (2 + 2 + 6 + 2) * 4),
        ("naflexvit_base_patch16_gap", 12 * 4),
        ("mixer_s32_224", 8 * 4),
        ("tf_efficientnet_lite0", 0),
        ("resnet18", 0),
        ("resnet50_clip", 0),
    ],
)
def test_layers(name: str, layers: int) -> None:
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
    assert len(lora.layers(net)) == layers


@pytest.mark.slow
def test_trained_values_of_a_vit_s() -> None:
    """rank (in + out) of qkv, proj, fc1 and fc2: 4 (384 + 1152 + 384 + 384 + 384 + 1536 + 1536 + 384) in 12 blocks."""
    with torch.device("meta"):
        net = timm.create_model("vit_small_patch16_224", num_classes=0)
        lora.adapt(net, 4, None)
    assert sum(p.numel() for n, p in net.named_parameters() if lora.is_bypass(n)) == 294_912


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_merged_and_not(name: str) -> None:
    """At first the net is the learned one; later the merged layer, the bypass and the plain net of the merged weights
    give the same. A net that reads the weight of a layer and does not call it (BEiT's qkv) gets its bypass, too."""
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    start, net = adapted(name, moved=False), adapted(name)
    for one in (start, net):
        for module in one.modules():
            if isinstance(getattr(module, "gamma", None), nn.Parameter):  # 1e-6, which would hide it all
                module.gamma.fill_(1.0)
    plain = timm.create_model(name, num_classes=0, **SMALL[name]).eval()
    plain.load_state_dict({k: v for k, v in start.state_dict().items() if not lora.is_bypass(k)})
    assert torch.equal(start(x), plain(x))

    plain.load_state_dict(lora.merged(net))
    together = net(x)
    assert torch.equal(together, plain(x))
    assert (together - start(x)).abs().max() > 0.01
    for module in net.modules():
        if isinstance(module, lora.Adapted):
            module.train()
    torch.testing.assert_close(net(x), together, rtol=1e-5, atol=1e-5)
    for module in net.modules():  # without any one of them it is another net
        if isinstance(module, lora.Adapted):
            kept = module.lora_b.clone()
            module.lora_b.zero_()
            assert not torch.allclose(net(x), together, rtol=1e-5, atol=1e-5)
            module.lora_b.copy_(kept)


def test_scale_and_start() -> None:
    """alpha / rank; A starts as a linear layer does, uniform up to 1 / sqrt(in), and B with zeros."""
    for alpha, scale in ((None, 1.0), (8.0, 2.0), (1.0, 0.25)):
        net = adapted("test_vit", alpha=alpha, moved=False)
        for module in net.modules():
            if isinstance(module, lora.Adapted):
                assert module.scale == scale and not module.lora_b.any()
                bound = 1 / math.sqrt(module.in_features)
                assert 0.8 * bound < module.lora_a.abs().max() <= bound
                assert not module._parameters["weight"].requires_grad and not module.bias.requires_grad


def test_a_bypass_learns_like_its_layer() -> None:
    """At a tenth of the head's rate, and by layers; all is decayed but the head's bias."""
    net = nets.build("timm:test_vit", classes=3, shape=(3, 32, 32))
    nets.adapt(net, 4, None)
    nets.freeze(net, "lora")
    config = fl.Optim("adamw", weight_decay=0.1, layer_decay=0.5, body=0.1)
    groups = make_optimizer(net, config, torch.device("cpu")).param_groups
    names = {id(p): name for name, p in net.named_parameters()}
    found = {names[id(p)]: (g["scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert groups[0]["scale"] == 1.0
    for name, (scale, decay) in found.items():
        if match := re.match(r"backbone\.blocks\.(\d)\..*\.lora_[ab]$", name):
            assert scale == pytest.approx(0.1 * 0.5 ** (6 - int(match[1]))) and decay == 0.1
        else:
            assert (name, scale, decay) in (("linear.weight", 1.0, 0.1), ("linear.bias", 1.0, 0.0))
    assert len(found) == 2 + 6 * 4 * 2


@pytest.mark.parametrize("name", ["wrn-10-1", "small-4", "timm:resnet18"])
def test_a_slow_body_of_any_net(name: str) -> None:
    net = nets.build(name, classes=3, shape=(3, 32, 32))
    whole = nn.ModuleDict({"net": net, "further": nn.Linear(2, 2)})
    groups = make_optimizer(whole, fl.Optim(body=0.01), torch.device("cpu")).param_groups
    fast = {id(p) for g in groups if g["scale"] == 1.0 for p in g["params"]}
    slow = {id(p) for g in groups if g["scale"] == 0.01 for p in g["params"]}
    assert fast == {id(p) for part in (net.linear, whole["further"]) for p in part.parameters()}
    assert fast | slow == {id(p) for p in whole.parameters()}
    assert {(g["scale"], g["weight_decay"]) for g in groups} == {(s, d) for s in (1.0, 0.01) for d in (5e-4, 0.0)}
    usual = make_optimizer(whole, fl.Optim(), torch.device("cpu")).param_groups
    assert [(g["scale"], g["weight_decay"]) for g in usual] == [(1.0, 5e-4), (1.0, 0.0)]


@pytest.mark.slow
def test_paths_are_dropped_as_timm_has_it() -> None:
    from timm.layers.drop import DropPath

    for name in ("timm:test_vit", "timm:tf_efficientnet_lite0"):
        net = nets.build(name, classes=3, shape=(3, 32, 32), drop_path=0.3)
        theirs = timm.create_model(name.removeprefix("timm:"), drop_path_rate=0.3)
        rates = [[m.drop_prob for m in one.modules() if isinstance(m, DropPath)] for one in (net, theirs)]
        assert rates[0] == rates[1] and 0.2 < max(rates[0]) < 0.31 and len(rates[0]) > 5
        plain = nets.build(name, classes=3, shape=(3, 32, 32))
        assert not any(isinstance(m, DropPath) for m in plain.modules())
