"""fewlabels predict"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from fewlabels.commands import predict_shards
from fewlabels.commands.options import UsageError, parse
from fewlabels.commands.predict_options import Command, model_of, pictures_of, say_unsure, temperature_of
from fewlabels.inference.predict import Predictions, classify
from fewlabels.inference.shards import Shard
from fewlabels.inference.tables import Form, check_text, targets
from fewlabels.runtime import streams
from fewlabels.runtime.streams import visible
from fewlabels.sweep.on import On
from fewlabels.training.log import bar


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say whether every picture stands in exactly one part of a folder that --shard wrote."""

    check: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """The folder."""


def main(args: list[str]) -> int:
    if any(word.partition("=")[0] == "--check" for word in args):
        return predict_shards.check(parse(Check, args, prog="fewlabels predict").check)
    command = parse(Command, args, prog="fewlabels predict")
    if not command.paths and command.list is None:
        raise UsageError("predict needs image files or folders after the run, or --list FILE")
    if command.paths.count("-") > 1:
        raise UsageError("- stands for standard input, and can be named once")
    if command.max_pixels is not None and command.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {command.max_pixels}")
    if command.shards is not None:
        return predict_shards.every(command)
    if command.on != On():
        raise UsageError("--on is for --shards N, which are classified there")
    if command.shard is not None:
        return predict_shards.one(command, Shard.read(command.shard))
    if command.part_rows is not None:
        raise UsageError("--part-rows is for --shard and --shards, which write parts")
    return _whole(command)


def _whole(command: Command) -> int:
    """One table of all pictures."""
    outputs = _outputs(command)
    run, model, form = model_of(command)
    tables = [Path(command.output or "a.csv"), *outputs]
    if any(path.suffix in (".csv", ".parquet") for path in tables[:1]):
        _ = form.head  # complains before the work
    found = list(pictures_of(command))
    for output in outputs:
        check_text(output, [str(picture.file) for picture in found])
    temperature = temperature_of(command, model, run)
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


def _say(found: Predictions, form: Form, told: str) -> None:
    """What is to be said besides, on standard error."""
    if found.unknown_classes:
        names = ", ".join(visible(name, lines=False) for name in found.unknown_classes)
        what = "class folders" if told == "folder" else "classes in names"
        print(f"{what} that the run does not know: {names}", file=sys.stderr)
    if found.accuracy is not None:
        over = "the class folders" if told == "folder" else "the classes in the names"
        print(f"accuracy over {over}: {found.accuracy:.2f} %", file=sys.stderr)
    say_unsure(form, found.unsure(form), len(found.paths))
    for note in found.notes:
        print(note, file=sys.stderr)
    for name, reason in found.corrupt:
        print(f"could not read {visible(name, lines=False)}: {reason}", file=sys.stderr)
    if found.corrupt:
        print(f"fewlabels: {len(found.corrupt)} file(s) could not be read", file=sys.stderr)
