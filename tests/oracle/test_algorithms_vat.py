"""VAT against closed forms for a linear net and finite differences for one with batch norm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from algorithm_oracles import K, Plain, cross_entropy, info, make_batch, softmax, the_same_on_ranks
from norm_oracle import SHAPE, NormNet, images, logits, moments, weights
from torch import Tensor, nn

from fewlabels.algorithms import VAT, Supervised, vat
from fewlabels.inference.model import Model
from fewlabels.runtime.rng import Rng
from fewlabels.types import Views

B, M, PIXELS = 4, 6, 48


class Linear(nn.Module):
    """Logits ``x @ w``, whose derivatives are known."""

    dim = PIXELS

    def __init__(self, scale: float = 0.3) -> None:
        super().__init__()
        self.w = nn.Parameter(scale * torch.randn(PIXELS, K, generator=torch.Generator().manual_seed(2)))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def head(self, f: Tensor) -> Tensor:
        return f @ self.w

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * (np.log(p) - np.log(q))).sum())


def unit(d: np.ndarray) -> np.ndarray:
    return d / np.linalg.norm(d)


@pytest.mark.parametrize("xi", [0.1, 2.0])
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.9])
def test_linear_net(xi: float, progress: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = Linear(), make_batch(0, B, M, 1, progress)
    start = torch.randn(M, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    monkeypatch.setattr(vat, "noise", lambda like, rng: start)
    config = VAT(weight=0.7, eps=1.5, xi=xi, w_entropy=0.2, ramp=0.4)
    losses = config.build(info(B, M))(batch, net, net)
    losses.total.backward()

    w, grown = net.w.detach().double().numpy(), min(1.0, progress / 0.4)
    x, u, d = (t.double().numpy().reshape(len(t), -1) for t in (batch.x[0], batch.u[0], start))
    slope, loss_x, divergence, uncertainty = np.zeros_like(w), [], [], []
    for image, label in zip(x, np.eye(K)[batch.y.numpy()], strict=True):
        loss_x.append(cross_entropy(label, image @ w))
        slope += np.outer(image, softmax(image @ w) - label) / B
    for image, first in zip(u, d, strict=True):
        p = softmax(image @ w)
        q = softmax((image + xi * unit(first)) @ w)
        r = 1.5 * unit(w @ (q - p))  # the gradient of KL(p || q) by the pixels
        moved = softmax((image + r) @ w)
        divergence.append(kl(moved, p))
        # r and p are constants: d KL(moved || p) / d logits, and d entropy / d logits
        by_moved = moved * (np.log(moved) - np.log(p) - divergence[-1])
        uncertainty.append(-(p * np.log(p)).sum())
        by_p = -p * (np.log(p) + uncertainty[-1])
        slope += (0.7 * grown * np.outer(image + r, by_moved) + 0.2 * np.outer(image, by_p)) / M
    expected = {"loss_x": np.mean(loss_x), "loss_u": np.mean(divergence), "entropy": np.mean(uncertainty)}
    expected["loss"] = expected["loss_x"] + 0.7 * grown * expected["loss_u"] + 0.2 * expected["entropy"]
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=2e-4)
    np.testing.assert_allclose(net.w.grad, slope, atol=2e-4)
    assert losses.pseudo is None


def test_direction_with_batch_norm() -> None:
    """Finite differences of the sum of divergences, where each image changes the statistics of all."""
    net, xi = NormNet(), 0.5
    g = torch.Generator().manual_seed(0)
    u, start = torch.randn(M, *SHAPE, generator=g), torch.randn(M, *SHAPE, generator=g)
    z = net(u).detach()
    got = vat.adversarial_direction(net, u, z, start, xi)
    assert not got.requires_grad and all(p.grad is None for p in net.parameters())

    w, pixels, d = weights(net), images(u), xi * np.array([unit(row) for row in images(start)])
    p = softmax(logits(w, pixels))

    def divergence(d: np.ndarray) -> float:
        return sum(kl(a, b) for a, b in zip(p, softmax(logits(w, pixels + d)), strict=True))

    slope = np.zeros_like(d)
    for i in np.ndindex(d.shape):
        h = np.zeros_like(d)
        h[i] = 1e-5
        slope[i] = (divergence(d + h) - divergence(d - h)) / 2e-5
    np.testing.assert_allclose(images(got), [unit(row) for row in slope], atol=1e-3)


def test_the_change_does_more_than_a_random_one() -> None:
    net, batch = Linear(), make_batch(0, B, 64, 1)
    z = net(batch.u[0]).detach()
    start = vat.noise(batch.u[0], batch.rng)
    worst = vat.adversarial_direction(net, batch.u[0], z, start, 1.0)
    p = softmax(z.double().numpy())

    def harm(direction: Tensor) -> float:
        moved = softmax(net(batch.u[0] + direction).detach().double().numpy())
        return float(np.mean([kl(a, b) for a, b in zip(p, moved, strict=True)]))

    np.testing.assert_allclose(worst.flatten(1).norm(dim=1), 1, rtol=1e-5)
    assert harm(worst) > 4 * harm(vat.unit(start))


def test_only_the_labeled_pass_moves_the_running_statistics() -> None:
    net, batch = NormNet(), make_batch(0, B, M, 1, shape=SHAPE)
    w = weights(net)
    VAT(xi=0.1).build(info(B, M))(batch, net, net).total.backward()
    mean, variance = moments(w, images(batch.x[0]))
    np.testing.assert_allclose(net.norm.running_mean, 0.25 * mean, atol=1e-6)
    np.testing.assert_allclose(net.norm.running_var, 0.75 + 0.25 * variance * B / (B - 1), rtol=1e-5)


def test_without_weights_it_is_supervised() -> None:
    batch, grads = make_batch(0, B, M, 1), []
    for config in (VAT(weight=0, w_entropy=0), Supervised()):
        net = Plain(PIXELS)
        config.build(info(B, M))(batch, net, net).total.backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-8)


def test_a_net_without_an_opinion_gives_finite_numbers() -> None:
    net, batch = Linear(scale=0.0), make_batch(0, B, M, 1)
    losses = VAT().build(info(B, M))(batch, net, net)
    losses.total.backward()
    log = {name: float(value) for name, value in losses.log.items()}
    assert log["loss_u"] == 0 and log["entropy"] == pytest.approx(math.log(K), rel=1e-6)
    assert log["loss_x"] == pytest.approx(math.log(K), rel=1e-6)
    assert net.w.grad.isfinite().all() and not vat.unit(torch.zeros(2, 3, 4, 4)).any()


def test_the_default_step_and_low_precision_give_finite_numbers() -> None:
    """The original's xi is lost in rounding; a large one finds nearly the same direction in bfloat16."""
    batch, loss_u = make_batch(0, B, M, 1), {}
    for dtype in (None, torch.bfloat16):
        for xi in (1e-6, 1.0):
            net = Model(Plain(PIXELS), dtype=dtype)
            losses = VAT(xi=xi, eps=1.5).build(info(B, M))(batch, net, net)
            losses.total.backward()
            assert losses.total.isfinite() and losses.total.dtype is torch.float32
            assert all(p.grad.isfinite().all() for p in net.parameters())
            loss_u[dtype, xi] = float(losses.log["loss_u"])
    assert loss_u[torch.bfloat16, 1.0] == pytest.approx(loss_u[None, 1.0], rel=0.05), loss_u
    assert loss_u[torch.bfloat16, 1.0] != loss_u[None, 1.0], "nothing was computed in bfloat16"


