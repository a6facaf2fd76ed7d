"""Standard output and error that are closed, full or broken never cost a training, a file or a result."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels import cli


class Gone(io.StringIO):
    """A stream that takes some characters, and then no more."""

    def __init__(self, error: OSError, most: int = 0) -> None:
        super().__init__()
        self.error, self.left = error, most

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise self.error
        return super().write(text)


PIPE, FULL = BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left on device")


def run(*args: object, out: io.StringIO, err: io.StringIO) -> int:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return cli.run([str(a) for a in args])


OPTIONS = "--data digits@40 --net small-4 --batch 4 --uratio 1 --steps 6 --eval-every 2 --no-baseline"
SMALL = OPTIONS.split()


@pytest.mark.slow
@pytest.mark.parametrize(("error", "most"), [(PIPE, 150), (PIPE, 0), (FULL, 0)])
def test_a_training_goes_on(tmp_path: Path, error: OSError, most: int) -> None:
    assert run("train", *SMALL, "--out", tmp_path / "run", out=Gone(error, most), err=Gone(error)) == 0
    whole = fl.Run(tmp_path / "run")
    assert whole.finished and [r["step"] for r in whole.metrics("eval")] == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_many_trainings_go_on(tmp_path: Path) -> None:
    assert run("train", *SMALL, "--seeds", "0,1", "--out", tmp_path, out=Gone(PIPE), err=Gone(PIPE)) == 0
    assert all(fl.Run(tmp_path / f"seed-{i}").finished for i in (0, 1))


@pytest.mark.slow
def test_from_python_too(short: Callable[..., Any], tmp_path: Path) -> None:
    from fewlabels.training.loop import Output

    with contextlib.redirect_stderr(Gone(PIPE)):
        assert fl.train(short(), out=tmp_path / "run", output=Output(progress=False)).finished


@pytest.mark.slow
def test_what_was_to_be_shown_is_missed(photo_run: Any, photos: Path, tmp_path: Path) -> None:
    lines = (["evaluate", photo_run.path], ["report", photo_run.path], ["predict", photo_run.path, photos / "test"])
    for line in (*lines, ["report", photo_run.path, "--csv"], ["train", *SMALL, "--dry-run"], ["split", "digits@40"]):
        for error, said in ((PIPE, ""), (FULL, "fewlabels: standard output could not be written: No space left")):
            err = io.StringIO()
            assert run(*line, out=Gone(error), err=err) == 1 and said in err.getvalue(), line
    # the file was written, and that was asked for
    out = tmp_path / "out.csv"
    assert run("predict", photo_run.path, photos / "test", "-o", out, out=Gone(PIPE), err=Gone(PIPE)) == 0
    assert len(out.read_text().splitlines()) == 9


def test_the_status_of_a_fault_stays(tmp_path: Path) -> None:
    assert run("evaluate", tmp_path / "no", out=Gone(FULL), err=Gone(FULL)) == 2


@pytest.mark.slow
def test_the_program_with_what_a_shell_can_do(tmp_path: Path) -> None:
    """`2>&1 | head -2`, `>/dev/full 2>&1` (without a buffer) and `<&- >&- 2>&-`, each with a training."""
    program = f"{sys.executable} -m fewlabels train {' '.join(SMALL)}"
    script = f"""
        set -o pipefail
        {program} --out a 2>&1 | head -2 > lines; echo $?
        PYTHONUNBUFFERED=1 {program} --out b > /dev/full 2>&1; echo $?
        {program} --out c <&- >&- 2>&-; echo $?
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n0\n0\n", "")
    assert (tmp_path / "lines").read_text().count("\n") == 2
    results = [json.loads((tmp_path / name / "result.json").read_text())["accuracy"] for name in "abc"]
    assert len(set(results)) == 1
