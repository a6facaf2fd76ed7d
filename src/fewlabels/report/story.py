"""A run as a report tells it: its records, its evidence, and what its doctor says."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fewlabels.config.recipes import recipe
from fewlabels.config.settings import Train
from fewlabels.data.arrays import ARRAYS
from fewlabels.report import evidence
from fewlabels.report.doctor import Case, Finding, findings
from fewlabels.report.numbers import Counts, against, margin
from fewlabels.runs import records
from fewlabels.runs.curves import main_part
from fewlabels.runs.report import DamagedRun, Entry, read
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.checked import flat

PARTS = {"test": "test pictures", "valid": "validation pictures", "train": "labeled pictures"}
"""What an accuracy is measured on, in words."""


@dataclass(frozen=True, eq=False)
class Story:
    """What a run folder says."""

    path: Path
    entry: Entry
    settings: Mapping[str, Any]
    """config.json by dotted name."""
    data: Mapping[str, Any]
    """data.json."""
    split: Mapping[str, Any]
    """What identifies the split: source, rule, seed, fingerprint, class_counts, lineage."""
    result: Mapping[str, Any]
    """result.json; empty for a run that is not finished."""
    logs: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    evidence: Mapping[str, Any] | None
    usual_lr: float | None
    version: str
    """Of fewlabels, as config.json has it."""
    notes: Sequence[str] = ()
    """Why something is not there."""
    baseline: Sequence[Mapping[str, Any]] = field(default=())
    """Evaluations of the supervised baseline in the run's folder."""

    @property
    def classes(self) -> list[str]:
        return list(self.data["classes"])

    @property
    def part(self) -> str | None:
        """What the accuracy is measured on."""
        return main_part(self.evaluations[-1]) if self.evaluations else None

    @property
    def scores(self) -> Mapping[str, Any] | None:
        """The last evaluation's, of the averaged weights on `part`."""
        part = self.part
        return None if part is None else self.evaluations[-1][part]["ema"]

    @cached_property
    def counts(self) -> Counts | None:
        return None if self.evidence is None else Counts.of(len(self.classes), self.evidence["confusion"])

    @property
    def finished(self) -> bool:
        return bool(self.entry.row["finished"])

    @cached_property
    def case(self) -> Case:
        known = self.evidence or {}
        surplus = None
        if known:
            surplus = 100 * sum(sure - right for _, right, sure in known["bins"]) / known["n"]
        pool = known.get("pool")
        return Case(
            settings=self.settings,
            usual_lr=self.usual_lr,
            labeled=self.split["class_counts"],
            unlabeled=int(self.split["unlabeled"]),
            finished=self.finished,
            classes=self.classes,
            logs=self.logs,
            evaluations=self.evaluations,
            counts=self.counts,
            pool=pool and pool["called"],
            surplus=surplus,
        )

    @cached_property
    def findings(self) -> list[Finding]:
        return findings(self.case)

    @property
    def compared(self) -> Mapping[str, float]:
        """Accuracies that the run's own is compared with: `supervised`, `labels_only`."""
        known = {**self.data.get("compared", {}), **self.result.get("compared", {})}
        return {name: float(value) for name, value in known.items()}

    def verdict(self) -> str:
        """The result in a sentence or two."""
        scores, part = self.scores, self.part
        name = str(self.settings["algorithm.name"])
        if scores is None or part is None:
            return f"{name} was stopped after {self.entry.row['steps_done']} steps, before it was evaluated."
        accuracy, n = float(scores["accuracy"]), int(scores["n"])
        step = self.evaluations[-1]["step"]
        begin = name if self.finished else f"Stopped: after {step:,} of {self.settings['steps']:,} steps {name}"
        said = f"{begin} is right on {accuracy:.1f} % of {n:,} {PARTS[part]}"
        if part == "train":
            return (
                f"{said}, which it was trained on: that says nothing about others. Without test or validation pictures "
                "nobody knows how good it is."
            )
        clauses = [
            clause
            for key, what in (
                ("supervised", "the same training on the labels alone"),
                ("labels_only", "a logistic regression of the labels on a learned net's features"),
            )
            if key in self.compared
            for clause in [_clause(accuracy, self.compared[key], n, what)]
        ]
        off = margin(accuracy, n)
        if not clauses:
            return f"{said} (± {off:.1f} on so many). It was not compared with the labels alone."
        return f"{said}: {', and '.join(clauses)}. On so many pictures a number is sure to ± {off:.1f} points."

    def repeat(self) -> str | None:
        """The command that trains it again, or None for images from arrays."""
        if self.settings["data.name"] == ARRAYS:
            return None
        config = shlex.quote(str(self.path / "config.json"))
        return f"fewlabels train --config {config} --out {shlex.quote(str(self.path) + '-again')}"


