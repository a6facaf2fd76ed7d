"""Algorithm: batch to losses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fewlabels.types import Batch, Losses, Net, Views


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


def log(**values: Tensor) -> dict[str, Tensor]:
    """The values without gradient, for `Losses.log`."""
    return {name: value.detach() for name, value in values.items()}
