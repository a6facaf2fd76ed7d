"""Which images to label next, and which labels are suspect: against slow loops over what the papers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewlabels.inference import choosing, suspects


def probabilities(n: int = 40, classes: int = 4) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, 2, (n, classes))
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True)


def test_margin_and_entropy() -> None:
    p = probabilities()
    margins, entropies = [], []
    for row in p.tolist():
        best, second, *_ = sorted(row, reverse=True)
        margins.append(best - second)
        entropies.append(-sum(x * math.log(x) for x in row))
    assert choosing.by_margin(p, 7).tolist() == sorted(range(40), key=lambda i: margins[i])[:7]
    assert choosing.by_entropy(p, 7).tolist() == sorted(range(40), key=lambda i: -entropies[i])[:7]


def test_equal_ones_come_in_their_order() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert choosing.by_margin(p, 5).tolist() == [1, 3, 0, 2, 4]
    assert choosing.by_entropy(p, 5).tolist() == [1, 3, 0, 2, 4]


def test_vote_entropy() -> None:
    """Three models, four images: agreed; two to one; all different; two to one."""
    votes = np.array([[0, 0, 0, 2], [0, 1, 1, 2], [0, 1, 2, 1]])
    assert choosing.by_votes(votes, 3, 4).tolist() == [2, 1, 3, 0]


def test_k_centre_takes_the_farthest_one_after_another() -> None:
    rng = np.random.default_rng(1)
    x, known = rng.normal(size=(30, 3)), rng.normal(size=(4, 3))
    centres, expected = list(known), []
    for _ in range(6):
        away = [min(float(np.linalg.norm(row - c)) for c in centres) for row in x]
        expected.append(max(range(30), key=lambda i: away[i]))
        centres.append(x[expected[-1]])
    assert choosing.k_centre(x, known, 6).tolist() == expected
    assert len(set(choosing.k_centre(np.zeros((5, 2)), np.zeros((1, 2)), 5).tolist())) == 5


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Directions around the three axes: 8, 20 and 12 images, and which axis."""
    rng = np.random.default_rng(2)
    axis = np.repeat([0, 1, 2], [8, 20, 12])
    return 3 * np.eye(3)[axis] + rng.normal(0, 0.1, (40, 3)), axis


def sparsity(x: np.ndarray, members: list[int]) -> dict[int, float]:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = min(20, len(members) // 2)
    return {
        i: float(np.mean(sorted(float(np.linalg.norm(unit[i] - unit[j])) for j in members if j != i)[:near]))
        for i in members
    }


def test_typical_ones_come_from_large_clusters_without_a_label() -> None:
    x, axis = blobs()
    known = np.array([[0.1, 3.0, 0.0]])  # on axis 1, whose cluster is then the last one
    chosen = choosing.typical(x, known, 2).tolist()
    expected = []
    for a in (2, 0):
        away = sparsity(x, np.flatnonzero(axis == a).tolist())
        expected.append(min(away, key=lambda i: away[i]))
    assert chosen == expected


def test_typical_goes_round_again() -> None:
    x, _ = blobs()
    chosen = choosing.typical(x, np.empty((0, 3)), 40).tolist()
    assert sorted(chosen) == list(range(40))


def test_central_ones_are_nearest_to_the_means_of_clusters() -> None:
    x, axis = blobs()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = []
    for a in (1, 2, 0):  # by size
        members = np.flatnonzero(axis == a)
        away = np.linalg.norm(unit[members] - unit[members].mean(0), axis=1)
        expected.append(int(members[away.argmin()]))
    assert choosing.central(x, 3).tolist() == expected
    assert sorted(choosing.central(np.ones((4, 2)), 4).tolist()) == [0, 1, 2, 3]


def three_classes() -> tuple[np.ndarray, np.ndarray]:
    p = probabilities(60)[:, :3]
    return p / p.sum(1, keepdims=True), np.random.default_rng(3).integers(0, 3, 60)


def test_confident_joint() -> None:
    """A slow loop over section 3.1 of Northcutt et al. 2021: thresholds, candidates, the most probable of them; and
    cleanlab 2.9.0's ``count.compute_confident_joint(y, p, calibrate=False)``."""
    p, y = three_classes()
    means = [float(np.mean([row[c] for row, label in zip(p, y, strict=True) if label == c])) for c in range(3)]
    expected = []
    for row in p.tolist():
        candidates = [c for c in range(3) if row[c] >= means[c]]
        expected.append(max(candidates, key=lambda c: row[c]) if candidates else -1)
    found = suspects.confident(p, y)
    assert found.tolist() == expected
    joint = [[int(((y == i) & (found == j)).sum()) for j in range(3)] for i in range(3)]
    assert joint == [[8, 9, 8], [6, 8, 3], [8, 6, 4]]


# fmt: off
CLEANLAB = [
    44, 15, 22, 26, 5, 52, 11, 3, 37, 1, 59, 19, 6, 9, 33, 51, 31, 18, 46, 40, 45, 4, 23, 24, 36, 10, 20, 17, 55, 28,
    29, 12, 8, 30, 58, 32, 14, 43, 2,
]
# fmt: on
"""What cleanlab 2.9.0 gives: ``filter.find_label_issues(y, p, filter_by="confident_learning", min_examples_per_class=0,
return_indices_ranked_by="normalized_margin")``."""


def test_suspects_are_those_of_cleanlab() -> None:
    p, y = three_classes()
    places, others = suspects.suspects(p, y)
    assert places.tolist() == CLEANLAB and (others != y[places]).all()


@pytest.mark.slow
def test_labels_that_were_changed_are_found() -> None:
    x, axis = blobs()
    x, axis = np.concatenate([x, x + 0.01, x - 0.01]), np.tile(axis, 3)
    y = axis.copy()
    changed = [3, 15, 33, 90]
    y[changed] = (y[changed] + 1) % 3
    places, others = suspects.suspects(suspects.out_of_fold(torch.tensor(x).float(), y, 3), y)
    assert sorted(places.tolist()) == changed
    assert others.tolist() == axis[places].tolist()


def test_too_few_labels_are_refused() -> None:
    suspects.check_counts(np.array([20, 21]), ("cat", "dog"))
    with pytest.raises(ValueError, match="20 labels of each class on, and 'dog' has 19"):
        suspects.check_counts(np.array([20, 19]), ("cat", "dog"))
