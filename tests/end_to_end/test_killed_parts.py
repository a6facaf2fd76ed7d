"""`fewlabels predict --shard`, killed: what is there is whole, and the same command goes on to the same files.

Each case forks, so that torch is imported once. `FEWLABELS_KILLS=300` makes a longer loop by hand.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FORK: Any = multiprocessing.get_context("fork")
KILLS = int(os.environ.get("FEWLABELS_KILLS", "10"))
SEED = int(os.environ.get("FEWLABELS_KILL_SEED", time.time_ns() % 10**6))


@pytest.fixture(scope="module")
def words(photo_run: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A command for seven pictures in parts of three; two cannot be read, of the first part and all of the third."""
    root = tmp_path_factory.mktemp("killed") / "pictures"
    root.mkdir()
    for i in range(7):
        shutil.copy(photos / "test" / ("red", "blue")[i % 2] / f"{i % 4}.png", root / f"{i:02}.png")
    for i in (1, 6):
        (root / f"{i:02}.png").write_bytes(b"nonsense")
    return ["predict", photo_run.path, root, "--shard", "1/1", "--part-rows", 3, "-o"]


@pytest.fixture(scope="module")
def expected(
    words: list[object], command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert command(*words, out).code == 1 and command("predict", "--check", out).code == 0
    return shown(out)


def shown(folder: Path) -> dict[str, bytes]:
    """What has a name that is not hidden."""
    return {p.name: p.read_bytes() for p in folder.glob("[!.]*")} if folder.exists() else {}


def check(out: Path, words: list[object], command: Callable[..., Any], expected: dict[str, bytes], what: str) -> None:
    """After a kill: whole parts only; the command goes on to what nobody disturbed."""
    left = shown(out)
    for name, data in left.items():
        assert "unreadable" in name or data == expected[name], f"{what}: {name}"
    whole = sum("part" in name for name in left)
    if whole < 3:
        assert command("predict", "--check", out).code != 0, what
    said = command(*words, out)
    assert said.code == 1 and (f"{whole} of which were there" in said.err) == bool(whole), f"{what}: {said.err}"
    assert shown(out) == expected, what
    assert command("predict", "--check", out).code == 0, what


@pytest.mark.slow
def test_killed_at_every_step_of_writing(
    words: list[object], command: Callable[..., Any], expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Before and after each flush to the disk, rename and removal."""

    def work(out: Path, last: int) -> None:
        calls = 0

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = real(*args, **options)
                calls += 1
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            return call

        os.fsync = dying(os.fsync)
        for name in ("rename", "replace", "unlink"):
            setattr(Path, name, dying(getattr(Path, name)))
        os._exit(command(*words, out).code)

    for last in range(1, 200):
        out = tmp_path / str(last)
        process = FORK.Process(target=work, args=(out, last))
        process.start()
        process.join(120)
        assert process.exitcode in (-signal.SIGKILL, 1), "it hangs"
        check(out, words, command, expected, f"call {last}")
        if process.exitcode == 1:
            break
    assert 20 < last < 199  # three parts, each at least a flush, a rename and the flush of the folder


@pytest.mark.slow
@pytest.mark.parametrize("case", range(KILLS))
def test_killed_at_any_moment(
    case: int, words: list[object], command: Callable[..., Any], expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Also while a second process writes the same shard, or wants to."""
    chance = random.Random(SEED * 1000 + case)
    out = tmp_path / "out"

    def work() -> None:
        os._exit(command(*words, out).code)

    begin = time.monotonic()
    command(*words, tmp_path / "alone")
    length = time.monotonic() - begin
    for _ in range(chance.choice((1, 2, 3))):
        processes = [FORK.Process(target=work) for _ in range(chance.choice((1, 2)))]
        for process in processes:
            process.start()
        time.sleep(chance.uniform(0, 1.2 * length * len(processes)))
        os.kill(processes[0].pid, signal.SIGKILL)
        for process in processes:
            process.join(120)
            assert process.exitcode in (-signal.SIGKILL, 1, 2), f"seed {SEED}"
    check(out, words, command, expected, f"seed {SEED}")
