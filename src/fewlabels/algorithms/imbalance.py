"""Classes with few labels, as a part of any algorithm of the consistency family."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.slots import Part, Seen, Slot
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.types import Info


@dataclass(frozen=True)
class Imbalance(Checked):
    """What to do where some classes have more labels than others and all are to be predicted alike."""

    name: Annotated[Literal["none", "adjust", "reweight"], Main] = "none"
    """`adjust` trains with logits that are raised by the logarithm of the class's share of the labels (logit
    adjustment, Menon et al. 2021, https://arxiv.org/abs/2007.07314, equation 10; the net learns what is left, and
    predicts without them); `reweight` multiplies the loss of a labeled image by one over that share."""
    _: KW_ONLY
    strength: Annotated[float, Range(0)] = 1.0
    """Factor of the logarithms, or power of the weights: 0 changes nothing."""
    scale: Literal["mean", "largest"] = "mean"
    """`reweight`: the weights are 1 on average over the labeled images, or 1 for the largest class and more for all
    others, as in JoyHuYY1412/CADR-FixMatch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name == "none" and self.strength != type(self).strength:
            raise ValueError(f"Imbalance.strength {self.strength:g} means nothing with Imbalance.name none")
        if self.name != "reweight" and self.scale != type(self).scale:
            raise ValueError(f"Imbalance.scale {self.scale} means nothing with Imbalance.name {self.name}")

    def join(self, step: Consistency, info: Info, owner: str) -> None:
        """Make it part of a step of the algorithm `owner`."""
        if self.name == "none":
            return
        step.imbalance = balance = Balance(self, step.labeled, info.labeled_counts)
        step.put("labeled", balance.labeled)


class Balance(Part):
    """What is known of the classes beforehand; no state."""

    by_class: Tensor
    """Added to the logits (`adjust`) or factor of the loss (`reweight`), ``[K]`` float32."""

    def __init__(self, config: Imbalance, usual: Slot, counts: Tensor) -> None:
        """counts: labeled images of each class, ``[K]``; a class without any counts as if it had one."""
        super().__init__()
        self.config, self.usual = config, usual
        counts = counts.double().clamp_min(1)
        if config.name == "adjust":
            by_class = config.strength * (counts / counts.sum()).log()
        else:
            by_class = (counts.amax() / counts) ** config.strength
            if config.scale == "mean":
                by_class = by_class * counts.sum() / (by_class * counts).sum()
        self.register_buffer("by_class", by_class.float(), persistent=False)

    def labeled(self, seen: Seen) -> Tensor:
        """Labeled: the usual losses, of adjusted logits or times the weight of each image's class, ``[B]``."""
        if self.config.name == "reweight":
            return self.by_class[seen.batch.y] * self.usual(seen)
        views = tuple(view._replace(logits=view.logits + self.by_class) for view in seen.labeled)
        return self.usual(seen._replace(labeled=views))
