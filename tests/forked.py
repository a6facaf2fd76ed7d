"""The runs of a sweep as forks of the test's process, in place of new ones.

Nothing has to be imported again, and what a test has replaced is replaced there too. All else is as in a new process:
the job comes through standard input, what it says goes into its log, and signals are its own.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import pytest

from fewlabels.sweep import pool
from fewlabels.sweep.task import Work


class Forked:
    """A `fewlabels.sweep.pool.Process`."""

    def __init__(self, job: Work, place: str | None, threads: int) -> None:
        read, write = os.pipe()
        self.returncode: int | None = None
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            self.pid = os.fork()
            if self.pid == 0:
                _become(read, log.fileno(), "shard" if "words" in job.order() else "child")
        os.close(read)
        self.stdin = os.fdopen(write, "wb")
        pool.hand_over(self.stdin, job)

    def stop(self) -> None:
        with suppress(OSError):
            self.stdin.close()

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, options: int = 0) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


@contextmanager
def forking() -> Iterator[None]:
    """The runs of a sweep are forks within the block."""
    with pytest.MonkeyPatch.context() as own:
        own.setattr("fewlabels.sweep.pool.start", Forked)
        yield


def _become(read: int, log: int, entry: str) -> NoReturn:
    from fewlabels import cli

    code: object = 1
    try:
        for own, given in enumerate((read, log, log)):
            os.dup2(given, own)
        os.closerange(3, 4096)  # the input of another run must not stay open here
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        getattr(cli, entry)()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)
