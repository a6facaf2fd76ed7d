"""The records of a run: TensorBoard's files are read in the order in which they were written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewlabels.log import Recorder
from fewlabels.run import Run

NOW = 1_800_000_000.0


@pytest.mark.parametrize("moments", [(0, 60, 120), (0, 0, 0), (0, -86_400, -86_399), (0, -5, -10), (0, 60, -100)])
def test_steps_are_in_order_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: tuple[int, ...]
) -> None:
    """A training that is resumed twice; the second time from before the last step that it had logged."""
    (tmp_path / "config.json").write_text("{}")
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
