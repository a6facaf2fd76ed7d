"""Trainings that are killed or stopped at random moments, a third of them while a second process wants the same folder.

Whatever happens, what is there in the end is the run that nobody disturbed, bit for bit; a command that ends with 0 has
said that run's numbers; and no state that was saved is lost. `FEWLABELS_KILLS=300` makes a longer loop by hand, and
`FEWLABELS_KILL_SEED` another one than that of the moment. Each case forks, so that torch is imported once.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import fewlabels as fl
from fewlabels.report.story import tell
from fewlabels.report.write import rendered
from fewlabels.runs.folder import PAGE
from fewlabels.runs.owner import Lock, Taken
from fewlabels.runs.run import Run, RunError

FORK: Any = multiprocessing.get_context("fork")
KILLS = int(os.environ.get("FEWLABELS_KILLS", "10"))
SEED = int(os.environ.get("FEWLABELS_KILL_SEED", time.time_ns() % 10**6))
SMALL = "--data digits@40 --net small-4 --batch 4 --uratio 1 --steps 12 --save-every 2 --eval-every 6 --log-every 3"
OPTIONS = ("train", *SMALL.split(), "--no-baseline", "--no-progress")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
REFUSED = re.compile(r"is being trained by process \d+ on |exists and is not empty|has no checkpoint yet")


def bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: bits(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [bits(v) for v in value]
    return (str(value.dtype), value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def whole(path: Path) -> dict[str, Any]:
    """All that a finished run leaves, but for what a clock wrote."""
    run = Run(path)
    clocks = ("step_ms", "data_ms", "seconds", "seconds_from_step", "peak_memory_bytes")
    return {
        # a stop between two checkpoints makes one more, which may be the last but one
        "weights": {
            c.path.name: (c.path / "weights.safetensors").read_bytes() for c in map(run.checkpoint, ("last", "best"))
        },
        "state": bits(run.checkpoint().state()),
        "records": [{k: v for k, v in record.items() if k not in clocks} for record in run.metrics()],
        "result": {k: v for k, v in run.result.items() if k not in clocks},
        # what is killed between its result and its end leaves .lock, which locks nothing and stays in a finished run
        "names": sorted(p.name for p in path.iterdir() if p.name[0] != "."),
    }


def saved_step(path: Path) -> int:
    try:
        return Run(path).newest_good()[0].step
    except RunError:
        return 0


class Started(NamedTuple):
    process: Any
    answer: Path

    def end(self) -> tuple[int, str, str] | None:
        """What it answered; None if it was killed."""
        self.process.join(120)
        assert self.process.exitcode is not None, "it hangs"
        return tuple(json.loads(self.answer.read_text())) if self.answer.is_file() else None


def start(command: Callable[..., Any], answer: Path, *args: object) -> Started:
    def work() -> None:
        os.setsid()
        said = command(*args)
        half = answer.with_suffix(".half")
        half.write_text(json.dumps(list(said)))
        half.rename(answer)

    answer.unlink(missing_ok=True)
    process = FORK.Process(target=work)
    process.start()
    return Started(process, answer)


def check(said: tuple[int, str, str] | None, expected: dict[str, Any]) -> None:
    """A status of 0 comes with the undisturbed run's numbers, another one with a sentence that says why."""
    if said is None:
        return
    code, out, err = said
    assert "Traceback" not in err, err
    if code == 0:
        result = expected["result"]
        assert f"{result['accuracy']:.2f}" in out and f"{result['last20']:.2f}" in out, out
    elif code in (1, 2):
        assert REFUSED.search(out + err), out + err
    else:
        assert code in (130, 143, 129), (code, err)


@pytest.fixture(scope="module")
def expected(command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    assert command(*OPTIONS, "--seed", 0, "--out", path).code == 0
    begin = time.monotonic()  # with everything imported, as in the children
    assert command(*OPTIONS, "--seed", 0, "--out", path.with_name("again")).code == 0
    assert whole(path) == whole(path.with_name("again"))
    return {**whole(path), "seconds": time.monotonic() - begin}


def alone(root: Path) -> None:
    """Wait until a child whose parent was killed has saved and gone."""
    deadline = time.monotonic() + 120
    for path in (root, root / "seed-0"):
        while path.is_dir():
            assert time.monotonic() < deadline, "it hangs"
            try:
                Lock(path).release()
                break
            except Taken:
                time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("last", "many"), [("fewlabels.training.recorder.leave_page", False), ("fewlabels.runs.run.Run.compare", True)]
)
def test_killed_after_its_result(
    last: str, many: bool, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run before its page is written, or of one with a baseline before it is compared: who comes next does it."""
    root, plain = tmp_path / "all", last.endswith("compare")
    begin = ("train", *SMALL.split(), "--no-progress", "--baseline" if plain else "--no-baseline", "--out", root)
    begin, path = ((*begin, "--seeds", 0), root / "seed-0") if many else (begin, root)
    monkeypatch.setattr(last, lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL))
    first = start(command, tmp_path / "answer", *begin)
    first.end()
    monkeypatch.undo()
    assert Run(path).finished and (path / PAGE).exists() == plain and "compared" not in Run(path).result
    said = command(*(begin if many else ("train", "--resume", path)))
    assert said.code == 0, said.err
    page = (path / PAGE).read_text()
    assert ("the same training on the labels alone" in page) == plain and page == rendered([tell(path)]).decode()
    if plain:
        other = Run(path / "baseline").result["accuracy"]
        assert Run(path).result["compared"] == {"supervised": other} and (path / "baseline" / PAGE).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("case", range(KILLS))
def test_killed_and_raced(case: int, command: Callable[..., Any], expected: dict[str, Any], tmp_path: Path) -> None:
    chance = random.Random(SEED * 1000 + case)
    many = chance.random() < 0.3
    root = tmp_path / "all"
    path = root / "seed-0" if many else root
    begin = (*OPTIONS, "--seeds", "0") if many else (*OPTIONS, "--seed", 0)
    race, said = case % 3 == 2, []
    for life in range(chance.choice((1, 1, 2))):
        before = saved_step(path)
        again = many or not before
        first = (*begin, "--out", root) if again else ("train", "--resume", path)
        commands = [first]
        overwrites = race and chance.random() < 0.3
        if race:
            commands.append((*begin, "--out", root, "--overwrite") if overwrites else first)
        if again and not many and (path / "config.json").is_file():
            commands[0] = (*commands[0], "--overwrite")
            overwrites = True
        started = [start(command, tmp_path / f"answer{i}", *args) for i, args in enumerate(commands)]
        time.sleep(chance.uniform(0, 1.2 * expected["seconds"] * len(commands)))
        for one in started[: 1 if chance.random() < 0.5 else 2]:
            if one.process.is_alive():
                kill = os.killpg if chance.random() < 0.5 else os.kill  # with what it started, or it alone
                with contextlib.suppress(ProcessLookupError):  # it has no group yet
                    kill(one.process.pid, chance.choice(SIGNALS))
        said = [one.end() for one in started]
        alone(root)
        for answer in said:
            check(answer, expected)
        assert overwrites or saved_step(path) >= before, f"life {life} of seed {SEED}: a state was lost"
    # whatever is left, the same command or --resume goes on with it
    if many or not saved_step(path):
        last = command(*begin, "--out", root, *(() if many else ["--overwrite"]))
    else:
        last = command("train", "--resume", path)
    check((last.code, last.out, last.err), expected)
    assert last.code == 0, f"seed {SEED}: {last.err}"
    found = whole(path)
    assert found == {k: v for k, v in expected.items() if k != "seconds"}, f"seed {SEED}"
    assert fl.load(path).model.step == 12
