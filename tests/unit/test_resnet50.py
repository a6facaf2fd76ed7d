"""The ResNet-50 of google-research/fixmatch, imagenet/models/resnet50_model.py."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50

from fewlabels import nets


@pytest.mark.slow
def test_it_has_the_parameters_and_the_start_of_the_original() -> None:
    torch.manual_seed(0)
    net = nets.build("resnet50", classes=1000, shape=(3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 53 and all(m.bias is None for m in convolutions)
    for m in convolutions:
        he = math.sqrt(2 / (m.in_channels * m.kernel_size[0] * m.kernel_size[1]))
        assert m.weight.std().item() == pytest.approx(he, rel=0.03)
        assert m.weight.abs().max().item() <= 2 * he / 0.87962566 + 1e-6  # cut off at two sigma
    assert net.linear.weight.std().item() == pytest.approx(0.01, rel=0.01) and not net.linear.bias.any()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)} and all((m.weight == 1).all() for m in norms)


@pytest.mark.slow
@torch.no_grad()
def test_it_is_torchvision_s_where_the_padding_is_even() -> None:
    """Of 65 pixels every stage has an odd number, of which SAME pads one on each side, as torchvision does."""
    torch.manual_seed(0)
    ours, theirs = nets.build("resnet50", classes=7, shape=(3, 65, 65)), resnet50(num_classes=7)
    for net in (ours, theirs):
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                for value in (m.weight, m.bias, m.running_mean, m.running_var):
                    nn.init.uniform_(value, 0.5, 1.5)
    by_shape = {name: value for name, value in ours.state_dict().items() if "num_batches" not in name}
    renamed = {}
    for name, value in by_shape.items():
        renamed[_theirs(name)] = value
    missing = theirs.load_state_dict(renamed, strict=False)
    assert not missing.unexpected_keys and all("num_batches" in key for key in missing.missing_keys)
    x = torch.randn(2, 3, 65, 65)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def _theirs(name: str) -> str:
    if name.startswith("linear"):
        return name.replace("linear", "fc")
    if name.startswith("stem"):
        return name.replace("stem_bn", "bn1").replace("stem", "conv1")
    _, block, part, *rest = name.split(".")
    layer, first = next((i, f) for i, f in ((4, 13), (3, 7), (2, 3), (1, 0)) if int(block) >= f)
    if part == "shortcut":
        inner = ".".join(["downsample", *rest])
    else:
        inner = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}[int(rest[0])] + f".{rest[1]}"
    return f"layer{layer}.{int(block) - first}.{inner}"


@torch.no_grad()
def test_even_sizes_are_padded_at_the_end() -> None:
    """TensorFlow's SAME: one row below and one column to the right, none above and on the left."""
    net = nets.build("resnet50-4", classes=3, shape=(3, 64, 64)).eval()
    x = torch.rand(1, 3, 64, 64)
    h = F.relu(net.stem_bn(net.stem(x)))
    pooled = F.max_pool2d(F.pad(h, (0, 1, 0, 1), value=-1e9), 3, 2)
    expected = net.blocks(pooled).mean((2, 3))
    assert torch.allclose(net.features(x), expected)
    middle = net.blocks[3].body[3]
    y = torch.rand(1, middle.in_channels, 8, 8)
    assert torch.allclose(middle(y), F.conv2d(F.pad(y, (0, 1, 0, 1)), middle.weight, stride=2))
