"""Pi-model, Mean Teacher and Pseudo-Label against a net with batch norm in NumPy, and special cases."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import Identity, K, Plain, cross_entropy, info, make_batch, the_same_on_ranks
from norm_oracle import SHAPE, NormNet, Weights, gradient, images, logits, moments, probs, weights
from torch import nn

from fewlabels.algorithms import FixMatch, MeanTeacher, MixMatch, PiModel, PseudoLabeling, Supervised
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Views

B, M = 4, 7
CONFIGS = {
    "pi-model": PiModel(weight=8.0, ramp=0.4),
    "mean-teacher": MeanTeacher(weight=8.0, ramp=0.4),
    "pseudo-label": PseudoLabeling(tau=0.5, weight=8.0, ramp=0.4),
    "broadcast": PseudoLabeling(tau=0.5, weight=8.0, ramp=0.4, broadcast=True),
}


def unlabeled(name: str, w: Weights, target: np.ndarray, u: list[np.ndarray]) -> float:
    """The unlabeled loss of weights `w` with the targets as they are."""
    if name in ("pi-model", "mean-teacher"):
        return float(np.mean([((p - t) ** 2).mean() for p, t in zip(probs(w, u[1]), target, strict=True)]))
    eye, z = np.eye(K), logits(w, u[0])
    each = np.array([cross_entropy(eye[target[j].argmax()], z[j]) for j in range(len(z))])
    mask = target.max(1) > 0.5
    return float(each.mean() * mask.mean() if name == "broadcast" else (each * mask).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_three_steps(name: str) -> None:
    """Losses, weights, averages and statistics of plain gradient descent with lr 0.3 and an average of decay 0.8."""
    net = NormNet()
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    with torch.no_grad():  # the average starts elsewhere, and its running statistics are of no use
        ema.b.mul_(1.5)
        ema.norm.running_mean.fill_(77)
    algorithm = CONFIGS[name].build(info(B, M))
    w, shadow = weights(net), weights(ema)
    mean, variance = np.zeros(net.dim), np.ones(net.dim)
    views = len(algorithm.views.unlabeled)

    for step, (progress, grown) in enumerate(((0.0, 0.0), (0.3, 0.75), (0.6, 1.0))):
        batch = make_batch(step, B, M, views, progress, SHAPE)
        losses = algorithm(batch, net, ema)
        for p in net.parameters():
            p.grad = None
        losses.total.backward()
        with torch.no_grad():
            for p, q in zip(net.parameters(), ema.parameters(), strict=True):
                p -= 0.3 * p.grad
                q.lerp_(p, 0.2)

        x, y, u = images(batch.x[0]), batch.y.numpy(), [images(view) for view in batch.u]
        target = probs(shadow if name == "mean-teacher" else w, u[0])

        def labeled(w: Weights, x: np.ndarray = x, y: np.ndarray = y) -> float:
            return float(np.mean([cross_entropy(np.eye(K)[k], z) for k, z in zip(y, logits(w, x), strict=True)]))

        def total(
            w: Weights, labeled: Any = labeled, t: np.ndarray = target, u: Any = u, grown: float = grown
        ) -> float:
            return float(labeled(w) + 8 * grown * unlabeled(name, w, t, u))

        expected = {"loss": total(w), "loss_x": labeled(w), "loss_u": unlabeled(name, w, target, u)}
        expected["confidence"] = target.max(1).mean()
        if name in ("pseudo-label", "broadcast"):
            expected["mask"] = (target.max(1) > 0.5).mean()
            assert 0 < expected["mask"] < 1
            assert losses.pseudo.tolist() == target.argmax(1).tolist()
            kept = np.full(M, expected["mask"]) if name == "broadcast" else target.max(1) > 0.5
            np.testing.assert_allclose(losses.kept, kept, rtol=1e-6)
        else:
            assert losses.pseudo is None
        assert {key: float(value) for key, value in losses.log.items()} == pytest.approx(expected, rel=2e-5)
        batch_mean, batch_variance = moments(w, x)  # of the labeled images alone, before the step
        mean = 0.75 * mean + 0.25 * batch_mean
        variance = 0.75 * variance + 0.25 * batch_variance * B / (B - 1)
        slope = gradient(total, w)
        for key in w:
            w[key] -= 0.3 * slope[key]
            shadow[key] = 0.8 * shadow[key] + 0.2 * w[key]

    for mine, reference in ((net, w), (ema, shadow)):
        for key, value in weights(mine).items():
            np.testing.assert_allclose(value, reference[key], atol=2e-5, err_msg=key)
    np.testing.assert_allclose(net.norm.running_mean, mean, atol=1e-5)
    np.testing.assert_allclose(net.norm.running_var, variance, atol=1e-5)
    assert not ema.training and not ema.norm.training and ema.norm.track_running_stats
    assert (ema.norm.running_mean == 77).all()


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_ranks_are_one(name: str, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(2, 4, 12, 2 if name in ("pi-model", "mean-teacher") else 1)
    net, teacher = Plain(48), Plain(48)
    with torch.no_grad():
        teacher.b.mul_(2)
    algorithm = CONFIGS[name].build(info(4, 12))
    the_same_on_ranks(monkeypatch, world, algorithm, net, batch, teacher)


def results(config: Any, batch: Batch, ema: nn.Module | None = None) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradient."""
    net = Plain(48)
    total = config.build(info(len(batch.y), len(batch.index)))(batch, net, net if ema is None else ema).total
    total.backward()
    return float(total.detach()), [p.grad for p in net.parameters()]


