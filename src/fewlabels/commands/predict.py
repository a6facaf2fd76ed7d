"""fewlabels predict"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

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
    overwrite: bool = False
    """Replace the file if it exists."""
    probabilities: bool = False
    """Write the probability of every class too."""
    checkpoint: str = "last"
    """last, best or a step."""
    weights: str = "ema"
    """ema or raw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    max_pixels: int | None = None
    """Pixels of a picture that is still read; default: as in the training."""
    progress: bool = True
    """Show a progress bar."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels predict")
    if not command.paths:
        raise UsageError("predict needs image files or folders after the run")
    if command.output is not None:
        for path in targets(Path(command.output)):
            if path.exists() and not command.overwrite:
                raise UsageError(f"{path} exists; name another file, or add --overwrite")
            if not path.parent.is_dir():
                raise UsageError(f"there is no folder {path.parent} to write {path.name} to")
    if command.max_pixels is not None and command.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {command.max_pixels}")
    device = pick_device(command.device)
    model = load_predictor(Run(command.run), checkpoint=command.checkpoint, weights=command.weights, device=device)
    if command.max_pixels is not None:
        model = replace(model, how=model.how._replace(max_pixels=command.max_pixels))
    with bar("predicting", command.progress) as show:
        found = predict(model, [expanded(p) for p in command.paths], progress=show)
    if command.output is None:
        streams.put(found.csv(command.probabilities))
    else:
        streams.aside()
        for path in found.write(Path(command.output), probabilities=command.probabilities):
            print(f"wrote {path}", file=sys.stderr)
    if found.unknown_classes:
        names = ", ".join(visible(name, lines=False) for name in found.unknown_classes)
        print(f"class folders that the run does not know: {names}", file=sys.stderr)
    if found.accuracy is not None:
        print(f"accuracy over the class folders: {found.accuracy:.2f} %", file=sys.stderr)
    for note in found.notes:
        print(note, file=sys.stderr)
    for name, reason in found.corrupt:
        print(f"could not read {visible(name, lines=False)}: {reason}", file=sys.stderr)
    if found.corrupt:
        print(f"fewlabels: {len(found.corrupt)} file(s) could not be read", file=sys.stderr)
    return 1 if found.corrupt else 0
