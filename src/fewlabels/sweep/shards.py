"""The shards of a prediction, each in a process: in turn, one on each GPU, or started by an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewlabels.inference.parts import Place
from fewlabels.inference.shards import Shard
from fewlabels.sweep import remote
from fewlabels.sweep.on import On
from fewlabels.sweep.pool import Begin, Board, Outcome, Result, ended, gpus, said_by, work_off


@dataclass(frozen=True)
class ShardWork:
    """A shard that is to be predicted."""

    shard: Shard
    folder: Path
    words: tuple[str, ...]
    """The command line of `fewlabels` that does it."""
    start: int = 0
    last: bool = False

    @property
    def name(self) -> str:
        return f"shard {self.shard.number} of {self.shard.of}"

    @property
    def log(self) -> Path:
        return self.folder / f".{self.shard.name}.log"

    @property
    def file(self) -> Path:
        return self.folder / f".{self.shard.name}.job"

    def order(self) -> dict[str, Any]:
        return {"words": list(self.words)}

    def progress(self) -> tuple[int, bool]:
        """Parts that are there; whether these are all is said by who reads them."""
        return len(Place(self.folder, self.shard).there()), False


class Said(Board[ShardWork]):
    """What the processes say, without what another one has said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.heard = say, set[str]()

    def step(self, job: ShardWork, step: int, text: str) -> None:
        """The files say it."""

    def line(self, job: ShardWork, text: str) -> None:
        """There is none."""

    def said(self, job: ShardWork, text: str) -> None:
        if text not in self.heard:
            self.heard.add(text)
            self.say(text)

    def end(self, job: ShardWork, outcome: Outcome) -> None:
        if outcome.kind == "failed":
            self.say(f"{job.name} failed: {outcome.reason}")


class Watched:
    """A shard in its process."""

    def __init__(
        self, job: ShardWork, place: str | None, threads: int, board: Board[ShardWork], begin: Begin[ShardWork]
    ) -> None:
        self.job, self.place, self.board = job, place, board
        self.process = begin(job, place, threads)

    def stop(self) -> None:
        self.process.stop()

    def look(self, *, stopping: bool) -> Outcome | None:
        code = self.process.poll()
        if code is None:
            return None
        self.stop()
        text = said_by(self.job)
        lines = text.splitlines()
        whole = any(line.startswith(f"shard {self.job.shard}: ") for line in lines)  # also one with unreadable pictures
        if stopping and not whole and (code < 0 or code > 128):
            outcome = Outcome("stopped")
        elif code == 0 or whole:
            for line in lines:
                self.board.said(self.job, line)
            outcome = Outcome("finished")
        elif code > 0 and lines and lines[-1].startswith("fewlabels: "):
            outcome = Outcome("failed", lines[-1].removeprefix("fewlabels: "))
        else:
            return Outcome(
                "failed", f"its process {ended(code)}" + (f" (what it said is in {self.job.log})" if text else "")
            )
        self.job.log.unlink(missing_ok=True)
        return outcome


def predict_all(jobs: Sequence[ShardWork], on: On, device: str, say: Callable[[str], None]) -> Result:
    """Predict the shards where `on` says, `device` as `fewlabels predict` has it; each finds the parts that are there.

    say: gets what the processes have to say. Raises ValueError where there is no such engine.
    """
    with remote.engine_of(on, jobs[0].folder, gpus=int(device != "cpu")) as engine:
        if engine is not None:
            say(f"{len(jobs)} shards {engine.words}")
            return work_off(jobs, [None] * len(jobs), Said(say), Watched, remote.beginning(engine), remote.PACE)
        devices = gpus(device)[: len(jobs)]
        return work_off(jobs, devices if len(devices) > 1 else [None], Said(say), Watched)
