"""The methods after FixMatch beyond the golden cases: where they are FixMatch, and what they do to images and state
that no golden case has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import Identity, K, info
from torch import Tensor

from fewlabels.algorithms import (
    AdaMatch,
    CoMatch,
    CRMatch,
    Dash,
    DeFixMatch,
    FixMatch,
    FlexMatch,
    FreeMatch,
    FullMatch,
    OpenSet,
    ReFixMatch,
    SequenceMatch,
    ShrinkMatch,
    SimMatch,
    SoftMatch,
)
from fewlabels.algorithms.functional import quantile
from fewlabels.inference.model import Model
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch

TAU = 0.6


def batch_of(algorithm: Any, *, sure: float = 4.0, progress: float = 0.5, seed: int = 0, rows: int = 12) -> Batch:
    """Logits ``[N, K]`` with gradient, of two views of an image the same; labeled ones times `sure`."""
    g = torch.Generator().manual_seed(seed)
    x, weak, strong = (torch.randn(n, K, generator=g) for n in (4, rows, rows))
    y = torch.randint(K, (4,), generator=g)
    labeled = tuple((sure * x).requires_grad_() for _ in algorithm.views.labeled)
    views = ((4 * weak).requires_grad_(), (4 * strong).requires_grad_())
    return Batch(labeled, y, views, torch.arange(rows), torch.tensor(progress), Rng(seed, 0), torch.arange(4))


def outcome(algorithm: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Loss, weights, labels, and the gradients of the unlabeled views; of the labeled ones together."""
    losses = algorithm(batch, Identity(), Identity())
    losses.total.backward()
    assert losses.kept is not None and losses.pseudo is not None
    grads = [torch.zeros_like(view) if view.grad is None else view.grad for view in batch.u]
    labeled = torch.stack([torch.zeros_like(view) if view.grad is None else view.grad for view in batch.x]).sum(0)
    return losses.total.detach(), losses.kept, losses.pseudo, *grads, labeled


def all_learnt(algorithm: Any) -> None:
    """FlexMatch: no class has more confident images than another."""
    algorithm.select.last.copy_(torch.arange(len(algorithm.select.last)) % K)


def fixed_confidence(algorithm: Any) -> None:
    algorithm.select.time_p.fill_(TAU)


def fixed_mean(algorithm: Any) -> None:
    algorithm.select.mu.fill_(TAU)


def uniform(algorithm: Any) -> None:
    algorithm.align.p_model.fill_(1 / K)


def as_it_is(algorithm: Any) -> None: ...


