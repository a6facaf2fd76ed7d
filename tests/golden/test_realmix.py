"""RealMix's parts against uizard-technologies/realmix: thresholds, masks and their losses, guesses, mixing.

Each JSON file beside this one that has one of `KINDS` is read, and all of its cases are run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import Draws
from torch import Tensor

from fewlabels.algorithms.functional import annealed, below, cross_entropy, interleave, sharpen
from fewlabels.algorithms.mixing import mix_groups
from fewlabels.algorithms.realmix import Annealed, Masked, masked_mean
from fewlabels.types import Info


def tensor(values: Any, *, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=grad)


def close(ours: Tensor, theirs: Any, atol: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), np.array(theirs), rtol=0, atol=atol)


def info(classes: int) -> Info:
    return Info(classes, (3, 8, 8), 4, torch.ones(classes), 100, 1000, 8, 8)


def tsa_threshold(case: dict[str, Any]) -> None:
    """After the end of the schedule theirs grows on, ours stays at 1."""
    found = annealed(torch.tensor(float(case["progress"])), case["schedule"], case["classes"])
    assert case["progress"] > 1 or case["threshold"] <= 1
    assert float(found) == pytest.approx(min(case["threshold"], 1), abs=1e-6)


def tsa_loss_released(case: dict[str, Any]) -> None:
    """The loss and its gradient as released, mask and loss by the labels; with their threshold, which may exceed 1."""
    logits, labels = tensor(case["logits"], grad=True), tensor(case["labels"])
    ce, threshold = cross_entropy(logits, labels), torch.tensor(case["threshold"])
    close(ce, case["ce"], 1e-5)
    for times, mask, loss in (("logits", "mask", "loss"), ("labels", "mask_labels_rule", "loss_labels_rule")):
        kept = below(logits, labels, threshold, times)
        assert kept.tolist() == case[mask]
        assert float(masked_mean(ce, kept).detach()) == pytest.approx(case[loss], abs=1e-5)
    masked_mean(ce, below(logits, labels, threshold, "logits")).backward()
    close(logits.grad, case["grad"], 1e-6)

    progress = torch.tensor(case["step"] / case["total"])
    if progress <= 1:
        for times, loss in (("logits", "loss"), ("labels", "loss_labels_rule")):
            found, seen = Annealed(case["schedule"], times, info(logits.shape[1]))(logits, labels, progress)
            assert float(found.detach()) == pytest.approx(case[loss], abs=1e-5)
            assert float(seen["mask_sup"]) == pytest.approx(
                np.mean(case["mask" if times == "logits" else "mask_labels_rule"])
            )


def ood_mask(case: dict[str, Any]) -> None:
    """Theirs divides by a flag in place of the number of classes."""
    masks = {"percent": Masked(case["value"], 0), "absolute": Masked(0, case["value"])}
    logits, targets = tensor(case["logits"], grad=True), tensor(case["targets"])
    close(logits.softmax(1).amax(1), case["confidence"], 1e-6)
    loss, seen = masks[case["kind"]](logits, targets)
    factor = logits.shape[1] / case["nclass_flag"]
    assert float(loss.detach()) * factor == pytest.approx(case["loss"], abs=1e-6)
    assert float(seen["mask_mixed"]) == pytest.approx(np.mean(case["mask"]), abs=1e-6)
    assert [float(c > seen["threshold_mixed"]) for c in logits.softmax(1).amax(1)] == case["mask"]
    loss.backward()
    close(logits.grad * factor, case["grad"], 1e-6)


def guess(case: dict[str, Any]) -> None:
    mean = tensor(case["logits"]).softmax(-1).mean(0)
    close(mean, case["p_model"], 1e-6)
    close(sharpen(mean, case["T"]), case["p_target"], 1e-6)


def mixup(case: dict[str, Any]) -> None:
    images, labels = (list(tensor(case[name])) for name in ("images", "labels"))
    mixed, targets = mix_groups(case["mode"], images, labels, 0.75, Draws(case))
    close(torch.stack(mixed), case["mixed_images"], 1e-6)
    close(torch.stack(targets), case["mixed_labels"], 1e-6)


def interleaved(case: dict[str, Any]) -> None:
    batches = [1000 * i + torch.arange(case["batch"]) for i in range(case["nu"] + 1)]
    assert [batch.tolist() for batch in interleave(batches)] == case["result"]


KINDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "tsa_threshold": tsa_threshold,
    "tsa_loss_released": tsa_loss_released,
    "ood_mask": ood_mask,
    "guess": guess,
    "mixup": mixup,
    "interleave": interleaved,
}

ASIDE = {"provenance", "description", "hash", "weights", "inputs", "trajectories", "cadr_extra"}
"""What such a file may have beside them: test_trajectories.py runs the trajectories, and the last is not RealMix's."""


def found() -> dict[str, tuple[str, Any]]:
    """All cases by name, each with its kind."""
    out = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or not content.keys() & KINDS.keys():
            continue
        for kind in sorted(content.keys() - ASIDE):
            cases = content[kind]
            for i, case in enumerate(cases.values() if isinstance(cases, dict) else cases):
                name = case.get("name") if isinstance(case, dict) else None
                out[f"{path.stem}/{kind}/{i}" + (f"-{name}" if name else "")] = kind, case
    return out


CASES = found()


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    kind, case = CASES[name]
    assert kind in KINDS, f"nothing is known of cases of the kind {kind}"
    KINDS[kind](case)


def test_every_kind_has_a_case() -> None:
    assert {kind for kind, _ in CASES.values()} >= KINDS.keys()
