"""The classifier of scikit-learn: its own checks, and its tools on images."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Tags, get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

import fewlabels as fl
from fewlabels.classifier import arrays_recipe

QUICK = replace(
    arrays_recipe((1, 8, 8)),
    net=fl.Net("small-2"),
    steps=2,
    batch=4,
    uratio=1,
    eval_every=2,
    save_every=2,
    log_every=2,
)


class OnRows(fl.FewLabelsClassifier):
    """The classifier behind a way from the rows of numbers that the checks give to images of 8 x 8."""

    def fit(self, X: Any, y: Any) -> OnRows:
        if y is None:
            return super().fit(X, y)  # type: ignore[return-value]
        X, y = validate_data(self, X, y)
        return super().fit(drawn(X), y)  # type: ignore[return-value]

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self)
        return drawn(validate_data(self, X, reset=False))

    def predict(self, X: Any) -> Any:
        return super().predict(self._rows(X))

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(self._rows(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = True, False, False
        tags.classifier_tags.poor_score = True  # of two steps
        return tags


def drawn(X: Any) -> np.ndarray:
    """Rows ``[N, D]`` of any numbers as uint8 ``[N, 8, 8]``, D of its pixels."""
    out = np.zeros((len(X), 64), np.uint8)
    values = 255 / (1 + np.exp(-np.asarray(X, float)[:, :64]))
    out[:, : values.shape[1]] = values.round()
    return out.reshape(-1, 8, 8)


def expected(estimator: Any) -> dict[str, str]:
    """Checks of scikit-learn that do not fit images or few labels, and why."""
    return {
        "check_classifiers_classes": "-1 is a class there, and an unlabeled image here",
        "check_classifiers_regression_target": "refused too, but in words of ours: labels must be integers",
    }


@pytest.mark.slow
@parametrize_with_checks([OnRows(net="small-2", steps=2)], expected_failed_checks=expected)
def test_scikit_learn_s_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """60 digits 3 and 7, uint8 ``[60, 8, 8]``, and their labels."""
    data = load_digits()
    rows = np.flatnonzero(np.isin(data.target, (3, 7)))[:60]
    return (data.images[rows] * 255 / 16).astype(np.uint8), data.target[rows]


def test_what_it_is() -> None:
    clf = fl.FewLabelsClassifier("flexmatch", net="small-2", steps=3)
    assert is_classifier(clf) and clf.get_params()["net"] == "small-2"
    tags = get_tags(clf)
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array and tags.target_tags.required
    again = clone(clf).set_params(steps=4)
    assert (again.steps, clf.steps, again.algorithm) == (4, 3, "flexmatch")
    assert clone(fl.FewLabelsClassifier(config=QUICK)).config == QUICK
    with pytest.raises(NotFittedError):
        clf.predict(np.zeros((1, 8, 8), np.uint8))


def test_a_trained_classifier_is_one_too(digits_run: Any) -> None:
    clf = fl.load(digits_run.path)
    assert is_classifier(clf) and get_tags(clf) == get_tags(fl.FewLabelsClassifier())


@pytest.mark.slow
def test_cross_validation(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    clf = fl.FewLabelsClassifier(config=QUICK, steps=30)
    scores = cross_val_score(clf, images, labels, cv=2, error_score="raise")
    by_hand = []
    for train, test in StratifiedKFold(2).split(images, labels):
        fold = clone(clf).fit(images[train], labels[train])
        by_hand.append(np.mean(fold.predict(images[test]) == labels[test]))
    assert scores.tolist() == by_hand and min(scores) > 0.6  # chance is a half


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_unlabeled_images_are_learned_from_and_not_scored(digits: tuple[np.ndarray, np.ndarray], named: bool) -> None:
    images, truth = digits
    labels: Any = truth.copy()
    labels[::3] = -1
    if named:
        labels = np.array([{3: "three", 7: "seven"}.get(v) for v in labels.tolist()], object)
    clf = fl.FewLabelsClassifier(config=QUICK)
    scores = cross_val_score(clf, images, labels, cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()
    clf.fit(images, labels)
    known = np.arange(60) % 3 != 0
    right = clf.predict(images)[known] == labels[known]
    assert clf.score(images, labels) == right.mean()
    weights = np.arange(60.0)
    assert clf.score(images, labels, weights) == pytest.approx(weights[known][right].sum() / weights[known].sum())
    with pytest.raises(ValueError, match=r"^score needs at least one image with a label, got none$"):
        clf.score(images[~known], labels[~known])


@pytest.mark.slow
def test_pipeline_and_search(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    inverted = FunctionTransformer(np.invert)
    pipe = make_pipeline(inverted, fl.FewLabelsClassifier(config=QUICK)).fit(images, labels)
    alone = fl.FewLabelsClassifier(config=QUICK).fit(~images, labels)
    np.testing.assert_array_equal(pipe.predict_proba(images), alone.predict_proba(~images))
    search = GridSearchCV(
        fl.FewLabelsClassifier(config=QUICK), {"algorithm": ["fixmatch", fl.Supervised()]}, cv=2, error_score="raise"
    )
    search.fit(images, labels)
    assert search.best_params_["algorithm"] in ("fixmatch", fl.Supervised())
    assert search.predict(images).shape == (60,)


@pytest.mark.slow
def test_seeds(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits

    def answers(seed: Any) -> np.ndarray:
        clf = fl.FewLabelsClassifier(config=QUICK, random_state=seed).fit(images, labels)
        return np.asarray(clf.predict_proba(images))

    np.testing.assert_array_equal(answers(1), answers(1))
    assert not np.array_equal(answers(1), answers(2))
    np.testing.assert_array_equal(answers(np.random.RandomState(4)), answers(np.random.RandomState(4)))


@pytest.mark.slow
def test_pickle_keeps_what_can_be_saved(digits: tuple[np.ndarray, np.ndarray], tmp_path: Any) -> None:
    images, labels = digits
    clf = pickle.loads(pickle.dumps(fl.FewLabelsClassifier(config=QUICK).fit(images, labels)))
    saved = fl.load(clf.classifier_.save(tmp_path / "run"))
    np.testing.assert_array_equal(saved.predict_proba(images), clf.predict_proba(images))
    assert clf.features(images).shape == (60, saved.model.model.dim)
