"""TRAS, a part: a second head for rare classes that learns from the net's own."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.balanced import HEAD, predict_by_balanced
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.slots import Part, Seen, guessed_by, started
from fewlabels.types import Info

LEAST, RANGE = 2.0, 2.0
"""The factor of the adjustment: the least of any class, and what rare classes have beside it, in all."""
TEMPERATURE = 2.0
"""Divides the teacher's logits."""


class Transferred(Part):
    """Transfer and share (TRAS, Wei et al. 2022, https://arxiv.org/abs/2205.13358).

    With the logarithms la of the classes' shares of the labels, the net guesses by ``z - la``. A second head a on the
    same features learns the labels by ``a + la`` and, of strong views whose weak view it is sure of, what the net's own
    head says of them after ``T_k la`` is taken off; T is larger where the class k that it takes them for is rare
    (Stomach-ache/TRAS). The second head predicts.

    Args:
        tau: confidence of the second head from which an unlabeled image counts in its loss.
        start: steps before unlabeled images count in it.
    """

    shift: Tensor
    """la, ``[K]`` float32."""
    factor: Tensor
    """T, ``[K]`` float32."""

    def __init__(self, step: Consistency, counts: Tensor, info: Info, tau: float, start: int) -> None:
        """counts: labeled images of each class, ``[K]``, at least 1."""
        super().__init__()
        self.usual, self.tau, self.start, self.steps = step.align, tau, start, info.steps
        shift = (counts.double() / counts.sum()).log()
        self.register_buffer("shift", shift.float(), persistent=False)
        self.register_buffer("factor", (LEAST + RANGE * (-shift).softmax(0)).float(), persistent=False)

    def join(self, step: Consistency, info: Info, weight: float, owner: str) -> None:
        predict_by_balanced(step, info, "tras", owner)
        step.put("align", self.align)
        step.add("loss_tras", weight, self.loss)

    def align(self, seen: Seen) -> Tensor:
        """Align: the guesses of the net's adjusted logits, ``[M, K]``."""
        return guessed_by(self.usual, seen, seen.weak.logits.detach() - self.shift)

    def loss(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: the loss of the second head, 0-d."""
        head, y = seen.net.heads[HEAD], seen.batch.y
        labeled = torch.stack([cross_entropy(head(view.features) + self.shift, y) for view in seen.labeled]).mean(0)
        with torch.no_grad():
            sure, guess = seen.teacher.heads[HEAD](seen.weak.features).float().softmax(1).max(1)
            kept = (sure >= self.tau).float() * started(seen, self.start, self.steps)
            shift = self.factor[guess, None] * self.shift
        seen.log["mask_tras"] = kept.mean()
        unlabeled = [
            cross_entropy(head(view.features), ((view.logits.detach() - shift) / TEMPERATURE).softmax(1))
            for view in seen.strong
        ]
        loss_u: Tensor = (seen.counts * kept * torch.stack(unlabeled).mean(0)).mean()
        return labeled.mean() + loss_u
