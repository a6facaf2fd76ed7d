"""Which runs there are, and how they are given out to devices; the workers here are scripts, not processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fewlabels as fl
from fewlabels.runs.run import RunError
from fewlabels.runtime.interrupt import Stop
from fewlabels.sweep.plan import Job, Outcome, numbers, plan
from fewlabels.sweep.pool import Post, at_once, gpus


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0..4", (0, 1, 2, 3, 4)), ("1,3,5", (1, 3, 5)), ("7", (7,)), ("0..1, 9, 4..5", (0, 1, 9, 4, 5)), ("3..3", (3,))],
)
def test_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert numbers("--seeds", text) == expected


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 10**6), length=st.integers(1, 1000))
def test_a_range_has_both_ends(first: int, length: int) -> None:
    assert list(numbers("--folds", f"{first}..{first + length - 1}")) == list(range(first, first + length))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "--seeds must be numbers such as 0..4 or 1,3,5, got ''"),
        ("0-4", "--seeds must be numbers such as 0..4 or 1,3,5, got '0-4'"),
        ("1,,2", "--seeds must be numbers such as 0..4 or 1,3,5, got '1,,2'"),
        ("0...4", "--seeds must be numbers such as 0..4 or 1,3,5, got '0...4'"),
        ("-1..2", "--seeds must be numbers such as 0..4 or 1,3,5, got '-1..2'"),
        ("1.5", "--seeds must be numbers such as 0..4 or 1,3,5, got '1.5'"),
        ("4..0", "--seeds 4..0 counts downwards: write 0..4"),
        ("0..4,2", "--seeds 0..4,2 names 2 twice"),
        ("0,1,0", "--seeds 0,1,0 names 0 twice"),
        ("4294967296", "--seeds must be numbers from 0 to 4294967295, got 4294967296"),
        ("0..4294967295", "--seeds 0..4294967295 means more than 1000 runs"),
        ("0..998,2000,2001", "--seeds 0..998,2000,2001 means more than 1000 runs"),
    ],
)
def test_what_is_no_list_of_numbers(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        numbers("--seeds", text)
    assert str(error.value) == sentence


# ---- which runs


def test_seeds_of_the_training(tmp_path: Path) -> None:
    jobs = plan(fl.Train(steps=9), "seed", (0, 7), out=tmp_path)
    assert [(job.name, job.path, job.config.seed) for job in jobs] == [
        ("seed 0", tmp_path / "seed-0", 0),
        ("seed 7", tmp_path / "seed-7", 7),
    ]
    assert all(job.config.data.seed == 1 and job.config.data.name == "digits@40" for job in jobs)
    assert [(job.known, job.start, job.finished, job.steps) for job in jobs] == [(False, 0, False, 9)] * 2
    assert [job.steps for job in plan(fl.Train(steps=9), "seed", (0,), out=tmp_path, baseline=True)] == [18]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("digits@40", ["digits.0@40", "digits.2@40"]),
        ("cifar10.3@250-5000", ["cifar10.0@250-5000", "cifar10.2@250-5000"]),
        ("./photos/", ["./photos/"] * 2),
    ],
)
def test_seeds_of_the_split(tmp_path: Path, data: str, names: list[str]) -> None:
    jobs = plan(fl.Train(data=fl.Data(data), seed=5), "fold", (0, 2), out=tmp_path)
    assert [job.config.data.name for job in jobs] == names
    assert [(job.config.data.seed, job.config.seed) for job in jobs] == [(0, 5), (2, 5)]
    assert [job.path.name for job in jobs] == ["fold-0", "fold-2"]


def test_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = fl.Train(data=fl.Data("cifar10.3@250"), seed=5)
    assert plan(train, "seed", (1,))[0].path == Path("runs/cifar10.3@250-fixmatch-seeds/seed-1")
    assert plan(train, "fold", (1,))[0].path == Path("runs/cifar10@250-fixmatch-folds/fold-1")


def test_what_the_folders_hold(short: Callable[..., Any], tmp_path: Path) -> None:
    config = short()
    fl.train(replace(config, seed=0), out=tmp_path / "seed-0")
    for seed in (1, 2):
        fl.train(replace(config, seed=seed), out=tmp_path / f"seed-{seed}")
        (tmp_path / f"seed-{seed}" / "result.json").unlink()
    for checkpoint in fl.Run(tmp_path / "seed-1").checkpoints():
        if checkpoint.step > 8:
            checkpoint.path.rename(tmp_path / checkpoint.path.name)
    for checkpoint in fl.Run(tmp_path / "seed-2").checkpoints():
        checkpoint.path.rename(tmp_path / f"other-{checkpoint.path.name}")
    jobs = plan(config, "seed", range(4), out=tmp_path)
    assert [(job.known, job.start, job.finished) for job in jobs] == [
        (True, 12, True), (True, 8, False), (True, 0, False), (False, 0, False),
    ]  # fmt: skip
    with_baseline = plan(config, "seed", (0,), out=tmp_path, baseline=True)
    assert [(job.known, job.start, job.steps, job.finished) for job in with_baseline] == [(True, 12, 24, False)]
    elsewhere = plan(replace(config, device="cpu", keep=9), "seed", range(2), out=tmp_path)
    assert [job.known for job in elsewhere] == [True, True]  # neither touches the result

    other = replace(config, steps=13)
    with pytest.raises(RunError) as error:
        plan(other, "seed", range(4), out=tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'seed-0'} holds a run with steps 12, and 13 is asked for; name another --out, or add "
        "--overwrite to replace it"
    )
    assert [job.known for job in plan(other, "seed", range(4), out=tmp_path, overwrite=True)] == [False] * 4
    with pytest.raises(RunError, match=r"holds a run with algorithm\.name fixmatch, and mixmatch is asked for"):
        plan(short("mixmatch"), "seed", range(4), out=tmp_path)
    (tmp_path / "seed-9").mkdir()
    (tmp_path / "seed-9" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="so --overwrite leaves it"):
        plan(config, "seed", (9,), out=tmp_path, overwrite=True)
    with pytest.raises(RunError, match="is a single run: name another --out for several"):
        plan(config, "seed", (0,), out=tmp_path / "seed-0")


# ---- given out to devices


class Script:
    """A worker that ends when the test lets it, with what the test says."""

    def __init__(self, job: Job, device: str, post: Post) -> None:
        self.job, self.device, self.post, self.stopped, self.killed = job, device, post, False, False

    def stop(self) -> None:
        self.stopped = True
        self.end(Outcome("stopped", "saved"))

    def kill(self) -> None:
        self.killed = True

    def last_words(self) -> str:
        return "its process was killed by SIGKILL"

    def end(self, outcome: Outcome | None = None) -> None:
        if outcome:
            self.post(outcome)
        self.post(None)


class Seen:
    """A board that remembers."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []
        self.lines: list[tuple[str, str]] = []

    def tell(self, job: Job, kind: str, step: int, text: str) -> None:
        self.lines.append((job.name, f"{step} {text}"))

    def end(self, job: Job, outcome: Outcome) -> None:
        self.ends.append((job.name, outcome.kind, outcome.reason))


