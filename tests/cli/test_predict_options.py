"""`fewlabels predict`: lists on standard input, the most probable classes, thresholds, temperature, Parquet."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.inference.calibration import calibrate
from fewlabels.inference.model import load_predictor


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty test images of the digits as files, in folders of their classes."""
    root = tmp_path_factory.mktemp("digits-as-files")
    source = load_source(resolve_data(fl.Data("digits")))
    for i, (image, label) in enumerate(zip(source.test_images[:30], source.test_labels[:30], strict=True)):
        (root / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(root / str(label) / f"{i:02}.png")
    return root


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts a list on standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def expected(run: Any, folder: Path) -> np.ndarray:
    """Logits of the files in the order of the table."""
    files = sorted(folder.rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    return load_predictor(fl.Run(run.path)).logits(images).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_on_standard_input(
    photo_run: Any, photos: Path, command: Callable[..., Any], lists: Callable[[bytes], None], end: str
) -> None:
    names = [f"{photos}/test/red/0.png", f"{photos}/test/blue/1.png"]
    lists(end.join([names[0], "", names[1], ""]).encode())
    said = command("predict", photo_run.path, "-")
    assert said.code == 0 and [r["path"] for r in rows(said.out)] == names
    assert said.out == command("predict", photo_run.path, *names).out
    lists(names[0].encode())  # with others around, in their order
    said = command("predict", photo_run.path, names[1], "-", photos / "test" / "red" / "2.png")
    assert [r["path"] for r in rows(said.out)] == [names[1], names[0], f"{photos}/test/red/2.png"]


def test_names_with_newlines_in_a_list(
    photo_run: Any, photos: Path, command: Callable[..., Any], lists: Callable[[bytes], None], tmp_path: Path
) -> None:
    files = [tmp_path / os.fsdecode(name) for name in (b"two\nlines.png", b"re\rturn.png", b"gr\xfcn.png", b"~.png")]
    for file in files:
        try:
            file.write_bytes((photos / "test" / "red" / "0.png").read_bytes())
        except OSError:
            pytest.skip("this file system has no such names")
    lists(b"\0".join(map(os.fsencode, files)))
    assert command("predict", photo_run.path, "-", "-o", tmp_path / "out.csv").code == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["path", *map(str, files)]
    said = command("predict", photo_run.path, tmp_path, "-o", tmp_path / "out.parquet")
    if importlib.util.find_spec("pyarrow"):
        assert said.code == 2 and "is not UTF-8, and Parquet holds no other text" in said.sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "standard input names no picture: it must hold one path on each line"),
        (b"\n\r\n", "standard input names no picture: it must hold one path on each line"),
        (b"\0\0", "standard input names no picture: it must hold one path on each line"),
        (b"\nnothere.png\n", "standard input, line 2: nothere.png is not there"),
        (b"/\0", "standard input, entry 1: / is a folder, and no picture"),
        (b"/dev/null", "standard input, line 1: /dev/null is no file"),
        (b"~/x.png", "standard input, line 1: ~/x.png is not there"),
    ],
)
def test_lists_that_are_refused(
    photo_run: Any, command: Callable[..., Any], lists: Callable[[bytes], None], data: bytes, sentence: str
) -> None:
    lists(data)
    said = command("predict", photo_run.path, "-")
    assert (said.code, said.out, said.sentence) == (2, "", sentence)


