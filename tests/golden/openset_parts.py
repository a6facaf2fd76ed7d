"""The open-set methods under the names of their golden entries, beside the long-tailed parts, whose net is theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from longtail_parts import Entry, Steps, Toy, close, seen
from torch import Tensor, nn

from fewlabels.algorithms import IOMatch, OpenSet
from fewlabels.algorithms.functional import one_vs_all, pair_entropy, pairs
from fewlabels.algorithms.iomatch import OPEN
from fewlabels.algorithms.openset import PAIRS, SCORES
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime.rng import Rng
from fewlabels.types import Losses


class Opened(Steps):
    """A run of IOMatch; a step of the file is an epoch of the method."""

    alignments: ClassVar = {"no_align": "none", "align": "uniform"}
    heads: ClassVar = {"mlp_proj": "projector", "mb_classifiers": PAIRS, "openset_classifier": OPEN}
    tolerance: ClassVar = {"rtol": 1e-5, "atol": 5e-6}

    def __init__(self, name: str, entry: Entry) -> None:
        run = name.rpartition("/")[2]
        assert run in self.alignments, f"{name}: no run {run} is known here"
        self.settings = {"tau": entry["p_cutoff"], "tau_open": entry["q_cutoff"], "width": entry["proj"]}
        self.settings |= {"align_slots": entry["queue"], "alignment": self.alignments[run]}
        self.steps = len(entry["runs"][run]["steps"])
        super().__init__(name, entry["runs"][run])
        self.usual = self.algorithm.openset.usual
        self.algorithm.openset.usual = self.watched
        self.sure = torch.empty(0)
        """By the confidence alone, ``[M]``."""

    def config(self) -> Any:
        return IOMatch(open_start=1 / self.steps, **self.settings)

    def parameter(self, name: str) -> nn.Parameter:
        head, _, rest = name.partition(".")
        if head not in self.heads:
            return super().parameter(name)
        return self.net.get_parameter(f"heads.{self.heads[head]}.{rest}")

    def watched(self, step: Seen) -> Tensor:
        self.sure = self.usual(step)
        return self.sure

    def compare(self, step: Entry, losses: Losses, t: int) -> None:
        log = losses.log
        found = {
            "train/s_loss": log["loss_x"],
            "train/mb_loss": log["loss_ova"],
            "train/ui_loss": log["loss_u"],
            "train/op_loss": log["loss_open"],
            "train/rot_loss": torch.zeros(()),  # rotations, which these runs leave out
            "train/sup_loss": log["loss_x"] + log["loss_ova"],
            "train/unsup_loss": log["loss_u"],
            "train/total_loss": losses.total,
            "train/selected_ratio": log["mask"],
            "train/in_mask_ratio": 1 - log["foreign"],
            "train/p_mask_ratio": self.sure.mean(),
            "train/q_mask_ratio": log["mask_open"],
        }
        for name, expected in step["log"].items():
            close(found[name], expected, f"{name} of step {t}", **self.tolerance)


def iomatch(name: str, entry: Entry) -> None:
    for run in entry["runs"]:
        Opened(f"{name}/{run}", entry).check()


def openmatch(name: str, entry: Entry) -> None:
    """Losses with their gradients, and the score; the loss between two weak views is not in the package, but what it
    is made of."""
    logits, labels = torch.tensor(entry["labeled_open_logits"]).requires_grad_(), torch.tensor(entry["y"])
    loss = one_vs_all(logits, labels).mean()
    loss.backward()
    close(loss, entry["loss_ova"], "one-vs-all loss")
    close(logits.grad, entry["grad_ova"], "its gradient")

    first, second = (torch.tensor(entry[f"open_logits_{i}"]).requires_grad_() for i in (1, 2))
    entropy = (pair_entropy(first) + pair_entropy(second)).mean() / 2
    distance = (pairs(first) - pairs(second)).square().sum((1, 2)).mean()
    for what, value in (("oem", entropy), ("socr", distance)):
        (gradient,) = torch.autograd.grad(value, first)
        close(value, entry[f"loss_{what}"], f"loss {what}")
        close(gradient, entry[f"grad_{what}_1"], f"gradient of {what}")

    net = Toy({})
    net.heads[PAIRS] = nn.Identity()
    ours = {"labeled": np.zeros((1, 5)), "weak": entry["closed_logits"], "strong": np.zeros((1, 5))}
    features = {**ours, "weak": entry["open_logits_1"]}
    step = seen(None, features=features, logits=ours, y=[0], progress=0.0, rng=Rng(0, 0), net=net)
    score = SCORES["ova"](step)
    close(1 - score, entry["unknown_score"], "score")
    counts = score >= OpenSet("ova").limit
    assert counts.int().tolist() == entry["known"]


CHECKS: dict[str, Callable[[str, Entry], None]] = {"openmatch": openmatch, "iomatch": iomatch}
"""By the name of an entry."""
