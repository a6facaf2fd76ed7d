"""fewlabels predict"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.data.predictions import UNSURE
from fewlabels.inference import parts
from fewlabels.inference.calibration import calibrate
from fewlabels.inference.model import Predictor, load_predictor
from fewlabels.inference.predict import Picture, Predictions, classify, listed, pictures
from fewlabels.inference.shards import Shard, choose
from fewlabels.inference.tables import SUFFIXES, Form, check_text, targets
from fewlabels.runs.run import Run
from fewlabels.runtime import streams
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.streams import visible
from fewlabels.training.log import bar
from fewlabels.training.step import pick_device


@dataclass(frozen=True, kw_only=True)
class Command:
    """Classify image files, or all images in folders, with a trained run."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")]
    """Image files and folders; - is a list of image files on standard input, one on each line or ended by NUL."""
    output: Annotated[str | None, tyro.conf.arg(aliases=("-o",))] = None
    """File to write: .csv (path,label,confidence), .json, .parquet, or .npy (class numbers, with a .json of the names);
    default: the CSV on standard output. With --shard a folder."""
    npy: str | None = None
    """NumPy file of the class numbers to write besides (with a .json of the names)."""
    overwrite: bool = False
    """Replace the files if they exist."""
    probabilities: bool = False
    """Write the probability of every class too."""
    top: int | None = None
    """Write so many of the most probable classes too, with their probabilities."""
    threshold: float | None = None
    """Confidence, 0 to 1, below which the class is called unsure."""
    calibrate: bool = False
    """Divide the logits by a temperature fitted on the run's validation images, so that the confidences can be
    believed; the classes stay."""
    checkpoint: str = "last"
    """last, best or a step."""
    weights: str = "ema"
    """ema or raw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    label_from: Literal["folder", "suffix"] | None = None
    """What tells the class of a picture, for the accuracy: the folder that it lies in, or the end of its name
    (`12_cat.png`); default: as in the training."""
    max_pixels: int | None = None
    """Pixels of a picture that is still read; default: as in the training."""
    shard: str | None = None
    """I/N, with I from 1 to N: classify only the pictures of this shard, into files of a part each in the folder -o.
    The same command again goes on where it was stopped."""
    part_rows: int | None = None
    """Pictures of a part; default: 100000."""
    check: str | None = None
    """Alone, without RUN and PATH: say whether in this folder every picture stands in exactly one part."""
    progress: bool = True
    """Show a progress bar."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say whether every picture stands in exactly one part of a folder that --shard wrote."""

    check: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The folder."""


def main(args: list[str]) -> int:
    if any(word.partition("=")[0] == "--check" for word in args):
        return _check(parse(Check, args, prog="fewlabels predict"))
    command = parse(Command, args, prog="fewlabels predict")
    if not command.paths:
        raise UsageError("predict needs image files or folders after the run")
    if command.paths.count("-") > 1:
        raise UsageError("- stands for standard input, and can be named once")
    if command.max_pixels is not None and command.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {command.max_pixels}")
    if command.shard is not None:
        return _shard(command, Shard.read(command.shard))
    if command.part_rows is not None:
        raise UsageError("--part-rows is for --shard, which writes parts")
    return _whole(command)


def _whole(command: Command) -> int:
    """One table of all pictures."""
    outputs = _outputs(command)
    run, model, form = _model(command)
    tables = [Path(command.output or "a.csv"), *outputs]
    if any(path.suffix in (".csv", ".parquet") for path in tables[:1]):
        _ = form.head  # complains before the work
    found = list(_pictures(command))
    for output in outputs:
        check_text(output, [str(picture.file) for picture in found])
    temperature = _temperature(command, model, run)
    told = command.label_from or run.config.data.label_from
    with bar("predicting", command.progress) as show:
        result = classify(model, found, temperature=temperature or 1.0, label_from=told, progress=show)
    if command.output is None:
        streams.put(result.csv(form))
    else:
        streams.aside()
    for output in outputs:
        besides = replace(form, probabilities=False) if output == Path(command.npy or "") else form
        for path in result.write(output, besides):
            print(f"wrote {path}", file=sys.stderr)
    _say(result, form, told)
    return 1 if result.corrupt else 0


def _outputs(command: Command) -> list[Path]:
    """The files to write. Raises UsageError where one is there or has no folder."""
    if command.npy is not None and Path(command.npy).suffix != ".npy":
        raise UsageError(f"--npy writes a file called NAME.npy, got {command.npy!r}")
    outputs = [Path(name) for name in (command.output, command.npy) if name is not None]
    written = [path for output in outputs for path in targets(output)]
    if command.top is not None and outputs and command.output == str(outputs[0]) and outputs[0].suffix == ".npy":
        raise UsageError("--top is for .csv, .json and .parquet: .npy holds class numbers (or --probabilities)")
    if twice := [path for path in written if written.count(path) > 1]:
        raise UsageError(f"--output and --npy would both write {twice[0]}; name another file")
    for path in written:
        if path.exists() and not command.overwrite:
            raise UsageError(f"{path} exists; name another file, or add --overwrite")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} to write {path.name} to")
    return outputs


def _model(command: Command) -> tuple[Run, Predictor, Form]:
    device = pick_device(command.device)
    run = Run(command.run)
    form = Form(tuple(run.data["classes"]), command.probabilities, command.top, command.threshold)
    model = load_predictor(run, checkpoint=command.checkpoint, weights=command.weights, device=device)
    if command.max_pixels is not None:
        model = replace(model, how=model.how._replace(max_pixels=command.max_pixels))
    return run, model, form


def _pictures(command: Command) -> Iterator[Picture]:
    for path in command.paths:
        if path == "-":
            yield from listed(_standard_input(), "standard input")
        else:
            yield from pictures([expanded(path)])


def _standard_input() -> bytes:
    return b"" if sys.stdin is None else sys.stdin.buffer.read()


def _temperature(command: Command, model: Predictor, run: Run) -> float | None:
    if not command.calibrate:
        return None
    found = calibrate(model, run)
    print(f"confidences are calibrated: {found}", file=sys.stderr)
    return found.temperature


def _say(found: Predictions, form: Form, told: str) -> None:
    """What is to be said besides, on standard error."""
    if found.unknown_classes:
        names = ", ".join(visible(name, lines=False) for name in found.unknown_classes)
        what = "class folders" if told == "folder" else "classes in names"
        print(f"{what} that the run does not know: {names}", file=sys.stderr)
    if found.accuracy is not None:
        over = "the class folders" if told == "folder" else "the classes in the names"
        print(f"accuracy over {over}: {found.accuracy:.2f} %", file=sys.stderr)
    _say_unsure(form, found.unsure(form), len(found.paths))
    for note in found.notes:
        print(note, file=sys.stderr)
    for name, reason in found.corrupt:
        print(f"could not read {visible(name, lines=False)}: {reason}", file=sys.stderr)
    if found.corrupt:
        print(f"fewlabels: {len(found.corrupt)} file(s) could not be read", file=sys.stderr)


def _say_unsure(form: Form, unsure: int, n: int) -> None:
    if form.threshold is not None:
        what = f"have a confidence below {form.threshold:g} and are called {UNSURE}"
        print(f"{unsure} of {n} pictures {what}", file=sys.stderr)


def _shard(command: Command, shard: Shard) -> int:
    """The pictures of a shard, in parts."""
    if command.output is None:
        raise UsageError("--shard writes a folder of parts: name it with -o DIR")
    folder = Path(command.output)
    if folder.suffix in SUFFIXES:
        raise UsageError(f"--shard writes a folder of parts, and -o {command.output} is called as a file is")
    if not folder.parent.is_dir():
        raise UsageError(f"there is no folder {folder.parent} to make {folder.name} in")
    for given, option in ((command.npy, "--npy"), (command.label_from, "--label-from")):
        if given is not None:
            raise UsageError(f"{option} does not go with --shard, whose parts are CSV files without an accuracy")
    if command.overwrite:
        raise UsageError("--overwrite does not go with --shard, which goes on with the parts that are there")
    if command.part_rows is not None and command.part_rows < 1:
        raise UsageError(f"--part-rows must be at least 1, got {command.part_rows}")
    run, model, form = _model(command)
    _ = form.head  # complains before the work
    chosen = choose(_pictures(command), shard)
    temperature = _temperature(command, model, run)
    streams.aside()
    try:
        with bar("predicting", command.progress) as show:
            done = parts.write_shard(
                model,
                chosen,
                folder,
                form,
                temperature=temperature,
                part_rows=parts.PART_ROWS if command.part_rows is None else command.part_rows,
                progress=show,
            )
    except parts.PartsError as error:
        return _wrong(error)
    for note in done.notes:
        print(note, file=sys.stderr)
    _say_unsure(form, done.unsure, len(chosen.own) - done.unreadable)
    there = f", {done.skipped} of which were there" if done.skipped else ""
    what = f"{len(chosen.own)} of {chosen.every.count} pictures in {done.parts} part(s){there}"
    print(f"shard {shard}: {what}, in {folder}", file=sys.stderr)
    if done.unreadable:
        where = parts.Place(folder, shard).faulty
        print(f"fewlabels: {done.unreadable} file(s) could not be read: {where}", file=sys.stderr)
    return 1 if done.unreadable else 0


def _check(command: Check) -> int:
    try:
        found = parts.check(expanded(command.check))
    except parts.PartsError as error:
        return _wrong(error)
    unsure = "" if found.unsure is None else f"; {found.unsure} are {UNSURE}"
    bad = f", or once among the {found.unreadable} that could not be read" if found.unreadable else ""
    where = f"exactly one of {found.parts} part(s) of {found.shards} shard(s)"
    print(f"each of {found.pictures} pictures stands in {where}{bad}{unsure}")
    return 0


def _wrong(error: parts.PartsError) -> int:
    print(f"fewlabels: {visible(str(error), lines=False)}", file=sys.stderr)
    return 1
