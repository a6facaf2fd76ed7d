"""Parts for long tails: identities, NumPy loops, and what goes together."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from algorithm_cases import K, info, make_batch, opinionated, quick, uratio, with_heads
from fewlabels.algorithms import ALGORITHMS, Composed, FixMatch, Imbalance, Missing, OpenSet, PseudoLabeling, SoftMatch
from fewlabels.algorithms.alignment import RunningAlignment
from fewlabels.algorithms.balanced import HEAD
from fewlabels.algorithms.darp import projected, purged
from fewlabels.algorithms.functional import effective_weights, share_of_each
from fewlabels.algorithms.memory import ClassQueues
from fewlabels.algorithms.slots import Seen
from fewlabels.types import Info, Outputs

TOLD = info(4, 12)
LONG = TOLD._replace(labeled_counts=torch.tensor([8, 3, 1]))
PARTS = ("abc", "darp", "daso", "debiased", "saw", "tras", "adsh", "cossl", "crest")


def stepped(
    config: Any, told: Info = TOLD, progress: float = 0.5, steps: int = 1
) -> tuple[Any, Any, dict[str, Tensor]]:
    """The algorithm, its losses in the last of some steps on one net, and the gradients of the net's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        algorithm = config.build(told)
    net, ema = (with_heads(opinionated(seed), algorithm) for seed in (0, 1))
    for seed in range(steps):
        net.zero_grad(set_to_none=True)
        batch = make_batch(algorithm, told.batch, told.unlabeled_batch, seed, progress)
        losses = algorithm(batch, net, ema.eval())
        losses.total.backward()
    return algorithm, losses, {name: p.grad for name, p in net.net.named_parameters() if p.grad is not None}


NOTHING: dict[str, tuple[Imbalance, float]] = {
    "debiased that takes nothing off": (Imbalance("debiased", margin=0.0), 0.5),
    "saw of equal classes": (Imbalance("saw"), 0.5),
    "adsh before it has looked": (Imbalance("adsh"), 0.5),
    "darp before its start": (Imbalance("darp", start=0.6), 0.5),
    "daso before its start": (Imbalance("daso", start=0.9, weight=0.0), 0.5),
    "abc that weighs nothing": (Imbalance("abc", weight=0.0), 0.5),
    "cossl that weighs nothing before its start": (Imbalance("cossl", weight=0.0), 0.5),
    "tras of equal classes that weighs nothing": (Imbalance("tras", weight=0.0), 0.5),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_changes_nothing_is_fixmatch_bit_for_bit(name: str) -> None:
    part, progress = NOTHING[name]
    _, found, gradients = stepped(FixMatch(tau=0.45, imbalance=part), progress=progress, steps=2)
    _, plain, expected = stepped(FixMatch(tau=0.45), progress=progress, steps=2)
    assert 0 < float(plain.log["mask"]) < 1
    if not name.startswith("tras"):  # whose adjustment of equal classes is one number, with its rounding
        assert torch.equal(found.total, plain.total) and torch.equal(found.kept, plain.kept)
        assert all(torch.equal(gradients[weight], expected[weight]) for weight in expected)
    torch.testing.assert_close(found.total, plain.total, rtol=1e-6, atol=0)


@pytest.mark.parametrize("masks", ["sampled", "expected"])
def test_a_second_head_like_the_first_has_its_loss_where_classes_are_equal(masks: Any) -> None:
    config = FixMatch(tau=0.45, imbalance=Imbalance("abc", target="hard", masks=masks))
    algorithm = config.build(TOLD)
    net = with_heads(opinionated(), algorithm)
    net.heads[HEAD].load_state_dict(net.net.linear.state_dict())  # type: ignore[union-attr]
    losses = algorithm(make_batch(algorithm, 4, 12), net, net)
    assert 0 < float(losses.log["mask_abc"]) == float(losses.log["mask"]) < 1
    torch.testing.assert_close(losses.log["loss_abc"], losses.log["loss_x"] + losses.log["loss_u"], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_masks_have_the_weights_for_expected_values() -> None:
    """Over 400 draws, to four standard errors."""
    algorithm = FixMatch(imbalance=Imbalance("abc", tau=0.45)).build(LONG)
    expected = FixMatch(imbalance=Imbalance("abc", tau=0.45, masks="expected")).build(LONG)
    net = with_heads(opinionated(), algorithm)
    batch = make_batch(algorithm, 4, 12)
    drawn = []
    for step in range(400):
        rng = type(batch.rng)(0, step)
        drawn.append(float(algorithm(batch._replace(rng=rng), net, net).log["loss_abc"]))
    wanted = float(expected(batch, net, net).log["loss_abc"])
    assert np.std(drawn) > 0
    assert abs(np.mean(drawn) - wanted) < 4 * np.std(drawn) / 20


def test_a_head_alone_leaves_the_body_as_it_is() -> None:
    _, _, plain = stepped(FixMatch(tau=0.45), LONG)
    _, _, head = stepped(FixMatch(tau=0.45, imbalance=Imbalance("abc", reach="head")), LONG)
    _, _, body = stepped(FixMatch(tau=0.45, imbalance=Imbalance("abc")), LONG)
    assert all(torch.equal(head[name], plain[name]) for name in plain)
    assert not torch.equal(body["body.0.weight"], plain["body.0.weight"])


@pytest.mark.parametrize("name", ["abc", "tras", "cossl"])
def test_the_second_head_predicts(name: Any) -> None:
    algorithm = FixMatch(imbalance=Imbalance(name)).build(LONG)
    net, x = with_heads(opinionated(), algorithm), torch.randn(3, 3, 8, 8)
    assert torch.equal(net.predict(x), net.heads[HEAD](net.features(x)))


TABLES = st.tuples(st.integers(2, 30), st.integers(2, 5), st.integers(0, 2**31))


@pytest.mark.slow
@given(TABLES)
@settings(max_examples=15, deadline=None)
def test_refined_guesses_have_the_wanted_sums_and_the_form_of_the_nearest(drawn: tuple[int, int, int]) -> None:
    """``log(M / P) = log x_i - nu_c H_i``: differences between classes, over the entropy, are alike for all images."""
    n, classes, seed = drawn
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 2.0), n) * 0.98 + 0.02 / classes
    goal = n * (rng.dirichlet(np.full(classes, 3.0)) * 0.8 + 0.2 / classes)
    found = projected(torch.from_numpy(probs), torch.from_numpy(goal), 200).numpy()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose(found.sum(0), goal, rtol=1e-3, atol=1e-3)
    entropy = -(probs * np.log(probs + 1e-6)).sum(1, keepdims=True)
    moved = np.log(found / probs)
    nu = -(moved[:, 1:] - moved[:, :1]) / entropy
    np.testing.assert_allclose(nu, np.broadcast_to(nu[:1], nu.shape), rtol=1e-5, atol=1e-5)