def test_special_cases() -> None:
    two = make_batch(0, 4, 9, 2)
    one = two._replace(u=two.u[:1])
    same = two._replace(u=(two.u[0], two.u[0]))
    start = {"progress": torch.tensor(0.0)}
    equal = [
        # a ramp that has not begun, a threshold that nobody passes, a weight of 0: the labeled loss
        (PiModel(), two._replace(**start), Supervised(), two),
        (MeanTeacher(), two._replace(**start), Supervised(), two),
        (PseudoLabeling(tau=0.0), one._replace(**start), Supervised(), one),
        (PseudoLabeling(tau=1.0), one, Supervised(), one),
        (MeanTeacher(weight=0.0), two, Supervised(), two),
        # nothing to learn from two views that are equal, for a net without noise
        (PiModel(), same, Supervised(), same),
        # a teacher with the student's weights
        (MeanTeacher(weight=3.0), two, PiModel(weight=3.0), two),
        # no ramp is a ramp that has ended
        (PiModel(ramp=0.0), two._replace(**start), PiModel(ramp=0.4), two._replace(progress=torch.tensor(0.9))),
        # the strong view is the weak one
        (PseudoLabeling(tau=0.3, ramp=0.0), one, FixMatch(tau=0.3), same),
        # all count, so that it does not matter for what
        (PseudoLabeling(tau=0.0, broadcast=True), one, PseudoLabeling(tau=0.0), one),
    ]
    for config, batch, other, its_batch in equal:
        (loss, grads), (its_loss, its_grads) = results(config, batch), results(other, its_batch)
        assert loss == pytest.approx(its_loss, rel=1e-6), config
        torch.testing.assert_close(grads, its_grads, rtol=1e-5, atol=1e-6, msg=str(config))


@pytest.mark.parametrize(
    ("config", "ten", "given"),
    [
        (PiModel(weight=None, ramp=0.0), 10, PiModel(ramp=0.0)),
        (MeanTeacher(weight=None, ramp=0.0), 50, MeanTeacher(ramp=0.0)),
        (MixMatch(w_match=None, ramp_steps=1), 100, MixMatch(ramp_steps=1)),
    ],
    ids=["pi-model", "mean-teacher", "mixmatch"],
)
def test_a_squared_error_that_is_a_mean_over_classes_counts_by_their_number(
    config: Any, ten: float, given: Any
) -> None:
    """K classes weigh K / 10 of the published weight, which is that for ten; a weight that is given stays."""
    for classes in (2, 3, 10, 37):
        run = info(4, 4)._replace(classes=classes)
        batch = make_batch(0, 4, 4, len(config.build(run).views.unlabeled))
        batch = batch._replace(y=batch.y % classes)
        net: Any = nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
        for algorithm, weight in ((config.build(run), ten * classes / 10), (given.build(run), ten)):
            log = algorithm(batch, net, net).log
            assert float(log["loss"] - log["loss_x"]) == pytest.approx(
                weight * float(log["loss_u"]), rel=1e-4, abs=1e-6
            )
        assert config.build(run).notes[0].endswith(f" is {ten * classes / 10:g} for {classes} classes")
        assert given.build(run).notes == ()


def test_nothing_flows_into_the_teacher() -> None:
    teacher = Plain(48)
    results(MeanTeacher(), make_batch(0, 4, 9, 2), teacher)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_confidence_of_exactly_tau_does_not_count() -> None:
    u = torch.zeros(2, 4, 1, 1)
    u[1, 0] = 1e-3
    batch = Batch((u[:1],), torch.tensor([0]), (u,), torch.arange(2), torch.tensor(0.0), Rng(0, 0), torch.arange(1))
    losses = PseudoLabeling(tau=0.25).build(info(1, 2))(batch, Identity(), Identity())
    assert losses.kept.tolist() == [0.0, 1.0]


def test_views() -> None:
    assert PseudoLabeling().build(info(1, 1)).views == Views(("weak",), ("weak",))
    assert PiModel().build(info(1, 1)).views == Views(("weak",), ("weak", "weak"))
    assert MeanTeacher().build(info(1, 1)).views == Views(("weak",), ("weak", "weak"))
