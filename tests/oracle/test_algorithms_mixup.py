"""Supervised MixUp, MixUp and ICT against a net with batch norm in NumPy, and their special cases."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import K, Plain, cross_entropy, info, make_batch, the_same_on_ranks
from norm_oracle import SHAPE, NormNet, Weights, gradient, images, logits, moments, probs, weights
from torch import Tensor

from fewlabels.algorithms import ICT, MixUp, Supervised, SupervisedMixUp
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Views

B, M = 4, 7


class DrawnShares(Rng):
    """Beta draws handed in, by purpose."""

    def __init__(self, **shares: np.ndarray) -> None:
        super().__init__(0, 0)
        self.shares = {name.replace("_", "-"): share for name, share in shares.items()}
        self.parameters: list[tuple[str, float, float]] = []

    def beta(self, purpose: str, a: float, b: float, rows: int) -> Tensor:
        self.parameters.append((purpose, a, b))
        assert len(self.shares[purpose]) == rows
        return torch.tensor(self.shares[purpose], dtype=torch.float32)


def mixed(parts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Row i with row n - 1 - i of the batch; the row itself has the larger share."""
    out, n = [], len(parts)
    for i, share in enumerate(shares):
        m = share if share > 0.5 else 1 - share
        out.append(m * parts[i] + (1 - m) * parts[n - 1 - i])
    return np.array(out)


def mean_cross_entropy(target: np.ndarray, z: np.ndarray) -> float:
    return float(np.mean([cross_entropy(t, row) for t, row in zip(target, z, strict=True)]))


def check(config: Any, net: NormNet, ema: NormNet, batch: Batch, expected: Any) -> None:
    """Logged values, the gradient with constant targets, and the running statistics of the labeled pass alone."""
    w = weights(net)
    averaged = copy.deepcopy(ema.state_dict())
    losses = config.build(info(B, M))(batch, net, ema)
    losses.total.backward()
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected(w), rel=2e-5)
    for key, slope in gradient(lambda w: expected(w)["loss"], copy.deepcopy(w)).items():
        np.testing.assert_allclose(net.get_parameter(key).grad, slope, atol=2e-4, err_msg=key)
    labeled = images(batch.x[0])
    if not isinstance(config, ICT):
        labeled = mixed(labeled, batch.rng.shares["mixup-x"])
    mean, variance = moments(w, labeled)
    np.testing.assert_allclose(net.norm.running_mean, 0.25 * mean, atol=1e-6)
    np.testing.assert_allclose(net.norm.running_var, 0.75 + 0.25 * variance * B / (B - 1), rtol=1e-5)
    for key, value in ema.state_dict().items():
        assert torch.equal(value, averaged[key]), key
    assert not ema.training and all(p.grad is None for p in ema.parameters())


@pytest.fixture
def given() -> Batch:
    chance = np.random.default_rng(4)
    rng = DrawnShares(mixup_x=chance.beta(0.7, 0.7, B), mixup_u=chance.beta(0.7, 0.7, M))
    return make_batch(3, B, M, 1, 0.3, SHAPE)._replace(rng=rng)


@pytest.fixture
def ema() -> NormNet:
    """Another net, in evaluation mode, whose running statistics are of no use."""
    ema = NormNet(2).eval()
    ema.norm.running_mean.fill_(77)
    return ema


def test_supervised_mixup(given: Batch, ema: NormNet) -> None:
    batch = given._replace(u=(), index=torch.empty(0, dtype=torch.int64))
    share, onehot = batch.rng.shares["mixup-x"], np.eye(K)[batch.y.numpy()]

    def expected(w: Weights) -> dict[str, float]:
        z = logits(w, mixed(images(batch.x[0]), share))
        loss = mean_cross_entropy(mixed(onehot, share), z)
        return {"loss": loss, "loss_x": loss}

    check(SupervisedMixUp(beta=0.7), NormNet(), ema, batch, expected)
    assert batch.rng.parameters == [("mixup-x", 0.7, 0.7)]