@given(TABLES, st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=30, deadline=None)
def test_noise_is_taken_out_as_in_a_loop(drawn: tuple[int, int, int], alpha: float) -> None:
    n, classes, seed = drawn
    rng = np.random.default_rng(seed)
    table, goal = rng.dirichlet(np.ones(classes), n), rng.uniform(0, n, classes)
    expected = np.full_like(table, 1e-6)
    for c in range(classes):
        best = np.argsort(-table[:, c], kind="stable")[: int(alpha * goal[c])]
        expected[best, c] += table[best, c] * (goal[c] + 1e-6) / (table[best, c].sum() + 1e-6)
    found = purged(torch.from_numpy(table), torch.from_numpy(goal), alpha)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-9)


@pytest.mark.slow
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=8))
@settings(max_examples=50, deadline=None)
def test_effective_weights(counts: list[int]) -> None:
    n = np.array(counts, np.longdouble)
    beta = (n.mean() - 1) / n.mean()
    weights = (1 - beta) / (1 - beta**n)
    np.testing.assert_allclose(effective_weights(torch.tensor(counts)), weights / weights.mean(), rtol=1e-6)


@pytest.mark.slow
@given(TABLES, st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_value_that_a_share_of_each_class_reaches(drawn: tuple[int, int, int], share: float) -> None:
    n, classes, seed = drawn
    rng = np.random.default_rng(seed)
    values, labels = rng.random(n), rng.integers(0, classes, n)
    found = share_of_each(torch.from_numpy(values), torch.from_numpy(labels), torch.tensor(share).double(), classes)
    for c in set(labels.tolist()):
        own = sorted(values[labels == c], reverse=True)
        assert found[c] == own[max(int(len(own) * share + 1e-9) - 1, 0)]


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=6), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_queues_of_classes(writes: list[list[int]], size: int) -> None:
    queues, expected, number = ClassQueues(4, size, 1), [deque(maxlen=size) for _ in range(4)], 0
    for labels in writes:
        values = [float(number := number + 1) for _ in labels]
        queues.write(torch.tensor(values)[:, None], torch.tensor(labels))
        for value, label in zip(values, labels, strict=True):
            expected[label].append(value)
    for c, kept in enumerate(expected):
        assert sorted(queues.rows[c, :, 0][queues.rows[c, :, 0] > 0].tolist()) == sorted(kept)
        assert float(queues.means()[c]) == pytest.approx(np.mean(kept) if kept else 0)


