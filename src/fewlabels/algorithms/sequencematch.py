"""SequenceMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.flexmatch import threshold
from fewlabels.algorithms.functional import cross_entropy, kl
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Views


@dataclass(frozen=True, kw_only=True)
class SequenceMatch(Composed):
    """SequenceMatch (Nguyen 2024), https://arxiv.org/abs/2310.15787.

    FlexMatch with a medium view, between the weak and the strong one: each is to say what the weaker ones do.
    """

    name: ClassVar[str] = "sequencematch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts, and from which a view is a target for the stronger ones."""
    flexible: bool = True
    """FlexMatch's thresholds by class, which are low at first, for the pseudo-label."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens what is a target for the stronger views."""
    variant: Literal["authors", "usb"] = "authors"
    """`usb` sharpens probabilities as if they were logits, and lets the images with a pseudo-label count everywhere."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of all unlabeled losses."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.3 times less work."""

    def compose(self, info: Info) -> Consistency:
        return Consistency(
            select=threshold(self.tau, info, flexible=self.flexible),
            unlabeled=lambda seen, target: cross_entropy(seen.strong[1].logits, target),
            terms={"loss_seq": (self.lambda_u, self.sequence)},
            lambda_u=self.lambda_u,
            views=Views(unlabeled=("weak", "medium", "strong")),
            bn=self.bn,
        )

    def sequence(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: divergences of the medium from the weak, of the strong from the medium and from the weak view, 0-d."""
        weak, (medium, strong) = seen.weak, seen.strong
        pairs = {"weak_medium": (weak, medium), "medium_strong": (medium, strong), "weak_strong": (weak, strong)}
        found = {name: self.divergence(seen, a.logits.detach(), b.logits, mask) for name, (a, b) in pairs.items()}
        seen.log.update({f"kl_{name}": value.detach() for name, value in found.items()})
        return torch.stack([*found.values()]).sum()

    def divergence(self, seen: Seen, source: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
        """Of one view from a weaker one, whose `source` are the logits, 0-d."""
        probs = source.softmax(1)
        if self.variant == "usb":
            return (mask * kl(probs / self.temperature, logits)).mean()
        sure = (probs.amax(1) >= self.tau).float()
        return (seen.counts * sure * kl(source / self.temperature, logits)).mean()
