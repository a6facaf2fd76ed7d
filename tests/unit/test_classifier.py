from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
from fewlabels.runtime.interrupt import Interrupted


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_fit_leaves_no_files_where_none_were_asked_for(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    classifier = fl.fit(digits.images, digits.labels, config=replace(quick(), steps=2))
    assert classifier.run is None and list(tmp_path.iterdir()) == []


@pytest.mark.slow
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


@pytest.mark.slow
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
        (IMAGES, np.array([0.5, 1, 0, 1, 1, 1]), "labels must be integers [N], -1 for unlabeled, got float64 [6]"),
        (IMAGES, np.array([np.inf, 1, 0, 1, 1, 1]), "labels must be integers [N], -1 for unlabeled, got float64 [6]"),
        (IMAGES, [True, False] * 3, "labels must be integers [N], -1 for unlabeled, got bool [6]; astype(int) if"),
        (IMAGES, [[0, 1]] * 6, "labels must be integers [N], -1 for unlabeled, got int64 [6, 2]"),
        (IMAGES, ["a"] * 6, "arrays has 1 class; at least 2 are needed"),
        (IMAGES, [["a", "b"]] * 6, "labels must be integers [N], -1 for unlabeled, got <U1 [6, 2]"),
        (IMAGES, ["a", "b", 3, "a", "b", "a"], "labels must be all names or all integers, got 3 among names"),
        (IMAGES, ["a", "b", -2, "a", "b", "a"], "labels must be all names or all integers, got -2 among names"),
        (IMAGES, np.array(["a", "b", np.nan] * 2), "labels hold 'nan', which may mean that there is none: give None"),
        (IMAGES, ["a", "b", "Unlabeled"] * 2, "labels hold 'Unlabeled', which may mean that there is none: give None"),
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
        (np.zeros((2, 0, 8), np.uint8), "the model takes uint8 images [N, 8, 8, 1], got uint8 [2, 0, 8, 1]"),
        ("nowhere", "there is no file or folder nowhere"),
        (["nowhere.png"], "there is no file or folder nowhere.png"),
        (
            np.zeros((20, 8, 3), np.uint8),
            "images of the shape [20, 8, 3] look like one picture [H, W, C]; images must be "
            "[N, H, W, C] or [N, H, W] (image[None] makes one of one)",
        ),
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


@pytest.mark.slow
def test_one_file_a_folder_and_pictures_of_any_size(photo_run: Any, photos: Path) -> None:
    clf = fl.load(photo_run.path)
    files = sorted((photos / "test").rglob("*.png"))
    expected = clf.predict_proba(files)
    close = partial(np.testing.assert_allclose, atol=1e-6)  # the sums of a batch of another size are in another order
    for same in (photos / "test", str(photos / "test"), np.array([str(f) for f in files]), tuple(files)):
        np.testing.assert_array_equal(clf.predict_proba(same), expected)
    one = Image.open(files[0])
    for same in (files[0], str(files[0]), one, [one], [np.array(one)], np.array(one)[None]):
        close(clf.predict_proba(same), expected[:1])
    # larger ones become smaller as files do, whatever holds them
    large, wide = one.resize((40, 50)), one.resize((60, 40))
    expected = clf.predict_proba([large, wide])
    close(clf.predict_proba([np.array(large), np.array(wide)]), expected)
    close(clf.predict_proba(np.array(large)[None]), expected[:1])
    grey = one.convert("L").resize((30, 30))
    close(clf.predict_proba([np.array(large), np.array(grey)]), clf.predict_proba([large, grey]))


def test_features_are_what_the_last_layer_sees(fitted: fl.Classifier, digits: Digits) -> None:
    features = fitted.features(digits.images[:7])
    linear = fitted.model.model.net.linear
    weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    assert features.shape == (7, weight.shape[1]) and features.dtype == np.float32
    logits = features @ weight.T + bias
    spread = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        spread / spread.sum(1, keepdims=True), fitted.predict_proba(digits.images[:7]), atol=1e-5
    )
    assert fitted.features(digits.images[:0]).shape == (0, weight.shape[1])


NAMES = {3: "three", 7: "seven", 8: "eight"}


