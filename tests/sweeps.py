"""Many tiny trainings with one command, and what they leave."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fewlabels.runs.run import Run

TINY = "--data digits@40 --net small-4 --batch 4 --uratio 2 --steps 12 --eval-every 6 --save-every 4 --log-every 3"
OPTIONS = ("train", *TINY.split(), "--no-baseline", "--no-progress")


FORK: Any = multiprocessing.get_context("fork")


def table(out: str) -> dict[str, list[str]]:
    """Rows by what stands in front."""
    words = [line.split() for line in out.splitlines()[1:]]
    return {" ".join(w[:2]) if w[0] in ("seed", "fold") else w[0]: w for w in words if w}


def state(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a training determines: weights, and all records but their times."""
    run = Run(path)
    records = [{k: v for k, v in r.items() if not k.endswith("_ms")} for r in run.metrics()]
    return (run.checkpoint().path / "weights.safetensors").read_bytes(), records


def times(root: Path) -> dict[Path, int]:
    """When each file below a folder was changed last."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def undisturbed(command: Callable[..., Any], root: Path, options: Sequence[str]) -> Any:
    """What a sweep into the folder `root` says, its runs being forks; the folder's parent is the working folder."""
    from forked import Forked

    with pytest.MonkeyPatch.context() as own:
        own.setattr("fewlabels.sweep.pool.start", Forked)
        own.chdir(root.parent)
        return command(*options, "--out", root.name)


def killed_once(name: str, root: Path, work: Callable[[], object]) -> None:
    """Call `work` in a process of its own, and kill -9 it and all that it has started as soon as there is the file
    `name` below `root`."""

    def alone() -> None:
        os.setsid()
        work()

    process = FORK.Process(target=alone)
    process.start()
    end = time.monotonic() + 120
    while not (root / name).exists():
        assert process.is_alive() and time.monotonic() < end, name
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    for lock in root.rglob(".lock"):  # its children end a moment later
        with lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    assert process.exitcode == -signal.SIGKILL, name
