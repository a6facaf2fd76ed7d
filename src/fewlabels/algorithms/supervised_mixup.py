"""MixUp of the labeled images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.algorithms.mixing import mix_reversed
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Tokens, Views


@dataclass(frozen=True, kw_only=True)
class SupervisedMixUp(Checked):
    """Supervised MixUp (Zhang et al. 2018), https://arxiv.org/abs/1710.09412.

    Cross-entropy on mixed labeled images with their mixed labels; unlabeled images are not used.
    """

    name: ClassVar[str] = "supervised-mixup"

    beta: Annotated[float, Range(0, low_open=True)] = 0.5
    """Both parameters of MixUp's Beta distribution (the paper's alpha); smaller mixes less."""
    view: Literal["weak", "strong"] = "weak"
    """How strongly the labeled images are augmented; `strong` in google's cta/cta_fsmixup.py."""

    def build(self, info: Info) -> Algorithm:
        return SupervisedMixUpLoss(self, info)


class SupervisedMixUpLoss(Algorithm):
    draws = True
    tokens = Tokens(cutout=False)

    def __init__(self, config: SupervisedMixUp, info: Info) -> None:
        super().__init__()
        self.config, self.classes = config, info.classes
        self.views = Views(labeled=(config.view,), unlabeled=())

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,) = batch.x
        x, labels = mix_reversed("mixup-x", x, one_hot(batch.y, self.classes), self.config.beta, batch.rng)
        loss = cross_entropy(net(x), labels).mean()
        return Losses(loss, log(loss=loss, loss_x=loss))
