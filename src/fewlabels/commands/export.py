"""fewlabels export"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.config.resolve import load_source
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.resized import taken
from fewlabels.data.source import Images, OnDemand
from fewlabels.inference.deploy import SUFFIXES, Form, export, missing, noise
from fewlabels.nets import learned
from fewlabels.runs.run import Run
from fewlabels.runtime.regular import expanded

CHECKED = 500
"""Pictures, at most, with which a file is compared with the model."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Write a run's model as one file that runs without fewlabels: uint8 pictures in, probabilities out.

    Size, normalisation, classes and licence are inside. The file is run and compared with the model before it is kept.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    to: Form = "onnx"
    """onnx, torch (a program of torch.export), openvino, or safetensors (weights alone)."""
    out: Annotated[str | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File to write; default: `model` with the form's suffix in the run folder."""
    checkpoint: str = "last"
    """last, best or a step."""
    weights: str = "ema"
    """ema or raw."""
    licence: str | None = None
    """What the file says of the licence of its weights; default: that of the learned weights that the training began
    with, where it is known."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels export")
    if absent := missing(command.to):
        raise UsageError(
            f"--to {command.to} needs the packages {', '.join(absent)}: pip install 'fewlabels[{command.to}]'"
        )
    run = Run(command.run)
    path = expanded(command.out) if command.out is not None else run.path / f"model{SUFFIXES[command.to]}"
    if path.suffix != SUFFIXES[command.to]:
        raise UsageError(f"-o {path} must end with {SUFFIXES[command.to]} for --to {command.to}")
    licence = command.licence if command.licence is not None else _licence(run)
    images, which = pictures(run)
    done = export(
        run, command.to, path, images, licence=licence, checkpoint=command.checkpoint, weights=command.weights
    )
    print(
        f"wrote {done.path}, {done.megabytes:.1f} MB; checked on {done.pictures} {which}: the largest difference of a "
        f"probability to the model is {done.largest:.1g}"
    )
    if not licence:
        print("the file names no licence of its weights: --licence NAME puts one in", file=sys.stderr)
    return 0


def pictures(run: Run) -> tuple[Images, str]:
    """Those that the file is compared on, and what they are."""
    shape = run.data["shape"]
    if run.config.data.name == ARRAYS:
        return noise(shape), "pictures of noise (the run's were arrays in memory)"
    try:
        source = load_source(run.config.data, size=tuple(shape[1:]))
    except (ValueError, OSError) as error:
        print(f"note: the pictures of the run are not there ({error})", file=sys.stderr)
        return noise(shape), "pictures of noise"
    if len(source.test_labels):
        return _some(source.test_images), "test pictures"
    return _some(source.images), "pictures of the run"


def _some(images: Images | OnDemand) -> Images:
    """Some of all of them."""
    return taken(images, np.unique(np.linspace(0, len(images) - 1, min(CHECKED, len(images)), dtype=np.int64)))


def _licence(run: Run) -> str:
    if not run.config.net.pretrained:
        return ""
    known = learned.named(run.config.net.name)
    return known.licence if known is not None else ""
