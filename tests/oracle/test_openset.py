"""Unlabeled images of no class: scores, thresholds and weights against loops in NumPy, and what must not change."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from algorithm_cases import build, info, make_batch, opinionated, with_heads
from fewlabels.algorithms import UDA, Algorithm, FixMatch, Missing, OpenSet, PseudoLabeling
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import familiarity, otsu
from fewlabels.algorithms.openset import PAIRS, Scores, energy
from fewlabels.types import Batch, Losses

IMAGES = 100
"""Of `algorithm_cases.info`."""


# ---- Otsu's rule


def best_cut(scores: Any) -> tuple[float, float]:
    """Otsu 1979, by trying every cut: the upper group's smallest score, and the share of the variance between the
    groups."""
    values = np.sort(np.asarray(scores, np.float64))
    best = (-1.0, 0.0)
    for cut in sorted(set(values.tolist()))[1:]:
        low, high = values[values < cut], values[values >= cut]
        between = len(low) * len(high) / len(values) ** 2 * (low.mean() - high.mean()) ** 2
        best = max(best, (between, cut), key=lambda found: found[0])
    return best[1], best[0] / values.var()


@pytest.mark.parametrize("seed", range(5))
def test_otsu_is_the_best_of_all_cuts(seed: int) -> None:
    chance = np.random.default_rng(seed)
    scores = np.concatenate([chance.normal(0, 1, 30), chance.normal(1 + 2 * seed, 0.5, 11 + seed)]).round(1)
    threshold, separation = otsu(torch.tensor(scores).float())
    cut, share = best_cut(torch.tensor(scores).float())
    assert float(threshold) == pytest.approx(cut, abs=1e-6) and float(separation) == pytest.approx(share, rel=1e-5)
    holes = torch.cat([torch.tensor(scores).float(), torch.full((9,), torch.nan)])[torch.randperm(len(scores) + 9)]
    assert otsu(holes)[0] == threshold and float(otsu(holes)[1]) == pytest.approx(float(separation), rel=1e-12)


def test_otsu_on_distributions_whose_answer_is_known() -> None:
    """Of n equally spread scores the halves have n^2 / 16 of the variance (n^2 - 1) / 12 between them; of a normal
    distribution 2 / pi, the mean of its half squared; of an exponential one the largest t^2 e^-t / (1 - e^-t)."""
    assert float(otsu(torch.arange(100.0))[1]) == pytest.approx(0.75 * 10_000 / 9_999, rel=1e-9)
    assert otsu(torch.arange(100.0))[0] == 50
    middle = (torch.arange(20_000.0, dtype=torch.float64) + 0.5) / 20_000
    assert float(otsu(torch.erfinv(2 * middle - 1))[1]) == pytest.approx(2 / math.pi, rel=1e-2)
    t = np.linspace(0.01, 5, 5000)
    expected = (t**2 * np.exp(-t) / (1 - np.exp(-t))).max()
    assert float(otsu(-torch.log(middle))[1]) == pytest.approx(expected, rel=1e-2)
    assert [float(x) for x in otsu(torch.tensor([3.0, 1.0, 3.0, 1.0]))] == [3.0, 1.0]


values = st.floats(-1e4, 1e4, width=32) | st.just(math.nan)


@pytest.mark.slow
@given(st.lists(values, min_size=1, max_size=30))
@example([math.nan])
@example([2.0])
@example([1.0, 1.0, 1.0])
@example([math.nan, 1.0])
def test_otsu_of_anything(scores: list[float]) -> None:
    threshold, separation = otsu(torch.tensor(scores))
    different = {score for score in scores if not math.isnan(score)}
    assert math.isfinite(threshold) and 0 <= separation <= 1
    if len(different) < 2:
        assert separation == 0
    else:
        assert min(different) < threshold <= max(different)


def test_familiarity_is_minus_the_free_energy() -> None:
    logits = torch.randn(7, 5) * 3
    expected = [math.log(sum(math.exp(z) for z in row)) for row in logits.double().tolist()]
    np.testing.assert_allclose(familiarity(logits), expected, rtol=1e-5)
    torch.testing.assert_close(familiarity(logits + 4), familiarity(logits) + 4)  # a larger logit is more familiar


# ---- a step


def stepped(config: Any, batch: Batch | None = None, algorithm: Algorithm | None = None) -> tuple[Losses, Algorithm]:
    algorithm = algorithm or build(config, info())
    batch = batch or make_batch(algorithm, 4, 12, progress=0.5)
    net, ema = (with_heads(opinionated(seed), algorithm) for seed in (0, 1))
    return algorithm(batch, net, ema.eval()), algorithm


def part(algorithm: Algorithm) -> Scores:
    assert isinstance(algorithm, Consistency)
    (found,) = [p for p in algorithm.parts if isinstance(p, Scores)]
    return found


def guesses(config: Any, batch: Batch) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Logits of the view that is guessed about."""
    with torch.no_grad():
        return opinionated()(batch.u[0]).double().numpy()


