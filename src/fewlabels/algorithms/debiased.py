"""DebiasPL, a part: guesses without what the net is inclined to say of any image."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.memory import follow
from fewlabels.algorithms.slots import Part, Seen, guessed_by
from fewlabels.runtime import parallel


class Debiased(Part):
    """Debiased pseudo-labels (DebiasPL, Wang et al. 2022, https://arxiv.org/abs/2201.01490).

    With q, the running mean of what the net says of weak views, these are guessed about by ``z - margin log q``; then q
    takes in the step, and the strong views are trained with ``z + margin log q``
    (frank-xwang/debiased-pseudo-labeling).

    Args:
        margin: of both; 0 changes nothing.
        momentum: weight of the old q in each step.
    """

    q: Tensor
    """``[K]`` float32, of sum 1, equal shares at first; over all ranks."""

    def __init__(self, step: Consistency, classes: int, margin: float, momentum: float) -> None:
        super().__init__()
        self.margin, self.momentum = margin, momentum
        self.usual_align, self.usual_unlabeled = step.align, step.unlabeled
        self.register_buffer("q", torch.full((classes,), 1 / classes))

    def join(self, step: Consistency) -> None:
        step.put("align", self.align)
        step.put("unlabeled", self.unlabeled)

    @torch.no_grad()
    def align(self, seen: Seen) -> Tensor:
        """Align: the guesses of the debiased logits, ``[M, K]``."""
        logits = seen.weak.logits.detach()
        probs = guessed_by(self.usual_align, seen, logits - self.bias)
        follow(self.q, parallel.mean(logits.softmax(1).mean(0)), self.momentum)
        seen.log["q"] = self.q.clone()
        return probs

    def unlabeled(self, seen: Seen, target: Tensor) -> Tensor:
        """Unlabeled: the usual losses with the margin on the strong views, ``[M]``."""
        strong = tuple(view._replace(logits=view.logits + self.bias) for view in seen.strong)
        return self.usual_unlabeled(seen._replace(strong=strong), target)

    @property
    def bias(self) -> Tensor:
        """``margin log q``, ``[K]``."""
        tiny = torch.finfo(self.q.dtype).tiny
        return self.margin * self.q.clamp_min(tiny).log()
