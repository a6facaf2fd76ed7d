"""fewlabels export"""

from __future__ import annotations

import sys
import tempfile
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from fewlabels.commands.options import UsageError, parse
from fewlabels.config.resolve import load_source
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.resized import taken
from fewlabels.data.source import Images, OnDemand
from fewlabels.inference import hub
from fewlabels.inference.deploy import SUFFIXES, Exported, Form, export, missing, noise
from fewlabels.nets import learned
from fewlabels.report.card import card
from fewlabels.report.story import tell
from fewlabels.runs.run import Run
from fewlabels.runtime import files
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import amount, nearest

CHECKED = 500
"""Pictures, at most, with which a file is compared with the model."""


HUB = "hub:"
"""What --to begins with for a repository of the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Write a run's model as one file that runs without fewlabels: uint8 pictures in, probabilities out.

    Size, normalisation, classes and licence are inside. The file is run and compared with the model before it is kept.
    `--to hub:OWNER/NAME` puts the model on the Hugging Face hub, for `fewlabels predict hf:OWNER/NAME`.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    to: Annotated[str, tyro.conf.arg(metavar="FORM|hub:OWNER/NAME")] = "onnx"
    """onnx, torch (a program of torch.export), openvino, or safetensors (weights alone); or a new repository of the
    Hugging Face hub, with a model card."""
    out: Annotated[str | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File to write; default: `model` with the form's suffix in the run folder."""
    checkpoint: str = "last"
    """last, best or a step."""
    weights: str = "ema"
    """ema or raw."""
    licence: str | None = None
    """What the file says of the licence of its weights; default: that of the learned weights that the training began
    with, where it is known."""
    dry_run: bool = False
    """With --to hub:OWNER/NAME: show what would be uploaded, and stop."""
    yes: bool = False
    """With --to hub:OWNER/NAME: upload it, to a private repository. Nothing is uploaded without this word."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels export")
    if command.to.startswith(HUB):
        return _to_hub(command, hub.repository(command.to.removeprefix(HUB), f"--to {command.to}"))
    for option, given in (("--dry-run", command.dry_run), ("--yes", command.yes)):
        if given:
            raise UsageError(f"{option} is for --to hub:OWNER/NAME: a file that is there is never replaced")
    form = _form(command.to)
    if absent := missing(form):
        raise UsageError(f"--to {form} needs the packages {', '.join(absent)}: pip install 'fewlabels[{form}]'")
    run = Run(command.run)
    path = expanded(command.out) if command.out is not None else run.path / f"model{SUFFIXES[form]}"
    if path.suffix != SUFFIXES[form]:
        raise UsageError(f"-o {path} must end with {SUFFIXES[form]} for --to {form}")
    images, which = pictures(run)
    licence = _licence(command, run)
    done = export(run, form, path, images, licence=licence, checkpoint=command.checkpoint, weights=command.weights)
    print(f"wrote {done.path}, {_checked(done, which)}")
    _say_licence(licence)
    return 0


def _form(word: str) -> Form:
    known = typing.get_args(Form)
    if word not in known:
        what = f"{', '.join(known)} or hub:OWNER/NAME"
        raise UsageError(f"--to must be {what}, got {word!r}{nearest(word, known)}")
    return typing.cast(Form, word)


def _checked(done: Exported, which: str) -> str:
    return (
        f"{done.megabytes:.1f} MB; checked on {done.pictures} {which}: the largest difference of a probability to the "
        f"model is {done.largest:.1g}"
    )


def _say_licence(licence: str) -> None:
    if not licence:
        print("the file names no licence of its weights: --licence NAME puts one in", file=sys.stderr)


def _to_hub(command: Command, name: str) -> int:
    """Make the folder and its card, show or upload them."""
    if command.out is not None or (command.checkpoint, command.weights) != ("last", "ema"):
        raise UsageError(
            "--to hub:OWNER/NAME writes no file, and uploads the averaged weights after the last step, whose numbers "
            "the card has: leave out -o, --checkpoint and --weights"
        )
    if command.dry_run == command.yes:
        raise UsageError(f"--to {command.to} uploads the model: look at it with --dry-run, then say --yes")
    run = Run(command.run)
    licence, (images, which) = _licence(command, run), pictures(run)
    with tempfile.TemporaryDirectory(prefix="fewlabels-hub-") as folder:
        path = Path(folder) / "model"
        done = hub.bundle(run, path, images)
        readme = card(tell(run.path), name, licence, run.checkpoint().step)
        files.write_file(path / "README.md", readme.encode("utf-8", "backslashreplace"))
        print(f"for {name}: {_checked(done, which)}")
        for file in hub.contents(path):
            print(f"  {file.relative_to(path)}  {amount(file.stat().st_size)}")
        if command.dry_run:
            print(f"README.md:\n\n{readme}\nnothing was uploaded")
        else:
            print(f"uploaded to {hub.upload(path, name, f'--to {command.to}')}, a private repository")
    _say_licence(licence)
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


def _licence(command: Command, run: Run) -> str:
    if command.licence is not None:
        return command.licence
    if not run.config.net.pretrained:
        return ""
    known = learned.named(run.config.net.name)
    return known.licence if known is not None else ""
