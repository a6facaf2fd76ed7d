"""CoSSL, a part: a balanced head on the features of the averaged net, which guesses and predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.balanced import HEAD, by_balanced, predict_by_balanced
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.slots import Part, Seen, guesses, started
from fewlabels.runtime import parallel
from fewlabels.types import Info


class CoLearned(Part):
    """Co-learning of features and a balanced head (CoSSL, Fan et al. 2022, https://arxiv.org/abs/2112.04564).

    A linear head h learns the labels on the averaged net's features, each class as much as any other; the smaller a
    class, the more often its feature is blended with that of an unlabeled image, and keeps its label. Late in the
    training, what h says of the averaged net's features of the weak views takes the place of the guesses
    (YUE-FAN/CoSSL). No loss of h reaches the body.

    Args:
        least: the least share of a labeled image's own feature in a blend.
        start: steps before h guesses.
    """

    weights: Tensor
    """Of the labeled images of each class, ``[K]`` float32: together each class has the same."""
    chance: Tensor
    """Of being blended, ``[K]`` float32: 0 for the largest class."""

    def __init__(self, step: Consistency, counts: Tensor, info: Info, least: float, start: int) -> None:
        """counts: labeled images of each class, ``[K]``, at least 1."""
        super().__init__()
        self.usual, self.least, self.start, self.steps = step.align, least, start, info.steps
        self.register_buffer("weights", (counts.sum() / (len(counts) * counts)).float(), persistent=False)
        self.register_buffer("chance", (1 - counts / counts.max()).float(), persistent=False)

    def join(self, step: Consistency, info: Info, weight: float, owner: str) -> None:
        predict_by_balanced(step, info, "cossl", owner)
        step.put("align", self.align)
        step.add("loss_cossl", weight, self.loss)
        step.draws = True

    @torch.no_grad()
    def align(self, seen: Seen) -> Tensor:
        """Align: the usual guesses, and from the start on those of the averaged net and head, ``[M, K]``."""
        assert seen.average is not None
        usual = guesses(self.usual, seen)
        logits = by_balanced(seen.average, seen.average.features(seen.batch.u[0])).float()
        return torch.where(started(seen, self.start, self.steps), logits.softmax(1), usual)

    def loss(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: the loss of the head, 0-d."""
        y = seen.batch.y
        with torch.no_grad():
            blended = self.blended(seen)
        return (self.weights[y] * cross_entropy(seen.net.heads[HEAD](blended), y)).mean()

    def blended(self, seen: Seen) -> Tensor:
        """The averaged net's features of the labeled images, some of them mixed with those of unlabeled ones of any
        rank, but none that is set aside, ``[B, D]``."""
        assert seen.average is not None
        batch, rng = seen.batch, seen.batch.rng
        own, other = (seen.average.features(view).float() for view in (batch.x[0], batch.u[-1]))
        other, counts = parallel.gather(other), parallel.gather(seen.counts)
        draws = rng.uniform("cossl", len(own), 3)
        pick = (draws[:, 2] * len(other)).long().clamp(max=len(other) - 1)
        away = (1 - self.least) * draws[:, 1] * (draws[:, 0] < self.chance[batch.y]) * counts[pick]
        return own.lerp(other[pick], away[:, None])