def _clause(accuracy: float, other: float, n: int, what: str) -> str:
    off = abs(accuracy - other)
    how = {
        "better": f"{off:.1f} points more than {what} ({other:.1f} %)",
        "worse": f"{off:.1f} points less than {what} ({other:.1f} %)",
        "alike": f"no clear difference from {what} ({other:.1f} %)",
    }
    return how[against(accuracy, other, n)]


@contextlib.contextmanager
def sound(path: Path) -> Iterator[None]:
    """Says in a sentence, a DamagedRun, what records that are not what they should be say inside."""
    try:
        yield
    except DamagedRun:
        raise
    except RunError as error:
        raise DamagedRun(str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise DamagedRun(f"the records of {path} are damaged ({type(error).__name__}: {error})") from None


def tell(path: Path, known: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> Story:
    """The story of a run folder, from its files alone.

    Args:
        known: evidence that was gathered now, in place of the folder's.
        notes: why there is none.

    Raises DamagedRun where its records cannot be read.
    """
    with sound(path):
        return _tell(path, known, list(notes))


def _tell(path: Path, known: Mapping[str, Any] | None, remarks: list[str]) -> Story:
    entry, run = read(path), Run(path)
    config, settings, data, split = (
        records.parsed(path / "config.json"),
        flat(records.settings(path)),
        run.data,
        run.split,
    )
    lines = records.metrics(path)
    result = records.result(path) if records.finished(path) else {}
    if known is None:
        try:
            known = evidence.read(path)
        except RunError as error:
            remarks.append(str(error))
    other = path / "baseline"
    baseline = [r for r in records.metrics(other) if r["kind"] == "eval"] if (other / "config.json").exists() else []
    return Story(
        path=path,
        entry=entry,
        settings=settings,
        data=data,
        split={
            "source": split.source,
            "rule": split.rule,
            "seed": split.seed,
            "fingerprint": split.fingerprint,
            "class_counts": split.class_counts,
            "lineage": split.lineage,
            "unlabeled": len(split.unlabeled),
            "validation": len(split.validation),
        },
        result=result,
        logs=[r for r in lines if r["kind"] == "log"],
        evaluations=[r for r in lines if r["kind"] == "eval"],
        evidence=known,
        usual_lr=_usual_lr(path, settings),
        version=str(config.get("fewlabels", "")),
        notes=remarks,
        baseline=baseline,
    )


def _usual_lr(path: Path, settings: Mapping[str, Any]) -> float | None:
    """The learning rate of the recipe, where it has the run's optimizer."""
    try:
        name = None if settings["data.name"] == ARRAYS else str(settings["data.name"])
        usual: Train = recipe(
            str(settings["algorithm.name"]),
            name,
            net=str(settings["net.name"]),
            pretrained=settings["net.pretrained"],
            train=settings["net.train"],
        )
    except (ValueError, KeyError):  # an algorithm of the user's own, or data that are gone
        return None
    return usual.optim.lr if name is not None and usual.optim.name == settings["optim.name"] else None
