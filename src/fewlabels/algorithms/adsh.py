"""Adsh, a part: a confidence threshold for each class, that of which as large a share passes as of the largest."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import counted, share_of_each
from fewlabels.algorithms.slots import Part, Seen, Threshold


class Adaptive(Part):
    """Adaptive thresholding (Adsh, Guo and Li 2022, https://proceedings.mlr.press/v162/guo22e.html).

    Of the images that the averaged model takes for the class with the most labels, a share has the confidence tau; the
    threshold of each class is what the same share of its own images reaches, and at most tau. It is found anew every so
    many steps; until then, and while no image of the largest class has that confidence, the thresholds stay
    (semilearn/imb_algorithms/adsh of microsoft/Semi-supervised-learning, without its faults).
    """

    limits: Tensor
    """The thresholds, ``[K]`` float32; tau at first."""

    def __init__(self, counts: Tensor, tau: float) -> None:
        """counts: labeled images of each class, ``[K]``."""
        super().__init__()
        self.tau, self.head = tau, int(counts.argmax())
        self.register_buffer("limits", torch.full((len(counts),), tau))

    def join(self, step: Consistency, every: int, owner: str) -> None:
        if not isinstance(step.select, Threshold) or step.select.broadcast:
            raise ValueError(
                "Imbalance.name adsh has a confidence threshold for each class in place of one for all, and "
                f"{owner} selects its images in another way: use saw or debiased"
            )
        step.put("select", self.select)
        step.refresh_every, step.selected_by = every, "Imbalance.name adsh"

    def select(self, seen: Seen) -> Tensor:
        """Select: 1 where the largest probability reaches the threshold of its class, ``[M]`` float32."""
        seen.log["limits"] = self.limits.clone()
        confidence, guess = seen.probs.max(1)
        return (confidence >= self.limits[guess]).float()

    @torch.no_grad()
    def refresh(self, logits: Tensor) -> None:
        confidence, guess = logits.softmax(1).max(1)
        counts = counted(guess, len(self.limits))
        sure = ((guess == self.head) & (confidence >= self.tau)).sum()
        found = share_of_each(confidence, guess, sure / counts[self.head].clamp_min(1), len(self.limits))
        found = torch.where((counts > 0) & (sure > 0), found.clamp(max=self.tau), self.limits)
        self.limits.copy_(found)
