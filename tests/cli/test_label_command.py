"""`fewlabels label`: questions about pictures, a person's answers, and the training that goes on with them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.data.answers import with_answers
from fewlabels.data.split import read_split


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, rows: list[tuple[str, str]], head: str = "path,label") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


@pytest.fixture(scope="module")
def asked(digits_run: Any, command: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label") / "questions"
    said = command("label", digits_run.path, "-n", 9, "-o", folder)
    assert said.code == 0 and said.err == "" and said.out.startswith(f"wrote {folder}: 9 of ")
    return folder


@pytest.mark.slow
def test_the_questions(asked: Path, digits_run: Any) -> None:
    rows = table(asked / "label.csv")
    assert list(rows[0]) == ["path", "predicted", "confidence", "label"] and len(rows) == 9
    split = fl.Run(digits_run.path).split
    numbers = [int(row["path"].removeprefix("training image ")) for row in rows]
    assert not {*numbers} & {*split.labeled.tolist(), *split.validation.tolist()} and {*numbers} <= {*split.unlabeled}
    # the averaged model of the run, asked by predict's own way
    source = load_source(resolve_data(fl.Data("digits")))
    rest = np.setdiff1d(split.unlabeled, split.labeled)
    p = fl.load(digits_run.path).predict_proba(source.images[rest])
    two = np.sort(p, 1)[:, -2:]
    assert numbers == rest[np.argsort(two[:, 1] - two[:, 0], kind="stable")[:9]].tolist()
    at = {row: i for i, row in enumerate(rest.tolist())}
    for number, row in zip(numbers, rows, strict=True):
        assert row["label"] == "" and row["predicted"] == str(p[at[number]].argmax())
        assert float(row["confidence"]) == pytest.approx(p[at[number]].max(), abs=1e-5)
    assert Image.open(asked / "sheet.png").width > 8 * 64
    tasks = json.loads((asked / "label-studio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [row["path"] for row in rows]
    assert tasks[0]["data"]["image"].startswith("data:image/png;base64,")
    (prediction,) = tasks[0]["predictions"]
    (result,) = prediction["result"]
    assert prediction["score"] == float(rows[0]["confidence"])
    assert result["type"] == "choices" and result["value"] == {"choices": [rows[0]["predicted"]]}
    interface = ElementTree.parse(asked / "label-studio.xml").getroot()
    choices = interface.find("Choices")
    assert choices is not None and interface[0].tag == "Image" and interface[0].get("value") == "$image"
    assert [result["from_name"], result["to_name"]] == [choices.get("name"), choices.get("toName")]
    assert [choice.get("value") for choice in choices] == list("0123456789")


@pytest.mark.parametrize("by", ["entropy", "k-centre", "typical"])
def test_every_rule_asks_the_same_again(
    by: str, photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        assert command("label", photo_run.path, "-n", 3, "--by", by, "-o", tmp_path / name).code == 0
    rows = table(tmp_path / "a/label.csv")
    assert rows == table(tmp_path / "b/label.csv")
    assert len(rows) == 3 and all(Path(row["path"]).parent == photos / "unlabeled" for row in rows)
    image = json.loads((tmp_path / "a/label-studio.json").read_text())[0]["data"]["image"]
    assert unquote(image.removeprefix("/data/local-files/?d=")) == rows[0]["path"][1:]


def test_several_runs_vote(photo_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    """Two copies agree about everything, so that the first pictures are taken."""
    said = command("label", photo_run.path, photo_run.path, "-n", 2, "-o", tmp_path / "q")
    assert said.code == 0 and ", by disagreement\n" in said.out
    first = sorted(Path(fl.Run(photo_run.path).config.data.name, "unlabeled").glob("*.png"))[:2]
    assert [row["path"] for row in table(tmp_path / "q/label.csv")] == list(map(str, first))


@pytest.mark.slow
def test_answers_become_a_split_and_a_training(
    asked: Path, digits_run: Any, command: Callable[..., Any], tmp_path: Path
) -> None:
    truth = load_source(resolve_data(fl.Data("digits"))).labels
    names = [row["path"] for row in table(asked / "label.csv")]
    rows = [(name, str(truth[int(name.split()[-1])])) for name in names]
    old = fl.Run(digits_run.path).split
    rows[2] = (rows[2][0], "")
    known = [(f"training image {old.labeled[0]}", str(old.targets[0]))]
    answers = fill(tmp_path / "a.csv", [*rows, rows[0], *known])
    said = command("label", digits_run.path, "--answers", answers)
    file = tmp_path / "a.split.json"
    assert said.code == 0 and said.out.startswith(
        f"wrote {file}: 8 answers are new, 1 were known, 1 had no answer; 48 pictures have a label now\n"
    )
    new = read_split(file)
    numbers = [int(name.split()[-1]) for i, name in enumerate(names) if i != 2]
    assert set(new.labeled) - set(old.labeled) == set(numbers) and len(new.labeled) == 48
    assert [new.targets[new.labeled == n].tolist() for n in numbers] == [[truth[n]] for n in numbers]
    assert new.fingerprint != old.fingerprint and f"fingerprint {new.fingerprint}\n" in said.out
    assert new.lineage[-1]["answers"] == str(answers) and new.lineage[-1]["split"] == old.fingerprint
    again = command("label", digits_run.path, "--answers", answers)
    assert again.code == 2 and again.sentence == f"{file} exists; name another file with -o"
    # a learning rate of nearly nothing leaves the weights as they were, the last layer's too
    words = "--steps 1 --optim.lr 1e-12 --optim.weight-decay 0 --no-progress".split()  # noqa: SIM905
    said = command("train", "--data.split", file, "--from", digits_run.path, *words, "--out", tmp_path / "run")
    assert said.code == 0 and f"all of the net starts as it is in {digits_run.path}, its last layer too" in said.out
    run, before = fl.Run(tmp_path / "run"), fl.Run(digits_run.path)
    assert run.split == new and run.config.net.name == before.config.net.name and run.config.batch == 16
    assert run.result["accuracy"] == pytest.approx(before.result["accuracy"], abs=2)


def test_the_lineage_knows_the_file(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """By the bytes on the disk, as sha256sum does, the mark that a spreadsheet puts before them too."""
    answers = tmp_path / "a.csv"
    answers.write_text(f"path;label\n{photos}/labeled/red/0.png;blue\n", "utf-8-sig")
    assert command("label", photo_run.path, "--answers", answers, "-o", tmp_path / "s.json").code == 0
    (origin,) = read_split(tmp_path / "s.json").lineage
    assert origin["sha256"] == hashlib.sha256(answers.read_bytes()).hexdigest()


def test_a_label_may_be_changed(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    answers = fill(tmp_path / "a.csv", [(f"{photos}/labeled/red/0.png", "blue")])
    said = command("label", photo_run.path, "--answers", answers, "-o", tmp_path / "s.json")
    assert said.code == 0 and "0 answers are new, 1 changed a label; 8 pictures" in said.out
    split = read_split(tmp_path / "s.json")
    assert split.class_counts == (5, 3) and len(split.labeled) == 8
    command("split", f"{photos}/", "--split", tmp_path / "s.json")


ONE_STEP = ("--steps", 1, "--no-progress")


@pytest.mark.slow
def test_a_second_round(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """The settings of the run say where the pictures are; its own split gives way to the new one."""
    before = photo_run.path
    for i in (1, 2):
        answers = fill(tmp_path / f"{i}.csv", [(f"{photos}/unlabeled/red{i}.png", "red")])
        assert command("label", before, "--answers", answers).code == 0
        words = ("--data.split", tmp_path / f"{i}.split.json", "--from", before, *ONE_STEP)
        assert command("train", *words, "--out", tmp_path / f"run{i}").code == 0
        before = tmp_path / f"run{i}"
    run = fl.Run(before)
    assert run.split.class_counts == (4, 6) and len(run.split.lineage) == 2
    assert run.data["pretrained"]["run"] == str(tmp_path / "run1")


@pytest.mark.slow
def test_other_classes_get_a_new_last_layer(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "other"
    shutil.copytree(photos / "labeled" / "red", root / "labeled" / "rot")
    shutil.copytree(photos / "labeled" / "blue", root / "labeled" / "blau")
    words = ("--from", photo_run.path, "--data", f"{root}/", *ONE_STEP)
    said = command("train", *words, "--out", tmp_path / "run")
    assert said.code == 0 and f"the last layer starts anew: {photo_run.path} has other classes\n" in said.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--from", "RUN", "--recipe", "google-fixmatch-svhn"), "--from takes the settings of its run, and --recipe"),
        (("--from", "RUN", "--config", "RUN/config.json"), "--from takes the settings of its run, and --config"),
        (("--from", "RUN", "--resume", "RUN"), "--resume goes on with a run, and --from starts a new one"),
        (("--from", "nothing"), "there is no run folder nothing"),
        (("--net", "small-4", "--net.head", "kept"), "--net.head kept is the last layer of a run: give the run folder"),
        (
            ("--net", "small-4", "--net.head", "kept", "--net.pretrained", "FILE", "--out", "HERE/run"),
            "--net.head kept is the last layer of a run, and --net.pretrained ",
        ),
    ],
)
def test_from_refused(
    words: tuple[str, ...], sentence: str, photo_run: Any, command: Callable[..., Any], tmp_path: Path
) -> None:
    (weights,) = (photo_run.path / "checkpoints").glob("*40/weights.safetensors")
    shutil.copy(weights, tmp_path)
    meant = {"RUN": str(photo_run.path), "FILE": str(tmp_path / weights.name), "HERE": str(tmp_path)}
    for name, text in meant.items():
        words = tuple(word.replace(name, text) for word in words)
    data = ("--data", fl.Run(photo_run.path).config.data.name) if str(photo_run.path) not in words else ()
    said = command("train", *data, *words, *ONE_STEP)
    assert said.code == 2 and sentence in said.err.splitlines()[-1]


def studio(path: Path, *tasks: tuple[str, list[Any]]) -> Path:
    """As https://labelstud.io/guide/export shows it."""
    made = [
        {
            "id": 70 + i,
            "data": {"image": "/data/local-files/?d=x", "path": name},
            "annotations": [
                {
                    "id": i,
                    "was_cancelled": choices is None,
                    "result": []
                    if not choices
                    else [{"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": choices}}],
                }
                for choices in given
            ],
            "predictions": [{"result": [{"type": "choices", "value": {"choices": ["red"]}}]}],
        }
        for i, (name, given) in enumerate(tasks)
    ]
    path.write_text(json.dumps(made))
    return path


