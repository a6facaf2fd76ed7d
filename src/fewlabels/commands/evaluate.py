"""fewlabels evaluate"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.commands.tables import print_whole, table
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.config.settings import Data
from fewlabels.data import names
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.protocol import Options
from fewlabels.data.source import Source
from fewlabels.inference.evaluate import evaluate, measure
from fewlabels.inference.model import load_predictor
from fewlabels.report.numbers import MATRIX
from fewlabels.runs.curves import main_part
from fewlabels.runs.run import Run
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.streams import visible
from fewlabels.training.statistics import labeled_batches, recompute_statistics


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
    recompute_bn: int | None = None
    """Measure with batch-norm statistics estimated anew on this many batches of the run's labeled images; the run stays
    as it is."""
    calibrate: bool = False
    """Measure the confidences too with the temperature that `fewlabels predict --calibrate` divides the logits by."""
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
    if command.recompute_bn is not None and command.recompute_bn < 1:
        raise UsageError(f"--recompute-bn must be at least 1, got {command.recompute_bn}")
    if command.calibrate and command.recompute_bn is not None:
        raise UsageError("--calibrate measures the run as it is, and --recompute-bn another one: leave one of them out")
    run.checkpoint(command.checkpoint)  # complain about the run before the data are read
    source = load_source(data, size=size)
    own = command.data is None
    if own and not len(source.test_labels) and any(main_part(r) == "test" for r in run.metrics("eval")[-1:]):
        raise ValueError(f"{source.name} has no test images now, which {run.path} was measured on")
    device = pick_device(command.device)
    if command.recompute_bn is None:
        which = {"checkpoint": command.checkpoint, "weights": command.weights}
        result = evaluate(run, source, **which, device=device, calibration=command.calibrate)
    else:
        result = _recomputed(run, source, command, device, source if own else _own_source(run, command.root))
    if own and (clause := run.split.difference(source)):
        print(f"note: the data of {run.path} have changed since it was trained: {clause}", file=sys.stderr)
    if command.json:
        print(json.dumps(result))
    else:
        _show(run, result)
    return 0


def _own_source(run: Run, root: str | None) -> Source:
    """The images that a run was trained on."""
    data = run.config.data
    if data.name == ARRAYS:
        raise ValueError(f"--recompute-bn needs the labeled images of {run.path}, which were arrays in memory")
    return load_source(data if root is None else replace(data, root=root), size=tuple(run.data["shape"][1:]))


def _recomputed(run: Run, source: Source, command: Command, device: torch.device, own: Source) -> dict[str, Any]:
    """The scores with statistics estimated anew, and the accuracies of both weights before and after."""
    assert command.recompute_bn is not None
    accuracies, result = {}, {}
    for weights in dict.fromkeys((command.weights, "ema", "raw")):
        model = load_predictor(run, checkpoint=command.checkpoint, weights=weights, device=device)
        before = measure(model, run, source)
        recompute_statistics(model, labeled_batches(run, own, command.recompute_bn, device))
        after = measure(model, run, source)
        accuracies[weights] = {"saved": before["accuracy"], "recomputed": after["accuracy"]}
        if weights == command.weights:
            result = after
    images = command.recompute_bn * run.config.batch
    return {**result, "recompute_bn": {"batches": command.recompute_bn, "images": images, "accuracy": accuracies}}


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
    kind = "averaged" if result["weights"] == "ema" else "raw"
    print(f"{run.path}: {kind} weights of step {result['step']} on {result['n']} {result['measured_on']} images")
    if (bn := result.get("recompute_bn")) is not None:
        print(
            f"batch-norm statistics of {bn['batches']} batches ({bn['images']} labeled images); accuracy before, after:"
        )
        for name, pair in bn["accuracy"].items():
            print(f"  {name:3} weights {pair['saved']:6.2f} %  {pair['recomputed']:6.2f} %")
    top5 = "-" if result["top5"] is None else f"{result['top5']:.2f}"
    top = [f"{result['accuracy']:.2f}", top5, f"{result['loss']:.4f}", f"{result['geometric_mean']:.2f}"]
    out.print(table(("accuracy %", "top-5 %", "loss", "geometric mean %"), [top]), "")
    print(f"expected calibration error {result['ece']:.2f} %")
    if (after := result.get("calibrated")) is not None:
        by = f"temperature {after['temperature']:.4f} of {after['images']} validation images"
        print(f"  with the {by}: {after['ece']:.2f} %, loss {after['loss']:.4f}")
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
    """Accuracy per class and the confusion matrix (up to `MATRIX` classes)."""
    confusion = result["confusion"]
    digits = classes == [str(i) for i in range(len(classes))]
    heads = [str(i) for i in range(len(classes))] if len(classes) <= MATRIX else []
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