def looked(name: Any, logits: list[list[float]], **options: Any) -> Any:
    algorithm: Any = FixMatch(tau=0.6, imbalance=Imbalance(name, **options)).build(LONG)
    algorithm.refresh(torch.tensor(logits))
    return algorithm.imbalance


def test_thresholds_after_a_look() -> None:
    """Class 0 has most labels: two of its four images reach 0.6, and so half of those of each class are to pass."""
    shares = [
        [0.9, 0.05, 0.05],
        [0.7, 0.2, 0.1],
        [0.55, 0.3, 0.15],
        [0.5, 0.3, 0.2],
        [0.3, 0.4, 0.3],
        [0.2, 0.45, 0.35],
    ]
    logits = np.log(shares).tolist()
    part = looked("adsh", logits)
    np.testing.assert_allclose(part.limits, [0.6, 0.45, 0.6], rtol=1e-6)  # at most tau; class 2 has no image
    unsure = np.log([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]).tolist()
    part.refresh(torch.tensor(unsure))
    np.testing.assert_allclose(part.limits, [0.6, 0.45, 0.6], rtol=1e-6)  # nothing of class 0 is sure: they stay


def test_weights_after_a_look() -> None:
    part = looked("saw", [[1, 0, 0]] * 6 + [[0, 1, 0]] * 3)
    np.testing.assert_allclose(part.unlabeled_weights, effective_weights(torch.tensor([6, 3, 1])), rtol=1e-6)
    np.testing.assert_allclose(part.labeled_weights, effective_weights(torch.tensor([8, 3, 1])), rtol=1e-6)


def test_the_average_guess_is_taken_off() -> None:
    """A net that says the same of all images is of no opinion, once its average is known."""
    algorithm: Any = FixMatch(imbalance=Imbalance("debiased", margin=1.0, momentum=0.0)).build(TOLD)
    net = with_heads(opinionated(), algorithm)
    with torch.no_grad():
        net.net.linear.weight.zero_()  # type: ignore[union-attr]
        net.net.linear.bias.copy_(torch.tensor([3.0, 0.0, -1.0]))  # type: ignore[union-attr]
    for _ in range(2):
        confidence = algorithm(make_batch(algorithm, 4, 12), net, net).log["confidence"]
    assert float(confidence) == pytest.approx(1 / K)


@pytest.mark.slow
@given(st.integers(2, 5), st.floats(0, 1), st.floats(0, 0.999), st.integers(1, 4), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_guesses_aligned_with_the_labels_shares_as_in_a_loop(
    classes: int, t: float, momentum: float, steps: int, uniform: bool, seed: int
) -> None:
    """In float64, over some steps; with equal shares whatever t is, the usual alignment to equal shares."""
    rng = np.random.default_rng(seed)
    counts = np.full(classes, 7) if uniform else rng.integers(0, 500, classes)
    own = torch.from_numpy(np.maximum(counts, 1))
    told = TOLD._replace(classes=classes, labeled_counts=torch.arange(1, classes + 1), own_counts=torch.tensor(counts))
    algorithm: Any = FixMatch(imbalance=Imbalance("crest", strength=t, momentum=momentum)).build(told)
    even = RunningAlignment(classes, momentum, "uniform")
    shares = (own.numpy() / own.sum().item()) ** t
    goal, m = shares / shares.sum(), np.zeros(classes)
    for step in range(steps):
        logits = rng.normal(0, 3, (6, classes)).astype(np.float32)
        probs = np.exp(logits.astype(np.float64))
        probs /= probs.sum(1, keepdims=True)
        m = probs.mean(0) if step == 0 else momentum * m + (1 - momentum) * probs.mean(0)
        expected = probs * (goal + 1e-6) / (m + 1e-6)
        outputs = Outputs(torch.zeros(6, 1), torch.from_numpy(logits))
        seen: Any = Seen((), outputs, (), outputs.logits.softmax(1), None, None, None, {}, torch.ones(6))  # type: ignore
        found = algorithm.align(seen)
        np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=2e-4, atol=1e-7)
        if uniform:
            torch.testing.assert_close(found, even(seen), rtol=1e-5, atol=1e-7)


