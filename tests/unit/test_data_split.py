"""`make_split` and the split as a value; the rules themselves are in tests/oracle/test_splits.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.data.arrays import from_arrays
from fewlabels.data.source import Source
from fewlabels.data.split import Split, make_split


def source_of(labels: list[int], classes: int = 3) -> Source:
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return from_arrays(images, labels, classes=[f"class{c}" for c in range(classes)])


@st.composite
def sources(draw: st.DrawFn, unknown: bool | None = None) -> Source:
    """Three classes with three known images or more; perhaps images of unknown label between them."""
    low = 0 if unknown is False or (unknown is None and draw(st.booleans())) else -1
    more = draw(st.lists(st.integers(low, 2), max_size=40))
    return source_of(draw(st.permutations([0, 1, 2] * 3 + more + ([-1] if low else []))))


@pytest.mark.slow
@settings(deadline=None)
@given(sources(), st.data())
def test_the_parts_fit_together(source: Source, data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(["fixmatch", "balanced", "cadr", "realmix", "usb"]))
    labels = data.draw(st.none() | st.sampled_from([3, 6]))
    valid = data.draw(st.integers(0, 3))
    kind = data.draw(st.sampled_from(["all", "rest"]))
    everything = set(range(len(source.labels)))
    known = {int(row) for row in np.flatnonzero(source.labels >= 0)}
    try:
        split = make_split(source, labels=labels, seed=3, valid=valid, rule=rule, unlabeled=kind)
    except ValueError as error:
        assert "no unlabeled image" in str(error) and kind == "rest" and (labels is None or len(known) == 9)
        return
    labeled, validation = set(split.labeled.tolist()), set(split.validation.tolist())
    unlabeled = split.unlabeled.tolist()
    assert len(set(unlabeled)) == len(unlabeled) and len(validation) == valid == len(split.validation)
    assert set(unlabeled) == everything - validation - (labeled if kind == "rest" else set())
    assert labeled <= known and validation <= known
    assert split.labeled.tolist() == sorted(labeled)
    assert len(labeled) == (len(known) - valid if labels is None else labels)
    assert split.targets.tolist() == source.labels[split.labeled].tolist()
    assert list(split.class_counts) == [int((split.targets == c).sum()) for c in range(3)]
    if rule not in ("fixmatch", "cadr") or labels is None or len(known) < len(everything):
        assert not labeled & validation
    overlap = len(labeled & validation)
    assert any("labeled ones too" in note for note in split.notes) == (overlap > 0)


def test_published_protocol_takes_validation_from_the_head_of_the_stream() -> None:
    source = source_of([2, 0, 0, 1, 1, 2, 0, 1, 2])
    split = make_split(source, labels=3, seed=0, valid=4)
    # the stream by hand: class 0, 1, 2, 0, 1, 2, ..., each class in file order
    stream = [1, 3, 0, 2, 4, 5, 6, 7, 8]
    assert split.validation.tolist() == stream[:4]
    assert split.unlabeled.tolist() == stream[4:]
    assert split.labeled.tolist() == [0, 1, 3]  # seed 0: the first of each class
    assert split.notes == ("3 of the 4 validation images are labeled ones too, as in FixMatch's protocol",)


def test_balanced_keeps_file_order_and_apart() -> None:
    source = source_of([2, 0, 0, 1, 1, 2, 0, 1, 2])
    split = make_split(source, labels=6, seed=5, valid=3, rule="balanced")
    assert split.class_counts == (2, 2, 2)
    assert sorted(split.validation) == sorted(set(range(9)) - set(split.labeled.tolist()))
    assert split.unlabeled.tolist() == split.labeled.tolist()


def test_unknown_labels_are_unlabeled_only() -> None:
    source = source_of([-1, 0, 1, 2, -1, 0, 1, 2, -1])
    split = make_split(source, labels=None, seed=1, valid=3)
    assert split.validation.tolist() == [1, 2, 3]
    assert split.labeled.tolist() == [5, 6, 7] and split.class_counts == (1, 1, 1)
    assert split.unlabeled.tolist() == [5, 6, 7, 0, 4, 8]
    assert "were taken from those of known label that are not labeled ones" in split.notes[0]


def test_validation_of_own_pictures_never_overlaps() -> None:
    source = source_of([0, 1, 2, 0, 1, 2, -1])
    split = make_split(source, labels=3, seed=1, valid=3)
    assert sorted([*split.labeled, *split.validation]) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="valid=4 is more than arrays can spare: 3 images of known label are left"):
        make_split(source, labels=3, seed=1, valid=4)


@pytest.mark.slow
@settings(deadline=None)
@given(sources(unknown=False), st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_splits_of_one_seed_are_nested(source: Source, seed: int, a: int, b: int) -> None:
    small, large = (make_split(source, labels=n, seed=seed, valid=0) for n in sorted((a, b)))
    assert set(small.labeled.tolist()) <= set(large.labeled.tolist())


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"labels": 8}, "labels=8 is more than arrays has: 7 images have a known label"),
        ({"labels": 0}, "labels must be at least 1"),
        ({"labels": 6, "rule": "balanced"}, "needs 2 images of each class of arrays, but class 'class2' has 1"),
        ({"labels": 4, "rule": "balanced"}, "multiple of the 3 classes, got 4"),
        ({"labels": 3, "valid": -1}, "valid must be at least 0"),
        ({"labels": 3, "valid": 8}, "valid=8 is more than arrays can spare: 7 images of known label are there"),
        ({"labels": None, "valid": 7}, "valid=7 is more"),
        ({"labels": 3, "valid": 7}, "no unlabeled image of arrays is left"),
        ({"labels": None, "unlabeled": "rest"}, "no unlabeled image of arrays is left"),
        ({"labels": 3, "seed": -1}, "seed must lie in 0 .. 4294967295, got -1"),
        ({"labels": 3, "rule": "daso"}, "rule 'daso' is not known; allowed are fixmatch, balanced, cadr, realmix, usb"),
        ({"labels": 4, "rule": "usb"}, "'usb' takes the same number of each class.*the 3 classes, got 4"),
        ({"labels": 3, "unlabeled": "none"}, "allowed are all, rest"),
    ],
)
def test_what_cannot_be_is_said(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_split(source_of([0, 0, 0, 1, 1, 1, 2]), **({"seed": 1} | asked))


def test_classes_without_a_label_are_noted() -> None:
    split = make_split(source_of([0, 0, 1, 1, 2, 2]), labels=1, seed=1)
    assert split.class_counts == (1, 0, 0)
    assert split.notes == ("no label was picked of class1, class2; such a class cannot be learned",)


def test_a_class_that_no_image_has_is_no_ones_turn() -> None:
    split = make_split(source_of([0, 0, 3, 3, 3, -1], classes=5), labels=4, seed=1)
    assert split.class_counts == (2, 0, 0, 2, 0)


@pytest.mark.slow
@settings(deadline=None)
@given(sources(), st.none() | st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_json_is_lossless(source: Source, labels: int | None, seed: int) -> None:
    split = make_split(source, labels=labels, seed=seed)
    back = Split.from_json(split.to_json())
    assert back == split and hash(back) == hash(split) and back.fingerprint == split.fingerprint
    for field in ("source", "rule", "seed", "labels", "valid", "class_counts", "notes"):
        assert getattr(back, field) == getattr(split, field)
    for field in ("labeled", "targets", "validation", "unlabeled"):
        rows = getattr(back, field)
        assert rows.dtype == np.int64 and rows.tolist() == getattr(split, field).tolist()


def test_fingerprint_is_over_the_meaning() -> None:
    source = source_of([0, 1, 2] * 4)
    base: dict[str, Any] = {"labels": 6, "seed": 1, "valid": 2}
    split = make_split(source, **base)
    assert make_split(source, **base) == split
    changes: list[dict[str, Any]] = [{"seed": 2}, {"labels": 3}, {"valid": 1}, {"unlabeled": "rest"}]
    changes.append({"rule": "balanced"})
    assert len({make_split(source, **(base | c)).fingerprint for c in changes} | {split.fingerprint}) == 6
    other = source_of([0, 2, 1] * 4)  # the same rows may be picked, but with other labels
    assert make_split(other, **base) != split
    assert split != "split"


def test_fingerprint_stays_the_same_over_versions() -> None:
    """Saved runs refuse to resume on another split, so these numbers must never change."""
    split = make_split(source_of([0, 1, 2] * 2), labels=3, seed=0, valid=1)
    assert (split.labeled.tolist(), split.validation.tolist()) == ([0, 1, 2], [0])
    digest = hashlib.sha256(b"fewlabels split 1\nfixmatch\n")
    for rows in ([0, 1, 2], [0, 1, 2], [0], [1, 2, 3, 4, 5]):
        digest.update(b"".join(n.to_bytes(8, "little") for n in [len(rows), *rows]))
    assert split.drawn == digest.hexdigest()
    known = replace(split, classes=(), pictures=())  # a named set with its own class names
    assert known.fingerprint == split.drawn
    own = replace(split, classes=("a", "b", "c"), pictures=("6 aa", "0 bb"))
    text = f'fewlabels split 2\n["{split.drawn}", ["a", "b", "c"], ["6 aa", "0 bb"]]'
    assert own.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_other_classes_and_pictures_are_other_splits() -> None:
    """The rows are the same in all of them."""
    source = source_of([0, 1, 2] * 4)
    split = make_split(source, labels=6, seed=1)
    other = source.images.copy()
    other[5, 1, 1, 0] = 7
    turned = replace(source, classes=("class1", "class0", "class2"))
    tested = replace(source, test_images=source.images[:2], test_labels=source.labels[:2])
    relabeled = replace(tested, test_labels=tested.test_labels[::-1].copy())
    more = replace(source, images=np.concatenate([source.images, other[:1]]), labels=np.append(source.labels, -1))
    for changed, base, clause in (
        (replace(source, images=other), split, "the training pictures are others now"),
        (turned, split, "class 0 is 'class1' now, and was 'class0'"),
        (tested, split, "there are 2 test pictures now, and there were 0"),
        (relabeled, make_split(tested, labels=6, seed=1), "the test pictures are others now"),
        (more, split, "there are 13 training pictures now, and there were 12"),
    ):
        again = make_split(changed, labels=6, seed=1)
        assert again.labeled.tolist() == base.labeled.tolist() and again != base
        with pytest.raises(ValueError, match=f"the split does not fit arrays: {clause}"):
            Split.from_json(base.to_json()).check_fit(changed)
    before = json.loads(split.to_json())  # of a version that kept neither names nor pictures
    del before["classes"], before["pictures"]
    old = Split.from_json(json.dumps(before | {"fingerprint": split.drawn}))
    old.check_fit(turned)
    assert old.difference(turned) is None and old.drawn == split.drawn


LINEAGE = {"run": "runs/a", "rule": "confidence 0.95"}


def test_more_labels_by_hand() -> None:
    source = source_of([0, 1, 2, 0, -1, -1, 1, 2])
    plain = make_split(source, labels=3, seed=0, valid=1, rule="balanced")
    # the first of each class, and of the rest by turn
    assert (plain.labeled.size, plain.validation.size, plain.unlabeled.size) == (3, 1, 7)
    left = [r for r in plain.unlabeled.tolist() if r not in plain.labeled]
    more = plain.with_labels([left[2], left[0]], torch.tensor([2, 1]), lineage=LINEAGE)
    expected = dict(zip(plain.labeled.tolist(), plain.targets.tolist(), strict=True)) | {left[2]: 2, left[0]: 1}
    assert dict(zip(more.labeled.tolist(), more.targets.tolist(), strict=True)) == expected
    assert more.labeled.tolist() == sorted(expected) and more.labeled.dtype == more.targets.dtype == np.int64
    assert more.class_counts == (1, 2, 2)
    assert more.unlabeled.tolist() == plain.unlabeled.tolist() and more.validation.tolist() == plain.validation.tolist()
    assert more.lineage == ({**LINEAGE, "given": "2", "split": plain.fingerprint},) and plain.lineage == ()
    back = Split.from_json(more.to_json())
    assert back == more and back.lineage == more.lineage and back.remarks == more.remarks
    back.check_fit(source)
    with pytest.raises(ValueError, match="there are 9 training pictures now"):
        back.check_fit(source_of([0, 1, 2, 0, -1, -1, 1, 2, 0]))
    with pytest.raises(ValueError, match="it names image 7 and 3 classes, and there are 8 images of 4 classes"):
        back.check_fit(source_of([0, 1, 2, 0, -1, -1, 1, 2], classes=4))


def test_fingerprint_of_a_lineage_by_hand() -> None:
    split = replace(make_split(source_of([0, 1, 2] * 2), labels=3, seed=0), classes=(), pictures=(), lineage=(LINEAGE,))
    text = f'fewlabels split 3\n["{split.drawn}", {{"rule": "confidence 0.95", "run": "runs/a"}}]'
    assert split.fingerprint == hashlib.sha256(text.encode()).hexdigest() != split.drawn
    other = replace(split, lineage=({**LINEAGE, "run": "runs/b"},))
    assert other != split and "lineage" not in json.loads(replace(split, lineage=()).to_json())


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(sources(), st.data())
def test_more_labels_fit_together(source: Source, data: st.DataObject) -> None:
    rule, kind = data.draw(st.sampled_from(["fixmatch", "realmix"])), data.draw(st.sampled_from(["all", "rest"]))
    try:
        plain = make_split(source, labels=3, seed=1, valid=data.draw(st.integers(0, 2)), rule=rule, unlabeled=kind)
    except ValueError:
        return
    free = np.setdiff1d(plain.unlabeled, plain.labeled).tolist()
    if not free:
        return
    rows = data.draw(st.lists(st.sampled_from(free), unique=True, min_size=1))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    more = plain.with_labels(np.array(rows, np.uint16), labels, lineage=LINEAGE)
    assert sorted(more.labeled) == more.labeled.tolist() == sorted([*plain.labeled, *rows])
    assert sum(more.class_counts) == 3 + len(rows) and more.validation is plain.validation
    apart = not set(plain.labeled.tolist()) & set(plain.unlabeled.tolist())
    if set(plain.labeled.tolist()) - set(plain.validation.tolist()):
        assert set(plain.unlabeled.tolist()) - set(more.unlabeled.tolist()) == (set(rows) if apart else set())
    assert Split.from_json(more.to_json()) == more


def test_other_labels_for_labeled_images() -> None:
    """All repeats of an oversampled image get the new label; the same label again changes nothing."""
    source = source_of([0, 1, 1, 1, 2, 2, 2, 0])
    plain = make_split(source, labels=None, seed=0)
    twice = replace(
        plain, labeled=np.array([0, 0, 1]), targets=np.array([0, 0, 1]), class_counts=(2, 1, 0), classes=(), pictures=()
    )
    more = twice.with_labels([0], [2], lineage=LINEAGE, relabel=True)
    assert (more.labeled.tolist(), more.targets.tolist(), more.class_counts) == ([0, 0, 1], [2, 2, 1], (0, 1, 2))
    assert twice.with_labels([0, 4], [0, 2], lineage=LINEAGE).targets.tolist() == [0, 0, 1, 2]
    raw = json.loads(twice.to_json()) | {"targets": [0, 1, 1], "class_counts": [1, 2, 0], "lineage": [LINEAGE]}
    with pytest.raises(ValueError, match="not the JSON of a split"):  # one image, two labels
        Split.from_json(json.dumps(raw))


def test_a_class_that_gets_its_first_label_is_noted_no_more() -> None:
    plain = make_split(source_of([0, 0, 1, 1, 2, 2]), labels=1, seed=0)
    assert plain.notes == ("no label was picked of class1, class2; such a class cannot be learned",)
    one = plain.with_labels([2], [1], lineage=LINEAGE)
    assert one.notes == ("no label was picked of class2; such a class cannot be learned",)
    both = one.with_labels([4], [2], lineage={"file": "answers.csv"})
    assert both.notes == () and both.remarks == (
        f"labels that the data do not say: run runs/a, rule confidence 0.95, given 1, split {plain.fingerprint}",
        f"labels that the data do not say: file answers.csv, given 1, split {one.fingerprint}",
    )


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"rows": [4, 4]}, "row 4 (label 1) is given twice"),
        ({"labels": [1, 3]}, "row 5 (label 3) has a label that is none: it must lie in 0 .. 2"),
        ({"rows": [4, 3]}, "row 3 (label 1) is a validation image: leave it out"),
        ({"rows": [4, 8]}, "row 8 (label 1) is neither a labeled nor an unlabeled image of the split"),
        ({"rows": [4, 6]}, "row 6 (label 1) is neither a labeled nor an unlabeled image of the split"),
        ({"rows": [0, 4]}, "row 0 (label 1) is labeled already, and otherwise: leave it out, or allow that with "
         "relabel=True"),
        ({"labels": [1, -1]}, "labels must be integers from 0 on, and number 1 is -1"),
        ({"labels": [None, 1]}, "labels must be integers from 0 on, and number 0 is -1"),
        ({"labels": np.ma.array([1, 1], mask=[False, True])}, "labels must be integers from 0 on, and number 1 is -1"),
        ({"rows": [4, -2]}, "rows must be integers from 0 on, and number 1 is -2"),
        ({"rows": [4.0, 5.0]}, "rows must be integers [N], got float64 [2]"),
        ({"rows": np.array([False, True])}, "rows must be integers [N], got bool [2]"),
        ({"rows": [4]}, "rows and labels must be as many, and at least 1, got 1 and 2"),
        ({"rows": [], "labels": []}, "rows and labels must be as many, and at least 1, got 0 and 0"),
        ({"lineage": {}}, "lineage must be texts by name, such as {'run': 'runs/a'}, none of them empty, got {}"),
        ({"lineage": {"run": " "}}, "none of them empty, got {'run': ' '}"),
        ({"lineage": {"step": 3}}, "lineage must be texts by name"),
        ({"lineage": "runs/a"}, "none of them empty, got 'runs/a'"),
        ({"lineage": {"split": "x"}}, "lineage: the split adds the name 'split' itself: take another one"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_given(asked: dict[str, Any], sentence: str) -> None:
    split = replace(
        make_split(source_of([0, 1, 2, 0, -1, -1, 1]), labels=3, seed=0),
        labeled=np.array([0, 1, 2]), targets=np.array([0, 1, 2]), validation=np.array([3]),
        unlabeled=np.array([0, 1, 2, 4, 5]),
    )  # fmt: skip
    with pytest.raises(ValueError, match=re.escape(sentence)):
        split.with_labels(**({"rows": [4, 5], "labels": [1, 1], "lineage": LINEAGE} | asked))


def test_changed_or_foreign_files_are_refused() -> None:
    text = make_split(source_of([0, 1, 2] * 3), labels=3, seed=1).to_json()
    raw = json.loads(text)
    with pytest.raises(ValueError, match="was changed after it was written"):
        Split.from_json(json.dumps(raw | {"labeled": [0, 1, 3]}))
    for broken in ("", "[]", "{}", "3", text[:-5], json.dumps(raw | {"format": 2})):
        with pytest.raises(ValueError, match="not the JSON of a split"):
            Split.from_json(broken)
    for field, value in (
        ("parameters", 1.5),
        ("seed", "1"),
        ("labels", 3.5),
        ("notes", [1]),
        ("labeled", [0, 1, 2.5]),
        ("labeled", [[0, 1, 2]]),
        ("labeled", []),
        ("targets", [0, 1, -1]),
        ("targets", [0, 1, 2**62]),
        ("class_counts", [2, 1, 0]),
        ("class_counts", 3),
        ("classes", ["a", 1, "c"]),
        ("unlabeled", "rows"),
        ("lineage", {}),
        ("lineage", [{}]),
        ("lineage", ["runs/a"]),
        ("lineage", [{"run": 3}]),
    ):
        with pytest.raises(ValueError, match="not the JSON of a split"):
            Split.from_json(json.dumps(raw | {field: value}))
    raw["unlabeled"]["zlib_int64_base64"] = "AAAA"
    with pytest.raises(ValueError, match="not the JSON of a split"):
        Split.from_json(json.dumps(raw))


@pytest.mark.slow
@pytest.mark.parametrize("count", [9, 2**24, 2**40, -1, 8.5])
def test_packed_rows_take_no_more_memory_than_rows_can(count: float) -> None:
    """128 MiB of zeros in 130 KB: neither what the file says nor what it holds is taken."""
    raw = json.loads(make_split(source_of([0, 1, 2] * 3), labels=3, seed=1).to_json())
    bomb = base64.b64encode(zlib.compress(bytes(2**27), 9)).decode()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not the JSON of a split"):
            Split.from_json(json.dumps(raw | {"unlabeled": {"count": count, "zlib_int64_base64": bomb}}))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
