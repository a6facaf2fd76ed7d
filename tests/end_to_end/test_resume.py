"""A run that is killed, stopped or out of disk, and resumed: the same bits as if nothing had happened."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewlabels as fl
from fewlabels.config.settings import Train
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import files
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.training.failures import Diverged
from fewlabels.training.step import Trainer

pytestmark = pytest.mark.usefixtures("no_report")

FORK: Any = multiprocessing.get_context("fork")  # a child has torch imported already
TIMINGS = ("step_ms", "data_ms")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested containers as one dictionary; tensors as their bytes."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: v for k, part in items for name, v in flat(part, f"{prefix}/{k}").items()}
    if isinstance(value, torch.Tensor):
        return {prefix: (str(value.dtype), tuple(value.shape), value.numpy().tobytes())}
    return {prefix: value}


def whole(run: Run) -> dict[str, Any]:
    """All that a run leaves, but for what a clock wrote."""
    checkpoints = {c.path.name: (c.path / "weights.safetensors").read_bytes() for c in run.checkpoints()}
    records = [{k: v for k, v in r.items() if k not in TIMINGS} for r in run.metrics()]
    result = {k: v for k, v in run.result.items() if k in ("accuracy", "accuracy_raw", "last20", "best", "split")}
    return {"checkpoints": checkpoints, "state": flat(run.checkpoint().state()), "records": records, "result": result}


def in_child(work: Callable[[], object]) -> Any:
    """Start `work` in a forked child; it exits with 0 if it ends well."""
    child = FORK.Process(target=work)
    child.start()
    return child


def resumed(path: Path, config: Train) -> tuple[Run, int]:
    """Go on as a user would, and say from which step: from the start where there is no checkpoint yet."""
    try:
        step = Run(path).newest_good()[0].step
    except RunError:
        return fl.train(config, out=path, overwrite=True), 0
    return fl.resume(path), step


@pytest.fixture(scope="module")
def config(short: Callable[..., Train]) -> Train:
    return short(steps=40, save_every=4, eval_every=10, log_every=3)


@pytest.fixture(scope="module")
def uninterrupted(config: Train, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = fl.train(config, out=tmp_path_factory.mktemp("whole") / "run")
    assert run.finished and len(run.metrics("log")) == 14 and len(run.metrics("eval")) == 4
    return whole(run)


@pytest.mark.slow
def test_kill_9_at_six_random_moments(config: Train, uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    """SIGKILL from outside, some random milliseconds after a random step."""
    chance, resumed_at = random.Random(), []
    for moment in range(6):
        path, progress = tmp_path / f"run{moment}", FORK.Value("i", 0)

        def work(path: Path = path, progress: Any = progress) -> None:
            step = Trainer.step

            def counted(self: Trainer, number: int) -> None:
                step(self, number)
                progress.value = number + 1

            Trainer.step = counted  # type: ignore[method-assign]
            fl.train(config, out=path)

        child, last = in_child(work), chance.randrange(0, config.steps)
        while progress.value < last and child.is_alive():
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        run, step = resumed(path, config)
        resumed_at.append(step)
        assert whole(run) == uninterrupted, f"killed after step {last}, resumed at {step}"
    assert any(0 < step < config.steps for step in resumed_at)


def killed_at(operation: int, work: Callable[[], object]) -> bool:
    """Whether `work`, in a child, was killed by itself just before its n-th operation on the disk."""

    def doomed() -> None:
        count = 0

        def before(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return wrapped

        os.fsync, os.mkdir = before(os.fsync), before(os.mkdir)
        Path.rename, Path.replace = before(Path.rename), before(Path.replace)  # type: ignore[method-assign]
        shutil.rmtree = before(shutil.rmtree)  # type: ignore[assignment]
        os._exit(work() is None)

    child = in_child(doomed)
    child.join(120)
    assert child.exitcode in (-signal.SIGKILL, 0)
    return child.exitcode != 0


@pytest.mark.slow
def test_kill_9_in_the_middle_of_writing(short: Callable[..., Train], tmp_path: Path) -> None:
    """Before an fsync, a rename, a removal: whatever half-written thing is left, the last whole one serves."""
    config = short(steps=6, save_every=2, eval_every=3, keep=1)
    expected = whole(fl.train(config, out=tmp_path / "whole"))
    moments = 0
    for operation in range(1, 1000, 5):
        path = tmp_path / f"run{operation}"
        if not killed_at(operation, lambda path=path: fl.train(config, out=path)):
            break
        moments += 1
        run, _ = resumed(path, config)
        assert whole(run) == expected, f"killed before operation {operation}"
        assert not [p for p in (path / "checkpoints").iterdir() if p.name.startswith(".")], "litter was not removed"
    assert moments >= 8


@pytest.mark.slow
def test_killed_again_and_again(config: Train, uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    """One run, killed in every incarnation a few operations after it was resumed."""
    path = tmp_path / "run"
    lives = 1
    assert killed_at(30, lambda: fl.train(config, out=path))
    while killed_at(32, lambda: fl.resume(path)):
        lives += 1
        assert lives < 30, "the run does not get on"
    assert lives > 2 and whole(Run(path)) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        ("supervised", {}),
        ("fixmatch", {"strong": "cta", "weak": "s"}),
        ("mixmatch", {}),
        ("remixmatch", {}),
        ("remixmatch", {"algorithm": fl.ReMixMatch(strong_views=2, redux="mean", ramp_steps=4)}),
        ("fixmatch", {"net": fl.Net("wrn-10-1", dropout=0.3), "ema": fl.Ema(when="before"), "precision": "bf16"}),
        ("fixmatch", {"net": fl.Net("small-4", dropout=0.5), "uratio": 3}),
    ],
)
def test_every_state_comes_back(short: Callable[..., Train], tmp_path: Path, algorithm: str, changes: Any) -> None:
    """Stopped after 4 of 6 steps, in the middle of a log window, and resumed."""
    config = short(algorithm, steps=6, save_every=2, eval_every=3, log_every=3, **changes)
    expected = whole(fl.train(config, out=tmp_path / "whole"))
    path = tmp_path / "run"
    assert fl.train(config, out=path).finished
    rewind(path, 4)
    assert whole(fl.resume(path)) == expected


def rewind(path: Path, step: int) -> None:
    """As if the run had been killed right after the checkpoint of `step`."""
    (path / "result.json").unlink()
    for checkpoint in Run(path).checkpoints():
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)


@dataclass
class Signalled:
    code: int
    err: list[str]


def signalled(command: list[str], path: Path, signum: int) -> Signalled:
    """Run the real program, and send it a signal when it has written its first record (of this life)."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    records = path / "metrics.jsonl"
    before = records.stat().st_mtime_ns if records.is_file() else 0
    with subprocess.Popen(
        [sys.executable, "-m", "fewlabels", *command],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as program:
        deadline = time.monotonic() + 120
        while not (records.is_file() and records.stat().st_size and records.stat().st_mtime_ns > before):
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        program.send_signal(signum)
        _, err = program.communicate(timeout=120)
    return Signalled(program.returncode, err.splitlines())


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch, signum: int = signal.SIGTERM) -> None:
    """From now on a training in this process gets the signal in that step."""
    step = Trainer.step

    def interrupted(self: Trainer, number: int) -> None:
        step(self, number)
        if number + 1 == steps:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(Trainer, "step", interrupted)


