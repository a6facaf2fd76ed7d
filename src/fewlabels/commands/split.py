"""fewlabels split"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from math import inf
from typing import Annotated, Any

import numpy as np
import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.config.settings import Data
from fewlabels.data.lists import with_list
from fewlabels.data.predictions import with_even_unlabeled, with_predictions
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.data.splitfile import as_json
from fewlabels.runtime import files
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import first

LEAST = 0.95
"""Confidence from which a prediction counts, FixMatch's."""


@dataclass(frozen=True)
class Command(Data):
    """Show which images a data name labels, and write them down."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = field()
    """`NAME.SEED@SIZE-VALID`, the name of a published protocol, or a folder."""
    out: Annotated[str | None, tyro.conf.arg(aliases=("-o", "--output"))] = field(default=None, kw_only=True)
    """JSON file to write; `--data.split FILE` of `fewlabels train` takes it."""
    json: bool = field(default=False, kw_only=True)
    """Print JSON instead of a table."""
    labeled_files: str | None = field(default=None, kw_only=True)
    """Text or CSV file whose first column names the pictures that are labeled, in place of a rule that picks them."""
    pseudo_labels: str | None = field(default=None, kw_only=True)
    """CSV file of `fewlabels predict` that gives labels to unlabeled pictures."""
    unlabeled_by: str | None = field(default=None, kw_only=True)
    """CSV file of `fewlabels predict` by which the unlabeled set gets as many pictures of each class (--balance)."""
    min_confidence: float | None = field(default=None, kw_only=True)
    """Confidence from which a prediction counts; default 0.95 with --pseudo-labels, 0 with --tail or --unlabeled-by;
    at 0 all do."""
    balance: int | None = field(default=None, kw_only=True)
    """With --pseudo-labels: take this many predictions of each class, the most confident ones; 0: as many as the class
    with the fewest has. With --unlabeled-by: so many pictures of each class, drawn or repeated; default 0."""
    tail: float | None = field(default=None, kw_only=True)
    """With --pseudo-labels: take a larger share of the predictions of a class the fewer labels it has (CReST), the most
    confident ones; the higher this number, 3 in the paper, the larger are the shares of all."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels split")
    data = resolve_data(command.alone())
    for name in ("min_confidence", "balance", "tail"):
        if command.pseudo_labels is None and command.unlabeled_by is None and getattr(command, name) is not None:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} chooses among the predictions of --pseudo-labels FILE or --unlabeled-by FILE, and neither "
                "is given"
            )
    if command.pseudo_labels is not None and command.unlabeled_by is not None:
        raise UsageError(
            "--pseudo-labels and --unlabeled-by choose by the same options: give one of them, and the other in a "
            "second command with the first one's file as --split"
        )
    if command.unlabeled_by is not None and command.tail is not None:
        raise UsageError("--tail is about the labels that --pseudo-labels FILE gives: --unlabeled-by has --balance")
    if command.min_confidence is not None and not 0 <= command.min_confidence <= 1:
        raise UsageError(f"--min-confidence must lie in 0 .. 1, got {command.min_confidence:g}")
    if command.balance is not None and command.balance < 0:
        raise UsageError(f"--balance must be at least 0 (as many as the fewest), got {command.balance}")
    if command.tail is not None and not 0 < command.tail < inf:
        raise UsageError(f"--tail must be above 0, got {command.tail:g}")
    if command.tail is not None and command.balance is not None:
        raise UsageError("--tail takes more of rare classes, and --balance as many of each: give one of them")
    out = expanded(command.out) if command.out else None
    if out and out.exists():
        raise UsageError(f"{out} exists; name another file")
    if out and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} to")
    if command.labeled_files is not None and (data.labels is not None or data.split is not None):
        other = "--split" if data.split is not None else "a number of labels"
        raise UsageError(f"--labeled-files names the labeled pictures, and {other} names others: give one of them")
    source = load_source(data)
    split = split_of(replace(data, unlabeled="all") if command.labeled_files is not None else data, source)
    if command.labeled_files is not None:
        split = with_list(split, source, command.labeled_files, rest=data.unlabeled == "rest")
    if command.pseudo_labels is not None:
        usual = LEAST if command.tail is None else 0.0
        least = usual if command.min_confidence is None else command.min_confidence
        split = with_predictions(
            split, source, command.pseudo_labels, least=least, each=command.balance, tail=command.tail
        )
    if command.unlabeled_by is not None:
        least, each = command.min_confidence or 0.0, command.balance or 0
        split = with_even_unlabeled(split, source, command.unlabeled_by, least=least, each=each)
    result = as_json(split, source)
    if out:
        files.write_json(out, result)
    if command.json:
        print(json.dumps(result))
    else:
        _show(command.name, split, source)
    return 0


def _show(name: str, split: Split, source: Source) -> None:
    told = "".join(f", {key} {_text(value)}" for key, value in split.parameters.items())
    print(f"{name}: source {split.source}, rule {split.rule}, seed {split.seed}{told}")
    print(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.validation)} validation, "
        f"{len(source.test_labels)} test images"
    )
    counts = [np.bincount(labels[labels >= 0], minlength=len(source.classes)) for labels in _labels(split, source)]
    width = max(5, *map(len, source.classes))
    print(f"  {'class':{width}} {'labeled':>9} {'unlabeled':>9} {'valid':>9} {'test':>9}")
    for c, class_name in enumerate(source.classes):
        print(f"  {class_name:{width}} " + " ".join(f"{int(count[c]):9}" for count in counts))
    unknown = int((source.labels[split.unlabeled] < 0).sum())
    if unknown:
        print(f"  {unknown} of the unlabeled images have no known label, or one of another class")
    print(f"labeled images: {first(split.labeled.tolist(), 20)}")
    for note in (*source.notes, *split.remarks):
        print(note)
    print(f"fingerprint {split.fingerprint}")


def _labels(split: Split, source: Source) -> list[Any]:
    return [split.targets, *(source.labels[part] for part in (split.unlabeled, split.validation)), source.test_labels]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "on" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
