"""Self-training with the votes of other models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Batch, Info, Losses, Net, Views


@dataclass(frozen=True, kw_only=True)
class SelfTraining(Checked):
    """Self-training with votes (Zhang et al. 2025), https://arxiv.org/abs/2503.09707.

    Models that were trained before give a class each to every unlabeled image, and one more model is trained on the
    labels and on the shares of these votes.
    """

    name: ClassVar[str] = "self-training"

    teachers: tuple[str, ...] = ()
    """Folders of finished runs on the same split, one or more, whose averaged weights vote."""
    weight: Annotated[float, Range(0)] = 1.0
    """Weight of the loss of the unlabeled images."""

    def build(self, info: Info) -> Votes:
        return Votes(self, info)


class Votes(Algorithm):
    """Cross-entropy with the labels, and with the votes as soft labels."""

    views = Views(labeled=("weak",), unlabeled=("weak",))
    on_features = True

    votes: Tensor
    """The class that each of T teachers gives each image of the unlabeled set, ``[M, T]`` int64. It does not change in
    the training, and a run keeps it beside its checkpoints (`fewlabels.training.teaching`)."""

    def __init__(self, config: SelfTraining, info: Info) -> None:
        super().__init__()
        self.weight, self.classes = config.weight, info.classes
        nobody = torch.zeros(info.unlabeled, len(config.teachers), dtype=torch.int64)
        self.register_buffer("votes", nobody, persistent=False)

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,), (u,) = batch.x, batch.u
        logits_x, logits_u = torch.split(net(torch.cat((x, u))), [len(x), len(u)])
        loss_x = cross_entropy(logits_x, batch.y).mean()
        loss_u = cross_entropy(logits_u, soft_labels(self.votes[batch.index], self.classes)).mean()
        total = loss_x + self.weight * loss_u
        return Losses(total, log(loss=total, loss_x=loss_x, loss_u=loss_u))


def soft_labels(votes: Tensor, classes: int) -> Tensor:
    """Mean of the one-hots of T votes, ``[N, T]`` int64 to distributions ``[N, K]`` float32; uniform for T = 0.

    Not of logits or probabilities: models differ in how sure they are (Zhang et al. 2025).
    """
    n, teachers = votes.shape
    if not teachers:
        return torch.full((n, classes), 1 / classes, device=votes.device)
    return one_hot(votes, classes).mean(1)