@pytest.mark.slow
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "--data digits@40 --net small-4 --batch 4 --uratio 2 --steps 100000 --log-every 5 --save-every 100000"
    options = ["train", *settings.split(), "--no-baseline", "--no-progress"]
    path = tmp_path / "run"
    first = signalled([*options, "--out", str(path)], path, signal.SIGINT)
    second = signalled(["train", "--resume", str(path)], path, signal.SIGTERM)
    steps = []
    for said, code, name in ((first, 130, "SIGINT"), (second, 143, "SIGTERM")):
        assert said.code == code
        start, middle, end = said.err[-1].partition(" after step ")
        assert start == f"fewlabels: stopped by {name}" and middle
        step, rest = end.split(" ", 1)
        assert rest == f"of 100000; the state is saved, and `fewlabels train --resume {path}` goes on from it"
        assert "Traceback" not in "".join(said.err)
        steps.append(int(step))
    last = Run(path).checkpoint()
    assert 0 < steps[0] < steps[1] == last.step
    # the same number of steps in one go
    stopped_after(last.step, monkeypatch)
    assert command(*options, "--out", tmp_path / "whole").code == 143
    expected = Run(tmp_path / "whole").checkpoint()
    assert (last.path / "weights.safetensors").read_bytes() == (expected.path / "weights.safetensors").read_bytes()
    assert flat(last.state()) == flat(expected.state())


