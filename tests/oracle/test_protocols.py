"""The protocols of CADR, RealMix, USB and STL-10 against the authors' own code (tests/golden/splits.json)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fewlabels.data import rules
from fewlabels.data.arrays import from_arrays
from fewlabels.data.protocol import Options, restrict
from fewlabels.data.source import Source
from fewlabels.data.split import make_split

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "splits.json").read_text())


def sha256(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def golden_labels(name: str) -> NDArray[np.int64]:
    i = np.arange(5000, dtype=np.int64)
    if name == "skew10":
        r = (((i * 2654435761) % 2**32) >> 16) % 100
        return np.searchsorted([20, 35, 48, 58, 67, 75, 82, 89, 95, 100], r, side="right").astype(np.int64)
    return (i * 7919) % {"bal10": 10, "bal100": 100}[name]


def source_of(labels: NDArray[np.int64], **fields: Any) -> Source:
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    source = from_arrays(images, labels)
    return Source(**{**vars(source), **fields})


def sources() -> dict[str, Source]:
    return {name: source_of(golden_labels(name)) for name in ("bal10", "bal100", "skew10")}


SOURCES = sources()


def named(entry: dict[str, Any]) -> str:
    return "-".join(f"{entry[k]}" for k in ("labels", "seed", "size", "lamda", "lb_num_labels") if k in entry)


@pytest.mark.parametrize("entry", GOLDEN["cadr_create_split_LT"], ids=named)
def test_long_tailed_labels_are_cadrs(entry: dict[str, Any]) -> None:
    options = Options(imbalance=entry["lamda"])
    split = make_split(SOURCES[entry["labels"]], labels=entry["size"], seed=entry["seed"], rule="cadr", options=options)
    assert list(split.class_counts) == entry["class_counts"]
    assert len(split.labeled) == entry["total_selected"]
    assert sha256(split.labeled) == entry["sha256_sorted"]
    assert len(split.unlabeled) == 5000


@pytest.mark.parametrize("entry", GOLDEN["cadr_create_split_rand"], ids=named)
def test_random_prior_is_cadrs(entry: dict[str, Any]) -> None:
    assert rules.random_prior(10, entry["seed"]).tolist() == entry["p_rand"]
    options = Options(prior="rand")
    split = make_split(SOURCES[entry["labels"]], labels=entry["size"], seed=entry["seed"], rule="cadr", options=options)
    assert split.labeled.tolist() == entry["indices_sorted"]
    assert list(split.class_counts) == entry["class_counts"]


@pytest.mark.parametrize("entry", GOLDEN["cadr_create_unlabeled_IT"], ids=named)
def test_long_tailed_unlabeled_and_test_images_are_cadrs(entry: dict[str, Any]) -> None:
    reverse = entry["lamda"] < 1
    imbalance = round(1 / entry["lamda"]) if reverse else entry["lamda"]
    # to the last bit but one, in which NumPy's power differs from one instruction set to another
    np.testing.assert_allclose(rules.long_tail(10, imbalance, reverse=reverse), entry["train_stats"], rtol=1e-15)
    source = SOURCES[entry["labels"]]
    options = Options(imbalance_unlabeled=imbalance, imbalance_test=imbalance, reverse=reverse)
    split = make_split(source, labels=40, seed=1, rule="cadr", options=options)
    assert split.unlabeled[:40].tolist() == entry["order_first40"]
    assert sha256(split.unlabeled) == entry["sha256_order"]
    assert split.class_counts == (4,) * 10
    headed = make_split(source, labels=40, seed=1, valid=7, rule="cadr", options=options)
    assert [*headed.validation, *headed.unlabeled] == split.unlabeled.tolist()
    # create_test.py writes the test set by the same program
    tested = source_of(source.labels, test_images=source.images, test_labels=source.labels)
    assert np.bincount(restrict(tested, options).test_labels).tolist() == entry["class_counts"]


@pytest.mark.parametrize("entry", GOLDEN["cadr_expected_label_counts_on_balanced_sources"], ids=lambda e: e["dataset"])
def test_counts_of_cadrs_published_splits(entry: dict[str, Any]) -> None:
    shares = rules.long_tail(len(entry["class_counts"]), entry["lamda"])
    counts = rules.head_counts(entry["size"], shares)
    assert counts.tolist() == entry["class_counts"] and counts.sum() == entry["total_labels"]
    labels = np.repeat(np.arange(len(counts)), counts.max())  # just enough of each class
    picked = rules.proportional_pick(labels, int(counts.sum()), 1, shares)
    assert np.bincount(labels[picked]).tolist() == entry["class_counts"]


@pytest.mark.parametrize("entry", GOLDEN["usb"], ids=named)
def test_usb_pick_is_usbs(entry: dict[str, Any]) -> None:
    total, gamma = entry["ulb_num_labels"], entry["ulb_imb_ratio"]
    # where nothing is long-tailed, USB's numbers are those of all classes together
    head = total // 10 if total and gamma == 1 else total
    options = Options(
        imbalance=entry["lb_imb_ratio"] if entry["lb_imb_ratio"] > 1 else None,
        head_unlabeled=head,
        imbalance_unlabeled=abs(gamma) if abs(gamma) > 1 else None,
        reverse=gamma < 0,
    )
    split = make_split(
        SOURCES[entry["labels"]],
        labels=entry["lb_num_labels"],
        seed=entry["seed"],
        rule="usb",
        unlabeled="rest",
        options=options,
    )
    assert list(split.class_counts) == entry["labeled_counts"]
    assert set(entry["labeled_first10"]) <= set(split.labeled.tolist())
    assert sha256(split.unlabeled) == entry["sha256_unlabeled"]


@pytest.mark.parametrize("entry", GOLDEN["usb"], ids=named)
def test_usb_labels_in_the_order_of_their_draw(entry: dict[str, Any]) -> None:
    labels = golden_labels(entry["labels"])
    picked, _ = rules.usb_pick(labels, np.array(entry["labeled_counts"]), None, entry["seed"])
    assert picked[:10].tolist() == entry["labeled_first10"]
    assert sha256(picked) == entry["sha256_labeled"]


@pytest.mark.parametrize("entry", GOLDEN["usb_make_imbalance_data"])
def test_tail_counts_are_usbs(entry: dict[str, Any]) -> None:
    gamma = entry["gamma"]
    counts = rules.tail_counts(entry["max_num_labels"], entry["num_classes"], abs(gamma), reverse=gamma < 0)
    assert counts.tolist() == entry["counts"]


@pytest.mark.parametrize("entry", GOLDEN["realmix_create_split"])
def test_realmix_split_is_realmixs(entry: dict[str, Any]) -> None:
    options = Options(prior="equal" if entry["class_balance"] else "data", candidates=entry["custom_label_size"])
    ask: dict[str, Any] = {"labels": entry["label_split_size"], "seed": entry["seed"], "rule": "realmix"}
    split = make_split(SOURCES[entry["labels"]], **ask, options=options)
    assert list(split.class_counts) == entry["counts"]
    assert sha256(split.labeled) == entry["sha256_label"]
    assert sha256(split.unlabeled) == entry["sha256_unlabel"]
    headed = make_split(SOURCES[entry["labels"]], **ask, valid=50, options=options)
    assert sha256(np.concatenate([headed.validation, headed.unlabeled])) == entry["sha256_unlabel"]


@pytest.mark.parametrize("entry", GOLDEN["realmix_train_balance"])
def test_oversampling_is_realmixs(entry: dict[str, Any]) -> None:
    rows = rules.oversample(golden_labels(entry["labels"])[: entry["first"]], entry["train_balance"])
    assert rows[:20].tolist() == entry["first20"]
    assert sha256(rows) == entry["sha256"]


def stl_like() -> Source:
    """The golden file's STL-10 situation as our source: unknown labels are -1, where the original has a dummy 0."""
    i = np.arange(2000)
    folds = tuple(np.random.RandomState(fold).permutation(500)[:100] for fold in range(10))
    return source_of(np.where(i < 500, (i * 7919) % 10, -1), folds=folds)


