"""fewlabels evaluate"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from fewlabels.commands.options import parse
from fewlabels.commands.tables import print_whole, table
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.config.settings import Data
from fewlabels.data import names
from fewlabels.data.protocol import Options
from fewlabels.inference.evaluate import evaluate
from fewlabels.runs.curves import main_part
from fewlabels.runs.run import Run
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.streams import visible
from fewlabels.training.step import pick_device


@dataclass(frozen=True, kw_only=True)
class Command:
    """Measure a run: accuracy, precision, recall, F1, per class, confusion matrix, medians over the evaluations."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    data: str | None = None
    """Another data set or folder to measure on; default: the run's own."""
    root: str | None = None
    """Folder of the named data sets; default: the run's own."""
    checkpoint: str = "last"
    """last, best or a step."""
    weights: str = "ema"
    """ema or raw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print one JSON object instead of tables."""
    list: bool = False
    """Only list the checkpoints that are kept."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels evaluate")
    run = Run(command.run)
    if command.list:
        _list(run, command.json)
        return 0
    data, size = run.config.data, None
    if command.data is not None:
        fresh = Data(command.data)  # the protocol is that of the run's own data set
        fields = ("name", "labels", "seed", "valid", "rule", "labeled", "unlabeled", "test", "split", *Options._fields)
        data = resolve_data(replace(data, **{field: getattr(fresh, field) for field in fields}))
        if names.parse(command.data).folder:
            size = tuple(run.data["shape"][1:])
    if command.root is not None:
        data = replace(data, root=command.root)
    run.checkpoint(command.checkpoint)  # complain about the run before the data are read
    source = load_source(data, size=size)
    own = command.data is None
    if own and not len(source.test_labels) and any(main_part(r) == "test" for r in run.metrics("eval")[-1:]):
        raise ValueError(f"{source.name} has no test images now, which {run.path} was measured on")
    result = evaluate(
        run,
        source,
        checkpoint=command.checkpoint,
        weights=command.weights,
        device=pick_device(command.device),
    )
    if own and (clause := run.split.difference(source)):
        print(f"note: the data of {run.path} have changed since it was trained: {clause}", file=sys.stderr)
    if command.json:
        print(json.dumps(result))
    else:
        _show(run, result)
    return 0


def _list(run: Run, as_json: bool) -> None:
    records = {r["step"]: r for r in run.metrics("eval")}
    rows: list[dict[str, Any]] = []
    for checkpoint in run.checkpoints():
        record = records.get(checkpoint.step, {})
        part = main_part(record)
        accuracy = record[part]["ema"]["accuracy"] if part else None
        rows.append(
            {
                "step": checkpoint.step,
                "best": checkpoint.best,
                "accuracy": accuracy,
                "path": str(checkpoint.path),
            }
        )
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        kind = "best" if row["best"] else "    "
        accuracy = f"{row['accuracy']:6.2f} %" if row["accuracy"] is not None else "        "
        print(f"step {row['step']:>8}  {kind}  {accuracy}  {row['path']}")


def _show(run: Run, result: dict[str, Any]) -> None:
    out = Screen()
    print(
        f"{run.path}: {result['weights']} weights of step {result['step']} on {result['n']} "
        f"{result['measured_on']} images"
    )
    top5 = "-" if result["top5"] is None else f"{result['top5']:.2f}"
    top = [f"{result['accuracy']:.2f}", top5, f"{result['loss']:.4f}", f"{result['geometric_mean']:.2f}"]
    out.print(table(("accuracy %", "top-5 %", "loss", "geometric mean %"), [top]), "")
    averages = [
        [name, *(f"{result[f'{name}_{m}']:.2f}" for m in ("precision", "recall", "f1"))]
        for name in ("macro", "weighted")
    ]
    out.print(table(("", "precision %", "recall %", "F1 %"), averages), "")
    if "last1" in result:
        medians = "  ".join(f"{n}: {result[f'last{n}']:.2f}" for n in (1, 10, 20, 50))
        print(f"median accuracy of the last evaluations  {medians}")
        print(f"mean of the last 10: {result['mean10']:.2f}  20: {result['mean20']:.2f}  best: {result['best']:.2f}\n")
    _classes(out, run.data["classes"], result)


def _classes(out: Screen, classes: Sequence[str], result: dict[str, Any]) -> None:
    """Accuracy per class and the confusion matrix (up to 20 classes)."""
    confusion = result["confusion"]
    digits = classes == [str(i) for i in range(len(classes))]
    heads = [str(i) for i in range(len(classes))] if len(classes) <= 20 else []
    title = "rows: true class, columns: prediction" if heads else ""
    rows = []
    for i, (name, row) in enumerate(zip(classes, confusion, strict=True)):
        if sum(row):
            counts = [str(n) if n else "." for n in row] if heads else []
            name = visible(name, lines=False)
            shown = name if digits or not heads else f"{name} ({i})"
            rows.append([shown, f"{result['per_class'][classes[i]]:.2f}", *counts])
    if title:
        print(title)
    print_whole(out, table(("class", "accuracy %", *heads), rows, whole=True))
