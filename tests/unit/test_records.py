"""Files of a run folder that were changed, swapped or replaced: one sentence, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.runs import records
from fewlabels.runs.records import RunError
from fewlabels.runs.report import DamagedRun, read
from fewlabels.runs.run import Run
from fewlabels.runtime import regular

Command = Callable[..., Any]
Harm = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(short: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, a sister with another seed and split, and one of another net."""
    root = tmp_path_factory.mktemp("runs")
    fl.train(short(keep=3), out=root / "run")
    fl.train(short(seed=2, data=fl.Data("digits.2@40")), out=root / "sister")
    fl.train(short(net=fl.Net("small-8")), out=root / "other")
    return root


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def stop(path: Path, step: int = 8) -> None:
    """As if the run had been stopped after the checkpoint of `step`."""
    (path / "result.json").unlink(missing_ok=True)
    for checkpoint in Run(path).states():
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def put(*keys: str, value: Any) -> Harm:
    """Another value at a place of a JSON file."""

    def change(content: Any) -> Any:
        part = content
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        return content

    return lambda path: edit(path, change)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    """Of no size on the disk, and of a terabyte to read."""
    os.truncate(path, 2**40)


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def answers(command: Command, run: Path) -> dict[str, Any]:
    """What each command that opens a run has to say of a stopped one."""
    picture = run.parent / "picture.png"
    if not picture.exists():
        from PIL import Image

        Image.new("L", (8, 8)).save(picture)
    said = {
        "evaluate": command("evaluate", run),
        "predict": command("predict", run, picture),
        "report": command("report", run),
        "resume": command("train", "--resume", run),  # the last, as it goes on
    }
    for answer in said.values():
        assert "Traceback" not in answer.err and answer.code in (0, 1, 2)
    return said


ODD: tuple[Harm, ...] = (fifo, endless, folder, nowhere, deep, huge)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "data.json", "split.json", "metrics.jsonl"])
@pytest.mark.parametrize("harm", ODD, ids=lambda harm: harm.__name__)
def test_what_is_no_file_is_refused(command: Command, runs: Path, name: str, harm: Harm) -> None:
    stop(runs / "run")
    harm(runs / "run" / name)
    said = answers(command, runs / "run")
    assert said["resume"].code == 2 and name in said["resume"].sentence
    assert said["evaluate"].code == 2 and name in said["evaluate"].sentence
    if name != "metrics.jsonl":
        assert said["predict"].code == 2 and name in said["predict"].sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("config.json", put("train", "optim", "lr", value=0.5)),
        ("config.json", put("train", "steps", value=13)),
        ("config.json", put("train", "seed", value=9)),
        ("config.json", put("train", "algorithm", value={"name": ["fixmatch"]})),
        ("data.json", put("mean", value=[0.9])),
        ("data.json", put("classes", value=list("9876543210"))),
        ("data.json", put("shape", value=[1, 8])),
        ("data.json", put("shape", value=None)),
        ("data.json", put("std", value=[None])),
        ("data.json", put("classes", value=3)),
        ("split.json", put("parameters", value=1.5)),
        ("split.json", put("labeled", value=[[1]])),
    ],
)
def test_checkpoints_do_not_serve_a_run_that_was_changed(command: Command, runs: Path, name: str, harm: Harm) -> None:
    stop(runs / "run")
    harm(runs / "run" / name)
    said = answers(command, runs / "run")
    for which in ("resume", "evaluate", "predict"):
        assert said[which].code == 2 and name in said[which].sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["split.json", "config.json"])
def test_files_of_a_sister(command: Command, runs: Path, name: str) -> None:
    stop(runs / "run")
    shutil.copy(runs / "sister" / name, runs / "run" / name)
    said = answers(command, runs / "run")
    for which in ("resume", "evaluate", "predict"):
        assert said[which].code == 2 and "does not belong to" in said[which].sentence and name in said[which].sentence


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["sister", "other"])
def test_checkpoints_of_another_run(command: Command, runs: Path, whose: str) -> None:
    stop(runs / "run")
    shutil.rmtree(runs / "run" / "checkpoints")
    shutil.copytree(runs / whose / "checkpoints", runs / "run" / "checkpoints")
    said = answers(command, runs / "run")
    for which in ("resume", "evaluate", "predict"):
        assert said[which].code == 2 and said[which].sentence.startswith(f"checkpoint {runs}/run/checkpoints/")
        assert "does not belong to" in said[which].sentence
    with pytest.raises(RunError, match="does not belong to"):
        fl.load(runs / "run")
    with pytest.raises(RunError, match="does not belong to"):
        fl.resume(runs / "run")


