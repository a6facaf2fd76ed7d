"""fewlabels predict of very many pictures: a shard, all of them on a cluster's engine, and the check of all."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import fields
from pathlib import Path

from fewlabels.commands.options import UsageError
from fewlabels.commands.predict_options import Command, model_of, pictures_of, say_unsure, temperature_of
from fewlabels.data.predictions import UNSURE
from fewlabels.inference import parts
from fewlabels.inference.hub import located
from fewlabels.inference.shards import Shard, choose
from fewlabels.inference.tables import SUFFIXES
from fewlabels.runs.run import Run
from fewlabels.runtime import streams
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.streams import visible
from fewlabels.sweep.plan import MOST
from fewlabels.sweep.shards import ShardWork, predict_all
from fewlabels.training.log import bar


def _folder(command: Command, option: str) -> Path:
    """The folder that shards are written to. Raises UsageError for what does not go with `option`."""
    if command.output is None:
        raise UsageError(f"{option} writes a folder of parts: name it with -o DIR")
    folder = Path(command.output)
    if folder.suffix in SUFFIXES:
        raise UsageError(f"{option} writes a folder of parts, and -o {command.output} is called as a file is")
    if not folder.parent.is_dir():
        raise UsageError(f"there is no folder {folder.parent} to make {folder.name} in")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; {option} writes a folder of parts")
    for given, other in ((command.npy, "--npy"), (command.label_from, "--label-from")):
        if given is not None:
            raise UsageError(f"{other} does not go with {option}, whose parts are CSV files without an accuracy")
    if command.overwrite:
        raise UsageError(f"--overwrite does not go with {option}, which goes on with the parts that are there")
    if command.part_rows is not None and command.part_rows < 1:
        raise UsageError(f"--part-rows must be at least 1, got {command.part_rows}")
    return folder


def one(command: Command, shard: Shard) -> int:
    """The pictures of a shard, in parts."""
    folder = _folder(command, "--shard")
    run, model, form = model_of(command)
    _ = form.head  # complains before the work
    chosen = choose(pictures_of(command), shard)
    temperature = temperature_of(command, model, run)
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
    say_unsure(form, done.unsure, len(chosen.own) - done.unreadable)
    there = f", {done.skipped} of which were there" if done.skipped else ""
    what = f"{len(chosen.own)} of {chosen.every.count} pictures in {done.parts} part(s){there}"
    print(f"shard {shard}: {what}, in {folder}", file=sys.stderr)
    if done.unreadable:
        where = parts.Place(folder, shard).faulty
        print(f"fewlabels: {done.unreadable} file(s) could not be read: {where}", file=sys.stderr)
    return 1 if done.unreadable else 0


def every(command: Command) -> int:
    """All shards, each in a process of its own, and then the check."""
    folder, count = _folder(command, "--shards"), command.shards
    assert count is not None
    command.on.check()
    if command.shard is not None:
        raise UsageError("--shard is one of the --shards: give one of the two")
    if not 1 <= count <= MOST:
        raise UsageError(f"--shards must be 1 to {MOST}, got {count}")
    if "-" in command.paths:
        raise UsageError("--shards gives its processes no standard input: name the list with --list FILE")
    Run(located(command.run))  # complains before anything is started
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    jobs = [ShardWork(shard, folder, words_of(command, shard)) for shard in (Shard(i + 1, count) for i in range(count))]
    streams.aside()
    try:
        result = predict_all(jobs, command.on, command.device, _say)
    finally:
        if made:
            with contextlib.suppress(OSError):  # not where there is something in it
                folder.rmdir()
    done = sum(outcome.kind == "finished" for outcome in result.outcomes.values())
    if result.signum:
        name = signal.Signals(result.signum).name
        sentence = f"stopped by {name} with {done} of {count} shards finished; the same command goes on with the others"
        raise Interrupted(sentence, result.signum)
    if done < count:
        return 1
    bad = any(parts.Place(folder, job.shard).unreadable() for job in jobs)
    return check(str(folder)) or int(bad)


def _say(text: str) -> None:
    print(visible(text, lines=False), file=sys.stderr, flush=True)


def words_of(command: Command, shard: Shard) -> tuple[str, ...]:
    """The words of `fewlabels` that predict a shard of what `command` says, in the same folder."""
    words = ["predict", command.run, *command.paths]
    for option in fields(command):
        value, name = getattr(command, option.name), option.name.replace("_", "-")
        if option.name in ("run", "paths", "shards", "shard", "on", "progress") or value == option.default:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return (*words, "--shard", str(shard), "--no-progress")


def check(folder: str) -> int:
    """Say whether every picture stands in exactly one part of a folder."""
    try:
        found = parts.check(expanded(folder))
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
