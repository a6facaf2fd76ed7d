"""Three training steps against google-research/fixmatch: losses, weights, batch-norm statistics, averages.

Each JSON file beside this one may hold trajectories, and all of them are run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden_recipe import STEPS, Run, batch, entries, images, statistics
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
    ReMixMatch,
    vat,
)
from fewlabels.algorithms.functional import annealed, cosine
from fewlabels.runtime.rng import Rng
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


class Draws(Rng):
    """In place of a batch's random numbers: the Beta draws of the recipe."""

    def __init__(self) -> None:
        super().__init__(0, 0)

    def beta(self, purpose: str, a: float, b: float, rows: int) -> torch.Tensor:
        return torch.tensor([0.3, 0.9, 0.55, 0.1])


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
}

TRAJECTORIES = entries("trajectories")


def predictions(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(x).softmax(1).numpy()


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
    info = Info(10, (3, 32, 32), features, counts, 50_000, STEPS, flags["batch"], unlabeled)
    algorithm = case.build(flags).build(info)
    run = Run(flags, list(golden["params_after"]), algorithm, adam=case.adam)
    # Steps along directions that rounding decides about: with the instruction sets AVX2, AVX-512 and neither, losses
    # are off by up to 4e-4, sums of parameters by 1.2e-2. What such an algorithm computes is for its oracle to say.
    loose = 10 if case.noisy else 1

    for step, expected in enumerate(golden["steps"]):
        given = batch(step, unlabeled, case.views)
        given = given._replace(u=given.u[: len(algorithm.views.unlabeled)], rng=Draws())
        losses, decay, lr = run.step(given, cosine, step)
        compared = set(case.log)
        if not case.adam:
            compared |= {"monitors/lr", "losses/wd"}
            assert lr == pytest.approx(expected["monitors/lr"], rel=1e-6)
            assert decay == pytest.approx(expected["losses/wd"], rel=1e-6)
        assert set(expected) - {case.noisy} == compared, "a logged value is not compared"
        for theirs, ours in case.log.items():
            assert float(losses.log[ours]) == pytest.approx(expected[theirs], abs=1e-4 * loose), (step, theirs)

    def drifts(key: str) -> bool:
        """Convolutions' biases have gradients of rounding errors, which Adam makes into steps, and batch norm's
        means move with them."""
        return case.adam and (("conv2d" in key and "bias" in key) or "moving_mean" in key)

    for (key, expected), p in zip(golden["params_after"].items(), run.parameters, strict=True):
        if drifts(key):
            continue
        assert float(p.detach().double().sum()) == pytest.approx(expected["sum"], abs=5e-3 * loose), key
        assert float(p.detach().double().abs().sum()) == pytest.approx(expected["abssum"], abs=5e-3 * loose), key
    for (key, expected), shadow in zip(golden["ema_after"].items(), run.ema, strict=True):
        assert float(shadow.double().sum()) == pytest.approx(expected["sum"], abs=5e-4 * loose), key
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


@pytest.mark.parametrize("schedule", ["linear", "exp", "log"])
def test_annealing_schedule(schedule: str) -> None:
    rows = entries("schedules")["uda_tsa_nclass10_tsapos8"]
    assert len(rows) == 5
    for row in rows:
        share = torch.tensor(row["step_images"] / 64 / UDA().tsa_ramp)
        assert float(annealed(share, schedule, 10)) == pytest.approx(row[schedule], rel=1e-6)
        assert row["no"] == 1
