"""docs/results.md from results/*.jsonl.

    python benchmarks/results_table.py

The tables of the algorithms come from the files that algorithms.py writes, and hold every algorithm that is in them.
Of several lines with the same algorithm, options and seed the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.tables import Table, markdown
from fewlabels.algorithms.frozen import NAMES
from fewlabels.runs.report import mean_and_deviation

ROOT = Path(__file__).parents[1]
Record = Mapping[str, Any]

TASKS = {
    "digits": (
        "Digits, 40 labels",
        "40 labels and 1,437 unlabeled images of scikit-learn's 8 x 8 digits, 360 test images; each algorithm with "
        "its recipe. A draw of the labels for each seed.",
    ),
    "cifar3": (
        "Three classes of CIFAR-10, 75 labels",
        "Airplane, automobile and frog: 75 labels, 15,000 unlabeled and 3,000 test images of 32 x 32; one net and one "
        "optimizer for all, few steps (the reasons are in `benchmarks/algorithms.py`). A draw of the labels for each "
        "seed.",
    ),
    "missing": (
        "Digits, labels missing not at random",
        "Labels of the 8 x 8 digits with a long tail, 20 of class 0 and 1 of class 9, 72 in all; the 1,437 unlabeled "
        "and the 360 test images have none. A draw of the labels for each seed.",
    ),
    "missing3": (
        "Three classes of CIFAR-10, labels missing not at random",
        "Airplane, automobile and frog with 50, 33 and 4 labels, 5,000 unlabeled and 1,000 test images of each; net "
        "and optimizer as above. A draw of the labels for each seed.",
    ),
    "tail": (
        "Digits with a long tail",
        "Of labels (20 of class 0, 1 of class 9, 72 in all) and unlabeled images (518) alike; the 360 test images have "
        "none. FixMatch with each part of `--imbalance` and by CReST, all with their defaults; the seconds of "
        "generations are those of the last. A draw of the labels for each seed.",
    ),
    **{
        f"foreign{share}": (
            f"Digits, {share} % of the unlabeled images are of no class",
            f"About 24 labels of the digits 0 to 5, which the test images show too; the unlabeled images show "
            f"{classes}. A draw of the labels for each seed.",
        )
        for share, classes in {0: "2 to 5", 50: "4 to 7", 100: "6 to 9"}.items()
    },
    **{
        f"foreign-cifar{share}": (
            f"Four classes of CIFAR-10, {share} % of the unlabeled images are of no class",
            f"Airplane, automobile, deer and frog with about 25 labels each and 1,000 test images; 20,000 unlabeled "
            f"images of {classes}. Net and optimizer as above. A draw of the labels for each seed.",
        )
        for share, classes in {
            0: "the same classes",
            50: "deer, frog, horse and ship",
            100: "horse, ship, bird and truck",
        }.items()
    },
}
GEOMETRIC = {"missing", "missing3", "tail"}
"""Tasks on which the geometric mean of the classes' accuracies counts as well."""
REMARKS = {
    ("digits", "vat"): "84.72 with an eps of 6 ([LOG.md](../LOG.md))",
    ("digits", "mixmatch"): "96.94 with a ramp of 125 steps",
    ("digits", "mixup"): "learns its own guesses from the first step on ([why](algorithms/mixup.md))",
    ("cifar3", "mixmatch"): "33.33 with a weight of 100 and a ramp of 75 steps ([LOG.md](../LOG.md))",
    ("cifar3", "mean-teacher"): "76.42 with a weight of 50",
    ("cifar3", "pi-model"): "78.39 with a weight of 10",
}
"""What experiments showed beyond the number, by task and row: what other settings gave, with the same seeds."""

