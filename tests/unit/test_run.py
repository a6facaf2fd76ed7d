from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from fewlabels.config.settings import Data, Train
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.runs.folder import free_folder, run_name
from fewlabels.runs.run import Checkpoint, Run, RunError
from fewlabels.runtime import files

WEIGHTS = {
    "raw": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)},
    "ema": {"w": torch.arange(6.0).view(2, 3) / 7, "n": torch.tensor(4)},
}
STATE = {"optimizer": {"lr": 0.5, "buffers": [torch.ones(2)]}, "count": 3}


def make(path: Path, **settings: Any) -> Run:
    images = np.zeros((6, 8, 8, 1), np.uint8)
    labels = np.array([0, 1, 0, 1, -1, -1])
    source = Source("dots", ("a", "b"), images, labels, images[:0], labels[:0], Style())
    split = make_split(source, labels=None, seed=1)
    facts = {"classes": source.classes, "shape": source.shape, "mean": (0.5,), "std": (0.25,)}
    return Run.create(path, Train(**settings), split, facts)


def save(run: Run, step: int, **options: Any) -> Checkpoint:
    return run.save(step, WEIGHTS, STATE, {"world": 1, "split": "f"}, **options)


def listed(run: Run) -> list[str]:
    return sorted(p.name for p in (run.path / "checkpoints").iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path / "run")


def test_what_is_written_is_read(run: Run) -> None:
    again = Run(run.path)
    assert again.config == Train() and again.data["classes"] == ["a", "b"] and not again.finished
    assert again.split.labeled.tolist() == [0, 1, 2, 3] and again.metrics() == [] and again.checkpoints() == []
    save(run, 4)
    checkpoint = again.checkpoint()
    assert checkpoint.step == 4 and not checkpoint.best
    assert checkpoint.meta()["world"] == 1 and checkpoint.meta()["step"] == 4
    for which, weights in WEIGHTS.items():
        found = checkpoint.weights(which)
        assert found.keys() == weights.keys() and all(torch.equal(found[k], weights[k]) for k in weights)
    state = checkpoint.state()
    assert state["count"] == 3 and torch.equal(state["optimizer"]["buffers"][0], torch.ones(2))
    run.finish({"accuracy": 3.0})
    assert again.finished and again.result == {"accuracy": 3.0}


def test_weights_are_plain_safetensors(run: Run) -> None:
    """Anybody can read them: 8 bytes of length, a JSON header, then the numbers."""
    raw = (save(run, 1).path / "weights.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    start, stop = header["raw.w"]["data_offsets"]
    assert header["raw.w"]["shape"] == [2, 3] and header["raw.w"]["dtype"] == "F32"
    assert np.frombuffer(raw[8 + length :][start:stop], "<f4").tolist() == [0, 1, 2, 3, 4, 5]


def test_keeps_the_newest_and_the_best(run: Run) -> None:
    for step in (2, 4, 6, 8):
        save(run, step, keep=2)
        if step in (2, 6):
            save(run, step, best=True)
    assert listed(run) == ["best-00000006", "step-00000006", "step-00000008"]
    assert [run.checkpoint(w).path.name for w in ("last", "best", "6", "8")] == [
        "step-00000008",
        "best-00000006",
        "best-00000006",
        "step-00000008",
    ]
    save(run, 10, keep=1)
    assert listed(run) == ["best-00000006", "step-00000010"]


def test_only_the_best_is_left(run: Run) -> None:
    save(run, 3, best=True)
    assert run.checkpoint("last").step == 3
    with pytest.raises(RunError, match="has no checkpoint yet, so it cannot be resumed"):
        run.newest_good()  # the best holds no optimizer


def test_asking_for_what_is_not_kept(run: Run) -> None:
    with pytest.raises(RunError, match=r"run has no checkpoint yet$"):
        run.checkpoint()
    save(run, 2)
    save(run, 12)
    for which, end in (
        ("3", r"keeps no checkpoint '3' \(kept: 2, 12\)"),
        ("best", r"no checkpoint 'best' \(kept: 2, 12\)"),
    ):
        with pytest.raises(RunError, match=end):
            run.checkpoint(which)
    with pytest.raises(RunError, match="--checkpoint must be last, best or a step, got 'newest'"):
        run.checkpoint("newest")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *(
            (name, harm)
            for name in ("weights.safetensors", "state.pt")
            for harm in (Path.unlink, truncate, flip, empty)
        ),
        *(("meta.json", harm) for harm in (Path.unlink, truncate, empty)),
    ],
)
def test_damaged_checkpoint_is_passed_over(run: Run, name: str, harm: Callable[[Path], None]) -> None:
    save(run, 2)
    save(run, 4)
    harm(run.path / "checkpoints" / "step-00000004" / name)
    checkpoint, meta, problems = run.newest_good()
    assert checkpoint.step == meta["step"] == 2
    (problem,) = problems
    assert f"{run.path}/checkpoints/step-00000004 is " in problem and name in problem and "\n" not in problem
    harm(run.path / "checkpoints" / "step-00000002" / name)
    with pytest.raises(RunError, match=r"step-0000000. is (damaged|incomplete): "):
        run.newest_good()