def test_label_studio(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    pool = f"{photos}/unlabeled"
    tasks: list[tuple[str, list[Any]]] = [
        (f"{pool}/red0.png", [["red"], ["red"]]),
        (f"{pool}/blue0.png", [["blue"]]),
        (f"{pool}/blue1.png", [None]),
        (f"{pool}/blue2.png", [[]]),
        (f"{pool}/blue3.png", []),
    ]
    answers, out = studio(tmp_path / "export.json", *tasks), tmp_path / "s.json"
    said = command("label", photo_run.path, "--answers", answers, "-o", out)
    assert said.code == 0 and "2 answers are new, 3 had no answer; 10 pictures have a label now" in said.out
    assert read_split(out).class_counts == (5, 5)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([["red"], ["blue"]], "task 70 and task 70 contradict each other about "),
        ([["red", "blue"]], "task 70 has several choices, 'red', 'blue': a picture has one class"),
        ([["rod"]], "task 70: there is no class 'rod'; did you mean red? (known: blue, red)"),
        ([[3]], "task 70 has a choice that is no text: "),
    ],
)
def test_label_studio_refused(
    given: list[Any], sentence: str, photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    answers = studio(tmp_path / "e.json", (f"{photos}/unlabeled/red0.png", given))
    said = command("label", photo_run.path, "--answers", answers)
    assert said.code == 2 and sentence in said.sentence and list(tmp_path.iterdir()) == [answers]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "is no file of answers: "),
        ("{}", "it must be Label Studio's export as JSON, a list of tasks"),
        ('[{"id": 5, "image": "x", "choice": "red"}]', "task 5 has no data.path, by which fewlabels finds the picture"),
        ('[{"data": {"path": "x"}}]', "task 1 has no annotations: export the project as JSON"),
        ('[{"data": {"path": "x"}, "annotations": [1]}]', "task 1 has an annotation without a list of results"),
    ],
)
def test_other_json(text: str, sentence: str, photo_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(text)
    said = command("label", photo_run.path, "--answers", tmp_path / "e.json")
    assert said.code == 2 and sentence in said.sentence


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("none.png", "red")], "line 2: 'none.png' is none of the training pictures of photos"),
        ([("{u}/red0.png", "red"), ("{u}/red1.png", "rod")], "line 3: there is no class 'rod'; did you mean red?"),
        ([("{u}/red0.png", "red"), ("{u}/red0.png", "blue")], "lines 2 and 3 contradict"),
        ([("{u}/red0.png", "")], "says nothing new: 0 answers are new, 1 had no answer"),
        ([("{u}/../labeled/red/0.png", "red")], "says nothing new: 0 answers are new, 1 were known"),
        ([("{u}/../test/red/0.png", "red")], "is none of the training pictures"),
    ],
)
def test_answers_refused(
    rows: list[tuple[str, str]],
    sentence: str,
    photo_run: Any,
    photos: Path,
    command: Callable[..., Any],
    tmp_path: Path,
) -> None:
    answers = fill(tmp_path / "a.csv", [(name.format(u=photos / "unlabeled"), label) for name, label in rows])
    said = command("label", photo_run.path, "--answers", answers)
    assert said.code == 2 and list(tmp_path.iterdir()) == [answers]
    assert sentence in said.sentence.replace("line 2 and line 3", "lines 2 and 3")


