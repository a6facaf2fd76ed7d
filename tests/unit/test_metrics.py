from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from fewlabels.inference.metrics import geometric_mean, scores
from fewlabels.runs.curves import curve


def test_geometric_mean_is_the_original_s() -> None:
    # made by running JoyHuYY1412/CADR-FixMatch, libml/train.py (TensorFlow 1.15)
    assert geometric_mean([0.9, 0.8, 0.0, 0.5, 1.0]) == pytest.approx(23.521580450493467, rel=1e-12)


def test_geometric_mean_by_hand() -> None:
    assert geometric_mean([0.25, 1.0]) == pytest.approx(50)
    assert geometric_mean([1.0, 1.0, 1.0]) == pytest.approx(100)
    assert geometric_mean([0.0, 1.0]) == pytest.approx(100 * math.sqrt(1 / 200))  # 0 counts as 1/(100 K)


def test_scores_by_hand() -> None:
    # true 0 0 0 1 1 2, predicted 0 0 1 1 1 0
    logits = torch.tensor([[9, 0, 0], [8, 0, 0], [0, 7, 0], [0, 6, 0], [0, 5, 0], [4, 0, 0]]).float()
    values = scores(logits, torch.tensor([0, 0, 0, 1, 1, 2]), ("a", "b", "c"))
    assert values["n"] == 6 and values["top5"] is None
    assert values["accuracy"] == pytest.approx(100 * 4 / 6)
    assert values["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert values["per_class"] == pytest.approx({"a": 200 / 3, "b": 100, "c": 0})
    # precision 2/3, 2/3, 0; recall 2/3, 1, 0; F1 2/3, 4/5, 0; support 3, 2, 1
    assert values["macro_precision"] == pytest.approx(100 * (4 / 3) / 3)
    assert values["macro_recall"] == pytest.approx(100 * (5 / 3) / 3)
    assert values["macro_f1"] == pytest.approx(100 * (2 / 3 + 4 / 5) / 3)
    assert values["weighted_precision"] == pytest.approx(100 * (3 * 2 / 3 + 2 * 2 / 3) / 6)
    assert values["weighted_recall"] == pytest.approx(100 * (3 * 2 / 3 + 2) / 6)
    assert values["weighted_f1"] == pytest.approx(100 * (3 * 2 / 3 + 2 * 4 / 5) / 6)
    assert values["geometric_mean"] == pytest.approx(100 * (2 / 3 * 1 * 1 / 300) ** (1 / 3))
    right = math.log1p(2 * math.exp(-9)) + math.log1p(2 * math.exp(-8)) + math.log1p(2 * math.exp(-6))
    wrong = math.log(2 + math.exp(7)) + math.log(2 + math.exp(4))
    assert values["loss"] == pytest.approx((right + math.log1p(2 * math.exp(-5)) + wrong) / 6, rel=1e-5)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), k=st.integers(2, 12))
def test_scores_are_scikit_learn_s(seed: int, n: int, k: int) -> None:
    random = np.random.default_rng(seed)
    logits, y = random.standard_normal((n, k)).astype(np.float32), random.integers(0, k, n)
    guess = logits.argmax(1)
    values = scores(torch.from_numpy(logits), torch.from_numpy(y), [f"c{i}" for i in range(k)])
    present = np.unique(y)
    assert values["accuracy"] == pytest.approx(100 * reference.accuracy_score(y, guess))
    assert values["confusion"] == reference.confusion_matrix(y, guess, labels=range(k)).tolist()
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(1, keepdims=True)
    assert values["loss"] == pytest.approx(reference.log_loss(y, probabilities, labels=range(k)), rel=1e-5)
    recall = reference.recall_score(y, guess, labels=present, average=None, zero_division=0)
    assert values["per_class"] == pytest.approx({f"c{c}": 100 * r for c, r in zip(present, recall, strict=True)})
    for average in ("macro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(reference, f"{name}_score")(y, guess, average=average, zero_division=0)
            assert values[f"{average}_{name}"] == pytest.approx(100 * score)
    if k > 5:
        top5 = reference.top_k_accuracy_score(y, logits, k=5, labels=range(k))
        assert values["top5"] == pytest.approx(100 * top5)
    else:
        assert values["top5"] is None


def test_loss_of_confident_mistakes_is_finite() -> None:
    values = scores(torch.tensor([[1000.0, 0.0]]), torch.tensor([1]), ("a", "b"))
    assert values["loss"] == pytest.approx(1000)


def test_half_precision_logits_are_scored_in_float32() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    y = torch.tensor([1, 1])
    assert scores(logits.bfloat16(), y, ("a", "b")) == scores(logits, y, ("a", "b"))


def test_curve_by_hand() -> None:
    assert curve([1.0, 9.0, 5.0]) == {
        "last1": 5.0, "last10": 5.0, "last20": 5.0, "last50": 5.0, "mean10": 5.0, "mean20": 5.0, "best": 9.0,
    }  # fmt: skip
    assert curve([]) == {}
    accuracies = [float(a * 37 % 101) for a in range(60)]
    values = curve(accuracies)
    for n in (1, 10, 20, 50):
        assert values[f"last{n}"] == float(np.median(accuracies[-n:]))
    assert values["mean10"] == pytest.approx(statistics.mean(accuracies[50:]))
    assert values["mean20"] == pytest.approx(statistics.mean(accuracies[40:]))
    assert values["best"] == max(accuracies)
