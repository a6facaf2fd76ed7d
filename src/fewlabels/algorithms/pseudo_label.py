"""Pseudo-Label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import ramp_share
from fewlabels.algorithms.slots import Threshold
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Views


@dataclass(frozen=True, kw_only=True)
class PseudoLabeling(Composed):
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

    def compose(self, info: Info) -> Consistency:
        return Consistency(
            select=Threshold(self.tau, strict=True, broadcast=self.broadcast),
            lambda_u=lambda progress: self.weight * ramp_share(progress, self.ramp),
            views=Views(unlabeled=("weak",)),
        )
