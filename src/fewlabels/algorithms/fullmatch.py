"""FullMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from fewlabels.algorithms.composed import Guided
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.flexmatch import threshold
from fewlabels.algorithms.functional import over
from fewlabels.algorithms.slots import Seen, started
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class FullMatch(Guided):
    """FullMatch (Chen et al. 2023), https://arxiv.org/abs/2303.11066.

    FixMatch with two losses that use all images: which classes an image is none of, and that the other classes than the
    guessed one are alike.
    """

    name: ClassVar[str] = "fullmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts; a class whose probability in the strong view is above its square is
    left out of both further losses."""
    flexible: bool = False
    """FlexMatch's thresholds by class, which are low at first."""
    w_negative: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on the classes that an image is none of."""
    w_meaning: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on the classes between those and the guessed one (entropy meaning loss)."""
    start: Annotated[int, Range(0)] = 0
    """Steps before the further losses."""

    def compose(self, info: Info) -> Consistency:
        full = Competition(self, info.steps)
        terms = {"loss_negative": (self.w_negative, full.negative), "loss_meaning": (self.w_meaning, full.meaning)}
        return self.guided(select=threshold(self.tau, info, flexible=self.flexible), terms=terms)


class Competition:
    """The classes of each image beyond the guessed one: those that compete with it, and those that it is none of."""

    def __init__(self, config: FullMatch, steps: int) -> None:
        self.config, self.steps = config, steps

    def order(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The place of each class of each image by the weak view, 0 for the most probable one, ``[M, K]`` int64; and k,
        0-d: the smallest number with which the guess of every weak view, of all ranks, is among the k most probable
        classes of its strong view, at least 2."""
        guess = seen.probs.argmax(1, keepdim=True)
        strong = seen.strong[0].logits.detach().sort(stable=True, dim=1, descending=True).indices
        k = parallel.maximum((strong == guess).int().argmax(1).max() + 1).clamp_min(2)
        return seen.probs.sort(stable=True, dim=1, descending=True).indices.argsort(1), k

    def free(self, q: Tensor) -> Tensor:
        """Which classes the strong view says little of, ``[M, K]`` bool, of its probabilities."""
        return q.detach() <= self.config.tau**2

    def negative(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: ``- ln(1 - q)`` of the classes that an image is none of (adaptive negative learning), 0-d."""
        (place, k), q = self.order(seen), seen.strong[0].logits.softmax(1)
        seen.log["k"] = k.float()
        losses = -(1 - q + 1e-10).log() * ((place >= k) & self.free(q))
        return (seen.counts * losses.sum(1)).mean() * started(seen, self.config.start, self.steps)

    def meaning(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: binary cross-entropy of the competing classes, of the images with a confident guess, with what is left
        for each of them, shared equally; mean over image and class, of all ranks, 0-d."""
        (place, k), q = self.order(seen), seen.strong[0].logits.softmax(1)
        taken = (q * ((place >= k) | (place == 0))).sum(1, keepdim=True)
        share = (1 - taken + 1e-7) / (k - 1)
        losses = -(share * (q + 1e-10).log() + (1 - share) * (1 - q + 1e-10).log())
        counts = ((place > 0) & (place < k) & self.free(q)) * mask[:, None]
        return over((losses * counts).sum(), parallel.mean(counts.sum())) * started(seen, self.config.start, self.steps)
