"""`fewlabels predict --shard` and `--check`: every picture in exactly one part, whatever was there before."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels.inference.shards import Shard


@pytest.fixture(scope="module")
def many(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-three pictures in three folders, of which two cannot be read; odd names among them."""
    root = tmp_path_factory.mktemp("many") / "pictures"
    odd = {3: "=1+1.png", 8: "two\nlines.png", 9: "re\rturn.png", 14: "'quoted.png", 15: os.fsdecode(b"gr\xfcn.png")}
    for i in range(23):
        path = root / "abc"[i % 3] / odd.get(i, f"{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "test" / ("red", "blue")[i % 2] / f"{i % 4}.png", path)
        if i in (5, 16):
            path.write_bytes(b"nonsense")
    return root


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [[text.removeprefix("'") for text in row] for row in csv.reader(file)]


def parts(folder: Path) -> list[list[str]]:
    return [row for path in sorted(folder.glob("*-part-*.csv")) for row in table(path)[1:]]


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told(folder: Path, number: int, of: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"shard-{number}-of-{of}.json").read_text())
    return found


@pytest.fixture
def shard(photo_run: Any, many: Path, command: Callable[..., Any]) -> Callable[..., Any]:
    def run(which: str, out: Path, *options: object, pictures: Any = many) -> Any:
        return command(
            *("predict", photo_run.path, *([pictures] if isinstance(pictures, Path) else pictures)),
            *("--shard", which, "-o", out, "--part-rows", 3, *options),
        )

    return run


@pytest.mark.slow
def test_the_parts_are_the_table(
    photo_run: Any, many: Path, command: Callable[..., Any], shard: Callable[..., Any], tmp_path: Path
) -> None:
    """Each row once, as one table has it; each shard has the pictures that the documented hash gives it."""
    out, options = tmp_path / "out", ("--probabilities", "--top", 1, "--threshold", 0.9)
    for i in (2, 1, 3):
        said = shard(f"{i}/3", out, *options)
        bad = len(table(out / f"shard-{i}-of-3-unreadable.csv")) - 1 if said.code else 0
        assert said.code == bool(bad) and said.out == ""
    assert command("predict", photo_run.path, many, *options, "-o", tmp_path / "all.csv").code == 1
    head, *rows = table(tmp_path / "all.csv")
    near = sorted(parts(out))
    assert [row[:2] for row in near] == [row[:2] for row in sorted(rows)]
    for mine, theirs in zip(near, sorted(rows), strict=True):  # another batch may round otherwise
        assert [float(x) for x in mine[2:3]] == pytest.approx([float(x) for x in theirs[2:3]], abs=2e-6)
    for i in (1, 2, 3):
        for number, path in enumerate(sorted(out.glob(f"shard-{i}-of-3-part-*.csv")), 1):
            assert path.name == f"shard-{i}-of-3-part-{number:05}.csv" and len(table(path)) <= 4
            assert table(path)[0] == head
            for row in table(path)[1:]:
                digest = hashlib.sha256(os.fsencode(os.path.relpath(row[0], many))).hexdigest()
                assert int(digest[:16], 16) % 3 == i - 1
    unreadable = [row for path in out.glob("*-unreadable.csv") for row in table(path)[1:]]
    assert sorted(Path(row[1]).name for row in unreadable) == ["16.png", "5.png"]
    said = command("predict", "--check", out)
    count = len(list(out.glob("*-part-*.csv")))
    unsure = sum(row[1] == "unsure" for row in rows)
    assert (said.code, said.out) == (
        0,
        f"each of 23 pictures stands in exactly one of {count} part(s) of 3 shard(s), or once among the 2 that could "
        f"not be read; {unsure} are unsure\n",
    )
    assert not list(out.glob(".*"))  # no lock and no half of a file


