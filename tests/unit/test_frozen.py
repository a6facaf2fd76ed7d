"""Linear layers, spreading and the judge on fixed features: against scikit-learn, SciPy and cases made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.stats import binomtest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.semi_supervised import LabelSpreading

import fewlabels as fl
from fewlabels.algorithms import frozen, graph
from fewlabels.algorithms.functional import one_hot
from fewlabels.algorithms.linear import Basis, Layer, logistic, means, mixture, ridge, unit
from fewlabels.types import Info, Known


def clusters(count: int, classes: int = 5, dim: int = 16, spread: float = 1.0, seed: int = 0) -> tuple[Any, Any]:
    """Overlapping clouds around random centres: features ``[count, dim]`` float32 and labels."""
    chance = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = chance.normal(size=(classes, dim))
    x = centres[y] + spread * chance.normal(size=(count, dim))
    return torch.from_numpy(x).float(), torch.from_numpy(y)


# ---- linear layers


@pytest.mark.parametrize("decay", [0.1, 10.0])
def test_logistic_regression_is_scikit_learn_s(decay: float) -> None:
    x, y = clusters(200)
    mine = logistic(x, one_hot(y, 5), decay)
    theirs = LogisticRegression(C=1 / decay, max_iter=10_000, tol=1e-8).fit(x.double().numpy(), y.numpy())
    np.testing.assert_allclose(mine.weight, theirs.coef_, atol=0.05 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(mine(x).softmax(1), theirs.predict_proba(x.double().numpy()), atol=3e-3)
    again = logistic(x, one_hot(y, 5), decay, start=Layer(torch.randn(5, 16), torch.randn(5)))
    np.testing.assert_allclose(again(x).softmax(1), theirs.predict_proba(x.double().numpy()), atol=3e-3)


def test_logistic_regression_on_soft_labels_is_that_on_weighted_ones() -> None:
    """An image with several labels of some weight each, as scikit-learn can have it."""
    x, y = clusters(60)
    soft = torch.softmax(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 3 * one_hot(y, 5), 1)
    repeated, labels = x.double().repeat_interleave(5, 0).numpy(), np.tile(np.arange(5), 60)
    theirs = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-8)
    theirs.fit(repeated, labels, sample_weight=soft.double().flatten().numpy())
    found = logistic(x, soft, 1.0)(x).softmax(1)
    np.testing.assert_allclose(found, theirs.predict_proba(x.double().numpy()), atol=3e-3)


def test_least_squares_is_scikit_learn_s() -> None:
    x, y = clusters(12, dim=30)
    theirs = Ridge(alpha=0.3).fit(x.double().numpy(), one_hot(y, 5).double().numpy())
    mine = ridge(x, one_hot(y, 5), 0.3)
    np.testing.assert_allclose(mine.weight, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mine.bias, theirs.intercept_, rtol=1e-4, atol=1e-5)


def test_class_means_are_scikit_learn_s_nearest_centroid() -> None:
    x, y = clusters(300)
    others, _ = clusters(300, seed=1)
    theirs = NearestCentroid().fit(x.numpy(), y.numpy())
    assert np.array_equal(means(x, one_hot(y, 5))(others).argmax(1), theirs.predict(others.numpy()))
    absent = means(x[y != 2], one_hot(y[y != 2], 5))(others).argmax(1)
    assert len(absent.unique()) == 4 and 2 not in absent


def test_a_layer_on_the_main_directions_is_one_on_the_features() -> None:
    x, _ = clusters(100)
    others, _ = clusters(50, seed=1)
    layer = Layer(torch.randn(5, 6), torch.randn(5))
    basis = Basis.of(x, 6)
    torch.testing.assert_close(basis.undone(layer)(others), layer(basis(others)), rtol=1e-4, atol=1e-4)
    whole = Basis.of(x, 100)(x)
    assert whole.shape == (100, 16)
    assert float(whole.square().sum(1).mean()) == pytest.approx(1, rel=1e-4)  # the scale
    values = np.linalg.eigvalsh(np.cov(x.double().numpy().T))[::-1]
    np.testing.assert_allclose(whole.var(0) / whole.var(0).sum(), values / values.sum(), rtol=1e-3)
    between = torch.cdist(whole, whole) / torch.cdist(x, x).fill_diagonal_(1)
    off = between[~torch.eye(100, dtype=torch.bool)]
    assert float(off.std() / off.mean()) < 1e-4  # distances are only scaled


# ---- the mixture


def test_the_mixture_with_nearly_all_labels_is_scikit_learn_s_discriminant_analysis() -> None:
    x, y = clusters(2000, classes=4, dim=12, spread=2.0)
    x = x - x.mean(0)
    told = torch.arange(1900)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[0.25] * 4).fit(x[told], y[told])
    shares = mixture(x, told, one_hot(y[told], 4))
    assert torch.equal(shares[told], one_hot(y[told], 4))
    torch.testing.assert_close(shares.sum(1), torch.ones(2000))
    np.testing.assert_allclose(shares[1900:], theirs.predict_proba(x[1900:]), atol=0.03)
    assert 0.5 < float((shares[1900:].argmax(1) == y[1900:]).float().mean()) < 0.97


def test_the_mixture_learns_from_images_without_labels() -> None:
    x, y = clusters(900, classes=4, dim=12, spread=1.5)
    x = x - x.mean(0)
    told = torch.arange(4)
    plain = float((means(x[told], one_hot(y[told], 4))(x).argmax(1) == y).float().mean())
    shares = mixture(x, told, one_hot(y[told], 4))
    assert float((shares.argmax(1) == y).float().mean()) > plain + 0.1
    absent = mixture(x, told[:3], one_hot(y[:3], 4))  # a class without a label
    assert not absent[:, 3].any() and bool(absent.isfinite().all())


# ---- spreading


def affinity(x: Any, count: int) -> Any:
    """The graph's weights by sorting all cosines, dense."""
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -2)
    near = np.zeros_like(cosines, dtype=bool)
    np.put_along_axis(near, np.argsort(-cosines, axis=1)[:, :count], True, axis=1)
    return np.where(near | near.T, np.maximum(cosines, 0) ** 3, 0)


