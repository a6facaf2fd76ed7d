"""fewlabels report --choose: which of some runs to take where no images are held back to tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.commands.options import UsageError
from fewlabels.commands.tables import print_whole, table
from fewlabels.config.resolve import load_source
from fewlabels.data.source import Source
from fewlabels.inference.criteria import CRITERIA, criteria, mean_ranks, outputs, without_label
from fewlabels.inference.model import load_predictor
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import files, streams
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.screen import Screen, print_line
from fewlabels.training.log import bar

HEADINGS = {
    "ami": "AMI",
    "ari": "ARI",
    "v_measure": "V",
    "fmi": "FMI",
    "calinski_harabasz": "CH",
    "rankme": "RankMe",
    "bnm": "BNM",
}
LEGEND = """\
AMI, ARI, V-measure, FMI: k-means on the features against the classes predicted;
CH: Calinski-Harabasz index of k-means; RankMe: rank of the features;
BNM: nuclear norm of the probabilities. Higher is better.
rank: mean rank over the seven, 1 is the best; no label has a part in it"""


def show(paths: Sequence[Path], kind: str) -> int:
    """Print the runs, the best one first, as `kind` says: "table", "json" or "csv"."""
    runs = [Run(path) for path in paths]
    _check(runs)
    rows = without_label(runs[0].split.labeled, runs[0].split.unlabeled)
    measured = _measured(runs, rows)
    ranks = mean_ranks(np.array([[each[name] for name in CRITERIA] for each in measured]))
    made: list[dict[str, Any]] = [
        {"path": str(run.path), **each, "mean_rank": float(rank)}
        for run, each, rank in zip(runs, measured, ranks, strict=True)
    ]
    made.sort(key=lambda row: row["mean_rank"])
    if kind == "json":
        told = {"split": runs[0].split.fingerprint, "images": len(rows), "runs": made}
        print(json.dumps(told, indent=1, allow_nan=False))
    elif kind == "csv":
        streams.put(files.csv_text([list(made[0]), *(list(row.values()) for row in made)]))
    else:
        _print(made, len(rows))
    return 0


def _check(runs: Sequence[Run]) -> None:
    """Raises UsageError for a single run, RunError for one that is not finished or of another split."""
    if len(runs) < 2:
        raise UsageError(f"--choose puts runs in order, and there is only {runs[0].path}")
    first = runs[0]
    for run in runs:
        if not run.finished:
            raise RunError(
                f"{run.path} is not finished, and cannot be compared: `fewlabels train --resume {run.path}` goes on "
                "with it"
            )
        theirs, own = run.split.fingerprint, first.split.fingerprint
        if theirs != own or run.data["classes"] != first.data["classes"]:
            what = f"splits ({own[:8]} and {theirs[:8]})" if theirs != own else "classes"
            raise RunError(
                f"{first.path} and {run.path} have different {what}; --choose compares runs of the same labels and the "
                "same unlabeled images"
            )


def _measured(runs: Sequence[Run], rows: Any) -> list[dict[str, float]]:
    """The criteria of each run; images that several have in common are read once."""
    device = pick_device("auto")
    source: Source | None = None
    before: Any = None
    measured = []
    with bar("runs") as shown:
        for i, run in enumerate(runs):
            config, shape = run.config, tuple(run.data["shape"])
            if source is None or (config.data, shape) != before:
                source, before = load_source(config.data, size=shape[1:]), (config.data, shape)
                run.split.check_fit(source)
            model = load_predictor(run, device=device)
            features, logits = outputs(model, source.images, rows)
            try:
                measured.append(criteria(features.double().numpy(), logits.double().numpy()))
            except ValueError as error:
                raise ValueError(f"{run.path}: {error}") from None
            shown(i + 1, len(runs))
    return measured


def _print(made: Sequence[dict[str, Any]], images: int) -> None:
    names = [Path(row["path"]).name for row in made]
    if len(set(names)) < len(names):
        names = [row["path"] for row in made]
    cells = [
        [
            name,
            *(f"{row[c]:.3f}" for c in ("ami", "ari", "v_measure", "fmi")),
            f"{row['calinski_harabasz']:.0f}",
            f"{row['rankme']:.1f}",
            f"{row['bnm']:.4f}",
            f"{row['mean_rank']:.2f}",
        ]
        for name, row in zip(names, made, strict=True)
    ]
    out = Screen()
    print_whole(
        out, table(["run", *HEADINGS.values(), "rank"], cells, left=("run",), ruled=out.is_terminal, whole=True)
    )
    print_line(out, f"\n{LEGEND}")
    best = [row["path"] for row in made if row["mean_rank"] == made[0]["mean_rank"]]
    print_line(out, f"on {images:,} images without a label; first: {' and '.join(best)}")
    sys.stdout.flush()