def test_second_signal_ends_at_once(
    short: Callable[..., Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def impatient(self: Trainer, number: int) -> None:
        step(self, number)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", impatient)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fl.train(short(), out=tmp_path / "run")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert Run(tmp_path / "run").checkpoints() == []


@pytest.mark.slow
def test_signal_in_python_is_an_exception(
    short: Callable[..., Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(7, monkeypatch)
    with pytest.raises(Interrupted) as caught:
        fl.train(short(), out=tmp_path / "run")
    assert caught.value.signum == signal.SIGTERM and "after step 7 of 12" in str(caught.value)
    monkeypatch.undo()
    expected = fl.train(short(), out=tmp_path / "whole")
    assert whole(fl.resume(tmp_path / "run"))["state"] == whole(expected)["state"]


@pytest.fixture(scope="module")
def trained(short: Callable[..., Train], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fl.train(short(keep=3), out=tmp_path_factory.mktemp("trained") / "run").path


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy, which may be changed."""
    return shutil.copytree(trained, tmp_path / "finished")


@pytest.mark.slow
def test_damaged_newest_checkpoint_costs_only_its_steps(finished: Path, command: Callable[..., Any]) -> None:
    expected = whole(Run(finished))
    rewind(finished, 8)
    damaged = finished / "checkpoints" / "step-00000008" / "state.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = command("train", "--resume", finished)
    assert said.code == 0
    assert (
        f"checkpoint {damaged.parent} is damaged: state.pt has changed since it was written; "
        "going on from step 4 instead" in said.out.splitlines()
    )
    assert whole(Run(finished)) == expected


@pytest.mark.slow
def test_curves_have_no_scars(finished: Path, command: Callable[..., Any]) -> None:
    """What was written after the checkpoint is taken back, in TensorBoard as in the metrics."""

    def curves() -> dict[str, list[tuple[int, float]]]:
        events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("time/")]
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}

    before = curves()
    assert [step for step, _ in before["train/loss"]] == [3, 6, 9, 12]
    rewind(finished, 4)
    assert command("train", "--resume", finished).code == 0
    assert len(list((finished / "tensorboard").iterdir())) == 2 and curves() == before


@pytest.mark.slow
def test_settings_that_touch_no_result_may_change(finished: Path, command: Callable[..., Any]) -> None:
    rewind(finished, 4)
    assert command("train", "--resume", finished, "--keep", 1, "--device", "cpu").code == 0
    assert [c.step for c in Run(finished).checkpoints() if not c.best] == [12]


@pytest.mark.slow
def test_all_checkpoints_damaged(finished: Path, command: Callable[..., Any]) -> None:
    rewind(finished, 12)
    for checkpoint in Run(finished).checkpoints():
        (checkpoint.path / "weights.safetensors").unlink()
    said = command("train", "--resume", finished)
    assert said.code == 2 and said.out == ""
    newest = finished / "checkpoints" / "step-00000012"
    assert said.sentence == f"checkpoint {newest} is incomplete: weights.safetensors is missing"


@pytest.mark.slow
def test_other_data_are_refused(finished: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The split's fingerprint holds the labels."""
    from fewlabels.training import loop as training

    load = training.load_source

    def changed(*args: Any, **options: Any) -> Any:
        source = load(*args, **options)
        source.labels[:] = (source.labels + 1) % 10
        return source

    rewind(finished, 8)
    monkeypatch.setattr(training, "load_source", changed)
    said = command("train", "--resume", finished)
    assert said.code == 2
    assert said.sentence == f"the images or labels of digits@40 have changed since {finished} was started"


@pytest.mark.slow
def test_other_pictures_or_names_are_refused(
    short: Callable[..., Train], photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    root, names = tmp_path / "photos", tmp_path / "names.json"
    shutil.copytree(photos, root)
    names.write_text('["Blue", "Red"]')
    data = fl.Data(f"{root}/", classes=str(names))
    run = fl.train(short(data=data, weak="ms", strong="rand:kekmodel"), out=tmp_path / "run").path
    rewind(run, 8)

    def refused(clause: str) -> None:
        said = command("train", "--resume", run)
        since = f"the images or labels of {root}/ have changed since {run} was started"
        assert said.code == 2 and said.sentence.startswith(f"{since}: {clause}")

    names.write_text('["Blue", "Pink"]')
    refused("class 1 is 'Pink' now, and was 'Red'")
    names.write_text('["Blue", "Red"]')
    for old, new, part in (
        ("labeled/blue", "labeled/violet", "training"),  # turns the order round: "Blue" would be the red ones
        ("unlabeled/red0.png", "unlabeled/a.png", "training"),  # the same pictures in another order
        ("test/red/0.png", "test/blue/9.png", "test"),  # the same pictures with other labels
    ):
        if old == "labeled/blue":
            (root / "test/blue").rename(root / "test/violet")
        (root / old).rename(root / new)
        refused(f"the {part} pictures are others now")
        (root / new).rename(root / old)
        if old == "labeled/blue":
            (root / "test/violet").rename(root / "test/blue")
    shutil.copy(root / "test/red/0.png", root / "test/red/9.png")
    refused("there are 9 test pictures now, and there were 8")
    (root / "test/red/9.png").unlink()
    assert fl.resume(run).finished


@pytest.mark.slow
def test_pictures_that_moved_are_pointed_to(
    short: Callable[..., Train], photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    root, moved = tmp_path / "photos", tmp_path / "moved"
    shutil.copytree(photos, root)
    config = short(data=fl.Data(f"{root}/"), weak="ms", strong="rand:kekmodel")
    run = fl.train(config, out=tmp_path / "run").path
    weights = (fl.Run(run).checkpoint("last").path / "weights.safetensors").read_bytes()
    rewind(run, 8)
    root.rename(moved)
    assert f"there is no folder '{root}'" in command("train", "--resume", run).sentence
    picture = moved / "unlabeled/red0.png"
    whole = picture.read_bytes()
    shutil.copy(moved / "unlabeled/red1.png", picture)
    said = command("train", "--resume", run, "--data", f"{moved}/")
    assert said.code == 2 and "the training pictures are others now" in said.sentence
    picture.write_bytes(whole)
    assert "was started with data.name" in command("train", "--resume", run, "--data", "digits").sentence
    said = command("train", "--resume", run, "--data", f"{moved}/", "--no-progress")
    assert said.code == 0, said.err
    assert (fl.Run(run).checkpoint("last").path / "weights.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_finished_run_is_left_alone(finished: Path, command: Callable[..., Any]) -> None:
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    said = command("train", "--resume", finished)
    assert said.code == 0 and said.out.startswith(f"{finished} is finished already\n")
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_moved_run_goes_on(finished: Path, tmp_path: Path) -> None:
    expected = whole(Run(finished))
    rewind(finished, 4)
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    finished.rename(moved)
    assert whole(fl.resume(moved)) == expected


@pytest.mark.slow
def test_run_of_arrays_is_resumed_with_the_arrays(short: Callable[..., Train], tmp_path: Path) -> None:
    from fewlabels.config.resolve import load_source, resolve_data
    from fewlabels.data.arrays import from_arrays

    digits = load_source(resolve_data(fl.Data("digits")))
    source = from_arrays(digits.images[:60], digits.labels[:60])
    config = short(weak="affine", strong="affine")
    expected = whole(fl.train(config, source=source, out=tmp_path / "whole"))
    path = fl.train(config, source=source, out=tmp_path / "run").path
    rewind(path, 8)
    with pytest.raises(ValueError, match=r"^the run was made from arrays in memory, which are gone"):
        fl.resume(path)
    with pytest.raises(RunError, match=r"^the images or labels of arrays have changed since"):
        fl.resume(path, source=from_arrays(digits.images[:50], digits.labels[:50]))
    assert whole(fl.resume(path, source=source)) == expected


@pytest.mark.slow
def test_loss_that_is_no_number_stops_the_run(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "run"
    small = "--data digits@40 --net small-4 --batch 4 --steps 50 --no-baseline --no-progress"
    options = ["train", *small.split(), "--out", path, "--optim.lr", "1e30", "--optim.warmup", "8"]
    said = command(*options, "--log-every", "5", "--save-every", "1")
    assert said.code == 1
    head, terms, tail = said.sentence.replace("(", "|").replace(")", "|").split("|", 2)
    last = Run(path).checkpoint().step
    assert head == f"the loss was not finite at step {last + 1} "
    assert "loss nan" in terms and "loss_x nan" in terms and "since the last log point" in terms
    assert tail.startswith(f"; the last good checkpoint is step {last} in {path}; try a smaller --optim.lr ")
    weights = Run(path).checkpoint().weights("raw")
    assert all(w.isfinite().all() for w in weights.values() if w.is_floating_point() and w.ndim > 1)
    # without a checkpoint, and seen at the next log point only
    said = command(*options, "--log-every", "20", "--overwrite")
    assert said.code == 1 and "; there is no checkpoint yet in " in said.sentence


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_saved(short: Callable[..., Train], tmp_path: Path) -> None:
    """A finite loss with an infinite gradient: the checkpoint would look good and be useless."""

    @dataclass(frozen=True)
    class Trap:
        def build(self, info: fl.Info) -> fl.Algorithm:
            class Loss(fl.Algorithm):
                views = fl.Views(("weak",), ())

                def forward(self, batch: fl.Batch, net: Any, ema: Any) -> fl.Losses:
                    loss = net(batch.x[0]).square().mean()
                    if float(batch.progress) * info.steps > 6.5:
                        loss = loss + (loss * 0).sqrt()  # the slope of the square root at 0
                    return fl.Losses(loss, {"loss": loss.detach()})

            return Loss()

    config = short(algorithm=Trap(), steps=20, save_every=2, log_every=100)
    with pytest.raises(Diverged) as caught:
        fl.train(config, out=tmp_path / "run")
    assert str(caught.value).startswith("the weights were not finite after step 8 (loss ")
    assert "; the last good checkpoint is step 6 in " in str(caught.value)
    with pytest.raises(RunError):
        Run(tmp_path / "run").checkpoint("8")


@pytest.mark.slow
def test_full_disk_during_a_training(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.write_bytes

    def full(path: Path, data: bytes) -> None:
        if "step-00000008" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", full)
    path = tmp_path / "run"
    small = "--data digits@40 --net small-4 --batch 4 --steps 12 --save-every 4 --no-baseline --no-progress"
    said = command("train", *small.split(), "--out", path)
    assert said.code == 1
    assert said.sentence == (
        f"could not save the checkpoint of step 8 to {path}/checkpoints/step-00000008: No space left on device; "
        "the last good checkpoint is step 4"
    )
    monkeypatch.undo()
    assert command("train", "--resume", path).code == 0
    assert command("train", *small.split(), "--out", tmp_path / "whole").code == 0
    assert whole(Run(path)) == whole(Run(tmp_path / "whole"))


@pytest.mark.slow
def test_files_that_may_not_grow(tmp_path: Path, command: Callable[..., Any]) -> None:
    """A real limit of the kernel, met by the records, which grow while the checkpoints still fit."""
    path, answer = tmp_path / "run", tmp_path / "answer"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        small = "--data digits@40 --net small-4 --batch 4 --steps 400 --no-baseline --no-progress"
        said = command(
            "train", *small.split(), "--save-every", 20, "--log-every", 1, "--eval-every", 400, "--out", path
        )
        answer.write_text(json.dumps(list(said)))

    child = in_child(limited)
    child.join(120)
    code, _, err = json.loads(answer.read_text())
    last = Run(path).newest_good()[0].step
    assert code == 1 and last > 0
    sentence = f"could not write the records of {path}: File too large; the last good checkpoint is step {last}"
    assert err == f"fewlabels: {sentence}\n"
