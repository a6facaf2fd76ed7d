"""A training over several seeds: which runs there are, what their folders hold already, and how one of them is trained.

`fewlabels.sweep.pool` trains them all.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fewlabels.algorithms import SelfTraining
from fewlabels.config.plain import difference, to_dict
from fewlabels.config.resolve import resolve_data
from fewlabels.config.settings import Train, algorithm_name
from fewlabels.data import names
from fewlabels.data.split import Split, read_split
from fewlabels.runs.folder import run_name
from fewlabels.runs.mirror import mirrored
from fewlabels.runs.owner import Lock, owning
from fewlabels.runs.records import FREE_TO_CHANGE
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import interrupt, parallel
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.regular import expanded
from fewlabels.training import teaching
from fewlabels.training.afterwards import leave_page
from fewlabels.training.loop import Output, changed, resume, supervised, train

MOST = 1000
"""More runs than anyone wants: a slip such as 1..50000 is refused before anything is made of it."""

Kind = Literal["seed", "fold", "stage", "generation", "row"]
"""What differs: the seed of the training or of the split, what is learned from (`stages`, `generations`), or any."""


@dataclass(frozen=True)
class Job:
    """One of the runs."""

    name: str
    """`seed 3`, `fold 3`, `teacher 3`, `student`, `generation 3`, after the name of the row if it is one of a grid."""
    path: Path
    config: Train
    baseline: bool
    known: bool
    """The folder holds a run of this configuration, which is kept or gone on with."""
    start: int
    """Steps that are done already."""
    finished: bool
    overwrite: bool = False
    """Replace a run of another configuration that the folder holds."""
    last: bool = False
    """It begins when all before it are finished."""
    row: str = ""
    """The row of the grid that it belongs to."""
    learns: Mapping[str, Any] | None = None
    """Which runs give a generation its labels, and how (`fewlabels.sweep.generations.labels`)."""
    alike: Train | None = None
    """Settings that cost the same, of a run whose labels are not there yet."""

    @property
    def root(self) -> Path:
        """The folder of all runs."""
        return self.path.parents[self.row not in ("", self.name)]

    @property
    def steps(self) -> int:
        """Steps in all, with those of the baseline."""
        return self.config.steps * (1 + self.baseline)

    @property
    def log(self) -> Path:
        """Where its process leaves what it has to say."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def file(self) -> Path:
        """Where it lies for an engine."""
        return self.path.with_name(f"{self.path.name}.job")

    def order(self) -> dict[str, Any]:
        """What its process has to know of it."""
        return {
            "path": str(self.path),
            "train": to_dict(self.config),
            "baseline": self.baseline,
            "overwrite": self.overwrite,
            **({"learns": dict(self.learns)} if self.learns is not None else {}),
        }

    def progress(self) -> tuple[int, bool]:
        """Steps that are saved, with those of the baseline, and whether all is finished."""
        return saved(self.path, self.config.steps, self.baseline) if holds(self.path, self.config) else (0, False)


# ---- which runs


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers that ``0..4`` (both ends included), ``1,3,5`` or ``0..2,7`` mean.

    Raises ValueError, with `option` in the sentence.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:\.\.([0-9]+))?\s*", part)
        if match is None:
            raise ValueError(f"{option} must be numbers such as 0..4 or 1,3,5, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{option} {text} counts downwards: write {last}..{first}")
        if last > names.MAX_SEED:
            raise ValueError(f"{option} must be numbers from 0 to {names.MAX_SEED}, got {last}")
        if len(found) + last - first >= MOST:
            raise ValueError(f"{option} {text} means more than {MOST} runs")
        found += range(first, last + 1)
    if twice := [n for i, n in enumerate(found) if n in found[:i]]:
        raise ValueError(f"{option} {text} names {twice[0]} twice")
    return tuple(found)


def with_fold(config: Train, fold: int) -> Train:
    """`config` with another seed of the split, written where its data name has one."""
    name = names.parse(config.data.name)
    text = config.data.name if name.folder else str(replace(name, seed=fold))
    return replace(config, data=replace(config.data, name=text, seed=fold))


