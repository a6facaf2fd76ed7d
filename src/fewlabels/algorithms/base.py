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

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        """The losses of one training step; `ema` is the averaged copy of `net`."""
        raise NotImplementedError


def log(**values: Tensor) -> dict[str, Tensor]:
    """The values without gradient, for `Losses.log`."""
    return {name: value.detach() for name, value in values.items()}