@pytest.mark.slow
def test_the_folder_may_be_moved_and_the_free_settings_changed(command: Command, runs: Path) -> None:
    stop(runs / "run")
    (runs / "run").rename(runs / "moved")
    put("train", "keep", value=7)(runs / "moved" / "config.json")
    put("train", "device", value="cpu")(runs / "moved" / "config.json")
    assert {a.code for a in answers(command, runs / "moved").values()} == {0}


@pytest.mark.parametrize(
    "harm",
    [
        put("sha256", value={}),
        put("sha256", "weights.safetensors", value="0" * 64),
        put("step", value=3),
        put("world", value=2),
        put("world", value="x"),
        put("run", value={}),
        put("run", value=3),
        put("seal", value=None),
        put("bytes", value={}),
        put("records", value={"bytes": -1, "sha256": ""}),
        lambda path: path.write_text("[1]"),
        fifo,
        endless,
        folder,
        deep,
    ],
)
def test_meta_is_sealed(runs: Path, harm: Harm) -> None:
    stop(runs / "run")
    checkpoint = Run(runs / "run").checkpoint()
    harm(checkpoint.path / "meta.json")
    with pytest.raises(RunError, match=r"step-00000008 is (damaged|incomplete)"):
        checkpoint.meta()
    assert Run(runs / "run").newest_good()[0].step == 4


def test_every_byte_of_meta_counts(runs: Path) -> None:
    checkpoint = Run(runs / "run").checkpoint()
    meta, step = checkpoint.path / "meta.json", 7
    content = meta.read_bytes()
    for place in range(0, len(content), step):
        changed = bytearray(content)
        changed[place] ^= 1
        if changed[place : place + 1].isspace() and content[place : place + 1].isspace():
            continue  # JSON does not mind
        meta.write_bytes(changed)
        with pytest.raises(RunError):
            checkpoint.meta()


def test_a_checkpoint_under_another_name(runs: Path) -> None:
    stop(runs / "run")
    checkpoints = runs / "run" / "checkpoints"
    (checkpoints / "step-00000008").rename(checkpoints / "step-00000011")
    with pytest.raises(RunError, match="is damaged: it was renamed from step-00000008"):
        Run(runs / "run").checkpoint().meta()


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_version(command: Command, runs: Path) -> None:
    stop(runs / "run")
    for meta in (runs / "run" / "checkpoints").glob("*/meta.json"):
        edit(meta, lambda content: {k: content[k] for k in ("step", "world", "split", "sha256")})
    said = answers(command, runs / "run")
    for which in ("resume", "evaluate", "predict"):
        assert said[which].code == 2
        assert said[which].sentence.endswith("go on with that version, or train the run again")
    assert said["report"].code == 0


@pytest.mark.slow
@pytest.mark.parametrize("form", [None, 1, 3, "2", [], True])
def test_a_checkpoint_with_weights_in_another_format(command: Command, runs: Path, form: Any) -> None:
    """Of the net alone, as before models had heads; or of a version that is yet to come."""
    stop(runs / "run")
    for path in (runs / "run" / "checkpoints").iterdir():
        content = json.loads((path / "meta.json").read_text())
        assert content["format"] == 2
        kept = {k: v for k, v in content.items() if k not in ("format", "run", "seal")}
        whole = kept if form is None else {**kept, "format": form}
        (path / "meta.json").write_text(json.dumps(records.sealed(whole, content["run"])))
    said = answers(command, runs / "run")
    for which in ("resume", "evaluate", "predict"):
        assert said[which].code == 2
        assert said[which].sentence.endswith(
            f"is of another version of fewlabels, with weights in format {1 if form is None else form!r}, which must "
            "be 2 here: go on with that version, or train the run again"
        )
    assert said["report"].code == 0


def reseal(path: Path, name: str, data: bytes) -> None:
    """What somebody makes who knows how: a part that is foreign under seals that hold."""
    import hashlib

    (path / name).write_bytes(data)
    content = json.loads((path / "meta.json").read_text())
    content["sha256"][name], content["bytes"][name] = hashlib.sha256(data).hexdigest(), len(data)
    whole = {k: v for k, v in content.items() if k not in ("run", "seal")}
    (path / "meta.json").write_text(json.dumps(records.sealed(whole, content["run"])))


