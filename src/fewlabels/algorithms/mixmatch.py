"""MixMatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot, ramp, sharpen, squared_error
from fewlabels.algorithms.mixing import Mix, interleaved_logits, mix_groups, require_equal_batches
from fewlabels.nets import frozen_statistics
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Tokens, Views


@dataclass(frozen=True, kw_only=True)
class MixMatch(Checked):
    """MixMatch (Berthelot et al. 2019), https://arxiv.org/abs/1905.02249.

    Labels are guessed from two weak views and sharpened; then everything is mixed with everything.
    """

    name: ClassVar[str] = "mixmatch"

    beta: Annotated[float, Range(0, low_open=True)] = 0.5
    """Parameter of MixUp's Beta distribution (the paper's alpha, 0.75 there)."""
    w_match: Annotated[float | None, Range(0)] = 100.0
    """Weight of the unlabeled loss at the end of the ramp; None: 10 for each class."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens the guessed labels; below 1 makes them more certain."""
    ramp_steps: Annotated[int, Range(1)] = 16384
    """Steps in which the unlabeled loss grows to its weight."""
    mix: Mix = "xxy.yxy"
    """What labeled images x and unlabeled ones y are mixed with: `xxy.yxy` everything with everything, `xx.yy`
    each kind with its own, `.` nothing (MixMode of google-research/fixmatch)."""
    labeled_view: Literal["weak", "strong"] = "weak"
    """How strongly the labeled images are augmented; `strong` in google's cta/cta_mixmatch.py."""
    second_view: Literal["weak", "strong"] = "weak"
    """How strongly the second view of an unlabeled image is augmented; `strong` in google's cta/cta_mixmatch.py."""

    def build(self, info: Info) -> Algorithm:
        require_equal_batches("MixMatch", info)
        step = MixMatchLoss(info, self.beta, self.temperature, self.ramp_steps, self.mix)
        step.weight = step.squared_weight("w-match", self.w_match, 100.0, info.classes)
        step.views = Views(labeled=(self.labeled_view,), unlabeled=("weak", self.second_view))
        return step


Part = tuple[Tensor, dict[str, Tensor]]
"""A loss, 0-d, and further values to log, 0-d and without gradient."""
Labeled = Callable[[Tensor, Tensor, Tensor], Part]
"""``(logits [B, K], targets [B, K], progress)`` of the mixed labeled images, this rank's, to their loss."""
Unlabeled = Callable[[Tensor, Tensor], Part]
"""``(logits [M, K], targets [M, K])`` of the mixed unlabeled views, this rank's, to their loss."""


def mean_cross_entropy(logits: Tensor, target: Tensor, progress: Tensor) -> Part:
    """Labeled: the mean cross-entropy."""
    return cross_entropy(logits, target).mean(), {}


def mean_squared_error(logits: Tensor, target: Tensor) -> Part:
    """Unlabeled: the mean squared error over images and classes."""
    return squared_error(logits, target).mean(), {}


class MixMatchLoss(Algorithm):
    """MixMatch's step; `labeled` and `unlabeled` are the losses of the mixed images."""

    draws = True
    tokens = Tokens(cutout=False)
    views = Views(labeled=("weak",), unlabeled=("weak", "weak"))
    weight: float
    """Of the unlabeled loss at the end of the ramp."""

    def __init__(
        self,
        info: Info,
        beta: float,
        temperature: float,
        ramp_steps: int,
        mix: Mix,
        labeled: Labeled = mean_cross_entropy,
        unlabeled: Unlabeled = mean_squared_error,
    ) -> None:
        super().__init__()
        self.classes, self.steps = info.classes, info.steps
        self.beta, self.temperature, self.ramp_steps, self.mix = beta, temperature, ramp_steps, mix
        self.labeled, self.unlabeled = labeled, unlabeled

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), views = batch.x, batch.u
        mean = torch.stack([self.guess(view, net) for view in views]).mean(0)
        guessed = sharpen(mean, self.temperature)

        images, labels = [x, *views], [one_hot(batch.y, self.classes)] + [guessed] * len(views)
        images, labels = mix_groups(self.mix, images, labels, self.beta, batch.rng)
        logits_x, *logits_u = interleaved_logits(net, images, updates=0)

        loss_x, seen_x = self.labeled(logits_x, labels[0], batch.progress)
        loss_u, seen_u = self.unlabeled(torch.cat(logits_u), torch.cat(labels[1:]))
        total = loss_x + self.weight * ramp(batch.progress, self.steps, self.ramp_steps) * loss_u
        logged = log(loss=total, loss_x=loss_x, loss_u=loss_u, confidence=mean.amax(1).mean(), **seen_x, **seen_u)
        return Losses(total, logged, pseudo=guessed.argmax(1))

    @staticmethod
    def guess(view: Tensor, net: Net) -> Tensor:
        """Probabilities ``[B, K]``, with the statistics of the batch and without gradient."""
        with torch.no_grad(), frozen_statistics(net):
            return net(view).float().softmax(1)
