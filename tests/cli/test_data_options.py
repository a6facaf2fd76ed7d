"""The options of the data reach the reader, and a run remembers them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.config.settings import Data

SHORT = "--net small-4 --batch 4 --uratio 2 --steps 2 --eval-every 2 --save-every 2 --log-every 2 --no-progress"


@pytest.mark.slow
def test_parts_fit_and_names_from_the_command_line(photos: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"blue": "Azul"}))
    out = tmp_path / "run"
    said = command(
        *("train", "--data", f"{photos}/", "--data.labels", 4, "--data.fit", "centre", "--data.image-size", 12),
        *("--data.test", photos / "labeled", "--data.unlabeled", f"{photos}/unlabeled/", "--data.classes", names),
        *(*SHORT.split(), "--out", out),
    )
    assert said.code == 0, said.err
    config = json.loads((out / "config.json").read_text())
    config = config.get("train", config)
    assert config["data"]["fit"] == "centre" and config["data"]["classes"] == str(names)
    assert "4 labeled and 16 unlabeled images of 3x12x12, 2 classes, 8 test images" in said.out
    assert "8 test pictures are labeled ones too" in said.out
    assert json.loads((out / "data.json").read_text())["classes"] == ["Azul", "red"]


@pytest.mark.slow
def test_prediction_crops_as_the_training_did(photos: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    import fewlabels as fl
    from fewlabels.inference.model import load_predictor
    from fewlabels.inference.predict import predict
    from fewlabels.runs.run import Run

    out = tmp_path / "run"
    options = ("--data.fit", "centre", "--data.image-size", "8", *SHORT.split(), "--out", out)
    assert command("train", "--data", f"{photos}/", *options).code == 0
    picture = tmp_path / "x.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    whole = predict(load_predictor(Run(out)), [picture]).probabilities
    assert np.array_equal(whole, fl.load(out, device="cpu").predict_proba(pixels[None, 6:14, 6:14]))


def test_labels_that_are_not_picked_join_the_unlabeled(photos: Path) -> None:
    data = resolve_data(Data(f"{photos}/", labels=2, unlabeled="rest"))
    source = load_source(data)
    split = split_of(data, source)
    assert len(split.labeled) == 2 and len(split.unlabeled) == 8 + 8 - 2
    assert set(split.labeled) | set(split.unlabeled) == set(range(16))


@pytest.mark.slow
def test_a_table_is_a_data_name(photos: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    rows = [f"labeled/{name}/{i}.png,{name}," for name in ("blue", "red") for i in range(4)]
    rows += [f"unlabeled/red{i}.png,," for i in range(4)] + ["test/red/0.png,red,test"]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    options = ("--data.root", photos, *SHORT.split(), "--out", tmp_path / "run")
    said = command("train", "--data", tmp_path / "mine.csv", *options)
    assert said.code == 0, said.err
    assert "8 labeled and 12 unlabeled images of 3x16x16, 2 classes, 1 test images" in said.out
    wrong = command("train", "--data", tmp_path / "mine.csv", *SHORT.split(), "--out", tmp_path / "other")
    assert wrong.code == 2 and wrong.sentence.startswith(
        "13 of 13 pictures cannot be read: labeled/blue/0.png, labeled/blue/1.png, "
    )


@pytest.mark.slow
def test_evaluate_says_that_the_own_data_have_changed(
    photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    root, out = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, root)
    assert command("train", "--data", f"{root}/", *SHORT.split(), "--no-baseline", "--out", out).code == 0
    assert command("evaluate", out, "--json").err == ""
    (root / "test/red/0.png").rename(root / "test/blue/9.png")
    said = command("evaluate", out, "--json")
    assert said.code == 0 and json.loads(said.out)["n"] == 8
    assert said.err == (
        f"note: the data of {out} have changed since it was trained: the test pictures are others now (by name, "
        "content, class or order)\n"
    )
    for part in ("labeled", "test"):
        (root / part / "red").rename(root / part / "Red")
    assert command("evaluate", out).sentence == (
        "photos has classes that the run does not know (Red; these look like one and are told apart: 'red' and 'Red'); "
        "the run knows blue, red"
    )
    for part in ("labeled", "test"):
        (root / part / "Red").rename(root / part / "red")
    shutil.rmtree(root / "test")  # the labeled pictures, which it has learned, are no substitute
    said = command("evaluate", out, "--json")
    assert said.code == 2 and said.sentence == f"photos has no test images now, which {out} was measured on"
    said = command("evaluate", out, "--json", "--data", f"{root}/")
    assert said.code == 0 and json.loads(said.out)["measured_on"] == "train"