def saved(value: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def changed(*keys: Any, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        part: Any = state
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        return state

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda state: [1],
        lambda state: {},
        lambda state: torch.zeros(3),
        lambda state: {k: v for k, v in state.items() if k != "sums"},
        changed("count", value="x"),
        changed("sums", value={"loss": torch.zeros(3)}),
        changed("sums", value={"loss": "x"}),
        changed("algorithm", value={"strange": torch.zeros(3)}),
        changed("views", value=[]),
        changed("optimizer", value={}),
        changed("optimizer", "param_groups", value=[]),
        changed("optimizer", "state", 0, value={"momentum_buffer": torch.zeros(7, 7)}),
    ],
)
def test_state_that_is_another_ones(command: Command, runs: Path, change: Callable[[Any], Any]) -> None:
    stop(runs / "run", 4)
    checkpoint = Run(runs / "run").checkpoint()
    reseal(checkpoint.path, "state.pt", saved(change(checkpoint.state())))
    said = command("train", "--resume", runs / "run")
    assert said.code == 2 and f"{checkpoint.path}" in said.sentence


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"nonsense" * 100, b"\x80\x04N.", saved({})[:-30]])
def test_bytes_that_are_no_state(command: Command, runs: Path, data: bytes) -> None:
    stop(runs / "run", 4)
    checkpoint = Run(runs / "run").checkpoint()
    for name in ("state.pt", "weights.safetensors"):
        reseal(checkpoint.path, name, data)
        said = command("train", "--resume", runs / "run")
        assert said.code == 2 and said.sentence.startswith(f"checkpoint {checkpoint.path} is damaged: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {k: v for k, v in w.items() if not k.endswith(".bias")}, "and is nothing"),
        (lambda w: {**w, "ema.extra": torch.zeros(1)}, "extra must be nothing"),
        (lambda w: {k: v[..., None] for k, v in w.items()}, "must be"),
        (lambda w: {k: v.double() for k, v in w.items()}, "and is float64"),
        (lambda w: {k: v for k, v in w.items() if k.startswith("raw.")}, "and is nothing"),
    ],
)
def test_weights_that_are_another_nets(command: Command, runs: Path, change: Callable[[Any], Any], words: str) -> None:
    from safetensors.torch import load, save

    checkpoint = Run(runs / "run").checkpoint()
    weights = load((checkpoint.path / "weights.safetensors").read_bytes())
    reseal(checkpoint.path, "weights.safetensors", save(change(weights)))
    with pytest.raises(RunError, match=r"^the ema weights of checkpoint \S+ do not fit the run: ") as caught:
        fl.load(runs / "run")
    assert words in str(caught.value)
    assert command("evaluate", runs / "run").code == 2


# ---- what was recorded


