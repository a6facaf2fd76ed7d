"""Unsupervised data augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.functional import entropy, kl
from fewlabels.algorithms.slots import Seen, Threshold, annealed_labels
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Tokens


@dataclass(frozen=True, kw_only=True)
class UDA(Composed):
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

    def compose(self, info: Info) -> Consistency:
        step = Consistency(
            labeled=annealed_labels(self.tsa, self.tsa_ramp, info),
            select=Threshold(self.tau),
            unlabeled=self.divergence,
            terms={"entropy": (self.w_entropy, mean_entropy)},
            lambda_u=self.lambda_u,
            bn=self.bn,
            weak_gradient=f"UDA.w_entropy {self.w_entropy:g}" if self.w_entropy > 0 else None,
        )
        step.tokens = Tokens(cta=False)
        return step

    def divergence(self, seen: Seen, target: Tensor) -> Tensor:
        """``KL(softmax(weak / T) || strong)``, ``[M]``; no gradient through the weak view."""
        (strong,) = seen.strong
        seen.log["confidence_strong"] = strong.logits.detach().softmax(1).amax(1).mean()
        return kl(seen.weak.logits.detach() / self.temperature, strong.logits)


def mean_entropy(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Mean entropy of the weak views, with gradient, 0-d."""
    return entropy(seen.weak.logits).mean()
