"""AdaMatch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from fewlabels.algorithms.alignment import RunningAlignment
from fewlabels.algorithms.composed import Guided
from fewlabels.algorithms.consistency import Consistency, passed
from fewlabels.algorithms.slots import DistributionAlignment, Seen, cross_entropy_of_labeled_views
from fewlabels.nets import frozen_statistics
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Batch, Info, Net, Views


@dataclass(frozen=True, kw_only=True)
class AdaMatch(Guided):
    """AdaMatch (Berthelot et al. 2022), https://arxiv.org/abs/2106.04732.

    FixMatch whose threshold is a share of the confidence on the labeled images, and whose guesses are aligned with what
    the net says of these.
    """

    name: ClassVar[str] = "adamatch"

    variant: Literal["usb", "paper"] = "usb"
    """`usb`: threshold and alignment alone, as in USB. `paper`, as in google-research/adamatch: besides a strong view
    of the labeled images, their logits drawn between those with and those without the unlabeled images in the batch
    norm, and a weight of the unlabeled loss that grows in the first half of the training."""
    tau: Annotated[float, Range(0, 1)] = 0.95
    """Share of the mean confidence on the labeled images from which a pseudo-label counts (0.9 in the paper)."""
    ema_p: Annotated[float, Range(0, 1)] = 0.999
    """Weight of the old value in the running means of the alignment."""
    temperature: Annotated[float, Range(0, low_open=True)] = 1.0
    """Sharpens a soft target; nothing else."""

    def compose(self, info: Info) -> Consistency:
        if self.variant == "usb":
            return self.guided(select=self.relative, align=RunningAlignment(info.classes, self.ema_p, "model"))
        return self.guided(
            kind=Interpolated,
            select=self.relative,
            align=PredictedAlignment(info.classes, decay=self.ema_p, newest=True),
            labeled=cross_entropy_of_labeled_views,
            lambda_u=lambda progress: self.lambda_u * grown(progress),
            views=Views(labeled=("weak", "strong")),
        )

    def relative(self, seen: Seen) -> Tensor:
        """Select: 1 where the confidence reaches a share of that on the labeled weak views, ``[M]`` float32."""
        labeled = seen.labeled[0].logits.detach().softmax(1)
        seen.log["tau"] = self.tau * parallel.mean(labeled.amax(1).mean())
        return (seen.probs.amax(1) >= seen.log["tau"]).float()


def grown(progress: Tensor) -> Tensor:
    """Share of the weight of the unlabeled loss, ``(1 - cos 2 pi t) / 2`` up to t = 1/2 and then 1, 0-d."""
    return (1 - (2 * math.pi * progress.clamp(max=0.5)).cos()) / 2


class PredictedAlignment(DistributionAlignment):
    """Align: as `DistributionAlignment`, with what the net says of the labeled weak views in place of their labels."""

    def forward(self, seen: Seen) -> Tensor:
        return self.aligned(seen.probs, seen.labeled[0].logits.detach().softmax(1))


class Interpolated(Consistency):
    """The step with labeled logits between those of a pass of their own and those of the pass with all images: random
    logit interpolation (section 3.2), a share for each class of each view of each image."""

    draws = True

    def see(self, batch: Batch, net: Net, ema: Net) -> Seen:
        with frozen_statistics(net):
            alone = passed(net, batch.x)
        seen = super().see(batch, net, ema)
        rows, classes = seen.labeled[0].logits.shape
        shares = batch.rng.uniform("interpolation", rows, len(batch.x), classes).unbind(1)
        labeled = [
            both._replace(logits=both.logits.lerp(own.logits, share))
            for both, own, share in zip(seen.labeled, alone, shares, strict=True)
        ]
        return seen._replace(labeled=tuple(labeled))