def cut(number: int) -> Harm:
    def harm(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[number] = lines[number][:10] + b"\n"
        path.write_bytes(b"".join(lines))

    return harm


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def passwords(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def line(text: str) -> Harm:
    return lambda path: path.write_text(f"{text}\n{path.read_text()}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [cut(0), cut(-2), Path.unlink, zeros, passwords, nowhere, folder, line("[1]"), line('{"kind": "log"}'), line("")],
)
@pytest.mark.parametrize("done", [True, False])
def test_lines_that_have_changed(command: Command, runs: Path, harm: Harm, done: bool) -> None:
    run = runs / "run"
    if not done:
        stop(run)
    before = fl.load(run).model.step
    harm(run / "metrics.jsonl")
    said = answers(command, run)
    assert said["evaluate"].code == 2 and "metrics.jsonl" in said["evaluate"].sentence
    assert said["report"].code == 1 and "metrics.jsonl" in said["report"].err
    assert said["predict"].code == 0
    if done:
        assert said["resume"].code == 2 and "metrics.jsonl" in said["resume"].err
    elif said["resume"].code:  # else the line was one that the newest state does not rely on, and is made again
        assert "metrics.jsonl" in said["resume"].sentence and Run(run).checkpoint().step == before
    else:
        assert read(run).row["finished"] and len(Run(run).metrics()) == 6


@pytest.mark.slow
def test_a_line_that_one_checkpoint_alone_relies_on(command: Command, runs: Path, made: Path) -> None:
    """Lost with the newest state's last line are the steps of that state, and nothing else."""
    run = runs / "run"
    stop(run)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    steps = [json.loads(one)["step"] for one in lines]
    (run / "metrics.jsonl").write_bytes(b"".join(lines[: steps.index(6)]))
    said = command("train", "--resume", run)
    assert said.code == 0 and "metrics.jsonl has changed since step-00000008 was written" in said.out
    assert "going on from step 4 instead" in said.out
    same = [
        [{k: v for k, v in r.items() if not k.endswith("_ms")} for r in Run(p).metrics()] for p in (run, made / "run")
    ]
    assert same[0] == same[1] and len(same[0]) == 6
    assert (run / "checkpoints" / "unused-step-00000008").is_dir()


def test_metrics_of_a_sister(runs: Path) -> None:
    shutil.copy(runs / "sister" / "metrics.jsonl", runs / "run" / "metrics.jsonl")
    with pytest.raises(DamagedRun, match=r"metrics.jsonl has changed since result.json was written"):
        read(runs / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_text("[1]"),
        lambda path: path.write_text("{}"),
        put("accuracy", value=99.9),
        put("seed", value=5),
        lambda path: edit(path, lambda content: {k: v for k, v in content.items() if k != "last20"}),
        lambda path: edit(path, lambda content: {k: v for k, v in content.items() if k != "seal"}),
        lambda path: shutil.copy(path.parent.parent / "sister" / "result.json", path),
        folder,
        fifo,
        nowhere,
    ],
)
def test_result_that_is_another_one(command: Command, runs: Path, harm: Harm) -> None:
    harm(runs / "run" / "result.json")
    said = answers(command, runs / "run")
    assert said["resume"].code == 2 and "result.json" in said["resume"].sentence
    assert said["evaluate"].code == 2 and "result.json" in said["evaluate"].sentence
    assert said["report"].code == 1 and "result.json" in said["report"].err


# ---- other files that a user names


@pytest.mark.parametrize("harm", [fifo, endless, folder, nowhere, deep, huge], ids=lambda harm: harm.__name__)
def test_files_that_are_named_on_the_command_line(command: Command, tmp_path: Path, harm: Harm) -> None:
    path = tmp_path / "file.json"
    path.write_text("{}")
    harm(path)
    for words in (("train", "--config"), ("train", "--data.split"), ("split", "digits", "--split")):
        said = command(*words, path, *(["--out", tmp_path / "run"] if words[0] == "train" else []))
        assert said.code == 2 and str(path) in said.sentence
    assert not (tmp_path / "run").exists()


def test_reading_at_most_so_much(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert regular.read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, and 4 are the most"):
        regular.read_bytes(tmp_path / "a", 4)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["own", "foreign"])
def test_lines_after_the_end_of_a_finished_run(command: Command, runs: Path, more: str) -> None:
    """They would change medians, and the accuracy that a report shows."""
    before = command("report", runs / "run", "--csv").out
    lines = (runs / ("run" if more == "own" else "sister") / "metrics.jsonl").read_bytes()
    size = (runs / "run" / "metrics.jsonl").stat().st_size
    with (runs / "run" / "metrics.jsonl").open("ab") as file:
        file.write(lines)
    words = f"keep its first {size:,} bytes, or train the run again"
    for args in (("evaluate", runs / "run"), ("train", "--resume", runs / "run"), ("report", runs / "run")):
        said = command(*args)
        assert said.code in (1, 2) and words in said.err and "Traceback" not in said.err
    os.truncate(runs / "run" / "metrics.jsonl", size)
    assert command("report", runs / "run", "--csv").out == before


@pytest.mark.parametrize("name", ["config.json", "data.json", "split.json"])
def test_a_report_of_a_stopped_run_whose_settings_are_another_ones(command: Command, runs: Path, name: str) -> None:
    """It would show the numbers of one training under the settings of another."""
    stop(runs / "run")
    harm = {"config.json": put("train", "net", "name", value="small-64"), "data.json": put("labeled_counts", value=[9])}
    harm.get(name, put("seed", value=7))(runs / "run" / name)
    said = command("report", runs / "run")
    assert said.code == 1 and "small-64" not in said.out
    assert f"run/checkpoints/step-00000008 does not belong to {runs}/run: {name} is not what it was" in said.err


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_the_mark_that_windows_puts_before_json(runs: Path, mark: bytes) -> None:
    path = runs / "run" / "config.json"
    path.write_bytes(mark + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(runs / "run").row["accuracy"] == Run(runs / "run").result["accuracy"]
    Run(runs / "run").checkpoint().meta()


def test_a_folder_of_somebody_else(command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not one that is no run, and a report does not leave it out without a word."""
    real_lstat, real_scandir = os.lstat, os.scandir
    closed = runs / "sister"

    def lstat(path: Any, **more: Any) -> os.stat_result:
        if Path(path).parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_lstat(path, **more)

    def scandir(path: Any = ".") -> Any:
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "scandir", scandir)
    for args in (("evaluate", closed), ("train", "--resume", closed)):
        said = command(*args)
        assert said.code == 2 and said.sentence == f"the run folder {closed} cannot be read: Permission denied"
    said = command("report", runs)
    assert (said.code, said.out) == (2, "") and said.sentence == f"{closed} cannot be read: Permission denied"