def score(name: str, logits: Any) -> Any:
    e = np.exp(logits)
    return np.log(e.sum(1)) if name == "energy" else (e / e.sum(1, keepdims=True)).max(1)


@pytest.mark.parametrize("name", ["energy", "confidence"])
@pytest.mark.parametrize("use", ["mask", "weight"])
@pytest.mark.parametrize("case", ["percentile", "value", "one group", "two groups"])
def test_weights_of_a_step(name: Any, use: Any, case: str) -> None:
    plain = FixMatch(tau=0.45)
    algorithm = build(plain, info())
    batch = make_batch(algorithm, 4, 60, progress=0.5)
    if case == "two groups":
        middle = torch.where(torch.arange(60) < 20, 0.0, 4.0)[:, None, None, None] * batch.u[0][0]
        batch = batch._replace(u=(middle + 0.05 * batch.u[0], *batch.u[1:]))
    scores = score(name, guesses(plain, batch))
    options: dict[str, Any] = {"percentile": {"share": 0.29}, "value": {"threshold": 0.7}}.get(case, {})
    by: Any = case if options else "otsu"
    openset = OpenSet(name, by=by, use=use, **options)
    (usual, _), (found, whole) = stepped(plain, batch), stepped(replace(plain, openset=openset), batch)
    threshold, share = best_cut(scores.astype(np.float32))
    if by == "percentile":
        threshold = np.sort(scores)[int(0.29 * 60)]
    elif by == "value":
        threshold = 0.7
    weights = (scores >= threshold - 1e-6).astype(float)
    if use == "weight":
        weights = 1 / (1 + np.exp(-(scores - threshold) / scores.std()))
    if by == "otsu":
        assert float(found.log["separation"]) == pytest.approx(share, rel=1e-4)
        assert bool(share > 0.75) == (case == "two groups")
        if case == "one group":
            weights = np.ones(60)
    assert found.kept is not None and usual.kept is not None
    np.testing.assert_allclose(found.kept, usual.kept.numpy() * weights, atol=1e-4)
    assert float(found.log["threshold"]) == pytest.approx(threshold, abs=1e-4)
    expected = (scores < threshold - 1e-6).mean() * (weights.min() < 1)
    assert float(found.log["foreign"]) == pytest.approx(expected, abs=1e-6)
    assert float(found.log["loss_x"]) == float(usual.log["loss_x"])
    np.testing.assert_allclose(part(whole).score[:60], scores, rtol=1e-4)
    assert part(whole).score[60:].isnan().all() and (part(whole).guess[60:] == -1).all()
    assert (part(whole).guess[:60].numpy() == guesses(plain, batch).argmax(1)).all()


