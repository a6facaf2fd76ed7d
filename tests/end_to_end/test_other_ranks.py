"""A training that goes on with another number of ranks, each in a folder of its own: no file system is shared."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from fewlabels import cli
from fewlabels.runs import mirror
from fewlabels.runs.run import Run
from fewlabels.training.step import Trainer
from forked_ranks import Rank, free_port

pytestmark = pytest.mark.slow

STEPS = 12
SETTINGS = (
    "train fixmatch --data digits@40 --net timm:test_vit --net.patch 2 --batch 4 --uratio 2 --optim.lr 0.003 "
    f"--tau 0.112 --steps {STEPS} --save-every 4 --log-every 1 --eval-every 6 --baseline --no-progress"
)
"""No batch norm, whose statistics are those of a rank's share of the batch."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[int, str]]]:
    """Exit status and standard error of each of `world` ranks that get the same words, as torchrun gives them."""

    def run(
        world: int, words: str, *, dies: tuple[int, int] | None = None, more: dict[str, str] | None = None
    ) -> list[tuple[int, str]]:
        port = free_port()

        def work(rank: int) -> Callable[[], object]:
            def main() -> None:
                tempfile.tempdir = None
                step = Trainer.step

                def stepped(self: Trainer, number: int) -> None:
                    if dies == (rank, number):
                        die()
                    step(self, number)

                at_exit: list[Callable[[], object]] = []  # which a fork leaves out
                try:
                    with pytest.MonkeyPatch.context() as patches:
                        patches.setattr(Trainer, "step", stepped)
                        patches.setattr(
                            mirror.atexit, "register", lambda f, *a, **k: at_exit.append(partial(f, *a, **k))
                        )
                        cli.main(words.split())
                finally:
                    for last in at_exit:
                        last()

            return main

        started = []
        for rank in range(world):
            place = tmp_path / f"machine{rank}"
            (place / "tmp").mkdir(parents=True, exist_ok=True)
            environment = {"TMPDIR": str(place / "tmp"), **(more or {})}
            started.append(Rank(tmp_path, rank, port, work(rank), world=world, place=place, environment=environment))
        return [one.end() for one in started]

    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The training that nothing interrupted, in one process."""
    path = tmp_path_factory.mktemp("whole") / "run"
    assert cli.run([*SETTINGS.split(), "--out", str(path)]) == 0
    return Run(path)


def losses(run: Run) -> list[dict[str, float]]:
    return [
        {k: v for k, v in log.items() if k not in ("kind", "step_ms", "data_ms") and isinstance(v, (int, float))}
        for log in run.metrics("log")
    ]


def same(one: Run, other: Run) -> None:
    assert len(losses(one)) == STEPS and any(0 < log.get("mask", 0.5) < 1 for log in losses(one))
    for mine, theirs in zip(losses(one), losses(other), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)
    for key, value in one.checkpoint().weights("ema").items():
        torch.testing.assert_close(other.checkpoint().weights("ema")[key], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("world", [1, 4])
def test_killed_with_two_ranks_it_goes_on_with(
    world: int, ranks: Callable[..., list[tuple[int, str]]], whole: Run, tmp_path: Path
) -> None:
    lost, killed = ranks(2, f"{SETTINGS} --out run", dies=(1, 9), more={"GROUP_WORLD_SIZE": "2"})
    assert killed[0] == -signal.SIGKILL and lost[0] == 1
    assert "rank 0 stops, since rank 1 has ended" in lost[1] and "Traceback" not in lost[1]
    path = tmp_path / "machine0" / "run"
    assert Run(path).checkpoint().step == 8 and not (tmp_path / "machine1" / "run").exists()
    shutil.copytree(path, tmp_path / "machine2" / "run")  # an old copy that is another state of it
    shutil.rmtree(tmp_path / "machine2" / "run" / "checkpoints" / "step-00000008")
    header = "2 processes on 2 machines; a batch of 4 and 8 labeled and unlabeled images, 2 and 4 in each process\n"
    assert header in (tmp_path / "rank0.out").read_text()
    ended = ranks(world, "train --resume run --no-progress")
    assert [code for code, _ in ended] == [0] * world, ended
    same(whole, Run(path))
    same(Run(whole.path / "baseline"), Run(path / "baseline"))
    for rank in range(1, world):
        assert not list((tmp_path / f"machine{rank}" / "tmp").iterdir()), "a copy of the run goes with its process"


def test_started_again_by_torchrun_the_same_command_goes_on(
    ranks: Callable[..., list[tuple[int, str]]], whole: Run, tmp_path: Path
) -> None:
    ranks(2, SETTINGS, dies=(0, 9))
    more = {"TORCHELASTIC_RESTART_COUNT": "1"}
    ended = ranks(1, SETTINGS, more=more)
    assert ended[0][0] == 0, ended
    (path,) = (tmp_path / "machine0" / "runs").iterdir()
    same(whole, Run(path))
    assert Run(path / "baseline").finished


def test_a_run_that_is_not_there_is_one_sentence(ranks: Callable[..., list[tuple[int, str]]], tmp_path: Path) -> None:
    for code, err in ranks(2, "train --resume nowhere"):
        assert (code, err) == (2, "fewlabels: there is no run folder nowhere\n")
