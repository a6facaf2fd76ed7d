from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewlabels import nets
from fewlabels.nets import SmallCNN, WideResNet, WideResNetTF, frozen_statistics
from fewlabels.nets.layers import SameConv2d

DOCS = Path(__file__).parents[2] / "docs"


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "classes", "expected"),
    [
        ("wrn-28-2", 3, 10, 1_467_610),  # kekmodel and LeeDoYup
        ("wrn-28-8", 3, 100, 23_401_012),
        ("wrn-28-2-tf", 3, 10, 1_469_642),  # google-research/fixmatch, as all below
        ("wrn-28-2-tf", 3, 100, 1_481_252),
        ("wrn-28-2-tf", 1, 10, 1_469_354),
        ("wrn-28-4-tf", 3, 100, 5_876_228),
        ("wrn-28-8-tf", 3, 100, 23_409_092),
        ("wrn-28-8-tf", 3, 10, 23_362_922),
        ("wrn-37-2-tf", 3, 10, 5_933_770),
        ("cnn13-32", 3, 10, 197_290),
        ("cnn13", 3, 10, 3_123_850),
        ("shake", 3, 10, 2_923_130),
        ("shake-96", 3, 10, 26_192_890),
        ("resnet18", 3, 100, 11_230_948),  # CADR
        ("resnet18", 3, 10, 11_184_778),
        ("resnext-28-4x4", 3, 10, 1_019_722),  # kekmodel
        ("resnext-29-8x64", 3, 100, 34_518_948),
        ("torchvision:resnet50", 3, 1000, 25_557_032),  # google-research/fixmatch, imagenet/
        # by hand: 28 w + sum over s of (9 c^2 + c + 18 c^2 + 2 c), c = w 2^s, and 9 256 10 + 10
        ("convnet", 3, 10, 896 + 27_744 + 110_784 + 442_752 + 23_050),
    ],
)
def test_number_of_parameters(name: str, channels: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        net = nets.build(name, classes=classes, shape=(channels, 32, 32))
    assert count(net) == expected


@pytest.mark.slow
def test_number_of_parameters_of_forms_without_a_name() -> None:
    with torch.device("meta"):
        for name, options, classes, expected in (
            ("wrn-28-2-tf", {"stages": 5}, 10, 23_774_922),
            ("wrn-28-2-tf", {"stages": 4}, 10, 5_933_770),
            ("wrn-28-2-tf", {"width": 135}, 10, 25_985_290),
            ("wrn-28-2-tf", {"width": 135}, 100, 26_033_980),
            ("wrn-10-2-tf", {"blocks": 4}, 10, 1_469_642),
            ("wrn-28-2", {"width": 128}, 100, 23_401_012),
            ("wrn-10-1", {"width": 32, "blocks": 4}, 10, 1_467_610),
            ("shake-32", {"width": 96}, 10, 26_192_890),
            ("cnn13", {"width": 32}, 10, 197_290),
            ("small-64", {"width": 32}, 10, 57_130),
        ):
            shape = (3, 8, 8) if name == "small-64" else (3, 32, 32)
            assert count(nets.build(name, classes=classes, shape=shape, **options)) == expected, (name, options)
        # by hand, w = 32: (16 3 w + 2 w) + sum over o = 2 w, 4 w, 8 w of (9 o o/2 + 2 o + 9 o o + 2 o) + 2570
        assert count(nets.build("fast", classes=10, shape=(3, 32, 32))) == 1_167_178
        # by hand: (9 c 32 + 64) + (9 32 64 + 128) + (9 64 64 + 128) + 650
        assert count(nets.build("small", classes=10, shape=(1, 8, 8))) == 56_554
    tf = WideResNetTF(10)
    assert sum(p.numel() for p in tf.parameters() if p.dim() > 1) == 1_463_984  # what is decayed


@pytest.mark.slow
def test_documented_numbers_of_parameters() -> None:
    rows = re.findall(r"^\| `(\S+)` \| ([\d,]+) for (\d+) \|", (DOCS / "nets.md").read_text(), re.M)
    assert len(rows) == 15
    for name, number, classes in rows:
        with torch.device("meta"):
            net = nets.build(name, classes=int(classes), shape=(3, 32, 32))
        assert f"{count(net):,}" == number, name


NAMES = ("wrn-10-1", "wrn-10-1-tf", "wrn-13-1", "wrn-13-1-tf", "small-8", "fast-4", "cnn13-8", "convnet-4", "shake-8")
NAMES += ("resnet18-4", "resnet50-4", "resnext-11-2x2")


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(NAMES),
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    rows=st.integers(1, 3),
)
def test_any_image_size(name: str, channels: int, height: int, width: int, rows: int) -> None:
    least = {"cnn13-8": 12, "convnet-4": 8, "fast-4": 16}.get(name, 4)
    height, width = max(height, least), max(width, least)
    net = nets.build(name, classes=7, shape=(channels, height, width)).eval()
    x = torch.randn(rows, channels, height, width)
    features = net.features(x)
    assert features.shape == (rows, net.dim)
    logits = net(x)
    assert logits.shape == (rows, 7)
    assert torch.equal(logits, net.head(features))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(3, 16, 16))
    F.cross_entropy(net(torch.randn(6, 3, 16, 16)), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    for key, p in net.named_parameters():
        assert p.grad is not None, key
        assert p.grad.abs().sum() > 0, key


def test_wide_resnet_is_leedoyups_form() -> None:
    """Every block that changes the width feeds its activated input to both branches."""
    torch.manual_seed(0)
    net = WideResNet(10, width=16, blocks=2).eval()
    w = net.state_dict()
    for key, value in w.items():  # statistics that matter
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)

    def act(h: Tensor, bn: str) -> Tensor:
        mean, var = (w[f"{bn}.running_{kind}"].view(1, -1, 1, 1) for kind in ("mean", "var"))
        scale, shift = w[f"{bn}.weight"].view(1, -1, 1, 1), w[f"{bn}.bias"].view(1, -1, 1, 1)
        h = (h - mean) / torch.sqrt(var + 1e-5) * scale + shift
        return torch.where(h > 0, h, 0.1 * h)

    x = torch.randn(2, 3, 15, 15)
    h = F.conv2d(x, w["stem.weight"], padding=1)
    for i, (c_in, c_out, stride) in enumerate(
        [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
    ):
        activated = act(h, f"blocks.{i}.bn1")
        skip = h if c_in == c_out else F.conv2d(activated, w[f"blocks.{i}.shortcut.weight"], stride=stride)
        h = F.conv2d(activated, w[f"blocks.{i}.conv1.weight"], stride=stride, padding=1)
        h = skip + F.conv2d(act(h, f"blocks.{i}.bn2"), w[f"blocks.{i}.conv2.weight"], padding=1)
    features = act(h, "bn").mean((2, 3))
    torch.testing.assert_close(net(x), features @ w["linear.weight"].t() + w["linear.bias"], rtol=1e-4, atol=1e-5)


def test_fast_is_what_its_words_say() -> None:
    """The forward pass in NumPy: sums over patches, position by position."""
    torch.manual_seed(0)
    net = nets.build("fast-2", classes=3, shape=(3, 16, 16), stages=2).eval()
    w = {key: value.double().numpy() for key, value in net.state_dict().items() if value.is_floating_point()}
    for key in w:  # statistics that matter
        if key.endswith(("running_mean", "bias")):
            w[key][:] = np.linspace(-0.2, 0.3, len(w[key]))
        elif key.endswith("running_var") or (key.endswith("weight") and w[key].ndim == 1):
            w[key][:] = np.linspace(0.5, 2, len(w[key]))
    net.load_state_dict({k: torch.from_numpy(v).float() for k, v in w.items()}, strict=False)
    layers = iter([m for m in net.body if isinstance(m, nn.Conv2d | nn.BatchNorm2d)])
    names = {id(module): name for name, module in net.named_modules()}

    def convolved(h: np.ndarray, stride: int) -> np.ndarray:
        kernel = w[f"{names[id(next(layers))]}.weight"]
        side = kernel.shape[2]
        h = np.pad(h, ((0, 0), (1, 1), (1, 1)))
        places = range(0, h.shape[1] - side + 1, stride)
        return np.array(
            [[[(h[:, i : i + side, j : j + side] * one).sum() for j in places] for i in places] for one in kernel]
        )

    def activated(h: np.ndarray) -> np.ndarray:
        name = names[id(next(layers))]
        scale, shift, mean, var = (
            w[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return np.maximum((h - mean) / np.sqrt(var + 1e-5) * scale + shift, 0)

    x = torch.randn(1, 3, 16, 16)
    h = activated(convolved(x[0].double().numpy(), stride=2))
    for side in (8, 4):
        assert h.shape == (16 // side, side, side)
        h = convolved(h, stride=1)
        h = activated(h.reshape(len(h), side // 2, 2, side // 2, 2).max((2, 4)))
        h = activated(convolved(h, stride=1))
    expected = h.mean((1, 2)) @ w["linear.weight"].T + w["linear.bias"]
    np.testing.assert_allclose(net(x)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", [WideResNet(10, width=64, blocks=1), WideResNetTF(10, width=64, blocks=1)])
def test_initial_weights(net: nn.Module) -> None:
    for key, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            std = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert float(module.weight.detach().std()) == pytest.approx(std, rel=0.04), key
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            assert not module.bias.detach().any(), key
    std = math.sqrt(2 / (256 + 10))
    assert float(net.linear.weight.detach().std()) == pytest.approx(std, rel=0.08)


def test_glorot_normal_is_cut_at_two_sigma() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(400, 500)
    nets.glorot_normal_(linear)
    w = linear.weight.detach()
    std = math.sqrt(2 / 900)
    assert float(w.std()) == pytest.approx(std, rel=0.01)
    # two sigma of the normal before the cut; 0.879626 is the deviation after it
    assert float(w.abs().max()) == pytest.approx(2 * std / 0.879626, rel=0.01)
    assert float(w.abs().max()) <= 2 * std / 0.879625


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [
        ("wrn-10-1", 1e-5, 1e-3),
        ("wrn-10-1-tf", 1e-3, 1e-3),
        ("small", 1e-5, 0.1),
        ("fast-4", 1e-5, 0.1),
        ("cnn13-4", 1e-3, 1e-3),
        ("shake-4", 1e-3, 1e-3),
        ("resnet18-4", 1e-3, 1e-3),
        ("resnext-11-2x2", 1e-5, 1e-3),
        ("timm:resnet18", 1e-5, 0.1),
        ("torchvision:mobilenet_v3_small", 1e-3, 0.01),
    ],
)
def test_batch_norm_constants(name: str, eps: float, momentum: float) -> None:
    def norms(**options: float) -> set[tuple[float, float | None]]:
        net = nets.build(name, classes=2, shape=(3, 32, 32), **options)
        return {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}

    assert norms() == {(eps, momentum)}
    assert norms(bn_momentum=0.25) == {(eps, 0.25)}


@pytest.mark.parametrize("name", NAMES)
def test_dropout_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(3, 16, 16), dropout=0.5)
    x = torch.randn(8, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    if not name.startswith("shake"):  # which has other random numbers
        without = nets.build(name, classes=3, shape=(3, 16, 16))
        without.load_state_dict(net.state_dict())
        assert torch.equal(without.eval()(x), net(x))
        assert torch.equal(without.train()(x), without(x))


def test_shake_mixes_its_branches() -> None:
    """Halves in evaluation; in training a share of each image, and the gradient that belongs to it."""
    torch.manual_seed(0)
    net = nets.build("shake-8", classes=3, shape=(3, 8, 8), stages=1, blocks=1)
    block = net.blocks[0]
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.bias, -1, 1)
    x = torch.randn(5, 16, 8, 8)
    with frozen_statistics(net):
        a, b, skip = block.a(x), block.b(x), block.shortcut(x)
        torch.manual_seed(7)
        out = block(x)
        torch.manual_seed(7)
        mu = torch.rand(5, 1, 1, 1)  # from torch's own generator
        assert mu.unique().numel() == 5
        torch.testing.assert_close(out, skip + (1 - mu) * a + mu * b)
        # the backward pass takes the same shares: the gradient of the sum with respect to a branch's last shift
        last = block.a[-1].bias
        (gradient,) = torch.autograd.grad(out.sum(), [last])
        torch.testing.assert_close(gradient, ((1 - mu).sum() * 64).expand(8))
    net.eval()
    torch.testing.assert_close(block(x), block.shortcut(x) + (block.a(x) + block.b(x)) / 2)


def test_shake_of_odd_sizes() -> None:
    """The shortcut of stride 2 sees a zero where the second half has no pixel."""
    torch.manual_seed(0)
    shortcut = nets.build("shake-8", classes=3, shape=(3, 8, 8), blocks=1).blocks[1].shortcut.eval()
    x = torch.randn(2, 8, 5, 6)
    w = [c.weight.detach()[:, :, 0, 0] for c in shortcut.convolutions]
    expected = torch.zeros(2, 16, 3, 3)
    for i in range(3):
        for j in range(3):
            expected[:, :8, i, j] = x[:, :, 2 * i, 2 * j].relu() @ w[0].t()
            if 2 * i + 1 < 5:
                expected[:, 8:, i, j] = x[:, :, 2 * i + 1, 2 * j + 1].relu() @ w[1].t()
    torch.testing.assert_close(shortcut(x), expected / math.sqrt(1 + 1e-3))


def test_convnet_is_realmixs() -> None:
    """Its linear layer on mean windows is the original's last convolution, averaged over the image."""
    torch.manual_seed(0)
    net = nets.build("convnet-4", classes=3, shape=(3, 16, 16), stages=2)
    w = net.state_dict()
    keys = [key.removesuffix(".weight") for key, value in w.items() if value.ndim == 4]
    x = torch.randn(2, 3, 16, 16)
    h = F.leaky_relu(F.conv2d(x, w[f"{keys[0]}.weight"], w[f"{keys[0]}.bias"], padding=1), 0.2)
    widths = [h.shape[1]]
    for first, second in ((1, 2), (3, 4)):
        for i in (first, second):
            h = F.leaky_relu(F.conv2d(h, w[f"{keys[i]}.weight"], w[f"{keys[i]}.bias"], padding=1), 0.2)
            widths.append(h.shape[1])
        h = F.avg_pool2d(h, 2)
    assert widths == [4, 4, 8, 8, 16]
    logits = F.conv2d(h, w["linear.weight"].view(3, 16, 3, 3), w["linear.bias"], padding=1).mean((2, 3))
    torch.testing.assert_close(net(x), logits, rtol=1e-4, atol=1e-5)
    # Glorot's bound for a 3 x 3 convolution of 16 to 3 channels, not for a linear layer
    assert float(w["linear.weight"].abs().max()) == pytest.approx(math.sqrt(6 / (9 * 16 + 9 * 3)), rel=0.02)


def test_resnext_is_kekmodels() -> None:
    torch.manual_seed(0)
    net = nets.build("resnext-11-2x4", classes=3, shape=(3, 8, 8), stages=2)
    net.eval()
    w = net.state_dict()

    def mish(h: Tensor) -> Tensor:
        return h * torch.tanh(torch.log1p(torch.exp(h)))

    def conv(h: Tensor, key: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(h, weight, None, stride, weight.shape[2] // 2, groups=groups) / math.sqrt(1 + 1e-5)

    x = torch.randn(2, 3, 9, 9)
    h = mish(conv(x, "stem.0"))
    for i, (inner, out, stride) in enumerate(((8, 256, 1), (16, 512, 2))):
        g = mish(conv(h, f"blocks.{i}.body.0"))
        assert g.shape[1] == inner
        g = mish(conv(g, f"blocks.{i}.body.3", stride, groups=2))
        g = conv(g, f"blocks.{i}.body.6")
        h = mish(g + conv(h, f"blocks.{i}.shortcut.0", stride))
        assert h.shape[1] == out
    logits = h.mean((2, 3)) @ w["linear.weight"].t() + w["linear.bias"]
    torch.testing.assert_close(net(x), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_channels_last(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(3, 16, 16)).eval()
    x = torch.randn(2, 3, 16, 16)
    expected = net(x)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


def test_glorot_uniform_of_cnn13() -> None:
    net = nets.build("cnn13-16", classes=4, shape=(3, 32, 32))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [16, 16, 16, 32, 32, 32, 64, 32, 16]
    c = convolutions[6]
    bound = math.sqrt(6 / (9 * 32 + 9 * 64))
    assert 0.99 * bound < float(c.weight.detach().abs().max()) <= bound
    assert not c.bias.detach().any()


@pytest.mark.parametrize(
    ("name", "own"), [("wrn-10-1", 0.1), ("resnet18-4", 0.1), ("cnn13-4", 0.2), ("convnet-4", 0.2)]
)
def test_slope_of_the_authors(name: str, own: float) -> None:
    def logits(**options: float) -> Tensor:
        torch.manual_seed(0)
        net = nets.build(name, classes=3, shape=(3, 16, 16), **options).eval()
        return net(torch.linspace(-1, 1, 768).view(1, 3, 16, 16))

    assert torch.equal(logits(), logits(slope=own))
    assert not torch.allclose(logits(), logits(slope=0.3))


def test_slope() -> None:
    net = nets.build("wrn-10-1", classes=3, shape=(3, 8, 8), slope=1.0).eval()
    x = torch.randn(2, 3, 8, 8)
    # a leaky ReLU of slope 1 is nothing, so that the net with fresh statistics is affine
    torch.testing.assert_close(net(2 * x) - net(x), net(x) - net(0 * x), rtol=1e-4, atol=1e-5)


def test_same_padding_of_stride_2() -> None:
    conv = SameConv2d(1, 1, 3, 2)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    row = torch.zeros(1, 1, 6, 6)
    row[0, 0, 2] = torch.arange(6.0)  # row 2 is the first of the second output row's three
    assert conv(row)[0, 0, 1].tolist() == [3.0, 9.0, 9.0]  # TensorFlow
    assert F.conv2d(row, conv.weight, stride=2, padding=1)[0, 0, 1].tolist() == [1.0, 6.0, 12.0]  # PyTorch


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
)
def test_same_padding_of_any_size(height: int, width: int, kernel: int, stride: int) -> None:
    conv = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(1, 2, height, width)
    weight, bias = conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy()
    # out = ceil(n / s); total = max((out - 1) s + k - n, 0); before = total // 2
    out = [-(-n // stride) for n in (height, width)]
    total = [max((o - 1) * stride + kernel - n, 0) for o, n in zip(out, (height, width), strict=True)]
    padded = np.pad(x[0].double().numpy(), [(0, 0), *((t // 2, t - t // 2) for t in total)])
    expected = np.empty((3, *out))
    for i in range(out[0]):
        for j in range(out[1]):
            window = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            expected[:, i, j] = (weight * window).sum((1, 2, 3)) + bias
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "poolings"), [(4, 1), (8, 1), (15, 1), (16, 2), (28, 2), (32, 3), (64, 4), (96, 4), (224, 5)]
)
def test_small_pools_larger_images_more(size: int, poolings: int) -> None:
    net = SmallCNN(10, 1, size)
    assert sum(isinstance(module, nn.MaxPool2d) for module in net.modules()) == poolings
    assert 2 <= size >> poolings <= 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn-28-02", r"net 'wrn-28-02' is unknown; did you mean 'wrn-28-2'"),
        ("smal", r"net 'smal' is unknown; did you mean 'small'"),
        ("wrn_28_8", r"did you mean 'wrn-28-8'"),
        ("", r"net '' is unknown"),
        (
            "wrn-27-2",
            r"net 'wrn-27-2': the depth must be 6n \+ 4 or 8n \+ 5 with n of at least 1, got 27; nearest is 28",
        ),
        ("wrn-4-2", r"got 4; nearest is 10"),
        ("wrn-0-2", r"got 0; nearest is 10"),
        ("resnext-10-4x4", r"net 'resnext-10-4x4': the depth must be at least 11, got 10"),
        ("resnext", r"did you mean 'resnext-28-4x4'"),
        ("cnn-13", r"did you mean 'cnn13'"),
        ("resnet-18", r"did you mean 'resnet18'"),
        ("resnet34", r"net 'resnet34' is unknown; did you mean 'torchvision:resnet34'\? Known: "),
        ("vit_tiny_patch16_224", r"did you mean 'timm:vit_tiny_patch16_224'"),
        ("nosuch", r"net 'nosuch' is unknown\. Known: wrn-28-2, "),
        ("vit_tiny", r"Known: wrn-28-2, .*, timm:NAME, torchvision:NAME"),
        ("wrn-36-2-tf", r"6n \+ 4 or 8n \+ 5 with n of at least 1, got 36; nearest is 37"),
        ("wrn-5-1-tf", r"got 5; nearest is 10"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nets.build(name, classes=10, shape=(3, 32, 32))


@pytest.mark.parametrize("name", nets.EXAMPLES)
def test_known_names(name: str) -> None:
    with torch.device("meta"):
        assert nets.build(name, classes=10, shape=(3, 32, 32)).dim > 0


@pytest.mark.parametrize(
    ("name", "least", "options"),
    [("small", 4, {}), ("wrn-28-2", 4, {}), ("cnn13", 12, {}), ("convnet", 8, {}), ("convnet", 32, {"stages": 5})],
)
def test_too_small_images(name: str, least: int, options: dict[str, int]) -> None:
    given = rf"net '{name}' needs images of at least {least} x {least} pixels, got {least - 1} x {least}"
    with pytest.raises(ValueError, match=given):
        nets.build(name, classes=10, shape=(3, least - 1, least), **options)
    net = nets.build(name, classes=2, shape=(3, least, least), width=4, **options).eval()
    assert net(torch.zeros(1, 3, least, least)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "options", "has"),
    [
        ("small", {"stages": 3}, "it has width"),
        ("small", {"slope": 0.1}, "it has width"),
        ("cnn13", {"blocks": 3}, "it has width, slope"),
        ("convnet", {"blocks": 3}, "it has stages, width, slope"),
        ("shake", {"slope": 0.0}, "it has stages, blocks, width"),
        ("resnet18", {"stages": 3}, "it has width, slope"),
        ("resnext-28-4x4", {"width": 64}, "it has stages, blocks"),
        ("timm:resnet18", {"width": 64}, "its name says all of it"),
        ("torchvision:resnet18", {"slope": 0.1}, "its name says all of it"),
    ],
)
def test_options_that_a_net_has_not(name: str, options: dict[str, float], has: str) -> None:
    ((option, value),) = options.items()
    message = rf"net '{name}' has no option {option} \(Net.{option} is {value}\); {has}$"
    with pytest.raises(ValueError, match=message):
        nets.build(name, classes=2, shape=(3, 32, 32), **options)


@pytest.mark.parametrize(("option", "value"), [("patch", 4), ("pretrained", True)])
def test_options_of_other_libraries_nets(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"(wrn-28-2.*timm)|(timm.*wrn-28-2)"):
        nets.build("wrn-28-2", classes=2, shape=(3, 32, 32), **{option: value})


@pytest.mark.parametrize("training", [True, False])
def test_frozen_statistics(training: bool) -> None:
    torch.manual_seed(0)
    net = nets.build("wrn-10-1", classes=3, shape=(3, 8, 8), dropout=0.0).train(training)
    reference = copy.deepcopy(net).train()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(6, 3, 8, 8)
    with frozen_statistics(net):
        inside = net(x)
    assert torch.equal(inside, reference(x)), "the statistics of the batch"
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(module.training is training for module in net.modules())
    # afterwards all is as it was: an update in training, none in evaluation
    net(x)
    changed = [key for key, value in net.state_dict().items() if not torch.equal(value, before[key])]
    assert bool(changed) is training


def test_frozen_statistics_when_the_forward_fails() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5)).eval()
    with pytest.raises(RuntimeError, match="boom"), frozen_statistics(norm):
        assert norm[0].training and not norm[1].training
        raise RuntimeError("boom")
    assert not norm[0].training and norm[0].track_running_stats


MAPPED = ("wrn-10-1", "wrn-10-1-tf", "small-4", "cnn13-8", "shake-8", "resnet18-8", "resnext-29-2x4")


@pytest.mark.parametrize("name", MAPPED)
def test_features_are_the_means_of_the_maps(name: str) -> None:
    net = nets.build(name, classes=3, shape=(3, 32, 32)).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, features = net.maps(x), net.features(x)
    assert maps.shape == (2, net.dim, *(nets.map_size(net, (3, 32, 32)) or ()))
    assert torch.equal(maps.mean((2, 3)), features)


def test_nets_without_maps() -> None:
    shape = (3, 32, 32)
    for name in ("convnet-4", "timm:test_vit"):
        options = {"patch": 4} if "vit" in name else {}
        assert nets.map_size(nets.build(name, classes=3, shape=shape, **options).eval(), shape) is None
