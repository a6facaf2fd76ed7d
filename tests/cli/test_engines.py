"""`fewlabels train --on`: wrong words; trainings on submitit's local cluster and on a Ray cluster of this machine."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels.commands.many import Plain
from fewlabels.runs.owner import LOCK
from fewlabels.runs.run import Run
from fewlabels.sweep import on_slurm, remote
from fewlabels.sweep.on import On
from fewlabels.sweep.plan import Job, plan
from fewlabels.sweep.task import Task
from forked import forking
from sweeps import OPTIONS, state, table

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


@pytest.mark.slow
def test_without_slurm(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nowhere")
    said = command("train", "--seeds", "0,1", "--on", "slurm", "--out", tmp_path / "run")
    assert said.code == 2 and not (tmp_path / "run").exists()
    assert said.sentence == "--on slurm starts jobs with sbatch and srun, which this machine does not have"
    said = command("train", "--seeds", "0", "--on", "slurm", "--on.options", "qqs=high", "--out", tmp_path / "run")
    assert said.sentence == "--on.options has qqs, which submitit does not know; did you mean qos?"


# ---- processes of their own


STEPS = ("--steps", 300, "--eval-every", 100, "--save-every", 100)
ENGINES = [("slurm", "submitit"), ("ray", "ray")]


def on_each_engine(test: Callable[..., None]) -> Any:
    marks = (
        pytest.mark.parametrize(("engine", "package"), ENGINES),
        pytest.mark.skipif(
            "FEWLABELS_ENGINES" not in os.environ, reason="minutes of imports; FEWLABELS_ENGINES=1 runs it"
        ),
        pytest.mark.slow,
    )
    return functools.reduce(lambda marked, mark: mark(marked), marks, test)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of Slurm are processes of this machine; Ray has two workers, and no cluster of the user's."""
    monkeypatch.setattr(on_slurm, "CLUSTER", "local")
    monkeypatch.setattr(remote, "PACE", 0.05)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')


def trainer(job: Job) -> int:
    """The process that trains, as its lock says."""
    return int(json.loads((job.path / LOCK).read_text())["pid"])


def starter(job: Job) -> int:
    """The process that has started that one: submitit's, or Ray's worker."""
    return int(Path(f"/proc/{trainer(job)}/stat").read_text().rpartition(")")[2].split()[1])


def when_they_train(
    monkeypatch: pytest.MonkeyPatch, act: dict[str, Callable[[Job], None]], *, after: int = 0
) -> list[str]:
    """Do something to each job after so many steps, once; returns the names of those that it was done to."""
    done: list[str] = []

    class Watching(Plain):
        def step(self, job: Job, step: int, text: str) -> None:
            super().step(job, step, text)
            if "loss" in text and step > after and job.name in act and job.name not in done:
                done.append(job.name)
                act[job.name](job)

    monkeypatch.setattr("fewlabels.commands.many.Plain", Watching)
    return done


