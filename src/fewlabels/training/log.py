"""Metrics of a training in metrics.jsonl, in TensorBoard and on the screen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import RenderableType
from rich.constrain import Constrain
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from fewlabels.report.numbers import in_use
from fewlabels.runs.run import NotWritten, Run
from fewlabels.runtime import files, streams
from fewlabels.runtime.screen import Screen, print_line
from fewlabels.runtime.words import duration


def shown(record: Mapping[str, Any]) -> str:
    """What a person is shown of a line of metrics.jsonl: the accuracy of an evaluation; of a log point the share of
    the unlabeled pictures that count, the loss and the speed."""
    if record["kind"] == "eval":
        part = next(part for part in ("test", "valid", "train") if part in record)
        return f"{part} {record[part]['ema']['accuracy']:.2f} %"
    name = in_use([record])
    used = [f"unlabeled in use: {100 * record[name]:.0f} %"] if name else []
    loss = [f"loss {record['loss']:.3f}"] if "loss" in record else []
    return "  ".join([*used, *loss, f"{1000 / record['step_ms']:.1f} steps/s"])


class MetricsWriter:
    """metrics.jsonl and TensorBoard of a run. The tags are listed in docs/logging.md."""

    def __init__(
        self,
        run: Run,
        step: int,
        classes: Sequence[str] = (),
        also: Callable[[Mapping[str, float], int], None] = lambda values, step: None,
    ) -> None:
        """Open for appending after `step`: what a killed run wrote beyond it is taken back.

        classes: names, for the tags of values by class. also: called with what TensorBoard is told, and the step."""
        from torch.utils.tensorboard import SummaryWriter

        self.classes, self.also = classes, also
        self.run, path = run, run.path / "metrics.jsonl"
        kept = run.written(step) if step or run.states() else b""
        self.bytes, self.digest = len(kept), hashlib.sha256(kept)
        with self._disk():
            _in_order(run.path / "tensorboard")
            files.write_file(path, kept)
            self.file = path.open("ab")
            self.board = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1 if step else None)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Says in one sentence what a full disk says inside."""
        try:
            yield
        except OSError as error:
            what = f"could not write the records of {self.run.path}: {error.strerror}"
            raise NotWritten(f"{what}; {self.run.last_saved()}") from None

    def _scalars(self, values: Mapping[str, float | None], step: int) -> None:
        known = {streams.visible(tag, lines=False): value for tag, value in values.items() if value is not None}
        for tag, value in known.items():
            self.board.add_scalar(tag, value, step)
        self.also(known, step)

    def _line(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        self.file.write(line)
        self.file.flush()
        self.bytes += len(line)
        self.digest.update(line)

    @property
    def mark(self) -> dict[str, Any]:
        """Bytes and sha256 of metrics.jsonl as it is now, for a checkpoint to keep (`records.written`)."""
        return {"bytes": self.bytes, "sha256": self.digest.hexdigest()}

    def sync(self) -> None:
        """To the disk, before a checkpoint that relies on the lines."""
        with self._disk():
            os.fsync(self.file.fileno())

    def log(self, step: int, values: Mapping[str, float | list[float]], timing: Mapping[str, float]) -> None:
        """A log point: means over the last `log_every` steps; `timing` in milliseconds, and the learning rate."""
        tags = {f"train/{n}": v for n, v in values.items() if not isinstance(v, list)}
        for name, by_class in values.items():
            if isinstance(by_class, list):
                tags |= {f"train/{name}/{c}": v for c, v in zip(self.classes, by_class, strict=True)}
        tags |= {f"time/{n}" if n.endswith("_ms") else f"train/{n}": v for n, v in timing.items()}
        with self._disk():
            self._line({"kind": "log", "step": step, **values, **timing})
            self._scalars(tags, step)

    def evaluation(self, step: int, record: Mapping[str, Any]) -> None:
        """An evaluation: `record[part][weights]` holds scores, part is test, valid or train."""
        tags: dict[str, float | None] = {}
        for part in ("test", "valid", "train"):
            for weights, values in record.get(part, {}).items():
                for name, value in values.items():
                    if name == "per_class":
                        tags |= {f"{part}/{weights}/class/{c}": v for c, v in value.items()}
                    elif isinstance(value, float):
                        tags[f"{part}/{weights}/{name}"] = value
        with self._disk():
            self._line({"kind": "eval", "step": step, **record})
            self._scalars(tags, step)
            self.board.flush()

    def close(self) -> None:
        with self._disk(), contextlib.closing(self.board), self.file:
            pass


def _in_order(folder: Path) -> None:
    """TensorBoard reads its files in the order of the times in their names: those that are there get an earlier one
    than now where the clock has been set back, or each after the other within a second."""
    later = int(time.time())
    for path in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
        *start, stamp, rest = path.name.split(".", 4)
        if stamp.isdecimal():
            new = min(int(stamp), later - 1)
            path.rename(path.with_name(".".join([*start, f"{new:010d}", rest])))
            later = new


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Inside, an error of the disk in TensorBoard's thread, which hands it to our next call, is not printed besides.

    All else that threads raise goes to the caller's `threading.excepthook`, which is back afterwards.
    """
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        ours = type(args.thread).__module__.startswith("tensorboard.")
        if not (ours and isinstance(args.exc_value, OSError)):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class Display(Protocol):
    """The progress of a training on the screen."""

    def update(self, step: int, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def close(self) -> None: ...


class Bars(Progress):
    """Live progress bars on a terminal, each with a `text` behind it, which gives way where the terminal is narrow."""

    def __init__(self) -> None:
        self.screen = Screen(stderr=True)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            _Cut(),
            console=self.screen,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """With room for the ^C of the terminal, which would break the line that is drawn over."""
        yield Constrain(self.make_tasks_table(self.tasks), self.screen.width - 3)

    def line(self, text: str) -> None:
        """A line above the bars."""
        print_line(self.screen, text)


class _Cut(ProgressColumn):
    """The text of a bar, in one line."""

    def render(self, task: Task) -> Text:
        return Text(streams.visible(task.fields["text"], lines=False), no_wrap=True, overflow="ellipsis")


class Bar:
    """A live progress bar on a terminal."""

    def __init__(self, title: str, steps: int, step: int) -> None:
        self.progress = Bars()
        self.task = self.progress.add_task(streams.visible(title, lines=False), total=steps, completed=step, text="")
        self.progress.start()

    def update(self, step: int, text: str) -> None:
        self.progress.update(self.task, completed=step, text=text)

    def line(self, text: str) -> None:
        self.progress.line(text)

    def close(self) -> None:
        self.progress.stop()


class Lines:
    """Plain lines for a pipe or a log file: evaluations, and a sign of life every half minute."""

    def __init__(self, steps: int, step: int, *, alive: bool = True, what: str = "step") -> None:
        self.steps, self.alive, self.what = steps, alive, what
        self.start, self.first, self.said = time.perf_counter(), step, time.perf_counter()
        err = sys.stderr
        self.out = err if isinstance(err, streams.Stream) else streams.Stream(err)

    def update(self, step: int, text: str) -> None:
        now = time.perf_counter()
        if self.alive and text and now - self.said > 30:
            self.said = now
            left = (now - self.start) / max(1, step - self.first) * (self.steps - step)
            self.line(f"{self.what} {step}/{self.steps}  {text}  {duration(left)} left")

    def line(self, text: str) -> None:
        print(text, file=self.out, flush=True)

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


Progressing = bool | Callable[[str, int, str], Display] | None
"""Kind of display: True a bar, False lines, None nothing; or a function ``(title, steps, what a step is) -> Display``.
"""


def display(title: str, steps: int, step: int, *, progress: Progressing, what: str = "step") -> Display:
    """A bar on a terminal, plain lines elsewhere; `progress` False leaves out the bar, None everything.

    what: the word for one of `steps`.
    """
    if callable(progress):
        return progress(title, steps, what)
    if progress is None:
        return Silence()
    if progress and Screen(stderr=True).is_terminal:
        return Bar(title, steps, step)
    return Lines(steps, step, alive=progress, what=what)


@contextlib.contextmanager
def reading(
    progress: Progressing, title: str = "reading pictures", done_with: str = "read", what: str = "picture"
) -> Iterator[Callable[[int, int], None]]:
    """A function ``show(done, total)`` of the pictures that are read, or of `what` is done with, with a `display` from
    its first call on."""
    shown: list[Display] = []

    def show(done: int, total: int) -> None:
        if not shown and done < total:  # those from the cache come all at once
            shown.append(display(title, total, 0, progress=progress, what=what))
        for one in shown:
            one.update(done, done_with)

    try:
        yield show
    finally:
        for one in shown:
            one.close()


@contextlib.contextmanager
def bar(text: str, progress: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where it is a terminal, that ``show(done, total)`` moves."""
    console = Screen(stderr=True)
    with Progress(console=console, transient=True, disable=not (progress and console.is_terminal)) as shown:
        task = shown.add_task(text, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
