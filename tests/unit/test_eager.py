"""Optimizers without torch's wrappers for compiled code: its own numbers, and a training that loads no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.runtime.eager import eager

KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.1, "betas": (0.9, 0.99)}),
    "adamw": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    "lbfgs": (torch.optim.LBFGS, {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
}


def steps(make: Callable[..., torch.optim.Optimizer], n: int, resume: int = -1) -> torch.Tensor:
    """Weights after `n` steps on a quadratic; after step `resume` the state goes over into a new optimizer."""
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    goal, scale = torch.arange(12.0).view(3, 4), torch.linspace(1, 2, 12).view(3, 4)
    optimizer = make([weight])

    def loss() -> float:
        optimizer.zero_grad()
        value = (scale * (weight - goal).square()).sum()
        value.backward()
        return float(value.detach())

    for i in range(n):
        optimizer.step(loss)
        if i == resume:
            state = optimizer.state_dict()
            optimizer = make([weight])
            optimizer.load_state_dict(state)
    return weight.detach().clone()


@pytest.mark.parametrize("name", KINDS)
def test_the_numbers_are_those_of_torch(name: str) -> None:
    kind, settings = KINDS[name]
    expected = steps(partial(kind, **settings), 5)
    assert torch.equal(steps(partial(eager(kind), **settings), 5), expected)
    assert torch.equal(steps(partial(eager(kind), **settings), 5, resume=2), expected)
    assert not torch.equal(steps(partial(kind, **settings), 4), expected)


@pytest.mark.parametrize("name", KINDS)
def test_state_goes_over_from_and_to_the_optimizers_of_torch(name: str) -> None:
    kind, settings = KINDS[name]
    ours, theirs = (make([torch.nn.Parameter(torch.ones(2))], **settings) for make in (eager(kind), kind))
    theirs.load_state_dict(ours.state_dict())
    assert ours.state_dict() == theirs.state_dict() and isinstance(ours, kind) and type(ours).__name__ == kind.__name__


@pytest.mark.slow
def test_a_training_does_not_load_the_compiler(tmp_path: Path) -> None:
    code = """
import sys
from fewlabels import cli
train = "train fixmatch --data digits@40 --net small-4 --batch 4 --uratio 1 --steps 2 --no-progress --no-baseline"
cli.run([*train.split(), "--out", sys.argv[1]])
print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "sklearn", "timm") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_determinism_is_put_back(before: bool, deterministic: bool, short: Any, tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(before)
    try:
        fl.train(short(steps=2, eval_every=2, deterministic=deterministic), out=tmp_path / "run")
        assert torch.are_deterministic_algorithms_enabled() == before
    finally:
        torch.use_deterministic_algorithms(False)
