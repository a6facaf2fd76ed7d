"""Options of the rules, classes that are kept, and the names of published protocols."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.config.resolve import options_of, resolve_data
from fewlabels.config.settings import Data
from fewlabels.data.aliases import ALIASES
from fewlabels.data.arrays import from_arrays
from fewlabels.data.names import DataName, parse
from fewlabels.data.protocol import Options, class_ids, restrict
from fewlabels.data.source import Source
from fewlabels.data.split import Split, make_split

NAMES = ("ant", "bee", "cat", "dog")


def four(each: int = 30, test: int = 5) -> Source:
    y, t = np.arange(4 * each) % 4, np.arange(4 * test) % 4
    images = np.zeros((len(y), 1, 1, 1), np.uint8)
    return from_arrays(images, y, images[: len(t)], t, classes=NAMES)


def split_of(source: Source, **asked: Any) -> Split:
    options = {k: asked.pop(k) for k in list(asked) if k in Options._fields}
    return make_split(source, **({"labels": 8, "seed": 1, "rule": "cadr"} | asked), options=Options(**options))


def test_options_are_fields_of_data_with_its_defaults() -> None:
    fields = {f.name: f.default for f in dataclasses.fields(Data)}
    assert {name: fields[name] for name in Options._fields} == Options()._asdict()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"rule": "fixmatch", "imbalance": 5}, "imbalance goes with the rules cadr and usb, not with fixmatch"),
        ({"head_unlabeled": 5}, "head_unlabeled goes with the rule usb, not with cadr"),
        ({"prior": "equal"}, "prior equal goes with the rule realmix, not with cadr"),
        ({"rule": "usb", "prior": "rand"}, "prior rand goes with the rule cadr, not with usb"),
        ({"candidates": 9}, "candidates goes with the rule realmix"),
        ({"imbalance": 0.5}, "imbalance must be at least 1, got 0.5"),
        ({"reverse": True}, "neither is given"),
        ({"imbalance": 5, "prior": "rand"}, "give one of them"),
        ({"imbalance": 5, "labels": None}, "imbalance needs labels"),
        ({"rule": "usb", "imbalance_unlabeled": 5}, "rule usb needs head_unlabeled"),
        ({"remap": True}, "keep_labeled is not given"),
        (
            {"keep_labeled": ("elk",)},
            r"keep_labeled: there is no class 'elk'; .* ant, bee, cat, dog \(numbers 0 to 3\)",
        ),
        ({"keep_unlabeled": (4,)}, "keep_unlabeled: there is no class 4"),
        ({"labels": 31, "imbalance": 10}, "needs 31 images of class 'ant' of arrays, labeled and unlabeled, .* are 30"),
        ({"rule": "usb", "labels": 20, "head_unlabeled": 26}, "needs 31 images of class 'ant'"),
        ({"rule": "usb", "labels": 8, "resample": True}, "resample goes with the rule cadr, not with usb"),
        ({"labels": None, "resample": True}, "resample needs labels, the number of labels to pick"),
        ({"labels": 8, "resample": True, "oversample": 9}, "resample and oversample both say how often"),
        ({"rule": "realmix", "labels": 9, "candidates": 8}, "8 images have a known label among the first 8"),
        ({"labels": 1, "seed": 1, "keep_labeled": ("ant", "bee", "cat"), "rule": "usb"}, "multiple of the 4 classes"),
        (
            {"labels": 1, "seed": 0, "keep_labeled": ("dog",), "rule": "fixmatch"},
            "none of the 1 labels .* classes: dog",
        ),
    ],
)
def test_what_does_not_go_together_is_said(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        split_of(four(), **asked)


def test_classes_by_name_and_number() -> None:
    assert class_ids("keep", ("dog", 0, "2", "ant"), NAMES) == (0, 2, 3)
    assert class_ids("keep", ("1", 1), ("1", "9")) == (0, 1)  # a text is a name first, an int is a number


def test_labels_are_picked_first_and_then_kept() -> None:
    source = four()
    whole = split_of(source, rule="realmix", labels=20)
    kept = split_of(source, rule="realmix", labels=20, keep_labeled=("bee", 2), keep_unlabeled=("dog",))
    assert kept.labeled.tolist() == [row for row in whole.labeled.tolist() if row % 4 in (1, 2)]
    assert kept.class_counts == (0, 5, 5, 0)
    assert kept.unlabeled.tolist() == [row for row in whole.unlabeled.tolist() if row % 4 == 3]
    assert kept.parameters == {"keep_labeled": [1, 2], "keep_unlabeled": [3]}
    assert kept.fingerprint != whole.fingerprint
    valid = split_of(source, rule="realmix", labels=20, valid=6, keep_labeled=(1, 2)).validation
    assert len(valid) == 6 and {row % 4 for row in valid.tolist()} == {1, 2}


def test_restricted_test_images_and_new_numbers() -> None:
    source = four()
    tested = restrict(source, Options(keep_test=("dog", "ant")))
    assert tested.test_labels.tolist() == [0, 3] * 5 and tested.classes == NAMES and len(tested.test_images) == 10
    options = Options(keep_labeled=(3, 1), keep_test=(1, 3), remap=True)
    new = restrict(source, options)
    assert new.classes == ("bee", "dog")
    assert new.labels.tolist() == [-1, 0, -1, 1] * 30 and new.test_labels.tolist() == [0, 1] * 5
    again = restrict(new, options)
    assert again.labels.tolist() == new.labels.tolist() and again.classes == new.classes
    old, split = (make_split(s, labels=8, seed=1, rule="realmix", options=options) for s in (source, new))
    assert old.labeled.tolist() == split.labeled.tolist() and old.unlabeled.tolist() == split.unlabeled.tolist()
    assert split.class_counts == (2, 2) and old.class_counts == (0, 2, 0, 2)
    assert split.targets.tolist() == [{1: 0, 3: 1}[row % 4] for row in split.labeled.tolist()]
    assert restrict(source, Options()) is source


def test_restrictions_that_leave_nothing_are_said() -> None:
    with pytest.raises(ValueError, match="leaves no number for the test images of ant, cat,"):
        restrict(four(), Options(keep_labeled=(1, 3), remap=True))
    with pytest.raises(ValueError, match="leaves one class only"):
        restrict(four(), Options(keep_labeled=(1,), keep_test=(1,), remap=True))
    source = from_arrays(np.zeros((3, 1, 1, 1), np.uint8), [0, 1, 2], np.zeros((1, 1, 1, 1), np.uint8), [0])
    with pytest.raises(ValueError, match="has no test images of 2"):
        restrict(source, Options(keep_test=(2,)))


def test_oversampled_labels_repeat_rows() -> None:
    split = split_of(four(), labels=10, imbalance=5, oversample=40)
    assert split.class_counts == (10, 10, 10, 10)
    picked = split_of(four(), labels=10, imbalance=5)
    assert picked.class_counts == (10, 6, 4, 2)  # ceil(10 * 5 ** (-c / 3))
    # the original gives every image of a class ceil(10 / count) places, so the sixth bee finds none
    repeats = {c: np.unique(np.unique(split.labeled[split.targets == c], return_counts=True)[1]) for c in range(4)}
    assert {c: n.tolist() for c, n in repeats.items()} == {0: [1], 1: [2], 2: [1, 3], 3: [5]}
    assert set(split.labeled.tolist()) <= set(picked.labeled.tolist())
    assert "the 22 labeled images were balanced to 40" in split.notes[0]


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.floats(1, 20))
def test_long_tails_of_one_seed_are_nested(seed: int, a: int, b: int, imbalance: float) -> None:
    """A class's labels are a prefix of its shuffle, and the counts grow with the head; for usb too."""
    for rule in ("cadr", "usb"):
        small, large = (
            split_of(four(), labels=head, seed=seed, rule=rule, imbalance=imbalance) for head in sorted((a, b))
        )
        assert set(small.labeled.tolist()) <= set(large.labeled.tolist())
        shares = [imbalance ** (-c / 3) for c in range(4)]
        for split, head in ((small, min(a, b)), (large, max(a, b))):
            for count, share in zip(split.class_counts, shares, strict=True):
                assert abs(count - head * share) <= 1 + 1e-9
            assert list(split.class_counts) == sorted(split.class_counts, reverse=True)


