"""Labels missing not at random: the step against slow loops in NumPy, identities, and inputs at the edge."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import missing_numpy as oracle
import numpy as np
import pytest
import torch
from algorithm_oracles import Identity, K, Plain, batch_of_logits, info, make_batch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewlabels.algorithms import UDA, FixMatch, Missing, PseudoLabeling
from fewlabels.algorithms.functional import inverse_weights
from fewlabels.types import Batch, Losses

NAMES = ("cap", "cai", "cap+cai", "cap+dr", "cadr")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cadr.json").read_text())


def setting(missing: Missing, tau: float) -> oracle.Setting:
    name = "cap+cai+dr" if missing.name == "cadr" else missing.name
    return oracle.Setting(
        cap="cap" in name,
        cai="cai" in name,
        cadr="dr" in name,
        running=missing.prior == "running",
        weighting=missing.weighting,
        momentum=missing.momentum,
        upper=missing.upper,
        beta=missing.beta,
        tau=tau,
    )


def far_from_edges(how: oracle.Setting, prior: Any, x: Any, weak: Any) -> bool:
    """Whether float32 says the same: no confidence at its threshold, no singular value at the cut-off."""
    p, q = oracle.softmax(weak), oracle.softmax(x)
    tau = oracle.thresholds(how.tau, oracle.updated(prior, p, how.momentum), how.beta)
    gaps = [abs(r.max() - bar) for r in (*p, *q) for bar in (how.tau, tau[r.argmax()])]
    values = np.linalg.svd(p, compute_uv=False)
    return min(gaps) > 1e-5 and (not how.running or values[-1] > 0.01 * values[0])


def step(algorithm: Any, batch: Batch, net: Any = None) -> Losses:
    net = net or Identity()
    losses: Losses = algorithm(batch, net, net)
    losses.total.backward()
    return losses


def gradients(batch: Batch) -> list[Tensor]:
    return [torch.zeros_like(v) if v.grad is None else v.grad for v in (*batch.x, *batch.u)]


@pytest.mark.parametrize("case", GOLDEN["cadr_loss"]["cases"])
def test_the_oracle_is_what_the_authors_run(case: str) -> None:
    golden = GOLDEN["cadr_loss"]["cases"][case]
    flags = dict(part.split("=") for part in case.split(","))
    x, weak = (
        3 * np.sin(f * np.arange(n * 5).reshape(n, 5) + shift) for n, f, shift in ((8, 0.731, 0.2), (24, 1.137, 0.9))
    )
    y, prior = np.arange(8) * 3 % 5, np.array([0.35, 0.25, 0.2, 0.15, 0.05])
    how = oracle.Setting(cap=True, running=flags["CAP_EMA"] == "True", upper=float(flags["upper"]))
    fixed = oracle.constants(how, prior, x, y, weak)
    assert oracle.labeled_loss(how, fixed, x, y, weak) == pytest.approx(np.mean(golden["cap_loss"]), abs=2e-6)
    grad = oracle.slope(lambda z: oracle.labeled_loss(how, fixed, x, y, z), weak)
    np.testing.assert_allclose(grad, golden["grad_weak"], atol=1e-7)
    corrected = how._replace(cadr=True)
    fixed = fixed._replace(sure=np.ones(8))
    total = oracle.labeled_loss(corrected, fixed, x, y, weak)
    assert total == pytest.approx(np.mean(golden["cap_loss"]) + np.mean(golden["cadr_aug"]), abs=2e-6)


def options(draw: Any) -> dict[str, Any]:
    """Of `Missing`, only those that mean something with the name."""
    name = draw(st.sampled_from(NAMES))
    found: dict[str, Any] = {"name": name, "momentum": draw(st.sampled_from([0.0, 0.5, 0.99]))}
    if name != "cai":
        weightings = ["released", "released", "likelihood", *(["weighted"] if name != "cap+dr" else [])]
        found["weighting"] = draw(st.sampled_from(weightings))
        found["prior"] = draw(st.sampled_from(["running", "batch"]))
        if found["prior"] == "running":
            found["upper"] = draw(st.sampled_from([0.1, 5.0]))
    if name != "cap":
        found["beta"] = draw(st.sampled_from([0.0, 0.5, 2.0]))
    return found


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    unlabeled=st.sampled_from([1, 3, 8]),
    scale=st.sampled_from([0.5, 2.0, 4.0]),
    tau=st.sampled_from([0.4, 0.7]),
    chosen=st.composite(options)(),
)
def test_steps(seed: int, unlabeled: int, scale: float, tau: float, chosen: dict[str, Any]) -> None:
    rng, labeled = np.random.default_rng(seed), 4
    missing = Missing(**chosen)
    how, prior = setting(missing, tau), np.full(K, 1 / K)
    algorithm = FixMatch(tau=tau, lambda_u=2.0, missing=missing).build(info(labeled, unlabeled))
    for _ in range(3):
        x, weak, strong = (
            np.float32(rng.normal(size=(n, K)) * scale + np.linspace(1, 0, K)).astype(float)
            for n in (labeled, unlabeled, unlabeled)
        )
        y = rng.integers(0, K, labeled)
        assume(far_from_edges(how, prior, x, weak))
        fixed = oracle.constants(how, prior, x, y, weak)
        batch = batch_of_logits(x, y, weak, strong)
        log = step(algorithm, batch).log

        loss_x, loss_u = oracle.labeled_loss(how, fixed, x, y, weak), oracle.unlabeled_loss(fixed, strong)
        expected = {"loss": loss_x + 2 * loss_u, "loss_x": loss_x, "loss_u": loss_u, "mask": fixed.mask.mean()}
        if how.cap and how.cadr and how.weighting != "weighted":
            plain = how._replace(cadr=False)
            expected["loss_dr"] = loss_x - oracle.labeled_loss(plain, fixed, x, y, weak)
            expected["mask_dr"] = fixed.sure.mean()
        assert set(log) == {*expected, "prior", "confidence"}
        assert {name: float(log[name]) for name in expected} == pytest.approx(expected, rel=2e-5, abs=1e-5)
        prior = fixed.prior
        np.testing.assert_allclose(log["prior"], prior, atol=1e-6)
        np.testing.assert_allclose(algorithm.state_dict()["missing.prior"], prior, atol=1e-6)
    by_oracle = [
        oracle.slope(lambda z: oracle.labeled_loss(how, fixed, z, y, weak), x),
        oracle.slope(lambda z: oracle.labeled_loss(how, fixed, x, y, z), weak),
        2 * oracle.slope(lambda z: oracle.unlabeled_loss(fixed, z), strong),
    ]
    for ours, theirs in zip(gradients(batch), by_oracle, strict=True):
        np.testing.assert_allclose(ours.flatten(1), theirs, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_guesses_that_repeat_leave_directions_out(rank: int) -> None:
    rng = np.random.default_rng(rank)
    probs = np.float32(oracle.softmax(rng.normal(size=(rank, K)) * 2))[np.arange(8) % rank]
    prior = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    ours = inverse_weights(torch.tensor(prior).float(), torch.tensor(probs), 5.0)
    np.testing.assert_allclose(ours, oracle.row_weights(prior, np.float64(probs), 5.0), rtol=1e-4, atol=1e-6)
    assert ours.max() > 0.01


@pytest.mark.parametrize(("share", "kept"), [(0.2, False), (5.0, True)])
def test_the_cutoff_of_small_singular_values(share: float, kept: bool) -> None:
    """Eight guesses that differ in one direction, by a share of the published cut-off: 10 times 8 times eps."""
    sign = np.array([1.0, -1] * 4)
    probs = np.full((8, 2), 0.5) + np.outer(sign, [0.5, -0.5]) * 80 * oracle.EPS * share
    ours = inverse_weights(torch.tensor([0.6, 0.4]), torch.tensor(probs).float(), 1e9)
    theirs = oracle.row_weights(np.array([0.6, 0.4]), np.float64(np.float32(probs)), 1e9)
    np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=1e-4)
    assert (float(ours.max()) > 100) == kept


# ---- identities


def balanced(b: int, m: int, seed: int = 0) -> Batch:
    """Images as logits: the guesses about the weak views are one row and its rotations, all classes alike."""
    rng = np.random.default_rng(seed)
    row = rng.normal(size=K) * 3
    weak = np.stack([np.roll(row, j) for j in range(m)])
    return batch_of_logits(rng.normal(size=(b, K)) * 3, rng.integers(0, K, b), weak, rng.normal(size=(m, K)))


ALIKE = [
    (Missing("cap"), 0.6),
    (Missing("cap+cai"), 0.6),
    (Missing("cap+cai", prior="batch"), 0.6),
    (Missing("cadr", weighting="weighted"), 0.6),
    (Missing("cadr", weighting="weighted", prior="batch"), 0.6),
    (Missing("cadr"), 0.2),  # all guesses are sure of something: else the correction pulls from those that are
    (Missing("cadr", prior="batch"), 0.2),
]


@pytest.mark.parametrize(("missing", "tau"), ALIKE)
def test_of_classes_alike_it_is_fixmatch(missing: Missing, tau: float) -> None:
    """Equal shares: all weights 1, all thresholds the same, and nothing pulls at the guesses."""
    plain, part = (FixMatch(tau=tau, missing=m).build(info(6, 10)) for m in (Missing(), missing))
    for seed in range(3):
        batches = [balanced(6, 10, seed) for _ in range(2)]
        one, two = step(plain, batches[0]), step(part, batches[1])
        assert one.log["mask"] == two.log["mask"]
        assert float(two.total.detach()) == pytest.approx(float(one.total.detach()), abs=1e-6)
        torch.testing.assert_close(gradients(batches[1]), gradients(batches[0]), rtol=0, atol=1e-6)


def test_of_classes_alike_the_correction_adds_nothing() -> None:
    log = step(FixMatch(tau=0.6, missing=Missing("cadr")).build(info(6, 10)), balanced(6, 10)).log
    assert abs(float(log["loss_dr"])) < 1e-6 and 0 < float(log["mask_dr"]) < 1


@pytest.mark.parametrize("prior", ["batch", "running"])
def test_the_mean_weight_is_1(prior: Any) -> None:
    """All labeled images have the same loss, so that the weighted loss is that loss."""
    rng = np.random.default_rng(1)
    y, weak = np.array([0, 1, 1, 3, 4, 0]), rng.normal(size=(8, K)) * 2
    x = np.stack([np.roll([2.0, 0, 0, 0, 0], k) for k in y])
    missing = Missing("cap", weighting="weighted", prior=prior, momentum=0.0)
    algorithm = FixMatch(missing=missing).build(info(6, 8))
    for _ in range(2):  # the first makes an estimate
        batch = batch_of_logits(x, y, weak, weak)
        log = step(algorithm, batch).log
    assert float(log["loss_x"]) == pytest.approx(oracle.cross_entropies(y, x)[0], rel=1e-6)
    slopes = gradients(batch)[0].flatten(1).norm(dim=1)
    assert slopes.max() > 1.5 * slopes.min(), "the weights differ"


def test_without_information_it_is_fixmatch_bit_for_bit() -> None:
    """One class in labels and guesses of a batch: each weight is 1 exactly, whatever the shares are."""
    rng = np.random.default_rng(0)
    x, weak, strong = (rng.normal(size=(n, K)) for n in (4, 8, 8))
    answers = []
    for missing in (Missing(), Missing("cap", weighting="weighted"), Missing("cap+cai", weighting="weighted", beta=0)):
        batch = batch_of_logits(x, np.full(4, 2), weak, strong)
        losses = step(FixMatch(tau=0.4, missing=missing).build(info(4, 8)), batch)
        answers.append((losses.total.detach(), gradients(batch)))
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=0, atol=0)


def test_cai_without_exponent_is_fixmatch_but_for_ties() -> None:
    weak = np.array([[2.0, 0, 0, 0, 0], [2.5, 0, 0, 0, 0], [1.5, 0, 0, 0, 0]])
    tau = float(torch.tensor(weak[0]).float().softmax(0)[0])
    masks = {}
    for missing in (Missing(), Missing("cai", beta=0.0)):
        algorithm = FixMatch(tau=tau, missing=missing).build(info(1, 3))
        for rows in (weak, weak[[1, 1, 2]]):
            batch = batch_of_logits(weak[:1], np.zeros(1, int), rows, rows)
            masks[missing.name, rows is weak] = round(3 * float(step(algorithm, batch).log["mask"]))
    assert masks == {("none", True): 2, ("none", False): 2, ("cai", True): 1, ("cai", False): 2}


@pytest.mark.parametrize("config", [FixMatch, UDA, PseudoLabeling])
def test_none_is_the_algorithm_itself(config: Any) -> None:
    algorithm = config(missing=Missing("none")).build(info(4, 8))
    assert not algorithm.state_dict() and not list(algorithm.children()) and algorithm.select.tau == 0.95


def test_chained_steps_go_on_from_the_saved_state() -> None:
    config = FixMatch(tau=0.4, missing=Missing("cadr", momentum=0.5))
    whole, first, then = (config.build(info(4, 8)) for _ in range(3))
    batches = [make_batch(s, 4, 8, 2) for s in range(2)]
    expected = [step(whole, b, Plain(48)) for b in batches]
    step(first, batches[0], Plain(48))
    then.load_state_dict(copy.deepcopy(first.state_dict()))
    got = step(then, batches[1], Plain(48))
    torch.testing.assert_close(dict(got.log), dict(expected[1].log), rtol=0, atol=0)
    torch.testing.assert_close(then.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("config", [UDA, PseudoLabeling])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_same_part_of_other_algorithms(config: Any, name: Any) -> None:
    """Labeled loss, estimate and mask of the other algorithm are those of the oracle."""
    rng = np.random.default_rng(4)
    x, weak, strong = (rng.normal(size=(n, K)) * 2 for n in (4, 8, 8))
    y = np.array([0, 1, 1, 4])
    batch = batch_of_logits(x, y, weak, strong)
    batch = batch._replace(u=batch.u[:1]) if config is PseudoLabeling else batch
    missing = Missing(name, momentum=0.5)
    log = step(config(tau=0.6, missing=missing).build(info(4, 8)), batch).log
    how, prior = setting(missing, 0.6), np.full(K, 1 / K)
    assert far_from_edges(how, prior, x, weak)
    fixed = oracle.constants(how, prior, x, y, weak)
    assert float(log["loss_x"]) == pytest.approx(oracle.labeled_loss(how, fixed, x, y, weak), rel=1e-5)
    assert float(log["mask"]) == pytest.approx(fixed.mask.mean()) and 0 < fixed.mask.mean() < 1
    np.testing.assert_allclose(log["prior"], fixed.prior, atol=1e-6)
    slope = oracle.slope(lambda z: oracle.labeled_loss(how, fixed, x, y, z), weak)
    if config is PseudoLabeling:  # which trains the view that it guesses about
        guessed = fixed.mask[:, None] * (oracle.softmax(weak) - np.eye(K)[fixed.labels]) / 8
        slope = slope + guessed  # progress 0.5 is past the ramp
    np.testing.assert_allclose(gradients(batch)[1].flatten(1), slope, atol=2e-6)


# ---- inputs at the edge


def extreme(draw: Any) -> dict[str, Any]:
    """Logits and labels of a batch with something odd about it."""
    b, m = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 9]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))

    def logits(n: int) -> Any:
        kind = draw(st.sampled_from(["ordinary", "all equal", "one class", "certain", "a class never"]))
        z = rng.normal(size=(n, K))
        if kind == "all equal":
            z[:] = 0
        elif kind == "one class":
            z[:] = -1e4
            z[:, rng.integers(K)] = 1e4
        elif kind == "certain":
            z = 1e4 * np.sign(z)
        elif kind == "a class never":
            z[:, rng.integers(K)] = -1e4
        return z

    y = np.full(b, rng.integers(K)) if draw(st.booleans()) else rng.integers(0, K, b)
    return {"x": logits(b), "y": y, "weak": logits(m), "strong": logits(m)}


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(data=st.composite(extreme)(), chosen=st.composite(options)())
def test_all_stays_finite(data: dict[str, Any], chosen: dict[str, Any]) -> None:
    x, y, weak, strong = data["x"], data["y"], data["weak"], data["strong"]
    algorithm = FixMatch(tau=0.7, missing=Missing(**chosen)).build(info(len(y), len(weak)))
    for _ in range(3):
        batch = batch_of_logits(x, y, weak, strong)
        losses = step(algorithm, batch)
        assert all(value.isfinite().all() for value in losses.log.values())
        assert all(grad.isfinite().all() for grad in gradients(batch))
        prior = losses.log["prior"]
        assert float(prior.sum()) == pytest.approx(1, abs=1e-6) and float(prior.min()) >= 0


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(data=st.composite(extreme)(), weighting=st.sampled_from(["released", "weighted", "likelihood"]))
def test_shares_that_vanish_are_the_smallest_float(data: dict[str, Any], weighting: Any) -> None:
    """No weight becomes infinite, and it is what the clamp at the smallest normal float32 makes it."""
    x, y, weak, strong = (np.float64(np.float32(v)) if v.dtype == float else v for v in data.values())
    missing = Missing("cap", prior="batch", weighting=weighting)
    how = setting(missing, 0.95)
    fixed = oracle.constants(how, np.full(K, 1 / K), x, y, weak)
    losses = step(FixMatch(missing=missing).build(info(len(y), len(weak))), batch_of_logits(x, y, weak, strong))
    expected = oracle.labeled_loss(how, fixed, x, y, weak)
    assert float(losses.log["loss_x"]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_share_of_exactly_0_is_the_smallest_float() -> None:
    """Also where many images have that class, each with weight 0: none of them adds a smallest float of its own."""
    first, then = (20_000.0 * np.eye(K)[k] for k in ([0] * 8, [0, 0, 0, 1, 1, 1, 1, 1]))
    x, y = np.zeros((4, K)), np.array([0, 0, 1, 1])
    missing = Missing("cap", momentum=0.0)
    algorithm = FixMatch(missing=missing).build(info(4, 8))
    for weak, prior in ((first, np.full(K, 1 / K)), (then, np.eye(K)[0])):
        fixed = oracle.constants(setting(missing, 0.95), prior, x, y, weak)
        losses = step(algorithm, batch_of_logits(x, y, weak, weak))
        expected = oracle.labeled_loss(setting(missing, 0.95), fixed, x, y, weak)
        assert float(losses.log["loss_x"]) == pytest.approx(expected, abs=1e-4)
    assert expected > 40


class Half(Identity):
    """Whose logits are bfloat16, as those of a net under autocast."""

    def head(self, f: Tensor) -> Tensor:
        return f.bfloat16()


@pytest.mark.parametrize("name", NAMES)
def test_everything_after_bfloat16_logits_is_float32(name: Any) -> None:
    rng = np.random.default_rng(7)
    x, weak, strong = (rng.normal(size=(n, K)) * 2 for n in (6, 9, 9))
    y = rng.integers(0, K, 6)
    missing = Missing(name, momentum=0.5)
    batch, net = batch_of_logits(x, y, weak, strong), Half()
    algorithm = FixMatch(tau=0.6, missing=missing).build(info(6, 9))
    with torch.autocast("cpu", torch.bfloat16):
        losses = algorithm(batch, net, net)
    losses.total.backward()
    x, weak = (torch.tensor(z).bfloat16().double().numpy() for z in (x, weak))
    how, prior = setting(missing, 0.6), np.full(K, 1 / K)
    assert far_from_edges(how, prior, x, weak)
    fixed = oracle.constants(how, prior, x, y, weak)
    assert float(losses.log["loss_x"]) == pytest.approx(oracle.labeled_loss(how, fixed, x, y, weak), rel=1e-5)
    assert float(losses.log["mask"]) == pytest.approx(fixed.mask.mean())
    assert losses.log["prior"].dtype == torch.float32
    np.testing.assert_allclose(losses.log["prior"], fixed.prior, atol=1e-6)
    assert all(grad.isfinite().all() for grad in gradients(batch))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_not_finite_leaves_no_trace(name: Any) -> None:
    """The loop reports a loss that is no number, and lets it pass where fp16 has overflowed: then all is as before."""
    algorithm, other = (FixMatch(tau=0.4, missing=Missing(name, momentum=0.5)).build(info(4, 8)) for _ in range(2))
    batches = [make_batch(s, 4, 8, 2) for s in range(2)]
    step(algorithm, batches[0], Plain(48))
    step(other, batches[0], Plain(48))
    rng = np.random.default_rng(0)
    x, weak, strong = (rng.normal(size=(n, K)) for n in (4, 8, 8))
    for bad in (np.nan, np.inf):
        weak[3, 2] = bad
        broken = step(algorithm, batch_of_logits(x, np.array([0, 1, 1, 2]), weak, strong))
        assert bool(broken.total.isfinite()) == ("cap" not in name and name != "cadr")
    torch.testing.assert_close(algorithm.state_dict(), other.state_dict(), rtol=0, atol=0)
    one, two = (step(a, batches[1], Plain(48)) for a in (algorithm, other))
    torch.testing.assert_close(dict(one.log), dict(two.log), rtol=0, atol=0)


# ---- what is refused


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            lambda: FixMatch(missing=Missing("cap"), bn="separate-weak"),
            "Missing.name cap needs the gradient of the weak views, which FixMatch.bn separate-weak leaves out: "
            "set one of them otherwise",
        ),
        (
            lambda: UDA(missing=Missing("cadr"), bn="separate-weak"),
            "Missing.name cadr needs the gradient of the weak views, which UDA.bn separate-weak leaves out: "
            "set one of them otherwise",
        ),
        (
            lambda: FixMatch(missing=Missing("cap+dr", weighting="likelihood"), teacher="ema"),
            "Missing.name cap+dr needs the gradient of the weak views, which FixMatch.teacher ema leaves out: "
            "set one of them otherwise",
        ),
        (
            lambda: PseudoLabeling(missing=Missing("cai"), broadcast=True),
            "Missing.name cai lowers one confidence threshold class by class, and PseudoLabeling selects its images "
            "in another way: use cap",
        ),
        (lambda: FixMatch(missing=Missing(beta=0.1)), "Missing.beta 0.1 means nothing with Missing.name none"),
        (lambda: FixMatch(missing=Missing(momentum=0.9)), "Missing.momentum 0.9 means nothing with Missing.name none"),
        (lambda: Missing("cap", beta=0.1), "Missing.beta 0.1 means nothing with Missing.name cap"),
        (lambda: Missing("cai", upper=2.0), "Missing.upper 2.0 means nothing with Missing.name cai"),
        (lambda: Missing("cai", prior="batch"), "Missing.prior batch means nothing with Missing.name cai"),
        (
            lambda: Missing("cai", weighting="weighted"),
            "Missing.weighting weighted means nothing with Missing.name cai",
        ),
        (
            lambda: Missing("cap", prior="batch", upper=2.0),
            "Missing.upper 2 means nothing with Missing.prior batch",
        ),
        (
            lambda: Missing("cap+dr", weighting="weighted"),
            "Missing.name cap+dr has no correction with Missing.weighting weighted: use cap",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(config: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        made = config()
        made.build(info(4, 8))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("setting", [{"bn": "separate-weak"}, {"teacher": "ema"}, {"teacher": "ema-batch"}])
@pytest.mark.parametrize("missing", [Missing("cai"), Missing("cadr", weighting="weighted")])
def test_what_needs_no_gradient_goes_with_any_pass(setting: dict[str, Any], missing: Missing) -> None:
    algorithm = FixMatch(tau=0.4, missing=missing, **setting).build(info(4, 8))
    net = Plain(48)
    assert step(algorithm, make_batch(0, 4, 8, 2), net).total.isfinite()
    assert net.a.grad is not None
