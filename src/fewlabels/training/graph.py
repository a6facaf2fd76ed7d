"""The device's part of a step, recorded once as a CUDA graph and replayed: no launches from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Protocol, cast

import torch

from fewlabels.types import Batch

WARM_UP = 3
"""Steps before the recording, in which libraries choose their kernels and the optimizer makes its state."""

Replay = Callable[[], None]


class Recorder(Protocol):
    """A device's way to record a body of work and to run it again."""

    def rehearse(self, body: Replay) -> None:
        """Run `body` as it is, in the place where it will be recorded."""

    def record(self, body: Replay) -> Replay:
        """Record what `body` launches, without running it."""


class CudaRecorder:
    """On a stream of its own, beside the current one: torch's default for it stays on the device of its first use."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def rehearse(self, body: Replay) -> None:
        here = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            body()
        here.wait_stream(self.stream)

    def record(self, body: Replay) -> Replay:
        graph = torch.cuda.CUDAGraph()
        # only this thread must keep still: the one that reads the next rows (`data.gather`) goes on with its uploads
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            body()
        return graph.replay


class StepGraph:
    """Calls `body` with batches of one form; from some step on by replaying what it launched.

    Args:
        body: work on the device that is the same for every batch but for the tensors in it.
    """

    def __init__(self, body: Callable[[Batch], None], recorder: Recorder) -> None:
        self.body, self.recorder = body, recorder
        self.warm = 0
        self.static: Batch | None = None
        """The batch that the recording reads."""
        self.replay: Replay | None = None

    def __call__(self, batch: Batch) -> None:
        if self.warm < WARM_UP:
            self.warm += 1
            self.recorder.rehearse(lambda: self.body(batch))
            return
        if self.static is None:
            static = self.static = _clone(batch)
            self.replay = self.recorder.record(lambda: self.body(static))
        else:
            _copy(self.static, batch)
        assert self.replay is not None
        self.replay()


class _NoRng:
    """In place of the random numbers of a recorded batch, which every replay would repeat."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError("Train.graph: this algorithm draws random numbers in each step, which cannot be recorded")


def _clone(batch: Batch) -> Batch:
    x, u = (tuple(view.clone() for view in views) for views in (batch.x, batch.u))
    y, index, rows = batch.y.clone(), batch.index.clone(), batch.labeled_index.clone()
    rng = cast(Any, _NoRng())
    return Batch(x=x, y=y, u=u, index=index, progress=batch.progress.clone(), rng=rng, labeled_index=rows)


def _copy(to: Batch, batch: Batch) -> None:
    def tensors(b: Batch) -> tuple[torch.Tensor, ...]:
        return *b.x, *b.u, b.y, b.index, b.labeled_index, b.progress

    for old, new in zip(tensors(to), tensors(batch), strict=True):
        old.copy_(new, non_blocking=True)
