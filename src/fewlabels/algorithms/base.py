"""What an algorithm is, and the one step that the FixMatch family shares."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.functional import cross_entropy
from fewlabels.nets import frozen_statistics
from fewlabels.parts import Slot, hard
from fewlabels.types import Batch, Guess, Losses, Net, Views

Teacher = Literal["student", "ema", "ema-batch"]
"""Whose pseudo-labels: the net's own, those of its running average in evaluation mode, or of the average with
the statistics of the batch."""


Passes = Literal["joint", "separate-weak"]
"""One forward pass over labeled, weak and strong images, as in the papers; or the weak ones in a pass of their own
without gradient, a third less work. Each pass is normalised with its own batch statistics."""


class Algorithm(nn.Module):
    """Batch to losses. Buffers are its state, parameters its own heads, `state_dict()` its checkpoint."""

    views: Views = Views()
    """The views of labeled and unlabeled images that `forward` finds in the batch."""

    draws: ClassVar[bool] = False
    """Whether `forward` draws from `Batch.rng`."""

    notes: tuple[str, ...] = ()
    """Sentences for the user, before the training, on settings that were chosen for the images at hand."""

    def squared_weight(self, option: str, given: float | None, published: float, classes: int) -> float:
        """Weight of a squared error that is a mean over K `classes`: `given`, or for None `published` times K / 10.

        Published weights are for ten classes. The error between two opposite certainties is 2 / K, so that the same
        weight counts for more the fewer classes there are.
        """
        if given is not None:
            return given
        weight = published * classes / 10
        self.notes += (f"--{option} is {weight:g} for {classes} classes",)
        return weight

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        """The losses of one training step; `ema` is the averaged copy of `net`."""
        raise NotImplementedError


class PseudoLabel(Algorithm):
    """FixMatch's step (Sohn et al. 2020, section 2.2) with four slots, each called ``slot(guess)``.

    One forward pass over labeled, weak and strong images, then
    ``mean_i weigh_i CE(y_i, x_i) + lambda_u mean_j select_j CE(target_j, strong_j)``;
    the second mean is over all M unlabeled images, selected or not. The slots are called in the order align,
    target, select, weigh.

    Args:
        select: weights ``[M]`` of the unlabeled images.
        align: new probabilities ``[M, K]``, before the other slots see them; None leaves them.
        target: pseudo-labels, ``[M]`` int64 or ``[M, K]``.
        weigh: weights ``[B]`` of the labeled images; None for 1.
        lambda_u: weight of the unlabeled loss.
        views: the view that is guessed about and the view that is trained, in this order ("weak" and "strong"
            above).
        teacher: what guesses; with the averaged net, the net itself sees labeled and strong images only.
        bn: whether the weak images share a forward pass with the others; they never do with another teacher.
    """

    def __init__(
        self,
        *,
        select: Slot,
        align: Slot | None = None,
        target: Slot = hard,
        weigh: Slot | None = None,
        lambda_u: float = 1.0,
        views: tuple[str, str] = ("weak", "strong"),
        teacher: Teacher = "student",
        bn: Passes = "joint",
    ) -> None:
        super().__init__()
        self.align, self.target, self.select, self.weigh = align, target, select, weigh
        self.lambda_u, self.teacher, self.bn = lambda_u, teacher, bn
        self.views = Views(unlabeled=views)

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        labeled_logits, weak_logits, strong_logits = self.logits(batch, net, ema)
        probs = weak_logits.detach().softmax(1)
        guess = Guess(weak_logits, strong_logits, probs, labeled_logits, batch.y, batch.index, batch.progress)
        if self.align is not None:
            guess = guess._replace(probs=self.align(guess))
        target = self.target(guess)
        mask = self.select(guess)

        loss_x = cross_entropy(labeled_logits, batch.y)
        if self.weigh is not None:
            loss_x = self.weigh(guess) * loss_x
        loss_x = loss_x.mean()
        loss_u = (mask * cross_entropy(strong_logits, target)).mean()
        total = loss_x + self.lambda_u * loss_u
        confidence = guess.probs.amax(1).mean()
        logged = log(loss=total, loss_x=loss_x, loss_u=loss_u, mask=mask.mean(), confidence=confidence)
        return Losses(total, logged, pseudo=target if target.ndim == 1 else target.argmax(1), kept=mask)

    def logits(self, batch: Batch, net: Net, ema: Net) -> tuple[Tensor, Tensor, Tensor]:
        """Of the labeled, the weak and the strong images, float32; the average's are without gradient."""
        (x,), (weak, strong) = batch.x, batch.u
        if self.teacher == "student":
            return split_logits(net, x, weak, strong, self.bn)
        logits = net(torch.cat((x, strong))).float()
        labeled_logits, strong_logits = torch.split(logits, [len(x), len(strong)])
        with torch.no_grad(), frozen_statistics(ema) if self.teacher == "ema-batch" else nullcontext():
            return labeled_logits, ema(weak).float(), strong_logits


def split_logits(net: Net, x: Tensor, weak: Tensor, strong: Tensor, bn: Passes) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of labeled, weak and strong images, float32; those of a separate weak pass are without gradient.

    A separate weak pass leaves the running statistics of batch normalisation alone.
    """
    if bn == "joint":
        logits = net(torch.cat((x, weak, strong))).float()
        labeled_logits, weak_logits, strong_logits = torch.split(logits, [len(x), len(weak), len(strong)])
        return labeled_logits, weak_logits, strong_logits
    with torch.no_grad(), frozen_statistics(net):
        weak_logits = net(weak).float()
    labeled_logits, strong_logits = torch.split(net(torch.cat((x, strong))).float(), [len(x), len(strong)])
    return labeled_logits, weak_logits, strong_logits


def log(**values: Tensor) -> dict[str, Tensor]:
    """The values without gradient, for `Losses.log`."""
    return {name: value.detach() for name, value in values.items()}