def test_a_net_whose_guesses_have_the_wanted_shares_is_left_alone() -> None:
    """Where the mean guess is p^t already, the alignment is that of FixMatch: none."""
    config = FixMatch(tau=0.45, imbalance=Imbalance("crest", strength=0.5, momentum=0.0))
    _, plain, _ = stepped(FixMatch(tau=0.45), LONG)
    net, batch = opinionated(), make_batch(config.build(LONG), 4, 12)
    mean = net(batch.u[0]).softmax(1).mean(0).detach().double()
    still = replace(config, imbalance=replace(config.imbalance, shares=tuple((mean**2).tolist())))
    _, found, _ = stepped(still, LONG)
    torch.testing.assert_close(found.total, plain.total, rtol=1e-5, atol=0)
    assert torch.equal(found.pseudo, plain.pseudo)
    _, moved, _ = stepped(config, LONG)
    assert not torch.allclose(moved.total, plain.total, rtol=1e-3)


COMPOSED = {name: cls for name, cls in ALGORITHMS.items() if issubclass(cls, Composed)}
REFUSED = "selects its images in another way: use saw or debiased", "Imbalance.name adsh selects its images in another"


def test_blended_features_and_the_guesses_of_the_averaged_model() -> None:
    """The loss in NumPy, from the draws; the body gets none of it; from the start on the average guesses."""
    config = FixMatch(tau=0.45, imbalance=Imbalance("cossl", least=0.7))
    algorithm, _, gradients = stepped(config, LONG)
    _, _, plain = stepped(FixMatch(tau=0.45), LONG)
    assert all(torch.equal(gradients[name], plain[name]) for name in plain)

    net, ema = (with_heads(opinionated(seed), algorithm) for seed in (0, 1))
    batch = make_batch(algorithm, 4, 12)
    own, other = (ema.features(view).detach().numpy() for view in (batch.x[0], batch.u[1]))
    draws, y, n = batch.rng.uniform("cossl", 4, 3).numpy(), batch.y.numpy(), np.array([8, 3, 1])
    total, blended = 0.0, 0
    for i in range(4):
        f = own[i]
        if draws[i, 0] < (8 - n[y[i]]) / 8:
            share = 1 - 0.3 * draws[i, 1]
            f, blended = share * f + (1 - share) * other[int(draws[i, 2] * 12)], blended + 1
        logits = net.heads[HEAD](torch.from_numpy(np.float32(f))).detach().double()
        total += 12 / (3 * n[y[i]]) * float(logits.logsumexp(0) - logits[y[i]]) / 4
    assert blended
    found = algorithm(batch, net, ema.eval())
    assert float(found.log["loss_cossl"]) == pytest.approx(total, rel=1e-5)
    later = algorithm(batch._replace(progress=torch.tensor(0.8)), net, ema)
    assert torch.equal(later.pseudo, ema.predict(batch.u[0]).argmax(1))
    assert not torch.equal(later.pseudo, found.pseudo)


