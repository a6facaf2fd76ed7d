"""A training over several seeds: one run after another in this process, or one per GPU in processes of their own.

`plan` says which runs there are and what their folders hold already, `here` and `spread` train them. A run that
fails does not stop the others; a signal stops all, each with its state saved, and the same plan goes on from there.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch

from fewlabels import interrupt
from fewlabels.algorithms import Supervised
from fewlabels.config import Train, difference
from fewlabels.data import names
from fewlabels.datasets import resolve_data
from fewlabels.interrupt import Interrupted
from fewlabels.log import Display
from fewlabels.run import Run, RunError, run_name
from fewlabels.training import FREE_TO_CHANGE, Output, foreseen, resume, train

MOST = 1000
"""More runs than anyone wants: a slip such as 1..50000 is refused before anything is made of it."""

Tell = Callable[[str, int, str], None]
"""What a run says while it trains: ("step", steps done, text), ("line", 0, evaluation) or ("said", 0, sentence)."""


@dataclass(frozen=True)
class Job:
    """One of the runs."""

    name: str
    """`seed 3` or `fold 3`."""
    path: Path
    config: Train
    baseline: bool
    known: bool
    """The folder holds a run of this configuration, which is kept or gone on with."""
    start: int
    """Steps that are done already."""
    finished: bool

    @property
    def steps(self) -> int:
        """Steps in all, with those of the baseline."""
        return self.config.steps * (1 + self.baseline)

    @property
    def log(self) -> Path:
        """Where a process of its own, or a fault of the program, leaves what it has to say."""
        return self.path.with_name(f"{self.path.name}.log")


class Outcome(NamedTuple):
    """How a run ended."""

    kind: Literal["finished", "failed", "stopped"]
    reason: str = ""
    """One sentence for a failure."""
    signum: int = 0


class Board(Protocol):
    """Where all runs are shown."""

    def step(self, job: Job, step: int, text: str) -> None: ...

    def line(self, job: Job, text: str) -> None:
        """An evaluation."""

    def said(self, job: Job, text: str) -> None:
        """A sentence about what is trained."""

    def end(self, job: Job, outcome: Outcome) -> None: ...


class Result(NamedTuple):
    """What became of the jobs, by name; those that were not begun are missing."""

    outcomes: dict[str, Outcome]
    signum: int
    """The signal that stopped all, or 0."""


# ---- which runs


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers that ``0..4`` (both ends included), ``1,3,5`` or ``0..2,7`` mean.

    Raises ValueError, with `option` in the sentence.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:\.\.([0-9]+))?\s*", part)
        if match is None:
            raise ValueError(f"{option} must be numbers such as 0..4 or 1,3,5, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{option} {text} counts downwards: write {last}..{first}")
        if last > names.MAX_SEED:
            raise ValueError(f"{option} must be numbers from 0 to {names.MAX_SEED}, got {last}")
        if len(found) + last - first >= MOST:
            raise ValueError(f"{option} {text} means more than {MOST} runs")
        found += range(first, last + 1)
    if twice := [n for i, n in enumerate(found) if n in found[:i]]:
        raise ValueError(f"{option} {text} names {twice[0]} twice")
    return tuple(found)


def with_fold(config: Train, fold: int) -> Train:
    """`config` with another seed of the split, written where its data name has one."""
    name = names.parse(config.data.name)
    text = config.data.name if name.folder else str(replace(name, seed=fold))
    return replace(config, data=replace(config.data, name=text, seed=fold))


def plan(
    config: Train,
    kind: Literal["seed", "fold"],
    which: Sequence[int],
    *,
    out: Path | str | None = None,
    baseline: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """The runs, one for each number, in the folders `KIND-NUMBER` of `out`.

    Args:
        kind: whether the numbers are seeds of the training or of the split.
        out: default `runs/DATA-ALGORITHM-seeds` or `-folds`.
        baseline: each with its supervised baseline.
        overwrite: replace runs of another configuration, which are refused otherwise.
    """
    config = replace(config, data=resolve_data(config.data))
    if out is None:
        seedless = replace(names.parse(config.data.name), seed=None)
        plain = config if kind == "seed" else replace(config, data=replace(config.data, name=str(seedless)))
        out = Path("runs") / f"{run_name(plain).rpartition('-')[0]}-{kind}s"
    root = Path(out).expanduser()
    if (root / "config.json").is_file():
        raise RunError(f"{root} is a single run: name another --out for several")
    jobs = []
    for n in which:
        own = replace(config, seed=n) if kind == "seed" else with_fold(config, n)
        own = replace(own, data=resolve_data(own.data))
        path = root / f"{kind}-{n}"
        known = _known(path, own, overwrite)
        done, finished = saved(path, own.steps, baseline) if known else (0, False)
        jobs.append(Job(f"{kind} {n}", path, own, baseline, known, done, finished))
    return jobs


def _known(path: Path, config: Train, overwrite: bool) -> bool:
    """Whether the folder holds a run of this configuration. Raises RunError for what must not be replaced."""
    if not (path / "config.json").is_file():
        Run.check_free(path, overwrite=overwrite)
        return False
    try:
        old = Run(path).config
    except ValueError:
        if overwrite:
            return False
        raise
    before, now = difference(old, config), difference(config, old)
    free = {*FREE_TO_CHANGE, *(k for k in ("weak", "strong", "shift") if getattr(config, k) in ("auto", None))}
    changed = [name for name in {**now, **before} if name not in free]
    if changed and not overwrite:
        name = "algorithm.name" if "algorithm.name" in changed else changed[0]
        raise RunError(
            f"{path} holds a run with {name} {before.get(name)}, and {now.get(name)} is asked for; "
            "name another --out, or add --overwrite to replace it"
        )
    return not changed


def saved(path: Path, steps: int, baseline: bool) -> tuple[int, bool]:
    """Steps of a run, with those of its baseline, that are saved, and whether all is finished."""
    if not (path / "config.json").is_file():
        return 0, False
    run = Run(path)
    if not run.finished:
        return max((c.step for c in run.checkpoints() if not c.best), default=0), False
    more, finished = saved(path / "baseline", steps, False) if baseline else (0, True)
    return steps + more, finished


# ---- one run


def baseline(run: Run, config: Train, output: Output) -> Run:
    """The supervised run in the folder `baseline` of a run, begun, gone on with or finished.

    config: the run's own, as for `fewlabels.resume`.
    """
    path = run.path / "baseline"
    if not (path.is_dir() and Run(path).checkpoints()):
        output.say("now the supervised baseline: the same labels, strong views and steps, no unlabeled images")
        output = output._replace(say=lambda text: None)
    return _go(path, replace(config, algorithm=Supervised(view="strong")), path.is_dir(), output)


def _go(path: Path, config: Train, known: bool, output: Output) -> Run:
    """Train, or go on if `known` and there is something to go on from."""
    if known:
        run = Run(path)
        if run.finished or run.checkpoints():
            changed = {name: getattr(config, name) for name in FREE_TO_CHANGE}
            return resume(path, config=replace(run.config, **changed), output=output)
    return train(config, out=path, overwrite=path.is_dir(), output=output)


class _Teller:
    """A display that passes on what it is told, ten times a second at most."""

    def __init__(self, tell: Tell, before: int, prefix: str, unit: str) -> None:
        self.tell, self.before, self.prefix, self.unit, self.told = tell, before, prefix, unit, 0.0

    def update(self, step: int, text: str) -> None:
        if time.monotonic() - self.told < 0.1:
            return
        self.told = time.monotonic()
        if self.unit == "step":
            self.tell("step", self.before + step, self.prefix + text)
        else:
            self.tell("step", self.before, f"{step} {self.unit}s {text}")

    def line(self, text: str) -> None:
        self.tell("line", 0, self.prefix + text)

    def close(self) -> None:
        pass


def attempt(job: Job, tell: Tell) -> Outcome:
    """Train a job; whatever goes wrong is an outcome."""

    def output(before: int, prefix: str) -> Output:
        def show(title: str, steps: int, unit: str) -> Display:
            return _Teller(tell, before, prefix, unit)

        return Output(show, lambda text: tell("said", 0, prefix + text))

    outcome = Outcome("finished")
    try:
        run = _go(job.path, job.config, job.known, output(0, ""))
        if job.baseline:
            changed = {name: getattr(job.config, name) for name in FREE_TO_CHANGE}
            baseline(run, replace(run.config, **changed), output(job.config.steps, "baseline: "))
    except Interrupted as stop:
        outcome = Outcome("stopped", str(stop), stop.signum)
    except KeyboardInterrupt as stop:  # outside the loop, where nothing has to be saved, or the second signal
        outcome = Outcome("stopped", "stopped", stop.args[0] if stop.args else signal.SIGINT)
    except Exception as error:
        if (sentence := foreseen(error)) is None:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text(traceback.format_exc())
            sentence = f"{type(error).__name__}: {' '.join(str(error).split())} (traceback in {job.log})"
        outcome = Outcome("failed", sentence)
    if job.config.compile:
        torch.compiler.reset()  # each run compiles its own step, and torch keeps a few versions only
    gc.collect()
    return outcome


# ---- all of them


def here(jobs: Sequence[Job], board: Board) -> Result:
    """One after another in this process."""
    outcomes: dict[str, Outcome] = {}
    with _terminated():
        for job in jobs:
            outcome = outcomes[job.name] = attempt(job, _telling(board, job))
            board.end(job, outcome)
            if outcome.kind == "stopped":
                return Result(outcomes, outcome.signum)
    return Result(outcomes, 0)


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt where no training catches it."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _telling(board: Board, job: Job) -> Tell:
    def tell(kind: str, step: int, text: str) -> None:
        if kind == "step":
            board.step(job, step, text)
        elif kind == "line":
            board.line(job, text)
        else:
            board.said(job, text)

    return tell


Post = Callable[[Any], None]
"""Takes what a child tells: arguments of `Tell`, an `Outcome`, and at last None."""


class Worker(Protocol):
    """A run in a process of its own."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None: ...

    def last_words(self) -> str:
        """Why it ended without an outcome."""


