"""RealMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.base import Algorithm
from fewlabels.algorithms.functional import annealed, below, cross_entropy, percentile, squared_error
from fewlabels.algorithms.mixing import Mix, require_equal_batches
from fewlabels.algorithms.mixmatch import MixMatchLoss, Part, mean_cross_entropy
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Copies, CopyKind, Info, Views


@dataclass(frozen=True, kw_only=True)
class RealMix(Checked):
    """RealMix (Nair et al. 2019), https://arxiv.org/abs/1912.08766.

    MixMatch whose labeled images stop to count once they are learnt, whose unlabeled ones do not count where the net
    is unsure of them, and which may see copies of the unlabeled images, changed once and for all, in their place.
    """

    name: ClassVar[str] = "realmix"

    beta: Annotated[float, Range(0, low_open=True)] = 0.75
    """Parameter of MixUp's Beta distribution."""
    w_match: Annotated[float | None, Range(0)] = 75.0
    """Weight of the unlabeled loss at the end of the ramp; None: 7.5 for each class."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens the guessed labels; below 1 makes them more certain."""
    ramp_steps: Annotated[int, Range(1)] = 16384
    """Steps in which the unlabeled loss grows to its weight."""
    mix: Mix = "xxy.yxy"
    """What labeled images x and unlabeled ones y are mixed with, as in MixMatch."""

    tsa: Literal["none", "linear", "log", "exp"] = "none"
    """Training signal annealing: labeled images whose classes have more probability than a threshold, which grows
    from 1 / classes to 1 over the training, do not count; early (`log`), evenly, or late (`exp`)."""
    tsa_on: Literal["labels", "logits"] = "labels"
    """What the threshold is multiplied with: the shares of the mixed label, or as released the logits."""
    percent_mask: Annotated[float, Range(0, 1)] = 0.0
    """Share of the mixed unlabeled images, the least confident of each step, that does not count; 0: all count."""
    confidence_mask: Annotated[float, Range(0, 1)] = 0.0
    """Confidence above which a mixed unlabeled image counts; 0: all count."""

    copy_kind: CopyKind = "none"
    """How the copies of the unlabeled images are made that take their place; `none`: there are none."""
    copies: Annotated[int, Range(1)] = 50
    """Copies of each unlabeled image."""

    def build(self, info: Info) -> Algorithm:
        require_equal_batches("RealMix", info)
        if self.percent_mask and self.confidence_mask:
            raise ValueError(
                f"RealMix.percent_mask {self.percent_mask:g} and RealMix.confidence_mask {self.confidence_mask:g} "
                "cannot go together: one of them must be 0"
            )
        if self.copy_kind == "none" and self.copies != RealMix.copies:
            raise ValueError(
                f"RealMix.copies {self.copies} needs RealMix.copy_kind, which is none: there are no copies then"
            )
        labeled = mean_cross_entropy if self.tsa == "none" else Annealed(self.tsa, self.tsa_on, info)
        unlabeled = Masked(self.percent_mask, self.confidence_mask)
        step = MixMatchLoss(info, self.beta, self.temperature, self.ramp_steps, self.mix, labeled, unlabeled)
        step.weight = step.squared_weight("w-match", self.w_match, 75.0, info.classes)
        copies = None if self.copy_kind == "none" else Copies(self.copy_kind, self.copies)
        step.views = Views(labeled=("weak",), unlabeled=("weak", "weak"), copies=copies)
        return step


class Annealed:
    """Labeled: training signal annealing on mixed labels, over the planned steps of the training.

    The mean over the images that stay (`functional.below`) of all ranks, 0 if none does. Logs their share as
    `mask_sup`.
    """

    def __init__(self, schedule: str, times: str, info: Info) -> None:
        self.schedule, self.times, self.info = schedule, times, info

    def __call__(self, logits: Tensor, target: Tensor, progress: Tensor) -> Part:
        threshold = annealed(progress, self.schedule, self.info.classes)
        mask = below(logits, target, threshold, self.times)
        return masked_mean(cross_entropy(logits, target), mask), {"mask_sup": mask.mean()}


class Masked:
    """Unlabeled: the mean squared error over those that are confident enough, 0 if none is.

    A mixed image counts if its largest probability is above a threshold: that which the share `percent` of those of
    the step, on all ranks, do not exceed, or the fixed one `confidence`. Logs the share of those that count as
    `mask_mixed`, the `threshold_mixed`, and smallest, mean and largest confidence.
    """

    def __init__(self, percent: float, confidence: float) -> None:
        self.percent, self.confidence = percent, confidence

    def __call__(self, logits: Tensor, target: Tensor) -> Part:
        confidence = logits.detach().float().softmax(1).amax(1)
        everyone = parallel.gather(confidence)
        fixed = torch.full_like(everyone[0], self.confidence)
        threshold = percentile(everyone, self.percent) if self.percent else fixed
        mask = (confidence > threshold).float()
        seen = {
            "mask_mixed": mask.mean(),
            "threshold_mixed": threshold,
            "confidence_min": everyone.min(),
            "confidence_mean": everyone.mean(),
            "confidence_max": everyone.max(),
        }
        return masked_mean(squared_error(logits, target), mask), seen


def masked_mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean over the rows of all ranks whose mask is 1, 0 if there are none; of this rank the part whose mean over the
    ranks it is. Losses and mask ``[N]``."""
    rows = len(mask) * parallel.world()
    return (mask * losses).mean() / parallel.mean(mask.mean()).clamp_min(1 / rows)
