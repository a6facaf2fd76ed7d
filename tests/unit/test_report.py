"""The report's numbers against numpy and `statistics`, on run folders made by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.runs.report import DamagedRun, find, groups, mean_and_deviation, read

ACCURACIES = [float(a * 37 % 101) for a in range(60)]


def make_run(
    path: Path,
    accuracies: list[float],
    *,
    seed: int = 1,
    split_seed: int = 1,
    done: bool = True,
    part: str = "test",
    resumed: int = 0,
    **changes: Any,
) -> Path:
    """A run folder as `fewlabels train` leaves it, with an evaluation every 10 steps."""
    steps = 10 * len(accuracies) if done else 1000
    train = {
        "algorithm": {"name": "fixmatch", "tau": 0.95},
        "data": {"name": f"digits.{split_seed}@40", "seed": split_seed, "labels": 40},
        "net": {"name": "small"},
        "steps": steps,
        "seed": seed,
        "batch": 32,
        **changes,
    }
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"fewlabels": "0", "train": train}))
    (path / "data.json").write_text(json.dumps({"labeled_counts": [3, 4, 5]}))
    lines = []
    for i, accuracy in enumerate(accuracies):
        measured = {"ema": {"accuracy": accuracy, "geometric_mean": accuracy / 2}, "raw": {"accuracy": 0.0}}
        lines.append({"kind": "eval", "step": 10 * (i + 1), part: measured, "train": {"ema": {"accuracy": 100.0}}})
        lines.append({"kind": "log", "step": 10 * (i + 1) + (0 if done else 3), "loss": 0.1})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "ev')
    if done:
        result = {"seconds": 12.5, "seconds_from_step": resumed, "device": "CPU"}
        (path / "result.json").write_text(json.dumps(result))
    return path


def test_a_finished_run(tmp_path: Path) -> None:
    row = read(make_run(tmp_path / "a", ACCURACIES, seed=4, split_seed=3)).row
    assert row["accuracy"] == ACCURACIES[-1] and row["geometric_mean"] == ACCURACIES[-1] / 2
    for n in (1, 10, 20, 50):
        assert row[f"last{n}"] == float(np.median(ACCURACIES[-n:]))
    assert row["mean10"] == pytest.approx(statistics.mean(ACCURACIES[50:]))
    assert row["mean20"] == pytest.approx(statistics.mean(ACCURACIES[40:]))
    assert row["best_on_test"] == max(ACCURACIES) and row["seconds"] == 12.5
    told = {k: row[k] for k in ("name", "algorithm", "data", "net", "steps", "steps_done", "labels", "finished")}
    assert told == {
        "name": "a", "algorithm": "fixmatch", "data": "digits.3@40", "net": "small", "steps": 600, "steps_done": 600,
        "labels": 12, "finished": True,
    }  # fmt: skip
    assert (row["seed"], row["split_seed"], row["device"], row["measured_on"]) == (4, 3, "CPU", "test")


def test_an_unfinished_run_has_no_final_numbers(tmp_path: Path) -> None:
    row = read(make_run(tmp_path / "a", [10.0, 30.0, 20.0], done=False)).row
    assert not row["finished"] and (row["steps_done"], row["steps"]) == (33, 1000)
    assert row["accuracy"] is row["geometric_mean"] is row["seconds"] is None
    assert (row["last1"], row["last10"], row["best_on_test"]) == (20, 20, 30)
    begun = read(make_run(tmp_path / "b", [], done=False)).row
    assert begun["steps_done"] == 0 and begun["last20"] is begun["best_on_test"] is begun["measured_on"] is None


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    resumed = read(make_run(tmp_path / "a", [50.0], resumed=5)).row
    assert resumed["seconds"] is None and resumed["accuracy"] == 50
    own = read(make_run(tmp_path / "b", [50.0], part="valid")).row
    assert own["measured_on"] == "valid" and own["best_on_test"] is None and own["last1"] == 50
    (tmp_path / "a" / "data.json").unlink()
    assert read(tmp_path / "a").row["labels"] is None


def test_runs_are_found_below_a_folder(tmp_path: Path) -> None:
    made = [make_run(tmp_path / name, [1.0]) for name in ("b", "a", "a/baseline", "deep/er/c")]
    (tmp_path / "a" / "checkpoints" / "step-1").mkdir(parents=True)
    (tmp_path / "a" / "checkpoints" / "step-1" / "config.json").write_text("{}")
    assert sorted(find(tmp_path)) == sorted(made)
    assert find(tmp_path / "a") == [tmp_path / "a", tmp_path / "a" / "baseline"]
    assert read(tmp_path / "a" / "baseline").row["name"] == "a/baseline"


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder and has none below it"):
        find(tmp_path)
    with pytest.raises(ValueError, match="there is no run folder"):
        find(tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", '{"a": 1}', "holds no training configuration"),
        ("config.json", '{"train": {"steps": 1}}', "damaged"),
        ("result.json", "[]", "holds no JSON object"),
        ("metrics.jsonl", '{"kind": "eval", "step": 1, "test": {"ema": {"accuracy": NaN}}}\n', "no finite number"),
        ("metrics.jsonl", '{"kind": "eval", "step": 1, "test": {}}\n', "damaged"),
    ],
)
def test_damaged_records_are_named(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    run = make_run(tmp_path / "a", [1.0])
    (run / file).write_text(text)
    with pytest.raises(DamagedRun, match=sentence) as error:
        read(run)
    assert str(run) in str(error.value)


@pytest.mark.parametrize(
    ("seeds", "over", "repeats"),
    [
        ([(1, 1), (2, 1), (3, 1)], "training seed", 0),
        ([(1, 1), (1, 2), (1, 3)], "split seed", 0),
        ([(1, 1), (2, 2), (3, 3)], "both", 0),
        ([(1, 1), (2, 1), (2, 1)], "training seed", 1),
        ([(1, 1), (1, 1)], None, 1),
    ],
)
def test_mean_and_deviation_over_seeds(
    tmp_path: Path, seeds: list[tuple[int, int]], over: str | None, repeats: int
) -> None:
    curves = [list(np.random.default_rng(i).uniform(0, 100, 30)) for i in range(len(seeds))]
    runs = [
        read(make_run(tmp_path / str(i), curves[i], seed=seed, split_seed=split))
        for i, (seed, split) in enumerate(seeds)
    ]
    (group,) = groups(runs)
    assert (group["n"], group["over"], group["repeats"], group["unfinished"]) == (len(seeds), over, repeats, 0)
    assert (group["data"], group["algorithm"], group["labels"]) == ("digits@40", "fixmatch", 12)
    expected = {
        "accuracy": [c[-1] for c in curves],
        "last20": [np.median(c[-20:]) for c in curves],
        "mean10": [np.mean(c[-10:]) for c in curves],
        "best_on_test": [np.max(c) for c in curves],
    }
    for measure, values in expected.items():
        assert group["mean"][measure] == pytest.approx(np.mean(values))
        assert group["std"][measure] == pytest.approx(np.std(values, ddof=1))


def test_only_runs_that_differ_in_nothing_else_are_put_together(tmp_path: Path) -> None:
    soft = {"name": "fixmatch", "tau": 0.8}
    runs = [
        make_run(tmp_path / "a", [10.0], seed=1),
        make_run(tmp_path / "b", [20.0], seed=2),
        make_run(tmp_path / "c", [30.0], seed=3, done=False),
        make_run(tmp_path / "d", [50.0], seed=1, algorithm=soft),
        make_run(tmp_path / "e", [60.0], seed=2, algorithm=soft),
        make_run(tmp_path / "f", [70.0], seed=1, batch=16),
    ]
    hard, low = groups([read(run) for run in runs])  # c has other steps than a and b
    assert (hard["mean"]["accuracy"], low["mean"]["accuracy"]) == (15, 55)
    assert (hard["settings"], low["settings"]) == ({"algorithm.tau": 0.95}, {"algorithm.tau": 0.8})
    assert hard["std"]["accuracy"] == pytest.approx(statistics.stdev([10, 20]))


def test_unfinished_runs_are_counted_and_left_out(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(i), [10.0 * i], seed=i, steps=10) for i in range(1, 4)]
    (runs[2] / "result.json").unlink()
    (group,) = groups([read(run) for run in runs])
    assert (group["n"], group["unfinished"], group["mean"]["accuracy"]) == (2, 1, 15)
    (runs[1] / "result.json").unlink()
    (group,) = groups([read(run) for run in runs])
    assert (group["n"], group["over"]) == (1, None)
    assert (group["mean"]["accuracy"], group["std"]["accuracy"]) == (10, None)
    (runs[0] / "result.json").unlink()
    (group,) = groups([read(run) for run in runs])
    assert (group["n"], group["mean"]["accuracy"]) == (0, None)


def test_a_mean_needs_every_value(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(i), [10.0], seed=i, resumed=i - 1) for i in (1, 2)]
    (group,) = groups([read(run) for run in runs])
    assert group["mean"]["seconds"] is None and group["mean"]["accuracy"] == 10


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_deviation_is_that_of_a_sample(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
