"""ReFixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.flexmatch import threshold
from fewlabels.algorithms.functional import kl
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class ReFixMatch(Composed):
    """ReFixMatch (Nguyen 2023), https://arxiv.org/abs/2308.07509.

    FixMatch where the images that the net is not sure of have a loss, too: the strong view is to say what the weak one
    does.
    """

    name: ClassVar[str] = "refixmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    flexible: bool = False
    """FlexMatch's thresholds by class, which are low at first."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens the target of the images below the threshold."""
    variant: Literal["authors", "usb"] = "authors"
    """`usb` sharpens the probabilities as if they were logits, and what is said of the strong view, too."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of both unlabeled losses."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def compose(self, info: Info) -> Consistency:
        select = threshold(self.tau, info, flexible=self.flexible)
        terms = {"loss_low": (self.lambda_u, self.below)}
        return Consistency(select=select, terms=terms, lambda_u=self.lambda_u, bn=self.bn)

    def below(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: divergence of the strong views from the sharpened weak ones, of the images that do not count, 0-d."""
        weak, strong = seen.weak.logits.detach(), seen.strong[0].logits
        if self.variant == "usb":
            weak, strong = weak.softmax(1), strong / self.temperature
        return ((seen.counts - mask) * kl(weak / self.temperature, strong)).mean()
