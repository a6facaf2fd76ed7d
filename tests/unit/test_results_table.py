"""docs/results.md is what the recorded runs say, and its numbers are those of `statistics`."""

from __future__ import annotations

import importlib.util
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(algorithm: str, seed: int, accuracy: float, options: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "algorithm": algorithm, "options": options, "seed": seed, "accuracy": accuracy, "last10": accuracy - 1,
        "seconds": 10.0 + seed, "cpu_seconds": 20.0, "steps": 500, "parameters": 1234, "device": "CPU",
        "versions": {"torch": "2.8"}, "commit": "abc1234", "command": f"fewlabels train {algorithm} --seed {seed}",
    } | changes  # fmt: skip


def test_the_document_is_that_of_the_recorded_runs() -> None:
    rendered = script("results_table").render(ROOT / "results")
    assert (ROOT / "docs" / "results.md").read_text() == rendered, "run python benchmarks/results_table.py"


def test_table_of_algorithms(tmp_path: Path) -> None:
    weak, strong = [80.0, 82.0, 87.0], [70.0, 71.0, 72.0]
    better, mixed, worse = [90.0, 91.5, 96.0], [81.0, 81.0, 90.0], [60.0, 61.0, 62.0]
    records = [
        *(record("supervised", s, a, "--view weak") for s, a in enumerate(weak, 1)),
        *(record("supervised", s, a, "--view strong") for s, a in enumerate(strong, 1)),
        record("fixmatch", 1, 1.0, "--bn separate-weak"),
        record("fixmatch", 1, 1.0),  # an older run of the same seed, which the last line replaces
        *(record("fixmatch", s, a) for s, a in enumerate(better, 1)),
        *(record("vat", s, a, "--eps 6") for s, a in enumerate(mixed, 1)),
        *(record("ict", s, a, commit="def5678") for s, a in enumerate(worse, 1)),
    ]
    (tmp_path / "algorithms_digits.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    table = script("results_table")
    table.REMARKS = {("digits", "ict"): "otherwise with other settings", ("cifar3", "vat"): "elsewhere"}
    text = table.render(tmp_path)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}

    def row(values: list[float]) -> str:
        gains = [a - b for a, b in zip(values, weak, strict=True)]
        numbers = [
            f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}",
            f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f}",
            f"{statistics.mean(values) - 1:.2f} ± {statistics.stdev(values):.2f}",
        ]
        return " | ".join(numbers)

    assert rows["fixmatch"] == f"| fixmatch | {row(better)} | 3 | 12 | 20 |  |"
    assert rows["vat"] == f"| vat | {row(mixed)} | 3 | 12 | 20 | beats the baseline with 2 of 3 seeds only |"
    assert (
        rows["ict"]
        == f"| ict | {row(worse)} | 3 | 12 | 20 | does not beat the baseline; otherwise with other settings |"
    )
    assert rows["supervised, weak views"].endswith("| the baseline |")
    assert rows["supervised, strong views"].endswith("| does not beat the baseline |")
    shown = [name for name in rows if name not in ("algorithm", "---")]
    order = [
        "fixmatch",
        "vat",
        "supervised, weak views",
        "supervised, strong views",
        "ict",
        "fixmatch, weak pass apart",
    ]
    assert shown == order  # by accuracy
    assert "500 steps, 1,234 parameters. CPU; torch 2.8; commit abc1234, def5678." in text
    assert "fewlabels train vat --seed 1\n" in text and "Three classes" not in text


@pytest.mark.slow
def test_every_algorithm_is_run_and_told_apart() -> None:
    from fewlabels.algorithms import ALGORITHMS
    from fewlabels.commands.train_options import read

    benchmark = script("algorithms")
    assert {*benchmark.TASKS} == {*script("results_table").TASKS}
    for task in benchmark.TASKS:
        variants = benchmark.variants(task)
        assert len({script("results_table")._label({"algorithm": a, "options": o}) for a, o in variants}) == len(
            variants
        )
        if task not in ("digits", "cifar3"):
            assert variants[0] == ("supervised", "--view strong")
            assert ("fixmatch", benchmark.own_options(task, "fixmatch")) in variants  # without any part
            continue
        trained = ALGORITHMS.keys() - {"frozen", "self-training"}  # which need learned weights or other runs
        assert {name for name, _ in variants} == trained
        assert len(set(variants)) == len(trained) + 2  # the supervised baseline and FixMatch twice
    words = [benchmark.command("digits", "supervised", f"--view {view}", 2).split() for view in ("weak", "strong")]
    weak, strong = (read(line[2:]).train for line in words)
    assert (weak.seed, weak.data.name) == (2, "digits.2@40")
    assert weak != strong


@pytest.mark.parametrize("algorithm", ["supervised", "mixmatch", "fixmatch"])
def test_the_three_classes_are_one_training_for_all(algorithm: str) -> None:
    from fewlabels.commands.train_options import read

    benchmark = script("algorithms")
    options = next(own for name, own in benchmark.variants("cifar3") if name == algorithm)
    train = read(benchmark.command("cifar3", algorithm, options, 3).split()[2:]).train
    told = (train.net.name, train.optim.name, train.optim.lr, train.steps, train.batch, train.data.keep_test)
    assert told == ("small-16", "sgd", 0.05, 300, 16, ("airplane", "automobile", "frog"))
    if algorithm == "mixmatch":
        assert (train.uratio, train.algorithm.ramp_steps, train.algorithm.w_match) == (1, 300, None)


def test_the_page_of_the_speedrun_has_the_ablation() -> None:
    ablation = script("ablation")
    lines = [json.loads(line) for line in (ablation.ROOT / "results" / "ablation.jsonl").read_text().splitlines()]
    page = ablation.PAGE.read_text()
    assert ablation.rendered(page, lines, 240.0) == page and "| all |" in page
    assert {line["variant"] for line in lines} <= ablation.VARIANTS.keys()
    told = [{"variant": "all", "draw": d, "budget": 1.0, "steps": 5, "accuracy": a} for d, a in ((1, 50.0), (2, 52.0))]
    told += [{"variant": "mixmatch", "draw": 2, "budget": 1.0, "steps": 7, "accuracy": 55.5}]
    table = ablation.table([*told, {**told[0], "budget": 2.0, "accuracy": 1.0}], 1.0)
    assert "| all | 5 | 50.00 52.00 |  |" in table and "| mixmatch | 7 | 55.50 | +3.50 |" in table
