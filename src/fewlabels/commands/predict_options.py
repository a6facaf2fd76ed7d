"""The options of `fewlabels predict`, and what they mean: model, pictures, temperature."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from fewlabels.data.predictions import UNSURE
from fewlabels.inference.calibration import calibrate
from fewlabels.inference.hub import located
from fewlabels.inference.model import Predictor, load_predictor
from fewlabels.inference.predict import Picture, listed, pictures
from fewlabels.inference.tables import Form
from fewlabels.runs.run import Run
from fewlabels.runtime import regular
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.regular import expanded
from fewlabels.sweep.on import On


@dataclass(frozen=True, kw_only=True)
class Command:
    """Classify image files, or all images in folders, with a trained run."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or hf:OWNER/NAME (perhaps @REVISION), a model of the Hugging Face hub."""
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH...")]
    """Image files, folders and tar files; - is a list of such files on standard input, one on each line or ended by
    NUL."""
    list: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File with such a list, after the PATHs or in place of them."""
    output: Annotated[str | None, tyro.conf.arg(aliases=("-o",))] = None
    """File to write: .csv (path,label,confidence), .json, .parquet, or .npy (class numbers, with a .json of the names);
    default: the CSV on standard output. With --shard and --shards a folder."""
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
    shards: int | None = None
    """N: all shards into the folder -o, each in a process of its own, where --on says; then --check."""
    on: On = field(default_factory=On)
    part_rows: int | None = None
    """Pictures of a part; default: 100000."""
    check: str | None = None
    """Alone, without RUN and PATH: say whether in this folder every picture stands in exactly one part."""
    progress: bool = True
    """Show a progress bar."""


def model_of(command: Command) -> tuple[Run, Predictor, Form]:
    device = pick_device(command.device)
    run = Run(located(command.run))
    form = Form(tuple(run.data["classes"]), command.probabilities, command.top, command.threshold)
    model = load_predictor(run, checkpoint=command.checkpoint, weights=command.weights, device=device)
    if command.max_pixels is not None:
        model = replace(model, how=model.how._replace(max_pixels=command.max_pixels))
    return run, model, form


def pictures_of(command: Command) -> Iterator[Picture]:
    for path in command.paths:
        if path == "-":
            yield from listed(_standard_input(), "standard input")
        else:
            yield from pictures([expanded(path)])
    if command.list is not None:
        yield from listed(regular.read_bytes(expanded(command.list)), command.list)


def _standard_input() -> bytes:
    return b"" if sys.stdin is None else sys.stdin.buffer.read()


def temperature_of(command: Command, model: Predictor, run: Run) -> float | None:
    if not command.calibrate:
        return None
    found = calibrate(model, run)
    print(f"confidences are calibrated: {found}", file=sys.stderr)
    return found.temperature


def say_unsure(form: Form, unsure: int, n: int) -> None:
    if form.threshold is not None:
        what = f"have a confidence below {form.threshold:g} and are called {UNSURE}"
        print(f"{unsure} of {n} pictures {what}", file=sys.stderr)
