"""fewlabels train --seeds, --folds, --grid and --generations, and self-training with its teachers: one display for
all, one table."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import TaskID
from rich.table import Table

from fewlabels.algorithms import Supervised
from fewlabels.commands.tables import width_of
from fewlabels.config.plain import to_dict
from fewlabels.config.settings import algorithm_name
from fewlabels.data import names
from fewlabels.runs.owner import Lock, owning
from fewlabels.runs.report import DamagedRun, mean_and_deviation, read
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.checked import flat
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.words import duration
from fewlabels.sweep import remote
from fewlabels.sweep.on import On
from fewlabels.sweep.plan import Job, Kind, holds
from fewlabels.sweep.pool import Board, Outcome, Result, gpus, train_all
from fewlabels.sweep.remote import Engine
from fewlabels.training import log
from fewlabels.training.afterwards import leave_page

OVER: Mapping[Kind, str] = {"seed": "training seed", "fold": "split seed"}
"""What a mean is over; there is none over stages."""


def main(plan: Callable[[], list[Job]], kind: Kind, on: On, *, dry_run: bool, progress: bool) -> int:
    """Train what `plan` says, as the folders are when it is asked; the rest as `fewlabels train` has it."""
    on.check()
    jobs = plan()  # which refuses somebody's folder before the lock would be put into it
    if dry_run:
        _costs(jobs, len(_places(jobs)) if on.name == "local" else 0)
        return 0
    with owning(lambda: Lock(jobs[0].root), partial(print, file=sys.stderr, flush=True)):
        jobs = plan()
        left = [job for job in jobs if not job.finished]
        for problem in (said for job in jobs if job.finished for said in _complete(job)):
            print(f"note: {problem}", file=sys.stderr)
        asked = on if left else On()
        with remote.engine_of(asked, jobs[0].root, gpus=int(jobs[0].config.device != "cpu")) as engine:
            places = _places(jobs) if engine is None else [None] * len(left)
            print(_summary(jobs, places, engine), flush=True)
            live = progress and Console(stderr=True).is_terminal
            with Bars(jobs) if live else Plain(jobs, alive=progress) as board:
                way = () if engine is None else (remote.beginning(engine), remote.PACE)
                result = train_all(left, places, board, *way)
        show(jobs, result, kind)
    if result.signum:
        name, done = signal.Signals(result.signum).name, sum(_finished(job, result) for job in jobs)
        raise Interrupted(
            f"stopped by {name} with {done} of {len(jobs)} runs finished; the same command goes on with the others",
            result.signum,
        )
    return 1 if any(outcome.kind == "failed" for outcome in result.outcomes.values()) else 0


def _complete(job: Job) -> list[str]:
    """Do what a kill after the last step has left undone in a finished job, its comparison and its pages; sentences
    for what cannot be done."""
    runs = [Run(job.path), *([Run(job.path / "baseline")] if job.baseline else [])]
    try:
        for plain in runs[1:]:
            runs[0].compare("supervised", plain.result["accuracy"])
    except RunError as error:
        return [str(error)]
    return [problem for run in runs if (problem := leave_page(run, old=True)) is not None]


def _places(jobs: Sequence[Job]) -> Sequence[str | None]:
    """The GPUs that the runs are given out to, or one place for one after another."""
    together = sum(not job.finished and not job.last for job in jobs)
    devices = gpus(jobs[0].config.device)[: max(1, together)]
    return devices if len(devices) > 1 else [None]


def _summary(jobs: Sequence[Job], places: Sequence[str | None], engine: Engine | None) -> str:
    kept, begun = sum(job.finished for job in jobs), sum(job.start > 0 and not job.finished for job in jobs)
    counts = {"finished already": kept, "to go on with": begun, "new": len(jobs) - kept - begun}
    text = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    way = f"one on each of the GPUs {', '.join(map(str, places))}" if len(places) > 1 else "one after another"
    way = way if engine is None else engine.words
    return f"{len(jobs)} runs in {jobs[0].root}: {text}; {way}"


def _costs(jobs: Sequence[Job], places: int) -> None:
    """What the runs will cost, measured once for each kind of them. places: how many at a time; 0: nobody knows."""
    from fewlabels.training.estimate import estimate

    costs, baselines = {}, dict.fromkeys(map(_work, jobs), 0.0)
    for work, job in {_work(job): job for job in jobs}.items():
        try:
            costs[work] = estimate(job.alike or job.config)
        except ValueError as error:
            raise ValueError(f"{job.row}: {error}" if job.row else str(error)) from error
        if job.baseline:
            baselines[work] = estimate(replace(job.config, algorithm=Supervised(view="strong"))).seconds
    width = max(9, *(len(job.name) + 1 for job in jobs))
    if not jobs[0].row:  # whose rows have costs of their own
        print("\n".join(f"{name:{width}}{text}" for name, text in costs[_work(jobs[-1])].lines.items()))
    ends = [0.0] * (places or 1)
    for job in jobs:
        if job.last:
            ends = [max(ends)] * len(ends)
        steps, work = job.config.steps, _work(job)
        seconds = costs[work].seconds * (max(0, steps - job.start) / steps if steps else 1)
        if job.baseline:
            seconds += baselines[work] * (1 - max(0, job.start - steps) / steps)
        if job.finished:
            text = "finished already"
        else:
            ends[ends.index(min(ends))] += seconds
            text = f"about {duration(seconds)}" + (f", from step {job.start} of {job.steps}" if job.start else "")
        print(f"{job.name:{width}}{text}, {job.path}")
    how = f"{places} at a time" if places > 1 else "one after another" if places else "if one came after another here"
    both = " with their baselines" if jobs[-1].baseline else " with a baseline" if jobs[0].baseline else ""
    print(f"{'all':{width}}about {duration(max(ends))} for {len(jobs)} runs{both}, {how}, without the evaluations")


def _work(job: Job) -> str:
    """Jobs that are alike in this cost the same: all settings but the seeds, and the runs that are learned from."""
    settings = flat(to_dict(job.alike or job.config))
    name = names.parse(job.config.data.name)
    settings["data.name"] = name.base if name.folder else str(replace(name, seed=None))
    free = ("seed", "data.seed", "algorithm.teachers")
    return json.dumps({k: v for k, v in settings.items() if k not in free}, sort_keys=True)


# ---- while they train


class _Shown(Board[Job]):
    """What both displays do: count the runs, and say a sentence once."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.ended = [job for job in jobs if job.finished]
        self.failed = 0
        self.heard: set[str] = set()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def line(self, job: Job, text: str) -> None:
        """An evaluation. Lines of their own for those of many runs would bury what is said; a bar has the newest."""

    def said(self, job: Job, text: str) -> None:
        """Sentences that differ in numbers only are those of another seed, unless they are about its folder."""
        if text.startswith("run folder "):
            return
        key = text if str(job.path) in text else re.sub(r"(data\.)?seed=\d+, |[0-9.]+", "", text)
        if key not in self.heard:
            self.heard.add(key)
            self.print(text)

    def end(self, job: Job, outcome: Outcome) -> None:
        if outcome.kind == "finished":
            self.ended.append(job)
            self.print(f"{job.name}: finished")
        elif outcome.kind == "failed":
            self.failed += 1
            self.print(f"{job.name} failed: {outcome.reason}")

    @property
    def state(self) -> str:
        return f"{len(self.ended)} of {len(self.jobs)} runs finished" + (f", {self.failed} failed" * (self.failed > 0))


