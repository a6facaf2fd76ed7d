"""fewlabels train"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fewlabels.algorithms import ALGORITHMS, SelfTraining, Supervised
from fewlabels.commands import many, own_pictures
from fewlabels.commands.options import UsageError, parse, spelled
from fewlabels.config.choice import Choice
from fewlabels.config.recipes import RECIPES, changed, hint, recipe
from fewlabels.config.resolve import resolve_data
from fewlabels.config.settings import Data, Net, Train, algorithm_name, difference, from_dict, to_dict
from fewlabels.data.imagenets import FOLDERS
from fewlabels.data.names import is_folder
from fewlabels.data.names import parse as parse_name
from fewlabels.data.sources import default_root
from fewlabels.data.split import source_in
from fewlabels.datatools.listing import present
from fewlabels.runs.records import FREE_TO_CHANGE, PLACES
from fewlabels.runs.run import PAGE, Run, RunError
from fewlabels.runtime import parallel, regular, streams
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import nearest, seconds_of
from fewlabels.sweep.plan import Kind, numbers, plan, with_baseline
from fewlabels.sweep.stages import stages
from fewlabels.training.budget import Budget
from fewlabels.training.loop import Output, resume, train
from fewlabels.training.transfer import weights_file

if TYPE_CHECKING:
    from fewlabels.training.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Command:
    """Train a classifier from few labels and many unlabeled images.

    The defaults shown here are those of the recipe for the algorithm and the data set that were named.
    """

    train: Annotated[Train, tyro.conf.arg(name="")]
    out: str | None = None
    """Run folder; default: runs/DATA-ALGORITHM-sSEED, then -2, -3."""
    overwrite: bool = False
    """Replace the run that the folder holds."""
    resume: str | None = None
    """Go on with this run folder."""
    recipe: str | None = None
    """What a published project trained with (`fewlabels list recipes`), weaker than --config and options; default:
    the recipe for the algorithm and the data set."""
    config: str | None = None
    """JSON file of settings (a run's config.json will do), stronger than the recipe, weaker than options."""
    baseline: bool = False
    """Train the supervised baseline too: the same labels, views and steps without the unlabeled images."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="0..4|1,3,5")] = None
    """Train once with each of these seeds and show mean and standard deviation; one after another, or one on each
    visible GPU. The same command goes on after a stop."""
    folds: Annotated[str | None, tyro.conf.arg(metavar="1..5|1,3,5")] = None
    """The same over seeds of the split (SEED of the data's name), as the papers' mean and deviation are."""
    teacher_seeds: Annotated[str | None, tyro.conf.arg(metavar="1..3|1,3,5")] = None
    """For self-training without --teachers: train teachers on the labels alone first, one with each of these seeds;
    default: 1..3, or --seed with each of --teacher-nets. The same command goes on after a stop."""
    teacher_nets: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NET...")] = ()
    """Networks of these teachers, with the other settings of the student's; default: its own."""
    time: Annotated[str | None, tyro.conf.arg(metavar="90s|10m|1h30m")] = None
    """End within this time: measure the speed of this machine and take as many steps as fit, in place of --steps."""
    dry_run: bool = False
    """Show what the training will cost on this machine, and stop."""
    json: bool = False
    """With --dry-run: print all settings and the costs as one JSON object, which --config takes."""
    progress: bool = True
    """Show a progress bar."""


def main(args: list[str]) -> int:
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
        return _stages(command, args)
    if command.teacher_seeds is not None or command.teacher_nets:
        option = "--teacher-seeds" if command.teacher_seeds is not None else "--teacher-nets"
        raise UsageError(f"{option} is for self-training that trains its teachers itself, without --teachers")
    budget, chosen = _budget(command, args), _chosen(command, args)
    if chosen is not None and command.train.fits:
        budget = None  # which the size of the pictures was chosen by
    reasons = own_pictures.said_of(chosen) if chosen is not None else []
    if command.seeds is not None or command.folds is not None:
        _check_many(command, args)
        kind: Kind = "seed" if command.seeds is not None else "fold"
        which = numbers(f"--{kind}s", command.seeds or command.folds or "")
        jobs = partial(plan, command.train, kind, which, out=command.out, baseline=command.baseline)
        jobs = partial(jobs, overwrite=command.overwrite)
        print(*reasons, sep="\n", end="\n" if reasons else "")
        return many.main(jobs, kind, dry_run=command.dry_run, progress=command.progress)
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


def read(args: list[str]) -> Command:
    """The command with its defaults from recipe and --config; `--resume` takes them from the run."""
    prog, names = "fewlabels train", list(ALGORITHMS)
    named = _recipe_of(args)
    plain = Command(train=replace(recipe(named) if named else Train(), **_other_views(args)))

    def settled(words: list[str]) -> tuple[Command, Command]:
        """The command, and its defaults; those of the net wait for the net that file and options name."""
        first = parse(Command, words, prog=prog, default=plain, positional=names)
        default = _defaults(first, words)
        command = parse(Command, words, prog=prog, default=default, positional=names)
        final = _defaults(command, words, command.train.net)
        if final != default:
            command = parse(Command, words, prog=prog, default=final, positional=names)
        return command, final

    if any(a in ("-h", "--help") for a in args):
        rest = [a for a in args if a not in ("-h", "--help")]
        parse(Command, args, prog=prog, default=settled(rest)[1], positional=names)
    command, _ = settled(args)
    if command.resume is not None:
        _check_resume(command)
        return command
    return replace(command, train=weights_file(command.train))


def _defaults(first: Command, args: list[str], net: Net | None = None) -> Command:
    """What the options that were not given mean, once algorithm, data, --config, --resume and `net` are known."""
    if first.resume is not None:
        run = Run(first.resume)
        return Command(train=run.config, baseline=run.wants_baseline)
    file = _read_config(first.config) if first.config else {}
    algorithm, data = first.train.algorithm, first.train.data.name
    if first.recipe and algorithm.name != RECIPES[first.recipe].algorithm:
        raise UsageError(
            f"the recipe {first.recipe} is one of {RECIPES[first.recipe].algorithm}, not of {algorithm.name}"
        )
    if first.train.data.split is not None and data == Data().name:
        data = source_in(first.train.data.split)
    named = file.get("algorithm")
    if named and not _names_algorithm(args):
        named = named.get("name") if isinstance(named, dict) else named
        algorithm = ALGORITHMS.get(str(named), type(algorithm))()
    if isinstance(file.get("data"), dict):
        if any(a == "--data" or a.startswith("--data=") for a in args):  # the file's split is that of the file's name
            file["data"] = {k: v for k, v in file["data"].items() if k not in ("name", "labels", "seed", "valid")}
        data = str(file["data"].get("name", data))
    own, chosen = net or Net(), _chosen(first, args)
    suited: Mapping[str, Any] = chosen.settings if chosen else {}
    base = recipe(
        first.recipe or (chosen.algorithm if chosen else algorithm_name(algorithm)),
        data,
        net=net.name if net else suited.get("net.name"),
        pretrained=own.pretrained or suited.get("net.pretrained", False),
        train=own.train,
    )
    base = changed(base, suited)
    if file:
        try:
            base = from_dict(file, base)
        except ValueError as error:
            raise UsageError(f"--config {first.config}: {spelled(str(error), '')}") from None
    base = replace(base, **_other_views(args))
    alone = isinstance(algorithm, Supervised | SelfTraining)  # whose teachers are the comparison
    shown = (chosen or parse_name(data).base == "digits") and not alone and base.steps > 0
    return Command(train=base, baseline=bool(shown))


def _chosen(command: Command, args: list[str]) -> Choice | None:
    return None if _names_algorithm(args) else own_pictures.chosen(command.train, command.time, args)


def _recipe_of(args: list[str]) -> str | None:
    """The name after --recipe: its algorithm has to be known before the algorithm's options can be read."""
    given = [after for word, after in pairwise([*args, "--"]) if word == "--recipe"]
    given += [a.removeprefix("--recipe=") for a in args if a.startswith("--recipe=")]
    if not given or given[-1].startswith("--"):
        return None
    if given[-1] not in RECIPES:
        raise UsageError(
            f"there is no recipe {given[-1]!r}{nearest(given[-1], RECIPES)} (`fewlabels list recipes` prints them)"
        )
    return given[-1]


def _other_views(args: list[str]) -> dict[str, Any]:
    """What recipe and file say of the views in the words that the command line does not use."""
    given = {a.partition("=")[0] for a in args}
    if "--augment" in given:
        return {"weak": "auto", "strong": "auto", "cutout": True}
    return {"augment": None} if "--strong" in given else {}


def _names_algorithm(args: list[str]) -> bool:
    """Whether the command line names the algorithm (not only, say, a run folder of that name)."""
    free = ("--out", "--resume", "--recipe", "--config", "--data", "--data.root", "--net", "--device")
    return any(word in ALGORITHMS and before not in free for before, word in pairwise(["", *args]))


def _read_config(name: str) -> dict[str, Any]:
    try:
        content = json.loads(regular.read_text(Path(name)))
    except OSError as error:
        raise UsageError(f"--config {name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"--config {name} is not a JSON file") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {name} must hold an object of settings")
    inner = content.get("train", content)
    if not isinstance(inner, dict):
        raise UsageError(f"--config {name} must hold an object of settings under 'train'")
    return dict(inner)


def _check_many(command: Command, args: list[str]) -> None:
    """Raises UsageError where the options do not say clearly what the runs are."""
    option, given = ("--seeds" if command.seeds is not None else "--folds"), {a.partition("=")[0] for a in args}
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


def _check_resume(command: Command) -> None:
    if command.out is not None or command.overwrite or command.recipe is not None or command.config is not None:
        raise UsageError(
            "--resume goes on in the run's own folder with its own settings: leave out --out, --overwrite, --recipe "
            "and --config"
        )
    run = Run(str(command.resume))
    old, new = difference(run.config, command.train), difference(command.train, run.config)
    for name, value in new.items():
        place = name.removeprefix("data.") in PLACES and is_folder(command.train.data.name) and run.split.pictures
        if name not in FREE_TO_CHANGE and not place:
            raise RunError(
                f"{run.path} was started with {name} {old.get(name)} and cannot be resumed with {value}; "
                "start a new run"
            )


def _stages(command: Command, args: list[str]) -> int:
    """Self-training with teachers of its own. Raises UsageError for options that do not go with it."""
    given = {a.partition("=")[0] for a in args}
    why = "self-training without --teachers trains them first"
    for option, clause in {
        "--seeds": "give it a --seed and --teacher-seeds, or --teachers that are trained already",
        "--folds": "give it one --data.seed, or --teachers that are trained already",
        "--time": "give it --steps, or --teachers that are trained already",
        "--baseline": "its teachers are the models on the labels alone: leave it out",
    }.items():
        if option in given:
            raise UsageError(f"{option}: {why}; {clause}")
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
    return many.main(
        partial(jobs, overwrite=command.overwrite), "stage", dry_run=command.dry_run, progress=command.progress
    )


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
