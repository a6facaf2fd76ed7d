"""Labels that are missing not at random, as parts of any algorithm of the consistency family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import class_thresholds, inverse_weights, log_importance, log_shares
from fewlabels.algorithms.slots import Part, Seen, Slot, Threshold
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.types import Info

PARTS = {"cap", "cai", "dr"}

FAR = 0.2
"""Total variation distance from equal shares above which the estimated shares are worth a remark."""


@dataclass(frozen=True)
class Missing(Checked):
    """What to do where the chance of having a label depends on the class (CADR, Hu et al. 2022,
    https://arxiv.org/abs/2206.14923)."""

    name: Annotated[Literal["none", "cap", "cai", "cap+cai", "cap+dr", "cadr"], Main] = "none"
    """`cap` weighs labeled images by the estimated share of their class, `cai` lowers the confidence that rare classes
    need, `dr` corrects the weights where the net is sure of a labeled image; `cadr` is all three."""
    _: KW_ONLY
    weighting: Literal["released", "weighted", "likelihood"] = "released"
    """`released`: minus the log of the weight is added to the loss, as in JoyHuYY1412/CADR-FixMatch, which pulls the
    predicted classes towards equal shares; `weighted`: the loss is multiplied by the weight, without `dr` in `cadr`;
    `likelihood`: as released, but without the mean of the weights over the batch, which collapsed in tests."""
    prior: Literal["running", "batch"] = "running"
    """Shares of the classes behind the weights: the running estimate, or those of the batch."""
    momentum: Annotated[float, Range(0, 1)] = 0.99
    """Weight of the old estimate of the shares in each step."""
    upper: Annotated[float, Range(0, None, low_open=True)] = 5.0
    """Largest weight of an unlabeled image in the running estimate's projection on the batch."""
    beta: Annotated[float, Range(0)] = 0.5
    """Exponent of `cai`: 0 leaves the confidence as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        users = {"weighting": {"cap"}, "prior": {"cap"}, "upper": {"cap"}, "beta": {"cai", "dr"}, "momentum": PARTS}
        for field, parts in users.items():
            if (value := getattr(self, field)) != getattr(type(self), field) and not self.parts & parts:
                raise ValueError(f"Missing.{field} {value} means nothing with Missing.name {self.name}")
        if self.prior == "batch" and self.upper != type(self).upper:
            raise ValueError(f"Missing.upper {self.upper:g} means nothing with Missing.prior batch")
        if self.weighting == "weighted" and self.name == "cap+dr":
            raise ValueError("Missing.name cap+dr has no correction with Missing.weighting weighted: use cap")

    @property
    def parts(self) -> set[str]:
        """Those of `PARTS` that are meant."""
        return PARTS if self.name == "cadr" else PARTS & set(self.name.split("+"))

    def join(self, step: Consistency, info: Info, owner: str) -> None:
        """Make it part of a step of the algorithm `owner`. Raises ValueError where that cannot be."""
        if not self.parts:
            return
        if step.loss_temperature != 1:
            raise ValueError(
                f"Missing.name {self.name} goes by the probabilities of the logits as they are, and "
                f"{owner}.loss_temperature {step.loss_temperature:g} trains others: set one of them otherwise"
            )
        tau = 0.0
        if self.parts & {"cai", "dr"}:
            if not isinstance(step.select, Threshold) or step.select.broadcast:
                raise ValueError(
                    f"Missing.name {self.name} lowers one confidence threshold class by class, and "
                    f"{step.selected_by or owner} selects its images in another way: use cap"
                )
            tau = step.select.tau
        if "cap" in self.parts and self.weighting != "weighted":
            step.need_weak_gradient(f"Missing.name {self.name}", owner)
        step.missing = shares = Shares(self, tau, step.select, step.labeled, info.classes)
        step.put("select", shares.select)
        step.put("labeled", shares.labeled)
        step.waits = "cap" in self.parts and self.prior == "running"


class Shares(Part):
    """Shares of the classes among the unlabeled images, and what follows from them.

    In each step the estimate takes in the mean guess about the weak views, over all ranks; the weights see it before,
    the thresholds after that, as in JoyHuYY1412/CADR-FixMatch, fixmatch.py.
    """

    prior: Tensor
    """The estimate, ``[K]``, of sum 1; it starts with equal shares."""

    def __init__(self, config: Missing, tau: float, select: Slot, labeled: Slot, classes: int) -> None:
        super().__init__()
        self.config, self.tau = config, tau
        self.usual_select, self.usual_labeled = select, labeled
        self.register_buffer("prior", torch.full((classes,), 1 / classes))
        self.before = torch.empty(0)
        """The estimate before the step."""

    def select(self, seen: Seen) -> Tensor:
        """Select: the usual weights, or 1 where the confidence is above that of the class, ``[M]`` float32."""
        config = self.config
        with torch.no_grad():
            self.before = self.prior.clone()
            guessed = parallel.mean(seen.weak.logits.detach().softmax(1).mean(0))
            # fp16 overflows now and then, and training goes on: one such step would stay in the estimate for ever
            guessed = torch.where(guessed.isfinite().all(), guessed, self.prior)
            self.prior.lerp_(guessed, 1 - config.momentum)
        seen.log["prior"] = self.prior.clone()
        if "cai" not in config.parts:
            return self.usual_select(seen)
        return self.sure(seen.probs)

    def sure(self, probs: Tensor) -> Tensor:
        """1 where the largest probability is above the threshold of its class, ``[N, K] -> [N]`` float32."""
        confidence, classes = probs.max(1)
        return (confidence > class_thresholds(self.tau, self.prior, self.config.beta)[classes]).float()

    def labeled(self, seen: Seen) -> Tensor:
        """Labeled: the usual losses with the importance of each image's class, ``[B]``."""
        usual, config = self.usual_labeled(seen), self.config
        if "cap" not in config.parts:
            return usual
        with torch.autocast(usual.device.type, enabled=False):
            shares = self.log_shares(seen)
            log_weights = self.log_weights(shares, seen.batch.y)
            if config.weighting == "weighted":
                return log_weights.detach().exp() * usual
            losses = usual - log_weights
            if "dr" in config.parts:
                probs = seen.labeled[0].logits.detach().softmax(1)
                sure = self.sure(probs)
                correction = sure * self.log_weights(shares, probs.argmax(1))
                seen.log["loss_dr"], seen.log["mask_dr"] = correction.detach().mean(), sure.mean()
                losses = losses + correction
            return losses

    def log_shares(self, seen: Seen) -> Tensor:
        """Logarithms of the shares in the batch, of all ranks, ``[K]``."""
        log_probs = parallel.joined(seen.weak.logits.float().log_softmax(1))
        if self.config.prior == "batch":
            return log_shares(log_probs)
        return log_shares(log_probs, inverse_weights(self.before, log_probs.exp(), self.config.upper))

    def log_weights(self, shares: Tensor, classes: Tensor) -> Tensor:
        """Logarithms of the importance of images of these classes, ``[B]``; their mean is over all ranks."""
        if self.config.weighting == "likelihood":
            return -shares[classes]
        own, start = len(classes), parallel.rank() * len(classes)
        return log_importance(shares, parallel.gather(classes))[start : start + own]

    def remarks(self, classes: Sequence[str]) -> list[str]:
        equal = 1 / len(self.prior)
        if self.config.weighting == "weighted" or "cap" not in self.config.parts:
            return []
        if float((self.prior - equal).abs().sum()) / 2 <= FAR:
            return []
        high, low = int(self.prior.argmax()), int(self.prior.argmin())
        return [
            f"the unlabeled images seem to be {100 * float(self.prior[high]):.0f} % {classes[high]} and "
            f"{100 * float(self.prior[low]):.1f} % {classes[low]}; --missing {self.config.name} as released pulls "
            f"towards {100 * equal:.3g} % of each: if they are not equal in truth, try --missing.weighting weighted"
        ]
