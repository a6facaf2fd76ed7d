"""Pictures of a folder that a person should label before any training, and the table that the answers make."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import numpy as np
import torch

from fewlabels import nets
from fewlabels.augment.pixels import Normalize
from fewlabels.config.choice import TINY
from fewlabels.config.settings import Net
from fewlabels.data.answers import agreed, aliases, read_answers, shown
from fewlabels.data.contents import Picture, contents
from fewlabels.data.listing import UNLABELED, short
from fewlabels.data.pictures import Unreadable, header
from fewlabels.data.source import Images, Progress
from fewlabels.data.table import LONGEST_LABEL
from fewlabels.datatools.features import LONGEST, patch_features
from fewlabels.inference import choosing
from fewlabels.inference.features import SIDE
from fewlabels.inference.model import Model, Predictor
from fewlabels.inference.predict import decoded_chunks
from fewlabels.nets import learned
from fewlabels.report import tasks
from fewlabels.report.tasks import Question
from fewlabels.runtime import files
from fewlabels.runtime.words import by_reason, first

LOOKED_AT = 48
"""Pictures whose headers say how large they are."""


class Done(NamedTuple):
    pictures: int
    features: str
    """What they were, in words."""
    notes: list[str]
    corrupt: bool
    """Some pictures could not be read."""


def pool(path: Path) -> tuple[list[Picture], list[Picture]]:
    """The pictures of a folder that wait for a label, and those that have one or are for the test.

    Those of unlabeled/, or all, if no folder is the labeled part: then the folders say nothing of classes. Raises
    ValueError where there are none.
    """
    found = contents(path)
    loose = found.bare or bool(found.plain)
    waiting = [p for p in found.pictures if p.part == "unlabeled" or (p.part == "labeled" and (loose or not p.label))]
    rest = [p for p in found.pictures if p.part in ("labeled", "test") and p.label and p not in waiting]
    if not waiting:
        raise ValueError(f"{path} has no picture without a label")
    return sorted(waiting), rest


def choose(path: Path, count: int, out: Path, *, device: torch.device, progress: Progress | None = None) -> Done:
    """Write the questions about `count` pictures of a folder: those nearest to the centres of as many clusters.

    Clusters of the features of the smallest learned net whose weights are at hand; where there are none, or the
    pictures are tiny, of distances to common patches. Raises ValueError where there are not as many pictures.
    """
    paths = [picture.path for picture in pool(path)[0]]
    net = next((net for net in learned.NETS if learned.at_hand(net) is not None), None)
    notes, side = [], _side(paths)
    if side < TINY:
        net = None
    elif net is None:
        notes.append(
            "note: no learned weights are at hand, whose features are mostly far better than those of patches: "
            f"fewlabels weights fetch {learned.SMALLEST.partition('.')[0]}"
        )
    eye = _eye(net, device)
    kept, features, pixels, broken = _looked(eye, paths, net is not None, progress)
    if broken:
        notes.append(f"could not read {len(broken)} pictures: {by_reason(broken)}")
    if len(kept) < count:
        raise ValueError(f"--first {count}: {path} has {len(kept)} pictures without a label that can be read")
    if features is None:
        features = patch_features(np.concatenate(pixels), np.arange(len(kept))).astype(np.float64)
    chosen = choosing.central(features, count)
    picked = [paths[kept[place]] for place in chosen.tolist()]
    shape = eye.shape
    again = decoded_chunks(eye, picked, {}, {})
    images: Images = np.concatenate([some for _, some, _ in again])
    assert images.shape == (count, *shape[1:], shape[0])
    questions = [Question(os.path.abspath(file), str(file)) for file in picked]
    tasks.write(out, questions, images, (), f"{count} pictures to label first, of {len(kept)}")
    what = f"the features of {net.name}" if net is not None else "distances to common patches"
    return Done(len(kept), what, notes, bool(broken))


def _side(paths: Sequence[Path]) -> int:
    """Pixels of the shorter side, the median of some pictures; 0 where none can be read."""
    sides = []
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        try:
            sides.append(min(header(path)[:2]))
        except (Unreadable, OSError):
            continue  # decoding says why
    return int(np.median(sides)) if sides else 0


def _eye(net: learned.Learned | None, device: torch.device) -> Predictor:
    """What looks at the pictures: the learned net; without one a model that nobody asks, for its size alone."""
    side = SIDE if net is not None else LONGEST
    shape = (3, side, side)
    scale: tuple[tuple[float, ...], tuple[float, ...]] = (0.5,) * 3, (0.5,) * 3
    if net is None:
        built = nets.build("small-4", classes=2, shape=shape)
    else:
        weights = learned.pretrained(net.name)
        built = Net(net.net, pretrained=weights, train="head").build(2, shape)
        scale = nets.normalization(net.net, 3, weights)
    model = Model(built).to(device).to(memory_format=torch.channels_last).eval()
    return Predictor(model, Normalize(shape, *scale).to(device), ("", " "), shape, 0, "raw", device)


def _looked(
    eye: Predictor, paths: Sequence[Path], ask: bool, progress: Progress | None
) -> tuple[list[int], np.ndarray[tuple[int, int], np.dtype[np.float64]] | None, list[Images], dict[str, str]]:
    """Places of the pictures that can be read, their features if the net is asked, else their pixels, and why others
    cannot be read."""
    kept: list[int] = []
    found, pixels, corrupt = [], [], dict[int, str]()
    for rows, images, done in decoded_chunks(eye, paths, {}, corrupt):
        kept += rows
        if ask:
            found.append(eye.features(images).double().numpy())
        else:
            pixels.append(images)
        if progress is not None:
            progress(done, len(paths))
    broken = {str(paths[row]): reason for row, reason in corrupt.items()}
    return kept, np.concatenate(found) if ask else None, pixels, broken


def table_of(path: Path, answers: str, out: Path) -> str:
    """Write the table of a folder's pictures with the answers as labels, which `fewlabels train --data TABLE` takes;
    returns what is to be said of it.

    Paths start from the table's own folder, which must be the pictures' or above it. Raises ValueError where it is not,
    where answers are not about these pictures, or are of less than two classes.
    """
    if out.suffix.lower() not in (".csv",):
        raise ValueError(f"-o {out} must be the name of a table, NAME.csv")
    waiting, rest = pool(path)
    told = read_answers(answers)
    places = aliases([os.path.abspath(picture.path) for picture in waiting])
    try:
        known = agreed(told, places, f"the pictures without a label in {path}")
    except ValueError as error:
        raise ValueError(f"{answers}: {error}") from None
    rows: list[list[str]] = [["path", "label", "split"]]
    labels = Counter(answer.label for answer in known.values())
    labels.update(p.label for p in rest if p.part == "labeled" and p.label)
    for label in labels:
        if label in UNLABELED or shown(label) != label or len(label) > LONGEST_LABEL:
            what = "has a meaning of its own" if label in UNLABELED else "is not text in one line"
            raise ValueError(f"{answers}: a table holds no class {short(label)}, which {what}: rename it")
    if len(labels) < 2:
        names = first([shown(name) for name in labels]) or "none"
        raise ValueError(f"{answers}: a training needs answers of at least 2 classes, got {names}")
    for number, picture in enumerate(waiting):
        label = known[number].label if number in known else ""
        rows.append([_relative(picture.path, out), label, "labeled" if label else "unlabeled"])
    rows += [[_relative(p.path, out), p.label or "", p.part] for p in rest]
    files.write_file(out, files.csv_text(rows).encode())
    counts = ", ".join(f"{shown(name)} {n}" for name, n in sorted(labels.items()))
    return (
        f"wrote {out}: {len(known)} answers are new, {told.empty} had no answer; {len(rows) - 1} pictures, labels of "
        f"{len(labels)} classes: {counts}\nnext: fewlabels train --data {quote(str(out))}"
    )


def _relative(picture: Path, out: Path) -> str:
    """The path from the table's folder."""
    name = os.path.relpath(os.path.abspath(picture), os.path.abspath(out.parent))
    if name.startswith(".."):
        raise ValueError(
            f"the table {out} must lie in the folder of the pictures or above it, as its paths start from there"
        )
    if shown(name) != name:
        raise ValueError(f"the picture {shown(name)} has a name that no table holds: rename it")
    return name