HEAD = """\
# Results

Written by `python benchmarks/results_table.py` from the files in `results/`, a line for each finished training.
Accuracy in percent on the test images, of the averaged weights after the last step. Behind ± stands the standard
deviation over seeds (of a sample, over n - 1).

The tables of all algorithms are short trainings of small nets, which show that the algorithms work and what they cost.
They do not say which method is the best one: that takes the papers' nets and schedules.
"""
FROZEN = """\
[frozen](algorithms/frozen.md) with EfficientNet-Lite0 as its package ships it. What each method reaches on the test
images; what the judge takes by a cross-validation over the labels, its gain over labels only, and what it expected; and
how often it took which. A draw of the labels for each n, as many of each class. By `python benchmarks/frozen.py`.
"""
PHOTOS = """\
What `fewlabels train --data FOLDER` comes to on a CPU, where the weights of EfficientNet-Lite0 are at hand: the recipe
is [frozen](algorithms/frozen.md). Beside it logistic regression on the same features with the labels only, which each
such run reports, too. The other rows are what else a CPU can do in some minutes: the same net tuned in some steps, on
the labels alone, by [self-training](algorithms/self-training.md) with two teachers, and by
[FixMatch](algorithms/fixmatch.md#on-a-pretrained-net) with its usual settings and with SWIFT's cures; and a small net
from scratch, by FixMatch and on the labels alone. 10 labels of each class, a draw for each n; CPU minutes are those of
a run, in brackets with decoded pictures and features on the disk. The sets are folders of photographs in public
repositories, made by `python benchmarks/photos.py make`.
"""
NOTE = """\
Difference: to the baseline with the same seed, in percentage points. The baseline is the better one of the two
supervised trainings. Last 10: median over the last ten evaluations, or over all if there are fewer. CPU seconds: the
work of all threads, with imports and reading, which a busy machine changes less than the seconds.
"""


LOOP = """\
Digits, 10 labels at first, then rounds of 10 answers by a script that knows the truth, to the questions of
[`fewlabels label`](label.md); each round goes on from the run before (`--from`) with as many steps again. FixMatch,
`small-8`, all 1,437 unlabeled images, 360 test images. Of one draw all rules share the first run. Behind ± stands the
standard deviation over the draws; the difference is that to random choice with the same draw, in percentage points.
"""


def label_loop(records: Sequence[Record]) -> str:
    """A row for each number of labels, a column for each way to choose."""
    runs: dict[str, dict[int, dict[int, Record]]] = {}
    for record in records:
        runs.setdefault(record["rule"], {}).setdefault(record["labels"], {})[record["draw"]] = record
    rules = [rule for rule in runs if rule != "random"]
    rows = []
    for labels, chance in sorted(runs["random"].items()):
        row = [str(labels), str(len(chance)), _text(*_spread(chance.values(), "accuracy"), 2)]
        for rule in rules:
            own = runs[rule][labels]
            gains = [{"x": own[draw]["accuracy"] - chance[draw]["accuracy"]} for draw in sorted(own.keys() & chance)]
            row += [_text(*_spread(own.values(), "accuracy"), 2), _text(*_spread(gains, "x"), 2, sign="+")]
        rows.append(row)
    head = ("labels", "n", "random", *(text for rule in rules for text in (rule, "difference")))
    steps, commits = (", ".join(dict.fromkeys(str(r[key]) for r in records)) for key in ("steps", "commit"))
    facts = f"{steps} steps in each round, one CPU thread of a busy machine; commit {commits}.\n"
    command = "```bash\npython benchmarks/label_loop.py\n```\n"
    return "\n".join([markdown(Table(head, rows), left=()), facts, command])


def render(folder: Path) -> str:
    """The text of docs/results.md for a folder of jsonl files."""
    parts = [HEAD]
    for task, (title, about) in TASKS.items():
        file = folder / f"algorithms_{task}.jsonl"
        if file.is_file():
            parts.append(f"## {title}\n\n{about}\n\n{algorithms(task, load(file))}")
    if (file := folder / "frozen.jsonl").is_file():
        parts.append(f"## Frozen features\n\n{FROZEN}\n{frozen(load(file))}")
    if (file := folder / "photos.jsonl").is_file():
        parts.append(f"## Photographs\n\n{PHOTOS}\n{photographs(load(file))}")
    if (file := folder / "label_loop.jsonl").is_file():
        parts.append(f"## The label loop\n\n{LOOP}\n{label_loop(load(file))}")
    tables = ("algorithms_", "frozen", "photos", "label_loop", "published", "speedrun", "ablation")
    files = [file for file in sorted(folder.glob("*.jsonl")) if not file.stem.startswith(tables)]
    others = [(file, load(file)) for file in files]
    if others:
        parts.append("## Single runs\n\nWhat they were made for is in [LOG.md](../LOG.md).\n")
        parts += [f"### {file.name}\n\n{single(records)}" for file, records in others]
    return "\n".join(parts)


