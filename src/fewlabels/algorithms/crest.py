"""CReST+, a part: guesses that are aligned with the labels' shares, or with more even ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.alignment import RunningAlignment
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.slots import Part, Seen, guesses


class Progressive(Part):
    """Progressive distribution alignment of one generation (CReST+, Wei et al. 2021, https://arxiv.org/abs/2102.09559,
    section 3.3).

    Guesses P become ``P (p^t + 1e-6) / (m + 1e-6)``, normalised, with the shares p of the classes among the labels,
    ``p^t`` of sum 1, and the running mean m of P, which begins with the first mean and has the newest, over all ranks
    (USB, semilearn/imb_algorithms/crest). Confidence and labels are those of the aligned guesses.

    Args:
        shares: ``[K]`` above 0, of any sum.
        strength: t; 1 aligns with the shares, 0 with equal ones.
        momentum: weight of the old m in each step.
    """

    def __init__(self, step: Consistency, shares: Tensor, strength: float, momentum: float) -> None:
        super().__init__()
        self.usual_align = step.align
        goal = (shares.double() / shares.sum()) ** strength
        self.running = RunningAlignment(len(shares), momentum, (goal / goal.sum()).float())

    def join(self, step: Consistency) -> None:
        step.put("align", self.align)

    @torch.no_grad()
    def align(self, seen: Seen) -> Tensor:
        """Align: the usual guesses, aligned, ``[M, K]``."""
        aligned: Tensor = self.running(seen._replace(probs=guesses(self.usual_align, seen)))
        return aligned
