"""`fewlabels split --pseudo-labels`: predictions become labels."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.data.predictions import tail_rates
from fewlabels.data.split import make_split, read_split
from fewlabels.data.table import list_table
from fewlabels.runtime.cells import cell, uncell

pytestmark = pytest.mark.usefixtures("no_report")


def table(path: Path, rows: list[tuple[Any, ...]], head: str = "path,label,confidence") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def unlabeled(photos: Path) -> list[tuple[str, str, float]]:
    """Predictions of the unlabeled pictures: eight, four of each class, one blue one called red."""
    confidences = {"blue0": 0.99, "blue1": 0.5, "blue2": 0.96, "blue3": 0.97, "red0": 1, "red1": 0.95, "red2": 0.9}
    rows = [(f"{photos}/unlabeled/{name}.png", name[:-1], sure) for name, sure in confidences.items()]
    return [*rows, (f"{photos}/unlabeled/red3.png", "blue", 0.98)]


def names(photos: Path, split: Path) -> dict[str, str]:
    source = load_source(resolve_data(fl.Data(f"{photos}/")))
    chosen = read_split(split)
    rows = zip(chosen.labeled, chosen.targets, strict=True)
    return {str(Path(source.files[row]).relative_to(photos)): source.classes[label] for row, label in rows}


def test_confident_predictions_become_labels(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    file, out = table(tmp_path / "p.csv", unlabeled(photos)), tmp_path / "split.json"
    said = command("split", f"{photos}/", "--pseudo-labels", file, "--min-confidence", "0.95", "-o", out)
    assert said.code == 0 and said.err == ""
    found = {k: v for k, v in names(photos, out).items() if k.startswith("unlabeled")}
    # 0.95 counts, 0.9 and 0.5 do not
    blue = {f"unlabeled/{name}.png": "blue" for name in ("blue0", "blue2", "blue3", "red3")}
    assert found == {**blue, "unlabeled/red0.png": "red", "unlabeled/red1.png": "red"}
    assert len(names(photos, out)) == 8 + 6
    assert f"of the 8 predictions in {file} 6 are taken, 2 have a confidence below 0.95" in said.out.splitlines()
    lineage = read_split(out).lineage
    assert len(lineage) == 1 and lineage[0]["rule"] == "confidence at least 0.95" and lineage[0]["given"] == "6"
    default = tmp_path / "default.json"
    assert command("split", f"{photos}/", "--pseudo-labels", file, "-o", default).code == 0
    assert read_split(default) == read_split(out)


@pytest.mark.parametrize(
    ("balance", "least", "chosen"),
    [
        (0, 0.95, {"blue": ["blue0", "red3"], "red": ["red0", "red1"]}),
        (1, 0.95, {"blue": ["blue0"], "red": ["red0"]}),
        (3, 0.0, {"blue": ["blue0", "blue3", "red3"], "red": ["red0", "red1", "red2"]}),
    ],
)
def test_the_same_number_of_each_class_most_confident_first(
    balance: int, least: float, chosen: dict[str, list[str]], photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    file, out = table(tmp_path / "p.csv", unlabeled(photos)), tmp_path / "split.json"
    words = ("--pseudo-labels", file, "--min-confidence", least, "--balance", balance, "-o", out)
    assert command("split", f"{photos}/", *words).code == 0
    found = names(photos, out)
    for name, expected in chosen.items():
        new = [Path(p).stem for p, label in found.items() if p.startswith("unlabeled") and label == name]
        assert sorted(new) == expected


@pytest.mark.slow
def test_more_of_a_class_with_few_labels(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """Of four labels of red three are taken away: all predictions of red are labels, and the share 1/4 of the five of
    blue, to the power 1/2: two of them."""
    photos = Path(shutil.copytree(photos, tmp_path / "photos"))
    for i in range(1, 4):
        (photos / "labeled" / "red" / f"{i}.png").unlink()
    rows = unlabeled(photos)
    file, out = table(tmp_path / "p.csv", rows), tmp_path / "split.json"
    assert command("split", f"{photos}/", "--pseudo-labels", file, "--tail", 2, "-o", out).code == 0
    found = {Path(p).stem for p in names(photos, out) if p.startswith("unlabeled")}
    assert found == {"red0", "red1", "red2", "blue0", "red3"}  # red3 is taken for blue
    chosen = read_split(out)
    (entry,) = chosen.lineage
    assert entry["rule"] == "confidence at least 0, tail 2"
    assert chosen.own_counts == (4, 1) and chosen.class_counts == (6, 4) and "4 1" not in " ".join(chosen.remarks)
    # the unlabeled set stays whole, also where it has no labeled pictures
    rest = tmp_path / "rest.json"
    words = ("--unlabeled", "rest", "--pseudo-labels", file, "--tail", 2, "-o", rest)
    assert command("split", f"{photos}/", *words).code == 0
    assert len(read_split(rest).unlabeled) == 8 and read_split(rest).class_counts == (6, 4)


@pytest.mark.slow
def test_images_that_are_no_files_are_named_by_their_row(command: Callable[..., Any], tmp_path: Path) -> None:
    own = make_split(load_source(resolve_data(fl.Data("digits@40"))), labels=40, seed=1)
    free = np.setdiff1d(own.unlabeled, own.labeled)[:3].tolist()
    rows = [(free[0], "7", 0.99), (free[1], "7", 0.5), (int(own.labeled[0]), "7", 1), (free[2], "0", 0.97)]
    file, out = table(tmp_path / "p.csv", rows, "row,label,confidence"), tmp_path / "split.json"
    assert command("split", "digits@40", "--pseudo-labels", file, "-o", out).code == 0
    found = dict(zip(read_split(out).labeled.tolist(), read_split(out).targets.tolist(), strict=True))
    assert len(found) == 42 and found[free[0]] == 7 and found[free[2]] == 0
    for name in (1437, -1, "1.0", "a/b.png"):
        wrong = table(tmp_path / "wrong.csv", [(name, "7", 0.99)], "row,label,confidence")
        said = command("split", "digits@40", "--pseudo-labels", wrong)
        assert said.code == 2 and f"line 2: '{name}' is none of the training pictures of digits" in said.sentence


def test_rates_of_a_tail() -> None:
    """By hand: the classes with 10 labels share the rates of 1/10 and 1; one without labels counts as if it had one."""
    np.testing.assert_allclose(tail_rates([10, 0, 10], 1), [0.55, 1, 0.55])
    np.testing.assert_allclose(tail_rates([40, 5, 20, 10], 3), np.cbrt([5 / 40, 1, 10 / 40, 20 / 40]))
    np.testing.assert_allclose(tail_rates([7, 7, 7], 2), 1)


@pytest.mark.slow
def test_a_training_goes_on_with_them(
    photos: Path, photo_run: Any, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions of the run itself, named from the folder that the commands are given in; the labeled and the test
    pictures are not touched."""
    monkeypatch.chdir(photos.parent)
    file, out = tmp_path / "p.csv", tmp_path / "split.json"
    paths = ("photos/unlabeled", "photos/labeled")
    assert command("predict", photo_run.path, *paths, "-o", file).code == 0
    assert command("split", "photos/", "--pseudo-labels", file, "--min-confidence", 0, "-o", out).code == 0
    assert read_split(out).class_counts == (8, 8)
    words = "train supervised --net small-4 --batch 4 --steps 2 --no-progress --data photos/ --data.split"
    said = command(*words.split(), out, "--out", tmp_path / "run")
    assert said.code == 0 and "labels that the data do not say: predictions" in said.out
    assert fl.Run(tmp_path / "run").split == read_split(out)