class Plain(_Shown):
    """Lines for a pipe or a log file: evaluations, and all running ones every half minute."""

    def __init__(self, jobs: Sequence[Job], *, alive: bool) -> None:
        super().__init__(jobs)
        self.alive, self.told = alive, time.monotonic()
        self.now: dict[str, str] = {}

    def step(self, job: Job, step: int, text: str) -> None:
        self.now[job.name] = f"{job.name} step {step}/{job.steps}"
        if self.alive and time.monotonic() - self.told > 30:
            self.told = time.monotonic()
            self.print(f"{self.state}; {', '.join(self.now.values())}")

    def line(self, job: Job, text: str) -> None:
        self.print(f"{job.name}: {text}")

    def end(self, job: Job, outcome: Outcome) -> None:
        super().end(job, outcome)
        self.now.pop(job.name, None)


class Bars(_Shown):
    """A live bar for each running training, under one for all of them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__(jobs)
        self.progress = log.Bars()
        self.left = {job.name: job.steps - job.start for job in jobs if not job.finished}
        self.gone: dict[str, int] = {}
        self.bars: dict[str, TaskID] = {}
        self.every = self.progress.add_task("all", total=sum(self.left.values()), text=self.state)

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def print(self, text: str) -> None:
        self.progress.line(text)

    def step(self, job: Job, step: int, text: str) -> None:
        if job.name not in self.bars:
            self.bars[job.name] = self.progress.add_task(job.name, total=job.steps, completed=job.start, text="")
        self.progress.update(self.bars[job.name], completed=step, text=text)
        self._count(job, step - job.start)

    def _count(self, job: Job, steps: int) -> None:
        self.gone[job.name] = min(max(0, steps), self.left[job.name])
        self.progress.update(self.every, completed=sum(self.gone.values()), text=self.state)

    def end(self, job: Job, outcome: Outcome) -> None:
        super().end(job, outcome)
        if job.name in self.bars:
            self.progress.remove_task(self.bars.pop(job.name))
        self._count(job, self.left[job.name])


# ---- at the end


def show(jobs: Sequence[Job], result: Result, kind: Kind) -> None:
    """The table of all runs, with mean, sample standard deviation and n of the finished ones; of a grid over seeds by
    row, these alone."""
    parts = ("", "baseline") if jobs[0].baseline else ("",)
    found = {job.name: [_finished_row(job, part) for part in parts] for job in jobs}
    of_rows = kind in OVER and jobs[0].row != ""
    averaged = kind in OVER and (of_rows or len(jobs) > 1)
    if kind == "generation":
        heads = "", "final", "last 20", "geometric mean", "labels", "taken", "right", "seconds", ""
        _print(_by_generation(jobs, found, result), heads)
    elif of_rows:
        _print(_by_row(jobs, found, result), [*_headings("final", parts, ("std",)), "n", "seconds", ""])
    else:
        first = f"{algorithm_name(jobs[0].config.algorithm)} final" if kind in OVER else "final"
        _print(_by_run(jobs, found, result, averaged), [*_headings(first, parts), "seconds", ""])
    kinds = dict.fromkeys(row["measured_on"] for rows in found.values() for row in rows if row) or {"test": None}
    images = " or ".join({"valid": "validation", "train": "labeled"}.get(kind, kind) for kind in kinds)
    print(f"percent of the {images} images, averaged weights; final: after the last step;")
    print("last 20: median of the last 20 evaluations, or of all if there are fewer;")
    if averaged:
        what = "means and std" if of_rows else "std"
        print(f"{what}: over the {OVER[kind]}, with n - 1, of the finished runs")
    if kind == "generation":
        print("taken: predictions of the generation before that joined the first labels; right: percent of those whose")
        print(f"class the data know; the result is that of the last generation, the run {jobs[-1].path}")
    if kind == "stage":
        print(f"the result is that of the student, the run {jobs[-1].path}")
    print(f"`fewlabels report {jobs[0].root}` has more")


def _headings(first: str, parts: Sequence[str], after: Sequence[str] = ()) -> list[str]:
    """Of all columns with numbers, each with those `after` it."""
    heads = [first, "last 20", *(["baseline final", "last 20"] if len(parts) > 1 else [])]
    return ["", *(name for head in heads for name in (head, *after))]


Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""By the name of a job what the report has of its run, and of its baseline if it has one."""


