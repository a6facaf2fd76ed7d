"""evaluate, predict and split: their JSON keys and files are a promise."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as reference

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.data.folder import list_folder
from fewlabels.data.listing import Options
from fewlabels.data.pictures import Decoding
from fewlabels.data.split import make_split
from fewlabels.inference.evaluate import evaluate
from fewlabels.inference.model import Predictor, load_predictor
from fewlabels.inference.predict import _named, predict

EVALUATE_KEYS = {
    *("accuracy", "loss", "step", "top5", "per_class", "geometric_mean", "confusion", "n", "weights", "measured_on"),
    *("macro_precision", "macro_recall", "macro_f1", "weighted_precision", "weighted_recall", "weighted_f1"),
    *("last1", "last10", "last20", "last50", "mean10", "mean20", "best", "ece"),
}


@pytest.fixture(scope="module")
def evaluated(digits_run: Any, command: Callable[..., Any]) -> dict[str, Any]:
    said = command("evaluate", digits_run.path, "--json")
    assert said.code == 0 and said.err == ""
    result: dict[str, Any] = json.loads(said.out)
    return result


@pytest.mark.slow
def test_evaluate_json_keys(evaluated: dict[str, Any]) -> None:
    assert set(evaluated) == EVALUATE_KEYS
    assert (evaluated["step"], evaluated["weights"], evaluated["measured_on"], evaluated["n"]) == (
        120,
        "ema",
        "test",
        360,
    )
    assert set(evaluated["per_class"]) == set("0123456789") and np.array(evaluated["confusion"]).shape == (10, 10)


def test_evaluate_measures_what_predict_predicts(evaluated: dict[str, Any], digits_run: Any) -> None:
    """The numbers follow from the predictions of `fl.load` and the true labels, by scikit-learn."""
    source = load_source(resolve_data(fl.Data("digits")))
    guess = fl.load(digits_run.path).predict(source.test_images).astype(int)
    assert evaluated["accuracy"] == pytest.approx(100 * np.mean(guess == source.test_labels))
    assert evaluated["confusion"] == reference.confusion_matrix(source.test_labels, guess).tolist()
    assert evaluated["macro_f1"] == pytest.approx(100 * reference.f1_score(source.test_labels, guess, average="macro"))


def test_evaluate_finds_what_the_training_found(evaluated: dict[str, Any], digits_run: Any) -> None:
    result, last = fl.Run(digits_run.path).result, fl.Run(digits_run.path).metrics("eval")[-1]["test"]["ema"]
    for key in ("accuracy", "geometric_mean", "last1", "last10", "last20", "last50", "mean10", "mean20", "best"):
        assert evaluated[key] == result[key]
    assert {k: v for k, v in evaluated.items() if k in last} == last


@pytest.mark.slow
def test_evaluate_other_weights_and_checkpoints(digits_run: Any, command: Callable[..., Any]) -> None:
    records = {r["step"]: r["test"] for r in fl.Run(digits_run.path).metrics("eval")}
    raw = json.loads(command("evaluate", digits_run.path, "--json", "--weights", "raw").out)
    assert raw["accuracy"] == records[120]["raw"]["accuracy"] and raw["weights"] == "raw"
    assert raw["last20"] == np.median([r["raw"]["accuracy"] for r in records.values()])
    best = json.loads(command("evaluate", digits_run.path, "--json", "--checkpoint", "best").out)
    assert best["step"] in records and best["accuracy"] == records[best["step"]]["ema"]["accuracy"]
    early = json.loads(command("evaluate", digits_run.path, "--json", "--checkpoint", "100").out)
    assert early["step"] == 100 and early["last1"] == records[90]["ema"]["accuracy"]  # the curve up to there


def test_evaluate_for_a_person(digits_run: Any, evaluated: dict[str, Any], command: Callable[..., Any]) -> None:
    said = command("evaluate", digits_run.path)
    assert said.code == 0 and said.err == ""
    assert f"{digits_run.path}: averaged weights of step 120 on 360 test images" in said.out
    for key in ("accuracy", "geometric_mean", "macro_f1", "weighted_precision", "last20", "best"):
        assert f"{evaluated[key]:.2f}" in said.out
    row = next(line.split() for line in said.out.splitlines() if line.split()[:1] == ["7"])
    assert [0 if n == "." else int(n) for n in row[2:]] == evaluated["confusion"][7]


def test_evaluate_list(digits_run: Any, command: Callable[..., Any]) -> None:
    run = fl.Run(digits_run.path)
    said = command("evaluate", digits_run.path, "--list")
    assert said.code == 0 and len(said.out.splitlines()) == len(run.checkpoints()) == 3
    rows = json.loads(command("evaluate", digits_run.path, "--list", "--json").out)
    records = {r["step"]: r["test"]["ema"]["accuracy"] for r in run.metrics("eval")}
    assert {(r["step"], r["best"]) for r in rows} == {(c.step, c.best) for c in run.checkpoints()}
    for row in rows:
        assert set(row) == {"step", "best", "accuracy", "path"}
        assert row["accuracy"] == records.get(row["step"]) and Path(row["path"]).is_dir()


@pytest.mark.slow
def test_evaluate_on_other_data(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """A folder without test/ is measured on its labeled pictures; sizes are brought to the run's."""
    for name in ("blue", "red"):
        for i, path in enumerate(sorted((photos / "test" / name).iterdir())):
            target = tmp_path / "other" / "labeled" / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((20 + i, 30)).save(target)
    result = json.loads(command("evaluate", photo_run.path, "--data", f"{tmp_path}/other/", "--json").out)
    assert (result["n"], result["measured_on"], result["accuracy"]) == (8, "train", 100)


