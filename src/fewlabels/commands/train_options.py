"""The options of fewlabels train, and what those mean that were not given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro

from fewlabels.algorithms import ALGORITHMS, SelfTraining, Supervised
from fewlabels.commands import own_pictures
from fewlabels.commands.options import UsageError, given, last_value, parse, replaced, spelled
from fewlabels.config.choice import Choice
from fewlabels.config.plain import difference, from_dict, to_dict
from fewlabels.config.published import RECIPES
from fewlabels.config.recipes import changed, recipe
from fewlabels.config.settings import Data, Net, Train, algorithm_name
from fewlabels.data.names import is_folder
from fewlabels.data.names import parse as parse_name
from fewlabels.data.protocol import Options
from fewlabels.data.split import source_in
from fewlabels.runs.mirror import mirrored
from fewlabels.runs.records import FREE_TO_CHANGE, PLACES
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import regular
from fewlabels.runtime.words import nearest
from fewlabels.sweep.generations import Generations
from fewlabels.sweep.on import On
from fewlabels.training.transfer import weights_file


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
    """Settings of a published project, or `fast` (`fewlabels list recipes`), weaker than --config and options; default:
    the recipe for the algorithm and the data set."""
    config: str | None = None
    """JSON file of settings (a run's config.json will do), stronger than the recipe, weaker than options."""
    from_run: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """Start from the averaged weights of this run, with its settings and data (weaker than options), as after new
    answers: `--data.split FILE`."""
    baseline: bool = False
    """Train the supervised baseline too: the same labels, views and steps without the unlabeled images."""
    seeds: Annotated[str | None, tyro.conf.arg(metavar="0..4|1,3,5")] = None
    """Train once with each of these seeds and show mean and standard deviation; one after another, or one on each
    visible GPU. The same command goes on after a stop."""
    folds: Annotated[str | None, tyro.conf.arg(metavar="1..5|1,3,5")] = None
    """The same over seeds of the split (SEED of the data's name), as the papers' mean and deviation are."""
    grid: Annotated[str | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Train once for each row of this table: a column for each option, by its name without dashes, or for `algorithm`;
    with --seeds or --folds once for each of these too, and with mean and standard deviation by row."""
    generations: Generations = field(default_factory=Generations)
    on: On = field(default_factory=On)
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


PROG = "fewlabels train"


def read(args: list[str]) -> Command:
    """The command with its defaults from recipe and --config; `--resume` takes them from the run."""
    named = _recipe_of(args)
    plain = Command(train=replace(recipe(named) if named else Train(), **_other_views(args)))

    def settled(words: list[str]) -> tuple[Command, Command]:
        """The command, and its defaults; those of the net wait for the net that file and options name."""
        first = parse(Command, words, prog=PROG, default=plain, positional=ALGORITHMS)
        default = _defaults(first, words)
        command = _over(default, first, words)
        final = _defaults(command, words, command.train.net)
        return _over(final, first, words), final

    if any(a in ("-h", "--help") for a in args):
        rest = [a for a in args if a not in ("-h", "--help")]
        parse(Command, args, prog=PROG, default=settled(rest)[1], positional=ALGORITHMS)
    command, _ = settled(args)
    if command.resume is not None:
        _check_resume(command)
        return command
    return replace(command, train=weights_file(command.train))


def _defaults(first: Command, args: list[str], net: Net | None = None) -> Command:
    """What the options that were not given mean, once algorithm, data, --config, --resume and `net` are known."""
    if first.resume is not None:
        run = Run(mirrored(first.resume, weights=False))
        return Command(train=run.config, baseline=run.wants_baseline)
    file = _read_config(first.config) if first.config else {}
    if first.from_run is not None:
        file = _after(first)
    algorithm, data = first.train.algorithm, first.train.data.name
    if first.recipe and algorithm.name != RECIPES[first.recipe].algorithm:
        raise UsageError(
            f"the recipe {first.recipe} is one of {RECIPES[first.recipe].algorithm}, not of {algorithm.name}"
        )
    there = file["data"] if isinstance(file.get("data"), dict) else {}
    if first.train.data.split is not None and data == Data().name and (first.from_run is None or "name" not in there):
        data = source_in(first.train.data.split)
    named = file.get("algorithm")
    if named and not names_algorithm(args):
        named = named.get("name") if isinstance(named, dict) else named
        algorithm = ALGORITHMS.get(str(named), type(algorithm))()
    if isinstance(file.get("data"), dict):
        if any(a == "--data" or a.startswith("--data=") for a in args):  # the file's split is that of the file's name
            file["data"] = {k: v for k, v in file["data"].items() if k not in ("name", "labels", "seed", "valid")}
        data = str(file["data"].get("name", data))
    own, choice = net or Net(), recipe_for(first, args)
    suited: Mapping[str, Any] = choice.settings if choice else {}
    base = recipe(
        first.recipe or (choice.algorithm if choice else algorithm_name(algorithm)),
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
    shown = (choice or parse_name(data).base == "digits") and not alone and base.steps > 0
    return Command(train=base, baseline=bool(shown) and first.from_run is None)


def _after(first: Command) -> dict[str, Any]:
    """The settings of the run of --from, and its weights to start from; a body that did not learn is taken again as it
    is, and what a split file says is left to it."""
    for option, value in (("--config", first.config), ("--recipe", first.recipe)):
        if value is not None:
            raise UsageError(f"--from takes the settings of its run, and {option} gives others: leave one of them out")
    run = Run(mirrored(str(first.from_run), weights=False))
    file: dict[str, Any] = to_dict(run.config)
    if run.config.net.train != "head":
        file["net"] = {**file["net"], "pretrained": str(first.from_run), "head": "kept"}
    if first.train.data.split is not None:
        said = {"split", "labels", "seed", "valid", "rule", *Options._fields}
        said |= {"unlabeled"} if run.config.data.unlabeled in ("all", "rest") else set()
        file["data"] = {name: value for name, value in file["data"].items() if name not in said}
    return file


def _over(default: Command, parsed: Command, args: list[str]) -> Command:
    """`default` with what the arguments say, which were `parsed` over other defaults."""
    mine, theirs = default.train.algorithm, parsed.train.algorithm
    if type(mine) is not type(theirs):
        if not names_algorithm(args):
            return parse(Command, args, prog=PROG, default=default, positional=ALGORITHMS)
        default = replace(default, train=replace(default.train, algorithm=theirs))
    own = [("train", "algorithm", *field) for field in given(args, type(theirs))]
    return replaced(default, parsed, [*given(args, Command), *own])


def recipe_for(command: Command, args: list[str]) -> Choice | None:
    """The recipe that is chosen for a folder of own pictures, if the command line leaves it open."""
    return None if names_algorithm(args) else own_pictures.chosen(command.train, command.time, args)


def _recipe_of(args: list[str]) -> str | None:
    """The name after --recipe: its algorithm has to be known before the algorithm's options can be read."""
    name = last_value(args, "--recipe")
    if name is not None and name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}{nearest(name, RECIPES)} (`fewlabels list recipes` prints them)")
    return name


def _other_views(args: list[str]) -> dict[str, Any]:
    """What recipe and file say of the views in the words that the command line does not use."""
    given = {a.partition("=")[0] for a in args}
    if "--augment" in given:
        return {"weak": "auto", "strong": "auto", "cutout": True}
    return {"augment": None} if "--strong" in given else {}


def names_algorithm(args: list[str]) -> bool:
    """Whether the command line names the algorithm (not only, say, a run folder of that name)."""
    free = ("--out", "--resume", "--from", "--recipe", "--config", "--data", "--data.root", "--net", "--device")
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


def _check_resume(command: Command) -> None:
    if command.from_run is not None:
        raise UsageError("--resume goes on with a run, and --from starts a new one: leave one of them out")
    if command.out is not None or command.overwrite or command.recipe is not None or command.config is not None:
        raise UsageError(
            "--resume goes on in the run's own folder with its own settings: leave out --out, --overwrite, --recipe "
            "and --config"
        )
    run = Run(mirrored(str(command.resume), weights=False))
    old, new = difference(run.config, command.train), difference(command.train, run.config)
    for name, value in new.items():
        place = name.removeprefix("data.") in PLACES and is_folder(command.train.data.name) and run.split.pictures
        if name not in FREE_TO_CHANGE and not place:
            raise RunError(
                f"{command.resume} was started with {name} {old.get(name)} and cannot be resumed with {value}; "
                "start a new run"
            )
