"""Numbers without a derivation were computed with the released code of the method they belong to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.algorithms import functional as F


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_cross_entropy_of_classes_and_of_distributions() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(7, 4)), rng.integers(0, 4, 7)
    q = softmax(rng.normal(size=(7, 4)))
    logits = torch.tensor(z, dtype=torch.float32)
    expected = -np.log(softmax(z)[np.arange(7), y])
    np.testing.assert_allclose(F.cross_entropy(logits, torch.tensor(y)), expected, rtol=1e-5)
    expected = -(q * np.log(softmax(z))).sum(1)
    np.testing.assert_allclose(F.cross_entropy(logits, torch.tensor(q).float()), expected, rtol=1e-5)


def test_cross_entropy_is_in_float32() -> None:
    logits = torch.tensor([[20.0, 0.0]], dtype=torch.bfloat16)
    loss = F.cross_entropy(logits, torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(20.0 + math.log1p(math.exp(-20)), rel=1e-7)


def test_squared_error() -> None:
    z = torch.tensor([[2.0, 0, 0], [0.1, 0, 0], [3, 0, 0], [1, 0, 0], [0, 0.5, 0]])
    target = torch.tensor([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05], [0.6, 0.2, 0.2], [0.2, 0.6, 0.2]])
    assert float(F.squared_error(z, target).mean()) == pytest.approx(0.002471725, abs=1e-8)


def test_sharpen() -> None:
    mean = (torch.tensor([[1.0, 0, -1]]).softmax(1) + torch.tensor([[0.5, 0.5, 0]]).softmax(1)) / 2
    np.testing.assert_allclose(mean, [[0.524446, 0.314190, 0.161364]], atol=1e-6)
    np.testing.assert_allclose(F.sharpen(mean, 0.5), [[0.687958, 0.246913, 0.065128]], atol=1e-6)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.floats(0.2, 4))
def test_sharpen_divides_logits(logits: list[float], temperature: float) -> None:
    z = np.array([logits])
    ours = F.sharpen(torch.tensor(z).softmax(1), temperature)
    np.testing.assert_allclose(ours, softmax(z / temperature), rtol=1e-9)


def test_sharpen_to_certainty() -> None:
    """0.3^1000 is no float32; the two that are as probable share the rest."""
    probs = torch.tensor([[0.3, 0.4, 0.3], [0.4, 0.2, 0.4], [1e-30, 1.0, 0.0]])
    expected = [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]
    np.testing.assert_allclose(F.sharpen(probs, 0.001), expected, atol=1e-6)


def test_smooth() -> None:
    # y - s (y - 1/K) with K = 4, s = 0.1
    ours = F.smooth(F.one_hot(torch.tensor([2]), 4), 0.1)
    np.testing.assert_allclose(ours, [[0.025, 0.025, 0.925, 0.025]], rtol=1e-6)


def test_mixup_shares_of_each_example() -> None:
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    mixed = F.mixup(a, b, torch.tensor([0.75, 1.0]))
    np.testing.assert_allclose(mixed, [[3.25, 6.5], [3.0, 4.0]])
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert F.mixup(images, 1 - images, torch.tensor([0.25, 1.0]))[:, 0, 0, 0].tolist() == [0.75, 1.0]


@pytest.mark.parametrize(("batch", "cuts"), [(64, [0, 21, 42, 64]), (65, [0, 21, 43, 65]), (10, [0, 3, 6, 10])])
def test_offsets(batch: int, cuts: list[int]) -> None:
    assert F.offsets(batch, 3) == cuts


def test_interleave_of_three() -> None:
    batches = [torch.arange(i, i + 10) for i in (0, 10, 20)]  # cut at 3 and 6
    mixed = [batch.tolist() for batch in F.interleave(batches)]
    assert mixed[0] == [0, 1, 2, 13, 14, 15, 26, 27, 28, 29]
    assert mixed[1] == [10, 11, 12, 3, 4, 5, 16, 17, 18, 19]
    assert mixed[2] == [20, 21, 22, 23, 24, 25, 6, 7, 8, 9]


@pytest.mark.slow
@settings(deadline=None)
@given(batch=st.integers(0, 20), n=st.integers(1, 6))
def test_interleave_is_its_own_inverse_and_loses_nothing(batch: int, n: int) -> None:
    batches = list(torch.arange(batch * n).view(n, batch))
    mixed = F.interleave(batches)
    assert sorted(torch.cat(mixed).tolist()) == list(range(batch * n))
    assert [len(part) for part in mixed] == [batch] * n
    assert torch.equal(torch.stack(F.interleave(mixed)), torch.stack(batches))


def test_ramp() -> None:
    # 16384 of 2**20 steps: halfway at step 8192, 1 from step 16384 on
    for step, expected in ((0, 0.0), (8192, 0.5), (16384, 1.0), (2**19, 1.0)):
        assert float(F.ramp(torch.tensor(step / 2**20), 2**20, 16384)) == expected


def test_ramp_share() -> None:
    values = [float(F.ramp_share(torch.tensor(progress), 0.4)) for progress in (0.0, 0.1, 0.4, 0.9)]
    assert values == pytest.approx([0.0, 0.25, 1.0, 1.0])
    assert float(F.ramp_share(torch.tensor(0.0), 0.0)) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.1, 0.19, 0.325, 0.55, 0.775, 1]),
        ("exp", [0.1061, 0.11, 0.1212, 0.1739, 0.3579, 1]),
        ("log", [0.1, 0.4541, 0.7421, 0.9261, 0.9788, 0.9939]),
    ],
)
def test_annealed(schedule: str, expected: list[float]) -> None:
    """The thresholds of RealMix, realmix.py, which has UDA's schedules; after their end none exceeds 1."""
    shares = torch.tensor([0, 0.1, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(F.annealed(shares, schedule, 10), expected, atol=5e-5)
    assert 0.99 < float(F.annealed(torch.tensor(3.0), schedule, 10)) <= 1


def test_entropy_and_divergence() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(5, 4)) * 3 for _ in range(2))
    p, q = softmax(a), softmax(b)
    np.testing.assert_allclose(F.entropy(torch.tensor(a)), -(p * np.log(p)).sum(1), rtol=1e-5)
    np.testing.assert_allclose(F.kl(torch.tensor(a), torch.tensor(b)), (p * np.log(p / q)).sum(1), rtol=1e-4)
    sure = torch.tensor([[0.0, -1000.0, -2000.0]])
    assert float(F.entropy(sure)) == 0 and float(F.kl(sure, sure + 5)) == 0
    assert float(F.kl(torch.zeros(1, 2), torch.tensor([[0.0, -100.0]]))) == pytest.approx(50 - math.log(2))


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.03), (2**18, 0.02824632), (2**19, 0.02319031), (3 * 2**18, 0.01542308), (2**20, 0.00585271)],
)
def test_cosine(step: int, rate: float) -> None:
    assert 0.03 * F.cosine(step, 2**20) == pytest.approx(rate, abs=5e-9)


def test_cosine_after_a_warmup() -> None:
    assert [F.cosine(k, 100, 4) for k in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert F.cosine(100, 100, 4) == pytest.approx(math.cos(7 * math.pi / 16))
    assert F.cosine(3, 3, 3) == 1.0
    assert F.cosine(300, 100) == 0.0, "never negative"
