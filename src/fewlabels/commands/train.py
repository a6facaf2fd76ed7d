"""fewlabels train"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fewlabels.algorithms import SelfTraining
from fewlabels.commands import grid, own_pictures, several
from fewlabels.commands.options import UsageError
from fewlabels.commands.train_options import Command, read, recipe_for
from fewlabels.config.plain import to_dict
from fewlabels.config.recipes import hint, recipe
from fewlabels.config.resolve import resolve_data
from fewlabels.config.settings import algorithm_name
from fewlabels.data.imagenets import FOLDERS
from fewlabels.data.names import parse as parse_name
from fewlabels.data.sources import default_root
from fewlabels.datatools.listing import present
from fewlabels.runs.folder import PAGE
from fewlabels.runs.run import Run
from fewlabels.runtime import parallel, ranks, streams
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import seconds_of
from fewlabels.sweep.generations import check
from fewlabels.sweep.on import On
from fewlabels.sweep.plan import again, go, with_baseline
from fewlabels.training.budget import Budget
from fewlabels.training.loop import Output, resume, train

if TYPE_CHECKING:
    from fewlabels.training.estimate import Estimate


def main(args: list[str]) -> int:
    resumes = any(word.partition("=")[0] == "--resume" for word in args)
    with parallel.meeting() if resumes else contextlib.nullcontext():  # the folder may be on rank 0's machine alone
        return _main(args)


def _main(args: list[str]) -> int:
    if (file := grid.of(args)) is not None and not {"-h", "--help"}.intersection(args):
        return several.over_grid(file, args)
    command = read(args)
    lead = parallel.environment_rank() == 0
    usual = command.recipe is not None and command.train.net == recipe(command.recipe).net
    if lead and command.resume is None and not usual and (note := hint(command.train)):
        print(f"note: {note}", file=sys.stderr)
    if command.json and (not command.dry_run or command.seeds is not None or command.folds is not None):
        raise UsageError(
            "--json says how --dry-run prints the costs of one run: use it with that alone, or leave it out"
        )
    if command.baseline and not command.train.steps:
        name = algorithm_name(command.train.algorithm)
        raise UsageError(f"--baseline is for trainings in steps; {name} compares itself with the labels alone")
    if not command.dry_run:
        streams.aside()
    if isinstance(command.train.algorithm, SelfTraining) and not command.train.algorithm.teachers:
        return several.stages_of(command, args)
    if command.teacher_seeds is not None or command.teacher_nets:
        option = "--teacher-seeds" if command.teacher_seeds is not None else "--teacher-nets"
        raise UsageError(f"{option} is for self-training that trains its teachers itself, without --teachers")
    check(command.generations, command.train)
    if command.generations.count is not None:
        return several.generations_of(command, args)
    budget, chosen = _budget(command, args), recipe_for(command, args)
    if chosen is not None and command.train.fits:
        budget = None  # which the size of the pictures was chosen by
    reasons = own_pictures.said_of(chosen) if chosen is not None else []
    if command.seeds is not None or command.folds is not None:
        return several.over_seeds(command, args, reasons)
    if command.on != On():
        raise UsageError("--on is for several runs: give --seeds, --folds or --grid")
    if command.dry_run:
        from fewlabels.training.estimate import estimate

        show(estimate(command.train), command.json, reasons)
        return 0
    advise = budget is None and command.resume is None
    output = Output(command.progress, print, command.recipe, advise, reasons=reasons) if lead else Output()
    runs = with_baseline(lambda: _run(command, output, budget), command.train, command.baseline, output)
    if lead:
        names = (algorithm_name(runs[0].config.algorithm), "supervised")
        print(table(dict(zip(names, runs, strict=False))))
    return 0


def show(cost: Estimate, as_json: bool, reasons: Sequence[str] = ()) -> None:
    """What a training costs: lines, after those that say why it is that training, or one JSON object."""
    lines = dict(cost.lines)
    data = cost.config.data
    base, root = parse_name(data.name).base, expanded(data.root) if data.root else default_root()
    if not parse_name(data.name).folder and not present(base, root):
        there = "" if root.is_dir() else ", which does not exist"
        how = "put it there first" if base in FOLDERS else "the training will download it there"
        lines["missing"] = f"{base} is not in {root}{there}: {how}, or name another folder with --data.root"
    if as_json:
        print(json.dumps({"train": to_dict(cost.config), "cost": lines}, indent=1))
    else:
        print("\n".join([*reasons, *(f"{name:9}{text}" for name, text in lines.items())]))


def _budget(command: Command, args: list[str]) -> Budget | None:
    """What --time says. Raises UsageError for what is no time, and for other options that say the steps."""
    if command.time is None:
        return None
    try:
        seconds = seconds_of(command.time)
    except ValueError as error:
        raise UsageError(f"--time {error}") from None
    given = {a.partition("=")[0].removeprefix("--").replace("-", "_") for a in args if a.startswith("--")}
    if command.resume is not None:
        raise UsageError("--resume goes on with the steps that the run began with: leave out --time")
    if "steps" in given:
        raise UsageError("--time says how many steps are taken: leave out --steps, or --time")
    if command.seeds is not None or command.folds is not None:
        option = "--seeds" if command.seeds is not None else "--folds"
        raise UsageError(
            f"--time measures for one run, and all runs of {option} must take the same steps: give --steps (those that "
            "one run with --time has taken)"
        )
    if command.dry_run:
        raise UsageError("--time measures whole steps on the images, and --dry-run reads none: leave one of them out")
    return Budget(seconds, frozenset(given))


def _run(command: Command, output: Output, budget: Budget | None) -> Run:
    if command.resume is not None:
        return resume(command.resume, config=command.train, output=output)
    if ranks.restarted():
        begun = parallel.on_first(lambda: again(command.train, command.out, timed=budget is not None))
        if begun is not None:
            path, steps = begun
            config = replace(command.train, data=resolve_data(command.train.data), steps=steps)
            return go(path, config, output, baseline=command.baseline)
    return train(
        command.train,
        out=command.out,
        overwrite=command.overwrite,
        baseline=command.baseline,
        budget=budget,
        output=output,
    )


def table(results: dict[str, Run]) -> str:
    """The closing lines: accuracy of each run."""
    compared: dict[str, float] = next((c for run in results.values() if (c := run.result.get("compared"))), {})
    labels_only = compared.get("labels_only")
    width = max(map(len, [*results, *(["labels only"] if labels_only is not None else [])]))
    lines = []
    for name, run in results.items():
        result = run.result
        evaluations = min(20, len(run.metrics("eval")))
        said = f"median of the last {evaluations} evaluations {result['last20']:.2f} %"
        if not result["steps"] and (expected := result.get("fit", {}).get("expected")) is not None:
            said = f"expected by the labels {expected:.2f} %"
        lines.append(
            f"{name:{width}}  {result['accuracy']:6.2f} % {result['measured_on']} accuracy  "
            f"({said}, {result['seconds']:.0f} s, {run.path})"
        )
    if labels_only is not None:
        lines.append(
            f"{'labels only':{width}}  {labels_only:6.2f} % {result['measured_on']} accuracy  (logistic regression on "
            "the features of a learned net, of the same labels)"
        )
    if any(run.result["steps"] for run in results.values()):
        lines.append(
            "the accuracy is the result: of the averaged weights after the last step; the median tells how it sways"
        )
    first = next(iter(results.values()))
    if first.result["measured_on"] == "train":
        lines.append(
            "there are no test pictures, so it is that of the labeled pictures, which were trained on: "
            "put some into test/CLASS/, or hold some back with --data.valid N"
        )
    if first.result["measured_on"] == "valid":
        count = len(first.split.validation)
        lines.append(
            f"there are no test pictures, so it is that of the {count} validation pictures, which are held back"
        )
    return "\n".join([*lines, *following(first)])


def following(run: Run) -> list[str]:
    """The commands that come after a training, a line for each."""
    path = shlex.quote(str(run.path))
    rest = ("evaluate {}", "predict {} PICTURES... -o out.csv", "report {}")
    lines = [f"fewlabels {words.format(path)}" for words in rest]
    page = [f"what it has learnt: {run.path / PAGE}"] if (run.path / PAGE).exists() else []
    return [*page, f"next: {lines[0]}", *(f"      {line}" for line in lines[1:])]
