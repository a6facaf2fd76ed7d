"""CGMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fewlabels.algorithms.alignment import RunningAlignment
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import generalized_cross_entropy
from fewlabels.algorithms.memory import Votes, follow
from fewlabels.algorithms.slots import Part, Seen, hard, started
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class CGMatch(Composed):
    """CGMatch (Cheng et al. 2025), https://arxiv.org/abs/2503.02231.

    FixMatch with a running threshold; of the images below it those count, with a loss that forgives wrong labels, whose
    guess has mostly been the same in the past.
    """

    name: ClassVar[str] = "cgmatch"

    ema_p: Annotated[float, Range(0, 1)] = 0.999
    """Weight of the old value in the running means."""
    clip: bool = False
    """The threshold stays in 0.9..0.95 (SVHN)."""
    votes: Annotated[int, Range(1, 30000)] = 1000
    """Last guesses of each image that are kept."""
    start: Annotated[int, Range(0)] = 2048
    """Steps in which labeled images alone are learned, and guesses kept."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on images above the threshold."""
    lambda_h: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on the others at the end of the training; it grows with the square of the step."""

    def compose(self, info: Info) -> Consistency:
        gaps = CountGaps(self, info)
        step = Consistency(
            align=gaps.usual,
            target=hard,
            select=gaps.select,
            terms={"loss_hard": (1.0, gaps.ambiguous)} if self.lambda_h > 0 else None,
            lambda_u=self.lambda_u,
            weak_gradient=f"CGMatch.lambda_h {self.lambda_h:g}" if self.lambda_h > 0 else None,
        )
        step.gaps = gaps
        return step


class CountGaps(Part):
    """The threshold, and how far apart the two most frequent guesses of each image are."""

    mu: Tensor
    """Running confidence, the threshold, 0-d."""
    gap_mu: Tensor
    """Running mean of the gaps, 0-d; -1 before the warm-up is over, after which that of all images is taken whole."""

    def __init__(self, config: CGMatch, info: Info) -> None:
        super().__init__()
        self.config, self.steps = config, info.steps
        self.usual = RunningAlignment(info.classes, config.ema_p, "uniform")
        self.past = Votes(info.unlabeled, config.votes, info.classes)
        self.register_buffer("mu", torch.tensor(1 / info.classes))
        self.register_buffer("gap_mu", torch.tensor(-1.0))
        self.unsure = torch.empty(0)
        """Of the step: which images are below the threshold and count all the same, ``[M]`` float32."""

    @torch.no_grad()
    def select(self, seen: Seen) -> Tensor:
        """Select: 1 where the aligned confidence reaches the threshold, ``[M]`` float32; 0 in the warm-up."""
        config, index = self.config, seen.batch.index
        confidence, guess = seen.probs.max(1)
        follow(self.mu, parallel.mean(confidence.mean()), config.ema_p)
        if config.clip:
            self.mu.clamp_(0.9, 0.95)
        self.past.write(index, guess)
        gap, begun = self.past.gaps(index), started(seen, config.start, self.steps)
        moved = self.gap_mu.lerp(parallel.mean(gap.mean()), 1 - config.ema_p)
        moved = torch.where(self.gap_mu < 0, self.past.gaps().mean(), moved)
        self.gap_mu.copy_(torch.where(begun, moved, self.gap_mu))
        sure = confidence >= self.mu
        self.unsure = (~sure & (gap >= self.gap_mu) & begun).float()
        seen.log["mu"], seen.log["mask_hard"] = self.mu.clone(), self.unsure.mean()
        return (sure & begun).float()

    def ambiguous(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: generalized cross-entropy of weak and strong views, with its weight that grows, 0-d."""
        config, over = self.config, max(1, self.steps - self.config.start)
        losses = sum(generalized_cross_entropy(view.logits, target) for view in (seen.weak, seen.strong[0]))
        loss: Tensor = (seen.counts * self.unsure * losses).mean()
        share = ((seen.batch.progress * self.steps - config.start) / over).clamp_min(0)
        seen.log["loss_gce"] = loss.detach()
        return config.lambda_h * share.square() * loss