@on_each_engine
def test_one_fails_and_others_are_preempted(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: None, engine: str, package: str
) -> None:
    """A process is killed: that run fails. SIGTERM: that one goes on. A third one loses what has started it, to
    SIGUSR2 (submitit has it saved, and starts it again) or to SIGKILL (Ray starts it again, from the checkpoint)."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    act: dict[str, Callable[[Job], None]] = {
        "seed 0": lambda job: os.kill(starter(job), signal.SIGUSR2 if engine == "slurm" else signal.SIGKILL),
        "seed 1": lambda job: os.kill(trainer(job), signal.SIGKILL),
        "seed 2": lambda job: os.kill(starter(job) if engine == "slurm" else trainer(job), signal.SIGTERM),
    }
    done = when_they_train(monkeypatch, act, after=100)
    options = (*OPTIONS, *STEPS, "--seeds", "0..2", "--out", tmp_path / "all")
    more = ("--on", engine, "--on.cpus", 1, "--on.gpus", 0)
    said = command(*options, *more)
    assert sorted(done) == ["seed 0", "seed 1", "seed 2"], said
    rows = table(said.out)
    log = tmp_path / "all" / "seed-1.log"
    assert said.code == 1 and said.out.startswith(f"3 runs in {tmp_path / 'all'}: 3 new; on {engine.title()}\n"), said
    assert " ".join(rows["seed 1"]).endswith(f"failed: its process was killed by SIGKILL (what it said is in {log})")
    for seed in (0, 2):
        assert f"resuming {tmp_path / 'all' / f'seed-{seed}'} at step " in said.err
        assert Run(tmp_path / "all" / f"seed-{seed}").result["seconds_from_step"] > 0
    again = command(*options, *more)
    assert again.code == 0 and ": 2 finished already, 1 " in again.out, again
    left = {path.name for path in (tmp_path / "all").iterdir()}
    assert left == {"seed-0", "seed-1", "seed-2"}

    with forking():
        plain = command(*options[:-1], tmp_path / "plain")
    assert plain.code == 0

    def numbers(out: str) -> dict[str, list[str]]:
        kept = ("seed 0", "seed 1", "seed 2", "mean", "std", "n")
        return {name: row[:4] for name, row in table(out).items() if name in kept}

    assert numbers(again.out) == numbers(plain.out) and len(numbers(plain.out)) == 6
    for seed in range(3):
        assert state(tmp_path / "all" / f"seed-{seed}")[0] == state(tmp_path / "plain" / f"seed-{seed}")[0]


@on_each_engine
def test_a_signal_stops_all(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: None, engine: str, package: str
) -> None:
    """Also the one that waits in the queue: Ray has no place for a third one."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    when_they_train(monkeypatch, {"seed 1": lambda job: os.kill(os.getpid(), signal.SIGTERM)})
    long = ("--steps", 100_000, "--save-every", 100_000, "--eval-every", 100_000)
    before = signal.getsignal(signal.SIGTERM)
    said = command(
        *OPTIONS, *long, "--seeds", "1..3", "--out", tmp_path, "--on", engine, "--on.cpus", 1, "--on.gpus", 0
    )
    assert signal.getsignal(signal.SIGTERM) == before
    assert said.code == 143 and "stopped by SIGTERM with 0 of 3 runs finished" in said.err.splitlines()[-1]
    step = Run(tmp_path / "seed-1").checkpoint().step
    assert table(said.out)["seed 1"][-6:] == ["stopped", "at", "step", str(step), "of", "100000"]
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".log", ".job")]


def test_a_task_without_its_job_does_nothing(tmp_path: Path) -> None:
    """The sweep has been stopped before the cluster had a place, or another one has taken the run over."""
    file = tmp_path / "seed-1.job"
    assert Task(str(file), "a")() == 143
    file.write_text(json.dumps({"token": "b", "path": "run", "cwd": str(tmp_path), "log": str(tmp_path / "log")}))
    assert Task(str(file), "a")() == 143 and list(tmp_path.iterdir()) == [file]


