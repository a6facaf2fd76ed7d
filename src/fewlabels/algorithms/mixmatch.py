"""MixMatch."""

from __future__ import annotations

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
        return MixMatchLoss(self, info)


class MixMatchLoss(Algorithm):
    draws = True
    tokens = Tokens(cutout=False)

    def __init__(self, config: MixMatch, info: Info) -> None:
        super().__init__()
        self.config, self.classes, self.steps = config, info.classes, info.steps
        self.weight = self.squared_weight("w-match", config.w_match, 100.0, info.classes)
        self.views = Views(labeled=(config.labeled_view,), unlabeled=("weak", config.second_view))

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        config = self.config
        (x,), views = batch.x, batch.u
        mean = torch.stack([self.guess(view, net) for view in views]).mean(0)
        guessed = sharpen(mean, config.temperature)

        images, labels = [x, *views], [one_hot(batch.y, self.classes)] + [guessed] * len(views)
        images, labels = mix_groups(config.mix, images, labels, config.beta, batch.rng)
        logits_x, *logits_u = interleaved_logits(net, images, updates=0)

        loss_x = cross_entropy(logits_x, labels[0]).mean()
        loss_u = squared_error(torch.cat(logits_u), torch.cat(labels[1:])).mean()
        total = loss_x + self.weight * ramp(batch.progress, self.steps, config.ramp_steps) * loss_u
        logged = log(loss=total, loss_x=loss_x, loss_u=loss_u, confidence=mean.amax(1).mean())
        return Losses(total, logged, pseudo=guessed.argmax(1))

    @staticmethod
    def guess(view: Tensor, net: Net) -> Tensor:
        """Probabilities ``[B, K]``, with the statistics of the batch and without gradient."""
        with torch.no_grad(), frozen_statistics(net):
            return net(view).float().softmax(1)
