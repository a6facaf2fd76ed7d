"""The records of a run: TensorBoard's files are read in the order in which they were written."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewlabels as fl
from fewlabels.runs.run import NotWritten, Run
from fewlabels.training.log import MetricsWriter, said_once, shown
from fewlabels.training.step import Trainer


def test_what_a_person_is_shown() -> None:
    point = {"kind": "log", "step": 9, "loss": 0.5, "loss_x": 0.25, "loss_u": 0.25, "lr": 0.1, "step_ms": 40.0}
    assert shown(point) == "loss 0.500  25.0 steps/s"
    assert shown({**point, "mask": 0.616}) == "unlabeled in use: 62 %  loss 0.500  25.0 steps/s"
    assert shown({**point, "mask_mixed": 0.1}) == "unlabeled in use: 10 %  loss 0.500  25.0 steps/s"
    del point["loss"]
    assert shown({**point, "prior": [0.5, 0.5], "mask": 1.0}) == "unlabeled in use: 100 %  25.0 steps/s"
    scores = {"ema": {"accuracy": 81.236}, "raw": {"accuracy": 3.0}}
    assert shown({"kind": "eval", "step": 9, "train": scores, "valid": scores}) == "valid 81.24 %"


NOW = 1_800_000_000.0


def lines_until(run: Run, step: int) -> bytes:
    lines = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if json.loads(line)["step"] <= step)


@pytest.mark.parametrize("moments", [(0, 60, 120), (0, 0, 0), (0, -86_400, -86_399), (0, -5, -10), (0, 60, -100)])
def test_steps_are_in_order_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, ...]
) -> None:
    """A training that is resumed twice; the second time from before the last step that it had logged."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(Run, "written", lines_until)  # there are no checkpoints here, which say how far it was written
    for moment, start, end in zip(moments, (0, 3, 5), (3, 6, 8), strict=True):
        monkeypatch.setattr(time, "time", lambda moment=moment: NOW + moment)
        recorder = MetricsWriter(Run(tmp_path), start)
        for step in range(start + 1, end + 1):
            recorder.log(step, {"loss": 10.0 * moment + step}, {})
        recorder.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("train/loss")]
    first, second, third = (10.0 * moment for moment in moments)
    expected = [*((s, first + s) for s in (1, 2, 3)), *((s, second + s) for s in (4, 5))]
    assert found == [*expected, *((s, third + s) for s in (6, 7, 8))]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3


def fail(error: Exception, kind: type[threading.Thread] = threading.Thread) -> None:
    def work() -> None:
        raise error

    thread = kind(target=work)
    thread.start()
    thread.join()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the caller's own hook is told."""
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(str(args.exc_value)))
    return told


@pytest.mark.slow
@pytest.mark.parametrize("bad", [None, ValueError("of the step")])
def test_a_training_leaves_the_caller_s_hook(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[str], bad: Exception | None
) -> None:
    mine, step = threading.excepthook, Trainer.step

    def watched(self: Trainer, number: int) -> None:
        if number == 3:
            fail(OSError("a disk of the caller's"))
            fail(KeyError("a name of the caller's"))
            if bad:
                raise bad
        step(self, number)

    monkeypatch.setattr(Trainer, "step", watched)
    try:
        fl.train(short(), out=tmp_path / "run")
    except ValueError as error:
        assert error is bad
    assert threading.excepthook is mine
    assert heard == ["a disk of the caller's", '"a name of the caller\'s"']


def test_only_the_disk_s_errors_of_tensorboard_s_thread_are_said_elsewhere(heard: list[str]) -> None:
    writer: Any = type("Writer", (threading.Thread,), {"__module__": "tensorboard.summary.writer.event_file_writer"})
    with said_once():
        fail(OSError("full"), writer)
        fail(ValueError("odd"), writer)
    fail(OSError("afterwards"), writer)
    assert heard == ["odd", "afterwards"]


def test_a_display_that_cannot_be_made_leaves_the_caller_s_hook(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[str]
) -> None:
    """Between the opening of the records and the first step."""
    mine = threading.excepthook

    def broken(*args: Any, **options: Any) -> None:
        raise ValueError("no display")

    monkeypatch.setattr("fewlabels.training.log.display", broken)
    with pytest.raises(ValueError, match=r"^no display$"):
        fl.train(short(), out=tmp_path / "run")
    assert threading.excepthook is mine


@pytest.mark.slow
def test_what_tensorboards_thread_says_of_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, short: Callable[..., Any], tmp_path: Path
) -> None:
    """It may say it before its maker is done, and while it is closed: our sentence is the one to hear."""
    import torch.utils.tensorboard

    heard: list[bool] = []
    mine = threading.excepthook

    class Full:
        def __init__(self, *args: Any, **more: Any) -> None:
            heard.append(threading.excepthook is not mine)
            if more["purge_step"]:
                raise OSError(errno.ENOSPC, "No space left on device")

        def add_scalar(self, *args: Any) -> None: ...

        def flush(self) -> None: ...

        def close(self) -> None:
            heard.append(threading.excepthook is not mine)

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", Full)
    run = fl.train(short(keep=3), out=tmp_path / "run")
    assert heard == [True, True] and threading.excepthook is mine
    with pytest.raises(NotWritten, match=r"could not write the records of .*: No space left on device"):
        MetricsWriter(run, 4)