def program(folder: Path, name: str, *lines: str) -> None:
    """A program of the shell."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    (folder / name).chmod(0o755)


def test_what_slurm_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that say what Slurm's say; the job is never begun."""
    pytest.importorskip("submitit")
    programs = tmp_path / "programs"
    program(programs, "srun")
    program(programs, "sbatch", f'cp "$1" {tmp_path}/asked', "echo Submitted batch job 7")
    program(programs, "sacct", "echo 'JobID|State|NodeList'", f'echo "7|$(cat {tmp_path}/state)|node1"')
    program(programs, "scancel", f'echo "$@" >> {tmp_path}/cancelled')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    on = On("slurm", partition="gpu", time="90m", memory=32, account="lab", options=("qos=high", "exclusive=true"))
    engine = on_slurm.Slurm(on, tmp_path / "all", gpus=1)
    handle = engine.submit(Task(str(tmp_path / "seed-1.job"), "a"), "seed 1")
    asked = {line.removeprefix("#SBATCH --") for line in (tmp_path / "asked").read_text().splitlines()}
    assert {
        *("partition=gpu", "account=lab", "time=90", "mem=32GB", "cpus-per-task=4", "gpus-per-node=1"),
        *("qos=high", "exclusive", "signal=USR2@90", "job-name=fewlabels-seed-1", "nodes=1"),
    } <= asked
    (tmp_path / "state").write_text("PENDING")
    assert engine.look(handle) is None and engine.cancelled(handle) is None
    for word, ended_by_user in (("CANCELLED by 1000", True), ("PREEMPTED", False), ("COMPLETED", False)):
        (tmp_path / "state").write_text(word)
        engine.asked.clear()
        handle.watcher.clear()  # it asks `sacct` about a job no more that has ended
        assert engine.cancelled(handle) is ended_by_user
    (tmp_path / "state").write_text("OUT_OF_MEMORY")
    handle.watcher.clear()
    said = engine.look(handle)
    assert isinstance(said, str) and said.startswith("Slurm ended its job 7 (OUT_OF_MEMORY); what that said is in ")
    engine.cancel(handle)
    assert (tmp_path / "cancelled").read_text() == "7\n"
    program(programs, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2", "exit 1")
    with pytest.raises(
        ValueError, match="Slurm does not take the job: sbatch: error: invalid partition specified: gpu"
    ):
        engine.submit(Task("", "a"), "seed 1")


class Queue:
    """An engine whose answers are given."""

    words, cpus = "in a queue", 1

    def __init__(self, *answers: int | str | None, cancelled: bool = False, refuses: int = -1) -> None:
        self.answers, self.ended_by_user, self.refuses = list(answers), cancelled, refuses
        self.submitted: list[str] = []
        self.gone: list[str] = []

    def submit(self, task: Task, name: str) -> str:
        if len(self.submitted) == self.refuses:
            raise ValueError("the queue is full")
        self.submitted.append(task.token)
        return task.token

    def look(self, handle: str) -> int | str | None:
        return self.answers.pop(0)

    def cancelled(self, handle: str) -> bool:
        return self.ended_by_user

    def cancel(self, handle: str) -> None:
        self.gone.append(handle)

    def close(self) -> None:
        pass


def begun(engine: Queue, tmp_path: Path, *, first: bool = True) -> remote.Remote:
    (job,) = plan(fl.Train(), "seed", (1,), out=tmp_path)
    return remote.Remote(job, engine, first=first)


def test_what_is_told_to_end_is_submitted_again(tmp_path: Path) -> None:
    engine = Queue(None, 143, -15, 0)
    run = begun(engine, tmp_path)
    token = json.loads(run.file.read_text())["token"]
    assert [run.poll() for _ in range(4)] == [None, None, None, 0] and run.poll() == 0
    assert len(set(engine.submitted)) == 3 and engine.submitted[0] == token  # a task of its own each time
    assert engine.gone == engine.submitted[:2] and not run.file.exists()


def test_what_gets_nowhere_is_not_submitted_for_ever(tmp_path: Path) -> None:
    engine = Queue(*(143,) * 10)
    run = begun(engine, tmp_path)
    assert [run.poll() for _ in range(remote.TRIES)] == [*(None,) * (remote.TRIES - 1), 143]


def test_what_the_user_ends_is_ended(tmp_path: Path) -> None:
    run = begun(Queue(143, cancelled=True), tmp_path)
    assert run.poll() == 1 and "its job was cancelled; the same command" in run.job.log.read_text()
    engine = Queue(143)
    run = begun(engine, tmp_path)
    run.job.log.touch()  # it has begun
    run.stop()
    assert run.poll() == 143 and len(engine.submitted) == 1 and not engine.gone
    engine = Queue()
    run = begun(engine, tmp_path)
    run.stop()
    assert run.poll() == 143 and engine.gone == engine.submitted  # it waited in the queue


def test_what_is_lost_or_refused_has_failed(tmp_path: Path) -> None:
    run = begun(Queue("Slurm ended its job 7 (OUT_OF_MEMORY)"), tmp_path)
    assert run.poll() == 1 and run.job.log.read_text().endswith("fewlabels: Slurm ended its job 7 (OUT_OF_MEMORY)\n")
    run = begun(Queue(refuses=0), tmp_path, first=False)
    assert run.poll() == 1 and run.job.log.read_text() == "\nfewlabels: the queue is full\n"
    with pytest.raises(ValueError, match="the queue is full"):
        begun(Queue(refuses=0), tmp_path)
    assert not list(tmp_path.glob("*.job"))
