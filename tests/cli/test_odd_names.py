"""Names of classes and files that are markup, escapes, formulas or no UTF-8 stay text wherever they are written."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewlabels as fl
from fewlabels.runtime.cells import cell
from fewlabels.runtime.files import csv_text, write_json

# a class, and how it is shown to a person
CLASSES = {
    "=1+1": "=1+1",
    "nut [b] [:x": "nut [b] [:x",
    "[@click=f]y": "[@click=f]y",
    ":cat:": ":cat:",
    "\x1b[31mred": "\\x1b[31mred",
    "\x9b2J": "\\x9b2J",
    "two\nlines": "two\\nlines",
    "\u202etxt": "\\u202etxt",
    os.fsdecode(b"gr\xfcn"): "gr\\xfcn",
    "-5": "-5",
    "'quoted": "'quoted",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd") / os.fsdecode(b"pict\xfcres")
    for i, name in enumerate(CLASSES):
        for part in ("labeled", "test"):
            try:
                (root / part / name).mkdir(parents=True)
            except OSError:
                pytest.skip("this file system has no such names")
            Image.new("RGB", (8, 8), (20 * i, 255 - 20 * i, 0)).save(root / part / name / f"{i}.png")
    shutil.copy(root / "test" / ":cat:" / "3.png", root / "test" / ":cat:" / os.fsdecode(b"\xff=.png"))
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, command: Callable[..., Any]) -> Path:
    small = "--net small-4 --batch 4 --uratio 1 --steps 2 --no-progress".split()  # noqa: SIM905
    said = command("train", "--data", f"{pictures}/", *small, "--out", pictures.parent / "run")
    assert said.code == 0 and steers(said.out + said.err) == ""
    return pictures.parent / "run"


def steers(text: str) -> str:
    """The characters of a text that are no text."""
    return "".join(c for c in text if c != "\n" and not c.isprintable())


@pytest.mark.slow
def test_evaluate(run: Path, command: Callable[..., Any]) -> None:
    said = command("evaluate", run)
    assert said.code == 0 and steers(said.out) == ""
    for i, shown in enumerate(CLASSES[name] for name in sorted(CLASSES)):
        assert f"{shown} ({i}) " in said.out
    result = json.loads(command("evaluate", run, "--json").out)
    assert set(result["per_class"]) == set(CLASSES)


def test_tensorboard_and_records(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = {tag.removeprefix("test/ema/class/") for tag in events.Tags()["scalars"]}
    assert set(CLASSES.values()) <= tags
    assert json.loads((run / "data.json").read_text())["classes"] == sorted(CLASSES)
    assert set(fl.Run(run).metrics("eval")[-1]["test"]["ema"]["per_class"]) == set(CLASSES)


def plain(text: str) -> str:
    """What docs/cli.md says to do with a cell."""
    return text.removeprefix("'")


@pytest.mark.slow
def test_predict(run: Path, pictures: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    inside = sorted(str(p) for p in (pictures / "test").rglob("*.png"))
    said = command("predict", run, pictures / "test", "-o", tmp_path / "out.csv", "--probabilities")
    assert said.code == 0 and steers(said.err) == "" and "accuracy over the class folders: " in said.err
    with (tmp_path / "out.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        head, *rows = csv.reader(file)
    assert list(map(plain, head)) == ["path", "label", "confidence", *sorted(CLASSES)]
    assert sorted(plain(row[0]) for row in rows) == inside
    for text in [*head, *(one for row in rows for one in row)]:
        assert not text.startswith(("=", "@", "+", "\t", "\r")) and (not text.startswith("-") or text == "-5")
    assert {plain(row[1]) for row in rows} <= set(CLASSES)
    assert command("predict", run, pictures / "test", "-o", tmp_path / "out.json").code == 0
    assert sorted(r["path"] for r in json.loads((tmp_path / "out.json").read_text())) == inside
    assert command("predict", run, pictures / "test", "-o", tmp_path / "out.npy", "--overwrite").code == 0
    names = json.loads((tmp_path / "out.json").read_text())
    assert sorted(names["paths"]) == inside and names["classes"] == sorted(CLASSES)


def test_predict_names_what_it_does_not_know(run: Path, pictures: Path, command: Callable[..., Any]) -> None:
    folder = pictures.parent / "other"
    (folder / "wolf\n\x1b[1m").mkdir(parents=True)
    (folder / "wolf\n\x1b[1m" / "\x07.png").write_bytes(b"no picture")
    shutil.copy(pictures / "test" / "-5" / "9.png", folder / "wolf\n\x1b[1m")
    said = command("predict", run, folder)
    assert said.code == 1 and steers(said.err) == ""
    assert "class folders that the run does not know: wolf\\n\\x1b[1m\n" in said.err
    assert f"could not read {shown_path(folder)}/wolf\\n\\x1b[1m/\\x07.png: " in said.err


def shown_path(path: Path) -> str:
    return str(path).replace("\udcfc", "\\xfc")


def test_report(run: Path, pictures: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "=run\x1b[7m[b]"
    shutil.copytree(run, target)
    said = command("report", target)
    assert said.code == 0 and steers(said.out) == "" and "=run\\x1b[7m[b]" in said.out
    (row,) = csv.DictReader(command("report", target, "--csv").out.splitlines())
    assert row["name"] == "'=run\x1b[7m[b]" and row["path"] == str(target) and row["data"] == f"{pictures}/"
    assert json.loads(command("report", target, "--json").out)["runs"][0]["data"] == f"{pictures}/"


@pytest.mark.slow
def test_display_names(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """Given as an object, a list, or numbers: the folders are known by the names that they have in the data."""
    small = "--net small-4 --batch 4 --uratio 1 --steps 2 --no-progress".split()  # noqa: SIM905
    for i, names in enumerate(
        ({"red": "cat", "blue": "dog"}, ["dog", "cat"], {"0": "dog", "1": "cat"}, {"red": "blue", "blue": "red"})
    ):
        (tmp_path / "names.json").write_text(json.dumps(names))
        run = tmp_path / f"run{i}"
        assert (
            command(
                "train", "--data", f"{photos}/", "--data.classes", tmp_path / "names.json", *small, "--out", run
            ).code
            == 0
        )
        (tmp_path / "names.json").unlink()  # the run knows them
        said = command("predict", run, photos / "test", "-o", run / "out.json")
        records = json.loads((run / "out.json").read_text())
        shown = {"blue": "red", "red": "blue"} if i == 3 else {"blue": "dog", "red": "cat"}
        right = [r["label"] == shown[Path(r["path"]).parent.name] for r in records]
        assert (
            f"accuracy over the class folders: {100 * sum(right) / 8:.2f} %" in said.err and "not know" not in said.err
        )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        *((same, same) for same in ("", "cat", "a=b", "-", "+", "-1", "+2.5", "-1e-3", "1-2", " =x", "0'")),
        *(
            (text, f"'{text}")
            for text in ("=1+1", "+1+1", "-1+1", "@x", "\tx", "\rx", "'x", "'=x", "-x", "--", "-1 cm")
        ),
        (None, ""),
        (-0.5, "-0.5"),
    ],
)
def test_cells(text: object, written: str) -> None:
    assert cell(text) == written
    assert text is None or plain(written) == str(text)


def test_rows_of_a_table_can_be_read_again() -> None:
    rows = [["a,b", 'say "x"', "two\nlines", "=x", "1"], ["", "Bär", "\udcff", "x", "-1"]]
    assert [list(map(plain, row)) for row in csv.reader(csv_text(rows).splitlines(keepends=True))] == rows


def test_json_of_names_that_are_no_utf_8(tmp_path: Path) -> None:
    value = {os.fsdecode(b"\xff"): ["Bär", "\\udcff", os.fsdecode(b"a\\\xfe")]}
    write_json(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == value
    assert "Bär" in (tmp_path / "x.json").read_text("utf-8")
