"""Three training steps against google-research/fixmatch and RealMix: losses, weights, batch-norm statistics, averages.

Each JSON file beside this one may hold trajectories, and all of them are run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden_recipe import STEPS, Draws, Run, batch, entries, images, statistics
from torch import nn

from fewlabels.algorithms import (
    ICT,
    UDA,
    VAT,
    FixMatch,
    MeanTeacher,
    MixMatch,
    MixUp,
    PiModel,
    PseudoLabeling,
    RealMix,
    ReMixMatch,
    realmix,
    vat,
)
from fewlabels.algorithms.functional import annealed, cosine
from fewlabels.types import Info


class Case(NamedTuple):
    build: Callable[[dict[str, Any]], Any]
    """The golden entry's flags to our configuration."""
    log: dict[str, str]
    """The original's names of logged values to ours."""
    views: int = 2
    """Unlabeled views of the original's batch."""
    adam: bool = False
    """Trained by Adam with decoupled decay."""
    noisy: str | None = None
    """A logged value of the original that rounding decides about."""
    before: bool = False
    """Logged before a step's weight decay, which Adam's algorithms otherwise begin with."""
    optional: frozenset[str] = frozenset()
    """Logged values that the original has with some flags only."""
    steps: Callable[[dict[str, Any]], int] = lambda flags: STEPS
    """Of the whole training."""
    sums: float = 5e-3
    """How far the sums of the parameters may be off."""


CASES = {  # by the original's class; a trajectory of another one needs a line here
    "PseudoLabel": Case(
        lambda flags: PseudoLabeling(
            tau=flags["threshold"], weight=flags["consistency_weight"], ramp=flags["warmup_pos"], broadcast=True
        ),
        {"losses/xe": "loss_x", "losses/pl": "loss_u"},
        views=1,
    ),
    "PiModel": Case(
        lambda flags: PiModel(weight=flags["consistency_weight"], ramp=flags["warmup_pos"]),
        {"losses/xe": "loss_x", "losses/pm": "loss_u"},
    ),
    "MeanTeacher": Case(
        lambda flags: MeanTeacher(weight=flags["consistency_weight"], ramp=flags["warmup_pos"]),
        {"losses/xe": "loss_x", "losses/mt": "loss_u"},
    ),
    "VAT": Case(
        lambda flags: VAT(
            weight=flags["vat"], eps=flags["vat_eps"], w_entropy=flags["entmin_weight"], ramp=flags["warmup_pos"]
        ),
        {"losses/xe": "loss_x", "losses/entmin": "entropy"},
        views=1,
        adam=True,
        noisy="losses/vat",
    ),
    "ICT": Case(
        lambda flags: ICT(beta=flags["beta"], weight=flags["consistency_weight"], ramp=flags["warmup_pos"]),
        {"losses/xe": "loss_x", "losses/mt": "loss_u"},
        adam=True,
    ),
    "Mixup": Case(
        lambda flags: MixUp(beta=flags["beta"]), {"losses/xe": "loss_x", "losses/xeu": "loss_u"}, views=1, adam=True
    ),
    "UDA": Case(
        lambda flags: UDA(
            tau=flags["confidence"],
            lambda_u=flags["wu"],
            w_entropy=flags["we"],
            temperature=flags["temperature"],
            tsa=flags["tsa"],
            tsa_ramp=2 ** (14 + flags["tsa_pos"] - 6),
        ),
        {
            "losses/xe": "loss_x",
            "losses/xeu": "loss_u",
            "losses/entropy": "entropy",
            "losses/mask_sup": "mask_sup",
            "monitors/mask": "mask",
            "monitors/conf_weak": "confidence",
            "monitors/conf_strong": "confidence_strong",
        },
    ),
    "FixMatch": Case(
        lambda flags: FixMatch(tau=flags["confidence"], lambda_u=flags["wu"]),
        {"losses/xe": "loss_x", "losses/xeu": "loss_u", "monitors/mask": "mask"},
    ),
    "MixMatch": Case(
        lambda flags: MixMatch(beta=flags["beta"], w_match=flags["w_match"], mix=flags["mixmode"]),
        {"losses/xe": "loss_x", "losses/l2u": "loss_u"},
    ),
    "ReMixMatch": Case(
        lambda flags: ReMixMatch(
            beta=flags["beta"],
            w_kl=flags["w_kl"],
            w_match=flags["w_match"],
            w_rot=flags["w_rot"],
            strong_views=flags["K"],
            use_xe=flags["use_xe"],
            align=flags["use_dm"],
            redux=flags["redux"],
            mix=flags["mixmode"],
        ),
        {"losses/xe": "loss_x", "losses/xeu": "loss_u", "losses/kl": "loss_kl", "losses/rot": "loss_rot"},
    ),
    "RealMix": Case(
        lambda flags: RealMix(
            beta=flags["beta"],
            w_match=flags["w_match"],
            ramp_steps=flags["warmup_kimg"] * 1024 // 64,
            mix=flags["mixmode"],
            tsa=flags["tsa"].removesuffix("_schedule"),
            tsa_on="logits",
            percent_mask=max(flags["percent_mask"], 0),
        ),
        {
            "losses/xe": "loss_x",
            "losses/l2u": "loss_u",
            "losses/overall": "loss",
            "losses/min_unsup_prob": "confidence_min",
            "losses/mean_unsup_prob": "confidence_mean",
            "losses/max_unsup_prob": "confidence_max",
            "losses/high_prob_ratio": "mask_mixed",
            "losses/percent_confidence_mask": "threshold_mixed",
        },
        adam=True,
        before=True,
        optional=frozenset({"losses/high_prob_ratio", "losses/percent_confidence_mask"}),
        steps=lambda flags: flags["train_kimg"] * flags["epochs"] // 64,
        sums=1e-2,
    ),
}