def test_a_link_to_the_folder_will_do(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    rows = [(os.path.join("link", "unlabeled", "red0.png"), "red", 0.99)]  # from the folder of the file
    out = tmp_path / "split.json"
    said = command("split", f"{photos}/", "--pseudo-labels", table(tmp_path / "p.csv", rows), "-o", out)
    assert said.code == 0 and read_split(out).class_counts == (4, 5)


@pytest.mark.parametrize(
    ("rows", "words", "sentence"),
    [
        (
            [("{p}/unlabeled/none.png", "red", 1)],
            (),
            "line 2: '{p}/unlabeled/none.png' is none of the training pictures",
        ),
        ([("{p}/test/red/0.png", "red", 1)], (), "line 2: '{p}/test/red/0.png' is none of the training pictures"),
        (
            [("{p}/unlabeled/red0.png", "rod", 1)],
            (),
            "line 2: there is no class 'rod'; did you mean red? (known: blue, red)",
        ),
        ([("{p}/unlabeled/red0.png", "red", "sure")], (), "the confidence must be a number from 0 to 1, got 'sure'"),
        ([("{p}/unlabeled/red0.png", "red", "nan")], (), "the confidence must be a number from 0 to 1, got 'nan'"),
        ([("{p}/unlabeled/red0.png", "red", 96)], (), "the confidence must be a number from 0 to 1, got '96'"),
        ([("{p}/unlabeled/red0.png", "red", 1)] * 2, (), "lines 2 and 3 are both of '{p}/unlabeled/red0.png'"),
        ([("{p}/unlabeled/red0.png", "red", 0.9)], (), "none of its 1 predictions is of an unlabeled picture"),
        ([("{p}/labeled/red/0.png", "red", 1)], (), "none of its 1 predictions is of an unlabeled picture"),
        ([("{p}/unlabeled/red0.png", "red", 1)], ("--balance", 0), "0 predictions of class 'blue' have a confidence"),
        ([], (), "none of its 0 predictions"),
        (None, (), "cannot be read: No such file"),
        ([], ("--min-confidence", 2), "--min-confidence must lie in 0 .. 1, got 2"),
        ([], ("--balance", -1), "--balance must be at least 0"),
        ([], ("--tail", 0), "--tail must be above 0, got 0"),
        ([], ("--tail", 3, "--balance", 1), "--tail takes more of rare classes, and --balance as many of each"),
    ],
)
def test_refused(
    rows: list[Any] | None,
    words: tuple[Any, ...],
    sentence: str,
    photos: Path,
    command: Callable[..., Any],
    tmp_path: Path,
) -> None:
    file, out = tmp_path / "p.csv", tmp_path / "split.json"
    if rows is not None:
        table(file, [(row[0].format(p=photos), *row[1:]) for row in rows])
    said = command("split", f"{photos}/", "--pseudo-labels", file, *words, "-o", out)
    short = sentence.format(p=photos) if len(str(photos)) < 40 else sentence.split("'{p}")[0].format(p=photos)
    assert said.code == 2 and short in said.sentence and not out.exists()


@pytest.mark.slow
def test_refused_without_predictions(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    file = table(tmp_path / "p.csv", [(f"{photos}/unlabeled/red0.png", "red")], "path,label")
    said = command("split", f"{photos}/", "--pseudo-labels", file)
    assert said.code == 2 and said.sentence.endswith("it has no column confidence, by which predictions are chosen")
    assert command("split", f"{photos}/", "--pseudo-labels", file, "--min-confidence", 0).code == 0
    said = command("split", f"{photos}/", "--balance", 3)
    assert said.code == 2 and said.sentence.startswith("--balance chooses among the predictions of --pseudo-labels")
    said = command("split", f"{photos}/", "--pseudo-labels", file, "--unlabeled-by", file)
    assert said.code == 2 and "choose by the same options: give one of them" in said.sentence
    said = command("split", "digits@40", "--pseudo-labels", file)
    assert said.code == 2 and "its first line must name the columns row and label" in said.sentence


def counted(photos: Path, split: Path) -> dict[str, int]:
    """How often each picture of unlabeled/ stands in the unlabeled set of a split."""
    source = load_source(resolve_data(fl.Data(f"{photos}/")))
    files = [Path(source.files[row]) for row in read_split(split).unlabeled]
    return dict(Counter(file.stem for file in files if file.parent.name == "unlabeled"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "each", "blue", "red"),
    [
        ((), 3, 5, 3),  # as many as the class with the fewest has
        (("--balance", 2), 2, 5, 3),
        (("--balance", 8), 8, 5, 3),  # five pictures once or twice, three pictures two or three times
        (("--min-confidence", 0.95), 2, 4, 2),
        (("--min-confidence", 0.95, "--balance", 5), 5, 4, 2),
    ],
)
def test_the_unlabeled_set_has_as_many_of_each_class(
    words: tuple[Any, ...], each: int, blue: int, red: int, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Counted one by one: pictures of a class add up to `each`, none stands there twice oftener than another."""
    file, out = table(tmp_path / "p.csv", unlabeled(photos)), tmp_path / "split.json"
    said = command("split", f"{photos}/", "--unlabeled-by", file, *words, "-o", out)
    assert said.code == 0 and said.err == ""
    least = 0.95 if "--min-confidence" in words else 0
    sure = {Path(path).stem: label for path, label, confidence in unlabeled(photos) if confidence >= least}
    found = counted(photos, out)
    assert found.keys() <= sure.keys()
    for name, there in (("blue", blue), ("red", red)):
        times = [found.get(stem, 0) for stem, label in sure.items() if label == name]
        assert len(times) == there and sum(times) == each and max(times) - min(times) <= 1
    before, after = tmp_path / "before.json", read_split(out)
    assert command("split", f"{photos}/", "-o", before).code == 0
    plain = read_split(before)
    np.testing.assert_array_equal(after.labeled, plain.labeled)  # no label is given, and labeled images stay
    assert np.isin(plain.labeled, after.unlabeled).all() == np.isin(plain.labeled, plain.unlabeled).all()
    assert any(f"unlabeled images are {each} of each class by the predictions in {file}" in n for n in after.notes)
    again = tmp_path / "again.json"
    assert command("split", f"{photos}/", "--unlabeled-by", file, *words, "-o", again).code == 0
    assert read_split(again) == after
    if each < red:  # some are drawn, by the split's seed
        drawn = [counted(photos, out)]
        for seed in range(2, 8):
            other = tmp_path / f"{seed}.json"
            assert command("split", f"{photos}/", "--unlabeled-by", file, *words, "--seed", seed, "-o", other).code == 0
            drawn.append(counted(photos, other))
        assert any(one != drawn[0] for one in drawn)


def test_a_class_without_a_prediction_cannot_be_balanced(
    photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [row[:2] for row in unlabeled(photos) if row[1] == "blue"]
    file, out = table(tmp_path / "p.csv", rows, "path,label"), tmp_path / "split.json"
    said = command("split", f"{photos}/", "--unlabeled-by", file, "-o", out)
    assert said.code == 2 and "no unlabeled picture is predicted to be of class 'red', so that" in said.sentence
    assert not out.exists()


@pytest.mark.slow
def test_a_training_takes_repeated_pictures(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    file, out = table(tmp_path / "p.csv", unlabeled(photos)), tmp_path / "split.json"
    assert command("split", f"{photos}/", "--unlabeled-by", file, "--balance", 8, "-o", out).code == 0
    words = "train fixmatch --net small-4 --batch 4 --uratio 2 --steps 2 --no-progress --no-baseline --openset energy"
    said = command(*words.split(), "--data", f"{photos}/", "--data.split", out, "--out", tmp_path / "run")
    assert said.code == 0 and "unlabeled images are 8 of each class" in said.out
    assert fl.Run(tmp_path / "run").split == read_split(out)


@pytest.mark.parametrize("text", ["=1+1", "@home", "+x", "-x", "'quoted", "''", "plain", "-1", "+", "'s-Gravenhage"])
def test_the_apostrophe_before_a_formula_is_taken_off(text: str) -> None:
    assert uncell(cell(text)) == text


def test_an_apostrophe_that_is_no_protection_stays() -> None:
    assert uncell("'s-Gravenhage") == "'s-Gravenhage" and uncell("'-1") == "'-1"


def test_names_that_look_like_formulas_come_back(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """A class called @home and a folder called =odd, as predict writes them; as predictions and as a table."""
    root = tmp_path / "=odd"
    shutil.copytree(photos / "labeled" / "red", root / "labeled" / "@home")
    shutil.copytree(photos / "labeled" / "blue", root / "labeled" / "=away")
    shutil.copytree(photos / "unlabeled", root / "unlabeled")
    rows = [("=odd/unlabeled/red0.png", "@home", "0.99"), ("=odd/unlabeled/blue0.png", "=away", "0.99")]
    file, out = table(tmp_path / "p.csv", [tuple(map(cell, row)) for row in rows]), tmp_path / "split.json"
    assert file.read_text().count("'") == 4
    said = command("split", f"{root}/", "--valid", 0, "--pseudo-labels", file, "-o", out, "--json")
    assert said.code == 0 and json.loads(said.out)["class_counts"] == {"=away": 5, "@home": 5}
    listing = list_table(file)
    assert [(str(p), label) for p, label in listing.train] == [(f"{tmp_path}/{p}", label) for p, label, _ in rows]
    (tmp_path / "'=odd").symlink_to(root)  # a name that has the apostrophe itself
    assert str(list_table(file).train[0][0]).startswith(f"{tmp_path}/'=odd/")
