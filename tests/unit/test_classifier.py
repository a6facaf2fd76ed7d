from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import fewlabels as fl
from fewlabels import classifier as classifier_module
from fewlabels.classifier import arrays_recipe
from fewlabels.config.settings import Train


class Digits(NamedTuple):
    images: np.ndarray
    """uint8 ``[N, 8, 8]``"""
    labels: np.ndarray
    """-1 for all but 4 of each class"""
    truth: np.ndarray


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Digits 3, 7 and 8 only, so that the labels are not the class numbers."""
    data = load_digits()
    chosen = np.isin(data.target, (3, 7, 8))
    images, truth = (data.images[chosen] * 255 / 16).astype(np.uint8), data.target[chosen]
    labels = np.full(len(truth), -1)
    for value in (3, 7, 8):
        rows = np.flatnonzero(truth == value)[:4]
        labels[rows] = value
    return Digits(images, labels, truth)


def quick(**changes: Any) -> Train:
    train = arrays_recipe((1, 8, 8))
    return replace(train, net=fl.Net("small-8"), steps=60, batch=8, uratio=2, eval_every=30, save_every=30, **changes)


@pytest.fixture(scope="module")
def fitted(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> fl.Classifier:
    return fl.fit(digits.images, digits.labels, config=quick(), out=tmp_path_factory.mktemp("fit") / "run")


def test_learns_from_four_labels_a_class(fitted: fl.Classifier, digits: Digits) -> None:
    hidden = digits.labels < 0
    assert fitted.score(digits.images[hidden], digits.truth[hidden]) > 0.6  # chance is a third


def test_scikit_learn_s_conventions(fitted: fl.Classifier, digits: Digits) -> None:
    assert fitted.classes_.tolist() == [3, 7, 8] and fitted.classes_.dtype.kind == "i"
    some = digits.images[:20]
    probabilities, guess = fitted.predict_proba(some), fitted.predict(some)
    assert probabilities.shape == (20, 3) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert guess.tolist() == [[3, 7, 8][i] for i in probabilities.argmax(1)]
    assert fitted.score(some, digits.truth[:20]) == np.mean([g == t for g, t in zip(guess, digits.truth, strict=False)])
    assert fitted.predict_proba(some[:0]).shape == (0, 3)


def test_forms_of_images_that_mean_the_same(fitted: fl.Classifier, digits: Digits) -> None:
    some = digits.images[:5]
    expected = fitted.predict_proba(some)
    for same in (some[..., None], torch.from_numpy(some), some.astype(np.int64), some / 255, some.tolist()):
        np.testing.assert_array_equal(fitted.predict_proba(same), expected)
    # one image at a time: no statistics of the batch take part
    alone = np.concatenate([fitted.predict_proba(image[None]) for image in some])
    np.testing.assert_allclose(alone, expected, atol=1e-6)


def test_the_arrays_are_not_changed(digits: Digits) -> None:
    images, labels = digits.images.copy(), digits.labels.copy()
    fl.fit(images, labels, config=replace(quick(), steps=2))
    np.testing.assert_array_equal(images, digits.images)
    np.testing.assert_array_equal(labels, digits.labels)


def test_load_gives_the_same_classifier(fitted: fl.Classifier, digits: Digits) -> None:
    assert fitted.run is not None
    again = fl.load(fitted.run.path, device="cpu")
    np.testing.assert_array_equal(again.predict_proba(digits.images[:30]), fitted.predict_proba(digits.images[:30]))
    assert again.classes_.tolist() == [3, 7, 8]  # the labels' own values, not the run's names of them
    hidden = digits.labels < 0
    score = fitted.score(digits.images[hidden], digits.truth[hidden])
    assert again.score(digits.images[hidden], digits.truth[hidden]) == score > 0.6
    raw = fl.load(fitted.run.path, weights="raw", checkpoint="30")
    assert raw.model.step == 30 and raw.model.weights == "raw"
    assert not np.array_equal(raw.predict_proba(digits.images[:30]), fitted.predict_proba(digits.images[:30]))


def test_fit_leaves_no_files_where_none_were_asked_for(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    classifier = fl.fit(digits.images, digits.labels, config=replace(quick(), steps=2))
    assert classifier.run is None and list(tmp_path.iterdir()) == []


def test_picture_files(photos: Path, short: Callable[..., Train]) -> None:
    paths = sorted((photos / "labeled").rglob("*.png")) + sorted((photos / "unlabeled").rglob("*.png"))
    labels = [{"blue": 5, "red": 2}.get(p.parent.name, -1) for p in paths]
    config = replace(
        short(), steps=30, optim=fl.Optim(lr=0.1), ema=fl.Ema(decay=0.9), weak="ms", strong="rand:kekmodel", shift=2
    )
    classifier = fl.fit([str(p) for p in paths], labels, config=config)
    assert classifier.classes_.tolist() == [2, 5]
    test = sorted((photos / "test").rglob("*.png"))
    assert classifier.predict(test).tolist() == [5 if p.parent.name == "blue" else 2 for p in test]
    assert classifier.score([str(p) for p in test], [5] * 4 + [2] * 4) == 1.0


def test_files_are_read_for_the_training_as_for_the_prediction(
    tmp_path: Path, short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for i in range(6):
        values = np.random.default_rng(i).integers(0, 4096, (12, 20)).astype(np.uint16)
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(values).save(files[-1])
    trained: list[np.ndarray] = []
    train = classifier_module.train
    monkeypatch.setattr(
        classifier_module,
        "train",
        lambda *a, source, **k: trained.append(source.images) or train(*a, source=source, **k),
    )
    data = fl.Data(fit="pad", bits=12, image_size=20)
    fitted = fl.fit(files, [0, 1, 0, 1, -1, -1], config=replace(short(), steps=2, data=data))
    middle = np.zeros((20, 20), np.uint8)
    middle[4:16] = values >> 4
    assert np.array_equal(trained[0][5, ..., 0], middle)
    np.testing.assert_array_equal(fitted.predict_proba(files[5:]), fitted.predict_proba(middle[None]))


def test_missing_and_broken_picture_files(photo_run: Any, tmp_path: Path) -> None:
    classifier = fl.load(photo_run.path)
    (tmp_path / "x.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"^there is no file or folder .*nothing.png$"):
        classifier.predict([tmp_path / "nothing.png"])
    with pytest.raises(
        ValueError, match=r"^could not read 1 image file\(s\), such as .*x.png: not a picture of a known"
    ):
        classifier.predict([tmp_path / "x.png"])


IMAGES = np.zeros((6, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (IMAGES, [0, 1, 0, 1, -1], "the labels of arrays must be int64 [6], one per image, got int64 [5]"),
        (IMAGES, [0, 1, 0, 1, -1, -2], "labels must be -1 (unlabeled) or at least 0, got -2"),
        (IMAGES, [0.0, 1, 0, 1, 1, 1], "labels must be integers [N], -1 for unlabeled, got float64 [6]"),
        (IMAGES, [[0, 1]] * 6, "labels must be integers [N], -1 for unlabeled, got int64 [6, 2]"),
        (IMAGES, ["a"] * 6, "labels must be integers [N], -1 for unlabeled, got <U1 [6]"),
        (IMAGES, [0] * 6, "arrays has 1 class; at least 2 are needed"),
        (IMAGES, [-1] * 6, "arrays has 0 classes; at least 2 are needed"),
        (IMAGES[0], [0, 1, 0, 1, 0, 1, 0, 1], "images must be [N, H, W, C] or [N, H, W], got the shape [8, 8]"),
        (np.zeros((6, 3, 8, 8), np.uint8), [0, 1] * 3, "images of shape [6, 3, 8, 8] look like [N, C, H, W]; "),
        (
            np.full((6, 8, 8), np.nan),
            [0, 1] * 3,
            "images contain NaN or infinite values; allowed are uint8, or floats in 0..1",
        ),
        (np.full((6, 8, 8), 1.5), [0, 1] * 3, "images of float64 must lie in 0..1, got 1.5 to 1.5; or give uint8"),
        (np.full((6, 8, 8), 256), [0, 1] * 3, "images of int64 must lie in 0..255, got 256 to 256; or give uint8"),
        (np.zeros((0, 8, 8), np.uint8), [], "arrays has no training images"),
        (IMAGES[:, :0], [0, 1] * 3, "the training images of arrays have no pixels: their shape is [6, 0, 8, 1]"),
        ([IMAGES[0], IMAGES[0, 1:]], [0, 1], "images cannot be made one array: "),
        (IMAGES, [0, 1] * 3, "the images hardly differ: their values lie in 0..0 of 0..255; spread them over 0..255"),
        (IMAGES + np.arange(6)[:, None, None], [0, 1] * 3, "the images hardly differ: their values lie in 0..5 of "),
        ([], [], "images must be [N, H, W, C] or [N, H, W], got the shape [0]"),
    ],
)
def test_wrong_arrays_are_refused_in_one_sentence(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        fl.fit(images, labels, config=quick())
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 9, 8), np.uint8), "the model takes uint8 images [N, 8, 8, 1], got uint8 [2, 9, 8, 1]"),
        (np.zeros((2, 8, 8, 2), np.uint8), "the model takes uint8 images [N, 8, 8, 1], got uint8 [2, 8, 8, 2]"),
        (np.full((2, 8, 8), np.nan), "images contain NaN or infinite values; allowed are uint8, or floats in 0..1"),
    ],
)
def test_wrong_images_for_prediction(fitted: fl.Classifier, images: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        fitted.predict(images)
    assert str(caught.value) == sentence


def test_score_wants_a_label_for_each_image(fitted: fl.Classifier, digits: Digits) -> None:
    with pytest.raises(ValueError, match=r"^score needs one label per image: got 3 images and labels \(2,\)$"):
        fitted.score(digits.images[:3], [3, 7])
    with pytest.raises(ValueError, match=r"^score needs at least one image, got none$"):
        fitted.score(digits.images[:0], np.empty(0, int))


def test_a_folder_is_no_picture(photo_run: Any, photos: Path) -> None:
    """Its pictures would be more rows than the list has."""
    clf = fl.load(photo_run.path)
    one = photos / "test/red/0.png"
    with pytest.raises(
        ValueError, match=r"^images must be files, and '.*/test/blue' is a folder; give the files in it$"
    ):
        clf.predict([one, photos / "test/blue"])
    assert clf.predict([one, str(one)]).tolist() == ["red", "red"]


def test_score_does_not_count_labels_that_are_none_of_the_classes(fitted: fl.Classifier, digits: Digits) -> None:
    for labels, given in (([3, 7, -1], "-1"), ([3, None, 7], "-1"), ([3, 7, 5], "5")):
        with pytest.raises(ValueError, match=rf"^score needs labels among 3, 7, 8, got {given}$"):
            fitted.score(digits.images[:3], labels)
    with pytest.raises(ValueError, match=r"^labels must be integers"):
        fitted.score(digits.images[:3], ["3", "7", "7"])


def test_grey_and_colours_are_brought_together(fitted: fl.Classifier, photo_run: Any, digits: Digits) -> None:
    some = digits.images[:20]
    expected = fitted.predict_proba(some)
    np.testing.assert_array_equal(fitted.predict_proba(np.repeat(some[..., None], 3, 3)), expected)
    pictures = [Image.fromarray(image) for image in some]
    np.testing.assert_array_equal(fitted.predict_proba(pictures), expected)
    np.testing.assert_array_equal(fitted.predict_proba([p.convert("P") for p in pictures]), expected)
    colour = fl.load(photo_run.path)
    channels, height, width = colour.model.shape
    assert channels == 3
    grey = np.random.default_rng(2).integers(0, 256, (5, height, width, 1), np.uint8)
    np.testing.assert_array_equal(colour.predict_proba(grey), colour.predict_proba(np.repeat(grey, 3, 3)))
    with pytest.raises(ValueError, match="the model takes uint8 images"):
        colour.predict(np.zeros((3, height, width), np.uint8))  # three grey images, or the channels of one?


def test_settings_of_the_config_s_data_count(digits: Digits, tmp_path: Path) -> None:
    config = replace(quick(), steps=2, data=fl.Data(labels=6, seed=0, valid=3))
    classifier = fl.fit(digits.images, digits.labels, config=config, out=tmp_path / "run")
    assert classifier.run is not None
    split = classifier.run.split
    assert len(split.labeled) == 6 and split.seed == 0 and len(split.validation) == 3
    # seed 0 takes the first images of each class, as in FixMatch
    known = [int(np.flatnonzero(digits.labels == value)[i]) for value in (3, 7, 8) for i in (0, 1)]
    assert split.labeled.tolist() == sorted(known)


def test_a_run_of_arrays_says_that_its_images_are_gone(fitted: fl.Classifier, command: Callable[..., Any]) -> None:
    assert fitted.run is not None
    said = command("evaluate", fitted.run.path)
    assert said.code == 2
    assert said.sentence == "the run was made from arrays in memory, which are gone: name other images with --data"


def test_algorithm_of_one_s_own(digits: Digits, tmp_path: Path) -> None:
    """Nothing is imported from a name in a file: who opens such a run says which class it is."""

    @dataclass(frozen=True, kw_only=True)
    class Mine:
        smoothing: float

        def build(self, info: fl.Info) -> fl.Algorithm:
            return fl.Supervised(smoothing=self.smoothing).build(info)

    config = replace(quick(), steps=2, algorithm=Mine(smoothing=0.2))
    classifier = fl.fit(digits.images, digits.labels, config=config, out=tmp_path / "run")
    assert classifier.run is not None and classifier.run.config.algorithm == Mine(smoothing=0.2)
    with pytest.raises(ValueError, match="there is no algorithm 'mine'"):
        fl.load(tmp_path / "run")
    again = fl.load(tmp_path / "run", algorithms=(Mine,))
    np.testing.assert_array_equal(again.predict_proba(digits.images), classifier.predict_proba(digits.images))