TRAJECTORIES = entries("trajectories")

ASIDE = {"step", "masks", "after_first_update", "ema_after_first_update"}
"""What an entry may have beside logged values."""


def predictions(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(x).softmax(1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vat, "noise", lambda like, rng: images(77, 4, 32, 32, 3))
    golden = TRAJECTORIES[name]
    flags = golden["config"]
    assert flags["cls"] in CASES, f"no case for the class {flags['cls']}"
    case = CASES[flags["cls"]]
    unlabeled = flags["batch"] * flags.get("uratio", 1)
    features = flags["filters"] << (flags["scales"] - 1)
    counts = torch.full((10,), 4)
    steps = case.steps(flags)
    info = Info(10, (3, 32, 32), features, counts, 50_000, steps, flags["batch"], unlabeled)
    algorithm = case.build(flags).build(info)
    run = Run(flags, list(golden["params_after"]), algorithm, adam=case.adam)
    # Steps along directions that rounding decides about: with the instruction sets AVX2, AVX-512 and neither, losses
    # are off by up to 4e-4, sums of parameters by 1.2e-2. What such an algorithm computes is for its oracle to say.
    loose = 10 if case.noisy else 1

    def drifts(key: str) -> bool:
        """Convolutions' biases have gradients of rounding errors, which Adam makes into steps, and batch norm's
        means move with them."""
        return case.adam and (("conv2d" in key and "bias" in key) or "moving_mean" in key)

    def same_weights(entry: dict[str, Any]) -> None:
        for (key, expected), p in zip(entry.items(), run.parameters, strict=True):
            if not drifts(key):
                p = p.detach().double()
                found = {"sum": float(p.sum()), "abssum": float(p.abs().sum())}
                assert {name: found[name] for name in expected} == pytest.approx(expected, abs=case.sums * loose), key

    def same_averages(entry: dict[str, Any]) -> None:
        for (key, expected), shadow in zip(entry.items(), run.ema, strict=True):
            assert float(shadow.double().sum()) == pytest.approx(expected["sum"], abs=5e-4 * loose), key

    masks: dict[int, list[float]] = {}
    mean = realmix.masked_mean
    monkeypatch.setattr(realmix, "masked_mean", lambda x, m: masks.update({len(m): m.tolist()}) or mean(x, m))

    for step, expected in enumerate(golden["steps"]):
        given = batch(step, unlabeled, case.views, steps)
        given = given._replace(u=given.u[: len(algorithm.views.unlabeled)], rng=Draws(golden))
        before = algorithm(given, copy.deepcopy(run.net).train(), run.ema_net) if case.before else None
        shown = dict(masks)
        losses, decay, lr = run.step(given, cosine, step)
        losses = before or losses
        assert expected.get("step", step * 64) == step * 64
        for mask in expected.get("masks", []):
            assert shown[len(mask)] == mask
        if "after_first_update" in expected:
            same_weights(expected["after_first_update"])
            same_averages(expected["ema_after_first_update"])
        compared = set(case.log) - (case.optional - set(expected)) | (ASIDE & set(expected))
        if not case.adam:
            compared |= {"monitors/lr", "losses/wd"}
            assert lr == pytest.approx(expected["monitors/lr"], rel=1e-6)
            assert decay == pytest.approx(expected["losses/wd"], rel=1e-6)
        assert set(expected) - {case.noisy} == compared, "a logged value is not compared"
        for theirs, ours in case.log.items():
            if theirs not in compared:
                continue
            assert float(losses.log[ours]) == pytest.approx(expected[theirs], abs=1e-4 * loose), (step, theirs)

    same_weights(golden["params_after"])
    same_averages(golden["ema_after"])
    ours = statistics(run.net)
    assert ours.keys() == golden["bn_after"].keys()
    for key, values in golden["bn_after"].items():
        if drifts(key):
            continue
        np.testing.assert_allclose(ours[key][: len(values)].numpy(), values, atol=2e-5 * loose, err_msg=key)

    (x,) = batch(0, unlabeled, case.views).x
    raw, averaged = (2e-2 if case.adam else 1e-3) * loose, 1e-3 * loose
    np.testing.assert_allclose(predictions(run.net, x), golden["classify_raw_on_xt"], atol=raw)
    np.testing.assert_allclose(predictions(run.ema_model(), x), golden["classify_ema_on_xt"], atol=averaged)


def test_every_algorithm_has_a_trajectory() -> None:
    """But Mean Teacher, of which there are no numbers yet."""
    assert {entry["config"]["cls"] for entry in TRAJECTORIES.values()} >= set(CASES) - {"MeanTeacher"}


def test_cosine_schedule() -> None:
    rows = entries("schedules")["lr_cosine"]
    assert len(rows) == 6
    for row in rows:
        step = row["step_images"] // 64
        assert cosine(step, STEPS) == pytest.approx(row["lr_over_base"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "exp", "log"])
def test_annealing_schedule(schedule: str) -> None:
    rows = entries("schedules")["uda_tsa_nclass10_tsapos8"]
    assert len(rows) == 5
    for row in rows:
        share = torch.tensor(row["step_images"] / 64 / UDA().tsa_ramp)
        assert float(annealed(share, schedule, 10)) == pytest.approx(row[schedule], rel=1e-6)
        assert row["no"] == 1
