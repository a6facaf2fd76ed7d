from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewlabels import nets
from fewlabels.nets import SmallCNN, WideResNet, WideResNetTF, frozen_statistics
from fewlabels.nets.wrn import SameConv2d


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
        # by hand: (9 c 32 + 64) + (9 32 64 + 128) + (9 64 64 + 128) + 650
        ("small", 1, 10, 56_554),
    ],
)
def test_number_of_parameters(name: str, channels: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        net = nets.build(name, classes=classes, shape=(channels, 8, 8))
    assert count(net) == expected


def test_number_of_parameters_of_forms_without_a_name() -> None:
    with torch.device("meta"):
        assert count(WideResNetTF(10, scales=5)) == 23_774_922
        assert count(WideResNetTF(10, filters=135)) == 25_985_290
    tf = WideResNetTF(10)
    assert sum(p.numel() for p in tf.parameters() if p.dim() > 1) == 1_463_984  # what is decayed


NAMES = ("wrn-10-1", "wrn-10-1-tf", "wrn-13-1-tf", "small-8")


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(NAMES),
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    rows=st.integers(1, 3),
)
def test_any_image_size(name: str, channels: int, height: int, width: int, rows: int) -> None:
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
    net = WideResNet(10, depth=16, width=1).eval()
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


@pytest.mark.parametrize("net", [WideResNet(10, depth=10, width=4), WideResNetTF(10, filters=64, repeat=1)])
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
    ("name", "eps", "momentum"), [("wrn-10-1", 1e-5, 1e-3), ("wrn-10-1-tf", 1e-3, 1e-3), ("small", 1e-5, 0.1)]
)
def test_batch_norm_constants(name: str, eps: float, momentum: float) -> None:
    def norms(**options: float) -> set[tuple[float, float | None]]:
        net = nets.build(name, classes=2, shape=(3, 8, 8), **options)
        return {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}

    assert norms() == {(eps, momentum)}
    assert norms(bn_momentum=0.25) == {(eps, 0.25)}


@pytest.mark.parametrize("name", NAMES)
def test_dropout_in_training_only(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(3, 8, 8), dropout=0.5)
    x = torch.randn(8, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


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
            r"net 'wrn-27-2': the depth must be 6n \+ 4 with n of at least 1, got 27; nearest is 28",
        ),
        ("wrn-4-2", r"got 4; nearest is 10"),
        ("wrn-37-2", r"got 37; nearest is 34"),
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


def test_too_small_images() -> None:
    with pytest.raises(ValueError, match=r"net 'small' needs images of at least 4 x 4 pixels, got 3 x 9"):
        nets.build("small", classes=10, shape=(3, 3, 9))


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
