"""What the first steps have less of: pixels and unlabeled images, by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from algorithm_cases import MAIN, QUIET, Case, killed_in, toy, toy_training
from fewlabels.config.settings import Curriculum, Train
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.training import curriculum
from fewlabels.training.step import Trainer
from fewlabels.types import Views

VIEWS = Views(labeled=("weak",), unlabeled=("weak", "strong"))


def trainer(config: Train) -> Trainer:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    images = rng.integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    source = Source("noise", tuple("abcd"), images, labels, images[:0], labels[:0], Style())
    split = make_split(source, labels=8, seed=1)
    config = replace(config, weak="s", shift=1, strong="cta" if config.strong == "cta" else "affine")
    return Trainer(config, source, split, device=torch.device("cpu"), mean=(0.5,), std=(0.25,))


def test_by_step(short: Callable[..., Train]) -> None:
    config = short(steps=100, uratio=7, curriculum=Curriculum(half_size=0.25, uratio=2))
    ratios = [curriculum.uratio(config, step) for step in range(100)]
    # 2 + 5 s / 50, rounded down: one more after each ten steps
    assert ratios == [2] * 10 + [3] * 10 + [4] * 10 + [5] * 10 + [6] * 10 + [7] * 50
    assert [curriculum.halved(config, step) for step in range(100)] == [True] * 25 + [False] * 75
    plain = replace(config, curriculum=Curriculum())
    assert all(curriculum.uratio(plain, step) == 7 and not curriculum.halved(plain, step) for step in range(100))


def test_work_is_counted_in_pixels(short: Callable[..., Train]) -> None:
    config = short(steps=100, uratio=7, curriculum=Curriculum(half_size=0.25, uratio=2))
    # images of a step for one labeled one: 1 + 2 u; all of it would be 15
    by_hand = sum(10 * (1 + 2 * u) for u in (2, 3)) / 4  # a quarter of the pixels
    by_hand += 5 * 9 / 4 + 5 * 9 + sum(10 * (1 + 2 * u) for u in (5, 6)) + 50 * 15
    assert curriculum.work(config, VIEWS) == pytest.approx(by_hand / 1500)
    assert curriculum.work(config, VIEWS, 50) == curriculum.work(curriculum.without(config), VIEWS) == 1
    assert curriculum.work(config, VIEWS, 0, 10) == pytest.approx(5 / 15 / 4)
    long = replace(config, steps=10**6)  # of which a sample is looked at
    assert curriculum.work(long, VIEWS) == pytest.approx(by_hand / 1500, rel=0.01)


def test_batches_follow(short: Callable[..., Train]) -> None:
    """The same images and views as without a curriculum, as far as there are as many."""
    config = short(steps=8, uratio=4, curriculum=Curriculum(half_size=0.5, uratio=2))
    with_it, without = trainer(config), trainer(curriculum.without(config))
    for step, (ratio, side) in enumerate([(2, 8), (2, 8), (3, 8), (3, 8), (4, 16)]):
        batch, whole = with_it.batch(step), without.batch(step)
        assert torch.equal(batch.index, whole.index[: 4 * ratio]) and torch.equal(batch.y, whole.y)
        assert batch.x[0].shape == (4, 1, side, side)
        assert [view.shape for view in batch.u] == [(4 * ratio, 1, side, side)] * 2
        if side == 8:
            by_hand = whole.x[0].reshape(4, 1, 8, 2, 8, 2).mean((3, 5))
            torch.testing.assert_close(batch.x[0], by_hand)
        else:
            assert torch.equal(batch.x[0], whole.x[0])


def test_ranks_share_the_batch_of_the_step(short: Callable[..., Train]) -> None:
    config = short(steps=8, uratio=4, curriculum=Curriculum(uratio=2))
    whole, parts = trainer(config), [trainer(config) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.batches.rank, part.batches.world = rank, 2
    for step in (0, 3, 7):
        batches = [part.batch(step) for part in parts]
        assert torch.equal(torch.cat([b.index for b in batches]), whole.batch(step).index)
        assert torch.equal(torch.cat([b.u[1] for b in batches]), whole.batch(step).u[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", MAIN, ids=[case.name for case in MAIN])
def test_every_algorithm_takes_one(case: Case, tmp_path: Path) -> None:
    plain = toy_training(case.config, steps=4)
    if plain.fits:
        pytest.skip("is fitted, and takes no steps")
    config = replace(plain, curriculum=Curriculum(half_size=0.5, uratio=1))
    if case.name == "crmatch":
        with pytest.raises(ValueError, match=r"^Curriculum.half_size 0.5 is not for crmatch, which has"):
            fl.train(config, out=tmp_path, source=toy())
        config = replace(config, curriculum=Curriculum(uratio=1))
    split = make_split(toy(), labels=12, seed=1)
    t = Trainer(config, toy(), split, device=torch.device("cpu"), mean=(0.5,) * 3, std=(0.25,) * 3)
    for step in range(4):
        t.step(step)
    assert t.nonfinite_step() is None and t.finite()


@pytest.mark.slow
@pytest.mark.parametrize("strong", ["affine", "cta"])
def test_resumed_in_the_middle(strong: str, tmp_path: Path) -> None:
    first = Curriculum(half_size=0.7, uratio=1)
    config = toy_training(fl.FixMatch(), steps=7, save_every=4, uratio=3, curriculum=first, strong=strong)
    whole = fl.train(config, out=tmp_path / "whole", source=toy(), output=QUIET)
    run = killed_in(5, config, tmp_path / "run")
    fl.resume(run.path, source=toy(), output=QUIET)
    for which in ("raw", "ema"):
        weights, expected = (r.checkpoint().weights(which) for r in (run, whole))
        torch.testing.assert_close(weights, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_what_cannot_be(short: Callable[..., Train]) -> None:
    def refused(config: Callable[[], Any]) -> str:
        with pytest.raises(ValueError) as caught:
            config()
        return str(caught.value)

    assert refused(lambda: short(uratio=2, curriculum=Curriculum(uratio=3))) == (
        "Curriculum.uratio 3 is where it begins, and cannot be above Train.uratio 2"
    )
    assert "Curriculum.half_size" in refused(lambda: Curriculum(half_size=1.5))
    vit = fl.Net("timm:vit_tiny_patch16_224", patch=4)
    assert refused(lambda: trainer(short(net=vit, curriculum=Curriculum(half_size=0.5)))) == (
        "Curriculum.half_size 0.5 shows the net images of 8 x 8 pixels, which 'timm:vit_tiny_patch16_224' does not take"
    )
    frozen = replace(fl.recipe("fixmatch", "digits@40"), net=fl.Net("small-4", train="head", pretrained="x.pth"))
    assert refused(lambda: replace(frozen, curriculum=Curriculum(half_size=0.5))) == (
        "Curriculum.half_size 0.5 is for a body that learns, not for Net.train head"
    )