def load(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def algorithms(task: str, records: Sequence[Record]) -> str:
    """Table, facts and commands of a task, best algorithm first."""
    runs: dict[str, dict[int, Record]] = {}
    for record in records:
        runs.setdefault(_label(record), {})[record["seed"]] = record
    means = {label: _spread(by_seed.values(), "accuracy")[0] for label, by_seed in runs.items()}
    order = sorted(runs, key=lambda label: (-means[label], label))
    baseline = next((label for label in order if _first(runs[label])["algorithm"] == "supervised"), None)
    rows = []
    for label in order:
        by_seed = runs[label]
        difference, remark = _compare(by_seed, runs[baseline]) if baseline else ("", "")
        if label == baseline:
            difference, remark = "", "the baseline"
        remark = "; ".join(filter(None, (remark, REMARKS.get((task, label)))))
        second = "geometric_mean" if task in GEOMETRIC else "last10"
        cells = [_text(*_spread(by_seed.values(), key), 2) for key in ("accuracy", second)]
        seconds = [_text(_spread(by_seed.values(), key)[0], None, 0) for key in ("seconds", "cpu_seconds")]
        rows.append([label, cells[0], difference, cells[1], str(len(by_seed)), *seconds, remark])
    last = "geometric mean" if task in GEOMETRIC else "last 10"
    head = ("algorithm", "accuracy", "difference", last, "n", "seconds", "CPU seconds", "remark")
    counted = [record for by_seed in runs.values() for record in by_seed.values()]
    commands = [min(by_seed.items())[1]["command"] for by_seed in (runs[label] for label in order)]
    seeds = sorted({record["seed"] for record in counted})
    return "\n".join(
        [
            markdown(Table(head, rows), left=(0, 7)),
            NOTE,
            f"{_facts(counted)} Again: `python benchmarks/algorithms.py {task}`, which runs for the seeds "
            f"{', '.join(map(str, seeds))} what follows here for {seeds[0]}:\n",
            "```bash",
            *commands,
            "```\n",
        ]
    )


def frozen(records: Sequence[Record]) -> str:
    """A row for each data set and number of labels."""
    draws: dict[tuple[str, int], dict[int, Record]] = {}
    for record in records:
        draws.setdefault((record["name"], record["labels"]), {})[record["draw"]] = record
    rows, facts = [], []
    for (name, labels), by_draw in draws.items():
        runs = list(by_draw.values())
        cells = [_text(*_spread(({"x": r["methods"][m]} for r in runs), "x"), 1) for m in NAMES]
        gain = _text(*_spread(({"x": r["accuracy"] - r["methods"]["labels"]} for r in runs), "x"), 1, sign="+")
        taken = ", ".join(f"{m} {n}" for m in NAMES if (n := sum(r["method"] == m for r in runs)))
        told = [_text(*_spread(runs, key), 1) for key in ("accuracy", "expected")]
        rows.append([name, str(labels), *cells, told[0], gain, told[1], taken, str(len(runs))])
    for name in dict.fromkeys(record["name"] for record in records):
        own = [r for r in records if r["name"] == name]
        commits = ", ".join(dict.fromkeys(r["commit"] for r in own))
        facts.append(
            f"{name}: {own[0]['pictures']:,} unlabeled and {own[0]['tests']:,} test images; {own[0]['device']}; torch "
            f"{own[0]['versions']['torch']}; commit {commits}. The first draw:\n\n```bash\n{own[0]['command']}\n```\n"
        )
    head = ("data", "labels", "labels only", *list(NAMES)[1:], "the judge's", "gain", "expected", "taken", "n")
    return markdown(Table(head, rows), left=(0, 9)) + "\n" + "\n".join(facts)


KINDS = {
    "default": "default: {}",
    "tuned": "labels only, tuned",
    "self-training": "self-training, tuned",
    "FixMatch": "FixMatch, tuned",
    "FixMatch with cures": "FixMatch, tuned, with cures",
    "from scratch": "FixMatch, from scratch",
}
"""What rows of photographs are called, by their kind; braces are the algorithm."""
BESIDE = {
    "default": ("labels_only", "labels only, the same features"),
    "from scratch": ("supervised", "supervised, from scratch"),
}
"""What else a run of a kind has measured: its name in result.json, and that of the row."""


def photographs(records: Sequence[Record]) -> str:
    """Rows for each set and size of the pictures: the default, and what it is compared with."""
    runs: dict[tuple[str, int], dict[str, dict[int, Record]]] = {}
    for record in records:
        kinds = runs.setdefault((record["name"], record["image_size"]), {})
        kinds.setdefault(record["kind"], {})[record["draw"]] = record
    rows, commands = [], []
    for (name, size), kinds in runs.items():
        for kind, by_draw in kinds.items():
            draws = [by_draw[draw] for draw in sorted(by_draw)]
            title = KINDS[kind].format(draws[0]["algorithm"])
            fresh = [record for record in draws if record["fresh"]] or draws
            minutes = f"{sum(record['cpu_seconds'] for record in fresh) / len(fresh) / 60:.1f}"
            minutes = minutes if fresh[0]["fresh"] or kind != "default" else f"({minutes})"
            told = ", ".join(
                f"{m} {sum((r.get('fit') or {}).get('method') == m for r in draws)}"
                for m in dict.fromkeys((r.get("fit") or {}).get("method") for r in draws)
                if m
            )
            rows.append([name, str(size), title, _text(*_spread(draws, "accuracy"), 1), str(len(draws)), minutes, told])
            if kind in BESIDE:
                other, label = BESIDE[kind]
                compared = [{"x": record["compared"][other]} for record in draws]
                rows.append([name, str(size), label, _text(*_spread(compared, "x"), 1), str(len(draws)), "", ""])
            commands.append(draws[0]["command"])
    head = ("data", "pixels", "what", "accuracy", "n", "CPU minutes", "taken")
    torch = " or ".join(dict.fromkeys(r["versions"]["torch"] for r in records))
    devices = " or ".join(dict.fromkeys(r["device"] for r in records))
    commits = ", ".join(dict.fromkeys(r["commit"] for r in records))
    facts = f"{devices}; torch {torch}; commit {commits}. The first draws:\n"
    return "\n".join([markdown(Table(head, rows), left=(0, 2, 6)), facts, "```bash", *commands, "```\n"])


PARTS = {"--missing", "--openset", "--percent-mask", "--imbalance", "--generations"}
"""Options that make a row of their own."""


def _label(record: Record) -> str:
    """The algorithm; the supervised one with its views, of which there are two rows, as of FixMatch."""
    options = record["options"].split()
    views = f", {options[options.index('--view') + 1]} views" if "--view" in options else ""
    passes = ", weak pass apart" if "separate-weak" in options else ""
    parts = " ".join(options) if PARTS & set(options) else ""
    return f"{record['algorithm']}{views}{passes} {parts}".rstrip()


def _first(by_seed: Mapping[int, Record]) -> Record:
    return next(iter(by_seed.values()))


def _spread(records: Any, key: str) -> tuple[float, float | None]:
    mean, deviation = mean_and_deviation([record[key] for record in records])
    assert mean is not None
    return mean, deviation


def _compare(runs: Mapping[int, Record], baseline: Mapping[int, Record]) -> tuple[str, str]:
    """Mean difference over the seeds that both have, and the remark on what is no clear gain."""
    both = sorted(runs.keys() & baseline.keys())
    gains = [runs[seed]["accuracy"] - baseline[seed]["accuracy"] for seed in both]
    mean, deviation = mean_and_deviation(gains)
    if mean is None:
        return "", "no seed in common with the baseline"
    better = sum(gain > 0 for gain in gains)
    remark = "" if better == len(both) else f"beats the baseline with {better} of {len(both)} seeds only"
    return _text(mean, deviation, 2, sign="+"), remark if mean > 0 else "does not beat the baseline"


def _facts(records: Sequence[Record]) -> str:
    """Steps, parameters, hardware and commits; house rule 10."""

    def every(values: Any) -> str:
        return " or ".join(dict.fromkeys(map(str, values)))

    steps, parameters = (every(f"{record[key]:,}" for record in records) for key in ("steps", "parameters"))
    torch, device = every(r["versions"]["torch"] for r in records), every(r["device"] for r in records)
    commits = ", ".join(dict.fromkeys(record["commit"] for record in records))
    return f"{steps} steps, {parameters} parameters. {device}; torch {torch}; commit {commits}."


def single(records: Sequence[Record]) -> str:
    """A row for each run."""
    rows = []
    for r in records:
        numbers = [f"{r[key]:.2f}" for key in ("accuracy", "last20")]
        command = f"`{r['command']}`"
        where = f"{r['device']}, {r['commit']}"
        rows.append(
            [r["algorithm"], *numbers, f"{r['steps']:,}", str(r["seed"]), f"{r['seconds']:.0f}", where, command]
        )
    head = ("algorithm", "accuracy", "last 20", "steps", "seed", "seconds", "device, commit", "command")
    return markdown(Table(head, rows), left=(0, 6, 7))


def _text(mean: float, deviation: float | None, digits: int, sign: str = "") -> str:
    return f"{mean:{sign}.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def main() -> None:
    (ROOT / "docs" / "results.md").write_text(render(ROOT / "results"))


if __name__ == "__main__":
    main()
