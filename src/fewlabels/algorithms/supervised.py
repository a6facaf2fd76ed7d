"""The baseline that every method has to beat: the labeled images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot, smooth
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class Supervised(Checked):
    """Supervised (Berthelot et al. 2019), https://arxiv.org/abs/1905.02249.

    Cross-entropy on the labeled images alone, the baseline that every other method has to beat.
    """

    name: ClassVar[str] = "supervised"

    smoothing: Annotated[float, Range(0, 1)] = 0.0
    """Label smoothing: the share of a label that is spread evenly over all classes; 0.001 in google's
    fully_supervised/fs_baseline.py."""
    view: Literal["weak", "strong"] = "weak"
    """How strongly the labeled images are augmented."""

    def build(self, info: Info) -> Algorithm:
        return SupervisedLoss(info.classes, self.smoothing, self.view)


class SupervisedLoss(Algorithm):
    on_features = True

    def __init__(self, classes: int, smoothing: float, view: str) -> None:
        super().__init__()
        self.classes, self.smoothing = classes, smoothing
        self.views = Views(labeled=(view,), unlabeled=())

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,) = batch.x
        target = smooth(one_hot(batch.y, self.classes), self.smoothing) if self.smoothing else batch.y
        loss = cross_entropy(net(x), target).mean()
        return Losses(loss, log(loss=loss, loss_x=loss))
