"""Interpolation consistency training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, ramp_share, squared_error
from fewlabels.algorithms.mixing import mix_reversed
from fewlabels.nets import frozen_statistics
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Tokens, Views


@dataclass(frozen=True, kw_only=True)
class ICT(Checked):
    """ICT (Verma et al. 2019), https://arxiv.org/abs/1903.03825.

    What the net says of a mixture of two unlabeled images is to be the mixture of what its average says of each.
    """

    name: ClassVar[str] = "ict"

    beta: Annotated[float, Range(0, low_open=True)] = 0.5
    """Both parameters of MixUp's Beta distribution (the paper's alpha); smaller mixes less."""
    weight: Annotated[float, Range(0)] = 50.0
    """Weight of the unlabeled loss at the end of the ramp."""
    ramp: Annotated[float, Range(0, 1)] = 0.4
    """Share of the training in which the unlabeled loss grows to its weight; 0 for no ramp."""

    def build(self, info: Info) -> Algorithm:
        return ICTLoss(self)


class ICTLoss(Algorithm):
    draws = True
    views = Views(labeled=("weak",), unlabeled=("weak",))
    tokens = Tokens(wanted=3)  # the original has a view that it does not use

    def __init__(self, config: ICT) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), (u,), config = batch.x, batch.u, self.config
        loss_x = cross_entropy(net(x), batch.y).mean()
        with torch.no_grad(), frozen_statistics(ema):
            probs = ema(u).float().softmax(1)
        u, target = mix_reversed("mixup-u", u, probs, config.beta, batch.rng)
        with frozen_statistics(net):
            loss_u = squared_error(net(u), target).mean()
        total = loss_x + config.weight * ramp_share(batch.progress, config.ramp) * loss_u
        return Losses(total, log(loss=total, loss_x=loss_x, loss_u=loss_u, confidence=probs.amax(1).mean()))
