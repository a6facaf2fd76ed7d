"""Ranks of a training as forks of the test's process: torch is imported already, and what a test patches is patched."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

FORK: Any = multiprocessing.get_context("fork")


class Rank:
    """A rank in a process of its own, and what it wrote; `place` is where it works."""

    def __init__(
        self,
        folder: Path,
        rank: int,
        port: int,
        work: Callable[[], object],
        *,
        world: int = 2,
        place: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.file = folder / f"rank{rank}.err"
        self.file.unlink(missing_ok=True)
        self.environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            **(environment or {}),
        }
        self.work, self.place = work, place
        self.process = FORK.Process(target=self._go)
        self.process.start()

    def _go(self) -> None:
        os.environ.update(self.environment, GLOO_SOCKET_IFNAME="lo")
        if self.place is not None:
            os.chdir(self.place)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stdout, sys.stderr = self.file.with_suffix(".out").open("w"), os.fdopen(2, "w", buffering=1)
        torch.set_num_threads(1)
        self.work()

    def end(self, limit: float = 120) -> tuple[int, str]:
        """Exit status and standard error; ranks that take longer than `limit` seconds are killed."""
        self.process.join(limit)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.file.read_text()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