@pytest.mark.slow
def test_evaluate_and_predict_bring_grey_and_colours_together(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    for made in ("L", "RGB"):
        for picture in photos.rglob("*.png"):
            to = tmp_path / made / picture.relative_to(photos)
            to.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(picture) as image:
                image.convert("L").convert(made).save(to)
    grey, colours = (
        json.loads(command("evaluate", photo_run.path, "--data", tmp_path / made, "--json").out)
        for made in ("L", "RGB")
    )
    assert grey == colours and grey["n"] == 8
    for made in ("L", "RGB"):
        source = list_folder(tmp_path / made).read(Options(stream=True))
        assert evaluate(fl.Run(photo_run.path), source) == grey
    said = command("predict", photo_run.path, tmp_path / "L" / "test")
    assert f"accuracy over the class folders: {grey['accuracy']:.2f} %" in said.err


@pytest.mark.slow
def test_evaluate_and_predict_bring_pictures_to_a_shape_that_is_no_square(
    photos: Path, short: Callable[..., Any], command: Callable[..., Any], tmp_path: Path
) -> None:
    for picture in photos.rglob("*.png"):
        to = tmp_path / "wide" / picture.relative_to(photos)
        to.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(picture) as image:
            image.resize((24, 16)).save(to)
    run = fl.train(short(weak="ms", data=fl.Data(f"{tmp_path / 'wide'}/")), out=tmp_path / "run")
    assert run.data["shape"] == [3, 16, 24]
    result = json.loads(command("evaluate", run.path, "--data", photos, "--json").out)
    said = command("predict", run.path, photos / "test")
    assert f"accuracy over the class folders: {result['accuracy']:.2f} %" in said.err


def test_large_images_are_predicted_in_smaller_pieces(
    photo_run: Any, photos: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = command("predict", photo_run.path, photos, "--probabilities").out
    sizes: list[int] = []
    logits = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda model, images: sizes.append(len(images)) or logits(model, images))
    monkeypatch.setattr("fewlabels.inference.predict.CHUNK_BYTES", 5 * 16 * 16 * 3 + 1)
    assert command("predict", photo_run.path, photos, "--probabilities").out == whole
    assert sizes == [5, 5, 5, 5, 4]


def test_predict_reads_the_range_of_the_training_and_says_what_is_dark(
    photo_run: Any, command: Callable[..., Any], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray((values >> 4).astype(np.uint8)).save(tmp_path / "y.png")
    said = command("predict", photo_run.path, tmp_path)
    assert said.code == 0 and "1 of 2 pictures of 16 bits have values of at most 40" in said.err
    model = load_predictor(fl.Run(photo_run.path))
    assert model.how == Decoding("crop", 16, 89_478_485)
    found = predict(replace(model, how=Decoding(bits=12)), [tmp_path])
    assert found.notes == () and np.array_equal(found.probabilities[0], found.probabilities[1])


@pytest.mark.slow
def test_split_json_keys(command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("split", "digits.3@40-100", "--json")
    result = json.loads(said.out)
    assert said.code == 0 and {"labeled", "validation", "unlabeled_count", "class_counts", "fingerprint"} <= set(result)
    source = load_source(resolve_data(fl.Data("digits")))
    split = make_split(source, labels=40, seed=3, valid=100)
    assert sorted(result["labeled"]) == split.labeled.tolist()
    assert sorted(result["validation"]) == sorted(split.validation.tolist())
    assert result["unlabeled_count"] == 1337 and result["fingerprint"] == split.fingerprint
    assert result["class_counts"] == {str(c): int((source.labels[split.labeled] == c).sum()) for c in range(10)}
    said = command("split", "digits.3@40-100", "--out", tmp_path / "split.json")
    assert said.code == 0 and json.loads((tmp_path / "split.json").read_text()) == result
    assert f"fingerprint {split.fingerprint}" in said.out and "40 labeled, 1337 unlabeled, 100 validation" in said.out


def test_split_of_a_run_is_the_split_of_its_name(digits_run: Any, command: Callable[..., Any]) -> None:
    result = json.loads(command("split", "digits@40-100", "--json").out)
    assert result["fingerprint"] == fl.Run(digits_run.path).result["split"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_csv(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    said = command("predict", photo_run.path, photos / "test", "-o", out)
    assert said.code == 0 and said.out == "" and f"wrote {out}" in said.err.splitlines()
    assert out.read_text().splitlines()[0] == "path,label,confidence"
    found = rows(out)
    assert [r["path"] for r in found] == [f"{photos}/test/{name}/{i}.png" for name in ("blue", "red") for i in range(4)]
    assert [r["label"] for r in found] == ["blue"] * 4 + ["red"] * 4
    assert all(0.5 <= float(r["confidence"]) <= 1 for r in found)
    # without -o the same lines go to standard output, and nothing else does
    assert command("predict", photo_run.path, photos / "test").out == out.read_text()


@pytest.mark.slow
def test_predict_probabilities(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert command("predict", photo_run.path, photos / "unlabeled", "-o", out, "--probabilities").code == 0
    for r in rows(out):
        assert list(r) == ["path", "label", "confidence", "blue", "red"]
        assert float(r["blue"]) + float(r["red"]) == pytest.approx(1, abs=2e-6)
        assert float(r["confidence"]) == max(float(r["blue"]), float(r["red"])) == float(r[r["label"]])
    expected = fl.load(photo_run.path).predict_proba(sorted((photos / "unlabeled").iterdir()))
    np.testing.assert_allclose([[float(r["blue"]), float(r["red"])] for r in rows(out)], expected, atol=1e-6)


def test_predict_npy(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """int64 in the order of the sorted relative paths, the names beside it."""
    folder = tmp_path / "mixed"
    for name, source in (
        ("b/2.png", "red/0.png"),
        ("a.png", "blue/1.png"),
        ("b/10.png", "blue/2.png"),
        ("c.png", "red/3.png"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "test" / source, folder / name)
    out = tmp_path / "out.npy"
    assert command("predict", photo_run.path, folder, "-o", out).code == 0
    ids = np.load(out)
    assert ids.dtype == np.int64 and ids.tolist() == [0, 0, 1, 1]
    names = json.loads((tmp_path / "out.json").read_text())
    assert names["classes"] == ["blue", "red"]
    assert names["paths"] == [str(folder / name) for name in ("a.png", "b/10.png", "b/2.png", "c.png")]
    assert command("predict", photo_run.path, folder, "-o", tmp_path / "p.npy", "--probabilities").code == 0
    probabilities = np.load(tmp_path / "p.npy")
    assert probabilities.shape == (4, 2) and probabilities.argmax(1).tolist() == ids.tolist()


def test_predict_json(photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert command("predict", photo_run.path, photos / "test" / "red", "-o", out).code == 0
    records = json.loads(out.read_text())
    assert len(records) == 4 and all(r["label"] == "red" and set(r) == {"path", "label", "confidence"} for r in records)


def test_predict_accuracy_over_class_folders(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Three of five right; a class that the run does not know is named and not counted."""
    for name, source in (
        *(("blue/0.png", "blue/0.png"), ("blue/1.png", "blue/1.png"), ("blue/2.png", "red/0.png")),
        *(
            ("red/0.png", "red/1.png"),
            ("red/1.png", "blue/3.png"),
            ("wolf/0.png", "red/2.png"),
            ("cat/0.png", "red/2.png"),
        ),
    ):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "test" / source, tmp_path / "in" / name)
    said = command("predict", photo_run.path, tmp_path / "in", "-o", tmp_path / "out.csv")
    assert said.code == 0
    assert "accuracy over the class folders: 60.00 %" in said.err.splitlines()
    assert "class folders that the run does not know: cat, wolf" in said.err.splitlines()
    loose = command("predict", photo_run.path, photos / "unlabeled")
    assert "accuracy" not in loose.err


def test_predict_lists_corrupt_files_and_goes_on(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(photos / "test" / "red", folder)
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    (folder / "2.png").write_bytes(b"")
    out = tmp_path / "out.csv"
    said = command("predict", photo_run.path, folder, "-o", out)
    assert said.code == 1
    assert [Path(r["path"]).name for r in rows(out)] == ["0.png", "3.png"]
    lines = said.err.splitlines()
    assert any(line.startswith(f"could not read {folder}/1.png: ") for line in lines)
    assert any(line.startswith(f"could not read {folder}/2.png: ") for line in lines)
    assert lines[-1] == "fewlabels: 2 file(s) could not be read"


def test_predict_when_no_file_is_readable(photo_run: Any, command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nonsense")
    said = command("predict", photo_run.path, tmp_path / "x.png", "-o", tmp_path / "out.csv")
    assert said.code == 1 and rows(tmp_path / "out.csv") == []


def modes(image: Image.Image) -> dict[str, Image.Image]:
    grey = image.convert("L")
    return {
        "RGB.png": image,
        "RGBA.png": image.convert("RGBA"),
        "P.png": image.quantize(64),
        "P.gif": image.quantize(64),
        "CMYK.jpg": image.convert("CMYK"),
        "YCbCr.jpg": image.convert("YCbCr"),
        "L.png": grey,
        "LA.png": grey.convert("LA"),
        "1.png": grey.convert("1"),
        "I16.png": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "wide.webp": image.resize((90, 31)),
        "tall.bmp": image.resize((16, 200)),
        "tiny.tiff": image.resize((3, 2)),
    }


@pytest.mark.slow
def test_predict_any_mode_and_size(
    photo_run: Any, digits_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "modes"
    folder.mkdir()
    image = Image.open(photos / "test" / "red" / "0.png")
    for name, other in modes(image).items():
        other.save(folder / name)
    for run in (photo_run, digits_run):  # three channels and one
        out = tmp_path / f"{run.path.parent.name}.csv"
        said = command("predict", run.path, folder, "-o", out)
        assert said.code == 0, said.err
        assert sorted(Path(r["path"]).name for r in rows(out)) == sorted(modes(image))
    coloured = {Path(r["path"]).name: r["label"] for r in rows(tmp_path / f"{photo_run.path.parent.name}.csv")}
    for name in ("RGB.png", "RGBA.png", "P.png", "P.gif", "CMYK.jpg", "YCbCr.jpg", "wide.webp", "tall.bmp"):
        assert coloured[name] == "red", name


def test_predict_writes_over_nothing_unasked(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "out.json").write_text("mine")
    for name in ("out.json", "out.npy"):  # the names beside an .npy are a file too
        said = command("predict", photo_run.path, photos / "test", "-o", tmp_path / name)
        assert said.code == 2 and said.sentence == f"{tmp_path}/out.json exists; name another file, or add --overwrite"
    assert (tmp_path / "out.json").read_text() == "mine" and not (tmp_path / "out.npy").exists()
    assert command("predict", photo_run.path, photos / "test", "-o", tmp_path / "out.npy", "--overwrite").code == 0
    assert json.loads((tmp_path / "out.json").read_text())["classes"] == ["blue", "red"]


def test_predict_several_paths(photo_run: Any, photos: Path, command: Callable[..., Any]) -> None:
    said = command("predict", photo_run.path, photos / "test" / "red" / "3.png", photos / "test" / "blue")
    paths = [line.split(",")[0] for line in said.out.splitlines()[1:]]
    assert paths == [f"{photos}/test/red/3.png", *(f"{photos}/test/blue/{i}.png" for i in range(4))]


def test_predict_file_names_that_csv_has_to_quote(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a,b.png", 'say "x".png', "zwei\nZeilen.png", "Bär.png"):
        shutil.copy(photos / "test" / "red" / "0.png", folder / name)
    assert command("predict", photo_run.path, folder, "-o", tmp_path / "out.csv").code == 0
    names = {Path(r["path"]).name for r in rows(tmp_path / "out.csv")}
    assert names == {"a,b.png", 'say "x".png', "zwei\nZeilen.png", "Bär.png"}


@pytest.mark.slow
def test_predict_agrees_with_evaluate(
    digits_run: Any, command: Callable[..., Any], tmp_path: Path, evaluated: dict[str, Any]
) -> None:
    """The test images as files: the same accuracy through another door."""
    source = load_source(resolve_data(fl.Data("digits")))
    for i, (image, label) in enumerate(zip(source.test_images, source.test_labels, strict=True)):
        path = tmp_path / "test" / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    said = command("predict", digits_run.path, tmp_path / "test", "-o", tmp_path / "out.npy")
    assert f"accuracy over the class folders: {evaluated['accuracy']:.2f} %" in said.err


@pytest.mark.slow
def test_dry_run_refuses_what_the_training_refuses(command: Callable[..., Any]) -> None:
    words = ("train", "--data", "digits@40", "--data.normalize", "mean-std")
    assert command(*words, "--dry-run").sentence == command(*words).sentence


@pytest.mark.slow
def test_dry_run_counts_the_parameters(command: Callable[..., Any]) -> None:
    said = command("train", "--data", "cifar10.1@250", "--net", "wrn-10-1", "--batch", "4", "--dry-run")
    assert said.code == 0 and "wrn-10-1, 77,850 parameters" in said.out
    assert "32 images, 4 labeled and 56 unlabeled views" in said.out


def test_the_summary_shows_what_is_not_the_recipe_s(digits_run: Any) -> None:
    line = next(line for line in digits_run.said.out.splitlines() if line.startswith("settings: "))
    assert line == (
        "settings: seed 1, split seed 1; the recipe of fixmatch for digits, but net.name=small-8, optim.lr=0.2, "
        "steps=120, batch=16, uratio=3, eval_every=30, save_every=50"
    )  # --log-every 10 is the recipe's as well


@pytest.mark.slow
def test_predict_writes_numbers_beside_the_table(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    said = command("predict", photo_run.path, photos / "test", "-o", tmp_path / "a.csv", "--npy", tmp_path / "b.npy")
    assert said.code == 0 and {p.name for p in tmp_path.iterdir()} == {"a.csv", "b.npy", "b.json"}
    labels = [row["label"] for row in rows(tmp_path / "a.csv")]
    numbers = np.load(tmp_path / "b.npy")
    assert [["blue", "red"][i] for i in numbers] == labels and numbers.dtype == np.int64
    shown = command("predict", photo_run.path, photos / "test", "--npy", tmp_path / "c.npy", "--probabilities")
    assert shown.out.startswith("path,label,confidence,blue,red\n") and np.load(tmp_path / "c.npy").shape == (8,)
    for words, sentence in (
        (("--npy", tmp_path / "b.npy"), "b.npy exists; name another file, or add --overwrite"),
        (("--npy", tmp_path / "d.csv"), "--npy writes a file called NAME.npy, got "),
        (("-o", tmp_path / "d.json", "--npy", tmp_path / "d.npy"), "--output and --npy would both write "),
    ):
        said = command("predict", photo_run.path, photos / "test", *words)
        assert said.code == 2 and sentence in said.sentence
    assert not {p.name for p in tmp_path.iterdir()} & {"d.json", "d.npy", "d.csv"}


def test_class_names_with_underscores_in_file_names() -> None:
    ends = ["BRDM_2", "2", "T62"]
    found = [_named(Path(f"{name}.png"), ends) for name in ("1_BRDM_2", "1_2", "1_T62", "1_elk", "T62")]
    assert found == ["BRDM_2", "2", "T62", "elk", None]


def test_predict_classes_in_file_names(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    """As RealMix names pictures; one has another class's name, one none that is known."""
    for i, (name, colour) in enumerate(
        (("red", "red"), ("red", "red"), ("blue", "blue"), ("red", "blue"), ("elk", "red"))
    ):
        shutil.copy(photos / "test" / colour / f"{i % 4}.png", tmp_path / f"{i}_{name}.png")
    said = command("predict", photo_run.path, tmp_path, "--label-from", "suffix")
    guess = {line.split(",")[0].rpartition("/")[2]: line.split(",")[1] for line in said.out.splitlines()[1:]}
    right = [name.removesuffix(".png").partition("_")[2] == label for name, label in guess.items() if "elk" not in name]
    assert len(right) == 4
    assert f"accuracy over the classes in the names: {100 * sum(right) / 4:.2f} %" in said.err
    assert "classes in names that the run does not know: elk" in said.err
    assert "accuracy" not in command("predict", photo_run.path, tmp_path).err
