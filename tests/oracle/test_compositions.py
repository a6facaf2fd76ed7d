"""Compositions with a memory, further heads and a gradient through the weak views, against loops in NumPy."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from algorithm_oracles import Identity, K, Plain, cross_entropy, info, make_batch, on_ranks, shard, softmax
from torch import Tensor, nn

import fewlabels as fl
from algorithm_cases import toy, toy_training
from compositions import Contrast, Prior
from fewlabels.algorithms import Consistency
from fewlabels.algorithms.slots import Seen, Threshold
from fewlabels.data.split import make_split
from fewlabels.inference.model import Model, make_model
from fewlabels.runs.run import Run
from fewlabels.runtime.checked import Checked


def unit(v: Any) -> Any:
    return v / np.sqrt((v**2).sum(-1, keepdims=True))


def contrast() -> tuple[Any, Model]:
    torch.manual_seed(0)
    algorithm = Contrast(tau=0.4).build(info(4, 6))
    return algorithm, Model(Plain(48), algorithm.heads)


def test_a_memory_is_read_by_one_slot_and_written_by_a_term() -> None:
    """Over five steps, in which 30 images pass through a memory of 20."""
    algorithm, net = contrast()
    a, b = (p.detach().double().numpy() for p in net.net.parameters())
    w, c = (p.detach().double().numpy() for p in net.heads["projection"].parameters())
    keys, values, place = np.zeros((20, 4)), np.full((20, K), 1 / K), 0
    selected = 0
    for step in range(5):
        batch = make_batch(step, 4, 6, 3)
        losses = algorithm(batch, net, net)

        x, weak, first, second = (
            np.tanh(view.double().numpy().reshape(len(view), -1) @ a) for view in (*batch.x, *batch.u)
        )
        guesses = []
        for f in weak:
            near = softmax(keys @ unit(w @ f + c) / 0.5)
            guesses.append(0.7 * softmax(f @ b) + 0.3 * near @ values)
        loss_x = np.mean([cross_entropy(np.eye(K)[y], f @ b) for y, f in zip(batch.y.tolist(), x, strict=True)])
        loss_u, found = 0.0, 0.0
        for j, q in enumerate(guesses):
            if q.max() >= 0.4:
                selected += 1
                onehot = np.eye(K)[q.argmax()]
                loss_u += (cross_entropy(onehot, first[j] @ b) + cross_entropy(onehot, second[j] @ b)) / 2 / 6
            alike = np.array([q @ other for other in guesses])
            similar = np.array([unit(w @ first[j] + c) @ unit(w @ f + c) for f in second])
            found += cross_entropy(alike / alike.sum(), similar / 0.5) / 6
        for f, q in zip(weak, guesses, strict=True):
            keys[place], values[place] = unit(w @ f + c), q
            place = (place + 1) % 20
        expected = {"loss_x": loss_x, "loss_u": loss_u, "contrast": found, "loss": loss_x + loss_u + 0.5 * found}
        got = {name: float(losses.log[name]) for name in expected}
        assert got == pytest.approx(expected, rel=2e-5)
    assert 0 < selected < 30
    np.testing.assert_allclose(algorithm.align.last.rows("keys"), keys, atol=1e-5)
    np.testing.assert_allclose(algorithm.align.last.rows("values"), values, atol=1e-5)
    assert set(algorithm.state_dict()) == {"align.last.keys", "align.last.values", "align.last.place"}


def test_ranks_share_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, net = contrast()
    copies = [(copy.deepcopy(algorithm), copy.deepcopy(net)) for _ in range(2)]
    batches = [make_batch(step, 4, 6, 3) for step in range(3)]

    def steps(algorithm: Any, net: Model, batches: list[Any]) -> list[float]:
        losses = [algorithm(batch, net, net).total for batch in batches]
        sum(losses).backward()
        return [float(loss.detach()) for loss in losses]

    one = steps(algorithm, net, batches)
    two = on_ranks(monkeypatch, 2, lambda rank: steps(*copies[rank], [shard(batch, rank, 2) for batch in batches]))
    np.testing.assert_allclose(np.mean(two, axis=0), one, rtol=1e-5)
    for mine, _ in copies:
        torch.testing.assert_close(mine.state_dict(), algorithm.state_dict(), rtol=1e-5, atol=1e-6)
    for single, *parts in zip(net.parameters(), *(other.parameters() for _, other in copies), strict=True):
        torch.testing.assert_close(sum(p.grad for p in parts) / 2, single.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_training_with_memory_and_heads_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = toy_training(Contrast(), steps=8, save_every=4)
    whole = fl.train(config, out=tmp_path / "whole", source=toy())
    path = shutil.copytree(whole.path, tmp_path / "again")
    (path / "result.json").unlink()
    shutil.rmtree(path / "checkpoints" / "step-00000008")
    again = fl.resume(path, source=toy(), algorithms=(Contrast,))
    ours, theirs = (run.checkpoint().path for run in (whole, again))
    assert (ours / "weights.safetensors").read_bytes() == (theirs / "weights.safetensors").read_bytes()
    one, two = (Run(p).checkpoint().state() for p in (whole.path, path))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert (
        one["algorithm"]["align.last.keys"].norm(dim=1).gt(0.9).all() and int(one["algorithm"]["align.last.place"]) == 4
    )
    generator = torch.get_rng_state()
    fl.load(path, algorithms=(Contrast,))  # which makes net and heads
    assert torch.equal(torch.get_rng_state(), generator)
    raw = whole.checkpoint().weights("raw")
    assert {"heads.projection.weight", "heads.projection.bias"} <= raw.keys()
    assert len(one["optimizer"]["state"]) == sum(1 for name in raw if "running" not in name and "num" not in name)


def test_a_term_with_gradient_through_the_weak_view() -> None:
    """``-log W`` with ``W = mean_j sum_k prior_k p_jk``: its slope at logit jk is
    ``-p_jk (prior_k - sum_l prior_l p_jl) / (M W)``. Images are logits here."""
    counts = torch.tensor([1, 2, 3, 4, 10])
    algorithm = Prior(weight=2.0).build(info(3, 7)._replace(labeled_counts=counts))
    batch = make_batch(0, 3, 7, 2, shape=(K, 1, 1))
    weak = batch.u[0].requires_grad_()
    losses = algorithm(batch, Model(Identity()), Model(Identity()))
    losses.total.backward()
    p, prior = softmax(weak.detach().double().numpy().reshape(7, K)), counts.numpy() / 20
    mean = np.mean(p @ prior)
    assert float(losses.log["prior"]) == pytest.approx(-np.log(mean), rel=1e-5)
    slope = -p * (prior - (p @ prior)[:, None]) / (7 * mean)
    assert weak.grad is not None
    np.testing.assert_allclose(weak.grad.reshape(7, K), 2 * slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"bn": "separate-weak"}, "bn separate-weak"), ({"teacher": "ema-batch"}, "teacher ema-batch")],
)
def test_a_gradient_that_is_left_out_is_refused(options: dict[str, Any], what: str) -> None:
    needs = "Prior.weight 0.5 needs the gradient of the weak views"
    with pytest.raises(ValueError, match=rf"^{needs}, which Prior.{what} leaves out: set one of them otherwise$"):
        Prior(weight=0.5, **options).build(info(3, 7))


def entropy_of_weak(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    p = seen.weak.logits.softmax(1)
    return -(p * p.log()).sum(1).mean()


@pytest.mark.parametrize("bn", ["joint", "separate-weak"])
def test_a_term_that_would_train_nothing_is_found(bn: Any) -> None:
    """It is about the weak views and does not say so; whichever pass these take."""
    algorithm = Consistency(select=Threshold(0.5), terms={"entropy": (0.1, entropy_of_weak)}, bn=bn)
    net = Model(Plain(48))
    with pytest.raises(AssertionError, match=r"^the term entropy trains nothing; .* weak_gradient$"):
        algorithm(make_batch(0, 4, 6, 2), net, net)


def test_a_view_alone_has_its_gradient() -> None:
    algorithm = Consistency(
        select=Threshold(2.0),
        terms={"entropy": (0.1, entropy_of_weak)},
        views=fl.Views(unlabeled=("weak",)),
        weak_gradient="Mine.weight 0.1",
    )
    net, batch = Model(Plain(48)), make_batch(0, 4, 6, 1)
    weak = batch.u[0].requires_grad_()
    algorithm(batch, net, net).total.backward()
    assert weak.grad is not None and weak.grad.any()


@pytest.mark.parametrize(("teacher", "of_ema"), [("student", False), ("ema", True), ("ema-batch", True)])
def test_slots_see_what_guesses(teacher: Any, of_ema: bool) -> None:
    """The heads that fit the features of the weak view are those of the net that made them."""
    seen: list[Seen] = []
    algorithm = Consistency(select=lambda s: (seen.append(s), s.probs.amax(1))[1], teacher=teacher)
    net, ema = Model(Plain(48)), Model(Plain(48)).eval().requires_grad_(False)
    algorithm(make_batch(0, 4, 6, 2), net, ema)
    assert seen[0].net is net and (seen[0].teacher is ema) == of_ema and (seen[0].teacher is net) != of_ema


class Scaled(nn.Module):
    """A module whose method is no rule, as its state would be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, net: Any, features: Tensor) -> Tensor:
        return self.scale * net.head(features)


