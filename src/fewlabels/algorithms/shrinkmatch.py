"""ShrinkMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fewlabels.algorithms.alignment import QueueAlignment
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.slots import Seen, Threshold, probabilities
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class ShrinkMatch(Composed):
    """ShrinkMatch (Yang et al. 2023), https://arxiv.org/abs/2308.06777.

    FixMatch where an image that the net is not sure of is learned in a smaller space: the classes that compete with the
    first one are left out, until it is sure of what remains.
    """

    name: ClassVar[str] = "shrinkmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts, in all classes or in those that remain."""
    align: bool = True
    """Guesses are aligned, by the mean of the last batch means, to equal shares of the classes."""
    align_slots: Annotated[int, Range(1)] = 32
    """How many batch means."""
    ema_p: Annotated[float, Range(0, 1)] = 0.999
    """Weight of the old value in the running share of the images with a pseudo-label, which weighs the further loss."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    w_shrink: Annotated[float, Range(0)] = 1.0
    """Factor of the further loss, beside the running share."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def compose(self, info: Info) -> Consistency:
        width = max(1, info.features // 4)
        auxiliary = nn.Sequential(
            *(nn.Linear(info.features, width), Norm(width), nn.LeakyReLU(0.1)),
            *(nn.Linear(width, width), Norm(width), nn.LeakyReLU(0.1)),
            nn.Linear(width, info.classes),
        )
        return Consistency(
            align=QueueAlignment(info.classes, self.align_slots, 0.0) if self.align else None,
            target=probabilities,
            select=Threshold(self.tau),
            terms={"loss_shrink": (self.w_shrink, Shrinking(self))},
            lambda_u=self.lambda_u,
            bn=self.bn,
            heads={"shrink": auxiliary},
        )


class Norm(nn.BatchNorm1d):
    """Batch normalisation, where one image alone is normalised by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) == 1:
            return nn.functional.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias)
        return super().forward(input)


class Shrinking(nn.Module):
    """Term: what a second head says of the classes that remain."""

    ratio: Tensor
    """Running share of the images with a pseudo-label, 0-d; -1 before the first step, whose share is taken whole."""

    def __init__(self, config: ShrinkMatch) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("ratio", torch.tensor(-1.0))

    def forward(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Mean over all images, times the running share, 0-d."""
        logits = seen.net.heads["shrink"](seen.strong[0].features).float()
        with torch.no_grad():
            share = parallel.mean(mask.mean())
            moved = torch.where(self.ratio < 0, share, self.ratio.lerp(share, 1 - self.config.ema_p))
            self.ratio.copy_(torch.where(moved.isfinite(), moved, self.ratio))
            seen.log["ratio"] = self.ratio.clone()
        return self.ratio.clone() * (seen.counts * shrunk(logits, target, self.config.tau)).mean()


def cuts(target: Tensor, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """What is left out of distributions ``[N, K]``: of the classes in descending order, the second to that before the
    cut, which is the smallest with which the first one has a share of `tau` of what remains.

    Returns: the order ``[N, K]`` int64, the cut ``[N]`` int64, the place of the first class behind those that are left
    out, at least 2; and whether the share is reached, ``[N]`` bool, else the cut is K - 1.
    """
    ordered, order = target.sort(stable=True, dim=1, descending=True)
    behind = ordered.flip(1).cumsum(1).flip(1)  # sums of the classes from each place on
    share, last = ordered[:, :1] / (ordered[:, :1] + behind), target.shape[1] - 1
    reached = (share >= tau) & (torch.arange(last + 1, device=target.device) >= 2)
    return order, torch.where(reached.any(1), reached.int().argmax(1), last), reached.any(1)


def shrunk(logits: Tensor, target: Tensor, tau: float) -> Tensor:
    """Cross-entropy of the most probable class among those that remain, times its confidence in all classes, ``[N]``; 0
    for images that have a pseudo-label, or that are not sure even so.

    Args:
        logits: of the second head, ``[N, K]``, with gradient.
        target: distributions ``[N, K]``.
    """
    order, cut, reached = cuts(target, tau)
    place, confidence = torch.arange(target.shape[1], device=target.device), target.amax(1)
    kept = (place == 0) | (place >= cut[:, None])
    losses = -logits.gather(1, order).masked_fill(~kept, -torch.inf).log_softmax(1)[:, 0]
    return torch.where((confidence < tau) & reached, confidence * losses, 0.0)
