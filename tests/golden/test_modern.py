"""Consecutive steps of methods of the consistency family, with their state, against the released code; each JSON file
beside this one may hold more of them under `cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import entries, u64
from torch import Tensor, nn

from fewlabels.algorithms import Consistency, FlexMatch
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info

CASES = entries("cases")
CODES = {"labeled": 1, "labeled_strong": 2, "weak": 3, "strong": 4, "strong2": 5, "medium": 6, "rot": 7}
AMPLITUDES = {"labeled": 3.0, "labeled_strong": 3.0, "weak": 8.0, "strong": 4.0, "strong2": 4.0, "medium": 6.0}


def image(case: dict[str, Any], view: str, t: int) -> Tensor:
    """A view of call `t`, ``[N, K]`` float32, with gradient: by the file's formula."""
    inputs, rows = case["inputs"], case["B"] if view.startswith("labeled") else case["M"]
    amplitude = inputs.get("amp", {}).get(view, AMPLITUDES[view])
    amplitude = amplitude[t] if isinstance(amplitude, list) else amplitude
    x = amplitude * u64(inputs["seed"] + 20 * t + CODES[view], rows, case["K"])
    if view in inputs.get("follow", {}):
        x = x + inputs["follow"][view] * image(case, "weak", t).detach().numpy()
    x = x.astype(np.float32)
    if "bias" in inputs:
        x = (x.astype(np.float64) + np.array(inputs["bias"])).astype(np.float32)
    for row, values in inputs.get("rows", {}).get(view, {}).get(str(t), {}).items():
        x[int(row)] = values
    return torch.from_numpy(x).requires_grad_()


class Identity(nn.Module):
    """A net whose images are its logits."""

    def features(self, x: Tensor) -> Tensor:
        return x

    def head(self, f: Tensor) -> Tensor:
        return f


class FlexMatchCase:
    """FlexMatch under the names of its cases."""

    views = ("weak", "strong")

    def __init__(self, case: dict[str, Any]) -> None:
        settings = dict(case["config"])
        size, beta = settings.pop("ulb_dest_len", 51), settings.pop("beta", None)
        hard, warmup = settings.pop("hard_label"), settings.pop("thresh_warmup", beta is None)
        temperature = 1.0 if "soft_usb" in case["name"] else settings["T"]
        self.config = FlexMatch(
            tau=settings.pop("p_cutoff"),
            lambda_u=settings.pop("ulb_loss_ratio", 1.0),
            warmup=warmup,
            target="hard" if hard else "soft",
            temperature=temperature,
        )
        assert set(settings) == {"T"}, f"unknown settings in {case['name']}: {settings}"
        counts = torch.full((case["K"],), 4)
        told = Info(case["K"], (case["K"], 1, 1), case["K"], counts, size, 100, case["B"], case["M"])
        self.algorithm = self.config.build(told)
        assert isinstance(self.algorithm, Consistency)
        self.select: Any = self.algorithm.select
        if "initial_state" in case:
            self.select.last.copy_(torch.tensor(case["initial_state"]["selected_label"]))
        self.beta = beta
        self.formula = case.get("by_formula")

    def before(self, call: dict[str, Any], t: int) -> None:
        """Thresholds of this call; where beta is given instead of a state, images taken so that it is that."""
        if self.beta is not None:
            counts = [round(20 * b) for b in self.beta]
            last = [k for k, n in enumerate(counts) for _ in range(n)]
            self.untouched = last + [-1] * (len(self.select.last) - len(last))
            self.select.last.copy_(torch.tensor(self.untouched))
        expected = (self.formula[t] if self.formula else call).get("threshold")
        if expected is not None:
            close(self.select.thresholds(), expected, "threshold")

    def after(self, call: dict[str, Any], t: int) -> None:
        if "select" in call:  # those that are sure, whose label is kept
            last = self.select.last[: len(call["select"])]
            expected = np.where(call["select"], call["label"], self.untouched[: len(last)])
            assert last.tolist() == expected.tolist()
        if "state" not in call:
            return
        assert self.select.last.tolist() == call["state"]["selected_label"]
        beta = torch.tensor((self.formula[t] if self.formula else call["state"])["beta"])
        close(self.select.thresholds(), self.config.tau * beta / (2 - beta), "beta")


METHODS: dict[str, type[FlexMatchCase]] = {"flexmatch": FlexMatchCase}


def close(ours: Any, expected: Any, what: str) -> None:
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else ours
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_calls(name: str) -> None:
    case = {"name": name, **CASES[name]}
    method = case["algorithm"]
    assert method in METHODS, f"{name}: no method {method} is known here; known: {', '.join(METHODS)}"
    subject = METHODS[method](case)
    for t, call in enumerate(case["calls"]):
        assert call["t"] == t
        views = {view: image(case, view, t) for view in ("labeled", *subject.views)}
        for view, total in call["input_sums"].items():
            assert float(views[view].detach().double().sum()) == pytest.approx(total, rel=1e-6, abs=1e-6), view
        subject.before(call, t)
        y, index = (torch.tensor(call.get(key, range(case[n]))) for key, n in (("y", "B"), ("index", "M")))
        x, unlabeled = (views["labeled"],), tuple(views[view] for view in subject.views)
        batch = Batch(x, y, unlabeled, index, torch.tensor(0.5), Rng(0, t), torch.arange(len(y)))
        losses = subject.algorithm(batch, Identity(), Identity())
        log = {"sup": "loss_x", "unsup": "loss_u", "total": "loss"}
        for theirs, ours in log.items():
            if theirs in call:
                close(losses.log[ours], call[theirs], f"{theirs} of call {t}")
        assert losses.kept is not None and losses.pseudo is not None
        if "mask" in call:
            assert losses.kept.tolist() == call["mask"]
        else:
            assert float(losses.kept.mean()) == call["mask_mean"]
        target = np.array(call.get("target", call.get("label")))
        assert losses.pseudo.tolist() == (target if target.ndim == 1 else target.argmax(1)).tolist()
        losses.total.backward()
        for view, tensor in views.items():
            if f"grad_{view}" in call:
                close(tensor.grad, call[f"grad_{view}"], f"grad_{view} of call {t}")
        subject.after(call, t)
