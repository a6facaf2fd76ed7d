"""Criteria without labels, against slow derivations and identities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from fewlabels.inference.criteria import (
    CRITERIA,
    MOST,
    batch_nuclear_norm,
    criteria,
    mean_ranks,
    rankme,
    without_label,
)

CENTRES = np.eye(4)[:3]
"""Of three blobs on the unit sphere, far apart, so that k-means finds them whatever it starts from."""


def blobs(seed: int = 0, each: int = 20, width: float = 0.05) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(3), each)
    return CENTRES[of] + rng.normal(0, width, (3 * each, 4)), of


def says(guess: Any, classes: int = 3, sure: float = 9.0) -> Any:
    return sure * np.eye(classes)[guess]


@pytest.mark.slow
def test_agreement_of_both_clusterings_by_pairs_and_entropies() -> None:
    """A fifth of the images are predicted otherwise than their blob: every pair of images, and every cell, counted."""
    features, blob = blobs()
    guess = np.where(np.arange(60) % 5, blob, (blob + 1) % 3)
    found = criteria(features, says(guess))
    both = only_guess = only_blob = neither = 0
    for i, j in itertools.combinations(range(60), 2):
        a, b = guess[i] == guess[j], blob[i] == blob[j]
        both, only_guess, only_blob, neither = (
            both + (a & b),
            only_guess + (a & ~b),
            only_blob + (b & ~a),
            neither + (~a & ~b),
        )
    pairs = both + only_guess + only_blob + neither
    expected = (both + only_guess) * (both + only_blob) / pairs
    most = ((both + only_guess) + (both + only_blob)) / 2
    assert found["ari"] == pytest.approx((both - expected) / (most - expected))
    assert found["fmi"] == pytest.approx(both / math.sqrt((both + only_guess) * (both + only_blob)))

    def entropy(*of: Any) -> float:
        cells = list(zip(*of, strict=True))
        return -sum(p * math.log(p) for p in (cells.count(cell) / 60 for cell in set(cells)))

    mutual = entropy(guess) + entropy(blob) - entropy(guess, blob)
    assert found["v_measure"] == pytest.approx(2 * mutual / (entropy(guess) + entropy(blob)))
    rng, chance = (
        np.random.default_rng(0),
        [],
    )  # what is expected of clusterings of these sizes that have nothing in common
    for _ in range(2000):
        mixed = rng.permutation(guess)
        chance.append(entropy(guess) + entropy(blob) - entropy(mixed, blob))
    adjusted = (mutual - np.mean(chance)) / ((entropy(guess) + entropy(blob)) / 2 - np.mean(chance))
    assert found["ami"] == pytest.approx(adjusted, abs=0.01)
    assert 0.2 < found["ami"] < 0.7


def test_calinski_harabasz_of_the_clusters_of_k_means_on_unit_features() -> None:
    features, blob = blobs()
    features = features * np.linspace(1, 9, 60)[:, None]  # lengths say nothing
    unit = features / np.sqrt((features**2).sum(1, keepdims=True))
    within = between = 0.0
    for k in range(3):
        mine = unit[blob == k]
        within += ((mine - mine.mean(0)) ** 2).sum()
        between += len(mine) * ((mine.mean(0) - unit.mean(0)) ** 2).sum()
    found = criteria(features, says((blob + np.arange(60)) % 3))  # the classes predicted have no part in it
    assert found["calinski_harabasz"] == pytest.approx((between / 2) / (within / 57))


def test_the_names_of_classes_the_order_of_images_and_lengths_do_not_matter() -> None:
    features, blob = blobs(width=0.2)
    logits = says(blob) + np.random.default_rng(1).normal(0, 3, (60, 3))
    found = criteria(features, logits)
    assert list(found) == list(CRITERIA)
    order = np.random.default_rng(2).permutation(60)
    for other in (
        criteria(features, logits[:, [2, 0, 1]]),
        criteria(features[order], logits[order]),
        criteria(7 * features, logits + 5),
    ):
        assert other == pytest.approx(found)


def test_where_both_clusterings_are_the_same() -> None:
    features, blob = blobs()
    found = criteria(features, says(blob, sure=200.0))
    assert [found[name] for name in ("ami", "ari", "v_measure", "fmi")] == pytest.approx([1.0] * 4)
    assert found["bnm"] == pytest.approx(math.sqrt(3 * 60) / 60)


def test_rankme_by_eigenvalues() -> None:
    z = np.random.default_rng(0).normal(size=(50, 6)) * [1, 1, 1, 0.1, 0.1, 0]
    values = np.sqrt(np.linalg.eigvalsh(z.T @ z).clip(0))
    total, entropy = values.sum(), 0.0
    for value in values:
        p = value / total + 1e-7
        entropy -= p * math.log(p)
    assert rankme(z) == pytest.approx(math.exp(entropy))
    assert 3 < rankme(z) < 5
    assert rankme(np.tile(np.eye(5), (4, 1))) == pytest.approx(5, abs=1e-4)  # as many directions, all alike
    assert rankme(np.ones((9, 4))) == pytest.approx(1, abs=1e-4) and rankme(np.zeros((9, 4))) == 0


def test_batch_nuclear_norm_of_what_is_known() -> None:
    """Sure answers: the singular values are the roots of the classes' counts. The same answer for all: a single one."""
    guess = np.repeat([0, 1, 2], [1, 4, 16])
    assert batch_nuclear_norm(says(guess, sure=300.0)) == pytest.approx((1 + 2 + 4) / 21)
    p = np.array([0.7, 0.2, 0.1])
    assert batch_nuclear_norm(np.log(np.tile(p, (21, 1)))) == pytest.approx(math.sqrt(21 * (p**2).sum()) / 21)


def test_features_that_have_collapsed_are_the_worst() -> None:
    _, blob = blobs()
    found = criteria(np.ones((60, 4)), says(blob))
    assert found["calinski_harabasz"] == 0 and found["ami"] == pytest.approx(0, abs=1e-9)
    assert found["rankme"] == pytest.approx(1, abs=1e-4)


def test_mean_ranks() -> None:
    values = np.random.default_rng(0).integers(0, 4, (6, 7)).astype(float)
    expected = np.mean([rankdata(-column, method="average") for column in values.T], axis=0)
    np.testing.assert_allclose(mean_ranks(values), expected)
    assert mean_ranks(np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]])).tolist() == [2, 2, 2]


def test_the_images() -> None:
    assert without_label(np.array([3, 1, 1]), np.array([5, 3, 1, 0])).tolist() == [0, 5]
    many = without_label(np.arange(10), np.arange(3 * MOST))
    assert len(many) == MOST == len(set(many.tolist())) and (many[0], many[-1]) == (10, 3 * MOST - 1)


@pytest.mark.parametrize(
    ("features", "logits", "sentence"),
    [
        (np.ones((3, 2)), np.ones((3, 3)), r"more unlabeled images than classes, got 3 for 3 classes"),
        (np.full((9, 2), np.nan), np.ones((9, 3)), "must be finite"),
        (np.ones((9, 2)), np.full((9, 3), np.inf), "must be finite"),
    ],
)
def test_refused(features: Any, logits: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        criteria(features, logits)
