"""RealMix against a slow loop in NumPy, against MixMatch, on ranks, and on inputs at the edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from algorithm_oracles import (
    FixedRng,
    K,
    Plain,
    cross_entropy,
    info,
    logits,
    make_batch,
    softmax,
    the_same_on_ranks,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewlabels.algorithms import MixMatch, RealMix
from fewlabels.algorithms.functional import below, percentile
from fewlabels.algorithms.realmix import Annealed, Masked
from fewlabels.nets import SmallCNN
from fewlabels.types import Copies, Views

B = 5
STEPS = 100

CASES: list[dict[str, Any]] = [
    {},
    {"tsa": "linear"},
    {"tsa": "exp", "tsa_on": "logits"},
    {"percent_mask": 0.35},
    {"percent_mask": 1.0},
    {"confidence_mask": 0.4},
    {"tsa": "log", "percent_mask": 0.1, "copy_kind": "cutout"},
]


def threshold(schedule: str, share: float) -> float:
    grown = {"linear": share, "exp": np.exp(5 * (share - 1)), "log": 1 - np.exp(-5 * share)}[schedule]
    return float(grown * (1 - 1 / K) + 1 / K)


def mean_of(values: list[float], keep: list[bool]) -> float:
    return float(np.mean([v for v, k in zip(values, keep, strict=True) if k])) if any(keep) else 0.0


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("progress", [0.02, 0.6])
def test_realmix(options: dict[str, Any], progress: float) -> None:
    net, rng = Plain(48), FixedRng()
    with torch.no_grad():
        net.b *= 2  # sure of some images
    batch = make_batch(0, B, B, 2, progress)._replace(rng=rng)
    config = RealMix(w_match=20, temperature=0.4, ramp_steps=30, **options)
    losses = config.build(info(B, B, STEPS))(batch, net, net)

    x, *views = (t.double().numpy() for t in (*batch.x, *batch.u))
    guess = [sum(softmax(logits(net, view[j])) for view in views) / 2 for j in range(B)]
    sharp = [p ** (1 / 0.4) / (p ** (1 / 0.4)).sum() for p in guess]
    examples = list(zip([*x, *views[0], *views[1]], [*np.eye(K)[batch.y.numpy()], *sharp, *sharp], strict=True))
    mixed = []
    for i, example in enumerate(examples):
        m = rng.shares[f"mixup-{i // B}"][i % B]
        m = max(m, 1 - m)
        partner = examples[rng.orders["mixup"][i]]
        mixed.append([m * a + (1 - m) * b for a, b in zip(example, partner, strict=True)])
    assert rng.parameters == {(0.75, 0.75)}

    ce, keep_x = [], []
    for image, label in mixed[:B]:
        z = logits(net, image)
        p = softmax(z)
        ce.append(cross_entropy(label, z))
        limit = label if config.tsa_on == "labels" else z
        eta = threshold(config.tsa, progress) if config.tsa != "none" else 0
        keep_x.append(any((p[k] if label[k] > 0 else 0) < eta * limit[k] for k in range(K)) or config.tsa == "none")
    error, sure = [], []
    for image, label in mixed[B:]:
        p = softmax(logits(net, image))
        error.append(float(((p - label) ** 2).mean()))
        sure.append(float(p.max()))
    place = min(int(np.float32(2 * B) * np.float32(config.percent_mask)), 2 * B - 1)
    limit_u = sorted(sure)[place] if config.percent_mask else config.confidence_mask
    keep_u = [c > limit_u for c in sure]
    loss_x, loss_u = mean_of(ce, keep_x), mean_of(error, keep_u)
    expected = {
        "loss": loss_x + 20 * min(1.0, progress * STEPS / 30) * loss_u,
        "loss_x": loss_x,
        "loss_u": loss_u,
        "confidence": np.mean([p.max() for p in guess]),
        "mask_mixed": np.mean(keep_u),
        "threshold_mixed": limit_u,
        "confidence_min": min(sure),
        "confidence_mean": np.mean(sure),
        "confidence_max": max(sure),
    }
    if config.tsa != "none":
        expected["mask_sup"] = np.mean(keep_x)
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=1e-5, abs=1e-8)
    assert losses.pseudo is not None and losses.pseudo.tolist() == [p.argmax() for p in guess]


@pytest.mark.parametrize("options", [{}, {"confidence_mask": 1e-3}, {"tsa": "linear"}, {"tsa": "exp"}])
@pytest.mark.parametrize("mix", ["xxy.yxy", "xx.yx", ".yy"])
def test_a_mask_that_keeps_all_and_annealing_that_has_ended_are_mixmatch(options: dict[str, Any], mix: Any) -> None:
    """To the bit: losses, gradients and running statistics."""
    found = []
    for cls, more in ((RealMix, options), (MixMatch, {})):
        torch.manual_seed(0)
        net = SmallCNN(K, 3, width=6)
        config = cls(beta=0.6, w_match=30.0, temperature=0.7, ramp_steps=8, mix=mix, **more)
        batch = make_batch(1, B, B, 2, progress=1.0, shape=(3, 8, 8))
        losses = config.build(info(B, B, shape=(3, 8, 8)))(batch, net, net)
        losses.total.backward()
        log = {name: losses.log[name] for name in ("loss", "loss_x", "loss_u", "confidence")}
        found.append([log, [p.grad for p in net.parameters()], dict(net.named_buffers())])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


RANKED = [{"percent_mask": 0.25}, {"percent_mask": 0.45, "tsa": "linear"}, {"confidence_mask": 0.5, "tsa": "log"}]


@pytest.mark.parametrize("options", RANKED, ids=str)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_are_one(options: dict[str, Any], world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold is that of the global batch: the same losses, shares and gradients, on each rank another mask."""
    rows, net = 4 * world, Plain(48)
    with torch.no_grad():
        net.b *= 3
    algorithm = RealMix(ramp_steps=10, **options).build(info(rows, rows))
    batch = make_batch(1, rows, rows, 2)
    _, logs, _ = the_same_on_ranks(monkeypatch, world, algorithm, net, batch, grad=(1e-4, 1e-6))
    assert len({float(log["mask_mixed"]) for log in logs}) > 1, "the test needs ranks that keep different shares"


