"""Our recorded trainings as rows for the leaderboard: what was measured, and the commands that make it again.

A row is one training with its settings; its runs differ in seed or draw of the labels alone. Where a command was
recorded twice, the last line counts.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewlabels.runs.report import mean_and_deviation
from results_table import _label, load

ROOT = Path(__file__).parents[1]
SPEEDRUN = "python benchmarks/speedrun.py"
DRAWS = re.compile(r"(?<=seed )\d+|(?<=--data )([\w-]+)\.\d+")
"""What differs between the runs of a row, in a command."""

NAMED = re.compile(r"--data (cifar100|cifar10|svhn|stl10)\.\d+@(\d+)(?:-\d+)?(?: |$)")
"""Data of the papers by name. Any other option on data makes another task of them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training of ours."""

    name: str
    """What `--rerun` takes: the results file, then method and steps."""
    label: str
    """The method, with what tells it from its neighbours."""
    algorithm: str | None
    """Name in fewlabels; None: the recipe's."""
    data: str | None
    """Name of the papers' data set; None: a task of our own, which no paper has."""
    labels: str
    """Number of labels, where the data have a name."""
    commands: tuple[str, ...]
    accuracies: tuple[float, ...]
    """In percent, in the order of the commands; of a speedrun all are of one command."""
    net: str
    steps: int
    commits: tuple[str, ...]
    device: str
    threads: int

    @property
    def measured(self) -> tuple[float, float | None]:
        """Mean, and deviation of a sample where there are several runs."""
        mean, deviation = mean_and_deviation(self.accuracies)
        assert mean is not None
        return mean, deviation


Runner = Callable[[str, Path, int], list[float] | None]
"""Command, an empty folder, threads -> its accuracies; None after a complaint, which is printed."""


def rows(folder: Path) -> dict[str, Row]:
    """The rows of a folder of results by name, those of one file together. Raises ValueError if it has none."""
    out: dict[str, Row] = {}
    for file in sorted(folder.glob("*.jsonl")):
        if file.stem == "ablation":  # variants of one training, which docs/speedrun.md tells
            continue
        groups: dict[str, dict[str, Mapping[str, Any]]] = {}
        for record in load(file):
            command = record.get("command", "")
            if command.startswith(("fewlabels train ", SPEEDRUN)) and "(" not in command:  # else: part of another run
                groups.setdefault(_kind(command), {})[command] = record
        for by_command in groups.values():
            made = _speedrun if file.stem == "speedrun" else _trainings
            for stem, facts in made(by_command):
                name, number = f"{file.stem}/{_slug(stem)}", 2
                while name in out:  # settings that no word of the name tells
                    name, number = f"{file.stem}/{_slug(stem)}-{number}", number + 1
                out[name] = Row(name=name, **facts)
    if not out:
        raise ValueError(f"{folder} has no recorded trainings")
    return out


def again(row: Row, folder: Path, threads: int, run: Runner) -> list[float] | None:
    """Run all commands of a row; None after the first that fails."""
    found: list[float] = []
    for number, command in enumerate(row.commands):
        print(command, flush=True)
        own = folder / str(number)
        own.mkdir()
        accuracies = run(command, own, threads)
        if accuracies is None:
            return None
        found += accuracies
    return found


def verdict(recorded: Sequence[float], found: Sequence[float]) -> tuple[bool, str]:
    """Whether the new accuracies agree with the recorded ones, and a sentence: equal one by one, or in the mean."""
    if len(recorded) == len(found) and all(
        math.isclose(a, b, abs_tol=1e-6) for a, b in zip(recorded, found, strict=True)
    ):
        return True, "equal"
    (before, deviation), (now, _) = mean_and_deviation(recorded), mean_and_deviation(found)
    assert before is not None and now is not None
    told = f"{now - before:+.2f} points"
    if deviation is None:
        return False, f"not equal, {told}; one run has no deviation to judge that by"
    if abs(now - before) <= deviation:
        return True, f"within the deviation of {deviation:.2f}, {told}"
    return False, f"not within the deviation of {deviation:.2f}, {told}"


def run(command: str, folder: Path, threads: int) -> list[float] | None:
    """A recorded command in a process of its own; see `Runner`."""
    words = shlex.split(command)
    if not command.startswith(SPEEDRUN):
        from algorithms import run as train

        result = train(words, folder / "run", threads)
        return None if result is None else [result["accuracy"]]
    fresh = ["--runs", str(folder / "runs"), "--results", str(folder), "--threads", str(threads)]
    done = subprocess.run([sys.executable, *words[1:], *fresh], cwd=ROOT, capture_output=True, text=True)
    file = folder / "speedrun.jsonl"
    if not file.is_file():  # the exit status also tells a target that was missed
        print((done.stderr or done.stdout).strip().splitlines()[-1])
        return None
    accuracies: list[float] = json.loads(file.read_text().splitlines()[-1])["accuracies"]
    return accuracies


def _kind(command: str) -> str:
    return command if command.startswith(SPEEDRUN) else DRAWS.sub(lambda match: match[1] or "", command)


def _trainings(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Words of the name, and the fields of the row."""
    command, first = next(iter(records.items()))
    label = _label({"algorithm": first["algorithm"], "options": first.get("options", command)})
    named = NAMED.search(command)
    if any(word.startswith("--data.") and word != "--data.root" for word in command.split()):
        named = None
    threads = re.search(r"(\d+) thread", first["device"])
    net = re.search(r"--net (\S+)", command)
    label += ", learned weights" if "--net.pretrained" in command else ""
    words = [first.get("name"), label, first.get("kind"), first.get("labels"), first.get("steps")]
    facts = {
        "label": label,
        "algorithm": first["algorithm"],
        "data": named[1] if named else None,
        "labels": named[2] if named else "",
        "commands": tuple(records),
        "accuracies": tuple(record["accuracy"] for record in records.values()),
        "net": net[1] if net else "the recipe's",
        "steps": first.get("steps", 0),
        "commits": tuple(dict.fromkeys(record["commit"] for record in records.values())),
        "device": first["device"],
        "threads": int(threads[1]) if threads else 1,
    }
    return [(" ".join(str(word) for word in words if word), facts)]


def _speedrun(records: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The same of lines of results/speedrun.jsonl, each of which has several draws and counts their median."""
    out = []
    for command, record in records.items():
        kind = record["class"] + (", learned weights" if record["pretrained"] else "")
        facts = {
            "label": f"recipe {record['recipe']}, {kind} (median {record['accuracy']:.2f})",
            "algorithm": None,
            "data": record["data"],
            "labels": str(record["labels"]),
            "commands": (command,),
            "accuracies": tuple(record["accuracies"]),
            "net": "the recipe's",
            "steps": record["steps"],
            "commits": (record["commit"],),
            "device": record["machine"]["device"],
            "threads": record["machine"]["threads"],
        }
        out.append((f"{record['recipe']} {kind} {record['labels']} {record['steps']}", facts))
    return out


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