@pytest.mark.slow
def test_names_as_labels(digits: Digits, fitted: fl.Classifier) -> None:
    """None and other ways to say that there is no label; the training is that of the numbers."""
    names = [NAMES.get(v) for v in digits.labels.tolist()]
    hidden = np.array([name is None for name in names])
    given = [names, np.array(names, object), np.ma.masked_array([name or "x" for name in names], hidden)]
    given += [[name or float("nan") for name in names], [name or -1 for name in names], [n or "" for n in names]]
    for labels in given:
        clf = fl.fit(digits.images, labels, config=replace(quick(), steps=2), progress=False)
        assert clf.classes_.tolist() == ["eight", "seven", "three"]  # sorted, as in scikit-learn
        assert clf.model.classes == ("eight", "seven", "three")
    clf = fl.fit(digits.images, names, config=quick(), progress=False)
    some, truth = digits.images[hidden], [NAMES[v] for v in digits.truth[hidden].tolist()]
    assert clf.score(some, truth) == np.mean(clf.predict(some) == np.array(truth)) > 0.6
    with pytest.raises(ValueError, match=r"^score needs labels among 'eight', 'seven', 'three', got None$"):
        clf.score(some[:2], ["three", None])


@pytest.mark.slow
def test_whole_numbers_in_floats(digits: Digits) -> None:
    """As a column of a table has integers of which some are missing."""
    labels = np.where(digits.labels < 0, np.nan, digits.labels)
    clf = fl.fit(digits.images, labels, config=replace(quick(), steps=2), progress=False)
    assert clf.classes_.tolist() == [3, 7, 8] and clf.classes_.dtype.kind == "i"


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["of a run", "of nothing kept"])
def test_save_and_load(kept: bool, fitted: fl.Classifier, digits: Digits, command: Any, tmp_path: Path) -> None:
    names = [NAMES.get(v) for v in digits.labels.tolist()]
    clf = fitted if kept else fl.fit(digits.images, names, config=replace(quick(), steps=4), progress=False)
    assert (clf.run is not None) == kept
    path = clf.save(tmp_path / "saved")
    assert path == tmp_path / "saved" and {p.name for p in tmp_path.iterdir()} == {"saved"}
    again = fl.load(path)
    np.testing.assert_array_equal(again.predict_proba(digits.images), clf.predict_proba(digits.images))
    assert again.classes_.tolist() == ([3, 7, 8] if kept else ["eight", "seven", "three"])
    assert not list(path.rglob("state.pt")) and not (path / "tensorboard").exists()
    Image.fromarray(digits.images[0]).save(tmp_path / "0.png")
    said = command("predict", path, tmp_path / "0.png", "--no-progress")
    assert said.code == 0 and said.out.splitlines()[1].split(",")[1] == str(again.predict(tmp_path / "0.png")[0])
    assert command("report", path).code == 0
    # one that was saved can be saved again, and nothing is written over
    np.testing.assert_array_equal(
        fl.load(again.save(tmp_path / "twice")).predict(digits.images), again.predict(digits.images)
    )
    with pytest.raises(ValueError, match=r"saved exists and is not empty"):
        clf.save(path)
    assert "step-" not in command("train", "--resume", path).err and command("train", "--resume", path).code == 0


@pytest.mark.slow
def test_arguments_of_fit(digits: Digits, tmp_path: Path) -> None:
    options = {"algorithm": "mixmatch", "net": "small-2", "steps": 6, "seed": 5, "device": "cpu", "progress": False}
    clf = fl.fit(digits.images, digits.labels, out=tmp_path / "run", **options)
    assert clf.run is not None
    config = clf.run.config
    assert isinstance(config.algorithm, fl.MixMatch) and config.algorithm.ramp_steps == 6
    assert (config.net.name, config.steps, config.seed, config.device) == ("small-2", 6, 5, "cpu")
    assert (config.optim.warmup, config.eval_every) == (0, 1)
    mine = fl.FlexMatch(tau=0.9)
    clf = fl.fit(
        digits.images,
        digits.labels,
        algorithm=mine,
        net=fl.Net("small-2", dropout=0.1),
        config=quick(),
        steps=4,
        out=tmp_path / "other",
        progress=False,
    )
    assert clf.run is not None and clf.run.config.algorithm == mine and clf.run.config.net.dropout == 0.1
    assert clf.run.config.batch == 8 and clf.run.config.steps == 4


