"""Classes with few labels, against derivations in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithm_cases import info, make_batch
from fewlabels.algorithms import FixMatch, Imbalance, Missing
from fewlabels.algorithms.slots import Seen
from fewlabels.types import Outputs

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(lambda counts: sum(counts) > 0)


def seen(step: Any, logits: Any, y: Any) -> Seen:
    outputs = Outputs(torch.zeros(len(y), 1), torch.tensor(logits, dtype=torch.float32))
    unused: Any = None
    batch = make_batch(step, len(y), len(y))._replace(y=torch.tensor(y))
    return Seen((outputs,), outputs, (), outputs.logits.softmax(1), batch, unused, unused, {}, torch.ones(0))


def losses(config: FixMatch, counts: list[int], logits: Any, y: Any) -> Any:
    told = info()._replace(classes=len(counts), labeled_counts=torch.tensor(counts))
    step: Any = config.build(told)
    return step.labeled(seen(step, logits, y)).numpy()


def cross_entropy(logits: Any, y: Any) -> Any:
    top = logits.max(1, keepdims=True)
    return np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]


@pytest.mark.slow
@given(COUNTS, st.floats(0, 3), st.integers(0, 2**31))
def test_formulas(counts: list[int], strength: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, y = 4 * rng.standard_normal((7, len(counts))), rng.integers(0, len(counts), 7)
    usual, n = cross_entropy(logits, y), np.maximum(counts, 1).astype(float)
    adjusted = cross_entropy(logits + strength * np.log(n / n.sum()), y)
    found = losses(FixMatch(imbalance=Imbalance("adjust", strength=strength)), counts, logits, y)
    np.testing.assert_allclose(found, adjusted, rtol=1e-4, atol=1e-5)
    weights = n**-strength
    for scale, one in (("mean", (weights * n).sum() / n.sum()), ("largest", weights.min())):
        config = FixMatch(imbalance=Imbalance("reweight", strength=strength, scale=scale))  # type: ignore[arg-type]
        np.testing.assert_allclose(
            losses(config, counts, logits, y), usual * weights[y] / one, rtol=1e-4, atol=1e-5 / one
        )


@pytest.mark.parametrize("name", ["adjust", "reweight"])
def test_equal_classes_change_nothing(name: Any) -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.standard_normal((5, 3)), np.array([0, 1, 2, 2, 0])
    plain = losses(FixMatch(), [4, 4, 4], logits, y)
    np.testing.assert_allclose(losses(FixMatch(imbalance=Imbalance(name)), [4, 4, 4], logits, y), plain, rtol=1e-6)


def test_adjusted_logits_are_what_balances_the_best_answer() -> None:
    """Of images without features: the loss is smallest where the net says that all classes are alike, whose adjusted
    probabilities are the shares of the labels (Menon et al. 2021)."""
    counts = [90, 9, 1]
    y = np.repeat(np.arange(3), counts)
    flat = losses(FixMatch(imbalance=Imbalance("adjust")), counts, np.zeros((100, 3)), y).mean()
    for move in np.eye(3):
        for size in (-0.1, 0.1):
            moved = losses(FixMatch(imbalance=Imbalance("adjust")), counts, np.zeros((100, 3)) + size * move, y).mean()
            assert moved > flat


def test_missing_sees_the_logits_as_they_are() -> None:
    """What `--missing` adds does not change, so that both parts are the sum of what each does alone."""
    rng = np.random.default_rng(1)
    counts, logits, y = [8, 2, 1], 3 * rng.standard_normal((6, 3)), np.array([0, 0, 1, 2, 0, 1])
    plain, weighed, balanced, both = (
        losses(FixMatch(imbalance=one, missing=other), counts, logits, y)
        for one in (Imbalance(), Imbalance("adjust"))
        for other in (Missing(), Missing("cap", prior="batch"))
    )
    np.testing.assert_allclose(both - balanced, weighed - plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strength": 2.0}, "Imbalance.strength 2 means nothing with Imbalance.name none"),
        ({"name": "adjust", "scale": "largest"}, "Imbalance.scale largest means nothing with Imbalance.name adjust"),
        ({"name": "adjust", "strength": -1.0}, "Imbalance.strength must be a number of at least 0, got -1.0"),
    ],
)
def test_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Imbalance(**settings)
    assert str(caught.value) == sentence
