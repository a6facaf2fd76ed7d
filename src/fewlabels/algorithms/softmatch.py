"""SoftMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.alignment import RunningAlignment
from fewlabels.algorithms.composed import Guided
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.memory import follow
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class SoftMatch(Guided):
    """SoftMatch (Chen et al. 2023), https://arxiv.org/abs/2301.10921.

    FixMatch with a weight in place of the threshold: 1 from the running mean of the confidence, below it a Gaussian.
    """

    name: ClassVar[str] = "softmatch"

    ema_p: Annotated[float, Range(0, 1)] = 0.999
    """Weight of the old value in the running means; 1 keeps mean and variance as they start, at 1 / classes and 1."""
    n_sigma: Annotated[float, Range(0, low_open=True)] = 2.0
    """Narrows the Gaussian; 1 is the formula as printed."""
    align_to: Literal["uniform", "model", "none"] = "uniform"
    """Class frequencies towards which the guesses are aligned, for the weights alone: equal ones, or the running mean
    of what the net says of the labeled images (TorchSSL)."""
    statistics: Literal["unaligned", "aligned"] = "unaligned"
    """Whether running mean and variance are of the guesses before or after alignment (USB: `aligned`)."""

    def compose(self, info: Info) -> Consistency:
        return self.guided(select=TruncatedGaussian(self, info.classes))


class TruncatedGaussian(nn.Module):
    """Select: ``exp(-n^2 min(confidence - mu, 0)^2 / (2 var))``; mu and var take in the batch of all ranks first."""

    mu: Tensor
    """Running mean of the confidence, 0-d."""
    var: Tensor
    """Running variance of the confidence, unbiased in each batch, 0-d."""

    def __init__(self, config: SoftMatch, classes: int) -> None:
        super().__init__()
        self.config = config
        goal = config.align_to
        self.align = None if goal == "none" else RunningAlignment(classes, config.ema_p, goal)
        self.register_buffer("mu", torch.tensor(1 / classes))
        self.register_buffer("var", torch.tensor(1.0))

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """Weights, ``[M]`` float32."""
        config, own = self.config, seen.probs.amax(1)
        confidence = own if self.align is None else self.align(seen).amax(1)
        every = parallel.gather(own if config.statistics == "unaligned" else confidence)
        follow(self.mu, every.mean(), config.ema_p)
        if len(every) > 1:
            follow(self.var, every.var(), config.ema_p)
        seen.log["mu"], seen.log["sigma"] = self.mu.clone(), self.var.sqrt()
        below = (config.n_sigma * (confidence - self.mu)).clamp(max=0)
        return (-below.square() / (2 * self.var).clamp_min(torch.finfo(below.dtype).tiny)).exp()
