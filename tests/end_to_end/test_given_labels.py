"""Labels belong to the split: what is trained on, also where the data say otherwise or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewlabels as fl
from fewlabels import cli
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.data.split import Split, make_split, read_split
from fewlabels.runs.report import groups, read
from fewlabels.runs.run import Run, RunError
from fewlabels.sweep.plan import baseline, plan
from fewlabels.training.loop import Output

LINEAGE = {"run": "runs/a", "rule": "confidence 0.95"}


@pytest.fixture(scope="module")
def digits() -> fl.Source:
    return load_source(resolve_data(fl.Data("digits")))


def written(path: Path, split: Split) -> str:
    path.write_text(split.to_json())
    return str(path)


def on(config: fl.Train, file: str) -> fl.Train:
    return replace(config, data=fl.Data("digits", split=file))


def weights(run: Run) -> dict[str, bytes]:
    return {c.path.name: (c.path / "weights.safetensors").read_bytes() for c in run.checkpoints()}


def records(run: Run, *without: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("step_ms", "data_ms", "time", *without)} for r in run.metrics()]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["fixmatch", "supervised", "mixmatch"])
def test_two_labels_swapped_in_the_split_are_two_labels_swapped_in_the_data(
    short: Callable[..., fl.Train], digits: fl.Source, tmp_path: Path, algorithm: str
) -> None:
    """The same bits, also of the accuracy on the labeled images; the data's own labels give others."""
    plain = make_split(digits, labels=40, seed=1)
    a, b = plain.labeled[0], next(r for r in plain.labeled if digits.labels[r] != digits.labels[plain.labeled[0]])
    swapped = digits.labels.copy()
    swapped[[a, b]] = swapped[[b, a]]
    given = plain.with_labels([a, b], swapped[[a, b]], lineage=LINEAGE, relabel=True)
    source = fl.from_arrays(digits.images, swapped, digits.test_images, digits.test_labels)
    own = fl.from_arrays(digits.images, digits.labels, digits.test_images, digits.test_labels)
    fields = {"source": "arrays", "classes": (), "pictures": ()}
    there = replace(plain, **fields, targets=swapped[plain.labeled])
    config = short(algorithm, keep=9)
    runs = {}
    for name, data, split in (
        ("given", own, replace(given, **fields)),
        ("there", source, there),
        ("plain", own, replace(plain, **fields)),
    ):
        file = written(tmp_path / f"{name}.json", split)
        runs[name] = fl.train(replace(config, data=fl.Data("digits", split=file)), source=data, out=tmp_path / name)
    assert weights(runs["given"]) == weights(runs["there"]) != weights(runs["plain"])
    # the truth of the unlabeled images is that of the data
    assert records(runs["given"], "pseudo_accuracy") == records(runs["there"], "pseudo_accuracy")
    trained = [run.metrics("eval")[-1]["train"] for run in runs.values()]
    assert trained[0] == trained[1] and trained[0] != trained[2]


@pytest.mark.slow
def test_a_run_on_given_labels(
    short: Callable[..., fl.Train], command: Callable[..., Any], digits: fl.Source, tmp_path: Path
) -> None:
    """From the command line: trained, resumed bit for bit, evaluated, reported, labeled further."""
    plain = make_split(digits, labels=40, seed=1, valid=50)
    rows = np.setdiff1d(plain.unlabeled, plain.labeled)[:20]
    given = plain.with_labels(rows, np.full(20, 3), lineage=LINEAGE)
    file, config = written(tmp_path / "split.json", given), tmp_path / "config.json"
    from fewlabels.config.plain import to_dict

    settings = {k: v for k, v in to_dict(short(keep=9)).items() if k not in ("data", "algorithm")}
    config.write_text(json.dumps(settings))
    path = tmp_path / "run"
    options = ["--data.split", file, "--config", config, "--no-baseline", "--no-progress", "--out", path]
    said = command("train", "fixmatch", *options)
    assert said.code == 0, said
    sentence = "labels that the data do not say: run runs/a, rule confidence 0.95, given 20, split "
    assert sentence + plain.fingerprint in said.out.replace("\n  ", " ")
    run = Run(path)
    assert "60 labeled and 1387 unlabeled images" in said.out.replace("\n  ", " ")
    assert run.split == given and run.split.lineage == given.lineage
    assert sum(run.data["labeled_counts"]) == 60 and run.data["labeled_counts"][3] == 20 + plain.class_counts[3]
    assert run.result["split"] == given.fingerprint != plain.fingerprint
    expected = weights(run), records(run)
    (path / "result.json").unlink()
    for checkpoint in run.checkpoints():
        if checkpoint.step > 4:
            shutil.rmtree(checkpoint.path)
    Path(file).unlink()  # the run has its own
    run = fl.resume(path)
    assert (weights(run), records(run)) == expected
    assert command("evaluate", path).code == 0
    assert read(path).row["labels"] == 60
    last = run.split.with_labels(run.split.unlabeled[-1:], [7], lineage={"file": "answers.csv", "when": "2025-03-01"})
    assert [each.get("split") for each in last.lineage] == [plain.fingerprint, given.fingerprint]
    assert fl.train(on(short(), written(tmp_path / "next.json", last)), out=tmp_path / "next").split == last