@pytest.mark.slow
@pytest.mark.parametrize("method", COMPOSED)
def test_every_part_goes_with_every_method(method: str) -> None:
    """Two steps, after a look at all images; but for the one whose threshold has none to take the place of."""
    for name, openset in zip(PARTS, itertools.cycle((OpenSet("energy"), OpenSet("ova"))), strict=False):
        own = OpenSet() if method == "iomatch" else openset  # which refuses others
        config = quick(COMPOSED[method], imbalance=Imbalance(name), openset=own)
        told = info(4, 4 * uratio(config))._replace(labeled_counts=torch.tensor([8, 3, 1]))
        try:
            algorithm = config.build(told)
        except ValueError as error:
            assert name == "adsh" and any(reason in str(error) for reason in REFUSED)
            continue
        net, ema = (with_heads(opinionated(seed), algorithm) for seed in (0, 1))
        algorithm.refresh(torch.randn(100, K))
        for progress in (0.3, 0.9):
            losses = algorithm(make_batch(algorithm, 4, told.unlabeled_batch, progress=progress), net, ema.eval())
            losses.total.backward()
            assert losses.total.isfinite() and net.net.body[0].weight.grad.isfinite().all(), name  # type: ignore


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "abc", "strength": 2.0}, "Imbalance.strength 2 means nothing with Imbalance.name abc"),
        ({"name": "darp", "tau": 0.9}, "Imbalance.tau 0.9 means nothing with Imbalance.name darp"),
        ({"name": "saw", "target": "hard"}, "Imbalance.target hard means nothing with Imbalance.name saw"),
        ({"name": "none", "shares": (1.0,)}, "Imbalance.shares (1.0,) means nothing with Imbalance.name none"),
        ({"name": "adsh", "every": 0}, "Imbalance.every must be a whole number of at least 1 or None, got 0"),
    ],
)
def test_options_that_mean_nothing(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Imbalance(**settings)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            FixMatch(imbalance=Imbalance("abc"), loss_temperature=0.5),
            "Imbalance.name abc predicts by a head of its own, whose logits are trained as they are, and "
            "FixMatch.loss_temperature 0.5 trains others: set one of them otherwise",
        ),
        (
            SoftMatch(imbalance=Imbalance("adsh")),
            "Imbalance.name adsh has a confidence threshold for each class in place of one for all, and SoftMatch "
            "selects its images in another way: use saw or debiased",
        ),
        (
            PseudoLabeling(imbalance=Imbalance("adsh"), broadcast=True),
            "Imbalance.name adsh has a confidence threshold for each class in place of one for all, and "
            "PseudoLabeling selects its images in another way: use saw or debiased",
        ),
        (
            FixMatch(imbalance=Imbalance("adsh"), missing=Missing("cai")),
            "Missing.name cai lowers one confidence threshold class by class, and Imbalance.name adsh selects its "
            "images in another way: use cap",
        ),
        (
            FixMatch(imbalance=Imbalance("darp", shares=(1.0, 2.0))),
            "Imbalance.shares must have a share for each of the 3 classes, not all of them 0, got (1.0, 2.0)",
        ),
    ],
)
def test_what_does_not_go_together(config: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.build(LONG)
    assert str(caught.value) == sentence


def test_wanted_shares_are_those_given_or_those_of_the_labels() -> None:
    joined = LONG._replace(own_counts=LONG.labeled_counts, labeled_counts=torch.tensor([9, 9, 9]))
    for told, shares, expected in (
        (LONG, (), [8 / 12, 3 / 12, 1 / 12]),
        (LONG, (2.0, 1.0, 1.0), [0.5, 0.25, 0.25]),
        (joined, (), [8 / 12, 3 / 12, 1 / 12]),  # predictions that joined the labels say nothing of the shares
    ):
        algorithm: Any = FixMatch(imbalance=Imbalance("darp", shares=shares)).build(told)
        np.testing.assert_allclose(algorithm.imbalance.goal, 100 * np.array(expected))


def test_counts_of_a_step_in_turns_are_those_of_the_step() -> None:
    """Guesses are counted in all turns, and taken over before the first turn of the next step."""
    found = []
    for turns in (1, 2):
        algorithm: Any = FixMatch(imbalance=Imbalance("daso", start=0.0, every=2, queue=4)).build(LONG)
        net = with_heads(opinionated(), algorithm)
        for step in range(3):
            whole = make_batch(algorithm, 4, 12, seed=step, progress=step / LONG.steps)
            for turn in range(turns):
                x, y, u, index = (
                    whole.x[0].chunk(turns)[turn],
                    whole.y.chunk(turns)[turn],
                    tuple(view.chunk(turns)[turn] for view in whole.u),
                    whole.index.chunk(turns)[turn],
                )
                batch = whole._replace(x=(x,), y=y, u=u, index=index, rng=type(whole.rng)(0, step, turn=turn))
                algorithm(batch, net, net)
        found.append(algorithm.imbalance.shares)
        assert float(found[-1].sum()) == 24 and float(algorithm.imbalance.fresh.sum()) == 12
    assert torch.equal(*found)


def test_refined_rows_stay_until_the_next_refinement() -> None:
    algorithm: Any = FixMatch(imbalance=Imbalance("darp", start=0.0, every=3)).build(LONG)
    net, tables = with_heads(opinionated(), algorithm), []
    for step in range(4):
        batch = make_batch(algorithm, 4, 12, seed=step)
        algorithm(batch._replace(rng=type(batch.rng)(0, step)), net, net)
        tables.append(copy.deepcopy(algorithm.imbalance.refined))
    assert torch.equal(tables[0], tables[2]) and not torch.equal(tables[2], tables[3])
    torch.testing.assert_close(tables[0].sum(0), algorithm.imbalance.goal.float(), rtol=0.02, atol=0.5)
