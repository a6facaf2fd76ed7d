"""Pseudo-Label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fewlabels import parallel
from fewlabels.algorithms.base import Algorithm, log
from fewlabels.checked import Checked, Range
from fewlabels.functional import cross_entropy, ramp_share
from fewlabels.nets import frozen_statistics
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class PseudoLabeling(Checked):
    """Pseudo-Label (Lee 2013), https://arxiv.org/abs/1804.09170.

    What the net believes with confidence about an unlabeled image is the label of that image. The link is to Oliver
    et al. 2018, who gave the method the form that it has here.
    """

    name: ClassVar[str] = "pseudo-label"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence above which a pseudo-label counts (google-research/fixmatch, pseudo_label.py; the paper takes
    every image)."""
    weight: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss at the end of the ramp."""
    ramp: Annotated[float, Range(0, 1)] = 0.4
    """Share of the training in which the unlabeled loss grows to its weight; 0 for no ramp."""
    broadcast: bool = False
    """Every image counts with the share of the confident ones, ``mean(loss) mean(mask)``, as in what
    google-research/fixmatch's pseudo_label.py runs and the FixMatch paper reports."""

    def build(self, info: Info) -> Algorithm:
        return PseudoLabelingLoss(self)


class PseudoLabelingLoss(Algorithm):
    views = Views(labeled=("weak",), unlabeled=("weak",))

    def __init__(self, config: PseudoLabeling) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        config = self.config
        (x,), (u,) = batch.x, batch.u
        loss_x = cross_entropy(net(x), batch.y).mean()
        with frozen_statistics(net):
            logits = net(u).float()
        confidence, label = logits.detach().softmax(1).max(1)
        mask = (confidence > config.tau).float()
        if config.broadcast:
            mask = parallel.mean(mask.mean()).expand_as(mask)

        loss_u = (mask * cross_entropy(logits, label)).mean()
        total = loss_x + config.weight * ramp_share(batch.progress, config.ramp) * loss_u
        logged = log(loss=total, loss_x=loss_x, loss_u=loss_u, mask=mask.mean(), confidence=confidence.mean())
        return Losses(total, logged, pseudo=label, kept=mask)