@pytest.mark.slow
@settings(deadline=None)
@given(st.permutations(range(24)), st.sampled_from(["fixmatch", "balanced", "cadr", "realmix", "usb"]), st.data())
def test_the_order_of_unlabeled_images_does_not_touch_the_sets(
    order: list[int], rule: str, data: st.DataObject
) -> None:
    """Images of unknown label may come in any order behind the known ones: the same sets, and the same labels."""
    known = np.arange(16) % 4
    source = from_arrays(np.zeros((40, 1, 1, 1), np.uint8), [*known, *[-1] * 24])
    images = np.concatenate([source.images[:16], source.images[16:][order]])
    moved = dataclasses.replace(source, images=images)
    kind = data.draw(st.sampled_from(["all", "rest"]))
    ask = {"rule": rule, "labels": 8, "valid": 4, "unlabeled": kind}
    one, two = split_of(source, **ask), split_of(moved, **ask)
    assert one == two
    assert set(one.unlabeled.tolist()) >= set(range(16, 40))
    assert not set(one.validation.tolist()) & set(one.unlabeled.tolist())
    shuffled = one.unlabeled[np.random.RandomState(0).permutation(len(one.unlabeled))]
    assert sorted(shuffled.tolist()) == sorted(one.unlabeled.tolist())


def test_the_rule_of_the_unlabeled_default() -> None:
    labeled = {rule: split_of(four(), rule=rule).labeled for rule in ("realmix", "usb", "cadr")}
    for rule, rows in labeled.items():
        inside = np.isin(rows, split_of(four(), rule=rule).unlabeled).all()
        assert inside == (rule != "realmix")


