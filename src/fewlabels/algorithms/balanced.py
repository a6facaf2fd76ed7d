"""ABC, a part: a second head that sees as much of each class as of the rarest, and predicts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.slots import Part, Seen
from fewlabels.types import Info, Net, Outputs

HEAD = "balanced"
"""The name of a head that predicts in place of the net's own."""


def by_balanced(net: Net, features: Tensor) -> Tensor:
    """Rule: the logits of that head, ``[N, D] -> [N, K]``."""
    logits: Tensor = net.heads[HEAD](features)
    return logits


def predict_by_balanced(step: Consistency, info: Info, part: str, owner: str) -> None:
    """Have the model of the algorithm `owner` predict by such a head, of the part of that name."""
    step.predict_by(HEAD, nn.Linear(info.features, info.classes), by_balanced, f"Imbalance.name {part}", owner)


class Balanced(Part):
    """Auxiliary balanced classifier (ABC, Lee et al. 2021, https://arxiv.org/abs/2110.10368).

    A linear head g on the features f, with the shares ``b_k = min n / n_k`` of the labels n of each class. Labeled
    images count with the chance b of their class; unlabeled ones, where g is sure of them, with one that falls from 1
    to b of the guessed class in the course of the training (LeeHyuck/ABC, ABCfix.py).

    Args:
        tau: confidence of g from which a guess counts.
        target: what the strong views learn, the probabilities of g as in the authors' code, or its class as in USB's.
        masks: images count or not by chance, or all of them with that chance for a weight.
        reach: how far the loss of the head goes back, into the body as in the paper or no further than the head.
    """

    share: Tensor
    """b, ``[K]`` float32, from 0 to 1."""

    def __init__(
        self,
        counts: Tensor,
        tau: float,
        target: Literal["soft", "hard"],
        masks: Literal["sampled", "expected"],
        reach: Literal["body", "head"],
    ) -> None:
        """counts: labeled images of each class, ``[K]``, at least 1."""
        super().__init__()
        self.tau, self.target, self.masks, self.reach = tau, target, masks, reach
        self.register_buffer("share", (counts.min() / counts).float(), persistent=False)

    def join(self, step: Consistency, info: Info, weight: float, owner: str) -> None:
        predict_by_balanced(step, info, "abc", owner)
        step.add("loss_abc", weight, self.loss)
        step.draws = step.draws or self.masks == "sampled"

    def loss(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: the loss of the head, 0-d."""
        y = seen.batch.y
        with torch.no_grad():
            probs = seen.teacher.heads[HEAD](seen.weak.features).float().softmax(1)
            sure, guess = probs.max(1)
            kept = (sure >= self.tau) * self.counted(seen, "unlabeled", self.chance(seen, guess))
        losses_u = self.losses(seen, seen.strong, probs if self.target == "soft" else guess)
        loss_x = (self.counted(seen, "labeled", self.share[y]) * self.losses(seen, seen.labeled, y)).mean()
        seen.log["mask_abc"] = kept.mean()
        loss_u: Tensor = (seen.counts * kept * losses_u).mean()
        return loss_x + loss_u

    def chance(self, seen: Seen, guess: Tensor) -> Tensor:
        """``1 - r (1 - b)`` of the guessed classes, where r is the progress, ``[M]``."""
        return 1 - seen.batch.progress * (1 - self.share[guess])

    def counted(self, seen: Seen, purpose: str, chance: Tensor) -> Tensor:
        """Weights ``[n]`` float32 with these expected values."""
        if self.masks == "expected":
            return chance
        return (seen.batch.rng.uniform(f"abc-{purpose}", len(chance)) < chance).float()

    def losses(self, seen: Seen, views: tuple[Outputs, ...], target: Tensor) -> Tensor:
        """Cross-entropy of the head, mean over the views, ``[n]``."""
        head = seen.net.heads[HEAD]
        features = [view.features if self.reach == "body" else view.features.detach() for view in views]
        return torch.stack([cross_entropy(head(f), target) for f in features]).mean(0)
