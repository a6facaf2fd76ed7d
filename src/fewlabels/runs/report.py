"""Many runs side by side: what each reached, and mean and standard deviation over seeds.

Reads the JSON files of run folders and nothing else: no torch here, so that a report starts at once.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewlabels.data.names import parse
from fewlabels.runs import records
from fewlabels.runs.curves import curve, main_part
from fewlabels.runs.records import RunError
from fewlabels.runtime.checked import flat
from fewlabels.runtime.regular import real

MEASURES = (
    "accuracy",
    "last1",
    "last10",
    "last20",
    "last50",
    "mean10",
    "mean20",
    "best_on_test",
    "geometric_mean",
    "labels_only",
    "seconds",
)
"""The numbers of a run: accuracies in percent, of the averaged weights; `labels_only` is that of a logistic regression
on the features of a learned net, where the run has it to compare with."""

SEEDS = ("seed", "data.seed")
"""Settings in which the runs of a group may differ: the seeds of the training and of the split."""

_SHOWN = {*SEEDS, "algorithm.name", "data.name", "net.name", "steps"}


class DamagedRun(RunError):
    """A run folder whose records cannot be read; the message is one sentence."""


@dataclass(frozen=True)
class Entry:
    """A run as the report knows it."""

    row: dict[str, Any]
    """The cells of the run's row, by column; None where there is nothing to show."""
    settings: dict[str, Any]
    """config.json by dotted name, with the data's name without its seed, and what a split file held."""

    @property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(self.settings.get(name) for name in SEEDS)


def find(folder: Path) -> list[Path]:
    """The run folders at `folder` and below it, baselines included, sorted.

    Raises ValueError if there is none, or where a folder cannot be read, which may hold some.
    """

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}")

    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, and no run" if folder.exists() else f"there is no run folder {folder}")
    found = []
    for path, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(set(folders) - {"checkpoints", "tensorboard"})
        if "config.json" in names:
            found.append(Path(path))
    if not found:
        raise ValueError(f"{folder} is not a run folder and has none below it: there is no config.json")
    return found


def read(path: Path) -> Entry:
    """The entry of a run folder, from its records. Raises DamagedRun.

    The measures come from metrics.jsonl. Of an unfinished run the medians and means are those so far, and what
    only the end can say (`accuracy`, `geometric_mean`, `seconds`) is None. `seconds` is None as well for a run
    that was resumed, as result.json has the time of its last stretch only; `best_on_test` for one that was not
    measured on test images.
    """
    try:
        train = records.settings(path)
        finished = records.finished(path)
        result = records.result(path) if finished else {}
        labeled = records.parsed(path / "data.json").get("labeled_counts") if (path / "data.json").exists() else None
        lines = records.metrics(path)
        evaluations = [r for r in lines if r["kind"] == "eval"]
        if finished and not evaluations:
            raise DamagedRun(f"{path} is finished, and its metrics.jsonl has no evaluation: put the file back")
        part = main_part(evaluations[-1]) if evaluations else None
        settings = {k: v for k, v in flat(train).items() if k not in records.FREE_TO_CHANGE}
        if settings.get("data.split") is not None:  # the file may hold another split by now, as for another run
            settings["data.split"] += f" ({records.parsed(path / 'split.json')['fingerprint'][:8]})"
        row: dict[str, Any] = {
            "name": _name(path),
            "path": str(path),
            "algorithm": settings["algorithm.name"],
            "data": settings["data.name"],
            "net": settings["net.name"],
            "steps": settings["steps"],
            "steps_done": settings["steps"] if finished else max((r["step"] for r in lines), default=0),
            "finished": finished,
            "seed": settings["seed"],
            "split_seed": settings["data.seed"],
            "labels": None if labeled is None else sum(labeled),
            "device": result.get("device"),
            "measured_on": part,
            **dict.fromkeys(MEASURES),
            **curve([_finite(r[part]["ema"]["accuracy"]) for r in evaluations] if part else []),
        }
        best = row.pop("best", None)
        row["best_on_test"] = best if part == "test" else None
        if finished:
            row["accuracy"] = row["last1"]
            row["geometric_mean"] = _finite(evaluations[-1][part]["ema"]["geometric_mean"]) if part else None
            plain = (result.get("compared") or {}).get("labels_only")
            row["labels_only"] = None if plain is None else _finite(plain)
            row["seconds"] = _finite(result["seconds"]) if not result.get("seconds_from_step") else None
    except RunError as error:
        raise DamagedRun(str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedRun(f"the records of {path} are damaged ({type(error).__name__}: {error})") from None
    return Entry(row, {**settings, "data.name": _seedless(settings["data.name"])})


def groups(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The runs that differ in their seeds alone, two at least, with mean and sample standard deviation.

    Only finished runs count; `n` is their number, `over` says which seeds differ among them, and `repeats` how many
    have both seeds of another one. A mean is None unless every one of the n runs has the number, and a standard
    deviation with n below 2. `settings` are those that tell this group from the other groups of its algorithm,
    beside the columns.
    """
    together: dict[str, list[Entry]] = {}
    for entry in entries:
        key = json.dumps({k: v for k, v in entry.settings.items() if k not in SEEDS}, sort_keys=True)
        together.setdefault(key, []).append(entry)
    found = [members for members in together.values() if len(members) > 1]
    out = []
    for members in found:
        done = [entry for entry in members if entry.row["finished"]]
        spread = {m: mean_and_deviation([entry.row[m] for entry in done]) for m in MEASURES}
        settings, row = members[0].settings, members[0].row
        kin = [other[0].settings for other in found if other[0].row["algorithm"] == row["algorithm"]]
        counts = {entry.row["labels"] for entry in members}
        out.append(
            {
                "algorithm": row["algorithm"],
                "data": settings["data.name"],
                "net": row["net"],
                "steps": row["steps"],
                "labels": counts.pop() if len(counts) == 1 else None,
                "settings": {k: settings.get(k) for k in _varying(kin) if k not in _SHOWN},
                "runs": [entry.row["path"] for entry in members],
                "n": len(done),
                "unfinished": len(members) - len(done),
                "over": _over(done),
                "repeats": len(done) - len({entry.seeds for entry in done}),
                "mean": {m: mean for m, (mean, _) in spread.items()},
                "std": {m: deviation for m, (_, deviation) in spread.items()},
            }
        )
    return out


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (over n - 1); None where there are too few values, or one is None."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def _over(entries: Sequence[Entry]) -> str | None:
    """What differs among runs of one group; None for fewer than two runs, or if all have the same seeds."""
    training, split = (len({entry.seeds[i] for entry in entries}) > 1 for i in range(len(SEEDS)))
    if training and split:
        return "both"
    return "training seed" if training else "split seed" if split else None


def _varying(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same everywhere."""
    first, *others = settings
    names = dict.fromkeys(name for each in (first, *others) for name in each)
    return [name for name in names if any(other.get(name) != first.get(name) for other in others)]


def _seedless(name: str) -> str:
    try:
        return str(replace(parse(name), seed=None))
    except ValueError:  # arrays in memory have no name of the grammar
        return name


def _name(path: Path) -> str:
    """The folder's name; that of the run before it, if it lies in one (``RUN/baseline``)."""
    path = real(path)
    return f"{path.parent.name}/{path.name}" if (path.parent / "config.json").is_file() else path.name


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