# Names


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_can_be_meant(alias: str) -> None:
    name = parse(f"{alias}.2@40-1")
    assert name == DataName(ALIASES[alias].base, 2, 40, 1, alias=alias)
    assert str(name) == f"{alias}.2@40-1"
    data = resolve_data(Data(f"{alias}.2@40-1"))
    assert (data.labels, data.seed, data.valid) == (40, 2, 1)
    assert resolve_data(data) == data
    Options(**{k: v for k, v in ALIASES[alias].options.items() if k != "rule"}).check(str(data.rule), 40)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("cifar10_LT_50.1@50-1", {"rule": "cadr", "imbalance": 50.0, "labels": 50, "imbalance_test": None}),
        ("cifar10_LT_100", {"imbalance": 100.0, "labels": 100}),
        ("cifar100_LT_200.1@200", {"imbalance": 200.0, "labels": 200, "resample": False}),
        ("miniImageNet_LT_200.1@200-1", {"imbalance": 200.0, "labels": 200}),
        ("imagenet_LT_100", {"imbalance": 100.0, "labels": 100}),
        ("cifar10_LT_50_RS.1@50-1", {"imbalance": 50.0, "labels": 50, "resample": True}),
        ("svhn_LT_100", {"imbalance": 100.0, "labels": 100}),
        ("svhn_LT_10", {"imbalance": 10.0, "labels": 10}),
        ("stl10_LT_50", {"imbalance": 50.0, "labels": 50}),
        ("cifar10_IT_R50", {"imbalance_unlabeled": 50.0, "imbalance_test": None, "reverse": True, "labels": None}),
        ("cifar10_IT_50.1@40", {"imbalance": None, "imbalance_unlabeled": 50.0, "reverse": False}),
        ("cifar10_BT_50_10", {"imbalance": 50.0, "imbalance_unlabeled": 10.0, "imbalance_test": None}),
        ("cifar10_BT_50", {"imbalance": 50.0, "imbalance_unlabeled": 50.0, "labels": 50}),
        ("cifar100_rand.1@400", {"prior": "rand", "imbalance": None}),
        ("cifar6_mismatch75.1@250", {"rule": "realmix", "unlabeled": "rest", "keep_unlabeled": (0, 1, 8, 7)}),
        ("cifar10.1@40", {"rule": "fixmatch", "unlabeled": "all", "imbalance": None}),
    ],
)
def test_what_a_name_stands_for(name: str, meaning: dict[str, Any]) -> None:
    data = resolve_data(Data(name))
    assert {key: getattr(data, key) for key in meaning} == meaning


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Data("cifar10_LT_50", rule="usb"), "the name cifar10_LT_50 says rule cadr, but Data.rule is usb"),
        (Data("cifar10_LT_50", imbalance=20), "says imbalance 50.0, but Data.imbalance is 20.0"),
        (Data("cifar6_mismatch0", keep_test=("2", "3")), "says keep_test .*, but Data.keep_test is"),
        (Data("cifar10@40", labels=50), "the name cifar10@40 says labels 40, but Data.labels is 50"),
        (Data("cifar10", unlabeled="some"), "Data.unlabeled must be 'all', 'rest' or a folder .* got 'some'"),
    ],
)
def test_a_name_and_options_must_agree(data: Data, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        resolve_data(data)


@pytest.mark.parametrize(
    ("name", "total", "last"),
    # the totals of the specification, made by running the project's create_split.py
    [
        ("cifar10_LT_20", 72, 1),
        ("cifar10_LT_50", 143, 1),
        ("cifar10_LT_100", 250, 1),
        ("cifar10_LT_50_RS", 500, 50),
        ("cifar100_LT_50", 1317, 1),
        ("cifar100_LT_100", 2229, 1),
        ("cifar100_LT_200", 3875, 1),
        ("miniImageNet_LT_100", 2229, 1),
        ("stl10_LT_100", 250, 1),
    ],
)
def test_labels_of_cadrs_names(name: str, total: int, last: int) -> None:
    """N labels of the first class and one of the last, and as many in all as its own program picks."""
    data = resolve_data(Data(name))
    classes = 100 if "100_" in name or "mini" in name else 10
    known = np.repeat(np.arange(classes), 500)
    # STL-10's labels are picked from its training images alone
    labels = np.concatenate([known, np.full(1000, -1)]) if "stl" in name else known
    source = from_arrays(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    split = make_split(source, labels=data.labels, seed=1, rule="cadr", options=options_of(data))
    assert len(split.labeled) == total and split.class_counts[0] == data.labels and split.class_counts[-1] == last
    assert len(split.unlabeled) == len(labels)


def test_the_head_readmes_splits_are_reachable() -> None:
    data = resolve_data(Data("cifar100.1@200-1", rule="cadr", imbalance=50))
    labels = np.repeat(np.arange(100), 500)
    source = from_arrays(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    split = make_split(source, labels=200, seed=1, valid=1, rule="cadr", options=options_of(data))
    assert len(split.labeled) == 5113 and split.class_counts[-1] == 4


def test_a_name_and_options_may_say_the_same() -> None:
    said = resolve_data(Data("cifar6_mismatch0.1@250", keep_test=("2", "3", "4", "5", "6", "7"), rule="realmix"))
    assert said == resolve_data(Data("cifar6_mismatch0.1@250"))
    assert resolve_data(Data("cifar10.3@40", seed=3)) == resolve_data(Data("cifar10.3@40"))
