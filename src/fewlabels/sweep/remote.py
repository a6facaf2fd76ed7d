"""A run of a sweep, or a shard of a prediction, on another machine, started by an engine that has a queue.

The job lies in a file beside the run folder, or among the shards, on a file system that both machines see. As long as
it is there, with the same token, it is worked on; when it is gone, or another command has put its own there, the
process saves and ends. So the engine has little to do: to start a `Task` somewhere, and to say how it ended.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fewlabels.runtime.files import write_json
from fewlabels.sweep.on import On
from fewlabels.sweep.on_ray import Ray
from fewlabels.sweep.on_slurm import Slurm
from fewlabels.sweep.task import TOLD, Task, Work

PATIENCE = 60.0
"""Seconds in which an earlier process of the run must have ended, which may be about to save."""

PACE = 0.5
"""Seconds between two looks at all runs: file systems of clusters are slow, and there may be many runs."""

TRIES = 5
"""How often a run is started again that was told to end before it had saved a further step."""


class Engine(Protocol):
    """Starts tasks elsewhere. What it hands out for a task it takes back as `handle`."""

    words: str
    """Where that is, for a sentence."""
    cpus: int

    def submit(self, task: Task, name: str) -> Any:
        """Have the task called some time. Raises ValueError, with a sentence, where that is refused."""

    def look(self, handle: Any) -> int | str | None:
        """What the task has returned; a sentence if it is gone without that; None as long as it waits or runs."""

    def cancelled(self, handle: Any) -> bool | None:
        """Whether it was the user who ended a task that was told to end; None: not known yet."""

    def cancel(self, handle: Any) -> None: ...

    def close(self) -> None: ...


@contextmanager
def engine_of(on: On, root: Path, *, gpus: int) -> Iterator[Engine | None]:
    """What `on` asks for; None for this machine.

    root: a folder that both sides see. gpus: of a job, if `on` does not say it. Raises ValueError where there is none.
    """
    engine: Engine | None = None
    if on.name == "slurm":
        engine = Slurm(on, root, gpus=gpus)
    elif on.name == "ray":
        engine = Ray(on, gpus=gpus)
    try:
        yield engine
    finally:
        if engine is not None:
            engine.close()


def beginning(engine: Engine) -> Callable[[Work, str | None, int], Remote]:
    """What starts a job with the engine; the first one that it refuses is an error, as the others would be."""
    taken = False

    def begin(job: Work, place: str | None, threads: int) -> Remote:
        nonlocal taken
        remote = Remote(job, engine, first=not taken)
        taken = True
        return remote

    return begin


class Remote:
    """A job with an engine, as `fewlabels.sweep.pool` has a process."""

    def __init__(self, job: Work, engine: Engine, *, first: bool) -> None:
        """Raises ValueError where the engine refuses the `first` job; for others that is their failure."""
        self.job, self.engine = job, engine
        self.file = job.file
        self.code: int | None = None
        self.asked, self.tries, self.step = False, 0, job.start
        self.file.parent.mkdir(parents=True, exist_ok=True)
        job.log.unlink(missing_ok=True)
        try:
            self._submit()
        except ValueError as error:
            if first:
                self.stop()
                raise
            self._fail(str(error))

    def _submit(self) -> None:
        token = secrets.token_hex(8)
        threads = os.environ.get("OMP_NUM_THREADS", str(self.engine.cpus))
        more = {
            "token": token,
            "patience": PATIENCE,
            "cwd": os.getcwd(),
            "log": os.path.abspath(self.job.log),
            "threads": threads,
        }
        write_json(self.file, {**self.job.order(), **more})
        self.handle = self.engine.submit(Task(os.path.abspath(self.file), token), self.job.name)

    def poll(self) -> int | None:
        if self.code is None:
            if self.asked and not self.job.log.exists():  # it has not begun, and may wait for days
                self.kill()
                self.code = TOLD[0]
            elif isinstance(found := self.engine.look(self.handle), str):
                self._fail(found)
            elif found in TOLD and not self.asked:
                self._again(found)
            elif found is not None:
                self._end(found)
        return self.code

    def _again(self, code: int) -> None:
        """Somebody told it to end, as a cluster does that needs the machine: it is to go on, unless the user did."""
        cancelled = self.engine.cancelled(self.handle)
        if cancelled is None:
            return
        if cancelled:
            return self._fail("its job was cancelled; the same command goes on with it")
        step, finished = self.job.progress()
        self.tries = 0 if step > self.step else self.tries + 1
        self.step = step
        if finished or self.tries >= TRIES:
            return self._end(code)
        self.engine.cancel(self.handle)  # the cluster may start it again by itself
        try:
            self._submit()
        except ValueError as error:
            self._fail(str(error))

    def _fail(self, sentence: str) -> None:
        with suppress(OSError), self.job.log.open("a") as log:
            log.write(f"\nfewlabels: {sentence}\n")
        self._end(1)

    def _end(self, code: int) -> None:
        self.code = code
        self.file.unlink(missing_ok=True)

    def stop(self) -> None:
        """Have it save and end."""
        self.asked = True
        self.file.unlink(missing_ok=True)

    def kill(self) -> None:
        self.stop()
        if self.code is None:
            self.engine.cancel(self.handle)
