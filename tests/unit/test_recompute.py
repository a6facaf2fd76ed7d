"""`--net.recompute`: the same step with less kept of it, what it does not go with, and when it is advised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from fewlabels import nets
from fewlabels.config.settings import Net
from fewlabels.data.arrays import from_arrays
from fewlabels.data.split import make_split
from fewlabels.training.failures import foreseen
from fewlabels.training.relief import more_turns, relief
from fewlabels.training.step import Trainer

SHAPE = (3, 32, 32)
NETS = {
    "a ViT, with dropped paths": {"name": "timm:test_vit", "patch": 8, "drop_path": 0.2},
    "a ConvNeXt": {"name": "timm:test_convnext"},
}


def trainer(net: dict[str, Any], algorithm: str = "fixmatch", **changes: Any) -> Trainer:
    random = np.random.default_rng(0)
    source = from_arrays(random.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 3)
    config = replace(fl.recipe(algorithm, "cifar10@40"), net=Net(**net), batch=3, uratio=2, steps=4)
    config = replace(config, weak="s", strong="rand:kekmodel", shift=2, **changes)
    split = make_split(source, labels=12, seed=1)
    return Trainer(config, source, split, device=torch.device("cpu"), mean=(0.5,) * 3, std=(0.3,) * 3)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_gradients_are_the_same_and_less_is_kept(net: dict[str, Any]) -> None:
    plain, anew = (nets.build(**net, classes=3, shape=SHAPE).train() for _ in range(2))
    anew.load_state_dict(plain.state_dict())
    nets.recompute(anew)
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    kept = []
    for one in (plain, anew):
        torch.manual_seed(1)  # of the paths that are dropped, in both passes
        out, size = nets.kept(lambda one=one: one(images), one.parameters())  # type: ignore[misc]
        out.square().sum().backward()
        kept.append(size)
    assert 0 < kept[1] < 0.7 * kept[0]
    for (name, a), (_, b) in zip(plain.named_parameters(), anew.named_parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_step_in_turns_and_passes_is_the_same() -> None:
    net = NETS["a ViT, with dropped paths"]
    plain, anew = (trainer({**net, "recompute": on}, "adamatch", accumulate=3) for on in (False, True))
    for step in range(2):
        plain.step(step)
        anew.step(step)
    assert anew.read_log() == pytest.approx(plain.read_log(), rel=1e-5, abs=1e-6)
    for which, weights in plain.weights().items():
        for name, tensor in weights.items():
            torch.testing.assert_close(anew.weights()[which][name], tensor, rtol=1e-4, atol=1e-6)


def test_what_is_kept_is_counted() -> None:
    """Of x * w * w: x, w and their product once each, and not the weight."""
    x, w = torch.ones(5, requires_grad=True), torch.ones(5, requires_grad=True)
    assert nets.kept(lambda: x * w * w, [w])[1] == 2 * 5 * 4
    assert nets.kept(lambda: x + w, [w])[1] == 0


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        ({"name": "wrn-28-2"}, "Net.recompute is for nets of timm, not for 'wrn-28-2'"),
        ({"name": "torchvision:resnet18"}, "Net.recompute is for nets of timm, not for 'torchvision:resnet18'"),
        ({"name": "timm:vgg11"}, "net 'timm:vgg11' is not for Net.recompute: timm cannot do that for it; most ViTs"),
        ({"name": "timm:test_resnet"}, "is not for Net.recompute: it has batch norm, whose statistics would see each"),
    ],
)
def test_nets_that_cannot_are_refused(net: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Net(**net, recompute=True).check()


def test_what_it_does_not_go_with_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Net.recompute is for a body that learns, not for Net.train head$"):
        Net("timm:test_vit", train="head", pretrained=True, recompute=True)
    with pytest.raises(ValueError, match=r"^Net.recompute does not go with Train.compile$"):
        trainer({"name": "timm:test_vit", "patch": 8, "recompute": True}, compile=True)


@pytest.mark.slow
def test_the_sentence_says_what_helps_and_by_how_much() -> None:
    train = replace(fl.recipe("fixmatch", "cifar10@40"), batch=6, uratio=2)
    own = "or try a smaller --batch, --uratio, net or --data.image-size"
    assert relief(train, SHAPE, 1) == f"--accumulate 2 divides what the images of a step need by 2; {own}"
    further = relief(replace(train, accumulate=2), SHAPE, 1)
    assert further.startswith("--accumulate 3 divides what the images of a step need by 1.5; ")
    assert relief(replace(train, accumulate=3), SHAPE, 2) == own
    vit = replace(train, accumulate=6, net=Net("timm:test_vit", patch=8))
    share = nets.share_kept("timm:test_vit", SHAPE, 8)
    assert share is not None and 0 < share < 0.5
    kept = f"keeps about {round(100 * share)} % of what the net keeps of them"
    assert relief(vit, SHAPE, 1) == f"--net.recompute {kept}, in a step that takes about a third longer; {own}"
    assert relief(replace(vit, net=replace(vit.net, recompute=True)), SHAPE, 1) == own
    assert relief(replace(vit, net=Net("timm:vgg11")), SHAPE, 1) == own
    assert more_turns(replace(train, graph=True), 1) is None
    error = torch.OutOfMemoryError("CUDA out of memory")
    assert foreseen(error) == f"the GPU has not enough memory for this; {own.removeprefix('or ')}"
    error.add_note("do this")
    assert foreseen(error) == "the GPU has not enough memory for this; do this"
