"""The device's part of a step, recorded once as a CUDA graph and replayed: no launches from Python."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fewlabels.types import Batch

WARM_UP = 3
"""Steps before the recording, in which libraries choose their kernels and the optimizer makes its state."""

Replay = Callable[[], None]


def record(body: Replay) -> Replay:
    """Record what `body` launches, without running it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


class StepGraph:
    """Calls `body` with batches of one form; from some step on by replaying what it launched.

    Args:
        body: work on the device that is the same for every batch but for the tensors in it.
        record: how a recording is made; it must not run what it records.
    """

    def __init__(self, body: Callable[[Batch], None], record: Callable[[Replay], Replay] = record) -> None:
        self.body, self.record = body, record
        self.warm = 0
        self.static: Batch | None = None
        """The batch that the recording reads."""
        self.replay: Replay | None = None

    def __call__(self, batch: Batch) -> None:
        if self.warm < WARM_UP:
            self.warm += 1
            self.body(batch)
            return
        if self.static is None:
            static = self.static = _clone(batch)
            self.replay = self.record(lambda: self.body(static))
        else:
            _copy(self.static, batch)
        assert self.replay is not None
        self.replay()


def _clone(batch: Batch) -> Batch:
    x, u = (tuple(view.clone() for view in views) for views in (batch.x, batch.u))
    return batch._replace(x=x, u=u, y=batch.y.clone(), index=batch.index.clone(), progress=batch.progress.clone())


def _copy(to: Batch, batch: Batch) -> None:
    for old, new in zip((*to.x, *to.u, to.y, to.index), (*batch.x, *batch.u, batch.y, batch.index), strict=True):
        old.copy_(new, non_blocking=True)
    to.progress.copy_(batch.progress, non_blocking=True)