def test_the_graph_of_a_few_images() -> None:
    x, _ = clusters(40)
    weights = affinity(x.double().numpy(), 4)
    root = np.sqrt(weights.sum(1))
    found = graph.graph(x, 4).to_dense().numpy()
    np.testing.assert_allclose(found, weights / root / root[:, None], atol=1e-6)
    assert (np.abs(found - found.T) < 1e-12).all() and not found.diagonal().any()


@pytest.mark.slow
def test_spreading_is_scikit_learn_s_on_3000_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 99.9 % of the predictions, with the same kernel, a block of a few rows at a time."""
    monkeypatch.setattr(graph, "BLOCK", 3000 * 70)
    x, y = clusters(3000, classes=10, dim=32, spread=1.6)
    told = torch.arange(40)
    labels = np.full(3000, -1)
    labels[:40] = y[:40]

    def kernel(a: Any, b: Any) -> Any:
        return scipy.sparse.csr_matrix(affinity(a, 20))

    theirs = LabelSpreading(kernel=kernel, alpha=0.99, max_iter=3000, tol=1e-7).fit(x.double().numpy(), labels)
    start = torch.zeros(3000, 10)
    start[told] = one_hot(y[told], 10)
    mine = graph.spread(graph.graph(x, 20), start, 0.99)
    assert (mine.argmax(1).numpy() == theirs.transduction_).mean() >= 0.999
    shares = (mine / mine.sum(1, keepdim=True)).numpy()
    assert np.abs(shares - theirs.label_distributions_).max() < 0.01
    right = (theirs.transduction_ == y.numpy()).mean()
    assert 0.3 < right < 0.97  # the clouds overlap: agreement is no matter of course


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = clusters(101)
    whole = graph.neighbours(x, 5)
    for block in (1, 101, 250):  # one row at a time, too, though that is more than is allowed
        monkeypatch.setattr(graph, "BLOCK", block)
        rows, cosines = graph.neighbours(x, 5)
        assert torch.equal(rows, whole[0])
        torch.testing.assert_close(cosines, whole[1])
    assert graph.neighbours(x[:3], 5)[0].shape == (3, 2)  # no more than there are


def test_classes_of_equal_mass() -> None:
    found = graph.equal_mass(torch.tensor([[4.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 2.0, 0.0]]))
    np.testing.assert_allclose(found, [[2 / 3, 1 / 4, 0], [1 / 3, 1 / 4, 0], [0, 1 / 2, 0]])


# ---- the judge


@pytest.mark.parametrize(("right", "count"), [(8, 10), (0, 40), (40, 40), (123, 250)])
def test_interval(right: int, count: int) -> None:
    theirs = binomtest(right, count).proportion_ci(method="wilson")
    assert frozen.wilson(right, count) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_folds_deal_out_each_class() -> None:
    y = np.repeat([0, 1, 2, 3], [10, 20, 5, 1])
    folds = frozen.folds_of(y, 5, seed=3)
    counts = np.array([np.bincount(folds[y == c], minlength=5) for c in range(4)])
    assert counts.sum() == 36 and counts[0].tolist() == [2] * 5 and counts[1].tolist() == [4] * 5
    assert counts[2].tolist() == [1] * 5 and counts[3].sum() == 1
    assert not np.array_equal(folds, frozen.folds_of(y, 5, seed=4))
    assert np.array_equal(folds, frozen.folds_of(y, 5, seed=3))


def fitted(known: Known, **options: Any) -> Any:
    info = Info(known.classes, (3, 8, 8), known.features.shape[1], torch.ones(3), len(known.features), 0, 1, 1)
    return fl.Frozen(**options).build(info).fit(known)


def accuracy(fit: Any, x: Any, y: Any) -> float:
    return float((Layer(fit.weight, fit.bias)(unit(x)).argmax(1) == y).float().mean())


@pytest.mark.slow
def test_neighbours_are_taken_where_they_help() -> None:
    x, y = clusters(900, classes=6, dim=64, spread=2.0)
    known = Known(x, torch.arange(24), y[:24], 6, seed=1)
    fit = fitted(known)
    judged, taken = fit.facts["judged"], fit.facts["method"]
    assert taken != "labels" and min(judged["spreading"], judged["mixture"]) > judged["labels"]
    assert fit.facts["expected"] == judged[taken] == max(judged.values())
    plain = accuracy(fitted(known, method="labels"), x, y)
    assert accuracy(fit, x, y) > plain + 0.05
    assert not any("did not help" in note for note in fit.notes)


@pytest.mark.slow
def test_labels_alone_are_taken_where_the_others_mislead() -> None:
    """A quiet trace of the class under loud clouds of something else, which is what neighbours share."""
    chance = np.random.default_rng(0)
    y = torch.arange(600) % 2
    x = 0.5 * chance.normal(size=(600, 20)) + 2 * chance.normal(size=(12, 20))[chance.integers(0, 12, 600)]
    x[:, 0] = 0.3 * (2 * y.numpy() - 1) + 0.1 * chance.normal(size=600)
    features = torch.from_numpy(x).float()
    fit = fitted(Known(features, torch.arange(200), y[:200], 2, seed=1))
    assert fit.facts["method"] == "labels" and fit.facts["judged"]["spreading"] < 70 < 90 < fit.facts["expected"]
    assert fit.notes[-1] == "the unlabeled pictures did not help here"
    assert accuracy(fit, features, y) > 0.95


@pytest.mark.parametrize(
    ("labels", "votes", "spreading", "taken"),
    [
        ("1100000000", "1100000000", "1100000000", "labels"),
        ("1100000000", "1110000000", "1100000000", "labels"),  # one more: the error is 1
        ("1100000000", "1111000000", "1110000000", "votes"),  # two more and none less: 2 > 1.41
        ("1111000000", "0001111110", "1111100000", "labels"),  # five gained, three lost: 2 more, and the error is 2.8
        ("1100000000", "1111000000", "1111110000", "spreading"),
        ("1110000000", "1111100000", "0001111110", "votes"),  # spreading has 6 right, and 9 answers differ
        ("1111100000", "1111110000", "1111100000", "labels"),  # 4 of 9 of what guessing leaves
        ("1111110000", "1111111000", "1111110000", "votes"),  # 5 of 9: the features fit, and one more is enough
        ("1111110000", "1111100000", "1111100000", "labels"),
    ],
)
def test_who_beats_labels_only(labels: str, votes: str, spreading: str, taken: str) -> None:
    words: dict[frozen.Method, str] = {"labels": labels, "votes": votes, "spreading": spreading}
    right = {method: np.array([[c == "1" for c in word]]) for method, word in words.items()}
    assert frozen.supported(right, 10) == taken
    thrice = {method: answers.repeat(3, 0) for method, answers in right.items()}
    assert frozen.supported(thrice, 10) == taken  # the same answers again say no more


@pytest.mark.slow
def test_what_is_held_back_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each label is predicted once in each repetition, by what was fitted without it."""
    x, y = clusters(60, classes=3)
    told: list[list[int]] = []
    asked: list[list[int]] = []
    original = frozen.Methods.answers

    def watched(self: frozen.Methods, method: frozen.Method, which: Any, rows: Any) -> Any:
        told.append(which.tolist())
        asked.append(rows.tolist())
        return original(self, method, which, rows)

    monkeypatch.setattr(frozen.Methods, "answers", watched)
    fitted(Known(x, torch.arange(30), y[:30], 3, seed=1), method="labels", cv=5)
    assert len(told) == 5 * frozen.REPEATS and len({tuple(fold) for fold in told}) > 5
    held = [sorted(set(range(30)) - set(fold)) for fold in told]
    assert held == [sorted(rows) for rows in asked] and {len(fold) for fold in held} == {6}
    for repeat in range(frozen.REPEATS):
        assert sorted(row for fold in held[5 * repeat :][:5] for row in fold) == list(range(30))