FULL = 1.0
"""As a momentum: nothing moves."""
WEIGHTS = {"ema_p": FULL, "align_to": "none"}
IDENTITIES: dict[str, tuple[Any, Callable[[Any], None], float]] = {
    "flexmatch, all learnt": (FlexMatch(tau=TAU), all_learnt, TAU),
    "freematch, fixed and without fairness": (FreeMatch(ema_p=FULL, w_fairness=0.0), fixed_confidence, TAU),
    "softmatch, no width": (SoftMatch(n_sigma=1e9, **WEIGHTS), fixed_mean, TAU),
    "softmatch, infinite width": (SoftMatch(n_sigma=1e-9, **WEIGHTS), fixed_mean, 0.0),
    "adamatch, nothing aligned, labeled certain": (AdaMatch(tau=TAU, ema_p=FULL), uniform, TAU),
    "dash, at its smallest threshold": (
        Dash(variant="usb", rho_min=-math.log(TAU), lambda_u=1.0, epoch_steps=1, estimate="labeled"),
        as_it_is,
        TAU,
    ),
    "refixmatch, every image sure": (ReFixMatch(tau=0.0), as_it_is, 0.0),
    "fullmatch, without its losses": (FullMatch(tau=TAU, w_negative=0.0, w_meaning=0.0), as_it_is, TAU),
    "defixmatch, no labeled image confident": (DeFixMatch(tau=TAU, lambda_u=1.0), as_it_is, TAU),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_special_case_is_fixmatch_bit_for_bit(name: str) -> None:
    config, prepare, tau = IDENTITIES[name]
    told = info(4, 12)._replace(unlabeled=10 * K)
    algorithm, fixmatch = config.build(told), FixMatch(tau=tau).build(told)
    prepare(algorithm)
    if "dash" in name:
        algorithm.falling.total.fill_(1e-9)
        algorithm.falling.count.fill_(1)
    sure = 1e3 if "certain" in name else 0.1 if "defixmatch" in name else 4.0
    found, expected = (
        outcome(algorithm, batch_of(algorithm, sure=sure)),
        outcome(fixmatch, batch_of(fixmatch, sure=sure)),
    )
    assert tau == 0 or 0 < float(expected[1].mean()) < 1
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_quantile(share: float) -> None:
    values = torch.randn(11, generator=torch.Generator().manual_seed(0))
    assert float(quantile(values, share)) == pytest.approx(float(np.quantile(values.numpy(), share)), abs=1e-6)


def test_freematch_with_one_image_and_with_none_that_counts() -> None:
    """A flat guess is at no threshold that the other classes have raised."""
    algorithm: Any = FreeMatch(w_fairness=1.0).build(info(4, 12))
    algorithm.select.time_p.fill_(0.99)
    batch = batch_of(algorithm, rows=1)
    flat = torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    losses = algorithm(batch._replace(u=(flat, batch.u[1])), Identity(), Identity())
    losses.total.backward()
    assert losses.kept.tolist() == [0.0] and float(losses.log["loss_fair"]) == 0
    assert batch.u[1].grad is not None and not batch.u[1].grad.any()


def test_softmatch_keeps_its_variance_where_there_is_one_image() -> None:
    algorithm: Any = SoftMatch(ema_p=0.5).build(info(4, 1))
    losses = algorithm(batch_of(algorithm, rows=1), Identity(), Identity())
    assert losses.total.isfinite() and float(algorithm.select.var) == 1.0
    assert float(algorithm.select.mu) != 1 / K


@pytest.mark.parametrize(
    "config", [FreeMatch(), SoftMatch(), AdaMatch(), AdaMatch(variant="paper"), Dash(epoch_steps=1)]
)
def test_a_step_that_overflows_leaves_the_state_finite(config: Any) -> None:
    algorithm: Any = config.build(info(4, 12, steps=20))
    batch = batch_of(algorithm, progress=0.4)
    broken = tuple(torch.full_like(view, math.nan, requires_grad=True) for view in batch.u)
    labeled = tuple(torch.full_like(view, math.nan) for view in batch.x)
    algorithm(batch._replace(u=broken, x=labeled), Identity(), Identity())
    algorithm(batch, Identity(), Identity())
    assert all(buffer.isfinite().all() for buffer in algorithm.buffers())


@pytest.mark.parametrize("variant", ["authors", "usb"])
@pytest.mark.parametrize("estimate", ["unlabeled", "labeled"])
def test_dash_estimates_from_the_last_epoch_of_its_warm_up(variant: Any, estimate: Any) -> None:
    """Two epochs of three steps; the threshold is that estimate, divided as the paper says."""
    config = Dash(
        variant=variant, estimate=estimate, epoch_steps=3, wait_epochs=2, drop_epochs=1, gamma=1.5, rho_min=1e-6
    )
    algorithm: Any = config.build(info(4, 12, steps=20))
    seen = []
    for step in range(12):
        losses = algorithm(batch_of(algorithm, progress=step / 20, seed=step), Identity(), Identity())
        labeled = variant == "usb" or estimate == "labeled"
        seen.append(float(losses.log["loss_x" if labeled else "loss_u"]))
        if step < 6:
            assert float(losses.log["rho"]) == 0
            assert losses.kept is not None and losses.kept.tolist() == [float(variant != "usb")] * 12
            continue
        start = sum(seen[3:6]) / 3
        drops = (step - (6 if variant == "usb" else 3)) // 3
        expected = start * (1.0001 if variant == "usb" else 1) / 1.5**drops
        assert float(losses.log["rho"]) == pytest.approx(expected, rel=1e-5), step


def test_adamatch_draws_a_share_for_each_class_of_each_view() -> None:
    algorithm: Any = AdaMatch(variant="paper").build(info(4, 12))
    assert algorithm.draws and not AdaMatch().build(info(4, 12)).draws
    shapes = []

    class Watched(Rng):
        def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
            shapes.append((rows, *shape))
            return super().uniform(purpose, rows, *shape)

    algorithm(batch_of(algorithm)._replace(rng=Watched(0, 0)), Identity(), Identity())
    assert shapes == [(4, 2, K)]


def test_adamatch_s_weight_grows_for_half_of_the_training() -> None:
    step: Any = AdaMatch(variant="paper", lambda_u=2.0).build(info(4, 12)).lambda_u
    found = [float(step(torch.tensor(t))) for t in (0.0, 0.125, 0.25, 0.5, 0.75)]
    assert found == pytest.approx([0, 1 - math.cos(math.pi / 4), 1, 2, 2], abs=1e-6)


@pytest.mark.parametrize("config", [ReFixMatch, SequenceMatch, FullMatch, ShrinkMatch, CoMatch, SimMatch])
def test_images_that_are_set_aside_count_in_no_loss(config: Any) -> None:
    """With all of them set aside every unlabeled loss is 0, that of the images below the threshold too."""
    openset = OpenSet("energy", by="value", threshold=1e5, start=0.0)
    algorithm: Any = config(openset=openset).build(info(4, 12, dim=K)._replace(unlabeled=12))
    batch = batch_of(algorithm)
    views = (batch.u[0], *[batch.u[1].detach().clone().requires_grad_() for _ in algorithm.views.unlabeled[1:]])
    net = Model(Identity(), dict(algorithm.heads))
    losses = algorithm(batch._replace(u=views), net, net)
    beside = {name: float(value) for name, value in losses.log.items() if name.startswith("loss")}
    assert float(losses.log["foreign"]) == 1 and len(beside) >= 4
    assert beside.pop("loss") == beside.pop("loss_x") and set(beside.values()) == {0.0}


def test_comatch_smooths_from_the_step_after_its_memory_is_full() -> None:
    """salesforce/CoMatch, Train_CoMatch.py: ``it > args.queue_batch``, counted from 0."""
    for batches in (1, 5):
        memory: Any = CoMatch(queue_batches=batches).build(info(4, 12)).align
        assert memory.start == batches + 1
    given: Any = CoMatch(queue_batches=5, start=2).build(info(4, 12)).align
    assert given.start == 2


def test_crmatch_turns_square_images_only() -> None:
    wide = info(4, 12)._replace(shape=(3, 8, 12))
    with pytest.raises(ValueError, match=r"^CRMatch turns images by 90 degrees and needs square ones, got 8 x 12; "):
        CRMatch().build(wide)
    assert (
        "rotation" in CRMatch().build(info(4, 12)).heads and "rotation" not in CRMatch(w_rotation=0).build(wide).heads
    )
