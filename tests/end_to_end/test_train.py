"""A training from the command line, and everything that it leaves behind."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fewlabels as fl
from fewlabels.config.settings import Train

STEPS, EVALS, LOGS = 120, (30, 60, 90, 120), tuple(range(10, 121, 10))
PARTS = ("test", "valid", "train")
SCORES = [
    "accuracy",
    "geometric_mean",
    "loss",
    *(f"{average}_{score}" for average in ("macro", "weighted") for score in ("f1", "precision", "recall")),
    "top5",
]
DOCUMENTED = Path(__file__).parents[2] / "docs" / "logging.md"


@pytest.fixture(scope="module")
def records(digits_run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (digits_run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scalars(digits_run: Any) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's own reading of the event file: tag to (step, value)."""
    events = EventAccumulator(str(digits_run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_fixmatch_learns_digits_from_40_labels(digits_run: Any) -> None:
    assert digits_run.said.code == 0
    result = json.loads((digits_run.path / "result.json").read_text())
    assert result["accuracy"] > 60  # 40 labels alone, nearest neighbour: about 66; chance: 10


def test_output_of_the_command(digits_run: Any) -> None:
    """A summary and the result on standard output; evaluations on standard error, where no terminal is."""
    out, err = digits_run.said.out.splitlines(), digits_run.said.err.splitlines()
    assert (
        out[0]
        == "fixmatch on digits@40-100: 40 labeled and 1337 unlabeled images of 1x8x8, 10 classes, 360 test images"
    )
    assert out[1].startswith("small-8, 3,") and f"; {STEPS} steps of 64 images" in out[1]
    assert (
        out[2].startswith("settings: seed 1, split seed 1; the recipe of fixmatch for digits, but ")
        and "optim.lr=0.2" in out[2]
    )
    assert f"run folder {digits_run.path}" in out
    result = fl.Run(digits_run.path).result
    *_, line, what, page, following, predicting, reporting = out
    assert page == f"what it has learnt: {digits_run.path / 'report.html'}"
    assert line.startswith(f"fixmatch  {result['accuracy']:6.2f} % test accuracy") and str(digits_run.path) in line
    assert (
        what.startswith("the accuracy is the result: ") and following == f"next: fewlabels evaluate {digits_run.path}"
    )
    assert predicting == f"      fewlabels predict {digits_run.path} PICTURES... -o out.csv"
    assert reporting == f"      fewlabels report {digits_run.path}"
    assert err[-1].startswith(f"step {STEPS}/{STEPS}  test ") and "  unlabeled in use: " in err[-1]
    assert [line.split()[1] for line in err] == [f"{step}/{STEPS}" for step in EVALS]
    assert not any("\x1b" in line for line in out + err)


@pytest.mark.slow
def test_accuracy_of_pseudo_labels_needs_a_truth_beside_the_labels(
    digits_run: Any, photo_run: Any, short: Callable[..., Train], tmp_path: Path
) -> None:
    """Own pictures: only the labeled ones have a class, and all of them are learned; likewise where all have."""
    every = fl.train(short(data=fl.Data("digits")), out=tmp_path / "run").path
    for path, known in ((digits_run.path, True), (photo_run.path, False), (every, False)):
        logs = fl.Run(path).metrics("log")
        assert logs and any("pseudo_accuracy" in r for r in logs) == known
        assert any(r["mask"] > 0 for r in logs) or path == every, "pseudo-labels that count"


def test_result(digits_run: Any, records: list[dict[str, Any]]) -> None:
    result = fl.Run(digits_run.path).result
    assert set(result) == {
        *("algorithm", "data", "seed", "split", "steps", "measured_on", "accuracy", "accuracy_raw", "geometric_mean"),
        *("last1", "last10", "last20", "last50", "mean10", "mean20", "best", "parameters", "seconds"),
        *("seconds_from_step", "peak_memory_bytes", "device", "versions"),
    }
    assert (result["algorithm"], result["data"], result["measured_on"]) == ("fixmatch", "digits@40-100", "test")
    assert (result["seed"], result["steps"], result["seconds_from_step"]) == (1, STEPS, 0)
    curve = [r["test"]["ema"]["accuracy"] for r in records if r["kind"] == "eval"]
    assert result["accuracy"] == result["last1"] == curve[-1] and result["best"] == max(curve)
    assert result["last20"] == sum(sorted(curve)[1:3]) / 2  # the median of four
    assert result["mean20"] == pytest.approx(sum(curve) / 4)
    assert result["accuracy_raw"] == [r for r in records if r["kind"] == "eval"][-1]["test"]["raw"]["accuracy"]
    # small-8 by hand: three convolutions, their norms, one linear layer
    assert result["parameters"] == (9 * 8 + 16) + (9 * 8 * 16 + 32) + (9 * 16 * 16 + 32) + (16 * 10 + 10)
    assert result["split"] == fl.Run(digits_run.path).split.fingerprint
    assert result["versions"]["torch"] == torch.__version__ and result["seconds"] > 0


def test_metrics(records: list[dict[str, Any]]) -> None:
    logs, evals = ([r for r in records if r["kind"] == kind] for kind in ("log", "eval"))
    assert [r["step"] for r in logs] == list(LOGS) and [r["step"] for r in evals] == list(EVALS)
    for r in logs:
        assert {"loss", "loss_x", "loss_u", "mask", "confidence", "lr", "step_ms", "data_ms"} <= set(r)
        assert r["loss"] == pytest.approx(r["loss_x"] + r["loss_u"], rel=1e-4)
        assert 0 <= r["mask"] <= 1 and 0.1 <= r["confidence"] <= 1 and 0 < r["data_ms"] < r["step_ms"]
    for r in evals:
        assert set(r) == {"kind", "step", "score", *PARTS}
        assert r["score"] == r["valid"]["ema"]["accuracy"]  # the best checkpoint goes by the validation images
        assert [r[part]["ema"]["n"] for part in PARTS] == [360, 100, 40]
        for part in PARTS:
            for weights in ("ema", "raw"):
                assert set(r[part][weights]) == {*SCORES, "n", "per_class"}
                assert set(r[part][weights]["per_class"]) == set("0123456789")
    assert logs[2]["lr"] == pytest.approx(0.2 * 29 / 30)  # of the 30th step, the last of the warm-up


def test_checkpoints_of_the_run(digits_run: Any, records: list[dict[str, Any]]) -> None:
    run = fl.Run(digits_run.path)
    scores = {r["step"]: r["score"] for r in records if r["kind"] == "eval"}
    best = next(step for step in EVALS if scores[step] == max(scores.values()))
    assert [(c.step, c.best) for c in run.checkpoints() if not c.best] == [(100, False), (120, False)]
    assert run.checkpoint("best").step == best


def test_tensorboard_tags(scalars: dict[str, list[tuple[int, float]]]) -> None:
    expected = {f"{part}/{weights}/{score}" for part in PARTS for weights in ("ema", "raw") for score in SCORES}
    expected |= {f"{part}/{weights}/class/{c}" for part in PARTS for weights in ("ema", "raw") for c in "0123456789"}
    expected |= {
        f"train/{name}" for name in ("loss", "loss_x", "loss_u", "mask", "confidence", "pseudo_accuracy", "lr")
    }
    expected |= {"time/step_ms", "time/data_ms"}
    assert set(scalars) == expected


def test_tensorboard_values_are_those_of_the_metrics(
    scalars: dict[str, list[tuple[int, float]]], records: list[dict[str, Any]]
) -> None:
    expected: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for r in records:
        if r["kind"] == "log":
            for name in set(r) - {"kind", "step"}:
                expected[f"{'time' if name.endswith('_ms') else 'train'}/{name}"].append((r["step"], r[name]))
            continue
        for part in PARTS:
            for weights in ("ema", "raw"):
                for name, value in r[part][weights].items():
                    if name == "per_class":
                        for c, v in value.items():
                            expected[f"{part}/{weights}/class/{c}"].append((r["step"], v))
                    elif name != "n":
                        expected[f"{part}/{weights}/{name}"].append((r["step"], value))
    assert set(scalars) == set(expected)
    for tag, values in scalars.items():
        assert [s for s, _ in values] == [s for s, _ in expected[tag]], tag
        assert [v for _, v in values] == pytest.approx([v for _, v in expected[tag]], rel=1e-6), tag


def first_cells(text: str, heading: str) -> list[list[str]]:
    """What stands in back quotes in the first column of the first table below a heading, row by row."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return [codes for cell in cells if (codes := re.findall(r"`([^`]+)`", cell))]


def documented_tags(text: str) -> set[str]:
    """All tags that the tables mean: PART, WEIGHTS and NAME stand for each of theirs, CLASS for `<class>`."""
    names = [name for row in first_cells(text, "Names by algorithm") for name in row]
    meant = {"PART": PARTS, "WEIGHTS": ("ema", "raw"), "NAME": names, "CLASS": ["<class>"]}
    tags: list[str] = []
    for row in first_cells(text, "TensorBoard"):
        folder = row[0].rpartition("/")[0]
        tags += [code if "/" in code else f"{folder}/{code}" for code in row]
    for word, values in meant.items():
        tags = [tag.replace(word, v) for tag in tags for v in (values if word in tag else [""])]
    return set(tags)


def test_reader_of_the_documentation() -> None:
    table = (
        "\n## TensorBoard\n| tag | value |\n|---|---|\n| `PART/WEIGHTS/loss`, `top5` | `no/tag` |\n| `train/NAME` | x |"
    )
    names = "\n## Names by algorithm\n|name|\n| `mask` | x |\n"
    both = {f"{part}/{weights}/{score}" for part in PARTS for weights in ("ema", "raw") for score in ("loss", "top5")}
    assert documented_tags(table + names) == both | {"train/mask"}


def test_every_tag_is_documented(scalars: dict[str, list[tuple[int, float]]]) -> None:
    families = {re.sub(r"/class/.*", "/class/<class>", tag) for tag in scalars}
    assert families - documented_tags(DOCUMENTED.read_text()) == set()


@pytest.mark.slow
def test_every_loss_of_every_algorithm_is_documented(short: Callable[..., Train], tmp_path: Path) -> None:
    for name in ("supervised", "mixmatch", "remixmatch"):
        run = fl.train(short(name, steps=2), out=tmp_path / name)
        families = {
            f"train/{key}" for key in run.metrics("log")[-1] if key not in ("kind", "step", "step_ms", "data_ms")
        }
        assert families - documented_tags(DOCUMENTED.read_text()) == set()


def test_own_pictures_from_training_to_predictions(
    photo_run: Any, photos: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    assert photo_run.said.code == 0, photo_run.said.err
    run = fl.Run(photo_run.path)
    assert run.data["classes"] == ["blue", "red"] and run.data["shape"] == [3, 16, 16] and run.data["test"] == 8
    assert run.split.labeled.tolist() == list(range(8)) and len(run.split.unlabeled) == 16
    assert run.result["accuracy"] == 100
    said = command("evaluate", photo_run.path, "--json")
    assert json.loads(said.out)["confusion"] == [[4, 0], [0, 4]]
    # from the same Python values as the folder's: the mean of what Pillow decodes
    pictures = torch.tensor(run.data["mean"])
    assert pictures.argmin() == 1 and abs(pictures[0] - pictures[2]) < 0.05  # as much red as blue, little green
    said = command("predict", photo_run.path, photos / "test", "-o", tmp_path / "out.csv")
    assert said.code == 0 and "accuracy over the class folders: 100.00 %" in said.err


@pytest.mark.slow
def test_supervised_baseline_beside_the_run(command: Callable[..., Any], tmp_path: Path) -> None:
    small = ["--net", "small-4", "--batch", "4", "--steps", "6", "--eval-every", "3", "--no-progress"]
    said = command("train", "--data", "digits@40", *small, "--out", tmp_path / "run")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()[-7:-5]] == ["fixmatch", "supervised"]
    baseline, run = fl.Run(tmp_path / "run" / "baseline"), fl.Run(tmp_path / "run")
    assert isinstance(baseline.config.algorithm, fl.Supervised) and baseline.config.algorithm.view == "strong"
    assert baseline.split == run.split and baseline.config.steps == run.config.steps
    # resuming a finished pair trains nothing and shows the same
    again = command("train", "--resume", tmp_path / "run")
    assert again.code == 0 and again.out.splitlines()[-7:] == said.out.splitlines()[-7:]


@pytest.mark.slow
def test_dry_run_costs_nothing(command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", "--data", "digits@40", "--net", "small-4", "--dry-run")
    said = command(*words)
    assert said.code == 0 and list(tmp_path.iterdir()) == []
    # small-4 by hand
    parameters = (9 * 4 + 8) + (9 * 4 * 8 + 16) + (9 * 8 * 8 + 16) + (8 * 10 + 10)
    assert [line.split()[0] for line in said.out.splitlines()] == ["data", "net", "step", "memory", "images", "time"]
    assert f"small-4, {parameters:,} parameters" in said.out and (
        "digits@40: 40 labeled and 1,437 unlabeled images of 1x8x8, 10 classes, 360 test images\n" in said.out
    )
    assert re.search(r"^time +about \d+ (s|min) for 500 steps", said.out, re.M)
    assert re.search(r"^memory +about \d+ [KMG]iB", said.out, re.M)
    found = json.loads(command(*words, "--json").out)
    settings = found["train"]
    assert settings["net"]["name"] == "small-4" and settings["weak"] == "affine" and settings["data"]["labels"] == 40
    assert found["cost"]["net"] == f"small-4, {parameters:,} parameters"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_dry_run_says_which_labels_and_that_a_set_is_missing(
    command: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    small = ("--net", "wrn-10-1", "--batch", "4", "--dry-run")
    said = command("train", "--data", f"{photos}/", *small)
    assert ": 8 labeled and 16 unlabeled images of 3x16x16, 2 classes, " in said.out
    said = command("train", "--data", "cifar10@40", "--data.root", tmp_path / "nowhere", *small)
    assert "cifar10@40: 40 labeled and 50,000 unlabeled images of 3x32x32, 10 classes, 10,000 test" in said.out
    assert f"missing  cifar10 is not in {tmp_path}/nowhere, which does not exist: the training will" in said.out
    said = command("train", "--data", "mini_imagenet@400", "--data.root", tmp_path, *small, "--net", "small-4")
    assert f"missing  mini_imagenet is not in {tmp_path}: put it there first" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_folder_names_that_were_not_given(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--net", "small-4", "--batch", "4", "--steps", "2", "--no-baseline", "--no-progress"]
    for _ in range(2):
        assert command("train", "--data", "digits@40", *small).code == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits@40-fixmatch-s1", "digits@40-fixmatch-s1-2"]


@pytest.mark.slow
def test_same_seed_same_bits_other_seed_other_bits(short: Callable[..., Train], tmp_path: Path) -> None:
    def weights(name: str, **changes: Any) -> bytes:
        run = fl.train(short(**changes), out=tmp_path / name)
        return (run.checkpoint().path / "weights.safetensors").read_bytes()

    torch.manual_seed(5)
    one = weights("one")
    torch.manual_seed(6)
    state = torch.get_rng_state()
    assert weights("two") == one
    assert torch.equal(torch.get_rng_state(), state)  # the caller's generator is left as it was
    assert weights("three", seed=2) != one
    # how often it is looked at does not matter
    assert weights("four", eval_every=5, log_every=1, save_every=2) == one
