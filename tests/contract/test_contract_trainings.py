"""Every algorithm in the training loop: it learns a toy problem, and an interrupted run goes on to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from algorithm_cases import COMBINED, MAIN, QUIET, Case, killed_in, toy, toy_training
from fewlabels.runs.run import Run

LEARNING: dict[str, dict[str, Any]] = {"mixmatch": {"w_match": 10.0}, "realmix": {"w_match": 10.0}}
"""A consistency loss of 100 times the labeled one, as for a million steps, does not let 60 steps begin."""


@pytest.mark.slow
@pytest.mark.parametrize("case", MAIN, ids=[case.name for case in MAIN])
def test_learns_stripes_from_twelve_labels(case: Case, tmp_path: Path) -> None:
    """At least 95 % of 150 test images right; chance is 33.3 %."""
    changes = {"ramp_steps": 60, "tau": 0.8} | LEARNING.get(case.name, {})
    config = replace(case.config, **{k: v for k, v in changes.items() if hasattr(case.config, k)})
    train = toy_training(config, steps=60, log_every=60)
    assert fl.train(train, out=tmp_path / "run", source=toy(), output=QUIET).result["accuracy"] >= 95


def remains(run: Run) -> dict[str, Any]:
    """All that a run leaves, but for what a clock wrote."""
    checkpoint = run.checkpoint()
    records = [{k: v for k, v in r.items() if k not in ("step_ms", "data_ms")} for r in run.metrics()]
    return {"weights": checkpoint.path.joinpath("weights.safetensors").read_bytes(), "records": records}


@pytest.mark.slow
@pytest.mark.parametrize("case", MAIN + COMBINED, ids=[case.name for case in MAIN + COMBINED])
def test_interrupted_and_resumed_is_uninterrupted(case: Case, tmp_path: Path) -> None:
    """Bit for bit; killed in step 6 of 7, resumed at step 4, in the middle of a log window, with dropout."""
    train = toy_training(
        case.config, steps=7, save_every=4, log_every=3, eval_every=7, net=fl.Net("small-4", dropout=0.3)
    )
    whole = fl.train(train, out=tmp_path / "whole", source=toy(), output=QUIET)
    run = killed_in(5, train, tmp_path / "run")
    assert run.checkpoint().step == 4 and len(run.metrics("log")) == 1
    fl.resume(run.path, source=toy(), output=QUIET)
    assert remains(run) == remains(whole)
    state, expected = run.checkpoint().state(), whole.checkpoint().state()
    torch.testing.assert_close(state, expected, rtol=0, atol=0, equal_nan=True)