def test_standard_input_that_is_closed(
    photo_run: Any, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert command("predict", photo_run.path, "-").sentence.startswith("standard input names no picture")


@pytest.mark.slow
def test_the_most_probable_classes(digits_run: Any, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    p = softmax(expected(digits_run, digits).astype(float), 1)
    order = np.argsort(-p, 1)
    said = command("predict", digits_run.path, digits, "--top", 3)
    table = rows(said.out)
    heads = [
        "path",
        "label",
        "confidence",
        "class1",
        "probability1",
        "class2",
        "probability2",
        "class3",
        "probability3",
    ]
    assert said.code == 0 and list(table[0]) == heads
    for row, best, probs in zip(table, order, p, strict=True):
        assert [int(row[f"class{n}"]) for n in (1, 2, 3)] == best[:3].tolist()
        assert [float(row[f"probability{n}"]) for n in (1, 2, 3)] == pytest.approx(probs[best[:3]].tolist(), abs=2e-6)
        assert (row["label"], row["confidence"]) == (row["class1"], row["probability1"])
    assert command("predict", digits_run.path, digits, "--top", 3, "-o", tmp_path / "a.json").code == 0
    for row, record in zip(table, json.loads((tmp_path / "a.json").read_text()), strict=True):
        assert [one["label"] for one in record["top"]] == [row[f"class{n}"] for n in (1, 2, 3)]
        assert [f"{one['probability']:.6f}" for one in record["top"]] == [row[f"probability{n}"] for n in (1, 2, 3)]


@pytest.mark.slow
def test_a_threshold(digits_run: Any, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    plain = command("predict", digits_run.path, digits)
    before = rows(plain.out)
    limit = sorted(float(row["confidence"]) for row in before)[10]  # this one is still sure
    said = command(
        *("predict", digits_run.path, digits, "--threshold", limit),
        *("-o", tmp_path / "a.csv", "--npy", tmp_path / "b.npy"),
    )
    after = rows((tmp_path / "a.csv").read_text())
    few = [float(row["confidence"]) < limit for row in before]
    assert sum(few) == 10
    assert f"10 of 30 pictures have a confidence below {limit:g} and are called unsure" in said.err.splitlines()
    for row, now, unsure in zip(before, after, few, strict=True):
        assert now == {**row, "label": "unsure" if unsure else row["label"]}
    numbers = np.load(tmp_path / "b.npy").tolist()
    assert numbers == [-1 if unsure else int(row["label"]) for row, unsure in zip(before, few, strict=True)]
    # the accuracy is that of all predictions
    assert [x for x in said.err.splitlines() if "accuracy" in x] == [
        x for x in plain.err.splitlines() if "accuracy" in x
    ]


@pytest.mark.slow
def test_a_class_that_is_called_unsure(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    for i in range(2):
        for name, other in (("red", "red"), ("blue", "unsure")):
            target = tmp_path / "pictures" / "labeled" / other / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((photos / "test" / name / f"{i}.png").read_bytes())
    small = "--net small-4 --batch 4 --uratio 1 --steps 2 --no-progress --no-baseline".split()  # noqa: SIM905
    assert command("train", "--data", f"{tmp_path}/pictures/", *small, "--out", tmp_path / "run").code == 0
    said = command("predict", tmp_path / "run", photos / "test", "--threshold", 0.6)
    assert said.code == 2 and said.sentence == (
        "the run has a class that is called 'unsure', which --threshold could not be told from: leave it out, and "
        "choose by the column confidence"
    )
    assert command("predict", tmp_path / "run", photos / "test").code == 0


def test_unsure_predictions_are_no_pseudo_labels(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    names = [*sorted(str(p) for p in (photos / "unlabeled").iterdir())]
    lines = [f"{name},{'unsure' if i < 3 else 'red'},0.99" for i, name in enumerate(names)]
    (tmp_path / "p.csv").write_text("\n".join(["path,label,confidence", *lines]) + "\n")
    said = command("split", f"{photos}/", "--pseudo-labels", tmp_path / "p.csv", "-o", tmp_path / "s.json")
    assert f"of the 8 predictions in {tmp_path}/p.csv 5 are taken, 3 are unsure" in said.out.splitlines()


@pytest.mark.slow
def test_a_temperature(digits_run: Any, digits: Path, command: Callable[..., Any]) -> None:
    run = fl.Run(digits_run.path)
    found = calibrate(load_predictor(run), run)
    p = softmax(expected(digits_run, digits).astype(float) / found.temperature, 1)
    before = rows(command("predict", digits_run.path, digits).out)
    said = command("predict", digits_run.path, digits, "--calibrate")
    after = rows(said.out)
    assert [row["label"] for row in after] == [row["label"] for row in before]
    assert [float(row["confidence"]) for row in after] == pytest.approx(p.max(1).tolist(), abs=2e-6)
    assert before != after
    assert said.err.startswith(
        f"confidences are calibrated: temperature {found.temperature:.4f}, fitted on the run's 100 validation images "
    )


@pytest.mark.slow
def test_evaluate_with_a_temperature(digits_run: Any, command: Callable[..., Any]) -> None:
    run = fl.Run(digits_run.path)
    found = calibrate(load_predictor(run), run)
    plain = json.loads(command("evaluate", digits_run.path, "--json").out)
    told = json.loads(command("evaluate", digits_run.path, "--json", "--calibrate").out)
    after = told.pop("calibrated")
    assert told == plain and set(after) == {"temperature", "images", "loss", "ece"}
    assert (after["temperature"], after["images"]) == (found.temperature, 100)
    source = load_source(resolve_data(fl.Data("digits")))
    z = load_predictor(run).logits(source.test_images).double().numpy() / found.temperature
    loss = -np.log(softmax(z, 1)[np.arange(len(z)), source.test_labels]).mean()
    assert after["loss"] == pytest.approx(loss)
    text = command("evaluate", digits_run.path, "--calibrate").out
    assert f"expected calibration error {plain['ece']:.2f} %" in text
    assert f"temperature {found.temperature:.4f} of 100 validation images: {after['ece']:.2f} %, loss" in text


@pytest.mark.slow
def test_parquet(digits_run: Any, digits: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    options = ("--top", 2, "--threshold", 0.7, "--probabilities")
    for name in ("a.csv", "a.parquet"):
        said = command("predict", digits_run.path, digits, *options, "-o", tmp_path / name)
        assert said.code == 0 and f"wrote {tmp_path / name}" in said.err
    found = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for text, row in zip(rows((tmp_path / "a.csv").read_text()), found, strict=True):
        assert list(row) == list(text)
        assert {k: v if isinstance(v, str) else f"{v:.6f}" for k, v in row.items()} == text


def test_parquet_of_no_readable_picture(photo_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "x.png").write_bytes(b"nonsense")
    said = command("predict", photo_run.path, tmp_path / "x.png", "-o", tmp_path / "a.parquet", "--top", 2)
    assert said.code == 1 and parquet.read_table(tmp_path / "a.parquet").num_rows == 0


def test_without_pyarrow(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else real(name, *a))
    said = command("predict", photo_run.path, photos / "test", "-o", tmp_path / "out.parquet")
    assert said.code == 2 and not list(tmp_path.iterdir())
    assert said.sentence == (
        "out.parquet needs the package 'pyarrow': install fewlabels[parquet] (pip install 'fewlabels[parquet]')"
    )


@pytest.mark.slow
def test_a_class_with_the_name_of_a_column(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    for i in range(2):
        for name, other in (("red", "red"), ("blue", "label")):
            target = tmp_path / "pictures" / "labeled" / other / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((photos / "test" / name / f"{i}.png").read_bytes())
    small = "--net small-4 --batch 4 --uratio 1 --steps 2 --no-progress --no-baseline".split()  # noqa: SIM905
    assert command("train", "--data", f"{tmp_path}/pictures/", *small, "--out", tmp_path / "run").code == 0
    said = command("predict", tmp_path / "run", photos / "test", "--probabilities")
    assert (said.code, said.sentence) == (
        2,
        "the class 'label' has the name of a column: write .json, or leave out --probabilities",
    )
    said = command("predict", tmp_path / "run", photos / "test", "--probabilities", "-o", tmp_path / "a.json")
    assert said.code == 0 and set(json.loads((tmp_path / "a.json").read_text())[0]["probabilities"]) == {"red", "label"}
