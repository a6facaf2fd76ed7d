"""Nets of timm and torchvision: against the libraries' own forward pass, with weights from local files."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

import fewlabels as fl
from fewlabels import nets
from fewlabels.inference.model import load_predictor
from fewlabels.nets.weights import read
from fewlabels.training.loop import Output

pytestmark = pytest.mark.usefixtures("no_report")

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def library(name: str, **options: Any) -> nn.Module:
    """The library's own net with random weights, running statistics included, in evaluation mode."""
    torch.manual_seed(1)
    where, _, plain = name.partition(":")
    net = timm.create_model(plain, **options) if where == "timm" else torchvision.models.get_model(plain, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def saved(net: nn.Module, path: Path) -> str:
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


def own_features(name: str, net: nn.Module, x: Tensor) -> Tensor:
    """What the library's net computes before its last linear layer."""
    if name.startswith("timm:"):
        return net.forward_head(net.forward_features(x), pre_logits=True)
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x)
    handle.remove()
    return seen[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("timm:resnet18", 32, 512),
        ("timm:test_vit", 160, 64),
        ("timm:test_efficientnet", 32, 256),
        ("timm:test_convnext", 32, 64),
        ("timm:mobilenetv3_small_050", 32, 1024),
        ("torchvision:resnet18", 32, 512),
        ("torchvision:mobilenet_v3_small", 32, 1024),
        ("torchvision:shufflenet_v2_x0_5", 32, 1024),
    ],
)
def test_all_but_the_head_comes_from_a_file(tmp_path: Path, name: str, size: int, dim: int) -> None:
    theirs = library(name)
    for file in ("w.safetensors", "w.pth"):
        path = saved(theirs, tmp_path / file)
        torch.manual_seed(2)
        net = nets.build(name, classes=7, shape=(3, size, size), pretrained=path).eval()
        assert net.dim == dim
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            features = net.features(x)
            torch.testing.assert_close(features, own_features(name, theirs, x))
            assert torch.equal(net.head(features), net(x)) and net(x).shape == (2, 7)
        mine, given = net.state_dict(), theirs.state_dict()
        kept = [key for key in mine if key.startswith("backbone.")]
        assert len(kept) in (len(given) - 2, len(given) - 1) and len(mine) == len(kept) + 2
        assert all(torch.equal(mine[key], given[key.removeprefix("backbone.")]) for key in kept)
        head = net.linear
        assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.1) and not head.bias.detach().any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_of_learned_weights(tmp_path: Path, name: str, channels: int) -> None:
    """One channel acts like the same picture in all three; the three twice act like once."""
    theirs = library(name)
    path = saved(theirs, tmp_path / "w.pth")
    net = nets.build(name, classes=2, shape=(channels, 32, 32), pretrained=path).eval()
    stem = net.backbone.conv1.weight.detach()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        if channels == 1:
            torch.testing.assert_close(
                net.features(x[:, :1]), own_features(name, theirs, x[:, :1].expand(-1, 3, -1, -1))
            )
        elif channels == 6:
            torch.testing.assert_close(net.features(torch.cat([x, x], 1)), own_features(name, theirs, x))
        else:
            torch.testing.assert_close(stem, theirs.conv1.weight[:, :2] * 1.5)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["timm:test_vit", "torchvision:mobilenet_v3_small"])
def test_channels_of_fresh_weights(name: str, channels: int) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(channels, 32, 32)).eval()
    x = torch.randn(2, channels, 32, 32, requires_grad=True)
    logits = net(x)
    assert logits.shape == (2, 3)
    (gradient,) = torch.autograd.grad(net.features(x).square().sum(), [x])
    assert (gradient.abs().sum((0, 2, 3)) > 0).all(), "a channel that nobody looks at"


