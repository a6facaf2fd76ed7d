"""DASO, a part: guesses of frequent classes are mixed with what the features of the labeled images say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import counted, cross_entropy
from fewlabels.algorithms.memory import ClassQueues
from fewlabels.algorithms.slots import Part, Seen, guesses, started, step_of
from fewlabels.runtime import parallel
from fewlabels.types import Info


class Semantic(Part):
    """Distribution-aware semantics-oriented pseudo-labels (DASO, Oh et al. 2022, https://arxiv.org/abs/2106.05682).

    An image's semantic guess is the softmax of the cosines between its feature and the mean feature of each class, of
    the last labeled images as the averaged model sees them. It takes the place of the net's guess to the degree that
    the guessed class is frequent among the guesses of the last steps; and the strong views learn it as their own
    cosines (ytaek-oh/daso).

    Args:
        queue: labeled images of each class that are kept.
        temperature: divides the cosines.
        blend: temperature of the shares; the higher, the more the rare classes are mixed, too.
        start: steps before either; guesses are counted from the first step on.
        every: steps whose guesses are counted together.
    """

    shares: Tensor
    """How often each class was guessed in the last full count, ``[K]`` float32."""
    fresh: Tensor
    """The same of the count that goes on."""

    def __init__(
        self, step: Consistency, info: Info, queue: int, temperature: float, blend: float, start: int, every: int
    ) -> None:
        super().__init__()
        self.usual, self.steps = step.align, info.steps
        self.temperature, self.blend, self.start, self.every = temperature, blend, start, every
        self.labeled = ClassQueues(info.classes, queue, info.features)
        self.register_buffer("shares", torch.zeros(info.classes))
        self.register_buffer("fresh", torch.zeros(info.classes))
        self.means = self.semantic = torch.empty(0)
        """Of the step: ``[K, D]`` on the sphere, and ``[M, K]``."""

    def join(self, step: Consistency, weight: float) -> None:
        step.put("align", self.align)
        step.add("loss_daso", weight, self.loss)

    @torch.no_grad()
    def align(self, seen: Seen) -> Tensor:
        """Align: blended guesses, ``[M, K]``, after the labeled images of the step have entered the queues."""
        assert seen.average is not None
        if seen.batch.rng.turn == 0:
            self.begin(step_of(seen, self.steps) % self.every == 0)
        probs = guesses(self.usual, seen)
        self.labeled.write(seen.average.features(seen.batch.x[0]), seen.batch.y)
        self.means = normalize(self.labeled.means())
        self.semantic = self.cosines(seen.weak.features.detach()).softmax(1)
        powers = (self.shares / self.shares.amax().clamp_min(1)) ** (1 / self.blend)
        share = (powers[probs.argmax(1)] * started(seen, self.start, self.steps))[:, None]
        blended = (1 - share) * probs + share * self.semantic
        self.fresh += counted(parallel.gather(blended.argmax(1)), len(self.fresh)).float()
        seen.log["blended"] = share.mean()
        return blended

    def begin(self, anew: Tensor) -> None:
        """Where a count begins anew, 0-d bool, the one before it is what the steps go by from now on."""
        self.shares.copy_(torch.where(anew, self.fresh, self.shares))
        self.fresh.copy_(torch.where(anew, 0.0, self.fresh))

    def cosines(self, features: Tensor) -> Tensor:
        """With the mean feature of each class, over the temperature, ``[N, D] -> [N, K]``; 0 where it has none."""
        return normalize(features) @ self.means.T / self.temperature

    def loss(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: cross-entropy of the strong views' cosines against the semantic guess, 0-d; 0 before the start."""
        losses = [cross_entropy(self.cosines(view.features), self.semantic) for view in seen.strong]
        return (seen.counts * torch.stack(losses).mean(0)).mean() * started(seen, self.start, self.steps)
