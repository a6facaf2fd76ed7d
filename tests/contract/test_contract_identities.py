"""Where one method's special case is another method: the same loss and the same gradients on the same images."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import fewlabels as fl
from algorithm_cases import CASES, MAIN, SHAPE, K, build, info, make_batch, opinionated, starts_low, with_heads
from fewlabels.algorithms import (
    ICT,
    UDA,
    VAT,
    FixMatch,
    Imbalance,
    MeanTeacher,
    Missing,
    MixMatch,
    MixUp,
    OpenSet,
    PiModel,
    PseudoLabeling,
    ReMixMatch,
    Supervised,
    SupervisedMixUp,
)
from fewlabels.algorithms.imbalance import USERS
from fewlabels.algorithms.mixing import Mix
from fewlabels.nets import SmallCNN
from fewlabels.types import Batch

ROWS = 5
BARELY = 1e-7
"""As the parameter of a Beta distribution: every share is 0 or 1, and nothing is mixed."""


def batch_for(config: Any, *, equal_views: bool = False, progress: float = 0.5) -> Batch:
    batch = make_batch(build(config, info(ROWS, ROWS)), ROWS, ROWS, progress=progress)
    return batch._replace(u=batch.u[:1] * len(batch.u)) if equal_views else batch


def normalised(seed: int) -> nn.Module:
    """A net with batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallCNN(K, SHAPE[0], width=6)