def rules_with_state() -> list[Any]:
    scale, module = torch.tensor(2.0), Scaled()
    return [module, module.forward, lambda net, f: scale * net.head(f), lambda net, f: module(net, f)]


@pytest.mark.parametrize("rule", rules_with_state())
def test_a_rule_has_no_state(rule: Any) -> None:
    with pytest.raises(AssertionError, match=r"must be a function without state; let its state be a head$"):
        Model(Plain(48), rule=rule)


def test_a_rule_may_have_settings_and_heads() -> None:
    """A prior is a head, brought along by whatever copies, moves or saves the model."""
    factor = 3.0
    prior = nn.Module()
    prior.register_buffer("log", torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    model = Model(Plain(48), {"prior": prior}, lambda net, f: net.head(f) - factor * net.heads["prior"].log)
    x = torch.randn(2, 3, 4, 4)
    other = copy.deepcopy(model)
    prior.log.zero_()
    assert torch.equal(model.predict(x), model(x))
    torch.testing.assert_close(other.predict(x), model(x) - 3.0 * torch.arange(5.0))
    assert "heads.prior.log" in model.state_dict()


@dataclass(frozen=True, kw_only=True)
class Ruled(Checked):
    """FixMatch whose rule is to be tried."""

    name: ClassVar[str] = "ruled"
    rule: Any = None

    def build(self, told: Any) -> Any:
        return Consistency(select=Threshold(0.5), rule=self.rule)


def wider(net: Any, features: Tensor) -> Tensor:
    """With a class more, for what is of none."""
    return nn.functional.pad(net.head(features), (0, 1))


@pytest.mark.parametrize(("rule", "shape"), [(wider, "[2, 4]"), (lambda net, f: net.head(f).amax(1), "[2]")])
def test_a_rule_gives_a_logit_for_each_class(rule: Any, shape: str) -> None:
    config, split = toy_training(Ruled(rule=rule)), make_split(toy(), labels=12, seed=1)
    with pytest.raises(AssertionError, match=f"^{re.escape(f'the rule gives logits {shape} for 2 images')}"):
        make_model(config, split, 3, (3, 8, 8))


class WithParameter(Contrast):
    def build(self, told: Any) -> Any:
        algorithm = super().build(told)
        algorithm.rotation = nn.Linear(2, 2)
        return algorithm


def test_an_algorithm_with_parameters_is_refused() -> None:
    config = toy_training(Contrast())
    object.__setattr__(config, "algorithm", WithParameter())
    with pytest.raises(AssertionError, match=r"let rotation\.weight, rotation\.bias be one of its heads$"):
        make_model(config, make_split(toy(), labels=12, seed=1), 3, (3, 8, 8))