def test_position_embedding_is_resampled(tmp_path: Path) -> None:
    """From 10 x 10 patches of 16 pixels to 8 x 8 of 4; what is the same everywhere stays so."""
    theirs = library("timm:test_vit")
    with torch.no_grad():
        theirs.pos_embed[:] = torch.linspace(-1, 1, 64)
    path = saved(theirs, tmp_path / "w.safetensors")
    net = nets.build("timm:test_vit", classes=2, shape=(3, 32, 32), patch=4, pretrained=path)
    position = net.backbone.pos_embed.detach()
    assert position.shape[1] == theirs.pos_embed.shape[1] - 100 + 64
    torch.testing.assert_close(position, torch.linspace(-1, 1, 64).expand_as(position))
    assert net.backbone.patch_embed.proj.weight.shape[2:] == (4, 4)
    assert torch.equal(net.backbone.blocks[0].mlp.fc1.weight, theirs.blocks[0].mlp.fc1.weight)
    assert "state_dict" not in net.backbone.pretrained_cfg  # the file's tensors are not carried about


@pytest.mark.slow
def test_vit_of_the_size_of_the_images() -> None:
    net = nets.build("timm:vit_tiny_patch16_224", classes=10, shape=(3, 32, 48)).eval()
    assert net.backbone.pos_embed.shape == (1, 1 + 2 * 3, 192)
    assert net(torch.zeros(1, 3, 32, 48)).shape == (1, 10)


@pytest.mark.slow
def test_dropout_before_the_head_and_bn_momentum() -> None:
    torch.manual_seed(0)
    net = nets.build("timm:resnet18", classes=3, shape=(3, 32, 32), dropout=0.5, bn_momentum=0.02)
    f = torch.ones(4, 512)
    assert not torch.equal(net.head(f), net.head(f))
    net.eval()
    assert torch.equal(net.head(f), net.linear(f))
    assert {m.momentum for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {0.02}


# ---- weights that do not fit, and files that hold none


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18"])
def test_weights_of_another_net(tmp_path: Path, name: str) -> None:
    def refused(state: dict[str, Tensor], reason: str) -> None:
        torch.save(state, path)
        with pytest.raises(ValueError) as error:
            nets.build(name, classes=2, shape=(3, 32, 32), pretrained=str(path))
        assert str(error.value).startswith(f"the weights in {path} do not fit net '{name}': ")
        assert reason in str(error.value) and "\n" not in str(error.value)

    path = tmp_path / "w.pth"
    state = library(name).state_dict()
    refused({k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}, "layer1.0.conv1.weight is missing")
    refused(state | {"layer1.2.conv1.weight": torch.zeros(1)}, "layer1.2.conv1.weight is not part of the net")
    refused(state | {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, "layer1.0.conv1.weight")


@pytest.mark.slow
def test_a_misfit_names_a_key_of_the_file_and_one_of_the_net(tmp_path: Path) -> None:
    def reason(state: dict[str, Tensor], name: str = "timm:test_resnet") -> str:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ValueError) as error:
            nets.build(name, classes=2, shape=(3, 32, 32), pretrained=str(tmp_path / "w.pth"))
        return str(error.value).partition(": ")[2]

    state = library("timm:test_resnet").state_dict()
    without = {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}
    more = {"other.weight": torch.zeros(1)}
    assert reason(without) == "layer1.0.conv1.weight is missing (the file has conv1.0.weight)"
    assert reason(state | more) == "other.weight is not part of the net (which has conv1.0.weight)"
    assert reason(without | more) == "layer1.0.conv1.weight is missing, and other.weight is not part of the net"
    assert reason(state, "wrn-10-1") == "stem.weight is missing, and conv1.0.weight is not part of the net"


@pytest.mark.slow
def test_files_of_weights(tmp_path: Path) -> None:
    """Plain, inside a training's dictionary, of a DataParallel net, of a run's averaged weights."""
    torch.manual_seed(0)
    given = nets.build("wrn-10-1", classes=4, shape=(3, 8, 8))
    state = given.state_dict()
    forms = {
        "plain.pth": state,
        "dictionary.pth": {"epoch": 3, "state_dict": state},
        "deit.pth": {"model": state},
        "parallel.pth": {f"module.{k}": v for k, v in state.items()},
    }
    for file, content in forms.items():
        torch.save(content, tmp_path / file)
    raw = {f"raw.{k}": torch.zeros_like(v) for k, v in state.items()}
    safetensors.torch.save_file({f"ema.{k}": v for k, v in state.items()} | raw, tmp_path / "run.safetensors")
    for file in (*forms, "run.safetensors"):
        net = nets.build("wrn-10-1", classes=9, shape=(3, 8, 8), pretrained=str(tmp_path / file))
        mine = net.state_dict()
        assert all(torch.equal(mine[k], v) for k, v in state.items() if not k.startswith("linear.")), file
        assert mine["linear.weight"].shape == (9, 64)
    with pytest.raises(
        ValueError, match=r"do not fit net 'wrn-10-1': stem.weight is \[16, 3, 3, 3\] where the net has"
    ):
        nets.build("wrn-10-1", classes=9, shape=(1, 8, 8), pretrained=str(tmp_path / "plain.pth"))


class Program:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"w": Program(trace)}, tmp_path / "program.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Program(trace), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({}, tmp_path / "empty.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "nothing.pth").write_bytes(b"")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=rf"^Net.pretrained: {file} (is no file of weights|holds no state dict)"):
            read(str(file))
    assert not trace.exists(), "the file's program was run"
    with pytest.raises(ValueError, match=r"^Net.pretrained: there is no file .*/none.pth$"):
        read(str(tmp_path / "none.pth"))


