"""What an engine calls on the machine of a run or shard: starts its process, and waits for it. Imports no torch."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from fewlabels.runtime import children

TOLD = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit statuses of a run that was told to end."""


class Work(Protocol):
    """What a process is started for, here or by an engine: a run to train, a shard to predict."""

    @property
    def name(self) -> str:
        """In sentences."""

    @property
    def log(self) -> Path:
        """Where its process leaves what it has to say."""

    @property
    def file(self) -> Path:
        """Where it lies for an engine, as long as it is to be done."""

    @property
    def start(self) -> int:
        """How far it was when it was planned."""

    @property
    def last(self) -> bool:
        """Whether it begins when all before it are finished."""

    def order(self) -> dict[str, Any]:
        """What its process has to know: of a shard the `words` of a command line."""

    def progress(self) -> tuple[int, bool]:
        """How far it is by what is saved, and whether it is finished."""


def process_of(order: Mapping[str, Any]) -> list[str]:
    """The command line of the process that does it, and gets the order at its input."""
    return children.command("fewlabels.cli", "shard" if "words" in order else "child")


class Task:
    """What the engine calls on the machine of the work; returns the exit status of its process."""

    def __init__(self, file: str, token: str) -> None:
        """file: where the job lies; token: what says that it is the one of this task."""
        self.file, self.token = file, token
        self.process: subprocess.Popen[bytes] | None = None
        self.told = False

    def __call__(self) -> int:
        found = self._order()
        if found is None:
            return TOLD[0]
        with open(found["log"], "ab") as log:
            self.process = subprocess.Popen(
                process_of(found),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=children.environment(OMP_NUM_THREADS=found["threads"]),
                cwd=found["cwd"],
            )
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(found).encode() + b"\n")
            self.process.stdin.flush()
        while self.process.poll() is None:
            if self.told or self._called_off():
                self.stop()
            time.sleep(0.3)
        return self.process.returncode

    def stop(self, *ignored: object) -> None:
        """Save and end: the process is told by the end of its input, as it is when this one dies."""
        self.told = True
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def wait(self) -> None:
        """Until the process has ended, after `stop`."""
        if self.process is not None:
            self.process.wait()

    def _order(self) -> dict[str, Any] | None:
        """The job, as long as it is that of this task."""
        try:
            found: dict[str, Any] = json.loads(Path(self.file).read_bytes())
        except FileNotFoundError:
            return None
        return found if found["token"] == self.token else None

    def _called_off(self) -> bool:
        try:
            return self._order() is None
        except (OSError, ValueError):  # a file system that does not answer now
            return False


class Checkpointable(Task):
    """The task of a job."""

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, self.stop)  # which submitit passes over
        return super().__call__()

    def checkpoint(self) -> Any:
        """Save; what is to be called when the job begins anew."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        self.wait()
        return DelayedSubmission(Checkpointable(self.file, self.token))


def call(task: Task) -> int:
    """A function, as Ray wants it."""
    return task()
