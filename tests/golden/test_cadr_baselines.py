"""Losses of labeled images that CADR was compared with (cadr_baselines.json, and any such file)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import entries

from algorithm_cases import info, make_batch
from fewlabels.algorithms import FixMatch, Imbalance
from fewlabels.algorithms.slots import Seen
from fewlabels.types import Outputs

CASES: dict[str, dict[str, Any]] = {
    kind: group for kind, group in entries("cadr_extra").items() if kind.rpartition("/")[2] == "baselines"
}
SETUP = (
    r"K=(\d+), N=(\d+); logits\[i,c\]=float32\(([\d.]+) sin\(([\d.]+)\(10i\+c\)\+([\d.]+)\)\); "
    r"y_i=(\d+)i mod (\d+); class frequencies p_c = (\d+)\^\(-c/(\d+)\)"
)
PARTS = {
    "reweight": Imbalance("reweight", scale="largest"),
    "logit_adjusted": Imbalance(),  # it adds one number to all logits of an image: plain cross-entropy
}


def test_there_are_some() -> None:
    assert CASES


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", PARTS)
def test_losses_and_gradients(kind: str, name: str) -> None:
    case = CASES[kind]
    assert {key.removesuffix("_per_example").removesuffix("_grad_of_mean") for key in case} == {"setup", *PARTS}
    form = re.fullmatch(SETUP, case["setup"])
    assert form, case["setup"]
    classes, images, scale, slope, shift, times, modulo, ratio, steps = map(float, form.groups())
    i, c = np.arange(int(images))[:, None], np.arange(int(classes))
    logits = torch.tensor((scale * np.sin(slope * (10 * i + c) + shift)).astype(np.float32), requires_grad=True)
    y = torch.tensor((times * i[:, 0] % modulo).astype(np.int64))

    config = FixMatch(imbalance=PARTS[name])
    counts = torch.tensor(ratio ** (-c / steps)) * 1e6
    step: Any = config.build(info()._replace(classes=int(classes), labeled_counts=counts))
    outputs = Outputs(torch.zeros(len(y), 1), logits)
    batch = make_batch(step, len(y), len(y))._replace(y=y)
    unused: Any = None
    losses = step.labeled(
        Seen((outputs,), outputs, (), logits.detach().softmax(1), batch, unused, unused, {}, torch.ones(0))
    )
    np.testing.assert_allclose(losses.detach().numpy(), case[f"{name}_per_example"], rtol=1e-4)
    losses.mean().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), case[f"{name}_grad_of_mean"], rtol=1e-4, atol=1e-6)