@pytest.mark.slow
def test_the_expected_accuracy_is_that_of_the_answers_on_what_was_held_back() -> None:
    """By scikit-learn's logistic regression on directions, centred and of mean square 1, fold by fold."""
    x, y = clusters(200, classes=4, spread=2.5)
    fit = fitted(Known(x, torch.arange(60), y[:60], 4, seed=1), method="labels")
    directions = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    centred = directions - directions.mean(0)
    z, labels = centred / np.sqrt((centred**2).sum(1).mean()), y.numpy()
    right = 0
    for repeat in range(frozen.REPEATS):
        folds = frozen.folds_of(labels[:60], 5, 1, repeat)
        for fold in range(5):
            told, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            model = LogisticRegression(C=10, max_iter=10_000).fit(z[told], labels[told])
            right += int((model.predict(z[held]) == labels[held]).sum())
    expected = fit.facts["expected"]
    assert expected == pytest.approx(100 * right / 60 / frozen.REPEATS) and 30 < expected < 95


def test_one_label_of_each_class_is_not_judged() -> None:
    x, y = clusters(60, classes=3)
    fit = fitted(Known(x, torch.arange(3), y[:3], 3, seed=1))
    assert fit.facts == {"method": "labels", "expected": None, "interval": None, "judged": {}}
    assert fit.notes == ("labels only taken: with one label of each class nothing can be held back to judge by",)


@pytest.mark.slow
def test_the_student_keeps_the_labels_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes of four, of which a quarter each; a label counts whole."""
    x, y = clusters(80, classes=3, spread=2.0)
    targets: list[Any] = []
    original = logistic

    def watched(features: Any, target: Any, *rest: Any) -> Layer:
        targets.append(target.clone())
        return original(features, target, *rest)

    monkeypatch.setattr(frozen, "logistic", watched)
    fitted(Known(x, torch.arange(12), y[:12], 3, seed=1), method="votes")
    target = [target for target in targets if len(target) == 80][-1]
    assert torch.equal(target[:12], one_hot(y[:12], 3))
    assert set((4 * target).flatten().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0} and ((4 * target).sum(1) == 4).all()
    assert bool(((target[12:] > 0) & (target[12:] < 1)).any())
