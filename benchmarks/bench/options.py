"""What the measurements have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import torch

from bench.measure import Tick
from fewlabels.runtime.allocator import keep_freed_memory
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.device import pick_device

Stages: TypeAlias = Callable[[str], AbstractContextManager[Tick]]
"""``with stages("timing") as tick`` shows a bar that ``tick(done, total)`` moves."""


@dataclass(frozen=True, kw_only=True)
class Options(Checked):
    """Options of every measurement."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: Annotated[int, Range(1, None)] = 1
    """Threads of torch on the CPU; more than one make the times of a busy machine meaningless."""
    rounds: Annotated[int, Range(1, None)] = 7
    """Counted rounds in which all candidates take turns; one more comes before."""
    json: bool = False
    """Print JSON instead of tables."""
    out: str | None = None
    """File to write; default: results/bench/NAME-DEVICE.json if the control is good."""
    progress: bool = True
    """Show a progress bar."""

    def prepare(self) -> torch.device:
        """The device, with the threads set. Raises ValueError for a device that is not there."""
        device = pick_device(self.device)
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = True  # for all candidates alike; no effect on the CPU
        keep_freed_memory()
        return device