def jobs_of(count: int, tmp_path: Path) -> list[Job]:
    return plan(fl.Train(), "seed", range(count), out=tmp_path)


def test_one_at_a_time_on_each_device(tmp_path: Path) -> None:
    """The second device is free again and again, while the first works on seed 0."""
    begun: list[Script] = []

    def launch(job: Job, device: str, post: Post) -> Script:
        script = Script(job, device, post)
        begun.append(script)
        if len(begun) > 1:  # all but the first end at once, the first with the last
            script.post(("step", 3, "on its way"))
            script.end(Outcome("finished"))
        if len(begun) == 4:
            begun[0].end(Outcome("finished"))
        return script

    board = Seen()
    result = at_once(jobs_of(4, tmp_path), ["A", "B"], board, launch)
    assert [(script.job.name, script.device) for script in begun] == [
        ("seed 0", "A"), ("seed 1", "B"), ("seed 2", "B"), ("seed 3", "B"),
    ]  # fmt: skip
    assert result.signum == 0 and {name: o.kind for name, o in result.outcomes.items()} == dict.fromkeys(
        [f"seed {i}" for i in range(4)], "finished"
    )
    assert [name for name, _, _ in board.ends] == ["seed 1", "seed 2", "seed 3", "seed 0"]
    assert ("seed 2", "3 on its way") in board.lines and not any(script.killed for script in begun)


def test_a_dead_worker_does_not_stop_the_others(tmp_path: Path) -> None:
    ends = iter(
        [None, Outcome("failed", "the loss was not finite"), Outcome("stopped", "by hand"), Outcome("finished")]
    )

    def launch(job: Job, device: str, post: Post) -> Script:
        script = Script(job, device, post)
        script.end(next(ends))
        return script

    board = Seen()
    outcomes, signum = at_once(jobs_of(4, tmp_path), ["A"], board, launch)
    assert signum == 0 and board.ends == [
        ("seed 0", "failed", "its process was killed by SIGKILL"),
        ("seed 1", "failed", "the loss was not finite"),
        ("seed 2", "failed", "by hand"),
        ("seed 3", "finished", ""),
    ]
    assert [(name, o.kind, o.reason) for name, o in outcomes.items()] == board.ends


def test_a_signal_stops_all_once_and_begins_none(tmp_path: Path) -> None:
    begun: list[Script] = []

    def launch(job: Job, device: str, post: Post) -> Script:
        begun.append(Script(job, device, post))
        if len(begun) == 2:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return begun[-1]

    before = signal.getsignal(signal.SIGTERM)
    result = at_once(jobs_of(5, tmp_path), ["A", "B"], Seen(), launch)
    assert result.signum == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    assert [script.stopped for script in begun] == [True, True]
    assert {name: o.kind for name, o in result.outcomes.items()} == {"seed 0": "stopped", "seed 1": "stopped"}


def test_a_second_signal_kills(tmp_path: Path) -> None:
    begun: list[Script] = []

    class Deaf(Script):
        def stop(self) -> None:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    def launch(job: Job, device: str, post: Post) -> Script:
        begun.append(Deaf(job, device, post))
        os.kill(os.getpid(), signal.SIGINT)
        return begun[-1]

    with pytest.raises(KeyboardInterrupt):
        at_once(jobs_of(1, tmp_path), ["A"], Seen(), launch)
    assert begun[0].killed


def test_a_signal_after_a_wish_to_stop_is_the_first_one() -> None:
    """Ctrl-C reaches a worker itself and as its parent's wish, in any order: both together must not be a second one."""
    stop = Stop()
    stop.ask(signal.SIGTERM)
    stop(signal.SIGINT, None)
    stop.ask(signal.SIGTERM)
    assert stop.signum == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)


@pytest.mark.parametrize(
    ("device", "visible", "count", "expected"),
    [
        ("auto", None, 3, ["0", "1", "2"]),
        ("cuda", "4,6", 2, ["4", "6"]),
        ("auto", "GPU-8a, GPU-9b,-1", 2, ["GPU-8a", "GPU-9b"]),
        ("cuda:1", None, 3, []),
        ("cpu", None, 3, []),
        ("auto", "", 0, []),
    ],
)
def test_gpus(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(device) == expected
