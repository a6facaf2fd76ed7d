"""Curves in other programs: they are read back with those programs' own readers, from what their offline modes wrote.

Where Weights & Biases or MLflow is not installed its test is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewlabels as fl
from fewlabels.runs.run import Run
from fewlabels.training import trackers
from fewlabels.training.loop import Output
from fewlabels.training.trackers import metric_name, token


def needs(name: str) -> Any:
    absent = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(absent, reason=f"{name} is not installed: pip install 'fewlabels[{name}]'")


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard has: step and value by tag."""
    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def stopped(train: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is stopped after step 8, as by Ctrl-C."""
    with monkeypatch.context() as patch, pytest.raises(fl.training.loop.Interrupted):
        patch.setattr("fewlabels.runtime.interrupt.Stop.agreed", lambda self, step: 2 if step == 8 else 0)
        train()


class Heard:
    """A tracker that fails from its third call on."""

    where = "a list"

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, float], int]] = []
        self.ended: list[bool] = []

    def put(self, values: Mapping[str, float], step: int) -> None:
        if len(self.told) == 3:
            raise OSError("no\nroute to host")
        self.told.append((dict(values), step))

    def end(self, finished: bool) -> None:
        self.ended.append(finished)


@pytest.mark.slow
def test_a_tracker_is_told_what_tensorboard_is_told_and_may_fail(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = Heard()
    monkeypatch.setattr(trackers, "begin", lambda run: heard)
    run = fl.train(short(), out=tmp_path / "run", output=Output(False))
    board = curves(run)
    assert [step for _, step in heard.told] == [3, 6, 6] and not heard.ended
    assert {tag for values, _ in heard.told for tag in values} == board.keys()
    for values, step in heard.told:
        for tag, value in values.items():
            assert (step, pytest.approx(value)) in board[tag]
    said = capsys.readouterr().err
    assert "curves also in a list" in said and said.count("gets no more curves (no route to host)") == 1


def test_without_the_package_one_sentence(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    said = command("train", "--log", "mlflow", "--steps", 2, "--no-baseline", "--out", tmp_path / "run")
    assert said.code == 2 and not (tmp_path / "run").exists()
    assert said.sentence == "--log mlflow needs the package mlflow: pip install 'fewlabels[mlflow]'"


def test_a_tracker_that_cannot_begin_leaves_nothing(
    short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run: Run) -> Any:
        raise RuntimeError("no account")

    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": fails})
    monkeypatch.setattr(trackers, "check", lambda name: None)
    with pytest.raises(ValueError, match=r"^--log wandb: no account$"):
        fl.train(short(log="wandb"), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@settings(max_examples=50)
@given(st.text(max_size=30))
@example("/" * 300)
def test_any_class_has_a_metric_name(name: str) -> None:
    made = metric_name(f"train/tau/{name}")
    parts = made.split("/")
    assert all(parts) and len(made) <= 250 and set(parts).isdisjoint({".", ".."})
    assert made.isascii() and all(c.isalnum() or c in "_/- " for c in made)
    assert metric_name("test/ema/class/deer 2") == "test/ema/class/deer 2"


def entries(file: Path) -> Iterator[bytes]:
    """The entries of a file of Weights & Biases: after 7 bytes LevelDB's log format, whose blocks have 32 KiB."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 < len(data):
        if 2**15 - at % 2**15 < 7:  # no room for a head
            at += 2**15 - at % 2**15
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of it, or its last part
            yield whole
            whole = b""


@needs("wandb")
@pytest.mark.slow
def test_wandb_offline(short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    path = tmp_path / "run"
    stopped(lambda: fl.train(short(log="wandb"), out=path), monkeypatch)
    run = fl.resume(path)
    found: dict[str, list[tuple[int, float]]] = {}
    ids = set()
    for file in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")):
        for record in map(Record.FromString, entries(file)):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            for tag, value in items.items():
                found.setdefault(tag, []).append((items["_step"], value))
    assert ids == {token(run)}
    for tag, expected in curves(run).items():
        assert [step for step, _ in found[tag]] == [step for step, _ in expected], tag
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in expected]), tag


@needs("mlflow")
@pytest.mark.slow
def test_mlflow_files(short: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    path = tmp_path / "run"
    stopped(lambda: fl.train(short(log="mlflow"), out=path), monkeypatch)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fewlabels")
    assert [r.info.status for r in client.search_runs([experiment.experiment_id])] == ["KILLED"]
    run = fl.resume(path)
    (kept,) = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED" and kept.info.run_name == str(path)
    assert kept.data.params["algorithm.tau"] == "0.95" and kept.data.params["net.name"] == "small-4"
    for tag, expected in curves(run).items():
        found = client.get_metric_history(kept.info.run_id, tag)
        assert [(m.step, pytest.approx(m.value)) for m in found] == expected, tag
