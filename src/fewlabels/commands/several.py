"""fewlabels train --seeds, --folds, --grid and --generations, and self-training with its teachers: which runs the
options mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fewlabels.algorithms import SelfTraining
from fewlabels.commands import grid, many, own_pictures
from fewlabels.commands.options import UsageError
from fewlabels.commands.train_options import Command, recipe_for
from fewlabels.config.recipes import hint
from fewlabels.config.resolve import resolve_data
from fewlabels.config.settings import algorithm_name
from fewlabels.data.names import parse as parse_name
from fewlabels.runtime import streams
from fewlabels.sweep.generations import Generations, generations
from fewlabels.sweep.plan import Job, Kind, numbers, plan, plan_rows
from fewlabels.sweep.stages import stages


def over_seeds(command: Command, args: list[str], reasons: Sequence[str]) -> int:
    """Train with each of the --seeds or --folds. reasons: why it is that training, to be said first."""
    _check(command, args)
    kind, which = _numbers(command)
    jobs = partial(plan, command.train, kind, which, out=command.out, baseline=command.baseline)
    print(*reasons, sep="\n", end="\n" if reasons else "")
    return _all(jobs, kind, command)


def over_grid(file: str, args: list[str]) -> int:
    """Train for each row of a table, with each of the seeds if there are some; baselines only if they are asked for."""
    rows = grid.rows(file, args)
    said: dict[str, None] = {}
    for row in rows:
        with row.named():
            _check_row(row.command, row.args)
            if (chosen := recipe_for(row.command, row.args)) is not None:
                said.update(dict.fromkeys(own_pictures.said_of(chosen)))
    command = rows[0].command
    if not command.dry_run:
        streams.aside()
    for note in dict.fromkeys(note for row in rows if row.command.recipe is None and (note := hint(row.command.train))):
        print(f"note: {note}", file=sys.stderr)
    kind, which = ("row", ()) if command.seeds is None and command.folds is None else _numbers(command)
    configs = {row.name: row.command.train for row in rows}
    jobs = partial(plan_rows, configs, grid.stem(file), kind, which, out=command.out)
    jobs = partial(jobs, baseline="--baseline" in args and command.baseline)
    print(*said, sep="\n", end="\n" if said else "")
    return _all(jobs, kind, command)


def _all(jobs: Callable[..., list[Job]], kind: Kind, command: Command) -> int:
    """Train what `jobs` gives, with what the command says of runs whatever they are; exit status."""
    planned = partial(jobs, overwrite=command.overwrite)
    return many.main(planned, kind, command.on, dry_run=command.dry_run, progress=command.progress)


def _check_row(command: Command, args: list[str]) -> None:
    """Raises UsageError where a row of a grid is no run by itself."""
    _check(command, args)
    resolve_data(command.train.data)
    name = algorithm_name(command.train.algorithm)
    if command.json:
        raise UsageError("--json says how --dry-run prints the costs of one run: leave it out")
    if command.time is not None:
        raise UsageError("--time measures for one run: give --steps")
    if isinstance(command.train.algorithm, SelfTraining) and not command.train.algorithm.teachers:
        raise UsageError("self-training in a grid needs --teachers that are trained already")
    if command.generations != Generations():
        raise UsageError("--generations trains runs one after another, and a grid each by itself: leave it out")
    if command.teacher_seeds is not None or command.teacher_nets:
        raise UsageError("--teacher-seeds and --teacher-nets are for self-training by itself: leave them out")
    if "--baseline" in args and not command.train.steps:
        raise UsageError(f"--baseline is for trainings in steps; {name} compares itself with the labels alone")


def _numbers(command: Command) -> tuple[Kind, tuple[int, ...]]:
    kind: Kind = "seed" if command.seeds is not None else "fold"
    return kind, numbers(f"--{kind}s", command.seeds or command.folds or "")


def _check(command: Command, args: list[str]) -> None:
    """Raises UsageError where the options do not say clearly what the runs are."""
    given = {a.partition("=")[0] for a in args}
    option = "--seeds" if command.seeds is not None else "--folds" if command.folds is not None else "--grid"
    if "RANK" in os.environ:
        raise UsageError(
            f"{option} trains each run on one device: start it without torchrun, and it takes every visible GPU"
        )
    if command.seeds is not None and command.folds is not None:
        raise UsageError(
            "give --seeds or --folds: the deviation over both kinds of seeds at once would be that of neither"
        )
    if command.resume is not None:
        raise UsageError(f"--resume goes on with one run; with {option} the same command as before goes on with all")
    if command.seeds is not None and "--seed" in given:
        raise UsageError("--seeds says the seeds of the training: leave out --seed")
    if command.folds is None:
        return
    if "--data.seed" in given or ("--data" in given and parse_name(command.train.data.name).seed is not None):
        raise UsageError("--folds says the seeds of the split: leave out --data.seed and the SEED of the data's name")
    if command.train.data.split is not None:
        raise UsageError("--folds draws a split for each seed: leave out --data.split")
    data = resolve_data(command.train.data)
    if not any((data.labels, data.valid, data.imbalance, data.imbalance_unlabeled, data.imbalance_test)):
        raise UsageError(
            f"--folds draws other labels for each seed, and here all labels of {data.name} are used: add --data.labels"
        )


def _refuse(args: Sequence[str], why: str, clauses: Mapping[str, str]) -> None:
    """Raise UsageError for the first option that is given and does not go with it."""
    given = {a.partition("=")[0] for a in args}
    for option, clause in clauses.items():
        if option in given:
            raise UsageError(f"{option}: {why}; {clause}")


def stages_of(command: Command, args: list[str]) -> int:
    """Self-training with teachers of its own. Raises UsageError for options that do not go with it."""
    why = "self-training without --teachers trains them first"
    clauses = {
        "--seeds": "give it a --seed and --teacher-seeds, or --teachers that are trained already",
        "--folds": "give it one --data.seed, or --teachers that are trained already",
        "--time": "give it --steps, or --teachers that are trained already",
        "--baseline": "its teachers are the models on the labels alone: leave it out",
    }
    _refuse(args, why, clauses)
    if command.json:
        raise UsageError(f"--json: {why}, and one object says the costs of one run: leave it out")
    if "RANK" in os.environ:
        raise UsageError(f"{why}, each on one device: start it without torchrun, and it takes every visible GPU")
    if command.teacher_nets and isinstance(command.train.net.pretrained, str):
        raise UsageError(
            f"--teacher-nets: the weights {command.train.net.pretrained} are those of one net; train teachers of other "
            "nets by themselves, and name them with --teachers"
        )
    seeds = () if command.teacher_seeds is None else numbers("--teacher-seeds", command.teacher_seeds)
    jobs = partial(stages, command.train, seeds=seeds, nets=command.teacher_nets, out=command.out)
    return _all(jobs, "stage", command)


def generations_of(command: Command, args: list[str]) -> int:
    """CReST's generations. Raises UsageError for options and methods that do not go with them."""
    clauses = {
        "--seeds": "give it a --seed, and another --out for each: leave it out",
        "--folds": "give it one --data.seed, and another --out for each: leave it out",
        "--time": "give the --steps of each: leave it out",
        "--resume": "the same command as before goes on with all: leave it out",
        "--from": "each begins from new weights: leave it out",
        "--json": "one object says the costs of one run: leave it out",
    }
    _refuse(args, "--generations trains runs one after another", clauses)
    if "RANK" in os.environ:
        raise UsageError("--generations trains each run on one device: start it without torchrun")
    name = algorithm_name(command.train.algorithm)
    if not command.train.steps:
        raise UsageError(f"--generations is for trainings in steps, and {name} takes none: name another algorithm")
    if isinstance(command.train.algorithm, SelfTraining):
        raise UsageError("--generations changes the labels, and self-training learns from teachers of the same labels")
    jobs = partial(generations, command.train, command.generations, out=command.out, baseline=command.baseline)
    return _all(jobs, "generation", command)