@st.composite
def extremes(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits up to what bfloat16 can hold, ties and certainty among them, and targets that may be certain too."""
    rows, classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    level = st.sampled_from([0.0, 1.0, -1.0, 30.0, -90.0, 1e4, -1e30, 3e38])
    z = draw(st.lists(st.lists(level, min_size=classes, max_size=classes), min_size=rows, max_size=rows))
    targets = torch.rand(rows, classes, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    sure = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    certain = torch.nn.functional.one_hot(targets.argmax(1), classes).float()
    targets = torch.where(sure[:, None], certain, targets / targets.sum(1, keepdim=True))
    return torch.tensor(z).to(draw(st.sampled_from([torch.float32, torch.bfloat16]))), targets


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(extremes(), st.floats(0, 1), st.sampled_from(["labels", "logits"]), st.sampled_from([0.0, 0.3, 1.0]))
def test_losses_at_the_edge(given_: Any, share: float, times: str, progress: float) -> None:
    """Finite losses and gradients, whatever is masked; a loss of which nothing counts is 0 and teaches nothing."""
    logits_, targets = given_
    told = info(len(targets), len(targets))._replace(classes=targets.shape[1])
    for part in (
        lambda z: Annealed("linear", times, told)(z, targets, torch.tensor(progress)),
        lambda z: Masked(share, 0)(z, targets),
        lambda z: Masked(0, share)(z, targets),
    ):
        z = logits_.clone().clamp(-1e30, 1e30).requires_grad_()
        loss, seen = part(z)
        loss.backward()
        assert loss.dtype == torch.float32 and loss.shape == () and loss.isfinite()
        assert z.grad is not None and z.grad.isfinite().all()
        assert all(value.isfinite() and not value.requires_grad for value in seen.values())
        kept = seen.get("mask_sup", seen.get("mask_mixed"))
        assert 0 <= kept <= 1
        if kept == 0:
            assert loss == 0 and not z.grad.any()


def test_ties_at_the_threshold_are_left_out() -> None:
    """Equal confidences are all masked by any share, and none by a fixed value below them."""
    z, targets = torch.zeros(6, 4, requires_grad=True), torch.full((6, 4), 0.25)
    assert Masked(0.1, 0)(z, targets)[1]["mask_mixed"] == 0
    assert Masked(0, 0.2)(z, targets)[1]["mask_mixed"] == 1


def test_percentile() -> None:
    """The place is a product in float32: 100 times 0.29 is 29 there, and 28.999999999999996 in float64."""
    values = torch.tensor([5.0, 1, 4, 2, 3])
    assert [float(percentile(values, s)) for s in (0.0, 0.19, 0.2, 0.5, 0.99, 1.0)] == [1, 1, 2, 3, 5, 5]
    assert float(percentile(torch.arange(100).flip(0).float(), 0.29)) == 29


def test_annealing_by_labels_does_not_depend_on_the_zero_of_the_logits() -> None:
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(50, 4, generator=g) * 3, torch.rand(50, 4, generator=g).softmax(1)
    half = torch.tensor(0.5)
    assert torch.equal(below(z - 3, y, half), below(z, y, half))
    assert not torch.equal(below(z - 3, y, half, "logits"), below(z, y, half, "logits"))


def test_views() -> None:
    assert RealMix().build(info(4, 4)).views == Views(("weak",), ("weak", "weak"), None)
    copies = RealMix(copy_kind="svhn", copies=7).build(info(4, 4)).views.copies
    assert copies == Copies("svhn", 7)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"percent_mask": 0.1, "confidence_mask": 0.5},
            "RealMix.percent_mask 0.1 and RealMix.confidence_mask 0.5 cannot go together: one of them must be 0",
        ),
        ({"copies": 7}, "RealMix.copies 7 needs RealMix.copy_kind, which is none: there are no copies then"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        RealMix(**options).build(info(4, 4))
    assert str(caught.value) == sentence
