"""FlexMatch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.fixmatch import FixMatch
from fewlabels.algorithms.memory import newest
from fewlabels.algorithms.slots import Seen, Slot, Threshold, sharpened
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class FlexMatch(FixMatch):
    """FlexMatch (Zhang et al. 2021), https://arxiv.org/abs/2110.08263.

    FixMatch where a class that is learned less well needs less confidence; how well, its confident images tell.
    """

    name: ClassVar[str] = "flexmatch"
    warmup: bool = True
    """While most images were never confident, all thresholds are low."""
    mapping: Literal["convex", "linear", "low-limit", "concave"] = "convex"
    """From how well a class is learned, 0 to 1, to its share of `tau`."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens a soft target; nothing else."""

    def compose(self, info: Info) -> Consistency:
        step = super().compose(info)
        tempered = self.loss_temperature != 1  # the confidence is that of the model's own probabilities
        step.align = sharpened(self.loss_temperature) if tempered else None
        step.select = Flexible(self, info)
        return step


class Flexible(nn.Module):
    """Select: thresholds by class, from how many images were taken for it with confidence `tau`."""

    last: Tensor
    """Class that each unlabeled image was last taken for with confidence `tau`, ``[N]`` int64; -1 at first."""

    def __init__(self, config: FlexMatch, info: Info) -> None:
        super().__init__()
        self.config, self.classes = config, info.classes
        self.register_buffer("last", torch.full((info.unlabeled,), -1))

    def thresholds(self) -> Tensor:
        """Those of the next step, ``[K]`` float32 (section 3; the maps: TorchSSL, models/flexmatch/flexmatch.py)."""
        counts = self.last.new_zeros(self.classes + 1).scatter_add_(0, self.last + 1, torch.ones_like(self.last))
        beta = counts[1:] / counts[0 if self.config.warmup else 1 :].max().clamp_min(1)
        share = {"convex": beta / (2 - beta), "linear": (beta + 1) / 2, "low-limit": 1 / (2 - beta)}
        share["concave"] = (beta.log1p() + 0.5) / (math.log(2) + 0.5)
        return self.config.tau * share[self.config.mapping]

    def forward(self, seen: Seen) -> Tensor:
        """1 where the guess reaches the threshold of its class, ``[M]`` float32; then what is sure of it is kept."""
        highest, guess = seen.probs.max(1)
        mask = (highest >= self.thresholds()[guess]).float()
        sure = guess.where(highest >= self.config.tau, -1)
        index, sure = parallel.gather(torch.stack((seen.batch.index, sure), 1)).T
        places = newest(index, len(self.last), sure >= 0)
        self.last.copy_(torch.where(places >= 0, sure[places], self.last))
        return mask


def threshold(tau: float, info: Info, *, flexible: bool) -> Slot:
    """Select: confidence of `tau`, or FlexMatch's thresholds by class below it."""
    return Flexible(FlexMatch(tau=tau), info) if flexible else Threshold(tau)