@pytest.mark.slow
def test_again_and_after_a_loss(shard: Callable[..., Any], command: Callable[..., Any], tmp_path: Path) -> None:
    """Parts that are there stay as they are, also what somebody marked in them; one that is gone is made anew."""
    out = tmp_path / "out"
    first = shard("1/1", out)
    assert first.code == 1 and first.err.splitlines()[-2:] == [
        f"shard 1/1: 23 of 23 pictures in 8 part(s), in {out}",
        f"fewlabels: 2 file(s) could not be read: {out}/shard-1-of-1-unreadable.csv",
    ]
    before = everything(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*-part-*.csv")}
    again = shard("1/1", out)
    assert again.code == 1 and "23 of 23 pictures in 8 part(s), 8 of which were there, in" in again.err
    assert everything(out) == before
    (lost,) = out.glob("*-part-00003.csv")
    lost.unlink()
    (out / f".{lost.name}.tmp").write_bytes(b"half of a")
    said = command("predict", "--check", out)
    assert (said.code, said.out) == (1, "")
    assert said.sentence == f"shard 1/1 lacks 1 of its 8 parts ({lost.name}): run the same command again"
    assert "8 part(s), 7 of which were there" in shard("1/1", out).err
    assert everything(out) == before
    assert {n: t for n, t in times.items() if n != lost.name} == {
        path.name: path.stat().st_mtime_ns for path in out.glob("*-part-*.csv") if path != lost
    }
    assert command("predict", "--check", out).code == 0


@pytest.mark.slow
def test_what_a_killed_process_listed_of_a_part_that_is_not_there(
    shard: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    """It died between the list of unreadable pictures and the part's own rename: the list is made of the parts."""
    out = tmp_path / "out"
    shard("1/1", out)
    before = everything(out)
    listed = out / "shard-1-of-1-unreadable.csv"
    number, *_ = table(listed)[1]
    (out / f"shard-1-of-1-part-{int(number):05}.csv").unlink()
    with listed.open("a") as file:
        file.write(f"{number},not/there.png,of a former life\n")
    assert shard("1/1", out).code == 1 and everything(out) == before
    assert command("predict", "--check", out).code == 0


@pytest.mark.slow
def test_other_pictures_or_settings_are_refused(
    shard: Callable[..., Any], many: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one = (many / "a", many / "b")
    shard("1/2", out, pictures=one)
    before = everything(out)
    n = len([p for folder in one for p in folder.iterdir()])
    less = sorted(p for folder in one for p in folder.iterdir())[1:]
    for which in ("1/2", "2/2"):  # also another shard's
        for options, pictures, clause in (
            (
                (),
                (many / "a",),
                f"the list of pictures is another one ({len(list((many / 'a').iterdir()))} now, and {n} then)",
            ),
            ((), (*less, photos / "test" / "red" / "0.png"), f"the list of pictures is another one ({n} as then)"),
            (("--part-rows", 4), one, "--part-rows is 4 now, and was 3"),
            (("--top", 2), one, "--top is 2 now, and was None"),
            (("--threshold", 0.7), one, "--threshold is 0.7 now, and was None"),
            (("--probabilities",), one, "--probabilities is True now, and was False"),
            (("--max-pixels", 9), one, "how pictures are read (--max-pixels) is "),
            (("--checkpoint", 20), one, "the step of the checkpoint is 20 now, and was 40"),
            (("--weights", "raw"), one, "--weights is raw now, and was ema"),
        ):
            said = shard(which, out, *options, pictures=pictures)
            assert said.code == 2 and said.sentence.startswith(f"{out} was begun otherwise: {clause}"), said.err
            assert said.sentence.endswith("; name another folder")
    assert "the number of shards is 3 now, and was 2" in shard("1/3", out, pictures=one).sentence
    whole = tmp_path / "whole"
    shard("1/2", whole)
    said = shard("1/2", whole, pictures=(many / "a", many / "b", many / "c"))
    assert "the same pictures are named by other folders, and so divided otherwise" in said.sentence
    assert everything(out) == before
    # the same pictures in another order are the same list
    assert "were there" in shard("1/2", out, pictures=one[::-1]).err


def test_a_picture_that_is_named_twice(shard: Callable[..., Any], many: Path, tmp_path: Path) -> None:
    said = shard("1/2", tmp_path / "out", pictures=(many, many / "a" / "0.png"))
    assert said.code == 2 and not (tmp_path / "out").exists()
    assert said.sentence == f"{many}/a/0.png is named twice, and each picture must stand in one part"


@pytest.mark.slow
def test_a_list_in_shards(
    shard: Callable[..., Any], many: Path, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the paths as they are written; more shards than pictures leave some without any."""
    names = sorted(str(p) for p in (many / "b").iterdir())[:3]
    for i in range(1, 6):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
        said = shard(f"{i}/5", tmp_path / "out", pictures=("-",))
        assert f"shard {i}/5: " in said.err
        mine = {row[0] for path in (tmp_path / "out").glob(f"shard-{i}-*-part-*.csv") for row in table(path)[1:]}
        assert mine <= {x for x in names if Shard(i, 5).has(x)}
    said = command("predict", "--check", tmp_path / "out")
    assert said.code == 0 and said.out.startswith("each of 3 pictures stands in exactly one of ")


@pytest.mark.slow
def test_a_part_that_was_changed(
    shard: Callable[..., Any], command: Callable[..., Any], many: Path, tmp_path: Path
) -> None:
    """Whatever is taken from a part, put into it or altered is found by the check and by the next command."""
    out = tmp_path / "out"
    assert shard("1/1", out, pictures=(many / "a",)).code == 0
    path = out / "shard-1-of-1-part-00001.csv"
    whole = path.read_bytes()
    lines = whole.decode().splitlines(keepends=True)
    other = (out / "shard-1-of-1-part-00002.csv").read_text().splitlines(keepends=True)[1]
    for changed in (
        "".join(lines[:-1]),
        "".join([*lines, lines[-1]]),
        "".join([*lines[:-1], other]),
        "".join([lines[0], *lines[2:], lines[1]]).replace("path,", "name,"),
        whole.decode()[:-30],
        whole.decode().replace(",red,", ",green,").replace(",blue,", ",green,"),
        "",
    ):
        path.write_text(changed)
        said = command("predict", "--check", out)
        assert (said.code, said.out) == (1, "") and said.sentence, changed
        again = shard("1/1", out, pictures=(many / "a",))
        assert again.code == 2 and again.sentence.endswith("; remove the file to have it written again"), changed
        assert path.read_text() == changed
    path.write_bytes(whole)
    assert command("predict", "--check", out).code == 0
    path.unlink()
    os.mkfifo(path)
    assert command("predict", "--check", out).sentence == f"{path} is no regular file"
    assert "is no regular file; remove" in shard("1/1", out, pictures=(many / "a",)).sentence
    path.unlink()
    path.write_bytes(whole)
    shutil.copy(path, out / "shard-1-of-1-part-00009.csv")
    assert "is no part of shard 1/1, which has 3" in command("predict", "--check", out).sentence


@pytest.mark.slow
def test_shards_that_do_not_fit(
    shard: Callable[..., Any], command: Callable[..., Any], many: Path, tmp_path: Path
) -> None:
    """Of another list, put into the folder by hand."""
    shard("1/2", tmp_path / "one", pictures=(many / "a",))
    said = command("predict", "--check", tmp_path / "one")
    assert said.code == 1 and said.sentence == f"shard 2/2 has not begun in {tmp_path}/one"
    shard("2/2", tmp_path / "two", pictures=(many / "b",))
    for path in (tmp_path / "two").iterdir():
        shutil.copy(path, tmp_path / "one")
    said = command("predict", "--check", tmp_path / "one")
    assert said.code == 1 and "shards 1 and 2 of" in said.sentence and "the list of pictures" in said.sentence
    # a manifest with a stranger's digest of all
    facts = told(tmp_path / "one", 1, 2)
    other = {**facts, **{k: told(tmp_path / "one", 2, 2)[k] for k in ("shard", "own", "own_digest")}}
    (tmp_path / "one" / "shard-2-of-2.json").write_text(json.dumps(other))
    said = command("predict", "--check", tmp_path / "one")
    assert said.code == 1 and "together are not those of the list" in said.sentence


def test_a_folder_that_is_not_ours(shard: Callable[..., Any], many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "shard-1-of-1-part-00002.csv").write_text("mine")
    said = shard("1/1", out)
    assert said.code == 2 and said.sentence.endswith(
        "shard-1-of-1-part-00002.csv is there without shard-1-of-1.json, which says what it is: name another folder"
    )
    (out / "shard-1-of-1.json").write_text("{}")
    assert shard("1/1", out).sentence == f"{out}/shard-1-of-1.json is no manifest of a shard: name another folder"
    assert (out / "shard-1-of-1-part-00002.csv").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    assert shard("1/1", tmp_path / "file").sentence == f"{tmp_path}/file is a file; --shard writes a folder of parts"


@pytest.mark.slow
def test_one_process_at_a_time(shard: Callable[..., Any], many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    handle = os.open(out / ".shard-1-of-2.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    said = shard("1/2", out)
    assert said.code == 2 and said.sentence == f"shard 1/2 in {out} is being written by another process"
    assert shard("2/2", out).err  # the other shard is free
    os.close(handle)
    assert "shard 1/2: " in shard("1/2", out).err


@pytest.mark.slow
def test_calibrated_parts(digits_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    words = ("predict", digits_run.path, photos / "test", "--shard", "1/1", "-o", tmp_path / "out")
    said = command(*words, "--calibrate")
    assert said.code == 0 and said.err.startswith("confidences are calibrated: temperature ")
    assert f"temperature {told(tmp_path / 'out', 1, 1)['temperature']:.4f}" in said.err
    whole = command("predict", digits_run.path, photos / "test", "--calibrate").out.splitlines()
    assert sorted((tmp_path / "out" / "shard-1-of-1-part-00001.csv").read_text().splitlines()) == sorted(whole)
    assert "confidences are not calibrated now, and were" in command(*words).sentence


@pytest.mark.slow
def test_a_full_disk(
    shard: Callable[..., Any], command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", os.fsync
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 7:
            raise OSError(28, os.strerror(28))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    said = shard("1/1", out)
    assert said.code == 1 and said.sentence.endswith(": No space left on device")
    assert not list(out.glob(".*.tmp")) and not list(out.glob(".*.lock"))
    monkeypatch.undo()
    assert "were there" in shard("1/1", out).err and command("predict", "--check", out).code == 0
