"""UDA against a slow loop in NumPy, with its gradients; the masks of its annealing; special cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from algorithm_oracles import Identity, K, Plain, cross_entropy, info, make_batch, softmax, the_same_on_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_oracle import SHAPE, NormNet, images, logits, moments, weights
from torch import Tensor

from fewlabels.algorithms import UDA, FixMatch, Supervised
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Views


def batch_of_logits(x: np.ndarray, y: np.ndarray, weak: np.ndarray, strong: np.ndarray, progress: float) -> Batch:
    def images(z: np.ndarray) -> Tensor:
        return torch.tensor(z, dtype=torch.float32)[:, :, None, None].requires_grad_()

    pair = images(weak), images(strong)
    return Batch(
        (images(x),),
        torch.tensor(y),
        pair,
        torch.arange(len(weak)),
        torch.tensor(progress),
        Rng(0, 0),
        torch.arange(len(y)),
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    tau=st.sampled_from([0.0, 0.4, 0.8]),
    temperature=st.sampled_from([0.4, 1.0, 2.0]),
    w_entropy=st.sampled_from([0.0, 0.3]),
    tsa=st.sampled_from(["none", "linear", "log", "exp"]),
    progress=st.sampled_from([0.0, 0.1, 0.25, 0.375, 0.75]),
)
def test_uda(seed: int, tau: float, temperature: float, w_entropy: float, tsa: str, progress: float) -> None:
    rng = np.random.default_rng(seed)
    b, m = 4, 6
    x, weak, strong = (rng.normal(size=(n, K)) * 2 for n in (b, m, m))
    y = rng.integers(0, K, b)
    x[np.arange(b), y] += 1
    eye = np.eye(K)

    t = progress * 100 / 40  # of 100 steps, in which the threshold grows for 40
    grown = {"none": 1.0, "linear": t, "log": 1 - np.exp(-5 * t), "exp": np.exp(5 * (t - 1))}[tsa]
    threshold = min(1.0, grown) * (1 - 1 / K) + 1 / K
    known = [softmax(x[i])[y[i]] for i in range(b)]
    s = [float(p <= threshold) for p in known]
    count = max(sum(s), 1.0)
    loss_x = sum(s[i] * cross_entropy(eye[y[i]], x[i]) for i in range(b)) / count
    x_grad = np.array([s[i] * (softmax(x[i]) - eye[y[i]]) / count for i in range(b)])

    terms, entropies, mask = [], [], []
    weak_grad, strong_grad = np.zeros((m, K)), np.zeros((m, K))
    for j in range(m):
        p, q = softmax(weak[j]), softmax(weak[j] / temperature)
        mask.append(float(p.max() >= tau))
        terms.append(mask[j] * sum(q[k] * np.log(q[k] / softmax(strong[j])[k]) for k in range(K)))
        entropies.append(-sum(p[k] * np.log(p[k]) for k in range(K)))
        strong_grad[j] = 1.5 * mask[j] * (softmax(strong[j]) - q) / m
        weak_grad[j] = -w_entropy * p * (np.log(p) + entropies[j]) / m

    config = UDA(tau=tau, lambda_u=1.5, w_entropy=w_entropy, temperature=temperature, tsa=tsa, tsa_ramp=40)
    batch = batch_of_logits(x, y, weak, strong, progress)
    net = Identity()
    losses = config.build(info(b, m, steps=100))(batch, net, net)
    losses.total.backward()
    expected = {
        "loss": loss_x + 1.5 * np.mean(terms) + w_entropy * np.mean(entropies),
        "loss_x": loss_x,
        "loss_u": np.mean(terms),
        "entropy": np.mean(entropies),
        "mask": np.mean(mask),
        "mask_sup": np.mean(s),
        "confidence": np.mean([softmax(z).max() for z in weak]),
        "confidence_strong": np.mean([softmax(z).max() for z in strong]),
    }
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for z, gradient in zip((batch.x[0], *batch.u), (x_grad, weak_grad, strong_grad), strict=True):
        np.testing.assert_allclose(z.grad.flatten(1), gradient, atol=1e-6)
    assert losses.pseudo.tolist() == weak.argmax(1).tolist() and losses.kept.tolist() == mask


def labeled_loss(
    z: list[list[float]], y: list[int], config: UDA, progress: float, steps: int = 100
) -> tuple[float, float]:
    """loss_x and mask_sup of labeled logits."""
    x, classes = np.array(z), len(z[0])
    run = Info(classes, (classes, 1, 1), classes, torch.ones(classes), 1, steps, len(z), 1)
    net = Identity()
    log = config.build(run)(batch_of_logits(x, np.array(y), x[:1], x[:1], progress), net, net).log
    return float(log["loss_x"]), float(log["mask_sup"])


def test_annealing_of_three_images() -> None:
    """Logits, losses and threshold 2/3 (linear, halfway) of RealMix's example, which keeps the second of them."""
    z, y = [[3, 0.2, -1], [0.1, 0.2, 0.3], [5, -2, -2]], [0, 0, 0]
    linear = UDA(tsa="linear", tsa_ramp=100)
    assert labeled_loss(z, y, linear, 0.5) == pytest.approx((1.201943, 1 / 3), abs=2e-6)
    assert labeled_loss(z, y, UDA(), 0.5) == pytest.approx(((0.076151 + 1.201943 + 0.001822) / 3, 1), abs=2e-6)
    assert labeled_loss(z, y, linear, 1.0) == labeled_loss(z, y, UDA(), 0.5)


