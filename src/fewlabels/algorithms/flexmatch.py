"""FlexMatch."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.slots import Seen, hard, soft
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class FlexMatch(Composed):
    """FlexMatch (Zhang et al. 2021), https://arxiv.org/abs/2110.08263.

    Classes that the net has learned less well need less confidence.
    """

    name: ClassVar[str] = "flexmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts, for the class that is learned best."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    warmup: bool = True
    """Thresholds stay low as long as most images were never confident."""
    mapping: Literal["convex", "linear", "low-limit", "concave"] = "convex"
    """From how well a class is learned, 0 to 1, to its threshold as a share of `tau`."""
    target: Literal["hard", "soft"] = "hard"
    """Pseudo-label: the most probable class, or the probabilities."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens a soft target."""

    def compose(self, info: Info) -> Consistency:
        target = hard if self.target == "hard" else soft(self.temperature)
        return Consistency(select=Flexible(self, info), target=target, lambda_u=self.lambda_u)


class Flexible(nn.Module):
    """Select by a threshold for each class (section 3; TorchSSL, models/flexmatch), over all ranks."""

    last: Tensor
    """What each unlabeled image was last taken for with confidence `tau`, -1 for nothing yet, ``[N]`` int64."""

    def __init__(self, config: FlexMatch, info: Info) -> None:
        super().__init__()
        self.config, self.classes = config, info.classes
        self.register_buffer("last", torch.full((info.unlabeled,), -1))

    def thresholds(self) -> Tensor:
        """Those of the next step, ``[K]`` float32."""
        counts = self.last.new_zeros(self.classes + 1).scatter_add_(0, self.last + 1, torch.ones_like(self.last))
        beta = counts[1:] / counts[0 if self.config.warmup else 1 :].max().clamp_min(1)
        share = {
            "convex": beta / (2 - beta),
            "linear": (beta + 1) / 2,
            "low-limit": 1 / (2 - beta),
            "concave": (beta.log1p() + 0.5) / (math.log(2) + 0.5),
        }
        return self.config.tau * share[self.config.mapping]

    def forward(self, seen: Seen) -> Tensor:
        """1 where the largest probability reaches the threshold of its class, else 0, ``[M]`` float32."""
        confidence, guess = seen.probs.max(1)
        mask = (confidence >= self.thresholds()[guess]).float()
        sure = torch.where(confidence >= self.config.tau, guess, -1)
        index, sure = parallel.gather(torch.stack((seen.batch.index, sure), 1)).unbind(1)
        # of an image that is in the batch twice, the last row that is sure; indexing would leave open which
        rows = torch.where(sure >= 0, torch.arange(len(sure), device=sure.device), -1)
        newest = torch.full_like(self.last, -1).scatter_reduce_(0, index, rows, "amax")
        self.last.copy_(torch.where(newest >= 0, sure[newest], self.last))
        return mask