@pytest.mark.slow
def test_a_size_for_pictures(photos: Path) -> None:
    paths = np.array(sorted(map(str, (photos / "labeled").rglob("*.png"))))
    labels = [Path(p).parent.name for p in paths]
    clf = fl.fit(paths, labels, net="small-2", steps=2, image_size=12, progress=False)
    assert clf.model.shape == (3, 12, 12) and clf.classes_.tolist() == ["blue", "red"]
    whole = fl.fit(str(photos), algorithm="supervised", net="small-2", steps=2, image_size=12, progress=False)
    assert whole.model.shape == (3, 12, 12) and whole.classes_.tolist() == ["blue", "red"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"time": "10m", "steps": 5}, "time says how many steps are taken: leave out steps, or time"),
        ({"time": "10"}, "time must be a length of time such as 90s, 10m, 1h30m or 2h, got '10'"),
        ({"time": -1}, "time must be text such as '10m', or seconds above 0 and at most 3,600,000, got -1"),
        ({"algorithm": "fixmach"}, "there is no algorithm 'fixmach'; did you mean fixmatch? (known: "),
        ({"algorithm": fl.FixMatch}, "algorithm must be a name or settings such as FixMatch(), got "),
        ({"net": "smal"}, "net 'smal' is unknown; did you mean 'small'?"),
        ({"image_size": 16}, "image_size is for picture files; arrays are taken as they are"),
        ({"steps": 0}, "Train.steps must be at least 1 for fixmatch, which learns in steps alone, got 0"),
    ],
)
def test_wrong_arguments_of_fit(digits: Digits, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        fl.fit(digits.images, digits.labels, progress=False, **options)
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_the_training_of_arrays() -> None:
    """The settings that fit has had from its beginning."""
    old = Train(
        net=fl.Net("small"),
        optim=fl.Optim(lr=0.1, warmup=30),
        ema=fl.Ema(decay=0.99, warmup=True, buffers="averaged"),
        steps=1000,
        batch=32,
        uratio=4,
        eval_every=250,
        save_every=250,
        log_every=25,
    )
    assert arrays_recipe((3, 32, 32)) == old
    assert arrays_recipe((1, 8, 8)) == replace(old, weak="affine", strong="affine")
    learned = arrays_recipe((3, 32, 32), net=fl.Net("timm:resnet18", pretrained=True))
    assert learned.optim.lr == 0.003 and learned.net == fl.Net("timm:resnet18", pretrained=True)
    assert arrays_recipe((3, 32, 32), "mixmatch").algorithm.ramp_steps == 1000


@pytest.mark.slow
def test_what_fit_shows(digits: Digits, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fl.fit(digits.images, digits.labels, config=quick(), steps=3)
    said = capsys.readouterr()
    assert said.out == ""
    first, *_, step, last = said.err.splitlines()
    assert first.startswith("fixmatch on arrays: 12 labeled and ") and step.startswith("step 3/3  train ")
    assert last.startswith("train: accuracy on the labeled images, which were trained on")
    assert "run folder" not in said.err and "/tmp" not in said.err  # it is gone by now
    fl.fit(digits.images, digits.labels, config=quick(), steps=2, out=tmp_path / "run")
    assert f"run folder {tmp_path / 'run'}\n" in capsys.readouterr().err
    fl.fit(digits.images, digits.labels, config=quick(), steps=2, progress=False)
    assert capsys.readouterr() == ("", "")
    fl.fit(digits.images, digits.labels, net="small-2", steps=2)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("settings: "))
    usual = "settings: seed 1, split seed 1; the usual ones of fixmatch for images in memory, but "
    assert line.startswith(f"{usual}optim.warmup=0, steps=2, eval_every=1, ")


def test_a_training_that_is_stopped_and_not_kept(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: Any, **options: Any) -> None:
        raise Interrupted("`fewlabels train --resume /tmp/gone` goes on from it", 2)

    monkeypatch.setattr(classifier_module, "train", stopped)
    with pytest.raises(Interrupted, match=r"^stopped; nothing is kept, as `out` names no run folder$"):
        fl.fit(digits.images, digits.labels, steps=2)


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
    with pytest.raises(ValueError, match=r"^score needs labels among 3, 7, 8, got '3', '7'$"):
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
    sentence = r"^images of shape \[3, 16, 16\] may be 3 grey ones or the channels of one, and the model takes colours"
    with pytest.raises(ValueError, match=sentence):
        colour.predict(np.zeros((3, height, width), np.uint8))


@pytest.mark.slow
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


@pytest.mark.slow
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