# ---- names, shapes, the hub


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("timm:resnet_18", (3, 32, 32), r"^net 'timm:resnet_18' is unknown: timm has no net .* mean .*resnet18"),
        ("timm:resnet18.a4_in1k", (3, 32, 32), r"timm has no weights 'a4_in1k'; did you mean .*a1_in1k"),
        ("timm:", (3, 32, 32), r"timm has no net ''; it knows \d+ names$"),
        ("torchvision:resnet17", (3, 32, 32), r"torchvision has no net 'resnet17'; did you mean .*resnet18"),
        ("torchvision:fcn_resnet50", (3, 32, 32), r"torchvision has no net 'fcn_resnet50'"),
        ("torchvision:googlenet", (3, 32, 32), r"^net 'torchvision:googlenet' has more than one head"),
        ("torchvision:squeezenet1_1", (3, 32, 32), r"does not end in a linear layer"),
        ("torchvision:alexnet", (3, 32, 32), r"^net 'torchvision:alexnet' cannot have images of 3 x 32 x 32 \("),
        ("torchvision:vit_b_16", (3, 32, 48), r"needs square images, got 32 x 48$"),
        ("timm:test_vit", (3, 30, 32), r"into patches of 16 x 16 pixels, which 30 x 32 cannot be cut into"),
        ("timm:inception_v3", (3, 32, 32), r"cannot have images of 3 x 32 x 32 \("),
    ],
)  # fmt: skip
def test_names_and_shapes_that_cannot_be(name: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        nets.build(name, classes=3, shape=shape)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18"])
def test_patch_is_for_vits(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        nets.build(name, classes=3, shape=(3, 32, 32), patch=4)


@pytest.mark.slow
def test_no_weights_to_fetch() -> None:
    with pytest.raises(ValueError, match=r"^net 'timm:mobilenetv2_075': timm has no pretrained weights for it$"):
        nets.build("timm:mobilenetv2_075", classes=3, shape=(3, 32, 32), pretrained=True)
    with pytest.raises(ValueError, match=r"are for images of 224 x 224, got 32 x 32; those of timm:vit_\* are adapted"):
        nets.build("torchvision:vit_b_16", classes=3, shape=(3, 32, 32), pretrained=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18"])
def test_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    asked = []

    def refuse(*args: Any, **options: Any) -> Any:
        asked.append(args)
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(proxy)
    with pytest.raises(ValueError) as error:
        nets.build(name, classes=3, shape=(3, 32, 32), pretrained=True)
    assert str(error.value) == (
        f"the pretrained weights of net '{name}' are not in the cache and cannot be fetched "
        f"([Errno {errno.ENETUNREACH}] Network is unreachable); give a local file with --net.pretrained FILE"
    )
    assert len(asked) == 1, "asked once, not again and again"
    assert "Retrying" not in capfd.readouterr().err
    from huggingface_hub import constants

    assert not constants.HF_HUB_OFFLINE


@pytest.mark.slow
def test_plain_names_do_not_import_the_libraries() -> None:
    code = """
import sys
from fewlabels import nets
from fewlabels.commands import train
from fewlabels.config import settings as config
config.Net("cnn13").build(10, (3, 32, 32))
try:
    nets.build("resnet_18", classes=10, shape=(3, 32, 32))
except ValueError as error:
    print(error)
print([name for name in ("timm", "torchvision", "huggingface_hub", "sklearn") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert said.startswith("net 'resnet_18' is unknown; did you mean 'resnet18'?") and loaded == "[]"


@pytest.mark.parametrize(
    ("name", "channels", "mean", "std"),
    [
        ("timm:resnet18", 3, *IMAGENET),
        ("timm:vit_tiny_patch16_224", 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("torchvision:mobilenet_v3_small", 3, *IMAGENET),
        ("torchvision:resnet18", 1, (0.449,), (0.226,)),
    ],
)
def test_normalization(name: str, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    found = nets.normalization(name, channels)
    assert found[0] == pytest.approx(mean) and found[1] == pytest.approx(std)


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "torchvision:resnet18", "wrn-10-1"])
def test_synchronized_batch_norm_keeps_the_activation(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, classes=3, shape=(3, 32, 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    before = net(x)
    count = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    net = nets.synchronized(net).eval()
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in net.modules()) == count > 0
    assert torch.equal(net(x), before)


# ---- in a run


@pytest.mark.slow
def test_run_with_pretrained_weights(tmp_path: Path, short: Callable[..., fl.Train]) -> None:
    """The file is needed at the start only: neither resuming nor loading asks for it again."""
    file = Path(saved(library("timm:test_vit"), tmp_path / "w.safetensors"))
    net = fl.Net("timm:test_vit", patch=4, pretrained=str(file))
    config = short(net=net, optim=fl.Optim("adamw", lr=1e-3, layer_decay=0.5))
    said: list[str] = []
    run = fl.train(config, out=tmp_path / "run", output=Output(say=said.append))
    assert (run.data["mean"], run.data["std"]) == ([0.5], [0.5])  # test_vit's own, not those of the digits
    assert "timm:test_vit starts pretrained; pixels are scaled with mean 0.5 and std 0.5" in said
    plain = timm.create_model("test_vit", num_classes=10, in_chans=1, img_size=8, patch_size=4)
    count = sum(p.numel() for p in plain.parameters())
    assert any(f"timm:test_vit, {count:,} parameters" in line for line in said)

    file.unlink()
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    (copy / "result.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "step-00000012")
    assert run.checkpoint("8").step == 8
    again = fl.resume(copy)
    for which in ("raw", "ema"):
        expected = run.checkpoint("last").weights(which)
        assert all(torch.equal(v, expected[k]) for k, v in again.checkpoint("last").weights(which).items())
    model = load_predictor(run)
    assert torch.equal(model.model.net.linear.weight, run.checkpoint("last").weights("ema")["net.linear.weight"])

    weights = run.path / "checkpoints" / "step-00000012" / "weights.safetensors"
    tuned = nets.build("timm:test_vit", classes=3, shape=(1, 8, 8), patch=4, pretrained=str(weights))
    assert torch.equal(
        tuned.backbone.blocks[0].mlp.fc1.weight,
        run.checkpoint("last").weights("ema")["net.backbone.blocks.0.mlp.fc1.weight"],
    )
    older = {k.replace(".net.", "."): v for k, v in safetensors.torch.load_file(weights).items()}
    safetensors.torch.save_file(older, tmp_path / "older.safetensors")  # of a run from before models had heads
    again = nets.build(
        "timm:test_vit", classes=3, shape=(1, 8, 8), patch=4, pretrained=str(tmp_path / "older.safetensors")
    )
    assert torch.equal(again.backbone.blocks[0].mlp.fc1.weight, tuned.backbone.blocks[0].mlp.fc1.weight)
    fresh = fl.train(replace(config, net=replace(net, pretrained=False)), out=tmp_path / "fresh")
    assert fresh.data["mean"] != [0.5]
