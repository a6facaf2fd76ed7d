"""All runs of a plan: one after another in this process, or one per GPU in processes of their own.

A run that fails does not stop the others; a signal stops all, each with its state saved.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Any, NamedTuple, Protocol, cast

import torch

from fewlabels.runtime import children, interrupt
from fewlabels.sweep.plan import Job, Outcome, attempt, holds, saved


class Board(Protocol):
    """Where all runs are shown."""

    def tell(self, job: Job, kind: str, step: int, text: str) -> None:
        """What a run says, as `fewlabels.sweep.plan.Tell` has it."""

    def end(self, job: Job, outcome: Outcome) -> None: ...


class Result(NamedTuple):
    """What became of the jobs, by name; those that were not begun are missing."""

    outcomes: dict[str, Outcome]
    signum: int
    """The signal that stopped all, or 0."""


def in_turn(jobs: Sequence[Job], board: Board) -> Result:
    """One after another in this process."""
    outcomes: dict[str, Outcome] = {}
    with interrupt.between() as around:
        for job in jobs:
            try:
                around.raises = True
                outcome = attempt(job, partial(board.tell, job))
                around.raises = False
            except KeyboardInterrupt:  # after the last word of the attempt
                outcome = Outcome("stopped", "stopped", around.signum)
            around.raises = False
            outcome = outcomes[job.name] = _settled(job, outcome)
            board.end(job, outcome)
            if around.signum or outcome.kind == "stopped":
                return _result(jobs, outcomes, around.signum or outcome.signum)
    return Result(outcomes, 0)


def _settled(job: Job, outcome: Outcome) -> Outcome:
    """A run that was told to stop when all was done is finished."""
    done = outcome.kind == "stopped" and holds(job.path, job.config)
    return Outcome("finished") if done and saved(job.path, job.config.steps, job.baseline)[1] else outcome


def _result(jobs: Sequence[Job], outcomes: dict[str, Outcome], signum: int) -> Result:
    """A signal that left nothing undone has stopped nothing."""
    undone = len(outcomes) < len(jobs) or any(outcome.kind == "stopped" for outcome in outcomes.values())
    return Result(outcomes, signum if undone else 0)


# ---- in processes


Post = Callable[[Any], None]
"""Takes what a worker sends: arguments of `Tell`, an `Outcome`, and at last None."""


class Worker(Protocol):
    """A run in a process of its own."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None: ...

    def last_words(self) -> str:
        """After its end: how that came, for a worker that sent no outcome."""


def at_once(
    jobs: Sequence[Job], devices: Sequence[str], board: Board, launch: Callable[[Job, str, Post], Worker] | None = None
) -> Result:
    """As many at a time as there are devices, each in a process that sees one of them.

    Args:
        devices: entries of CUDA_VISIBLE_DEVICES, or "cpu".
        launch: begins a job on a device; default: `Child`.
    """
    launch = launch or partial(Child, threads=max(1, torch.get_num_threads() // len(devices)))
    waiting, free = deque(jobs), deque(devices)
    running: dict[str, tuple[Job, str, Worker]] = {}
    outcomes: dict[str, Outcome] = {}
    sent: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    asked = False
    with interrupt.catch() as stop:
        try:
            while running or (waiting and not stop.signum):
                while waiting and free and not stop.signum:
                    job, device = waiting.popleft(), free.popleft()
                    board.tell(job, "step", job.start, "starting")
                    running[job.name] = job, device, launch(job, device, _signed(job.name, sent))
                if stop.signum and not asked:
                    asked = True
                    for _, _, worker in running.values():
                        worker.stop()
                try:
                    name, message = sent.get(timeout=0.1)
                except queue.Empty:
                    continue
                job, device, worker = running[name]
                if isinstance(message, Outcome):
                    outcomes[name] = message
                elif message is not None:
                    board.tell(job, *message)
                else:
                    del running[name]
                    free.append(device)
                    last = worker.last_words()
                    outcome = outcomes.get(name) or Outcome("stopped" if stop.signum else "failed", last)
                    if outcome.kind == "stopped" and not stop.signum:  # it alone was told to stop
                        outcome = Outcome("failed", outcome.reason)
                    outcome = outcomes[name] = _settled(job, outcome)
                    board.end(job, outcome)
        finally:
            for _, _, worker in running.values():
                worker.kill()
    return _result(jobs, outcomes, stop.signum)


def _signed(name: str, sent: queue.SimpleQueue[tuple[str, Any]]) -> Post:
    return lambda message: sent.put((name, message))


class Child:
    """A Python process that runs `child`: the job goes in through its standard input, what it tells comes out.

    It is told to stop by the end of its input, which comes as well when this process dies of whatever.
    """

    def __init__(self, job: Job, device: str, post: Post, threads: int) -> None:
        self.job, self.post = job, post
        environment = children.environment(
            OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", str(threads)),
            CUDA_VISIBLE_DEVICES="" if device == "cpu" else device,
        )
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            self.process = subprocess.Popen(
                children.command("fewlabels.sweep.pool", "child"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        self._input = cast(IO[bytes], self.process.stdin)
        with suppress(OSError):  # it is dead already
            self._input.write(pickle.dumps(job))
            self._input.flush()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(EOFError, OSError, pickle.UnpicklingError), cast(IO[bytes], self.process.stdout) as source:
            while True:
                self.post(pickle.load(source))
        self.process.wait()
        self.post(None)

    def stop(self) -> None:
        with suppress(OSError):
            self._input.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        self.stop()
        with suppress(OSError):
            if not self.job.log.stat().st_size:
                self.job.log.unlink()
        code = self.process.returncode
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with status {code}; what it said is in {self.job.log}"


def child() -> None:
    """Train the job that standard input brings."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land among the messages
    job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_obey, daemon=True).start()

    def send(message: Any) -> None:
        with suppress(OSError):  # the parent is dead, and the state gets saved nevertheless
            sink.write(pickle.dumps(message))
            sink.flush()

    send(attempt(job, lambda *message: send(message)))


def _obey() -> None:
    """When the input ends, stop the training as a signal would; where none is under way, nothing has to be saved.

    A process group may have had a signal as well, at any moment before or after: `Stop.ask` is not a second one.
    """
    while os.read(0, 1):
        pass
    while isinstance(handler := signal.getsignal(signal.SIGTERM), interrupt.Stop):
        handler.ask(signal.SIGTERM)
        time.sleep(1)  # time to say how it ended; what goes on, after its last step, with the baseline is asked again
    os._exit(128 + signal.SIGTERM)


def gpus(device: str) -> list[str]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them, if `device` leaves the choice among them open."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[:count] if any(visible) else [str(i) for i in range(count)]