def test_one_vs_all_classifiers() -> None:
    """Their losses and the score of a step, image by image."""
    plain, openset = FixMatch(tau=0.45), OpenSet("ova", weight=0.7, entropy=0.3)
    algorithm = build(replace(plain, openset=openset), info())
    batch = make_batch(algorithm, 4, 12)
    (usual, _), (found, _) = stepped(plain, batch), stepped(None, batch, algorithm)
    net = opinionated()
    (head,) = (p.detach().double().numpy() for p in algorithm.heads[PAIRS].parameters())

    def pairs(image: Tensor) -> list[tuple[float, float]]:
        """It is none of the class, it is."""
        z = head @ net.features(image[None])[0].detach().double().numpy()
        out = [1 / (1 + math.exp(z[3 + k] - z[k])) for k in range(3)]
        return [(p, 1 - p) for p in out]

    loss = entropy = 0.0
    for image, y in zip(batch.x[0], batch.y.tolist(), strict=True):
        r = pairs(image)
        loss += (-math.log(r[y][1]) - min(math.log(r[k][0]) for k in range(3) if k != y)) / 4
    scores = []
    for image, logits in zip(batch.u[0], guesses(plain, batch), strict=True):
        r = pairs(image)
        entropy -= sum(p * math.log(p) for pair in r for p in pair) / 3 / 12
        scores.append(r[int(logits.argmax())][1])
    weights = [float(score >= 0.5) for score in scores]
    assert 0 < sum(weights) < 12
    assert float(found.log["loss_ova"]) == pytest.approx(loss, rel=1e-5)
    assert float(found.log["loss_oem"]) == pytest.approx(entropy, rel=1e-5)
    np.testing.assert_allclose(part(algorithm).score[:12], scores, rtol=1e-5)
    assert found.kept is not None and usual.kept is not None
    assert found.kept.tolist() == (usual.kept.numpy() * weights).tolist()
    kept = float(found.log["loss_x"] + found.log["loss_u"])
    assert float(found.total.detach()) == pytest.approx(kept + 0.7 * loss + 0.3 * entropy, rel=1e-5)


def test_one_vs_all_classifiers_need_the_gradient_of_weak_views() -> None:
    for options in ({"bn": "separate-weak"}, {"teacher": "ema"}):
        with pytest.raises(ValueError, match=r"^OpenSet.entropy 0.1 needs the gradient of the weak views, which Fix"):
            build(FixMatch(openset=OpenSet("ova"), **options), info())  # type: ignore[arg-type]
        config = FixMatch(tau=0.45, openset=OpenSet("ova", entropy=0.0), **options)  # type: ignore[arg-type]
        losses, algorithm = stepped(config)
        assert float(losses.log["loss_ova"]) > 0 and part(algorithm).score[:12].isfinite().all()


NOTHING = [
    OpenSet("energy", by="percentile", share=0.0),
    OpenSet("energy", by="percentile", share=0.5, start=1.0),
    OpenSet("energy", by="percentile", share=0.5, use="weight", start=0.51),
    OpenSet("confidence", by="value", threshold=0.0),
    OpenSet("energy", by="value", threshold=-1e6),
    OpenSet("energy"),  # fewer than half of the images were seen
    OpenSet("confidence", use="weight"),
]


@pytest.mark.parametrize("openset", NOTHING, ids=str)
@pytest.mark.parametrize(
    "config", [FixMatch(tau=0.45), FixMatch(tau=0.3, missing=Missing("cadr")), UDA(tau=0.45), PseudoLabeling(tau=0.4)]
)
def test_what_sets_nothing_aside_is_the_method_bit_for_bit(config: Any, openset: OpenSet) -> None:
    (usual, before), (found, after) = stepped(config), stepped(replace(config, openset=openset))
    assert torch.equal(usual.total, found.total) and float(found.log["foreign"]) == 0
    assert all(torch.equal(usual.log[name], found.log[name]) for name in usual.log)
    assert usual.kept is not None and found.kept is not None and torch.equal(usual.kept, found.kept)
    state = after.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert any("set aside" in remark for remark in after.remarks(["a", "b", "c"]))


