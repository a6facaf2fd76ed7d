"""ImageNet training of google-research/fixmatch, imagenet/, against Pillow, a slow loop and TensorFlow's own code."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fewlabels.algorithms import FixMatch
from fewlabels.config.recipes import recipe
from fewlabels.config.resolve import load_source, pixel_statistics, resolve, resolve_data, split_of
from fewlabels.config.settings import Data, Ema, Net, Optim, Train
from fewlabels.data import crops
from fewlabels.data.gather import Gather
from fewlabels.data.pictures import Decoding, decode
from fewlabels.data.stream import Files
from fewlabels.training.optim import learning_rate
from fewlabels.training.step import Trainer
from imagenet_tree import make_tree

GOLDEN = json.loads(Path(__file__).parents[1].joinpath("golden/crops.json").read_text())
BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def config(root: Path) -> Train:
    data = Data("imagenet@12", root=str(root), image_size=16, fit="inner", crop="area-flip", normalize="minus-one-one")
    return Train(
        algorithm=FixMatch(tau=0.2, lambda_u=10.0),
        data=data,
        net=Net("small-4"),
        optim=Optim(
            lr=0.1, weight_decay=0.06, decay_bias=True, schedule="stairs", stairs=(1 / 3, 2 / 3), warmup=2, stair=0.1
        ),
        ema=Ema(decay=0.9, buffers="averaged"),
        steps=9,
        batch=4,
        uratio=2,
        strong="none",
    )


def trainer_of(config: Train) -> Trainer:
    data = resolve_data(config.data)
    source = load_source(data)
    config = resolve(replace(config, data=data), source)
    mean, std = pixel_statistics(config, source)
    return Trainer(config, source, split_of(data, source), device=torch.device("cpu"), mean=mean, std=std)


# ---- the crop


def test_boxes_are_those_of_tensorflow_s_own_code() -> None:
    numbers = np.random.default_rng(6).random((20_000, crops.NUMBERS), dtype=np.float32)
    kinds = set()
    for row, width, height, *box in GOLDEN["rows"]:
        whole = box == [0, 0, width, height]
        expected = inner(width, height) if whole else tuple(box)  # imagenet/datasets/imagenet.py: bad
        assert crops.area_box(numbers[row], height, width) == expected
        kinds.add(whole)
    assert kinds == {False, True} and len(GOLDEN["rows"]) > 50


def inner(width: int, height: int) -> tuple[int, int, int, int]:
    side = int(np.float32(224 / 256) * np.float32(min(width, height)))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return left, top, left + side, top + side


def test_evaluated_pictures_are_the_middle_224_of_256(root: Path) -> None:
    assert crops.inner_box(375, 500) == (86, 24, 414, 352) == inner(500, 375)
    file = next((root / "imagenet/val").rglob("*.JPEG"))
    with Image.open(file) as picture:
        middle = picture.convert("RGB").crop(inner(*picture.size))
    by_hand = middle.resize((16, middle.height), BICUBIC).resize((16, 16), BICUBIC)
    assert np.array_equal(decode(file, 3, 16, Decoding("inner")), np.asarray(by_hand))


def by_pillow(file: str | Path, numbers: Any, side: int) -> Any:
    """One training picture, step by step."""
    with Image.open(file) as picture:
        left, top, right, bottom = crops.area_box(numbers, picture.height, picture.width)
        pixels = np.asarray(picture.convert("RGB"))[top:bottom, left:right]
    small = np.asarray(Image.fromarray(pixels).resize((side, len(pixels)), BICUBIC).resize((side, side), BICUBIC))
    return small[:, ::-1] if numbers[0] < 0.5 else small


@pytest.mark.slow
def test_both_views_are_of_one_crop_that_pillow_makes_too(config: Train) -> None:
    trainer = trainer_of(config)
    loader, source = trainer.batches, load_source(config.data)
    assert (trainer.config.weak, trainer.config.shift) == ("x", 0)
    mirrored = []
    for step in (0, 1, 5):
        batch = loader.batch(step)
        labeled, unlabeled = loader.draw(step)
        for part, (views, rows) in enumerate(((batch.x, labeled), (batch.u, unlabeled))):
            numbers = loader.crops(step, part)
            assert numbers is not None
            mirrored += (numbers[:, 0] < 0.5).tolist()
            own = (loader.labeled, loader.unlabeled)[part][rows].tolist()
            files = [Path(config.data.root or "") / "imagenet" / source.names[row] for row in own]
            pixels = np.stack([by_pillow(f, n, 16) for f, n in zip(files, numbers, strict=True)])
            expected = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
            for view in views:  # "none" is a second weak view, which here changes nothing: the crop is the view
                assert np.allclose(view.numpy(), expected, atol=2e-7)
    assert 0.2 < np.mean(mirrored) < 0.8


@pytest.mark.slow
def test_a_crop_without_flip_is_never_mirrored(config: Train) -> None:
    trainer = trainer_of(replace(config, data=replace(config.data, crop="area")))
    numbers = trainer.batches.crops(0, 1)
    assert numbers is not None and (numbers[:, 0] >= 0.5).all()
    flipped = trainer_of(config).batches.crops(0, 1)
    assert flipped is not None and np.array_equal(flipped[:, 1:], numbers[:, 1:])  # the same crops


def test_pictures_read_ahead_or_not_are_the_same(root: Path) -> None:
    files = sorted((root / "imagenet/train").rglob("*.JPEG"))
    numbers = crops.draw(np.random.default_rng(0), 5, flip=True)
    rows = np.array([3, 9, 3, 0, 30])
    one, other = Gather(Files(files, 3, (16, 16))), Gather(Files(files, 3, (16, 16)))
    one.expect([(rows, numbers), rows])
    expected = np.stack([by_pillow(files[row], n, 16) for row, n in zip(rows, numbers, strict=True)])
    for store in (one, other):
        pixels = store.take(torch.from_numpy(rows), numbers)
        assert np.array_equal(pixels.numpy().view(np.uint8).reshape(5, 16, 16, 4)[..., :3], expected)
        whole = store.take(torch.from_numpy(rows))
        assert not torch.equal(whole, pixels) and torch.equal(whole[0], whole[2])


# ---- rate, penalty, average


def test_the_rate_goes_down_in_stairs_after_a_warmup() -> None:
    """imagenet/utils/learning_rate.py with the numbers of the README's FixMatch run."""
    config = recipe("google-imagenet-fixmatch")
    optim, steps, per_epoch = config.optim, config.steps, 128_116 / 64
    assert steps == math.ceil(3000 * per_epoch) == 6_005_438

    def theirs(step: int) -> float:
        epoch, base = step / per_epoch, 0.1 * 64 / 256
        return epoch / 50 * base if epoch < 50 else base * 0.1 ** math.floor(epoch / 500)

    edges = [int(epoch * per_epoch) for epoch in (0, 1, 49, 50, 51, 499, 500, 1000, 1500, 2000, 2500, 2999)]
    for step in [s + d for s in edges for d in (-2, 2, 3) if s + d >= 0]:
        assert learning_rate(optim, step, steps) == pytest.approx(theirs(step), rel=1e-4), step


