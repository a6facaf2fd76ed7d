"""Algorithm: batch to losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from fewlabels.types import Batch, Findings, Fitted, Known, Losses, Net, Rule, Tokens, Views


def by_head(net: Net, features: Tensor) -> Tensor:
    """Rule: the logits of the net's own head, ``[N, D] -> [N, K]``."""
    return net.head(features)


def by_tempered_head(temperature: float) -> Rule:
    """Rule: those logits divided by `temperature`."""
    return by_head if temperature == 1 else lambda net, features: net.head(features) / temperature


class Algorithm(nn.Module):
    """Batch to losses. Buffers are its state, `state_dict()` its checkpoint. It has no parameters: what is trained
    besides the net are the `heads` that it asks for, which are part of the model."""

    views: Views = Views()
    """The views of labeled and unlabeled images that `forward` finds in the batch."""

    tokens: Tokens = Tokens()
    """What the tokens of `Train.augment` mean to it."""

    heads: Mapping[str, nn.Module] = MappingProxyType({})
    """What the model is to have beside the net, by name: made here, at its start; trained, averaged and saved there.
    `forward` and `rule` find it in ``net.heads``. A plain mapping, so that no head is registered in the algorithm."""

    rule: Rule = staticmethod(by_head)
    """How the model predicts; what it needs, such as a second head or a prior, is one of the `heads`."""

    loss_temperature: float = 1.0
    """By which `forward` divides the logits in its losses, and `rule` those that it predicts."""

    draws: bool = False
    """Whether `forward` draws from `Batch.rng`."""

    waits: bool = False
    """Whether `forward` waits for the device, so that a step cannot be recorded."""

    on_features: ClassVar[bool] = False
    """Whether `forward` does nothing with an image but pass it through the net, so that features of a body that does
    not learn can stand in its place."""

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

    refresh_every: int | None = None
    """Steps after which `refresh` is called; None: never."""

    def refresh(self, logits: Tensor) -> None:
        """Take in what the averaged model says of all unlabeled images without augmentation: ``[N, K]`` in the order
        of `Batch.index`, the same on all ranks."""

    def remarks(self, classes: Sequence[str]) -> list[str]:
        """Sentences for the user after the training, on what it has found; `classes` are their names."""
        return []

    def findings(self, classes: Sequence[str]) -> list[Findings]:
        """What it has found out about unlabeled images, after the training; `classes` are the names of the classes."""
        return []

    def fit(self, known: Known) -> Fitted | None:
        """The net's last layer as it is before the first step, from the features of the images as they are; None leaves
        it as the net has it. Of an algorithm whose configuration says that it `fits`, with which `Train.steps` may be
        0: then the training is that."""
        return None

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        """The losses of one training step; `net` is the model with its heads, `ema` its averaged copy."""
        raise NotImplementedError


def log(**values: Tensor) -> dict[str, Tensor]:
    """The values without gradient, for `Losses.log`."""
    return {name: value.detach() for name, value in values.items()}