def test_mixup(given: Batch, ema: NormNet) -> None:
    share_x, share_u = (given.rng.shares[name] for name in ("mixup-x", "mixup-u"))
    net, u, onehot = NormNet(), images(given.u[0]), np.eye(K)[given.y.numpy()]
    guessed = probs(weights(net), u)  # constant

    def expected(w: Weights) -> dict[str, float]:
        loss_x = mean_cross_entropy(mixed(onehot, share_x), logits(w, mixed(images(given.x[0]), share_x)))
        loss_u = mean_cross_entropy(mixed(guessed, share_u), logits(w, mixed(u, share_u)))
        return {"loss": loss_x + loss_u, "loss_x": loss_x, "loss_u": loss_u, "confidence": guessed.max(1).mean()}

    check(MixUp(beta=0.7), net, ema, given, expected)
    assert given.rng.parameters == [("mixup-x", 0.7, 0.7), ("mixup-u", 0.7, 0.7)]
    pseudo = MixUp().build(info(B, M))(given, net, ema).pseudo
    assert pseudo is not None and pseudo.tolist() == probs(weights(net), u).argmax(1).tolist()


@pytest.mark.parametrize(("ramp", "grown"), [(0.4, 0.75), (0.2, 1.0), (0.0, 1.0)])
def test_ict(ramp: float, grown: float, given: Batch, ema: NormNet) -> None:
    share, u = given.rng.shares["mixup-u"], images(given.u[0])
    taught = probs(weights(ema), u)  # with the statistics of the batch
    target, onehot = mixed(taught, share), np.eye(K)[given.y.numpy()]

    def expected(w: Weights) -> dict[str, float]:
        loss_x = mean_cross_entropy(onehot, logits(w, images(given.x[0])))
        p = probs(w, mixed(u, share))
        loss_u = float(np.mean([sum((p[j, k] - target[j, k]) ** 2 for k in range(K)) / K for j in range(M)]))
        total = loss_x + 8 * grown * loss_u
        return {"loss": total, "loss_x": loss_x, "loss_u": loss_u, "confidence": taught.max(1).mean()}

    check(ICT(beta=0.7, weight=8, ramp=ramp), NormNet(), ema, given, expected)
    assert given.rng.parameters == [("mixup-u", 0.7, 0.7)]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_one_mixes_nothing(share: float) -> None:
    batch = make_batch(0, B, M, 1)
    rng = DrawnShares(mixup_x=np.full(B, share), mixup_u=np.full(M, share))
    unmixed, net, ema = batch._replace(rng=rng), Plain(48), Plain(48)
    with torch.no_grad():
        ema.b *= 2
        q, p = (n(batch.u[0]).double().softmax(1).numpy() for n in (net, ema))
    supervised = float(Supervised().build(info(B, 0))(batch, net, ema).total.detach())
    total = {c: c.build(info(B, M))(unmixed, net, ema).total.item() for c in (SupervisedMixUp(), MixUp(), ICT(ramp=0))}
    assert total[SupervisedMixUp()] == pytest.approx(supervised, rel=1e-6)
    entropy = float(np.mean([-(row * np.log(row)).sum() for row in q]))
    assert total[MixUp()] == pytest.approx(supervised + entropy, rel=1e-6)
    assert total[ICT(ramp=0)] == pytest.approx(supervised + 50 * float(((p - q) ** 2).mean()), rel=1e-6)


CONFIGS = [SupervisedMixUp(), MixUp(), ICT(weight=20, ramp=0.4)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_are_one(config: Any, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same global batch, whose reversal crosses the ranks: the same losses and gradients."""
    net, ema = Plain(48), Plain(48).requires_grad_(False)
    ema.b *= 2
    algorithm = config.build(info(6, 12))
    batch = make_batch(1, 6, 12, 1)
    the_same_on_ranks(monkeypatch, world, algorithm, net, batch, ema, grad=(1e-4, 1e-6))


def test_views() -> None:
    assert SupervisedMixUp().build(info(1, 0)).views == Views(("weak",), ())
    assert SupervisedMixUp(view="strong").build(info(1, 0)).views == Views(("strong",), ())
    for config in (MixUp(), ICT()):
        assert config.build(info(1, 1)).views == Views(("weak",), ("weak",))


def test_ranges() -> None:
    for cls in (SupervisedMixUp, MixUp, ICT):
        with pytest.raises(ValueError, match=rf"^{cls.__name__}\.beta must be a number above 0, got 0$"):
            cls(beta=0)
    with pytest.raises(ValueError, match=r"^ICT\.ramp must be a number from 0 to 1, got 1.5$"):
        ICT(ramp=1.5)