def test_noise_is_normal_and_its_own_in_each_step() -> None:
    like = torch.empty(64, 3, 16, 16)
    first, again, second = (vat.noise(like, Rng(0, step)) for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert float(first.mean()) == pytest.approx(0, abs=0.02) and float(first.std()) == pytest.approx(1, abs=0.02)
    assert float((first * second).mean()) == pytest.approx(0, abs=0.02)
    halves = [vat.noise(like[:32], Rng(0, 1, rank=rank, world=2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), first)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_are_one(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = Plain(PIXELS), make_batch(1, 6, 12, 1)
    algorithm = VAT(weight=2.0, eps=1.0, xi=0.5).build(info(6, 12))
    the_same_on_ranks(monkeypatch, world, algorithm, net, batch, log=(1e-4, 1e-5), grad=(1e-3, 1e-5))


@pytest.mark.parametrize(
    ("shape", "eps"),
    [
        ((3, 32, 32), 6.0),
        ((1, 8, 8), 0.8660254),  # 64 numbers in place of 3,072: sqrt(3) / 2
        ((1, 28, 28), 3.0310889),  # 7 sqrt(3) / 4
        ((3, 96, 96), 18.0),
        ((3, 64, 16), 6.0),
    ],
)
def test_the_length_of_a_change_goes_with_the_root_of_the_number_of_pixels(
    shape: tuple[int, int, int], eps: float
) -> None:
    """As strong for each pixel as the original's 6 for 3 x 32 x 32; given lengths stay."""
    run = info(B, M)._replace(shape=shape)

    def lengths(config: VAT, coarse: bool) -> tuple[float, float]:
        built = config.build(run._replace(coarse=coarse))
        assert isinstance(built, vat.VATLoss)
        (said,) = built.notes
        assert f"by the length {built.eps:.4g}, after a trial step of length {built.xi:.4g}" in said
        return built.eps, built.xi

    assert lengths(VAT(), coarse=False) == (pytest.approx(eps, rel=1e-6), 1e-6)
    assert lengths(VAT(), coarse=True) == (pytest.approx(eps, rel=1e-6), pytest.approx(eps / 6, rel=1e-6))
    assert lengths(VAT(eps=5.0, xi=0.25), coarse=True) == lengths(VAT(eps=5.0, xi=0.25), coarse=False) == (5.0, 0.25)
    if shape == (3, 32, 32):
        assert lengths(VAT(), coarse=False) == (6.0, 1e-6)  # to the bit


def test_views_and_ranges() -> None:
    assert VAT().build(info(1, 1)).views == Views(("weak",), ("weak",))
    with pytest.raises(ValueError, match=r"^VAT\.xi must be a number above 0 or None, got 0$"):
        VAT(xi=0)
