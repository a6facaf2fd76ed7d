"""Two gloo ranks of which one dies, fails, works alone for long or never comes; forked: torch is imported already."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels import cli
from fewlabels.runs.run import Run
from fewlabels.runtime import files, parallel, ranks
from fewlabels.training import loop as training
from fewlabels.training.step import Trainer
from forked_ranks import Rank, free_port

pytestmark = pytest.mark.slow

TINY = "--data digits@40 --net small-4 --batch 4 --uratio 1 --steps 40 --save-every 10 --no-baseline --no-progress"
ENDED = "fewlabels: rank {} stops, since rank {} has ended, which says why unless it was killed\n"
Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Rank]:
    port = free_port()

    def begin(rank: int, patch: Patch, *options: object) -> Rank:
        def work() -> None:
            with pytest.MonkeyPatch.context() as patches:
                patch(patches)
                cli.main(["train", *TINY.split(), "--out", str(tmp_path / "run"), *map(str, options)])

        return Rank(tmp_path, rank, port, work)

    return begin


def in_step(number: int, action: Callable[[], object]) -> Patch:
    def patch(patches: pytest.MonkeyPatch) -> None:
        step = Trainer.step

        def stepped(self: Trainer, n: int) -> None:
            if n == number:
                action()
            step(self, n)

        patches.setattr(Trainer, "step", stepped)

    return patch


def nothing(patches: pytest.MonkeyPatch) -> None:
    pass


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def last_line(text: str) -> str:
    return text.splitlines(keepends=True)[-1]


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_is_killed_in_a_step(start: Callable[..., Rank], tmp_path: Path, dead: int) -> None:
    patches = [nothing, nothing]
    patches[dead] = in_step(15, die)
    both = [start(rank, patches[rank]) for rank in (0, 1)]
    assert both[dead].end()[0] == -signal.SIGKILL
    code, err = both[1 - dead].end()
    assert code == 1 and "Traceback" not in err and last_line(err) == ENDED.format(1 - dead, dead)
    assert [c.step for c in Run(tmp_path / "run").checkpoints() if not c.best] == [10]


def test_rank_0_finds_its_disk_full(start: Callable[..., Rank], tmp_path: Path) -> None:
    def full(patches: pytest.MonkeyPatch) -> None:
        write = files.write_bytes

        def limited(path: Path, data: bytes) -> None:
            if "step-00000020" in str(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, data)

        patches.setattr(files, "write_bytes", limited)

    lead, other = start(0, full), start(1, nothing)
    code, err = lead.end()
    assert code == 1 and last_line(err) == (
        f"fewlabels: could not save the checkpoint of step 20 to {tmp_path}/run/checkpoints/step-00000020: "
        "No space left on device; the last good checkpoint is step 10\n"
    )
    assert other.end() == (1, ENDED.format(1, 0))


def test_rank_0_cannot_write_its_last_word(start: Callable[..., Rank]) -> None:
    """The others have done all their steps and must not end as if all were well."""

    def full(patches: pytest.MonkeyPatch) -> None:
        def finish(self: Run, result: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "result.json")

        patches.setattr(Run, "finish", finish)

    lead, other = start(0, full), start(1, nothing)
    assert lead.end()[0] == 1 and other.end() == (1, ENDED.format(1, 0))


def test_rank_0_is_killed_while_it_reads_alone(start: Callable[..., Rank], tmp_path: Path) -> None:
    """The others wait as long as it works, whatever it does, and no longer than it lives."""
    reading = tmp_path / "reading"

    def slow(patches: pytest.MonkeyPatch) -> None:
        def load(*args: Any) -> None:
            reading.touch()
            time.sleep(300)

        patches.setattr(training, "load_source", load)

    def hurry(patches: pytest.MonkeyPatch) -> None:
        patches.setattr(training, "load_source", lambda *args: pytest.fail("read beside rank 0"))
        patches.setattr(ranks, "LIMIT", 0.0)  # that of the meeting says nothing of what comes after it

    lead, other = start(0, slow), start(1, nothing)
    until(reading.exists)
    other.process.join(1)
    assert other.process.is_alive()
    lead.process.kill()
    assert other.end() == (1, ENDED.format(1, 0))


@pytest.mark.parametrize("resume", [False, True])
def test_what_rank_0_cannot_read_the_others_do_not_try(
    start: Callable[..., Rank], tmp_path: Path, resume: bool
) -> None:
    if resume:
        both = [start(0, in_step(15, die)), start(1, nothing)]
        assert [rank.end()[0] for rank in both] == [-signal.SIGKILL, 1]

    def broken(patches: pytest.MonkeyPatch) -> None:
        def load(*args: Any) -> None:
            raise ValueError(f"no such data for rank {parallel.rank()}")

        patches.setattr(training, "load_source", load)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patches:
            broken(patches)
            cli.main(["train", "--resume", str(tmp_path / "run")])

    if resume:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        (tmp_path / "again").mkdir()
        both = [Rank(tmp_path / "again", rank, port, work) for rank in (0, 1)]
    else:
        both = [start(rank, broken) for rank in (0, 1)]
    assert both[0].end() == (2, "fewlabels: no such data for rank 0\n")
    sentence = "rank 1 stops, since rank 0 could not get what all ranks need, and says why"
    assert both[1].end() == (1, f"fewlabels: {sentence}\n")


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_while_a_rank_does_not_come(start: Callable[..., Rank], rank: int) -> None:
    alone = start(rank, lambda patches: patches.setattr(ranks, "QUIET", 0.0))
    until(lambda: alone.file.exists() and "to come" in alone.file.read_text())
    os.kill(alone.process.pid, signal.SIGINT)
    code, err = alone.end()
    assert code == 130 and len(err.splitlines()) == 2
    assert err.startswith(f"fewlabels: rank {rank} waits for rank {1 - rank} of 2 to come, at 127.0.0.1:")


def test_a_rank_that_cannot_notice_is_ended(start: Callable[..., Rank]) -> None:
    """As NCCL's waits are: deaf."""

    def deaf(patches: pytest.MonkeyPatch) -> None:
        patches.setattr(ranks, "PATIENCE", 0.2)
        patches.setattr(parallel, "_check_gpus", lambda *args: None)
        meet = parallel.meet

        def met(here: Any) -> Any:
            store, line = meet(here)
            line.watch()
            return store, line

        patches.setattr(parallel, "meet", met)
        in_step(15, lambda: threading.Event().wait(300))(patches)

    other, deaf_one = start(0, in_step(12, die)), start(1, deaf)
    assert other.end()[0] == -signal.SIGKILL
    assert deaf_one.end() == (1, ENDED.format(1, 0))


def until(true: Callable[[], bool]) -> None:
    """Wait; what never comes is an error after minutes that the busiest machine does not need."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