def test_a_validation_picture_keeps_its_label(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    split = fl.Run(digits_run.path).split
    row = next(r for r in split.validation.tolist() if r not in split.labeled)
    answers = fill(tmp_path / "a.csv", [(f"training image {row}", "3")])
    said = command("label", digits_run.path, "--answers", answers)
    assert said.code == 2 and "is a validation picture, whose label stays" in said.sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "label needs a run folder"),
        (("RUN",), "label writes a folder of questions: name it with -o FOLDER"),
        (("RUN", "-o", "HERE"), " exists; name another one"),
        (("RUN", "-o", "none/q"), "there is no folder none to write q to"),
        (("RUN", "-n", 0, "-o", "q"), "-n must be at least 1, got 0"),
        (("RUN", "-n", 9, "-o", "q"), "has 8 pictures without a label"),
        (("RUN", "--by", "disagreement", "-o", "q"), "--by disagreement needs several runs"),
        (("RUN", "RUN", "--by", "margin", "-o", "q"), "--by margin is for one run, got 2"),
        (("RUN", "OTHER", "-o", "q"), "are of different pictures or classes"),
        (("RUN", "--first", 3, "-o", "q"), "--first is for a folder of pictures before any training"),
        (("RUN", "--suspects", "--answers", "a"), "--answers and --suspects are two things to do"),
        (("RUN", "--answers", "a.csv", "-n", 3), "-n does not go with --answers"),
        (("RUN", "--answers", "a.csv"), "cannot be read: No such file"),
        (("RUN", "--suspects"), "from 20 labels of each class on, and 'blue' has 4"),
        (("PHOTOS", "-o", "q"), "is no run; of a folder of pictures --first N chooses"),
        (("PHOTOS", "--first", 9, "-o", "q"), "has 8 pictures without a label that can be read"),
        (("none/", "--first", 9, "-o", "q"), "is no run and no folder of pictures"),
    ],
)
def test_refused(
    words: tuple[Any, ...],
    sentence: str,
    photo_run: Any,
    digits_run: Any,
    photos: Path,
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    meant = {"RUN": photo_run.path, "OTHER": digits_run.path, "PHOTOS": photos, "HERE": tmp_path}
    said = command("label", *(meant.get(word, word) for word in words))
    assert said.code == 2 and sentence in said.sentence and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_before_any_training(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """Three commands, from a flat folder to the first training; two colours make two clusters."""
    flat = tmp_path / "flat"
    shutil.copytree(photos / "unlabeled", flat)
    said = command("label", f"{flat}/", "--first", 2, "-o", tmp_path / "q")
    assert said.code == 0 and "2 of 8 pictures, one of each cluster of distances to common patches" in said.out
    rows = table(tmp_path / "q/label.csv")
    colours = {Path(row["path"]).name.rstrip("0123456789.png") for row in rows}
    assert colours <= {"blue", "red"} and len(rows) == 2
    assert not (tmp_path / "q/label-studio.xml").exists()
    answers = [(row["path"], "=rot" if "red" in row["path"] else "blau") for row in rows]
    extra = [(f"{flat}/red3.png", "=rot"), (f"{flat}/blue3.png", "blau"), (f"{flat}/blue2.png", "")]
    given = [one for one in extra if one[0] not in dict(answers)]
    file = fill(tmp_path / "a.csv", [*answers, *given])
    said = command("label", f"{flat}/", "--answers", file, "-o", tmp_path / "t.csv")
    assert said.code == 0 and said.out.endswith(f"next: fewlabels train --data {tmp_path / 't.csv'}\n")
    source = load_source(resolve_data(fl.Data(str(tmp_path / "t.csv"))))
    assert source.classes == ("=rot", "blau") and len(source.labels) == 8
    known = {os.path.basename(source.files[row]) for row in np.flatnonzero(source.labels == 0)}
    assert known == {Path(path).name for path, label in [*answers, *given] if label == "=rot"}
    # the same folder may not be left by its table
    (tmp_path / "elsewhere").mkdir()
    said = command("label", f"{flat}/", "--answers", file, "-o", tmp_path / "elsewhere/t.csv")
    assert said.code == 2 and "must lie in the folder of the pictures or above it" in said.sentence


def test_a_folder_with_labels_keeps_them(photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    file = fill(tmp_path / "a.csv", [(f"{root}/unlabeled/red0.png", "red")])
    said = command("label", f"{root}/", "--answers", file, "-o", tmp_path / "t.csv")
    assert said.code == 0 and "24 pictures, labels of 2 classes: blue 4, red 5" in said.out
    source = load_source(resolve_data(fl.Data(str(tmp_path / "t.csv"))))
    assert np.bincount(source.labels + 1).tolist() == [7, 4, 5] and len(source.test_labels) == 8
    wrong = fill(tmp_path / "b.csv", [(f"{root}/labeled/red/0.png", "red")])
    said = command("label", f"{root}/", "--answers", wrong, "-o", tmp_path / "u.csv")
    assert said.code == 2 and "is none of the pictures without a label" in said.sentence
    # a table would be read otherwise, or not at all
    name = f"{root}/unlabeled/red1.png"
    for label, why in (("-1", "has a meaning of its own"), ("two\nlines", "is not text in one line")):
        word = studio(tmp_path / "e.json", (name, [[label]]))
        said = command("label", f"{root}/", "--answers", word, "-o", tmp_path / "u.csv")
        assert said.code == 2 and f"a table holds no class {label!r}, which {why}: rename it" in said.sentence
    assert not (tmp_path / "u.csv").exists()


ODD = {
    "<script>alert(1)": "<script>alert(1)",
    "=cmd()": "'=cmd()",
    'say "no"': 'say "no"',
    "two\nlines": "two\\nlines",
    "\u202etxt": "\\u202etxt",
    "x" * 240: "x" * 240,
    os.fsdecode(b"gr\xfcn"): "gr\\xfcn",
}
"""A class, and its cell."""


@pytest.mark.slow
def test_hostile_names(command: Callable[..., Any], tmp_path: Path) -> None:
    """Classes and files so called appear as text in table and tasks, and come back as answers of both kinds."""
    root = tmp_path / "odd"
    for i, name in enumerate(ODD):
        try:
            (root / "labeled" / name).mkdir(parents=True)
        except OSError:
            pytest.skip("this file system has no such names")
        pixels = np.full((8, 8, 3), 30 * i, np.uint8)
        Image.fromarray(pixels).save(root / "labeled" / name / "a.png")
        (root / "unlabeled").mkdir(exist_ok=True)
        Image.fromarray(pixels + 1).save(root / "unlabeled" / f"{name[:200]}.png")
    small = "--net small-4 --batch 4 --uratio 1 --steps 1 --no-progress".split()  # noqa: SIM905
    assert command("train", "--data", f"{root}/", *small, "--out", tmp_path / "run").code == 0
    assert command("label", tmp_path / "run", "-n", len(ODD), "-o", tmp_path / "q").code == 0
    rows = table(tmp_path / "q/label.csv")
    assert {row["predicted"] for row in rows} <= set(ODD.values())
    assert all(cell.isprintable() and cell[:1] not in "=+@-" for row in rows for cell in row.values() if cell)
    tasks = json.loads((tmp_path / "q/label-studio.json").read_text())
    assert [task["data"]["path"] for task in tasks] == [row["path"] for row in rows]
    choices = ElementTree.parse(tmp_path / "q/label-studio.xml").getroot()[1]
    texts = [str(choice.get("value")) for choice in choices]
    assert set(texts) == {cell.removeprefix("'") for cell in ODD.values()}
    answers = [(row["path"], cell) for row, cell in zip(rows, ODD.values(), strict=True)]
    out = tmp_path / "s.json"
    assert command("label", tmp_path / "run", "--answers", fill(tmp_path / "a.csv", answers), "-o", out).code == 0
    # the same by Label Studio
    export = studio(tmp_path / "e.json", *((p, [[cell.removeprefix("'")]]) for p, cell in answers))
    run = fl.Run(tmp_path / "run")
    other, counts = with_answers(run.split, load_source(run.config.data), export)
    assert counts.new == len(ODD)
    assert other.targets.tolist() == read_split(out).targets.tolist() and set(other.class_counts) == {2}


@pytest.mark.slow
def test_suspects(digits_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    """Of 200 labels five are changed: they come first among those that are listed, and answers put them right."""
    data = fl.Data("digits@200")
    source = load_source(resolve_data(data))
    run = tmp_path / "run"
    words = "--net small-8 --batch 16 --uratio 1 --optim.lr 0.1 --steps 30 --no-baseline --no-progress".split()  # noqa: SIM905
    split = tmp_path / "split.json"
    assert command("split", "digits@200", "-o", split).code == 0
    clean = read_split(split)
    wrong = clean.labeled[[3, 50, 90, 120, 160]]
    noisy = clean.with_labels(wrong, (source.labels[wrong] + 5) % 10, lineage={"by": "a test"}, relabel=True)
    split.unlink()
    split.write_text(noisy.to_json())
    if min(noisy.class_counts) < 20:  # so that all classes have enough
        more = [np.flatnonzero(source.labels == c)[-4:] for c in range(10)]
        rows = np.setdiff1d(np.concatenate(more), noisy.labeled)
        noisy = noisy.with_labels(rows, source.labels[rows], lineage={"by": "a test"})
        split.write_text(noisy.to_json())
    assert command("train", "supervised", "--data.split", split, *words, "--out", run).code == 0
    said = command("label", run, "--suspects", "-o", tmp_path / "q")
    assert said.code == 0
    rows = table(tmp_path / "q/label.csv")
    assert list(rows[0]) == ["path", "given", "predicted", "confidence", "label"]
    found = [int(row["path"].split()[-1]) for row in rows]
    assert len(set(wrong.tolist()) & set(found)) >= 4 and len(found) <= 40
    given = dict(zip(noisy.labeled.tolist(), noisy.targets.tolist(), strict=True))
    assert [row["given"] for row in rows] == [str(given[row]) for row in found]
    assert said.out.splitlines()[0].startswith(f"training image {found[0]}: labeled {rows[0]['given']}, perhaps ")
    assert f"{len(found)} of {len(noisy.labeled)} labels are suspect" in said.out