def test_what_sets_all_aside_learns_from_labels_only() -> None:
    found, whole = stepped(FixMatch(tau=0.0, openset=OpenSet("energy", by="value", threshold=1e6)))
    assert float(found.log["loss_u"]) == 0 and float(found.log["foreign"]) == 1
    assert float(found.total.detach()) == float(found.log["loss_x"])
    (remark,) = whole.remarks(["a", "b", "c"])
    assert remark.startswith("12 of 100 unlabeled images were set aside as foreign at the end (energy below 1e+06)")


# ---- the running scores


def table(momentum: float = 0.8, images: int = IMAGES, **options: Any) -> Scores:
    config = OpenSet("energy", momentum=momentum, **options)
    return Scores(config, lambda seen: seen.probs.amax(1), images, energy)


def test_running_scores() -> None:
    scores = table(0.75)
    for rows, new in (([3, 5, 3], [1.0, 2.0, 4.0]), ([3, 7], [math.nan, math.inf]), ([5], [6.0])):
        scores.take_in(torch.tensor(rows), torch.tensor(new), torch.tensor([1, 2, 0][: len(rows)]))
    assert scores.score[[3, 5]].tolist() == pytest.approx([2.5, 0.75 * 2 + 0.25 * 6])  # the mean of both, then its own
    assert int(scores.score.isnan().sum()) == IMAGES - 2  # 7 was seen with a score that is none
    assert scores.guess[[3, 5, 7, 0]].tolist() == [1, 1, 2, -1]


numbers = st.floats(-100, 100, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 1.0])
batches = st.lists(st.lists(st.tuples(st.integers(0, 4), numbers), min_size=1, max_size=6), min_size=1, max_size=4)


@pytest.mark.slow
@given(batches, st.sampled_from(["otsu", "percentile"]), st.integers(5, 8))
@example([[(0, math.nan)]], "percentile", 5)
@example([[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)]], "otsu", 5)
def test_no_number_that_is_none_spreads(steps: list[Any], by: Any, images: int) -> None:
    scores = table(images=images, by=by)
    given: dict[int, list[float]] = {}
    for step in steps:
        rows, new = torch.tensor([row for row, _ in step]), torch.tensor([value for _, value in step])
        scores.take_in(rows, new, torch.zeros(len(step), dtype=torch.int64))
        for row, value in step:
            given.setdefault(row, []).append(value)
    for row in range(images):
        good = [value for value in given.get(row, []) if math.isfinite(value)]
        found = float(scores.score[row])
        assert math.isnan(found) if not good else min(good) - 1e-3 <= found <= max(good) + 1e-3
    threshold, usable = scores.threshold(scores.score[rows])
    assert math.isfinite(threshold) and threshold.shape == usable.shape == ()
    if by == "otsu" and len({float(x) for x in scores.score if not x.isnan()}) < 2:
        assert not usable


def test_otsu_waits_for_half_of_the_images() -> None:
    def usable(seen: int) -> bool:
        scores = table(images=10)
        new = torch.tensor([0.0, 10.0, *[10.0] * 8][:seen])
        scores.take_in(torch.arange(seen), new, torch.zeros(seen, dtype=torch.int64))
        return bool(scores.threshold(new)[1])

    assert [usable(n) for n in (4, 5, 10)] == [False, True, True]


def test_one_image() -> None:
    for openset in (OpenSet("energy"), OpenSet("energy", by="percentile", use="weight")):
        algorithm = build(FixMatch(tau=0.0, openset=openset), info()._replace(unlabeled=1))
        batch = make_batch(algorithm, 4, 3)._replace(index=torch.zeros(3, dtype=torch.int64))
        found, _ = stepped(None, batch, algorithm)
        assert found.kept is not None and found.kept.tolist() == [1, 1, 1]
        assert torch.isfinite(part(algorithm).score).all() and torch.isfinite(found.total)


