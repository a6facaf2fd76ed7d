"""Consecutive steps of methods of the consistency family, with their state, against the released code; each JSON file
beside this one may hold more of them under `cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import entries
from modern_methods import METHODS, MIXES, Method
from torch import Tensor

from fewlabels.types import Batch

CASES = entries("cases")
INPUTS = {"t", "y", "index", "index_labeled", "input_sums", "epoch", "it", "progress", "step"}
EXACT = {"mask", "mask_mean", "target", "label", "select", "mask_labeled", "target_labeled"}


def same(ours: Any, expected: Any, what: str, *, exact: bool = False) -> None:
    """To 1e-5 relative to 1 + |value|; whole numbers, and what is `exact`, in every digit."""
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    if exact or np.asarray(expected).dtype.kind in "ib":
        np.testing.assert_array_equal(ours, expected, err_msg=what)
    else:
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=what)


def compare(subject: Method, call: dict[str, Any], losses: Any, formula: dict[str, Any], t: int) -> bool:
    """Everything that a call has, but its inputs and gradients; where a formula departs from the code, by it. Whether
    the case goes on."""
    found = {name: value for name, value in call.items() if name not in INPUTS | {"state"}}
    found |= {f"state.{name}": value for name, value in call.get("state", {}).items()}
    for name, value in found.items():
        if name.startswith("grad_") or name in subject.ignored:
            continue
        if subject.until.get(str(subject.case["name"])) == (t, name):
            return False
        subject.expected = formula.get(name.removeprefix("state."), value)
        whole = name in EXACT and np.ndim(subject.expected) != 2 and not subject.weighted
        same(subject.value(name, losses), subject.expected, f"{name} of call {t}", exact=whole)
    return True


def compare_mixes(case: dict[str, Any], found: dict[str, Any]) -> None:
    (call,) = case["calls"]
    for name, expected in call.items():
        if name not in INPUTS:
            assert name in found, f"{case['name']}: nothing is known to compare {name} with"
            same(found[name], expected, name)


@pytest.mark.parametrize("name", CASES)
def test_calls(name: str) -> None:
    case = {"name": name, **CASES[name]}
    method = case["algorithm"]
    known = {**METHODS, **MIXES}
    assert method in known, f"{name}: no method {method} is known here; known: {', '.join(known)}"
    if method in MIXES:
        compare_mixes(case, MIXES[method](case))
        return
    subject = METHODS[method](case)
    for t, call in enumerate(case["calls"]):
        assert call["t"] == t
        views = {view: subject.image(view, t) for view in (*subject.labeled, *subject.unlabeled, *subject.beside)}
        for view, total in call["input_sums"].items():
            assert float(views[view].detach().double().sum()) == pytest.approx(total, rel=1e-6, abs=1e-5), view
        subject.views = views
        subject.before(call, t)
        y, index = (torch.tensor(call.get(key, range(case[n]))) for key, n in (("y", "B"), ("index", "M")))
        x, unlabeled = ([views[view] for view in names] for names in (subject.labeled, subject.unlabeled))
        rows = torch.tensor(call.get("index_labeled", range(len(y))))
        progress = torch.tensor(subject.progress(call, t))
        batch = Batch(tuple(x), y, tuple(unlabeled), index, progress, subject.rng(t), rows)
        losses = subject.algorithm(batch, subject.net, subject.teacher)
        goes_on = compare(subject, call, losses, case.get("by_formula", {t: {}})[t], t)
        losses.total.backward()
        for view, tensor in views.items():
            if f"grad_{view}" in call:
                gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                if np.shape(call[f"grad_{view}"]) == (2,):  # its sum, and that of its absolute values
                    gradient = torch.stack([gradient.sum(), gradient.abs().sum()])
                same(gradient, call[f"grad_{view}"], f"grad_{view} of call {t}")
        for name in call.keys() - {f"grad_{view}" for view in views}:
            if name.startswith("grad_"):
                ours = subject.value(name, losses)
                for weight, value in call[name].items():
                    same(ours[weight], value, f"{name} of {weight} of call {t}")
        if not goes_on:
            return


def test_unknown_methods_fail_by_name() -> None:
    with pytest.raises(AssertionError, match=r"no method newmatch is known here; known: flexmatch, "):
        CASES["x"] = {"algorithm": "newmatch"}
        try:
            test_calls("x")
        finally:
            del CASES["x"]
