"""Small trainings and folders that many tests look at; a test that changes one works on a copy."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where nohup started the tests

os.fsync = lambda handle: None  # type: ignore[assignment]  # no power is cut here, and a slow disk takes minutes

torch.set_num_threads(1)  # the same bits on every machine, and no fork or busy machine in the way
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that are started, for the same reasons

os.environ.setdefault("ML_DATA", str(Path(__file__).parent / "no-such-folder"))  # never the user's data


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded pictures are kept with the tests' temporary files, not with the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """Standard error, which is one line."""
        assert self.err.count("\n") == 1 and self.err.startswith("fewlabels: ") and "Traceback" not in self.err, (
            self.err
        )
        return self.err.removeprefix("fewlabels: ").rstrip("\n")


def answer(run: Callable[[list[str]], int], *args: object) -> Said:
    """What a command line says that is run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run([str(a) for a in args])
        except SystemExit as stop:  # after --help
            code = int(stop.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def run_command(*args: object) -> Said:
    """Run `fewlabels`."""
    from fewlabels import cli

    return answer(cli.run, *args)


@pytest.fixture(scope="session")
def command() -> Callable[..., Said]:
    return run_command


@pytest.fixture(scope="session")
def bench() -> Callable[..., Said]:
    """Run `benchmarks/bench.py`."""
    from bench.command import main
    from fewlabels import cli

    return partial(answer, partial(cli.run, command=main))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that is filled once for all workers of a test run: ``once(name, fill)``; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        path = base / name
        with FileLock(f"{path}.lock"):
            if not path.exists():  # not even after a failure: the next one would fail as slowly
                path.mkdir()
                fill(path)
                (path / "filled").touch()
        assert (path / "filled").exists(), f"{name} failed in another test"
        return path

    return folder


def short_training(name: str = "fixmatch", /, **changes: Any) -> Any:
    """Twelve steps of a tiny net on digits, some milliseconds each; `name` is the algorithm's."""
    import fewlabels as fl

    train = fl.recipe(name, "digits@40")
    small = replace(
        train,
        net=fl.Net("small-4"),
        batch=4,
        uratio=min(train.uratio, 2),
        steps=12,
        eval_every=6,
        save_every=4,
        log_every=3,
    )
    return replace(small, **changes)


@pytest.fixture(scope="session")
def short() -> Callable[..., Any]:
    return short_training


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of this process and its forks leave no evidence and no page, which take a third of a short one."""
    from fewlabels.commands import many
    from fewlabels.sweep import plan
    from fewlabels.training import loop, recorder

    monkeypatch.setattr(recorder, "leave_evidence", lambda *args: None)
    for module in (recorder, loop, plan, many):
        monkeypatch.setattr(module, "leave_page", lambda run, old=False: None)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run takes no step of a net of full size, which says nothing of what it makes of the settings."""
    from fewlabels.training import estimate

    def build(config: Any, source: Any, device: torch.device) -> tuple[Any, int, float]:
        return estimate._trainer(config, source, device, 4 if config.batch % 4 == 0 else 1, 1)[0], 1, 0.01

    monkeypatch.setattr(estimate, "_measured", build)


@pytest.fixture
def forked() -> Iterator[None]:
    """The runs of a sweep are forks, also after a test's `monkeypatch.undo()`."""
    from forked import forking

    with forking():
        yield


class Trained(NamedTuple):
    path: Path
    said: Said


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """FixMatch from the command line, 120 steps on 40 labels of the digits, with 100 validation images."""
    path = tmp_path_factory.mktemp("digits") / "run"
    settings = (
        "--net small-8 --batch 16 --uratio 3 --optim.lr 0.2 --steps 120 --eval-every 30 --save-every 50 --log-every 10"
    )
    options = [*settings.split(), "--no-baseline", "--no-progress", "--out", str(path)]
    return Trained(path, run_command("train", "fixmatch", "--data", "digits@40-100", *options))


def save_picture(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A 16 x 16 picture of one colour under noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 31, (16, 16, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


BLUE, RED = (40, 40, 200), (200, 40, 40)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of own pictures: two classes of clearly different colour."""
    root = tmp_path_factory.mktemp("own") / "photos"
    for i in range(4):
        for name, colour in (("blue", BLUE), ("red", RED)):
            save_picture(root / "labeled" / name / f"{i}.png", colour, i)
            save_picture(root / "unlabeled" / f"{name}{i}.png", colour, 10 + i)
            save_picture(root / "test" / name / f"{i}.png", colour, 20 + i)
    return root


@pytest.fixture(scope="session")
def photo_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training on `photos`."""
    path = tmp_path_factory.mktemp("photo") / "run"
    settings = (
        "--net small-4 --batch 4 --uratio 2 --optim.lr 0.1 --ema.decay 0.9 --steps 40 --eval-every 20 --save-every 20"
    )
    options = [*settings.split(), "--no-progress", "--out", str(path)]
    return Trained(path, run_command("train", "--data", f"{photos}/", *options))
