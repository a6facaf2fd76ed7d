"""Processes that stand in a folder whose files are called like modules, and run none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels.data import workers
from fewlabels.runtime import children
from fewlabels.sweep.plan import Job, plan
from fewlabels.sweep.pool import Outcome, train_all

NAMES = ("signal", "torch", "numpy", "pickle", "PIL", "difflib", "tyro", "json", "threading", "subprocess", "random")
ROOT = str(Path(fl.__file__).parents[1])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files that leave a trace when they are run."""
    here = tmp_path / "mine"
    here.mkdir()
    for name in NAMES:
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", "")
    return here


@pytest.fixture(params=["", "absolute", "link", "PYTHONPATH"])
def searched(request: pytest.FixtureRequest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process looks for modules in the folder first, as after `python -c` or in a notebook."""
    (tmp_path / "link").symlink_to(folder)
    entry = {"": "", "absolute": str(folder), "link": str(tmp_path / "link"), "PYTHONPATH": ""}[request.param]
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    if request.param == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(folder))


def ran(folder: Path) -> str:
    trace = folder.parent / "run"
    return trace.read_text() if trace.exists() else ""


def test_the_files_are_run_where_nothing_is_done_about_them(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", "import signal"], check=True)
    assert ran(folder) == "signal "


@pytest.mark.slow
@pytest.mark.usefixtures("searched")
def test_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FROM", 1)
    with workers.workers(1) as run:  # numpy's is worked out there, this process would give its own
        pid, number = list(run(eval, [("__import__('os').getpid()",), ("int(__import__('numpy').ones(3).sum())",)]))
    assert pid != os.getpid() and number == 3 and ran(folder) == ""


class Silent:
    def step(self, job: Job, step: int, text: str) -> None: ...

    def line(self, job: Job, text: str) -> None: ...

    def said(self, job: Job, text: str) -> None: ...

    def end(self, job: Job, outcome: Outcome) -> None: ...


@pytest.mark.slow
def test_training_in_a_process_of_its_own(
    folder: Path, tmp_path: Path, short: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    jobs = plan(short(steps=2), "seed", (0,), out=tmp_path / "runs")
    outcomes, _ = train_all(jobs, [None], Silent())
    assert outcomes == {"seed 0": Outcome("finished")} and ran(folder) == ""


@pytest.mark.slow
def test_module_and_what_it_starts(folder: Path) -> None:
    """`python -m fewlabels` and torchrun put the folder first; a process of multiprocessing would again."""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    listed = [sys.executable, "-m", "fewlabels", "list", "algorithms"]
    assert "fixmatch" in subprocess.run(listed, env=environment, check=True, capture_output=True, text=True).stdout
    spawning = (
        "import sys, os\nfrom fewlabels import cli\ntry: cli.main(['--version'])\nexcept SystemExit: pass\n"
        "from multiprocessing import get_context\nchild = get_context('spawn').Process(target=os.getpid)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)"
    )
    subprocess.run([sys.executable, "-P", "-c", spawning], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert ran(folder) == ""


def test_where_the_package_itself_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `src` of a checkout it is found, after all else."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [ROOT, "/elsewhere"])
    *python, code = children.command("fewlabels.data.workers", "serve")
    assert python == [sys.executable, "-P", "-c"]
    assert code.startswith(f"import sys; sys.path[:] = ['/elsewhere', {ROOT!r}]; ")
