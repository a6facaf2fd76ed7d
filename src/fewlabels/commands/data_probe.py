"""fewlabels data probe: which problem the data have."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro
from rich.table import Table

from fewlabels.commands.data_look import load_split
from fewlabels.commands.options import UsageError
from fewlabels.config.choice import look
from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data
from fewlabels.datatools import probe as probing
from fewlabels.inference.features import SIDE
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.streams import visible
from fewlabels.runtime.words import first
from fewlabels.training.log import bar


@dataclass(frozen=True)
class Probe(Data):
    """Say which problem the data have: other classes without a label, long tail, strangers, twins."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")] = field()
    """A run folder, a data name or a folder of pictures."""
    features: probing.Kind = field(default="auto", kw_only=True)
    """What the pictures are compared by: the features of a net that has learned from other photographs (`learned`), or
    distances to patches that are common in these pictures (`patches`); `auto`: by the learned net where its weights are
    here and the pictures are not tiny, unless patches tell the labels apart better; of a run, by its own net."""
    pictures: int = field(default=3000, kw_only=True)
    """Unlabeled pictures to look at, at most."""
    probe_seed: int = field(default=1, kw_only=True)
    """Seed of the choice of pictures, of the folds and of the intervals."""
    twins: bool = field(default=True, kw_only=True)
    """Look for pictures that are in two parts."""
    device: str = field(default="auto", kw_only=True)
    """Where a net computes: auto, cpu, cuda or cuda:N."""
    json: bool = field(default=False, kw_only=True)
    """Print JSON."""


MOST_SHARE = 0.895
"""The estimate of strangers ends at 0.9."""


def run_probe(command: Probe) -> int:
    if command.pictures < 20:
        raise UsageError(f"--pictures must be at least 20, got {command.pictures}")
    if not 0 <= command.probe_seed < 2**32:
        raise UsageError(f"--probe-seed must lie in 0 .. {2**32 - 1}, got {command.probe_seed}")
    device = pick_device(command.device)
    run = probing.run_in(command.name, expanded(command.name))
    if run is not None:
        if not probing.only_name(command.alone()):
            raise UsageError(
                f"the run {run.path} says itself what its data are: leave out all options of data but --root"
            )
        data, split = run.config.data, run.split
        if command.root is not None:
            data = replace(data, root=command.root)
        with bar("reading") as report:
            source = load_source(data, report)
        split.check_fit(source)
    else:
        source, split = load_split(_sized(command))
    with bar("looking at pictures") as report:
        result = probing.probe(
            command.name,
            source,
            split,
            run=run,
            features=command.features,
            pictures=command.pictures,
            seed=command.probe_seed,
            look_for_twins=command.twins,
            device=device,
            progress=report,
        )
    if command.json:
        print(json.dumps(result))
    else:
        _show(result)
    return 0


def _sized(command: Probe) -> Probe:
    """A folder of pictures for the learned net is read at the size at which that looks at them."""
    if command.features == "patches" or command.image_size is not None:
        return command
    there = look(command.alone())
    return replace(command, image_size=SIDE) if there is not None and probing.can_look(there.side) else command