def test_stl10_order_is_the_originals() -> None:
    entry = next(e for e in GOLDEN["create_unlabeled"] if e["labels"] == "stl_like")
    split = make_split(stl_like(), labels=40, seed=1)
    assert sha256(split.unlabeled) == entry["sha256_order"]
    headed = make_split(stl_like(), labels=40, seed=1, valid=20)
    assert [*headed.validation, *headed.unlabeled] == split.unlabeled.tolist()
    assert headed.validation.tolist() == entry["order_first60"][:20]


@pytest.mark.parametrize("seed", [0, 1, 9])
def test_stl10_with_as_many_labels_as_a_fold_takes_the_fold(seed: int) -> None:
    source = stl_like()
    expected = sorted(np.random.RandomState(seed).permutation(500)[:100].tolist())
    assert make_split(source, labels=100, seed=seed).labeled.tolist() == expected
    assert make_split(source, labels=90, seed=seed).class_counts == (9,) * 10
    everything = make_split(source, labels=500, seed=seed)  # the true labels, where the original has dummies
    assert everything.labeled.tolist() == list(range(500))
    with pytest.raises(ValueError, match=r"official folds: seed must lie in 0 \.\. 9, got 10"):
        make_split(source, labels=100, seed=10)


@pytest.mark.parametrize("seed", [1, 2, 2**32 - 1])
def test_four_projects_pick_the_same_images_of_equal_classes(seed: int) -> None:
    """Independent programs, one generator: see docs/data.md. Seed 0 shuffles in two of them only."""
    first, *others = (
        make_split(SOURCES["bal10"], labels=40, seed=seed, rule=rule).labeled.tolist()
        for rule in ("fixmatch", "balanced", "usb", "realmix")
    )
    assert others == [first] * 3
