"""Unsupervised data augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fewlabels import parallel
from fewlabels.algorithms.base import Algorithm, Passes, log, split_logits
from fewlabels.checked import Checked, Range
from fewlabels.functional import annealed, cross_entropy, entropy, kl
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class UDA(Checked):
    """UDA (Xie et al. 2020), https://arxiv.org/abs/1904.12848.

    What the net says with confidence about a weak view, sharpened, is what it is to say about the strong view;
    labeled images that it knows too well already can be left out.
    """

    name: ClassVar[str] = "uda"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which an unlabeled image counts (google-research/fixmatch, uda.py; the paper has 0.8)."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    w_entropy: Annotated[float, Range(0)] = 0.0
    """Weight of the mean entropy of the weak views (google-research/fixmatch, uda.py)."""
    temperature: Annotated[float, Range(0, low_open=True)] = 1.0
    """Sharpens the targets; below 1 makes them more certain (google-research/fixmatch, uda.py; the paper has
    0.4)."""
    tsa: Literal["none", "linear", "log", "exp"] = "none"
    """Training signal annealing: labeled images whose class has more probability than a threshold, which grows
    from 1 / classes to 1, do not count; early (`log`), evenly, or late (`exp`)."""
    tsa_ramp: Annotated[int, Range(1)] = 65536
    """Steps in which the threshold grows (google-research/fixmatch, uda.py)."""

    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def build(self, info: Info) -> Algorithm:
        if self.bn == "separate-weak" and self.w_entropy > 0:
            raise ValueError(
                f"UDA.w_entropy {self.w_entropy:g} needs the gradient of the weak views, which UDA.bn separate-weak "
                "leaves out: set one of them otherwise"
            )
        return UDALoss(self, info)


class UDALoss(Algorithm):
    views = Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def __init__(self, config: UDA, info: Info) -> None:
        super().__init__()
        self.config, self.info = config, info

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        config = self.config
        (x,), (weak, strong) = batch.x, batch.u
        labeled_logits, weak_logits, strong_logits = split_logits(net, x, weak, strong, config.bn)

        counts = self.counts(labeled_logits, batch)
        share = parallel.mean(counts.mean())
        # sum over the images that count / their number: over all ranks, and 0 if there are none
        loss_x = (counts * cross_entropy(labeled_logits, batch.y)).mean() / share.clamp_min(1 / self.info.batch)

        confidence, label = weak_logits.detach().softmax(1).max(1)
        mask = (confidence >= config.tau).float()
        loss_u = (mask * kl(weak_logits.detach() / config.temperature, strong_logits)).mean()
        mean_entropy = entropy(weak_logits).mean()

        total = loss_x + config.lambda_u * loss_u + config.w_entropy * mean_entropy
        logged = log(
            loss=total,
            loss_x=loss_x,
            loss_u=loss_u,
            entropy=mean_entropy,
            mask=mask.mean(),
            mask_sup=counts.mean(),
            confidence=confidence.mean(),
            confidence_strong=strong_logits.detach().softmax(1).amax(1).mean(),
        )
        return Losses(total, logged, pseudo=label, kept=mask)

    def counts(self, logits: Tensor, batch: Batch) -> Tensor:
        """1 for the labeled images that the net does not know too well yet, ``[B]`` float32."""
        config = self.config
        if config.tsa == "none":
            return torch.ones(len(logits), device=logits.device)
        right = logits.detach().softmax(1).gather(1, batch.y[:, None])[:, 0]
        share = batch.progress * (self.info.steps / config.tsa_ramp)
        return (right <= annealed(share, config.tsa, self.info.classes)).float()
