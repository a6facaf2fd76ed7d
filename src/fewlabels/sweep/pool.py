"""All runs of a plan, each in a process of its own: one after another, one on each GPU, or started by an engine.

The run folder is the message: how far a process is stands in its metrics.jsonl, and what it says in a log beside the
folder. A run that fails does not stop the others; a signal stops all, each with its state saved.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import torch

from fewlabels.config.plain import from_dict
from fewlabels.runs.owner import LOCK, Lock, Taken
from fewlabels.runs.run import Run
from fewlabels.runtime import children, interrupt
from fewlabels.sweep import generations
from fewlabels.sweep.plan import Job, go, with_baseline
from fewlabels.sweep.task import Work, process_of
from fewlabels.training.log import shown
from fewlabels.training.loop import Output


class Outcome(NamedTuple):
    """How a run ended."""

    kind: Literal["finished", "failed", "stopped"]
    reason: str = ""
    """One sentence for a failure."""


class Result(NamedTuple):
    """What became of the jobs, by name; those that were not begun are missing."""

    outcomes: dict[str, Outcome]
    signum: int
    """The signal that stopped all, or 0."""


W = TypeVar("W", bound=Work)
V = TypeVar("V", bound=Work, contravariant=True)


class Board(Protocol[V]):
    """Where all runs are shown."""

    def step(self, job: V, step: int, text: str) -> None:
        """So many steps are done."""

    def line(self, job: V, text: str) -> None:
        """An evaluation."""

    def said(self, job: V, text: str) -> None:
        """A sentence."""

    def end(self, job: V, outcome: Outcome) -> None: ...


class Process(Protocol):
    """What trains a job, somewhere."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal that ended it; None before."""

    def stop(self) -> None:
        """Have it save and end; nothing for one that has ended."""

    def kill(self) -> None:
        """End it at once."""


Begin: TypeAlias = Callable[[W, str | None, int], Process]
"""Starts a job at a place with so many threads, or puts it into a queue."""


class Watched(Protocol[W]):
    """A job in its process."""

    job: W
    place: str | None
    process: Process

    def stop(self) -> None:
        """Ask it to save and end."""

    def look(self, *, stopping: bool) -> Outcome | None:
        """Show what is new, and say how it ended if it has; `stopping`: it was asked to."""


def train_all(
    jobs: Sequence[Job],
    places: Sequence[str | None],
    board: Board[Job],
    begin: Begin[Job] | None = None,
    pace: float = 0.05,
) -> Result:
    """`work_off` runs that are trained."""
    return work_off(jobs, places, board, Running, begin, pace)


