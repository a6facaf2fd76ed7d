"""MixUp for semi-supervised learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.algorithms.mixing import mix_reversed
from fewlabels.nets import frozen_statistics
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Tokens, Views


@dataclass(frozen=True, kw_only=True)
class MixUp(Checked):
    """MixUp (Zhang et al. 2018), https://arxiv.org/abs/1710.09412.

    Labeled images are mixed with each other, and so are unlabeled ones, whose labels are what the net believes
    of them; as a baseline of MixMatch.
    """

    name: ClassVar[str] = "mixup"

    beta: Annotated[float, Range(0, low_open=True)] = 0.5
    """Both parameters of MixUp's Beta distribution (the paper's alpha); smaller mixes less."""

    def build(self, info: Info) -> Algorithm:
        return MixUpLoss(self, info)


class MixUpLoss(Algorithm):
    draws = True
    tokens = Tokens(cutout=False)
    views = Views(labeled=("weak",), unlabeled=("weak",))

    def __init__(self, config: MixUp, info: Info) -> None:
        super().__init__()
        self.config, self.classes = config, info.classes

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), (u,), beta = batch.x, batch.u, self.config.beta
        x, labels = mix_reversed("mixup-x", x, one_hot(batch.y, self.classes), beta, batch.rng)
        loss_x = cross_entropy(net(x), labels).mean()
        with frozen_statistics(net):
            with torch.no_grad():
                probs = net(u).float().softmax(1)
            u, guessed = mix_reversed("mixup-u", u, probs, beta, batch.rng)
            loss_u = cross_entropy(net(u), guessed).mean()
        total = loss_x + loss_u
        logged = log(loss=total, loss_x=loss_x, loss_u=loss_u, confidence=probs.amax(1).mean())
        return Losses(total, logged, pseudo=probs.argmax(1))
