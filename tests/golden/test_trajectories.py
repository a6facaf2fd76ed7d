"""Three training steps against google-research/fixmatch: losses, weights, batch-norm statistics, averages.

Each JSON file beside this one may hold trajectories; those whose class is in `CASES` are run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden_recipe import STEPS, Run, batch, entries, statistics
from torch import nn

from fewlabels.algorithms import FixMatch, MixMatch, ReMixMatch
from fewlabels.functional import cosine
from fewlabels.types import Info


class Case(NamedTuple):
    build: Callable[[dict[str, Any]], Any]
    """The golden entry's flags to our configuration."""
    log: dict[str, str]
    """The original's names of logged values to ours."""
    views: int = 2


CASES = {
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

TRAJECTORIES = {name: entry for name, entry in entries("trajectories").items() if entry["config"]["cls"] in CASES}


def predictions(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(x).softmax(1).numpy()


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory(name: str) -> None:
    golden = TRAJECTORIES[name]
    flags = golden["config"]
    case = CASES[flags["cls"]]
    unlabeled = flags["batch"] * flags.get("uratio", 1)
    features = flags["filters"] << (flags["scales"] - 1)
    counts = torch.full((10,), 4)
    info = Info(10, (3, 32, 32), features, counts, 50_000, STEPS, flags["batch"], unlabeled)
    run = Run(flags, list(golden["params_after"]), case.build(flags).build(info))

    for step, expected in enumerate(golden["steps"]):
        losses, decay, lr = run.step(batch(step, unlabeled, case.views), cosine, step)
        assert lr == pytest.approx(expected["monitors/lr"], rel=1e-6)
        assert decay == pytest.approx(expected["losses/wd"], rel=1e-6)
        assert set(expected) - {"monitors/lr", "losses/wd"} == set(case.log), "a logged value is not compared"
        for theirs, ours in case.log.items():
            assert float(losses.log[ours]) == pytest.approx(expected[theirs], abs=1e-4), (step, theirs)

    for (key, expected), p in zip(golden["params_after"].items(), run.parameters, strict=True):
        assert float(p.detach().double().sum()) == pytest.approx(expected["sum"], abs=5e-3), key
        assert float(p.detach().double().abs().sum()) == pytest.approx(expected["abssum"], abs=5e-3), key
    for (key, expected), shadow in zip(golden["ema_after"].items(), run.ema, strict=True):
        assert float(shadow.double().sum()) == pytest.approx(expected["sum"], abs=5e-4), key
    ours = statistics(run.net)
    assert ours.keys() == golden["bn_after"].keys()
    for key, values in golden["bn_after"].items():
        np.testing.assert_allclose(ours[key][: len(values)].numpy(), values, atol=2e-5, err_msg=key)

    (x,) = batch(0, unlabeled, case.views).x
    np.testing.assert_allclose(predictions(run.net, x), golden["classify_raw_on_xt"], atol=1e-3)
    np.testing.assert_allclose(predictions(run.ema_model(), x), golden["classify_ema_on_xt"], atol=1e-3)


def test_every_algorithm_has_a_trajectory() -> None:
    assert {entry["config"]["cls"] for entry in TRAJECTORIES.values()} == set(CASES)


def test_cosine_schedule() -> None:
    rows = entries("schedules")["lr_cosine"]
    assert len(rows) == 6
    for row in rows:
        step = row["step_images"] // 64
        assert cosine(step, STEPS) == pytest.approx(row["lr_over_base"], abs=1e-9)
