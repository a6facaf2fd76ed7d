"""Which forward pass updates the running statistics of batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.types import Net


@contextmanager
def frozen_statistics(net: Net | nn.Module) -> Iterator[None]:
    """Inside, batch normalisation uses the statistics of the batch and leaves its running ones alone.

    Whether the net is in training or in evaluation mode (an EMA net as a teacher); its other layers, such as
    dropout, keep their mode. Norms that keep their statistics anyway (`still` of a model) are left alone.
    """
    assert isinstance(net, nn.Module)
    still: frozenset[str] = getattr(net, "still", frozenset())
    norms = [part for name, part in net.named_modules() if isinstance(part, _BatchNorm) and name not in still]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, (training, track) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, track
