"""CADR's losses, and three training steps of it, against JoyHuYY1412/CADR-FixMatch; each JSON file beside this one may
hold more of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import STEPS, Run, batch, entries
from torch import Tensor

from fewlabels.algorithms import FixMatch, Missing
from fewlabels.algorithms.functional import (
    cosine,
    cross_entropy,
    inverse_weights,
    log_importance,
    log_shares,
)
from fewlabels.inference.metrics import geometric_mean
from fewlabels.types import Info

CASES = entries("cadr_loss").get("cases", {})
RUNS = entries("cadr_trajectories").get("runs", {})
KNOWN = {"CAP", "CAI", "CADR", "CAP_EMA", "CAP_EMA_momentum", "CAI_beta", "upper"}


def angles(rows: int, factor: float, shift: float) -> Tensor:
    index = np.arange(rows * 5, dtype=np.float64).reshape(rows, 5)
    return torch.from_numpy((3 * np.sin(factor * index + shift)).astype(np.float32))


@pytest.mark.parametrize("name", CASES)
def test_losses(name: str) -> None:
    golden, flags = CASES[name], dict(part.split("=") for part in name.split(","))
    assert set(flags) <= {"CAP_EMA", "upper"}, f"unknown flags in {name}"
    x, weak = angles(8, 0.731, 0.2), angles(24, 1.137, 0.9).requires_grad_()
    y = torch.arange(8) * 3 % 5
    log_probs = weak.log_softmax(1)
    weights = None
    if flags["CAP_EMA"] == "True":
        prior = torch.tensor([0.35, 0.25, 0.2, 0.15, 0.05])
        weights = inverse_weights(prior, log_probs.exp(), float(flags["upper"]))
    shares = log_shares(log_probs, weights)
    usual = cross_entropy(x, y)
    np.testing.assert_allclose(usual, golden["ce"], atol=1e-5)
    losses = usual - log_importance(shares, y)
    np.testing.assert_allclose(losses.detach(), golden["cap_loss"], atol=1e-5)
    correction = log_importance(shares, x.argmax(1))
    np.testing.assert_allclose(correction.detach(), golden["cadr_aug"], atol=1e-5)
    for value, expected in ((losses, "grad_weak"), (correction, "grad_weak_of_mean_aug")):
        (gradient,) = torch.autograd.grad(value.mean(), weak, retain_graph=True)
        np.testing.assert_allclose(gradient, golden[expected], atol=1e-6, err_msg=expected)


def missing(flags: dict[str, Any]) -> Missing:
    assert set(flags) <= KNOWN, f"unknown flags {set(flags) - KNOWN}"
    parts = [{"CADR": "dr"}.get(n, n.lower()) for n in ("CAP", "CAI", "CADR") if flags.get(n)]
    names = {"": "none", "dr": "none", "cai+dr": "cai", "cap+cai+dr": "cadr"}  # without CAP, CADR does nothing
    name = names.get("+".join(parts), "+".join(parts))
    options: dict[str, Any] = {} if name == "none" else {"momentum": flags.get("CAP_EMA_momentum", 0.9)}
    if "cap" in parts:
        options |= {"prior": "running" if flags.get("CAP_EMA", True) else "batch"}
        options |= {"upper": flags["upper"]} if "upper" in flags else {}
    if "CAI_beta" in flags and name in ("cai", "cap+cai", "cap+dr", "cadr"):
        options["beta"] = flags["CAI_beta"]
    return Missing(name, **options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_trajectory(name: str) -> None:
    golden = RUNS[name]
    config = FixMatch(tau=0.5, missing=missing(golden["flags"]))
    info = Info(10, (3, 32, 32), 64, torch.full((10,), 4), 50_000, STEPS, 4, 16)
    run = Run(
        entries("trajectories")["fixmatch_3steps"]["config"], list(golden["param_sums_after"]), config.build(info)
    )
    for step, expected in enumerate(golden["steps"]):
        losses, decay, lr = run.step(batch(step, 16), cosine, step)
        log = {key: value.tolist() for key, value in losses.log.items()}
        ours = {
            "losses/xe": log["loss_x"],
            "losses/xe_aug": log.get("loss_dr"),
            "monitors/mask_aug": log.get("mask_dr"),
            "losses/xeu": log["loss_u"],
            "monitors/mask": log["mask"],
            "monitors/lr": lr,
            "losses/wd": decay,
            "p_ema_after": log.get("prior"),
        }
        if config.missing.name == "none":  # the original keeps the estimate in all its modes
            del ours["p_ema_after"]
            expected = {key: value for key, value in expected.items() if key != "p_ema_after"}
        ours = {key: value for key, value in ours.items() if value is not None}
        assert set(ours) == set(expected)
        for key, value in expected.items():
            tolerance = {"losses/wd": 1e-3, "p_ema_after": 1e-5, "monitors/lr": 1e-8}.get(key, 1e-4)
            np.testing.assert_allclose(ours[key], value, atol=tolerance, err_msg=f"{key} at step {step}")
    for (key, expected), p in zip(golden["param_sums_after"].items(), run.parameters, strict=True):
        assert float(p.detach().double().sum()) == pytest.approx(expected, abs=5e-3), key


def test_all_modes_are_there() -> None:
    assert len(CASES) >= 4
    assert {missing(run["flags"]).name for run in RUNS.values()} >= {"none", "cap", "cai", "cap+dr", "cadr"}


def test_geometric_mean() -> None:
    golden = entries("geometric_mean")
    assert geometric_mean(golden["per_class"]) == pytest.approx(golden["gm"], rel=1e-6)
