"""Which runs there are, and how they are given out to devices; the processes here are scripts."""

from __future__ import annotations

import json
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
from fewlabels.sweep.plan import Job, numbers, plan
from fewlabels.sweep.pool import Outcome, Result, Tail, gpus, hand_over, train_all


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


@pytest.mark.slow
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
    """A process that ends when the test lets it, with what the test says."""

    def __init__(self, job: Job, place: str | None) -> None:
        self.job, self.place, self.code, self.killed, self.got = job, place, None, False, b""
        job.log.write_text("")

    def poll(self) -> int | None:
        return self.code

    def write(self, order: bytes) -> None:
        self.got += order

    def flush(self) -> None: ...

    def stop(self) -> None:
        """It is asked to stop, or has ended."""
        self.end(128 + signal.SIGTERM, "fewlabels: saved")

    def kill(self) -> None:
        self.killed = True

    def end(self, code: int, text: str = "") -> None:
        if self.code is None:
            self.code = code
            self.job.log.write_text(text)


class Seen:
    """A board that remembers."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str, str]] = []
        self.lines: list[tuple[str, str]] = []

    def step(self, job: Job, step: int, text: str) -> None:
        self.lines.append((job.name, f"{step} {text}"))

    def line(self, job: Job, text: str) -> None:
        self.lines.append((job.name, text))

    said = line

    def end(self, job: Job, outcome: Outcome) -> None:
        self.ends.append((job.name, outcome.kind, outcome.reason))


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Train so many seeds with scripts."""

    def run(count: int, places: list[str | None], board: Seen, begin: Callable[[Script], None], **more: Any) -> Result:
        def start(job: Job, place: str | None, threads: int) -> Script:
            script = more.get("kind", Script)(job, place)
            hand_over(script, job)  # type: ignore[arg-type]  # which has what is used of a pipe
            begin(script)
            return script

        monkeypatch.setattr("fewlabels.sweep.pool.start", start)
        return train_all(plan(fl.Train(), "seed", range(count), out=tmp_path), places, board)

    return run


def test_one_at_a_time_on_each_device(train: Callable[..., Result]) -> None:
    """The second device is free again and again, while the first works on seed 0."""
    begun: list[Script] = []

    def begin(script: Script) -> None:
        begun.append(script)
        if len(begun) > 1:  # all but the first end at once, the first with the last
            script.end(0, "on its way\n")
        if len(begun) == 4:
            begun[0].end(0)

    board = Seen()
    result = train(4, ["A", "B"], board, begin)
    assert [(script.job.name, script.place) for script in begun] == [
        ("seed 0", "A"), ("seed 1", "B"), ("seed 2", "B"), ("seed 3", "B"),
    ]  # fmt: skip
    assert result.signum == 0 and {name: o.kind for name, o in result.outcomes.items()} == dict.fromkeys(
        [f"seed {i}" for i in range(4)], "finished"
    )
    assert [name for name, _, _ in board.ends] == ["seed 1", "seed 2", "seed 0", "seed 3"]
    assert ("seed 2", "on its way") in board.lines and not any(script.killed for script in begun)
    orders = [json.loads(script.got) for script in begun]
    assert [order["train"]["seed"] for order in orders] == [0, 1, 2, 3]
    assert not any(script.job.log.exists() for script in begun)


def test_a_dead_worker_does_not_stop_the_others(train: Callable[..., Result], tmp_path: Path) -> None:
    trace = "a note\nTraceback (most recent call last):\n  there\nZeroDivisionError: by zero\n"
    ends = iter(
        [(-9, ""), (1, "a note\nfewlabels: the loss was not finite\n"), (143, "fewlabels: by hand\n"), (1, trace),
         (-11, "a word\n"), (3, ""), (0, "")]
    )  # fmt: skip
    board = Seen()
    outcomes, signum = train(7, [None], board, lambda script: script.end(*next(ends)))
    assert signum == 0 and board.ends == [
        ("seed 0", "failed", "its process was killed by SIGKILL"),
        ("seed 1", "failed", "the loss was not finite"),
        ("seed 2", "failed", "by hand"),
        ("seed 3", "failed", f"ZeroDivisionError: by zero (what it said is in {tmp_path / 'seed-3.log'})"),
        ("seed 4", "failed", f"its process was killed by SIGSEGV (what it said is in {tmp_path / 'seed-4.log'})"),
        ("seed 5", "failed", "its process ended with status 3"),
        ("seed 6", "finished", ""),
    ]
    assert [(name, o.kind, o.reason) for name, o in outcomes.items()] == board.ends
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["seed-3.log", "seed-4.log"]
    said = [(name, text) for name, text in board.lines if text != "0 starting"]
    assert said == [("seed 1", "a note"), ("seed 3", "a note"), ("seed 4", "a word")]


def test_a_signal_stops_all_once_and_begins_none(train: Callable[..., Result]) -> None:
    begun: list[Script] = []

    def begin(script: Script) -> None:
        begun.append(script)
        if len(begun) == 2:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    before = signal.getsignal(signal.SIGTERM)
    result = train(5, ["A", "B"], Seen(), begin)
    assert result.signum == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    assert {name: o.kind for name, o in result.outcomes.items()} == {"seed 0": "stopped", "seed 1": "stopped"}
    assert not any(script.killed or script.job.log.exists() for script in begun)


def test_a_second_signal_kills(train: Callable[..., Result]) -> None:
    begun: list[Script] = []

    class Deaf(Script):
        asked = False

        def stop(self) -> None:
            if not self.asked:
                self.asked = True
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    def begin(script: Script) -> None:
        begun.append(script)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(1, ["A"], Seen(), begin, kind=Deaf)
    assert begun[0].killed


def test_the_steps_of_a_run_that_goes_on(train: Callable[..., Result], tmp_path: Path) -> None:
    """What an earlier process wrote is not shown, and neither is half a line."""
    evaluation = '{"kind": "eval", "step": %d, "test": {"ema": {"accuracy": 50.0}}}\n'
    path = tmp_path / "metrics.jsonl"
    path.write_text(evaluation % 5)
    tail = Tail(path)
    with path.open("rb") as kept:  # so that its inode is in use, as it is until another one takes its place
        assert tail.lines() == [] and tail.lines() == []
        new = tmp_path / "new"
        new.write_text(evaluation % 4)
        new.rename(path)
        assert kept.read() and tail.lines() == [(evaluation % 4).strip()] and tail.lines() == []
    with path.open("a") as more:
        more.write((evaluation % 6)[:20])
        more.flush()
        assert tail.lines() == []
        more.write((evaluation % 6)[20:])
    assert tail.lines() == [(evaluation % 6).strip()]

    def begin(script: Script) -> None:
        script.job.path.mkdir()
        (script.job.path / "metrics.jsonl").write_text(
            '{"kind": "log", "step": 3, "loss": 0.25, "lr": 0.1, "step_ms": 20.0}\n' + evaluation % 6
        )
        script.end(0)

    board, steps = Seen(), fl.Train().steps
    train(1, [None], board, begin)
    assert [text for _, text in board.lines] == [
        "0 starting",
        "3 loss 0.250  50.0 steps/s",
        "6 test 50.00 %  loss 0.250  50.0 steps/s",
        f"step 6/{steps}  test 50.00 %  loss 0.250  50.0 steps/s",
    ]


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