def test_nothing_to_learn_from_what_is_known_too_well() -> None:
    x = np.full((3, K), -2.0)
    x[:, 1] = 4
    batch = batch_of_logits(x, np.array([1, 1, 1]), x, x, 0.0)
    net = Identity()
    losses = UDA(tsa="log", tau=1.0).build(info(3, 3))(batch, net, net)
    losses.total.backward()
    assert float(losses.total.detach()) == 0 and not batch.x[0].grad.any()


def test_a_probability_of_exactly_the_threshold_counts() -> None:
    """Before the first step an even guess is not yet too certain, nor is any guess at the end."""
    even, certain = [[0.0] * 5], [[200.0, 0, 0, 0, 0]]
    for tsa in ("linear", "log"):
        assert labeled_loss(even, [2], UDA(tsa=tsa), 0.0)[1] == 1
        assert labeled_loss(certain, [0], UDA(tsa=tsa), 0.0)[1] == 0
    for tsa in ("linear", "exp"):
        assert labeled_loss(certain, [0], UDA(tsa=tsa, tsa_ramp=100), 1.0)[1] == 1


def test_one_forward_pass_moves_the_statistics() -> None:
    """Labeled, weak and strong images are normalised together."""
    net = NormNet()
    w = weights(net)
    batch = make_batch(0, 4, 7, 2, shape=SHAPE)
    log = UDA(tau=0.3, temperature=0.5).build(info(4, 7))(batch, net, net).log
    everyone = np.concatenate([images(v) for v in (*batch.x, *batch.u)])
    _, weak, strong = np.split(logits(w, everyone), [4, 11])
    expected = 0.0
    for a, b in zip(weak, strong, strict=True):
        q = softmax(a / 0.5)
        expected += (softmax(a).max() >= 0.3) * (q * np.log(q / softmax(b))).sum() / 7
    assert float(log["loss_u"]) == pytest.approx(expected, rel=1e-5)
    mean, variance = moments(w, everyone)
    np.testing.assert_allclose(net.norm.running_mean, 0.25 * mean, atol=1e-6)
    np.testing.assert_allclose(net.norm.running_var, 0.75 + 0.25 * variance * 18 / 17, atol=1e-6)


def results(config: UDA | FixMatch | Supervised, batch: Batch) -> tuple[float, list[Tensor]]:
    net = Plain(48)
    total = config.build(info(6, 12))(batch, net, net).total
    total.backward()
    return float(total.detach()), [p.grad for p in net.parameters()]


def test_special_cases() -> None:
    batch = make_batch(0, 6, 12, 2)
    target = softmax(Plain(48)(batch.u[0]).detach().double().numpy())
    entropy = float(((target.max(1) >= 0.3) * -(target * np.log(target)).sum(1)).mean())
    cases = [
        (UDA(tau=1.0), Supervised(), 0.0),  # nobody passes
        (UDA(lambda_u=0.0), Supervised(), 0.0),
        (UDA(tau=0.3), FixMatch(tau=0.3, target="soft"), entropy),  # the entropy of the targets is constant
        (UDA(tau=0.3, temperature=1e-3), FixMatch(tau=0.3), 0.0),  # so sharp that it is a class
    ]
    assert 0.1 < entropy < 1
    for config, other, constant in cases:
        (loss, grads), (its_loss, its_grads) = results(config, batch), results(other, batch)
        assert loss == pytest.approx(its_loss - constant, rel=1e-5), config
        torch.testing.assert_close(grads, its_grads, rtol=1e-4, atol=1e-5, msg=str(config))


@pytest.mark.slow
@pytest.mark.parametrize("count", range(5))
def test_ranks_are_one(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when more images count on one rank than on the other, or none does."""
    batch, net = make_batch(1, 4, 12, 2), Plain(48)
    known = net(batch.x[0]).softmax(1).gather(1, batch.y[:, None])[:, 0].detach()
    order = known.argsort()
    between = torch.cat((torch.zeros(1), known[order], torch.ones(1)))[count : count + 2].mean()
    batch = batch._replace(x=(batch.x[0][order],), y=batch.y[order], progress=(between - 1 / K) / (1 - 1 / K))
    algorithm = UDA(tau=0.6, tsa="linear", tsa_ramp=100, w_entropy=0.1, temperature=0.5).build(info(4, 12))
    one, *_ = the_same_on_ranks(monkeypatch, 2, algorithm, net, batch)
    assert float(one.log["mask_sup"]) == count / 4 and 0 < float(one.log["mask"]) < 1


def test_views() -> None:
    assert UDA().build(info(1, 7)).views == Views(("weak",), ("weak", "strong"))