def outcome(
    config: Any, batch: Batch, ema: nn.Module | None = None, *, norm: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradient of each weight of the net."""
    net, ema = normalised(0) if norm else opinionated(), ema or opinionated(seed=1).eval()
    algorithm = build(config, info(ROWS, ROWS))
    loss = algorithm(batch, *(with_heads(each, algorithm) for each in (net, ema))).total
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in net.named_parameters()}


def same(
    one: Any,
    two: Any,
    batch: Batch,
    *,
    other: Batch | None = None,
    ema: nn.Module | None = None,
    norm: bool = False,
) -> None:
    """`one` on `batch` is `two` on `other` (default: on `batch`)."""
    found, expected = outcome(one, batch, ema, norm=norm), outcome(two, other or batch, ema, norm=norm)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def own_average() -> nn.Module:
    """An average with the weights of the net."""
    return copy.deepcopy(opinionated()).eval()


def has(config: Any, *names: str) -> bool:
    return any(field.name in names for field in fields(config))


def untouched(config: Any) -> bool:
    """Whether the labeled loss is the supervised one: no labeled image is mixed, smoothed, tempered, left out or seen
    twice."""
    unmixed = not has(config, "beta") or isinstance(config, ICT) or getattr(config, "mix", "x.").startswith(".")
    missing = getattr(config, "missing", Missing())
    unweighted = missing.name == "none" or missing.weighting == "weighted"  # of equal shares, as at the start
    plain = getattr(config, "tsa", "none") == "none" and getattr(config, "loss_temperature", 1) == 1
    once = len(build(config, info(ROWS, ROWS)).views.labeled) == 1
    return unmixed and unweighted and plain and once


BESIDE = (
    *("w_fairness", "lambda_c", "lambda_in", "lambda_h", "w_negative", "w_meaning"),
    *("w_shrink", "w_distance", "w_rotation", "w_srm", "w_cam", "w_ova", "w_open"),
)
"""Weights of terms that count whatever the threshold is."""
WEIGHTS = ("weight", "lambda_u", "w_match", "w_kl", "w_rot", "w_entropy", *BESIDE)
PLAIN = [case for case in CASES if untouched(case.config)]


OTHERWISE = {"adamatch", "refixmatch"}
"""Whose `tau` is a share of another confidence, or below which images count, too."""


def without_parts_losses(config: Any) -> Any:
    """The configuration with a weight of 0 for what a part adds to the loss."""
    imbalance, openset = getattr(config, "imbalance", Imbalance()), getattr(config, "openset", OpenSet())
    if openset.name == "ova":
        config = replace(config, openset=replace(openset, weight=0.0, entropy=0.0))
    if imbalance.name not in USERS["weight"]:
        return config
    return replace(config, imbalance=replace(imbalance, weight=0.0))


FIXED = [
    case
    for case in PLAIN
    if has(case.config, "tau") and not starts_low(case.config) and case.config.name not in OTHERWISE
]


@pytest.mark.parametrize("case", FIXED, ids=lambda case: case.name)
def test_a_threshold_that_nobody_passes_gives_the_supervised_loss(case: Any) -> None:
    config = replace(case.config, tau=1.0, **{name: 0.0 for name in BESIDE if has(case.config, name)})
    config = without_parts_losses(config)
    same(config, Supervised(), batch_for(config))


@pytest.mark.parametrize("case", [case for case in PLAIN if has(case.config, *WEIGHTS)], ids=lambda case: case.name)
def test_weights_of_zero_give_the_supervised_loss(case: Any) -> None:
    config = replace(case.config, **{name: 0.0 for name in WEIGHTS if has(case.config, name)})
    config = without_parts_losses(config)
    same(config, Supervised(), batch_for(config))


RAMPED = [case for case in PLAIN if getattr(case.config, "ramp", 0) or has(case.config, "ramp_steps")]


@pytest.mark.parametrize("case", RAMPED, ids=lambda case: case.name)
def test_a_ramp_starts_with_the_supervised_loss(case: Any) -> None:
    config = replace(case.config, **{name: 0.0 for name in ("w_rot", "w_entropy") if has(case.config, name)})
    same(config, Supervised(), batch_for(config, progress=0.0))


def test_every_algorithm_has_an_identity() -> None:
    """Those that have no weight to set to 0 have their own tests below."""
    covered = {case.config.name for case in PLAIN if has(case.config, *WEIGHTS)}
    assert covered | {"supervised", "supervised-mixup", "mixup", "frozen", "defixmatch"} == {case.name for case in MAIN}


def test_mixup_that_hardly_mixes() -> None:
    batch = batch_for(MixUp())
    same(SupervisedMixUp(beta=BARELY), Supervised(), batch)
    labeled = SupervisedMixUp(beta=0.5).build(info(ROWS, ROWS))(batch, opinionated(), opinionated()).log["loss_x"]
    both = MixUp(beta=0.5).build(info(ROWS, ROWS))(batch, opinionated(), opinionated()).log["loss_x"]
    torch.testing.assert_close(both, labeled, rtol=1e-6, atol=0)
    # unmixed: every unlabeled image teaches what is believed of it already
    same_gradients = outcome(MixUp(beta=BARELY), batch)[1], outcome(Supervised(), batch)[1]
    torch.testing.assert_close(*same_gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mix", get_args(Mix))
def test_mixmatch_that_hardly_mixes_mixes_nothing(mix: str) -> None:
    batch = batch_for(MixMatch())
    for cls in (MixMatch, ReMixMatch):
        same(cls(mix=mix, beta=BARELY, ramp_steps=4), cls(mix=".", ramp_steps=4), batch)


@pytest.mark.parametrize("mix", get_args(Mix))
def test_remixmatch_without_its_additions_is_mixmatch(mix: str) -> None:
    settings: dict[str, Any] = {"mix": mix, "beta": 0.6, "w_match": 7.0, "temperature": 0.7, "ramp_steps": 8}
    old = MixMatch(**settings)
    new = ReMixMatch(**settings, w_kl=0.0, w_rot=0.0, align=False, use_xe=False, redux="mean")
    same(new, old, batch_for(old))


@pytest.mark.parametrize("norm", [False, True])
def test_ict_that_hardly_mixes_is_mean_teacher_with_one_view(norm: bool) -> None:
    batch = batch_for(MeanTeacher(), equal_views=True)
    ict, teacher = ICT(beta=BARELY, weight=9.0), MeanTeacher(weight=9.0)
    same(ict, teacher, batch._replace(u=batch.u[:1]), other=batch, ema=normalised(1).eval(), norm=norm)


def test_a_teacher_with_the_weights_of_the_net_is_the_net() -> None:
    ema = own_average()
    same(MeanTeacher(weight=9.0), PiModel(weight=9.0), batch_for(PiModel()), ema=ema)
    for teacher in ("ema", "ema-batch"):
        same(FixMatch(tau=0.45, teacher=teacher), FixMatch(tau=0.45), batch_for(FixMatch()), ema=ema)


def test_the_mode_of_a_teacher_is_that_of_its_norm_layers() -> None:
    running, own = (FixMatch(tau=0.0, target="soft", teacher=teacher) for teacher in ("ema", "ema-batch"))
    same(running, own, batch_for(own))
    ema = normalised(1).eval()
    assert outcome(running, batch_for(own), ema, norm=True)[0] != outcome(own, batch_for(own), ema, norm=True)[0]


@pytest.mark.parametrize("anchoring", ["weak.weak", "strong.weak", "strong.strong"])
def test_anchoring_only_chooses_views(anchoring: Any) -> None:
    config = FixMatch(tau=0.45, anchoring=anchoring)
    assert build(config, info()).views == fl.Views(("weak",), tuple(anchoring.split(".")))
    same(config, FixMatch(tau=0.45), batch_for(config))


@pytest.mark.parametrize("tau", [0.0, 0.45])
def test_pseudo_label_is_fixmatch_with_one_view(tau: float) -> None:
    batch = batch_for(FixMatch(), equal_views=True)
    one = batch._replace(u=batch.u[:1])
    same(PseudoLabeling(tau=tau, weight=2.0, ramp=0.0), FixMatch(tau=tau, lambda_u=2.0), one, other=batch)


def test_pseudo_label_takes_no_slip_when_all_are_confident() -> None:
    batch = batch_for(PseudoLabeling())
    same(PseudoLabeling(tau=0.0, broadcast=True), PseudoLabeling(tau=0.0), batch)


@pytest.mark.parametrize("temperature", [0.4, 1.0])
def test_uda_has_the_gradients_of_fixmatch_with_soft_labels(temperature: float) -> None:
    """The divergence is the cross-entropy less the entropy of its target."""
    batch = batch_for(FixMatch())
    uda = outcome(UDA(tau=0.45, temperature=temperature), batch)
    fixmatch = outcome(FixMatch(tau=0.45, target="soft", temperature=temperature), batch)
    torch.testing.assert_close(uda[1], fixmatch[1], rtol=1e-4, atol=1e-5)
    assert uda[0] < fixmatch[0]


def test_uda_that_sharpens_to_certainty_is_fixmatch() -> None:
    same(UDA(tau=0.45, temperature=1e-3), FixMatch(tau=0.45), batch_for(FixMatch()))


def test_uda_ends_its_annealing() -> None:
    config = UDA(tau=0.45, tsa="linear", tsa_ramp=1)  # the threshold has grown to 1
    same(config, UDA(tau=0.45), batch_for(config))


COMPARING = [FixMatch(tau=0.0, target="soft"), UDA(tau=0.0), PiModel(), MeanTeacher()]


@pytest.mark.parametrize("config", COMPARING, ids=lambda config: config.name)
def test_equal_views_teach_nothing(config: Any) -> None:
    """What is compared with itself moves no weight beyond the supervised step."""
    batch = batch_for(config, equal_views=True)
    found, expected = outcome(config, batch, own_average()), outcome(Supervised(), batch)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-5)


def test_vat_that_changes_nothing_is_supervised() -> None:
    config = VAT(eps=1e-6, w_entropy=0.0)
    same(config, Supervised(), batch_for(config))


def test_label_smoothing_of_zero_and_one() -> None:
    batch = batch_for(Supervised())
    flat = outcome(Supervised(smoothing=1.0), batch)
    same(Supervised(smoothing=1.0), Supervised(smoothing=1.0), batch, other=batch._replace(y=(batch.y + 1) % K))
    assert not torch.equal(flat[0], outcome(Supervised(), batch)[0])


@pytest.mark.parametrize("config", [FixMatch(tau=0.4), FixMatch(tau=0.4, target="soft"), UDA(tau=0.4, tsa="linear")])
def test_a_pass_apart_differs_in_the_statistics_only(config: Any) -> None:
    """The same without batch norm; with it another loss, and running statistics that have not seen the weak views."""
    batch, apart = batch_for(config), replace(config, bn="separate-weak")
    same(config, apart, batch)
    assert not torch.equal(outcome(config, batch, norm=True)[0], outcome(apart, batch, norm=True)[0])
    seen = []
    for weak in (batch.u[0], batch.u[0] + 1):
        net = normalised(0)
        build(apart, info(ROWS, ROWS))(batch._replace(u=(weak, batch.u[1])), net, opinionated().eval())
        seen.append([buffer.clone() for buffer in net.buffers()])
    for mine, other in zip(*seen, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    "config", [FixMatch(bn="separate-weak", teacher="ema"), UDA(bn="separate-weak", w_entropy=0.1)]
)
def test_a_pass_apart_that_cannot_be(config: Any) -> None:
    with pytest.raises(ValueError, match=rf"{type(config).__name__}.bn separate-weak .*: set one of them otherwise$"):
        build(config, info(ROWS, ROWS))