@pytest.mark.parametrize(
    "content", [b"{}", b"[]", b"null", b'{"sha256": 3}', b'{"sha256": {"../../x": "0"}}', b"\xff\xfe"]
)
def test_meta_that_is_something_else(run: Run, content: bytes) -> None:
    checkpoint = save(run, 2)
    (checkpoint.path / "meta.json").write_bytes(content)
    with pytest.raises(RunError, match=r"is damaged|is incomplete"):
        checkpoint.meta()


def test_a_damaged_checkpoint_is_refused_for_use(run: Run) -> None:
    flip(save(run, 2).path / "weights.safetensors")
    with pytest.raises(RunError, match=r"step-00000002 is damaged: weights.safetensors has changed"):
        run.checkpoint().meta()


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_full_disk_while_saving_leaves_the_earlier_checkpoints(
    run: Run, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    save(run, 2)
    save(run, 4)
    before = {p: p.read_bytes() for p in sorted((run.path / "checkpoints").rglob("*")) if p.is_file()}
    written, real = 0, files.write_bytes

    def write(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > calls:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(files, "write_bytes", write)
    with pytest.raises(RunError) as caught:
        save(run, 6)
    assert str(caught.value) == (
        f"could not save the checkpoint of step 6 to {run.path}/checkpoints/step-00000006: No space left on device; "
        "the last good checkpoint is step 4"
    )
    after = {p: p.read_bytes() for p in sorted((run.path / "checkpoints").rglob("*")) if p.is_file()}
    assert after == before and run.newest_good()[0].step == 4


def save_under_a_limit(path: Path, answer: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
    try:
        save(Run(path), 6)
    except RunError as error:
        os.write(os.open(answer, os.O_CREAT | os.O_WRONLY), str(error).encode()[:400])
        os._exit(0)
    os._exit(1)


def test_real_file_size_limit(run: Run, tmp_path: Path) -> None:
    """The kernel itself refuses, in a child process of ours."""
    save(run, 4)
    answer = tmp_path / "answer"
    child = multiprocessing.get_context("fork").Process(target=save_under_a_limit, args=(run.path, answer))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert "File too large; the last good checkpoint is step 4" in answer.read_text()
    assert listed(run) == ["step-00000004"] and run.newest_good()[0].step == 4


def test_litter_of_a_killed_save_is_no_checkpoint(run: Run) -> None:
    save(run, 2)
    shutil.copytree(run.path / "checkpoints/step-00000002", run.path / "checkpoints/.step-00000004.tmp")
    (run.path / "checkpoints" / "notes.txt").write_text("mine")
    assert [c.step for c in run.checkpoints()] == [2]


def test_half_a_line_of_metrics_is_left_out(run: Run) -> None:
    (run.path / "metrics.jsonl").write_text('{"kind": "log", "step": 1}\n{"kind": "eval", "step": 2}\n{"kind": "ev')
    assert [r["step"] for r in run.metrics()] == [1, 2] and [r["step"] for r in run.metrics("eval")] == [2]


def test_an_existing_folder_is_never_overwritten_unasked(run: Run, tmp_path: Path) -> None:
    save(run, 2)
    with pytest.raises(RunError, match=r"run exists and is not empty; name another --out, or add --overwrite"):
        make(run.path)
    assert listed(run) == ["step-00000002"]
    other = tmp_path / "letters"
    other.mkdir()
    (other / "love.txt").write_text("dear")
    with pytest.raises(RunError, match=r"is not a run folder .* so --overwrite leaves it"):
        Run.check_free(other, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="a file of that name exists"):
        Run.check_free(tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty").checkpoints() == []


def test_overwrite_removes_the_old_run(run: Run) -> None:
    save(run, 2)
    run.finish({})
    Run.check_free(run.path, overwrite=True)
    config, split = run.config, run.split
    again = Run.create(run.path, config, split, run.data, overwrite=True)
    assert not again.finished and again.checkpoints() == []


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError) as caught:
        make(tmp_path / "a" / "run")
    assert str(caught.value) == f"cannot write the run folder {tmp_path}/a/run: Permission denied"


def test_killed_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written when the power went, `--overwrite` takes the folder."""
    real = files.write_file

    def once(path: Path, data: bytes) -> None:
        real(path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_file", once)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(RunError, match="has no checkpoint yet, so it cannot be resumed"):
        Run(tmp_path / "run").newest_good()
    Run.check_free(tmp_path / "run", overwrite=True)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run folder .*/nothing$"):
        Run(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"is not a run folder: it has no config.json$"):
        Run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "[]", "config.json holds no JSON object"),
        ("config.json", "{}", "config.json holds no training configuration"),
        ("config.json", '{"train": {"stepz": 1}}', "the configuration has no setting 'stepz'; did you mean steps?"),
        ("config.json", "\udcff", "config.json cannot be read"),
        ("data.json", "{}", "data.json does not describe the data of a run"),
        ("data.json", "[]", "data.json holds no JSON object"),
        ("data.json", None, "is incomplete: data.json is missing"),
        ("split.json", "{}", "split.json is damaged: this is not the JSON of a split"),
        ("split.json", "\udcff", "split.json cannot be read: it is not UTF-8"),
        ("split.json", None, "is incomplete: split.json is missing"),
    ],
)
def test_damaged_parts_of_a_run(run: Run, name: str, content: str | None, sentence: str) -> None:
    if content is None:
        (run.path / name).unlink()
    else:
        (run.path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError) as caught:
        getattr(Run(run.path), name.removesuffix(".json"))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_changed_split_is_noticed(run: Run) -> None:
    split = json.loads((run.path / "split.json").read_text())
    split["labeled"][0] = 4
    (run.path / "split.json").write_text(json.dumps(split))
    with pytest.raises(RunError, match=r"split.json is damaged: the split was changed after it was written"):
        _ = run.split


def test_names_of_run_folders(tmp_path: Path) -> None:
    assert run_name(Train(data=Data("cifar10.3@250-1"), seed=5)) == "cifar10.3@250-1-fixmatch-s5"
    assert run_name(Train(data=Data("some/photos/"), algorithm=fl.MixMatch())) == "photos-mixmatch-s1"
    assert free_folder(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free_folder(tmp_path, "a") == tmp_path / "a-3"


def test_state_with_foreign_objects_is_not_unpickled(run: Run) -> None:
    """A checkpoint from somebody else cannot run code: torch.load(weights_only=True)."""
    checkpoint = save(run, 2)

    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, ("true",))

    torch.save({"optimizer": Evil()}, checkpoint.path / "state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.?only"):
        checkpoint.state()
