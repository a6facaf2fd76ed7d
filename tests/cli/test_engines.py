"""`fewlabels train --on`: the wrong words; trainings on submitit's local cluster and on a Ray cluster on this machine."""

from __future__ import annotations

import builtins
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import OPTIONS, state, table

import fewlabels as fl
from fewlabels.commands.many import Plain
from fewlabels.runs.run import Run
from fewlabels.runtime import children
from fewlabels.sweep import on_slurm, remote
from fewlabels.sweep.on import On
from fewlabels.sweep.plan import Job, plan
from fewlabels.sweep.pool import Outcome

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--on slurm", "--on is for several runs: give --seeds, --folds or --grid"),
        ("--seeds 0,1 --on.cpus 2", "--on.cpus is for --on slurm or ray, and the runs are trained on local"),
        ("--seeds 0,1 --on ray --on.time 1h", "--on.time is for --on slurm, and the runs are trained on ray"),
        ("--seeds 0,1 --on pbs", "--on must be one of 'local', 'slurm', 'ray', got 'pbs'"),
        ("--seeds 0,1 --on slurm --on.gpus 0.5", "--on.gpus must be a whole number on slurm, got 0.5"),
        ("--seeds 0,1 --on slurm --on.cpus 0", "--on.cpus must be a whole number from 1 to 1024 or None, got 0"),
        (
            "--seeds 0,1 --on slurm --on.time soon",
            "--on.time must be a length of time such as 90s, 10m, 1h30m or 2h, got 'soon'",
        ),
        ("--seeds 0,1 --on slurm --on.options qos", "--on.options must be KEY=VALUE, got 'qos'"),
        ("--seeds 0,1 --on ray --on.options a=1 a=2", "--on.options has a twice"),
    ],
)
def test_asked_wrongly(command: Command, tmp_path: Path, words: str, sentence: str) -> None:
    said = command("train", *words.split(), "--out", tmp_path / "run")
    assert said.code == 2 and said.out == "" and said.sentence == sentence and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_without_the_package(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = command("train", "--seeds", "0,1", "--on", engine, "--out", tmp_path / "run")
    assert said.code == 2 and said.out == "" and not (tmp_path / "run").exists()
    assert said.sentence == (
        f"--on {engine} needs the package '{package}': install fewlabels[{engine}] (pip install 'fewlabels[{engine}]')"
    )


def test_without_slurm(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    said = command("train", "--seeds", "0,1", "--on", "slurm", "--out", tmp_path / "run")
    assert said.code == 2 and not (tmp_path / "run").exists()
    assert said.sentence == "--on slurm starts jobs with sbatch and srun, which this machine does not have"
    said = command("train", "--seeds", "0", "--on", "slurm", "--on.options", "qqs=high", "--out", tmp_path / "run")
    assert said.sentence == "--on.options has qqs, which submitit does not know; did you mean qos?"
