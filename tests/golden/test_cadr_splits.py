"""CADR's re-sampled and two-tailed splits against its own create_split.py (cadr_splits.json, and any such file)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from golden_recipe import entries

from fewlabels.data import rules
from fewlabels.data.arrays import from_arrays
from fewlabels.data.protocol import Options
from fewlabels.data.split import make_split

NOT_SPLITS = ("baselines",)
"""Losses, which have nothing to do with splits."""


def cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, group in entries("cadr_extra").items():
        name = kind.rpartition("/")[2]
        if name in NOT_SPLITS:
            continue
        found |= {f"{kind}/{case}": entry if name == "splits" else {} for case, entry in group.items()}
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_split_is_create_splits(name: str) -> None:
    entry, case = CASES[name], name.rpartition("/")[2]
    form = re.fullmatch(r"\w+?_(LT|BT)_\d+(_RS)?\.(\d+)@(\d+)", case)
    said = re.fullmatch(r"label of record i is i % (\d+), (\d+) records", entry.get("labels", ""))
    assert form and said, f"{name}: a case of an unknown form"
    assert (int(form[3]), int(form[4])) == (entry["seed"], entry["size"])
    y = np.arange(int(said[2])) % int(said[1])
    source = from_arrays(np.zeros((len(y), 1, 1, 1), np.uint8), y)
    tail = {"imbalance_unlabeled": entry["lamda"]} if form[1] == "BT" else {}
    options = Options(imbalance=entry["lamda"], resample=form[2] is not None, **tail)
    split = make_split(source, labels=entry["size"], seed=entry["seed"], rule="cadr", options=options)
    assert split.labeled.tolist() == entry["records_in_file_order"]
    assert list(split.class_counts) == entry["per_class"]
    assert len(np.unique(split.labeled)) == entry["distinct"]
    assert np.array_equal(split.targets, y[split.labeled])


@pytest.mark.parametrize(
    ("counts", "times"),
    [
        ((5, 2, 3), {0: (1,) * 5, 1: (3, 2), 2: (2, 2, 1)}),
        ((1, 4), {0: (4,), 1: (1,) * 4}),
        ((3, 0, 3), {0: (1,) * 3, 2: (1,) * 3}),
    ],
)
def test_resampling_repeats_in_the_order_of_the_rows(
    counts: tuple[int, ...], times: dict[int, tuple[int, ...]]
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = rules.resample(labels)
    for c, expected in times.items():
        assert [(rows == row).sum() for row in np.flatnonzero(labels == c)] == list(expected)
    assert len(rows) == max(counts) * len(times)
