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
from fewlabels.log import Recorder
from fewlabels.run import NotWritten, Run

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
        recorder = Recorder(Run(tmp_path), start)
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


def test_what_tensorboards_thread_says_of_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, short: Callable[..., Any], tmp_path: Path
) -> None:
    """It may say it before its maker is done, and while it is closed: our sentence is the one to hear."""
    import torch.utils.tensorboard

    heard: list[bool] = []

    class Full:
        def __init__(self, *args: Any, **more: Any) -> None:
            heard.append(threading.excepthook is not threading.__excepthook__)
            if more["purge_step"]:
                raise OSError(errno.ENOSPC, "No space left on device")

        def add_scalar(self, *args: Any) -> None: ...

        def flush(self) -> None: ...

        def close(self) -> None:
            heard.append(threading.excepthook is not threading.__excepthook__)

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", Full)
    run = fl.train(short(keep=3), out=tmp_path / "run")
    assert heard == [True, True] and threading.excepthook is threading.__excepthook__
    with pytest.raises(NotWritten, match=r"could not write the records of .*: No space left on device"):
        Recorder(run, 4)
    assert heard == [True] * 3 and threading.excepthook is threading.__excepthook__