def _show(result: dict[str, Any]) -> None:
    out = Screen()
    looked = " and ".join(f"{n:,} {part}" for part, n in result["looked_at"].items())
    classes = result["classes"]
    out.print(
        f"{result['name']}: {result['labels']:,} labels of {len(classes)} classes, {result['unlabeled']:,} unlabeled "
        f"pictures; looked at {looked} ones. Features: {result['features']}. With them the class of a labeled picture "
        f"that was left out is told in {100 * result['accuracy']:.0f} % (by guessing in {100 / len(classes):.0f} %)."
    )
    table = Table(box=None, pad_edge=False)
    for column in ("class", "labels", "share %", "unlabeled %", "interval %"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, c in list(classes.items())[:30]:
        table.add_row(
            visible(name, lines=False),
            f"{c['labels']:,}",
            f"{100 * c['labeled']:.1f}",
            f"{100 * c['unlabeled']:.1f}",
            f"{100 * c['low']:.0f} to {100 * c['high']:.0f}",
        )
    out.print("", table, sep="\n")
    if len(classes) > 30:
        out.print(f"and {len(classes) - 30} more classes (--json has all)")
    out.print("")
    for sentence in sentences(result):
        out.print(sentence)


def sentences(result: dict[str, Any]) -> list[str]:
    """The findings in words."""
    named = result["named"]
    lines = [*_shares(result), _tail(result), _strangers(result), *_twins(result)]
    lines += [f"note: {note}" for note in result["notes"]]
    for problem in named:
        option = result["options"].get(problem)
        lines.append(
            f"{problem}: " + (f"try fewlabels train {option}" if option else "this version has no method for it")
        )
        if problem == "long tail":
            lines.append(
                "long tail: look at the recall of each class and its mean (fewlabels evaluate), not at the accuracy "
                "alone; that the unlabeled pictures have the same tail is not proven, see the shares"
            )
    if not named:
        lines.append("no problem was found; what is smaller than the intervals cannot be seen with these labels")
    lines.append(f"took {result['seconds']:.0f} s; intervals are meant to hold in 9 of 10 cases")
    return lines


def _shares(result: dict[str, Any]) -> list[str]:
    s = result["shares"]
    about = (
        f"{_percent(s['differ'])} (up to {_percent(s['high'])}) of them are of another class than the labels would say"
    )
    if "strangers" in result["named"]:
        return ["shares of the classes: not judged, as strangers make them look different"]
    if "missing not at random" not in result["named"]:
        return [
            f"shares of the classes: nothing says that the unlabeled pictures differ from the labels (p {s['p']:.2g}); "
            f"with so few labels a difference of {_percent(s['high'])} of the pictures can go unseen"
        ]
    lines = [f"shares of the classes: the unlabeled pictures differ from the labels (p {s['p']:.2g}); {about}"]
    if result["unclear"]:
        lines.append("this may be strangers instead: the two cannot be told apart here")
    return lines


def _tail(result: dict[str, Any]) -> str:
    t = result["tail"]
    counts = [c["labels"] for c in result["classes"].values()]
    ratio = f"{t['low']:.1f} to {t['high']:.1f} times as common"
    if "long tail" in result["named"]:
        return (
            f"long tail: {min(counts)} to {max(counts)} labels in a class; the largest class is {ratio} as the smallest"
        )
    if t["p"] < 0.05:
        return f"long tail: the labels are uneven (p {t['p']:.2g}); the largest class is {ratio} as the smallest"
    return (
        f"long tail: the labels show none; by their number one class can be {t['high']:.1f} times as common as another"
    )


def _strangers(result: dict[str, Any]) -> str:
    s = result["strangers"]
    share = f"{_percent(s['share'])} (interval {_percent(s['low'])} to {_percent(s['high'])})"
    if "strangers" in result["named"]:
        share = "90 % or more" if s["share"] >= MOST_SHARE else f"at least {share}"
        return f"strangers: {share} of the unlabeled pictures look as if they belonged to no class"
    return f"strangers: nothing says that there are any; as many as {_percent(s['high'])} can go unseen"


def _twins(result: dict[str, Any]) -> list[str]:
    if result["twins"] is None:
        return ["twins: not looked for"]
    lines = []
    for pair in result["twins"]:
        if total := pair["same"] + pair["nearly"]:
            examples = first([f"{a} = {b}" for a, b, _ in pair["pairs"]], 2)
            lines.append(
                f"twins: {total} {pair['first']} pictures are in {pair['second']} too, {pair['same']} pixel for pixel "
                f"and {pair['nearly']} nearly: {examples}"
            )
    return lines or ["twins: no picture is in two parts"]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