@pytest.mark.slow
def test_steps_are_those_of_a_slow_loop(config: Train) -> None:
    """Loss with their penalty written out (no factor 1/2: kernels and the bias of the last layer), Nesterov momentum
    with the rate outside of it, and an average of all variables, batch-norm statistics among them."""
    trainer = trainer_of(config)
    net = copy.deepcopy(trainer.model.net).train()
    weights = dict(net.named_parameters())
    speed = {name: np.zeros(w.shape) for name, w in weights.items()}
    floats = [name for name, value in net.state_dict().items() if value.is_floating_point()]
    average = {name: net.state_dict()[name].numpy().astype(np.float64) for name in floats}
    decayed = [name for name, w in weights.items() if w.ndim > 1 or name == "linear.bias"]
    assert 2 < len(decayed) < len(weights) and any("running_var" in name for name in floats)
    for step in range(9):
        batch = trainer.batch(step)
        logits = net(torch.cat([*batch.x, *batch.u])).split([4, 8, 8])
        guess = logits[1].detach().softmax(1)
        kept = (guess.max(1).values >= 0.2).float()
        loss = F.cross_entropy(logits[0], batch.y)
        loss = loss + 10 * (kept * F.cross_entropy(logits[2], guess.argmax(1), reduction="none")).mean()
        loss = loss + 0.03 * sum(weights[name].square().sum() for name in decayed)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        rate = 0.1 * step / 2 if step < 2 else 0.1 * 0.1 ** (step // 3)
        with torch.no_grad():
            for (name, w), g in zip(weights.items(), gradients, strict=True):
                speed[name] = 0.9 * speed[name] + g.numpy().astype(np.float64)
                w -= torch.from_numpy(rate * (0.9 * speed[name] + g.numpy())).float()
        for name in floats:
            average[name] -= (average[name] - net.state_dict()[name].numpy()) * (1 - 0.9)
        trainer.step(step)
    state, mean = trainer.model.net.state_dict(), trainer.average.model.net.state_dict()
    for name in floats:
        assert np.allclose(state[name].numpy(), net.state_dict()[name].numpy(), rtol=1e-3, atol=2e-5), name
        assert np.allclose(mean[name].numpy(), average[name], rtol=1e-3, atol=2e-5), name
    plain = trainer_of(replace(config, optim=replace(config.optim, decay_bias=False)))
    for step in range(9):
        plain.step(step)
    assert not torch.equal(plain.model.net.linear.bias, trainer.model.net.linear.bias)


# ---- the recipes


def test_the_recipes_have_the_settings_of_training_py() -> None:
    """DEFAULT_COMMON_HPARAMS, DEFAULT_FIXMATCH_HPARAMS and the README's commands."""
    fixmatch, supervised = recipe("google-imagenet-fixmatch"), recipe("google-imagenet-supervised")
    for config in (fixmatch, supervised):
        assert config.net.name == "resnet50" and config.data.image_size == 224
        assert (config.data.fit, config.data.crop, config.data.normalize) == ("inner", "area-flip", "minus-one-one")
        assert config.optim.weight_decay == 2 * 0.0003 and config.optim.decay_bias and config.optim.nesterov
        assert config.ema == Ema(decay=0.999, buffers="averaged", when="after")
        assert config.optim.lr == 0.1 * config.batch / 256
    algorithm: Any = fixmatch.algorithm
    assert (algorithm.tau, algorithm.lambda_u, fixmatch.uratio, fixmatch.strong) == (0.7, 10, 5, "rand:imagenet")
    assert supervised.strong == "cta:imagenet" and supervised.algorithm == replace(supervised.algorithm, view="strong")
    assert supervised.steps == math.ceil(200 * 1_281_167 / 256)
    assert supervised.optim.stairs == (0.25, 0.5, 0.75) and supervised.optim.warmup == math.ceil(5 * 1_281_167 / 256)