def plan(
    config: Train,
    kind: Kind,
    which: Sequence[int],
    *,
    out: Path | str | None = None,
    baseline: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """The runs, one for each number, in the folders `KIND-NUMBER` of `out`.

    Args:
        kind: whether the numbers are seeds of the training or of the split.
        out: default `runs/DATA-ALGORITHM-seeds` or `-folds`.
        baseline: each with its supervised baseline.
        overwrite: replace runs of another configuration, which are refused otherwise.
    """
    root = root_of(config, kind, out)
    config = replace(config, data=resolve_data(config.data))
    jobs = []
    for n in which:
        own = replace(config, seed=n) if kind == "seed" else with_fold(config, n)
        jobs.append(job_of(f"{kind} {n}", root / f"{kind}-{n}", own, baseline=baseline, overwrite=overwrite))
    return jobs


def plan_rows(
    rows: Mapping[str, Train],
    table: str,
    kind: Kind,
    which: Sequence[int] = (),
    *,
    out: Path | str | None = None,
    baseline: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """The runs of a grid: one for each row in the folder `ROW` of `out`, or one for each row and number in
    `ROW/KIND-NUMBER`.

    Args:
        rows: settings by name.
        table: what the grid is called.
        kind: `row`, or what the numbers are, as for `plan`.
        out: default `runs/DATA-TABLE`, or `runs/TABLE` where rows have data of their own.
    """
    named = {config.data.name for config in rows.values()}
    first = next(iter(rows.values()))
    data = run_name(first).removesuffix(f"-{algorithm_name(first.algorithm)}-s{first.seed}")
    root = expanded(out) if out is not None else Path("runs") / (table if len(named) > 1 else f"{data}-{table}")
    _check_root(root)
    jobs: list[Job] = []
    for name, config in rows.items():
        if kind == "row":
            job = job_of(name, root / name, config, baseline=baseline, overwrite=overwrite)
            jobs.append(replace(job, row=name))
        else:
            own = plan(config, kind, which, out=root / name, baseline=baseline, overwrite=overwrite)
            jobs += [replace(job, name=f"{name} {job.name}", row=name) for job in own]
    return jobs


def job_of(
    name: str, path: Path, config: Train, *, baseline: bool = False, overwrite: bool = False, last: bool = False
) -> Job:
    """The run of a name in its folder, as far as that holds it. Raises RunError where it holds another one."""
    config = replace(config, data=resolve_data(config.data))
    known = holds(path, config)
    if not known:
        _check_free(path, config, overwrite)
    done, finished = saved(path, config.steps, baseline) if known else (0, False)
    return Job(name, path, config, baseline, known, done, finished, overwrite, last)


def root_of(config: Train, kind: Kind, out: Path | str | None = None) -> Path:
    """The folder of all runs, as for `plan`. Raises RunError where it is a run itself."""
    root = _root_of(config, kind, out)
    _check_root(root)
    return root


def _check_root(root: Path) -> None:
    if (root / "config.json").is_file():
        raise RunError(f"{root} is a single run: name another --out for several")


def _root_of(config: Train, kind: Kind, out: Path | str | None) -> Path:
    if out is not None:
        return expanded(out)
    config = replace(config, data=resolve_data(config.data))
    if kind in ("stage", "generation"):
        return Path("runs") / f"{run_name(config)}-{kind}s"
    seedless = replace(names.parse(config.data.name), seed=None)
    plain = config if kind == "seed" else replace(config, data=replace(config.data, name=str(seedless)))
    return Path("runs") / f"{run_name(plain).rpartition('-')[0]}-{kind}s"


def holds(path: Path, config: Train, split: Split | None = None) -> bool:
    """Whether the folder holds a run of this configuration and split, begun or finished."""
    try:
        if not (path / "config.json").is_file() or _differing(Run(path).config, config):
            return False
        return _same_split(Run(path), config, split) and _same_teachers(Run(path), config)
    except ValueError:
        return False


def _same_split(run: Run, config: Train, split: Split | None = None) -> bool:
    """Whether a run has the same split where `config` names a file: `split`, or what the file holds now."""
    return config.data.split is None or run.split == (split or read_split(config.data.split))


def _same_teachers(run: Run, config: Train) -> bool:
    """Whether a run has learned from the teachers that `config` names as they are now, as far as they are there."""
    if not isinstance(config.algorithm, SelfTraining) or not run.states():  # which asks them anew
        return True
    told = run.data.get("teachers", {}).get("runs", [])
    for name, then in zip(config.algorithm.teachers, told, strict=True):
        folder = expanded(name)
        if (folder / "config.json").is_file() and teaching.weights_digest(Run(folder)) != then["weights"]:
            return False
    return True


def _differing(old: Train, new: Train) -> list[str]:
    """Settings in which a run is another one. What a run resolves by itself may still be open in `new`."""
    free = {*FREE_TO_CHANGE, *(name for name in ("weak", "strong", "shift") if getattr(new, name) in ("auto", None))}
    return [name for name in {**difference(new, old), **difference(old, new)} if name not in free]


def _check_free(path: Path, config: Train, overwrite: bool) -> None:
    """Raises RunError unless a run of this configuration may begin at `path`, which holds none."""
    if not overwrite and (path / "config.json").is_file():
        old = Run(path).config
        other = _differing(old, config)
        if not other and not _same_split(Run(path), config):
            raise RunError(
                f"{path} holds a run with another split than {config.data.split} has now; name another --out, or add "
                "--overwrite to replace it"
            )
        if not other:
            raise RunError(
                f"{path} holds a run that has learned from other teachers than there are now; name another --out, or "
                "add --overwrite to replace it"
            )
        name = "algorithm.name" if "algorithm.name" in other else other[0]
        before, now = difference(old, config).get(name), difference(config, old).get(name)
        raise RunError(
            f"{path} holds a run with {name} {before}, and {now} is asked for; "
            "name another --out, or add --overwrite to replace it"
        )
    Run.check_free(path, overwrite=overwrite)


def saved(path: Path, steps: int, baseline: bool) -> tuple[int, bool]:
    """Steps of a run, with those of its baseline, that are saved, and whether all is finished."""
    if not (path / "config.json").is_file():
        return 0, False
    run = Run(path)
    if not run.finished:
        return max((c.step for c in run.states()), default=0), False
    more, finished = saved(path / "baseline", steps, False) if baseline else (0, True)
    return steps + more, finished


# ---- one run


def baseline(run: Run, config: Train, output: Output) -> Run:
    """The supervised run in the folder `baseline` of a run, begun, gone on with or finished.

    config: the run's own, as for `fewlabels.resume`. Raises RunError where the folder holds another run.
    """
    path, own = run.path / "baseline", supervised(config)
    if not parallel.on_first(lambda: _has_baseline(run, own)):
        output.say("now the supervised baseline: the same labels, strong views and steps, no unlabeled images")
        output = output._replace(say=lambda text: None)
    with owning(lambda: Lock(run.path), output.say):
        return go(path, own, output, split=run.split)


def _has_baseline(run: Run, own: Train) -> bool:
    """Whether the baseline with the settings `own` can be gone on with. Raises RunError where none may begin."""
    path = run.path / "baseline"
    known = (path / "config.json").is_file()
    if known:
        other = _differing(Run(path).config, own) or ["data.split"] * (not _same_split(Run(path), own, run.split))
        if other:
            raise RunError(f"{path} holds a run with another {other[0]}, which is no baseline of {run.path}: remove it")
    if known and Run(path).states():
        return True
    if not _same_split(run, own):
        raise RunError(
            f"the split file {own.data.split} has changed since {run.path} was started, and the baseline needs the "
            f"same labels: copy {run.path / 'split.json'} there"
        )
    return False


def go(
    path: Path,
    config: Train,
    output: Output,
    *,
    overwrite: bool = False,
    baseline: bool = False,
    split: Split | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Run:
    """Train, or go on where the folder holds a run of this configuration with something to go on from.

    overwrite: replace a run of another configuration; baseline: one is to follow; split: as for `holds`; facts: as for
    `train`."""
    known, begun = parallel.on_first(lambda: _state(path, config, split))
    if begun:
        own = Run(mirrored(path, weights=False)).config
        return resume(path, config=changed(own, config), output=output)
    return train(config, out=path, overwrite=overwrite or known, baseline=baseline, facts=facts, output=output)


def again(config: Train, out: Path | str | None, *, timed: bool = False) -> tuple[Path, int] | None:
    """The folder of the run that this very command began when it was started before, and its steps; or None.

    timed: the number of steps was found by measuring. Without `out` only a run that is not finished is meant.
    """
    config = replace(config, data=resolve_data(config.data))
    if out is not None:
        folders = [expanded(out)]
    else:
        name = re.escape(run_name(config))
        folders = [p for p in Path("runs").glob("*") if re.fullmatch(rf"{name}(-\d+)?", p.name)]
        folders = [p for p in folders if (p / "config.json").is_file() and not Run(p).finished]
        folders.sort(key=lambda p: (p / "config.json").stat().st_mtime)
    for path in reversed(folders):
        own = config
        if timed and (path / "config.json").is_file():
            own = replace(config, steps=Run(path).config.steps)
        if holds(path, own):
            return path, own.steps
    return None


def _state(path: Path, config: Train, split: Split | None) -> tuple[bool, bool]:
    """Whether the folder holds a run of this configuration, and whether that can be gone on with, or is finished."""
    known = holds(path, config, split)
    return known, known and (Run(path).finished or bool(Run(path).states()))


def with_baseline(begin: Callable[[], Run], config: Train, wanted: bool, output: Output) -> list[Run]:
    """The run that `begin` trains, and its baseline if it is wanted; a signal in between stops before the baseline.

    config: the settings that were asked for.
    """
    with interrupt.between() as around, parallel.session(pick_device(config.device)):
        run = begin()
        if not parallel.from_first(wanted):
            return [run]
        if signum := parallel.agree(around.signum):
            raise Interrupted(
                f"stopped by {signal.Signals(signum).name} before the baseline; {run.path} is finished, and "
                f"`fewlabels train --resume {run.path}` goes on with the baseline",
                signum,
            )
        plain = baseline(run, changed(run.config, config), output._replace(reasons=()))
        if parallel.rank() == 0:
            run.compare("supervised", plain.result["accuracy"])
            if (problem := leave_page(run)) is not None:
                output.say(f"note: {problem}")
        return [run, plain]
