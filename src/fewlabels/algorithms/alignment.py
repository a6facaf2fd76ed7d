"""Alignment of the guesses by running means of what the net says."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.memory import follow
from fewlabels.algorithms.slots import Seen
from fewlabels.runtime import parallel


class RunningAlignment(nn.Module):
    """Align: ``p (p_target + 1e-6) / (p_model + 1e-6)``, normalised; both means have the newest batch, of all ranks.

    microsoft/Semi-supervised-learning (USB), semilearn/algorithms/hooks/dist_align.py.

    Args:
        momentum: weight of the old value in each step.
        goal: `p_target` is uniform, or the running mean of the predictions for the labeled images, or these shares,
            ``[K]`` of sum 1.
    """

    p_model: Tensor
    """Running mean of the guesses, ``[K]``; 0 before the first batch, whose mean is taken whole."""
    p_target: Tensor
    """``[K]``, uniform at first unless it is given."""

    def __init__(self, classes: int, momentum: float, goal: Literal["uniform", "model"] | Tensor) -> None:
        super().__init__()
        self.momentum, self.follows = momentum, isinstance(goal, str) and goal == "model"
        self.register_buffer("p_model", torch.zeros(classes))
        self.register_buffer("p_target", goal if isinstance(goal, Tensor) else torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """The guesses of a step, ``[M, K]``."""
        guessed = parallel.mean(seen.probs.mean(0))
        follow(self.p_model, guessed.lerp(self.p_model, self.p_model.any().float() * self.momentum), 0)
        if self.follows:
            labeled = seen.labeled[0].logits.detach().softmax(1)
            follow(self.p_target, parallel.mean(labeled.mean(0)), self.momentum)
        aligned = seen.probs * (self.p_target + 1e-6) / (self.p_model + 1e-6)
        return aligned / aligned.sum(1, keepdim=True)


class QueueAlignment(nn.Module):
    """Align: ``p / p_model``, normalised; `p_model` is the mean of the last batch means, the newest among them.

    salesforce/CoMatch, Train_CoMatch.py: it has only those rows that there are, which the normalisation makes equal.

    Args:
        eps: added to both class frequencies; 1e-6 in USB, semilearn/algorithms/hooks/dist_align.py.
    """

    recent: Tensor
    """Batch means of the guesses of all ranks, ``[slots, K]``; 0 where none has been written."""
    place: Tensor
    """Where the next is written, 0-d int64."""

    def __init__(self, classes: int, slots: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("recent", torch.zeros(slots, classes))
        self.register_buffer("place", torch.tensor(0))

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """The guesses of a step, ``[M, K]``."""
        slots, classes = self.recent.shape
        newest = parallel.mean(seen.probs.mean(0))
        here = (torch.arange(slots, device=newest.device) == self.place)[:, None] & newest.isfinite().all()
        self.recent.copy_(torch.where(here, newest, self.recent))
        self.place.copy_((self.place + 1) % slots)
        p_model = self.recent.mean(0)
        aligned = seen.probs * (1 / classes + self.eps) / (p_model + self.eps).clamp_min(1e-30)
        return aligned / aligned.sum(1, keepdim=True)
