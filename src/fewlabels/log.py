"""Where the numbers of a training go: metrics.jsonl, TensorBoard and the screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fewlabels import files
from fewlabels.run import Run

SHOWN = ("loss", "loss_x", "loss_u", "mask")
"""Logged values that the progress display shows, where the algorithm has them."""


class Recorder:
    """metrics.jsonl and TensorBoard of a run. The tags are listed in docs/logging.md."""

    def __init__(self, run: Run, step: int) -> None:
        """Open for appending after `step`: what a killed run wrote beyond it is taken back."""
        from torch.utils.tensorboard import SummaryWriter

        self.path = run.path / "metrics.jsonl"
        kept = [r for r in run.metrics() if r["step"] <= step]
        files.write_file(self.path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1 if step else None)

    def _scalars(self, values: Mapping[str, float | None], step: int) -> None:
        for tag, value in values.items():
            if value is not None:
                self.board.add_scalar(tag, value, step)

    def _line(self, record: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def log(self, step: int, values: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """A log point: means over the last `log_every` steps; `timing` in milliseconds, and the learning rate."""
        self._line({"kind": "log", "step": step, **values, **timing})
        tags = {f"train/{n}": v for n, v in values.items()}
        tags |= {f"time/{n}" if n.endswith("_ms") else f"train/{n}": v for n, v in timing.items()}
        self._scalars(tags, step)

    def evaluation(self, step: int, record: Mapping[str, Any]) -> None:
        """An evaluation: `record[part][weights]` holds scores, part is test, valid or train."""
        self._line({"kind": "eval", "step": step, **record})
        tags: dict[str, float | None] = {}
        for part in ("test", "valid", "train"):
            for weights, values in record.get(part, {}).items():
                for name, value in values.items():
                    if name == "per_class":
                        tags |= {f"{part}/{weights}/class/{c}": v for c, v in value.items()}
                    elif isinstance(value, float):
                        tags[f"{part}/{weights}/{name}"] = value
        self._scalars(tags, step)
        self.board.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()


class Display(Protocol):
    """What a person sees while the training runs."""

    def update(self, step: int, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def close(self) -> None: ...


class Bar:
    """A live progress bar on a terminal."""

    def __init__(self, title: str, steps: int, step: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self.task = self.progress.add_task(title, total=steps, completed=step, text="")
        self.progress.start()

    def update(self, step: int, text: str) -> None:
        self.progress.update(self.task, completed=step, text=text)

    def line(self, text: str) -> None:
        self.progress.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.stop()


class Lines:
    """Plain lines for a pipe or a log file: evaluations, and a sign of life every half minute."""

    def __init__(self, steps: int, step: int, *, alive: bool = True) -> None:
        self.steps, self.alive = steps, alive
        self.start, self.first, self.said = time.perf_counter(), step, time.perf_counter()

    def update(self, step: int, text: str) -> None:
        now = time.perf_counter()
        if self.alive and text and now - self.said > 30:
            self.said = now
            left = (now - self.start) / max(1, step - self.first) * (self.steps - step)
            self.line(f"step {step}/{self.steps}  {text}  {duration(left)} left")

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Silence:
    """Nothing at all: for ranks other than 0 and for use from Python."""

    def update(self, step: int, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


def display(title: str, steps: int, step: int, *, progress: bool | None) -> Display:
    """A bar on a terminal, plain lines elsewhere; `progress` False leaves out the bar, None everything."""
    if progress is None:
        return Silence()
    if progress and Console(stderr=True).is_terminal:
        return Bar(title, steps, step)
    return Lines(steps, step, alive=progress)


def duration(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
