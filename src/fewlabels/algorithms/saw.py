"""SAW, a part: losses weighted by the effective number of images of each class, labels and guesses apart."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import counted, effective_weights
from fewlabels.algorithms.slots import Part, Seen


class Smoothed(Part):
    """Smoothed adaptive weights (SAW, Lai et al. 2022, https://proceedings.mlr.press/v162/lai22b.html).

    The loss of a labeled image has the weight of its class, by the counts of the labels; that of an unlabeled image
    the weight of its guessed class, by what the averaged model takes the unlabeled images for, which is counted anew
    every so many steps (microsoft/Semi-supervised-learning, semilearn/imb_algorithms/saw). Until then all are 1.
    """

    labeled_weights: Tensor
    """``[K]`` float32, of mean 1 over the classes."""
    unlabeled_weights: Tensor
    """The same of the guesses."""

    def __init__(self, step: Consistency, counts: Tensor) -> None:
        """counts: labeled images of each class, ``[K]``, at least 1."""
        super().__init__()
        self.usual_labeled, self.usual_unlabeled = step.labeled, step.unlabeled
        self.register_buffer("labeled_weights", effective_weights(counts), persistent=False)
        self.register_buffer("unlabeled_weights", torch.ones(len(counts)))

    def join(self, step: Consistency, every: int) -> None:
        step.put("labeled", self.labeled)
        step.put("unlabeled", self.unlabeled)
        step.refresh_every = every

    def labeled(self, seen: Seen) -> Tensor:
        """Labeled: the usual losses with the weights of their classes, ``[B]``."""
        return self.labeled_weights[seen.batch.y] * self.usual_labeled(seen)

    def unlabeled(self, seen: Seen, target: Tensor) -> Tensor:
        """Unlabeled: the usual losses with the weights of the guessed classes, ``[M]``."""
        seen.log["weights"] = self.unlabeled_weights.clone()
        guess = target if target.ndim == 1 else target.argmax(1)
        return self.unlabeled_weights[guess] * self.usual_unlabeled(seen, target)

    @torch.no_grad()
    def refresh(self, logits: Tensor) -> None:
        counts = counted(logits.argmax(1), logits.shape[1])
        self.unlabeled_weights.copy_(effective_weights(counts.clamp_min(1)))