def test_the_scores_are_state() -> None:
    config = FixMatch(tau=0.0, openset=OpenSet("energy", by="percentile", share=0.5))
    _, algorithm = stepped(config)
    other = build(config, info())
    other.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    batch = make_batch(algorithm, 4, 12, seed=1)
    (mine, _), (again, _), (fresh, _) = (stepped(None, batch, a) for a in (algorithm, other, build(config, info())))
    assert mine.kept is not None and again.kept is not None and torch.equal(mine.kept, again.kept)
    assert mine.log["threshold"] == again.log["threshold"] != fresh.log["threshold"]


# ---- what comes out


def test_findings() -> None:
    scores = table(images=5)
    scores.take_in(torch.tensor([0, 1, 3, 4]), torch.tensor([5.0, -1.0, 7.0, 2.5]), torch.tensor([0, 1, 2, 0]))
    scores.limit.fill_(2.6)
    (found,) = scores.findings(["cat", "dog", "owl"])
    assert found.rows.tolist() == [1, 4, 0, 3, 2]
    assert found.columns == {
        "score": ["-1", "2.5", "5", "7", None],
        "set_aside": ["yes", "yes", "no", "no", "no"],
        "class": ["dog", "cat", "cat", "owl", None],
    }
    assert list(found.captions) == ["-1 dog", "2.5 cat", "5 cat", "7 owl"]
    assert found.result == {"set_aside": 2, "of": 5, "threshold": pytest.approx(2.6)}


REFUSED = [
    ({"share": 0.2}, "OpenSet.share 0.2 means nothing with OpenSet.name none"),
    ({"name": "energy", "share": 0.2}, "OpenSet.share 0.2 means nothing with OpenSet.by otsu"),
    ({"name": "energy", "threshold": 2.0}, "OpenSet.threshold 2.0 means nothing with OpenSet.by otsu"),
    (
        {"name": "energy", "by": "value"},
        "OpenSet.by value needs OpenSet.threshold, the score from which an image counts",
    ),
    (
        {"name": "confidence", "by": "value", "threshold": 2.0},
        "OpenSet.threshold must be a number from 0 to 1 with OpenSet.name confidence, got 2",
    ),
    ({"name": "energy", "by": "percentile", "share": 1.0}, "OpenSet.share must be a number from 0 to below 1, got 1.0"),
    (
        {"name": "ova", "threshold": 2.0, "by": "value"},
        "OpenSet.threshold must be a number from 0 to 1 with OpenSet.name ova, got 2",
    ),
    ({"name": "energy", "entropy": 0.0}, "OpenSet.entropy 0.0 means nothing with OpenSet.name energy"),
    ({"name": "ova", "share": 0.2}, "OpenSet.share 0.2 means nothing with OpenSet.by value"),
    ({"use": "weight"}, "OpenSet.use weight means nothing with OpenSet.name none"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        OpenSet(**options)
    assert str(error.value) == sentence


def test_how_the_threshold_is_found_where_nothing_is_said() -> None:
    """Runs whose configuration says `otsu` for none are read as before."""
    assert [OpenSet(name).rule for name in ("none", "energy", "ova")] == ["otsu", "otsu", "value"]  # type: ignore[arg-type]
    assert OpenSet(by="otsu").name == "none" and OpenSet("ova", by="otsu").rule == "otsu"
    assert OpenSet("ova").limit == 0.5 and OpenSet("ova", threshold=0.0).limit == 0


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is read on the host in a step."""
    algorithm = build(FixMatch(openset=OpenSet("energy", use="weight")), info())
    batch = make_batch(algorithm, 4, 12)

    def read(self: Tensor, *args: object) -> Any:
        raise AssertionError("a number was read on the host")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        monkeypatch.setattr(Tensor, name, read)
    stepped(None, batch, algorithm)
