"""fewlabels predict"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.inference.model import load_predictor
from fewlabels.inference.predict import predict, targets
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
    """Image files and folders."""
    output: Annotated[str | None, tyro.conf.arg(aliases=("-o",))] = None
    """File to write: .csv (path,label,confidence), .json, or .npy (class numbers, with a .json of the names);
    default: the CSV on standard output."""
    npy: str | None = None
    """NumPy file of the class numbers to write besides (with a .json of the names)."""
    overwrite: bool = False
    """Replace the files if they exist."""
    probabilities: bool = False
    """Write the probability of every class too."""
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
    progress: bool = True
    """Show a progress bar."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels predict")
    if not command.paths:
        raise UsageError("predict needs image files or folders after the run")
    if command.npy is not None and Path(command.npy).suffix != ".npy":
        raise UsageError(f"--npy writes a file called NAME.npy, got {command.npy!r}")
    outputs = [Path(name) for name in (command.output, command.npy) if name is not None]
    written = [path for output in outputs for path in targets(output)]
    if twice := [path for path in written if written.count(path) > 1]:
        raise UsageError(f"--output and --npy would both write {twice[0]}; name another file")
    if outputs:
        for path in written:
            if path.exists() and not command.overwrite:
                raise UsageError(f"{path} exists; name another file, or add --overwrite")
            if not path.parent.is_dir():
                raise UsageError(f"there is no folder {path.parent} to write {path.name} to")
    if command.max_pixels is not None and command.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {command.max_pixels}")
    device = pick_device(command.device)
    run = Run(command.run)
    model = load_predictor(run, checkpoint=command.checkpoint, weights=command.weights, device=device)
    if command.max_pixels is not None:
        model = replace(model, how=model.how._replace(max_pixels=command.max_pixels))
    with bar("predicting", command.progress) as show:
        paths, told = [expanded(p) for p in command.paths], command.label_from or run.config.data.label_from
        found = predict(model, paths, label_from=told, progress=show)
    if command.output is None:
        streams.put(found.csv(command.probabilities))
    else:
        streams.aside()
    for output in outputs:
        for path in found.write(output, probabilities=command.probabilities and output != Path(command.npy or "")):
            print(f"wrote {path}", file=sys.stderr)
    if found.unknown_classes:
        names = ", ".join(visible(name, lines=False) for name in found.unknown_classes)
        what = "class folders" if told == "folder" else "classes in names"
        print(f"{what} that the run does not know: {names}", file=sys.stderr)
    if found.accuracy is not None:
        over = "the class folders" if told == "folder" else "the classes in the names"
        print(f"accuracy over {over}: {found.accuracy:.2f} %", file=sys.stderr)
    for note in found.notes:
        print(note, file=sys.stderr)
    for name, reason in found.corrupt:
        print(f"could not read {visible(name, lines=False)}: {reason}", file=sys.stderr)
    if found.corrupt:
        print(f"fewlabels: {len(found.corrupt)} file(s) could not be read", file=sys.stderr)
    return 1 if found.corrupt else 0
