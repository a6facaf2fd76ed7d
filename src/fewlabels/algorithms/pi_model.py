"""The Pi-model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, ramp_share, squared_error
from fewlabels.nets import frozen_statistics
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class PiModel(Checked):
    """Pi-Model (Laine and Aila 2017), https://arxiv.org/abs/1610.02242.

    The net is to say the same about two weak views of an unlabeled image.
    """

    name: ClassVar[str] = "pi-model"

    weight: Annotated[float | None, Range(0)] = 10.0
    """Weight of the unlabeled loss at the end of the ramp (google-research/fixmatch, pi_model.py); None: 1 for each
    class."""
    ramp: Annotated[float, Range(0, 1)] = 0.4
    """Share of the training in which the unlabeled loss grows to its weight; 0 for no ramp (linear, as in
    google-research/fixmatch, pi_model.py; the paper's grows like a Gaussian)."""

    def build(self, info: Info) -> Algorithm:
        return PiModelLoss(self, info)


class PiModelLoss(Algorithm):
    views = Views(labeled=("weak",), unlabeled=("weak", "weak"))

    def __init__(self, config: PiModel, info: Info) -> None:
        super().__init__()
        self.config = config
        self.weight = self.squared_weight("weight", config.weight, 10.0, info.classes)

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), (first, second) = batch.x, batch.u
        loss_x = cross_entropy(net(x), batch.y).mean()
        with frozen_statistics(net):
            with torch.no_grad():
                target = net(first).float().softmax(1)
            logits = net(second)

        loss_u = squared_error(logits, target).mean()
        total = loss_x + self.weight * ramp_share(batch.progress, self.config.ramp) * loss_u
        return Losses(total, log(loss=total, loss_x=loss_x, loss_u=loss_u, confidence=target.amax(1).mean()))
