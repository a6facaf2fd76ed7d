"""FixMatch, its slots and the supervised baseline against slow loops in NumPy, with their gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import (
    Identity,
    K,
    Plain,
    batch_of_logits,
    cross_entropy,
    info,
    make_batch,
    on_ranks,
    shard,
    softmax,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_oracle import SHAPE, NormNet, Weights, gradient, images, logits, moments, weights
from torch import Tensor, nn

from fewlabels.algorithms import Consistency, FixMatch, FlexMatch, Supervised
from fewlabels.algorithms.slots import Seen, Threshold, cross_entropy_of_labels
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Outputs, Views


def loss(algorithm: nn.Module, batch: Batch) -> dict[str, float]:
    net = Identity()
    losses = algorithm(batch, net, net)
    losses.total.backward()
    return {name: float(value) for name, value in losses.log.items()}


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    tau=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    lambda_u=st.sampled_from([0.0, 1.0, 2.5]),
    target=st.sampled_from(["hard", "soft"]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_fixmatch(seed: int, tau: float, lambda_u: float, target: str, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    b, m = 3, 7
    x, weak, strong = (rng.normal(size=(n, K)) * 2 for n in (b, m, m))
    y = rng.integers(0, K, b)

    eye = np.eye(K)
    loss_x = np.mean([cross_entropy(eye[y[i]], x[i]) for i in range(b)])
    terms, mask, gradient, confidences = [], [], np.zeros((m, K)), []
    for j in range(m):
        sharp = softmax(weak[j] / temperature)
        seen = sharp if target == "hard" else softmax(weak[j])
        q = eye[sharp.argmax()] if target == "hard" else sharp
        confidences.append(seen.max())
        mask.append(float(seen.max() >= tau))
        terms.append(mask[j] * cross_entropy(q, strong[j]))
        gradient[j] = lambda_u * mask[j] * (softmax(strong[j]) - q) / m

    batch = batch_of_logits(x, y, weak, strong)
    config = FixMatch(tau=tau, lambda_u=lambda_u, target=target, temperature=temperature)
    got = loss(config.build(info(b, m)), batch)
    expected = {
        "loss": loss_x + lambda_u * np.mean(terms),
        "loss_x": loss_x,
        "loss_u": np.mean(terms),
        "mask": np.mean(mask),
        "confidence": np.mean(confidences),
    }
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(batch.u[1].grad.flatten(1), gradient, atol=1e-6)
    assert not batch.u[0].grad.any(), "nothing flows into the targets"
    by_hand = np.stack([(softmax(x[i]) - eye[y[i]]) / b for i in range(b)])
    np.testing.assert_allclose(batch.x[0].grad.flatten(1), by_hand, atol=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    tau=st.sampled_from([0.3, 0.8]),
    target=st.sampled_from(["hard", "soft"]),
    confidence=st.sampled_from([0.01, 0.1, 1.0]),
    temperature=st.sampled_from([0.07, 0.5]),
)
def test_two_temperatures(seed: int, tau: float, target: str, confidence: float, temperature: float) -> None:
    """As in tian1327/SWIFT (e7b832e), utils/training.py, train_fixmatch, written down in NumPy: the logits are
    multiplied by exp(logit_scale) = 1 / 0.07 in both losses, and divided by T = 0.01 where they are compared with the
    threshold. Gradients by central differences."""
    rng = np.random.default_rng(seed)
    b, m = 3, 5
    x, weak, strong = (rng.normal(size=(n, K)) * 0.2 for n in (b, m, m))
    y, eye = rng.integers(0, K, b), np.eye(K)

    def losses(x: np.ndarray, strong: np.ndarray) -> tuple[float, float, list[float]]:
        loss_x = [-np.log(softmax(x[i] / temperature)[y[i]]) for i in range(b)]
        loss_u, mask = [], []
        for j in range(m):
            seen = softmax(weak[j] / (confidence if target == "hard" else 1))
            q = eye[weak[j].argmax()] if target == "hard" else softmax(weak[j] / confidence)
            mask.append(float(seen.max() >= tau))
            loss_u.append(mask[j] * -(q * np.log(softmax(strong[j] / temperature))).sum())
        return float(np.mean(loss_x)), float(np.mean(loss_u)), mask

    batch = batch_of_logits(x, y, weak, strong)
    config = FixMatch(tau=tau, target=target, temperature=confidence, loss_temperature=temperature, lambda_u=2.0)
    got = loss(config.build(info(b, m)), batch)
    loss_x, loss_u, mask = losses(x, strong)
    expected = {"loss": loss_x + 2 * loss_u, "loss_x": loss_x, "loss_u": loss_u, "mask": np.mean(mask)}
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for view, values in ((batch.x[0], x), (batch.u[1], strong)):
        slopes = np.zeros_like(values)
        for place in np.ndindex(*values.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = values.copy()
                moved[place] += step
                one = losses(moved, strong) if values is x else losses(x, moved)
                ends.append(one[0] + 2 * one[1])
            slopes[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(view.grad.flatten(1), slopes, atol=2e-4)
    assert not batch.u[0].grad.any()


def test_the_loss_s_temperature_is_that_of_predictions() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.0]])
    net = Identity()
    rule = FixMatch(loss_temperature=0.07).build(info(1, 1)).rule
    torch.testing.assert_close(rule(net, logits), logits / 0.07)
    assert FixMatch().build(info(1, 1)).rule(net, logits) is net.head(logits)


def test_flexmatch_goes_by_the_model_s_own_probabilities() -> None:
    """With a temperature of the losses it is FlexMatch on the quotient of the logits."""
    rng = np.random.default_rng(3)
    x, weak, strong = (rng.normal(size=(n, K)) for n in (3, 6, 6))
    y = rng.integers(0, K, 3)
    plain = loss(FlexMatch(tau=0.6).build(info(3, 6)), batch_of_logits(x, y, weak, strong))
    scaled = batch_of_logits(x / 4, y, weak / 4, strong / 4)
    assert loss(FlexMatch(tau=0.6, loss_temperature=0.25).build(info(3, 6)), scaled) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (FixMatch(), 0.9303298),  # kekmodel and LeeDoYup, hard
        (FixMatch(temperature=0.5), 0.9303298),  # kekmodel, hard, T = 0.5
        (FixMatch(target="soft", temperature=0.5), 0.9305491),  # LeeDoYup, soft
    ],
)
def test_numbers_of_the_pytorch_ports(config: FixMatch, expected: float) -> None:
    weak = torch.tensor([[4.0, 0, 0], [1, 0.5, 0], [0, 6, 0]])
    strong = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 2]])
    x = torch.zeros(1, 3)
    batch = Batch(
        (x,), torch.tensor([0]), (weak, strong), torch.arange(3), torch.tensor(0.0), Rng(0, 0), torch.arange(1)
    )
    net = Identity()
    log = config.build(info(1, 3))(batch, net, net).log
    assert float(log["loss_u"]) == pytest.approx(expected, abs=2e-7)
    if config.temperature == 1:
        assert float(log["mask"]) == pytest.approx(2 / 3)
        assert float(log["confidence"]) == pytest.approx((0.964663 + 0.506480 + 0.995067) / 3, abs=1e-6)


def test_a_confidence_of_exactly_tau_counts() -> None:
    nothing, probs = Outputs(torch.empty(0), torch.empty(0)), torch.tensor([[0.75, 0.25], [0.7499999, 0.25]])
    seen = Seen((nothing,), nothing, (nothing,), probs, make_batch(0, 1, 2, 2), Plain(48), Plain(48), {}, torch.ones(2))
    assert Threshold(0.75)(seen).tolist() == [1.0, 0.0]


def test_soft_targets_survive_probabilities_of_zero() -> None:
    weak = np.array([[0.0, -200.0, -300.0, 0.0, -500.0]])
    batch = batch_of_logits(weak, np.array([0]), weak, weak)
    got = loss(FixMatch(target="soft", tau=0.0, temperature=0.5).build(info(1, 1)), batch)
    assert got["loss_u"] == pytest.approx(np.log(2), rel=1e-6)


def test_without_confident_images_it_is_supervised() -> None:
    batch = make_batch(0, 6, 12, 2)
    net = Plain(48)
    grads = []
    for config in (FixMatch(tau=1.0), Supervised()):
        net.zero_grad()
        losses = config.build(info(6, 12))(batch, net, net)
        losses.total.backward()
        grads.append((float(losses.total.detach()), net.a.grad.clone(), net.b.grad.clone()))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-6)
    torch.testing.assert_close(grads[0][1:], grads[1][1:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_supervised(smoothing: float) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, K)), rng.integers(0, K, 6)
    target = np.eye(K)[y]
    target = target - smoothing * (target - 1 / K)
    expected = np.mean([cross_entropy(target[i], x[i]) for i in range(6)])
    empty = np.zeros((0, K))
    got = loss(Supervised(smoothing=smoothing).build(info(6, 0)), batch_of_logits(x, y, empty, empty))
    assert got == pytest.approx({"loss": expected, "loss_x": expected}, rel=1e-6)


def test_views() -> None:
    assert FixMatch().build(info(1, 7)).views == Views(("weak",), ("weak", "strong"))
    assert Supervised().build(info(1, 7)).views == Views(("weak",), ())
    assert Supervised(view="strong").build(info(1, 7)).views == Views(("strong",), ())


class CountingSlot(nn.Module):
    """A slot with state, which notes when it was called."""

    def __init__(self, name: str, calls: list[str], value: object) -> None:
        super().__init__()
        self.name, self.calls, self.value = name, calls, value
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, seen: Seen) -> Tensor:
        self.calls.append(self.name)
        self.seen += len(seen.batch.index)
        return self.value(seen)


def test_slots_are_called_in_order_and_see_aligned_probabilities() -> None:
    rng = np.random.default_rng(5)
    x, weak, strong = (rng.normal(size=(n, K)) for n in (2, 4, 4))
    y = np.array([1, 3])
    calls: list[str] = []
    algorithm = Consistency(
        labeled=CountingSlot("labeled", calls, lambda g: torch.tensor([2.0, 0.5]) * cross_entropy_of_labels(g)),
        select=CountingSlot("select", calls, lambda g: g.probs[:, 0]),
        target=CountingSlot("target", calls, lambda g: g.probs.argmax(1)),
        align=CountingSlot("align", calls, lambda g: g.probs.flip(1)),
        lambda_u=3.0,
    )
    got = loss(algorithm, batch_of_logits(x, y, weak, strong))
    assert calls == ["align", "target", "select", "labeled"]

    eye = np.eye(K)
    probs = softmax(weak)[:, ::-1]
    loss_x = (2.0 * cross_entropy(eye[1], x[0]) + 0.5 * cross_entropy(eye[3], x[1])) / 2
    loss_u = np.mean([probs[j, 0] * cross_entropy(eye[probs[j].argmax()], strong[j]) for j in range(4)])
    assert got["loss_x"] == pytest.approx(loss_x, rel=1e-5)
    assert got["loss_u"] == pytest.approx(loss_u, rel=1e-5)
    assert got["loss"] == pytest.approx(loss_x + 3 * loss_u, rel=1e-5)
    assert got["mask"] == pytest.approx(probs[:, 0].mean(), rel=1e-5)
    state = algorithm.state_dict()
    assert {key: float(value) for key, value in state.items()} == {
        f"{slot}.seen": 4.0 for slot in ("align", "target", "select", "labeled")
    }


def test_two_ranks_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(2, 4, 12, 2)
    net = Plain(48)
    algorithm = FixMatch(tau=0.4).build(info(4, 12))
    one = algorithm(batch, net, net).total
    two = on_ranks(monkeypatch, 2, lambda rank: algorithm(shard(batch, rank, 2), net, net).total)
    assert 0 < float(algorithm(batch, net, net).log["mask"]) < 1
    torch.testing.assert_close(sum(two) / 2, one)


@pytest.mark.parametrize("teacher", ["student", "ema", "ema-batch"])
def test_who_guesses(teacher: Any) -> None:
    """With batch norm: what is normalised with what, and what the running statistics have seen."""
    net, ema = NormNet(), NormNet(2)
    ema.eval().norm.running_mean.copy_(torch.tensor([0.5, -0.5, 0.2, 0.1]))
    w, averaged = weights(net), weights(ema)
    batch = make_batch(0, 4, 7, 2, shape=SHAPE)
    losses = FixMatch(tau=0.4, teacher=teacher).build(info(4, 7))(batch, net, ema)
    losses.total.backward()

    x, weak, strong = (images(view) for view in (*batch.x, *batch.u))
    seen = np.concatenate((x, weak, strong) if teacher == "student" else (x, strong))
    z = logits(w, seen)
    running = ema.norm.running_mean.double().numpy(), np.ones(4)
    guesses = {
        "student": softmax(z[4:11]),
        "ema": softmax(logits(averaged, weak, running)),
        "ema-batch": softmax(logits(averaged, weak)),
    }[teacher]
    eye, mask = np.eye(K), guesses.max(1) >= 0.4

    def parts(w: Weights) -> tuple[float, float]:
        z = logits(w, seen)
        loss_x = np.mean([cross_entropy(eye[k], s) for k, s in zip(batch.y.numpy(), z, strict=False)])
        terms = [m * cross_entropy(eye[q.argmax()], s) for m, q, s in zip(mask, guesses, z[-7:], strict=True)]
        return float(loss_x), float(np.mean(terms))

    expected = dict(zip(("loss_x", "loss_u"), parts(w), strict=True))
    expected |= {"loss": sum(parts(w)), "mask": mask.mean(), "confidence": guesses.max(1).mean()}
    assert 0 < expected["mask"] < 1
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=2e-5)
    for key, slope in gradient(lambda w: sum(parts(w)), w).items():
        np.testing.assert_allclose(net.get_parameter(key).grad, slope, atol=2e-5, err_msg=key)
    np.testing.assert_allclose(net.norm.running_mean, 0.25 * moments(w, seen)[0], atol=1e-6)
    np.testing.assert_allclose(ema.norm.running_mean, running[0])
    assert all(p.grad is None for p in ema.parameters()) and not ema.norm.training


def test_a_teacher_with_the_weights_of_the_student_changes_nothing() -> None:
    batch = make_batch(0, 6, 12, 2)
    answers = []
    for teacher in ("student", "ema", "ema-batch"):
        for target in ("hard", "soft"):
            net = Plain(48)
            config = FixMatch(tau=0.4, temperature=0.5, target=target, teacher=teacher)
            losses = config.build(info(6, 12))(batch, net, copy.deepcopy(net).eval())
            losses.total.backward()
            answers.append(([p.grad for p in net.parameters()], dict(losses.log)))
    for hard, soft in zip(answers[2::2], answers[3::2], strict=True):
        torch.testing.assert_close(hard, answers[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(soft, answers[1], rtol=1e-5, atol=1e-6)


def test_anchoring_names_the_views() -> None:
    for first in ("weak", "strong"):
        for second in ("weak", "strong"):
            config = FixMatch(anchoring=f"{first}.{second}")
            assert config.build(info(1, 7)).views == Views(("weak",), (first, second))
    # whatever the views are, the first gives the label of the second
    batch = make_batch(0, 6, 12, 2)
    net = Plain(48)
    one, two = (FixMatch(tau=0.4, anchoring=a).build(info(6, 12)) for a in ("weak.strong", "strong.weak"))
    assert torch.equal(one(batch, net, net).total, two(batch, net, net).total)
