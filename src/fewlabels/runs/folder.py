"""What lies in a run folder, and whether a folder is one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fewlabels.config.settings import Train, algorithm_name
from fewlabels.data.names import stem
from fewlabels.runs import records
from fewlabels.runs.records import RunError

SETTINGS = ("split.json", "data.json", "config.json")
"""Files from before the first step, in the order in which they are removed: config.json shows that it is a run."""

VOTES = "votes.npy"
"""What the teachers of a run say of its unlabeled images."""

NEXT_PREDICTIONS, NEXT_SPLIT = "next-predictions.csv", "next-split.json"
"""What a generation of CReST says of its unlabeled images, and the labels that the next one has of that."""

FOUND = ("foreign",)
"""Names of the `Findings` of algorithms."""

TABLE, SHEET = ".csv", ".png"
"""Suffixes of the files that tell them."""

EVIDENCE, PAGE = "evidence.json", "report.html"
"""What the finished model says of the pictures that it is measured on, and the page about the run."""

WHOLE = "weights.safetensors"
"""The whole averaged model after the last step, of a run whose checkpoints hold what learns only."""

PARTS = (
    "result.json",
    PAGE,
    EVIDENCE,
    *(name + end for name in FOUND for end in (TABLE, SHEET)),
    WHOLE,
    "baseline",
    "checkpoints",
    "tensorboard",
    "metrics.jsonl",
    VOTES,
    NEXT_SPLIT,
    NEXT_PREDICTIONS,
    *SETTINGS,
)
"""Files and folders of a run, which go when it is replaced; whatever else lies in the folder stays."""

LITTER = (".lock", *(f".{name}.tmp" for name in PARTS))
"""Names of further files that a killed process may leave."""


def is_run(path: Path) -> bool:
    """Whether the folder's config.json is that of a run, however damaged, and not another program's."""
    try:
        records.settings(path)
    except RunError:
        return any(os.path.lexists(path / name) for name in PARTS if name != "config.json")
    return True


def has_begun(path: Path) -> bool:
    """Whether a run has more to show than its settings."""
    saved = [p for p in (path / "checkpoints").glob("*") if not p.name.startswith(".")]
    records_ = path / "metrics.jsonl"
    return (
        bool(saved)
        or any(os.path.lexists(path / n) for n in ("result.json", "baseline"))
        or (os.path.lexists(records_) and not (records_.is_file() and records_.stat().st_size == 0))
    )


def clear(path: Path) -> None:
    """Remove a run, so that what is left when this is killed is still one that can be replaced."""
    for part in (path / name for name in (*PARTS, *LITTER[1:])):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def run_name(train: Train) -> str:
    """`DATA-ALGORITHM-sSEED`, the folder name of a run that was given none."""
    return f"{stem(train.data.name)}-{algorithm_name(train.algorithm)}-s{train.seed}"


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3`, ... that does not exist."""
    path, n = parent / name, 1
    while os.path.lexists(path):
        n += 1
        path = parent / f"{name}-{n}"
    return path