def work_off(
    jobs: Sequence[W],
    places: Sequence[str | None],
    board: Board[W],
    watch: Callable[[W, str | None, int, Board[W], Begin[W]], Watched[W]],
    begin: Begin[W] | None = None,
    pace: float = 0.05,
) -> Result:
    """As many at a time as there are places.

    watch: starts one, and says how it does.
    places: what CUDA_VISIBLE_DEVICES is to be for the run that has the place; None leaves it as it is.
    begin: default: in a process here.
    pace: seconds between two looks at all of them.
    """
    threads = max(1, torch.get_num_threads() // len(places))
    waiting, free = deque(jobs), deque(places)
    running: list[Watched[W]] = []
    outcomes: dict[str, Outcome] = {}
    with interrupt.catch() as stop:
        try:
            while running or (_ready(waiting, running, outcomes) and not stop.signum):
                while free and not stop.signum and _ready(waiting, running, outcomes):
                    if begin is None:
                        board.step(waiting[0], waiting[0].start, "starting")
                    running.append(watch(waiting.popleft(), free.popleft(), threads, board, begin or start))
                for one in list(running):
                    if stop.signum:
                        one.stop()
                    if outcome := one.look(stopping=stop.signum != 0):
                        running.remove(one)
                        free.append(one.place)
                        outcomes[one.job.name] = outcome
                        board.end(one.job, outcome)
                time.sleep(pace)
        finally:
            for one in running:
                one.process.kill()
    # a signal that left nothing undone has stopped nothing
    undone = len(outcomes) < len(jobs) or any(outcome.kind == "stopped" for outcome in outcomes.values())
    return Result(outcomes, stop.signum if undone else 0)


def _ready(waiting: Sequence[Work], running: Sequence[object], outcomes: Mapping[str, Outcome]) -> bool:
    """Whether the next job may begin: one that is to be the last when all before it are finished."""
    if not waiting or not waiting[0].last:
        return bool(waiting)
    return not running and all(outcome.kind == "finished" for outcome in outcomes.values())


class Running:
    """A job in its process."""

    def __init__(
        self,
        job: Job,
        place: str | None,
        threads: int,
        board: Board[Job],
        begin: Begin[Job],
    ) -> None:
        self.job, self.place, self.board = job, place, board
        self.hushed, self.shown = False, {"eval": "", "log": ""}
        self.records = [(0, "", Tail(job.path / "metrics.jsonl"))]
        if job.baseline:
            self.records.append((job.config.steps, "baseline: ", Tail(job.path / "baseline" / "metrics.jsonl")))
        self.process = begin(job, place, threads)
        self.log = Tail(job.log, new=True)

    def stop(self) -> None:
        """Ask it to save and end."""
        self.process.stop()

    def look(self, *, stopping: bool) -> Outcome | None:
        """Show what is new, and say how it ended if it has; `stopping`: it was asked to."""
        code = self.process.poll()  # first, so that all that it did has been done
        for line in self.log.lines():
            self.hushed = self.hushed or line.startswith("Traceback")
            if line and not self.hushed and not line.startswith("fewlabels: "):
                self.board.said(self.job, line)
        for before, prefix, tail in self.records:
            for record in map(json.loads, tail.lines()):
                self.shown[record["kind"]] = shown(record)
                text = prefix + "  ".join(filter(None, self.shown.values()))
                if (step := before + record["step"]) > self.job.start:
                    self.board.step(self.job, step, text)
                    if record["kind"] == "eval":
                        self.board.line(self.job, f"{prefix}step {record['step']}/{self.job.config.steps}  {text}")
        return None if code is None else self._end(code, stopping)

    def _end(self, code: int, stopping: bool) -> Outcome:
        self.stop()
        job, told = self.job, code < 0 or code > 128
        done = job.progress()[1]
        text = said_by(job)
        last = text.rpartition("\n")[2]
        if code == 0 or (told and done):  # told to stop when all was done
            outcome = Outcome("finished")
        elif told and stopping:
            outcome = Outcome("stopped")
        elif code > 0 and last.startswith("fewlabels: "):
            outcome = Outcome("failed", last.removeprefix("fewlabels: "))
        else:
            how = f"its process {ended(code)}" if code < 0 or "Traceback" not in text else last
            if text:
                return Outcome("failed", f"{how} (what it said is in {job.log})")
            outcome = Outcome("failed", how)
        job.log.unlink(missing_ok=True)
        return outcome


def said_by(job: Work) -> str:
    """What the process of a job has left in its log."""
    return job.log.read_text("utf-8", "replace").strip() if job.log.is_file() else ""


def ended(code: int) -> str:
    """How a process ended that has not said it."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


class Tail:
    """The lines that a file has got since it was put in place of the one that is there now."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        """`new`: the file that is there is the one to read."""
        self.path, self.at = path, 0
        self.old = None if new else self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            stat = self.path.stat()
            return stat.st_ino, stat.st_size, stat.st_mtime_ns
        return None

    def lines(self) -> list[str]:
        """Those since the last call, whole ones only."""
        if self.old and self.old == self._stamp():  # what an earlier process wrote
            return []
        self.old, data = None, b""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self.at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.at += len(whole)
        return whole.decode("utf-8", "replace").split("\n")[:-1]


class Child(subprocess.Popen[bytes]):
    """A process of this machine. It is told to stop by the end of its input: that comes as well when this one dies."""

    def stop(self) -> None:
        with suppress(OSError):
            cast(IO[bytes], self.stdin).close()

    def kill(self) -> None:
        super().kill()
        self.wait()


def start(job: Work, place: str | None, threads: int) -> Child:
    """The process of a job, which has got it at its input."""
    values = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    if place is not None:
        values["CUDA_VISIBLE_DEVICES"] = place
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("wb") as log:
        process = Child(
            process_of(job.order()),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=children.environment(**values),
        )
    hand_over(process.stdin, job)
    return process


def hand_over(pipe: IO[bytes] | None, job: Work) -> None:
    """Write the order to the input of a process."""
    assert pipe is not None
    with suppress(OSError):  # it is dead already
        pipe.write(json.dumps(job.order()).encode() + b"\n")
        pipe.flush()


def child(args: list[str]) -> int:
    """In that process: train the job that standard input brings."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a cluster's word to the one that started this
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_obey, daemon=True).start()
    path, config, baseline = Path(job["path"]), from_dict(job["train"]), job["baseline"]
    _wait_for(path, job.get("patience", 0.0))
    output = Output(say=partial(print, file=sys.stderr, flush=True))

    def begin() -> Run:
        facts = None
        if (learns := job.get("learns")) is not None:
            facts = generations.labels(path, config, learns, output.say)
        return go(path, config, output, overwrite=job["overwrite"], baseline=baseline, facts=facts)

    with_baseline(begin, config, baseline, output)
    return 0


def _wait_for(path: Path, seconds: float) -> None:
    """Until no other process trains there, but no longer than that; what is wrong then is said when it is tried."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (path / LOCK).exists():
        try:
            return Lock(path).release()
        except Taken:
            time.sleep(0.5)


def _obey() -> None:
    """When the input ends, stop as after a signal."""
    while os.read(0, 1):
        pass
    while True:  # at this moment there may be nobody to ask
        interrupt.ask(signal.SIGTERM)
        time.sleep(0.1)


def gpus(device: str) -> list[str]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them, if `device` leaves the choice among them open."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[:count] if any(visible) else [str(i) for i in range(count)]
