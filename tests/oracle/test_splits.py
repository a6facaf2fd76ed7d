"""The split rules against the authors' own code, bit for bit, and against slow transcriptions of the spec."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewlabels.data.rules import balanced_pick, interleaved_order, proportional_pick

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "splits.json").read_text())


def sha256(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def golden_labels(name: str) -> NDArray[np.int64]:
    """The label arrays of the golden file, by their formulas."""
    i = np.arange(GOLDEN["label_arrays"][name]["n"], dtype=np.int64)
    if name == "bal10":
        return (i * 7919) % 10
    if name == "bal100":
        return (i * 7919) % 100
    if name == "skew10":
        r = (((i * 2654435761) % 2**32) >> 16) % 100
        return np.searchsorted([20, 35, 48, 58, 67, 75, 82, 89, 95, 100], r, side="right").astype(np.int64)
    assert name == "stl_like"
    return np.where(i < 500, (i * 7919) % 10, 0)


@pytest.mark.parametrize("name", GOLDEN["label_arrays"])
def test_label_arrays_are_the_golden_ones(name: str) -> None:
    assert sha256(golden_labels(name)) == GOLDEN["label_arrays"][name]["sha256"]


@pytest.mark.parametrize("entry", GOLDEN["create_split"], ids=lambda e: f"{e['labels']}.{e['seed']}@{e['size']}")
def test_proportional_pick_is_create_split(entry: dict[str, Any]) -> None:
    labels = golden_labels(entry["labels"])
    chosen = proportional_pick(labels, entry["size"], entry["seed"])
    assert sha256(chosen) == entry["sha256_selection"]
    assert sha256(np.sort(chosen)) == entry["sha256_sorted"]
    if entry.get("indices_sorted"):
        assert np.sort(chosen).tolist() == entry["indices_sorted"]
    if entry["class_counts"]:
        assert np.bincount(labels[chosen]).tolist() == entry["class_counts"]


@pytest.mark.parametrize("entry", GOLDEN["create_unlabeled"], ids=lambda e: e["labels"])
def test_interleaved_order_is_create_unlabeled(entry: dict[str, Any]) -> None:
    labels = golden_labels(entry["labels"])
    # STL-10's rule: all weights 1, since its unlabeled images carry a dummy label
    order = interleaved_order(labels, np.ones(10) if entry["labels"] == "stl_like" else None)
    assert sha256(order) == entry["sha256_order"]
    assert order[:60].tolist() == entry["order_first60"]
    assert order[-10:].tolist() == entry["order_last10"]


@pytest.mark.parametrize("entry", GOLDEN["balanced"])
def test_balanced_pick_is_kekmodels(entry: dict[str, Any]) -> None:
    chosen = balanced_pick(np.arange(entry["n"]) % entry["classes"], entry["size"], entry["seed"])
    assert chosen[:12].tolist() == entry["first12"]
    assert len(chosen) == entry["size"]


@pytest.mark.parametrize("entry", GOLDEN["proportional_counts"])
def test_classes_are_served_in_proportion(entry: dict[str, Any]) -> None:
    labels = np.repeat(np.arange(len(entry["counts"])), entry["counts"])
    chosen = proportional_pick(labels, len(entry["classes"]), seed=7)
    assert labels[chosen].tolist() == entry["classes"]


def slow_create_unlabeled(labels: list[int], weights: list[float]) -> list[int]:
    """The queueing program of the spec, record by record."""
    queue: list[list[int]] = [[] for _ in weights]
    taken, out = [0] * len(weights), []
    for position, label in enumerate(labels):
        queue[label].append(position)
        while True:
            scores = np.array(weights) - np.array(taken) / max(*taken, 1)
            c = int(np.argmax(scores))
            if not queue[c]:
                break
            out.append(queue[c].pop(0))
            taken[c] += 1
    return out + [position for rows in queue for position in rows]


def slow_create_split(labels: list[int], weights: list[float], seed: int, size: int) -> list[int]:
    rows = [np.array([i for i, y in enumerate(labels) if y == c], np.int64) for c in range(len(weights))]
    if seed:
        np.random.seed(seed)
        for row in rows:
            np.random.shuffle(row)
    taken, out = [0] * len(weights), []
    for _ in range(size):
        c = int(np.argmax(np.array(weights) - np.array(taken) / max(*taken, 1)))
        out.append(int(rows[c][taken[c]]))
        taken[c] += 1
    return out


@st.composite
def label_lists(draw: st.DrawFn) -> list[int]:
    """Labels in which every class from 0 to K-1 appears."""
    classes = draw(st.integers(2, 6))
    more = draw(st.lists(st.integers(0, classes - 1), max_size=60))
    return draw(st.permutations([*range(classes), *more]))


@pytest.mark.slow
@settings(deadline=None)
@given(label_lists(), st.integers(0, 2**32 - 1), st.data())
def test_rules_equal_the_slow_programs(labels: list[int], seed: int, data: st.DataObject) -> None:
    counts = np.bincount(labels)
    weights = [float(n) / float(counts.max()) for n in counts]
    size = data.draw(st.integers(1, len(labels)))
    y = np.array(labels)
    assert interleaved_order(y).tolist() == slow_create_unlabeled(labels, weights)
    assert proportional_pick(y, size, seed).tolist() == slow_create_split(labels, weights, seed, size)


@pytest.mark.slow
@settings(deadline=None)
@given(label_lists(), st.data())
def test_given_weights_equal_the_slow_program(labels: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=max(labels) + 1, max_size=max(labels) + 1))
    assert interleaved_order(np.array(labels), np.array(weights)).tolist() == slow_create_unlabeled(labels, weights)


@pytest.mark.slow
@settings(deadline=None)
@given(label_lists(), st.integers(0, 2**32 - 1), st.data())
def test_nested_and_without_repeats(labels: list[int], seed: int, data: st.DataObject) -> None:
    y = np.array(labels)
    small = data.draw(st.integers(1, len(y)))
    whole = proportional_pick(y, len(y), seed)
    assert sorted(whole) == list(range(len(y)))
    assert proportional_pick(y, small, seed).tolist() == whole[:small].tolist()
    assert sorted(interleaved_order(y)) == list(range(len(y)))


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(2, 8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_balanced_takes_as_many_of_each(classes: int, each: int, seed: int) -> None:
    y = np.arange(classes * 6) % classes
    chosen = balanced_pick(y, classes * each, seed)
    assert np.bincount(y[chosen]).tolist() == [each] * classes
    assert len(set(chosen.tolist())) == len(chosen)


def test_too_many_labels_are_refused() -> None:
    y = np.array([0, 0, 0, 1])
    with pytest.raises(ValueError, match="5 labels are more than there are: after 4 of 4 images"):
        proportional_pick(y, 5, 1)
    with pytest.raises(ValueError, match="after 3 of 4 images"):
        proportional_pick(y, 4, 1, np.ones(2))  # 0, 1, 0, and then class 1 again
    with pytest.raises(ValueError, match="4 labels need 2 of each class, but class 1 has 1"):
        balanced_pick(y, 4, 1)
    with pytest.raises(ValueError, match="multiple of the 2 classes, got 3"):
        balanced_pick(y, 3, 1)
