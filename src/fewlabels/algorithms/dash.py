"""Dash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.algorithms.slots import Part, Seen, cross_entropy_of_labels, cross_entropy_of_views, step_of
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class Dash(Composed):
    """Dash (Xu et al. 2021), https://arxiv.org/abs/2109.00650.

    An unlabeled image counts while the loss of its weak view against its own guess is below a threshold, which falls
    from an estimate that is made in a warm-up.
    """

    name: ClassVar[str] = "dash"

    variant: Literal["authors", "usb"] = "authors"
    """`authors`, as in idstcv/Dash: all images count in the warm-up, the mean is over those that count, and the loss is
    that of the most probable class. `usb`, as in USB: no unlabeled image counts in the warm-up, the mean is over all,
    the loss is that of the target, and the threshold starts at 1.0001 times the estimate."""
    estimate: Literal["unlabeled", "labeled"] = "unlabeled"
    """Loss of the last epoch of the warm-up whose mean the threshold starts from: that of the strong views, as in
    idstcv/Dash, or that of the labeled images, as in the paper, and always with the variant `usb`."""
    gamma: Annotated[float, Range(1)] = 1.27
    """By which the threshold is divided, again and again."""
    rho_min: Annotated[float, Range(0, low_open=True)] = 0.05
    """Smallest threshold, a confidence of 0.951; targets are soft until it is reached, and hard from then on."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens the soft targets."""
    epoch_steps: Annotated[int, Range(1)] = 1024
    """Steps of what is called an epoch here."""
    wait_epochs: Annotated[int, Range(1)] = 10
    """Epochs before the threshold is in use (USB: 2)."""
    drop_epochs: Annotated[int, Range(1)] = 9
    """Epochs after which the threshold is divided again (USB: 10)."""
    lambda_u: Annotated[float, Range(0)] = 0.9
    """Weight of the unlabeled loss (USB: 1)."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def compose(self, info: Info) -> Consistency:
        falling = Falling(self, info.steps)
        step = Consistency(
            target=falling.target,
            select=falling.select,
            labeled=falling.labeled,
            unlabeled=falling.unlabeled,
            lambda_u=self.lambda_u,
            bn=self.bn,
        )
        step.falling = falling
        return step


class Falling(Part):
    """The threshold rho, and what depends on it."""

    total: Tensor
    """Sum of the mean losses of the steps in the last epoch of the warm-up, over all ranks, 0-d."""
    count: Tensor
    """Number of these steps, 0-d."""

    def __init__(self, config: Dash, steps: int) -> None:
        super().__init__()
        self.config, self.steps = config, steps
        self.usb = config.variant == "usb"
        self.register_buffer("total", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0.0))
        self.rho = self.warm = self.last = self.hard = self.share = torch.empty(0)
        """Of the step: threshold; whether it is in the warm-up, in its last epoch, has hard targets; share in use."""

    def target(self, seen: Seen) -> Tensor:
        """Target: sharpened probabilities, or one for the most probable class; ``[M, K]``."""
        config, epochs = self.config, self.config.wait_epochs
        step = step_of(seen, self.steps)
        self.warm = step < epochs * config.epoch_steps
        self.last = self.warm & (step >= (epochs - 1) * config.epoch_steps)
        # from the first step after the warm-up on, or, in idstcv/Dash, dash.py, from one epoch after the start
        start = epochs * config.epoch_steps if self.usb else config.epoch_steps
        drops = ((step - start) / (config.drop_epochs * config.epoch_steps)).floor()
        estimate = torch.where(self.count > 0, self.total / self.count, torch.inf)
        rho = (1.0001 if self.usb else 1.0) * estimate * config.gamma**-drops
        self.hard = ~self.warm & (rho <= config.rho_min)
        self.rho = torch.where(self.warm, torch.inf, rho.clamp_min(config.rho_min))
        seen.log["rho"] = torch.where(self.rho.isfinite(), self.rho, 0.0)
        guess = one_hot(seen.probs.argmax(1), seen.probs.shape[1])
        return torch.where(self.hard, guess, (seen.weak.logits.detach() / config.temperature).softmax(1))

    def select(self, seen: Seen) -> Tensor:
        """Select: 1 where the loss of the guess is below the threshold, ``[M]`` float32."""
        logits, guess = seen.weak.logits.detach(), seen.probs.argmax(1)
        losses = cross_entropy(logits, guess)
        if self.usb:
            soft = cross_entropy(logits, (logits / self.config.temperature).softmax(1))
            mask = (torch.where(self.hard, losses, soft) <= self.rho) & ~self.warm
        else:
            mask = losses < self.rho
        self.share = parallel.mean(mask.float().mean())
        return mask.float()

    def labeled(self, seen: Seen) -> Tensor:
        """Labeled: the usual losses, ``[B]``, which the estimate takes in where it is of these."""
        losses = cross_entropy_of_labels(seen)
        if self.usb or self.config.estimate == "labeled":
            self.take_in(losses)
        return losses

    def unlabeled(self, seen: Seen, target: Tensor) -> Tensor:
        """Unlabeled: the usual losses, ``[M]``; divided by the share of the images that count, but for USB."""
        losses = cross_entropy_of_views(seen, target)
        if self.usb:
            return losses
        if self.config.estimate == "unlabeled":
            self.take_in(losses)
        return losses / torch.where(self.share > 0, self.share, 1.0)

    @torch.no_grad()
    def take_in(self, losses: Tensor) -> None:
        value = parallel.mean(losses.detach().mean())
        counts = self.last & value.isfinite()
        self.total.add_(torch.where(counts, value, 0.0))
        self.count.add_(counts.float())