@pytest.mark.slow
def test_labels_where_the_data_say_nothing(short: Callable[..., fl.Train], digits: fl.Source, tmp_path: Path) -> None:
    """Only some of the classes have a label in the data: the others are learned from given ones alone."""
    known = np.where(digits.labels < 5, digits.labels, -1)
    known[300:] = -1
    source = fl.from_arrays(digits.images, known, digits.test_images, digits.test_labels)
    assert any("without one such a class cannot be learned" in note for note in source.notes)
    plain = make_split(source, labels=None, seed=1)
    rows = np.flatnonzero(known < 0)[:200]
    given = plain.with_labels(rows, digits.labels[rows], lineage=LINEAGE)
    given.check_fit(source)
    config = replace(short("supervised"), data=fl.Data(split=written(tmp_path / "split.json", given)))
    run = fl.train(config, source=source, out=tmp_path / "run")
    everything = np.concatenate([np.flatnonzero(known >= 0), rows])
    expected = np.bincount(digits.labels[everything], minlength=10)
    assert run.data["labeled_counts"] == expected.tolist() and expected.all()
    assert run.metrics("eval")[-1]["train"]["ema"].keys() >= {"accuracy"}


@pytest.mark.slow
def test_the_file_may_change_under_several_runs(
    short: Callable[..., fl.Train], digits: fl.Source, tmp_path: Path
) -> None:
    """Runs and baselines of one file that has held two splits are neither mixed nor averaged."""
    plain = make_split(digits, labels=40, seed=1)
    rows = np.setdiff1d(plain.unlabeled, plain.labeled)[:5]
    file = written(tmp_path / "split.json", plain)
    config, seeds = on(short(), file), tmp_path / "seeds"
    first = fl.train(replace(config, seed=0), out=seeds / "seed-0")
    assert [job.finished for job in plan(config, "seed", (0,), out=seeds)] == [True]
    more = plain.with_labels(rows, digits.labels[rows], lineage=LINEAGE)
    written(tmp_path / "split.json", more)
    with pytest.raises(RunError) as error:
        plan(config, "seed", (0, 1), out=seeds)
    assert str(error.value) == (
        f"{seeds / 'seed-0'} holds a run with another split than {file} has now; name another --out, or add "
        "--overwrite to replace it"
    )
    assert not plan(config, "seed", (0,), out=seeds, overwrite=True)[0].known
    with pytest.raises(RunError, match=r"has changed since .* was started, and the baseline needs the same labels"):
        baseline(first, first.config, Output())
    assert not (first.path / "baseline").exists()
    second = fl.train(replace(config, seed=1), out=seeds / "seed-1")
    assert groups([read(first.path), read(second.path)]) == []
    shutil.copy(first.path / "split.json", file)
    third = fl.train(replace(config, seed=1), out=tmp_path / "third")
    (group,) = groups([read(first.path), read(second.path), read(third.path)])
    assert group["runs"] == [str(first.path), str(third.path)] and group["over"] == "training seed"
    trained = baseline(first, first.config, Output())
    Path(file).unlink()  # a baseline that is there has its own
    assert baseline(first, first.config, Output()).path == trained.path and trained.split == plain


@pytest.mark.parametrize("change", ["lineage", "lineage changed", "targets", "lineage of a plain one"])
def test_a_changed_lineage_is_refused(
    command: Callable[..., Any], digits: fl.Source, tmp_path: Path, change: str
) -> None:
    plain = make_split(digits, labels=40, seed=1)
    rows = np.setdiff1d(plain.unlabeled, plain.labeled)[:2]
    raw = json.loads(plain.with_labels(rows, [1, 2], lineage=LINEAGE).to_json())
    if change == "lineage":
        del raw["lineage"]
    elif change == "lineage changed":
        raw["lineage"][0]["run"] = "runs/b"
    elif change == "targets":
        i, j = (raw["labeled"].index(row) for row in rows)
        raw["targets"][i], raw["targets"][j] = raw["targets"][j], raw["targets"][i]
    else:
        raw = json.loads(plain.to_json()) | {"lineage": [LINEAGE]}
    file = tmp_path / "split.json"
    file.write_text(json.dumps(raw))
    said = command("train", "--data.split", file, "--out", tmp_path / "run", "--no-progress")
    assert said.code == 2 and said.sentence == (
        f"the split file {file}: the split was changed after it was written: its fingerprint does not fit its indices"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_table_and_the_file_of_given_labels(
    command: Callable[..., Any], digits: fl.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fewlabels split` counts the split's labels, passes the lineage on, and `--dry-run` counts them too."""
    plain = make_split(digits, labels=10, seed=0)
    wrong = next(r for r in plain.unlabeled if digits.labels[r] == 4 and r not in plain.labeled)
    given = plain.with_labels([wrong], [9], lineage=LINEAGE)
    file = written(tmp_path / "split.json", given)
    assert cli.run(["split", "digits", "--split", file, "--out", str(tmp_path / "again.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[3:13]] == ["1"] * 9 + ["2"]
    assert any(line.startswith("labels that the data do not say: run runs/a") for line in lines)
    again = read_split(tmp_path / "again.json")
    assert again == given and again.lineage == given.lineage
    said = command("train", "--data.split", file, "--dry-run")
    assert said.code == 0 and "11 labeled and " in said.out
