"""LoRA against peft: outputs and gradients of a ViT and a ConvNeXt, in float64.

`lora.json` is what `by_peft` gave; where peft is installed, it is asked again.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from golden_recipe import entries, u64
from torch import Tensor, nn

from fewlabels.nets import lora

GOLDEN = entries("lora")
RANK, ALPHA = 4, 8.0
LAYERS = {
    "test_vit": r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))",
    "test_convnext": r"stages\.\d+\.blocks\.\d+\.mlp\.(fc1|fc2)",
}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(u64(seed, *shape))


def learned(name: str) -> nn.Module:
    """A net of timm whose weights are all written down: 0.1 u, norms and layer scales 1 + 0.1 u."""
    net = timm.create_model(name, num_classes=0, **({"img_size": 32} if "vit" in name else {})).double()
    with torch.no_grad():
        for i, (key, p) in enumerate(sorted(net.named_parameters())):
            near_one = p.ndim == 1 and not key.endswith("bias")
            p.copy_(0.1 * drawn(i, *p.shape) + float(near_one))
    return net


def bypasses(i: int, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """A and B of the i-th layer."""
    return 0.2 * drawn(1000 + i, RANK, layer.in_features), 0.2 * drawn(2000 + i, layer.out_features, RANK)


def outcome(net: nn.Module, pairs: dict[str, tuple[nn.Parameter, nn.Parameter]]) -> dict[str, Any]:
    """Features of two images, and of the gradient of each bypass its length and its product with drawn numbers."""
    x = drawn(7, 2, 3, 32, 32)
    out = net(x)
    (out * drawn(8, *out.shape)).sum().backward()
    found: dict[str, Any] = {"out": out.detach().flatten().tolist()}
    for name, pair in pairs.items():
        grads = [p.grad for p in pair]
        found[name] = [float(v) for i, g in enumerate(grads) for v in (g.norm(), (g * drawn(3000 + i, *g.shape)).sum())]
    return found


def by_peft(name: str) -> dict[str, Any]:
    peft = pytest.importorskip("peft", reason="peft is no dependency; its numbers are in lora.json")
    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=LAYERS[name])
    net = peft.get_peft_model(learned(name), settings).double().train()
    pairs = {}
    wrapped = {n.removeprefix("base_model.model."): m for n, m in net.named_modules() if hasattr(m, "lora_A")}
    for i, (key, m) in enumerate(sorted(wrapped.items())):
        pairs[key] = m.lora_A["default"].weight, m.lora_B["default"].weight
        with torch.no_grad():
            for p, value in zip(pairs[key], bypasses(i, m), strict=True):
                p.copy_(value)
    return outcome(net, pairs)


def ours(name: str) -> dict[str, Any]:
    net = learned(name)
    lora.adapt(net, RANK, ALPHA)
    pairs = {}
    for i, key in enumerate(sorted(lora.layers(net))):
        layer = net.get_submodule(key)
        assert isinstance(layer, lora.Adapted) and re.fullmatch(LAYERS[name], key)
        pairs[key] = layer.lora_a, layer.lora_b
        with torch.no_grad():
            for p, value in zip(pairs[key], bypasses(i, layer), strict=True):
                p.copy_(value)
    return outcome(net.train(), pairs)


def compare(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for key, values in one.items():
        assert values == pytest.approx(two[key], rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_peft(name: str) -> None:
    compare(ours(name), GOLDEN[name])


@pytest.mark.parametrize("name", LAYERS)
def test_peft_still_says_so(name: str) -> None:
    compare(by_peft(name), GOLDEN[name])
