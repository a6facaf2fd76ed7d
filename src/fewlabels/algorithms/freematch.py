"""FreeMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.composed import Guided
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import fairness, one_hot, quantile
from fewlabels.algorithms.memory import follow
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class FreeMatch(Guided):
    """FreeMatch (Wang et al. 2023), https://arxiv.org/abs/2205.07246.

    FixMatch whose threshold is the running confidence of the net, lower for classes that it predicts less often; a
    further term acts on the shares of the classes among what it says of the strong views.
    """

    name: ClassVar[str] = "freematch"

    ema_p: Annotated[float, Range(0, 1)] = 0.999
    """Weight of the old value in the running means; 1 keeps them as they start, at 1 / classes."""
    w_fairness: Annotated[float, Range(0)] = 0.01
    """Weight of the fairness term (TorchSSL; USB has 0.001)."""
    clip: Literal["none", "thresholds", "usb"] = "none"
    """`thresholds` keeps that of each class in 0.9..0.95, as TorchSSL does on SVHN; `usb` keeps the running confidence
    at 0.95 or below, as USB does there."""
    quantile: Annotated[float | None, Range(0, 1)] = None
    """The running confidence follows this quantile of the confidences of a batch (USB: 0.8); None: their mean."""

    def compose(self, info: Info) -> Consistency:
        adaptive = SelfAdaptive(self, info.classes)
        return self.guided(select=adaptive, terms={"loss_fair": (self.w_fairness, adaptive.fairness)})


class SelfAdaptive(nn.Module):
    """Select: thresholds by class from running means, which take in the batch of all ranks before they are used."""

    time_p: Tensor
    """Running confidence, 0-d."""
    p_model: Tensor
    """Running mean of the guesses, ``[K]``."""
    label_hist: Tensor
    """Running shares of the classes that the images are taken for, ``[K]``."""

    def __init__(self, config: FreeMatch, classes: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("time_p", torch.tensor(1 / classes))
        self.register_buffer("p_model", torch.full((classes,), 1 / classes))
        self.register_buffer("label_hist", torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def take_in(self, probs: Tensor) -> None:
        """The guesses of a step, ``[M, K]``."""
        config, confidence = self.config, probs.amax(1)
        if config.quantile is None:
            newest = parallel.mean(confidence.mean())
        else:
            newest = quantile(parallel.gather(confidence), config.quantile)
        follow(self.time_p, newest, config.ema_p)
        if config.clip == "usb":
            self.time_p.clamp_(max=0.95)
        follow(self.p_model, parallel.mean(probs.mean(0)), config.ema_p)
        follow(self.label_hist, parallel.mean(one_hot(probs.argmax(1), probs.shape[1]).mean(0)), config.ema_p)

    def thresholds(self) -> Tensor:
        """``[K]``; equation 8."""
        thresholds = self.time_p * (self.p_model / self.p_model.max())
        return thresholds.clamp(0.9, 0.95) if self.config.clip == "thresholds" else thresholds

    def forward(self, seen: Seen) -> Tensor:
        """1 where the guess reaches the threshold of its class, ``[M]`` float32."""
        self.take_in(seen.probs)
        thresholds = self.thresholds()
        seen.log["tau"] = thresholds
        highest, guess = seen.probs.max(1)
        return (highest >= thresholds[guess]).float()

    def fairness(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: over the images of all ranks, 0-d."""
        probs = parallel.joined(seen.strong[-1].logits.softmax(1))
        return fairness(probs, parallel.gather(mask), self.p_model, self.label_hist)