def spread(
    jobs: Sequence[Job], devices: Sequence[str], board: Board, launch: Callable[[Job, str, Post], Worker] | None = None
) -> Result:
    """As many at a time as there are devices, each in a process that sees one of them.

    Args:
        devices: entries of CUDA_VISIBLE_DEVICES, or "cpu".
        launch: begins a job on a device; default: `Child`.
    """
    if launch is None:
        threads = max(1, torch.get_num_threads() // max(1, len(devices)))
        launch = lambda job, device, post: Child(job, device, post, threads)  # noqa: E731
    waiting, free = deque(jobs), deque(devices)
    running: dict[str, tuple[Job, str, Worker]] = {}
    outcomes: dict[str, Outcome] = {}
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    asked = False
    with interrupt.catch() as stop:
        try:
            while running or (waiting and not stop.signum):
                while waiting and free and not stop.signum:
                    job, device = waiting.popleft(), free.popleft()
                    board.step(job, job.start, "starting")
                    running[job.name] = job, device, launch(job, device, _post(events, job.name))
                if stop.signum and not asked:
                    asked = True
                    for _, _, worker in running.values():
                        worker.stop()
                try:
                    name, message = events.get(timeout=0.1)
                except queue.Empty:
                    continue
                job, device, worker = running[name]
                if isinstance(message, Outcome):
                    outcomes[name] = message
                elif message is not None:
                    _telling(board, job)(*message)
                else:
                    del running[name]
                    free.append(device)
                    last = worker.last_words()
                    outcome = outcomes.get(name) or Outcome("stopped" if stop.signum else "failed", last)
                    if outcome.kind == "stopped" and not stop.signum:  # it alone was told to stop
                        outcome = Outcome("failed", outcome.reason)
                    outcomes[name] = outcome
                    board.end(job, outcome)
        finally:
            for _, _, worker in running.values():
                worker.kill()
    return Result(outcomes, stop.signum)


def _post(events: queue.SimpleQueue[tuple[str, Any]], name: str) -> Post:
    return lambda message: events.put((name, message))


class Child:
    """A Python process that runs `child`: the job goes in through its standard input, what it tells comes out.

    It is told to stop by the end of its input, which comes as well when this process dies of whatever.
    """

    def __init__(self, job: Job, device: str, post: Post, threads: int) -> None:
        self.job, self.post = job, post
        environment: Mapping[str, str] = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device,
        }
        ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the parent
        code = f"{ignore}; import sys; sys.path[:] = {sys.path!r}; from fewlabels.many import child; child()"
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        with suppress(OSError):  # it is dead already
            self._input.write(pickle.dumps(job))
            self._input.flush()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def _input(self) -> Any:
        return self.process.stdin

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(EOFError, OSError, pickle.UnpicklingError), self.process.stdout as source:
            while True:
                self.post(pickle.load(source))
        self.process.wait()
        self.post(None)

    def stop(self) -> None:
        with suppress(OSError):
            self._input.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        self.stop()
        with suppress(OSError):
            if not self.job.log.stat().st_size:
                self.job.log.unlink()
        code = self.process.returncode
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with status {code}; what it said is in {self.job.log}"


def child() -> None:
    """Train the job that standard input brings."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land among the messages
    job = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_obey, daemon=True).start()

    def send(message: Any) -> None:
        with suppress(OSError):  # the parent is dead, and the state gets saved nevertheless
            sink.write(pickle.dumps(message))
            sink.flush()

    send(attempt(job, lambda *message: send(message)))


def _obey() -> None:
    """When the input ends, stop the training as a signal would; where none is under way, nothing has to be saved."""
    while os.read(0, 1):
        pass
    while True:
        handler = signal.getsignal(signal.SIGTERM)
        if not isinstance(handler, interrupt.Stop):
            os._exit(128 + signal.SIGTERM)
        handler.signum = handler.signum or signal.SIGTERM
        time.sleep(0.05)


def gpus(device: str) -> list[str]:
    """The visible GPUs, as CUDA_VISIBLE_DEVICES names them, if `device` leaves the choice among them open."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[:count] if any(visible) else [str(i) for i in range(count)]