def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [row.get(measure) for row in rows for measure in ("accuracy", "last20")]


def _seconds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of all these runs together, where it is known of each."""
    seconds = [row.get("seconds") for row in rows]
    return "-" if None in seconds else f"{sum(filter(None, seconds)):.0f}"


def _by_run(jobs: Sequence[Job], found: Found, result: Result, averaged: bool) -> list[list[str]]:
    """A line for each run, and if they are `averaged` three for all of them."""
    numbers = [_numbers(found[job.name]) for job in jobs]
    table = [
        [job.name, *map(_number, row), _seconds(found[job.name]), _remark(job, result)]
        for job, row in zip(jobs, numbers, strict=True)
    ]
    if averaged:
        means, deviations, counts = _spread(numbers)
        table.append(["mean", *map(_number, means), "", ""])
        table.append(["std", *map(_number, deviations), "", ""])
        table.append(["n", *map(str, counts), "", ""])
    return table


def _by_generation(jobs: Sequence[Job], found: Found, result: Result) -> list[list[str]]:
    """A line for each generation, after that of the baseline if there is one."""
    table = []
    if jobs[0].baseline:
        row = found[jobs[0].name][1]
        table.append(["supervised", *_measures(row), str(row.get("labels", "-")), "", "", _seconds([row]), ""])
    for job in jobs:
        row = found[job.name][0]
        told = Run(job.path).data.get("generation", {}) if row else {}
        right = f"{100 * told['right'] / told['known']:.2f}" if told.get("known") else ""
        taken = [str(row.get("labels", "-")), str(told.get("labels", "")), right]
        table.append([job.name, *_measures(row), *taken, _seconds([row]), _remark(job, result)])
    return table


def _measures(row: Mapping[str, Any]) -> list[str]:
    return [_number(row.get(measure)) for measure in ("accuracy", "last20", "geometric_mean")]


def _by_row(jobs: Sequence[Job], found: Found, result: Result) -> list[list[str]]:
    """A line for each row of the grid: the means over its runs, each with its deviation, and what is to be said of
    those that are not finished."""
    table = []
    for name in dict.fromkeys(job.row for job in jobs):
        own = [job for job in jobs if job.row == name]
        means, deviations, counts = _spread([_numbers(found[job.name]) for job in own])
        cells = [_number(value) for both in zip(means, deviations, strict=True) for value in both]
        remarks = [f"{job.name.removeprefix(f'{name} ')} {text}" for job in own if (text := _remark(job, result)) != ""]
        done = [row for job in own for row in found[job.name] if row]
        table.append([name, *cells, str(counts[0]), _seconds(done) if done else "-", "; ".join(remarks)])
    return table


def _spread(numbers: Sequence[Sequence[float | None]]) -> tuple[list[float | None], list[float | None], list[int]]:
    """Mean, sample standard deviation and n of each column, without what is missing."""
    columns = [[number for number in column if number is not None] for column in zip(*numbers, strict=True)]
    both = [mean_and_deviation(column) for column in columns]
    return [mean for mean, _ in both], [deviation for _, deviation in both], list(map(len, columns))


def _finished_row(job: Job, part: str) -> Mapping[str, Any]:
    """What the report has of a finished run or of its baseline; nothing of another one."""
    path = job.path / part
    if not holds(job.path, job.config) or not (path / "result.json").is_file():  # what another one left there
        return {}
    try:
        return read(path).row
    except DamagedRun as error:
        print(error, file=sys.stderr)
        return {}


def _finished(job: Job, result: Result) -> bool:
    return job.finished or (job.name in result.outcomes and result.outcomes[job.name].kind == "finished")


def _remark(job: Job, result: Result) -> str:
    if _finished(job, result):
        return ""
    if (outcome := result.outcomes.get(job.name)) and outcome.kind == "failed":
        return f"failed: {outcome.reason}"
    step, _ = job.progress()
    return f"stopped at step {step} of {job.steps}" if step else "not begun"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    if not any(row[-1] for row in rows):
        rows, headings = [row[:-1] for row in rows], headings[:-1]
    out = Screen()
    table = Table(box=SIMPLE_HEAD if out.is_terminal else None, pad_edge=False)
    for i, name in enumerate(headings):
        table.add_column(name, justify="right" if name else "left", no_wrap=i == 0 or name != "")
    for i, row in enumerate(rows):
        table.add_row(*row, end_section=i + 1 < len(rows) and rows[i + 1][0] == "mean")
    if not out.is_terminal:  # a file has room for whole sentences
        out.width = max(out.width, width_of(out, table))
    out.print(table)
