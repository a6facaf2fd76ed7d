"""IOMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.alignment import QueueAlignment
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.functional import cross_entropy, one_vs_all, pairs
from fewlabels.algorithms.openset import PAIRS, OpenSet
from fewlabels.algorithms.slots import Seen, Threshold, hard, probabilities, started
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Net

PROJECTOR, OPEN = "projector", "open"
"""Names of heads: what the two others see, ``[N, D] -> [N, P]``, and the open-set head, ``[N, P] -> [N, K + 1]``."""


@dataclass(frozen=True, kw_only=True)
class IOMatch(Composed):
    """IOMatch (Li et al. 2023), https://arxiv.org/abs/2308.13168.

    Unlabeled images of no known class are learned from, too: as one class more, of a second head. What one-vs-all
    classifiers say of each class tells how much of the net's guess goes there, and the net itself leaves such images
    out.
    """

    name: ClassVar[str] = "iomatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    inlier: Annotated[float, Range(0, 1)] = 0.5
    """Probability of being of a known class from which it counts."""
    tau_open: Annotated[float, Range(0, 1)] = 0.5
    """Confidence of the target with one class more from which it counts."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    w_ova: Annotated[float, Range(0)] = 1.0
    """Weight of the loss of the one-vs-all classifiers on labeled images."""
    w_open: Annotated[float, Range(0)] = 1.0
    """Weight of the loss of the open-set head."""
    open_start: Annotated[float, Range(0, 1)] = 0.00390625
    """Share of the training before that loss; the default is one epoch of 256."""
    target: Literal["soft", "hard"] = "soft"
    """What both heads learn of unlabeled images: probabilities, or the most probable class."""
    alignment: Literal["none", "uniform"] = "none"
    """Of the guesses, by the mean of the last batch means, towards classes of equal shares (`uniform` on CIFAR-100)."""
    align_slots: Annotated[int, Range(1)] = 128
    """How many batch means."""
    width: Annotated[int, Range(1)] = 128
    """Size of a projection."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def compose(self, info: Info) -> Consistency:
        d, classes = info.features, info.classes
        open_set = OpenSetLoss(self, info.steps)
        return Consistency(
            align=QueueAlignment(classes, self.align_slots, 1e-6) if self.alignment == "uniform" else None,
            target=probabilities if self.target == "soft" else hard,
            select=Threshold(self.tau),
            terms={"loss_ova": (self.w_ova, ova_of_labels), "loss_open": (self.w_open, open_set)},
            lambda_u=self.lambda_u,
            bn=self.bn,
            heads={
                PROJECTOR: nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, self.width)),
                PAIRS: nn.Linear(self.width, 2 * classes, bias=False),
                OPEN: nn.Linear(self.width, classes + 1),
            },
        )

    def build(self, info: Info) -> Consistency:
        if self.openset.name != "none":
            raise ValueError(
                "IOMatch leaves out images of no class by heads of its own, and OpenSet.name "
                f"{self.openset.name} would do so in another way: leave that at none"
            )
        step = super().build(info)
        own = OpenSet("ova", by="value", threshold=self.inlier, start=0.0, momentum=0.0)
        own.set_aside(step, info, known)
        return step


def projected(net: Net, features: Tensor) -> Tensor:
    """What the two other heads see, ``[N, D] -> [N, P]``."""
    projection: Tensor = net.heads[PROJECTOR](features)
    return projection


def ova_of_labels(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Term: the one-vs-all loss of the labeled images, 0-d."""
    return one_vs_all(seen.net.heads[PAIRS](projected(seen.net, seen.labeled[0].features)), seen.batch.y).mean()


@torch.no_grad()
def opened(seen: Seen) -> Tensor:
    """Guesses with a class more for what is of none, ``[M, K + 1]`` of sum 1: ``p_k r_1k``, and at last
    ``sum_k p_k r_0k``, with the guesses p of the step and the `pairs` r of the weak views (nukezil/IOMatch)."""
    net = seen.teacher
    none, own = pairs(net.heads[PAIRS](projected(net, seen.weak.features))).unbind(1)
    return torch.cat((seen.probs * own, (seen.probs * none).sum(1, keepdim=True)), 1)


def known(seen: Seen) -> Tensor:
    """Score: the probability of being of a known class, ``[M]``."""
    return 1 - opened(seen)[:, -1]


class OpenSetLoss:
    """Term: cross-entropy of the open-set head on strong views against `opened` guesses, 0-d; 0 before it starts."""

    def __init__(self, config: IOMatch, steps: int) -> None:
        self.config, self.steps = config, steps
        self.start = round(config.open_start * steps)

    def __call__(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        (strong,), guess, net = seen.strong, opened(seen), seen.net
        counts = (guess.amax(1) >= self.config.tau_open).float()
        seen.log["mask_open"] = counts.mean()
        logits = net.heads[OPEN](projected(net, strong.features))
        losses = cross_entropy(logits, guess if self.config.target == "soft" else guess.argmax(1))
        loss: Tensor = (counts * losses).mean() * started(seen, self.start, self.steps)
        return loss
