"""What a trained model says of the pictures that it is measured on, counted, and the few that are worth a look.

A training leaves it as evidence.json when it is finished, so that its report needs neither model nor pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewlabels.config.departures import departures
from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Train
from fewlabels.data.arrays import in_channels
from fewlabels.data.source import Images, Labels, Source
from fewlabels.data.split import Split
from fewlabels.inference.calibration import error_of, reliability
from fewlabels.inference.criteria import without_label
from fewlabels.inference.measured import Measured, measured
from fewlabels.inference.model import PIXELS_PER_BATCH, Predictor, load_predictor
from fewlabels.report.pictures import Picture, encoded, encoded_sheet
from fewlabels.report.sheet import Columns, sheet, views_of
from fewlabels.runs import records
from fewlabels.runs.folder import EVIDENCE
from fewlabels.runs.run import Run, RunError

FORMAT = 1
"""Of evidence.json."""

SHOWN = 18
"""Pictures of a kind, at most."""

POOL = 2000
"""Unlabeled pictures that are asked about, at most, and no more than are measured on, if these are `LEAST`."""

LEAST = 200

CLASSES = 10
"""Classes on the sheet of views."""

Show = Callable[[int, int], object]


class Asked(NamedTuple):
    """What a model said."""

    logits: Tensor
    """Of the images that are measured on, ``[N, K]`` on the CPU."""
    pool: Tensor | None
    """Of unlabeled images, ``[M, K]``, or None where they were not asked about."""
    step: int


def pool_rows(split: Split, count: int) -> Labels:
    """Rows of the unlabeled images that are asked about, where `count` images are measured on."""
    return without_label(split.labeled, split.unlabeled, min(POOL, max(LEAST, count)))


def ask(
    run: Run, source: Source, *, device: torch.device | str = "cpu", show: Show = lambda done, whole: None
) -> Asked:
    """What the averaged weights of the run's last checkpoint say. Raises RunError as `load_predictor`.

    show: called as ``show(done, whole)``, of images.
    """
    model, split = load_predictor(run, device=device), run.split
    what = measured(source, split)
    rows = pool_rows(split, len(what.rows))
    whole = len(what.rows) + len(rows)
    tests = source.test_images if what.test else source.images
    logits = _logits(model, tests, what.rows, lambda done: show(done, whole))
    pool = _logits(model, source.images, rows, lambda done: show(len(what.rows) + done, whole))
    return Asked(logits, pool if len(rows) else None, model.step)


def _logits(model: Predictor, images: Any, rows: Labels, show: Callable[[int], object]) -> Tensor:
    """Logits ``[n, K]`` of the images at `rows`, some of them at a time."""
    _, height, width = model.shape
    size, found = max(1, PIXELS_PER_BATCH // (height * width)), [torch.empty(0, len(model.classes))]
    for start in range(0, len(rows), size):
        part = np.asarray(images[rows[start : start + size]])
        found.append(model.logits(np.asarray(in_channels(part, model.shape[0]))))
        show(start + len(part))
    return torch.cat(found)


def evidence(asked: Asked, config: Train, source: Source, split: Split) -> dict[str, Any]:
    """The content of evidence.json: numbers, names and pictures, plain values that JSON has.

    Args:
        asked: logits of the images that `measured` names, the first of them where there are fewer logits, and of those
            that `pool_rows` names.
        config: the resolved settings of the run.

    `confusion` lists ``[class, called, images]`` where there are any; `bins` is `reliability`; `pool` counts the
    classes that unlabeled images are taken for; `mistakes` and `unsure` are lists of `Picture`. What is not there has
    its reason in `absent`.
    """
    what = measured(source, split)
    logits, n = asked.logits.double(), len(asked.logits)
    what = what._replace(rows=what.rows[:n], truth=what.truth[:n])
    truth, absent = torch.from_numpy(what.truth), {}
    sure, called = logits.softmax(1).max(1)
    counts = torch.zeros(len(source.classes), len(source.classes), dtype=torch.int64)
    counts.index_put_((truth, called), torch.ones_like(truth), accumulate=True)
    bins = reliability(logits, truth)
    wrong = torch.nonzero(called != truth)[:, 0]
    worst = wrong[torch.argsort(sure[wrong], descending=True, stable=True)][:SHOWN]
    least = torch.argsort(sure, stable=True)[:SHOWN]
    if asked.pool is None:
        absent["pool"] = "there are no unlabeled pictures, or asking about them would take as long as the training"
    views = None
    if config.fits:
        absent["sheet"] = "this method looks at the pictures as they are"
    elif config.augment is not None:
        absent["sheet"] = "the views of --augment are not drawn here"
    else:
        views = _views(config, source, split)
    said, changes = departures(config, source)
    return {
        "format": FORMAT,
        "step": asked.step,
        "part": what.part,
        "n": n,
        "confusion": [[i, j, int(counts[i, j])] for i, j in torch.nonzero(counts).tolist()],
        "bins": [[int(count), int(right), round(total, 6)] for count, right, total in bins.tolist()],
        "ece": error_of(bins),
        "mistakes": [p._asdict() for p in _pictures(logits, source, what, worst)],
        "unsure": [p._asdict() for p in _pictures(logits, source, what, least)],
        "pool": None if asked.pool is None else _pool(asked.pool, split),
        "sheet": views,
        "channels": source.shape[0],
        "parts": {
            "labeled": len(np.unique(split.labeled)),
            "unlabeled": len(split.unlabeled),
            "validation": len(split.validation),
            "test": len(source.test_labels),
        },
        "settings": {"compared_with": said, "changed": changes},
        "absent": absent,
    }


def _pool(logits: Tensor, split: Split) -> dict[str, Any]:
    called = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
    return {"n": len(logits), "called": called.tolist()}


def _views(config: Train, source: Source, split: Split) -> str:
    """The sheet of views as a data URI."""
    weak, strong = views_of(config, source)
    return encoded_sheet(sheet(source, split, weak, strong, rows=CLASSES, columns=Columns(3, 2, 4)), source.shape[1:])


def _pictures(logits: Tensor, source: Source, what: Measured, which: Tensor) -> list[Picture]:
    """The pictures at positions `which` among those that are measured on."""
    places = which.numpy()
    if not len(places):
        return []
    rows = what.rows[places]
    images: Images = np.asarray((source.test_images if what.test else source.images)[rows])
    names = source.test_names if what.test else source.names
    kind = "test" if what.test else "training"
    out = []
    for place, row, image in zip(places.tolist(), rows.tolist(), images, strict=True):
        (sure, other), (called, second) = (x.tolist() for x in logits[place].softmax(0).topk(2))
        name = names[row] if names else f"{kind} image {row}"
        guess = [second, round(other, 6)]
        out.append(Picture(name, int(what.truth[place]), called, round(sure, 6), guess, *encoded(image)))
    return out


def write(run: Run, content: Mapping[str, Any]) -> None:
    """Write evidence.json, sealed. Raises NotWritten."""
    run.write_json(EVIDENCE, records.sealed(content, run.identity))


def read(path: Path) -> dict[str, Any] | None:
    """evidence.json of the run folder; None where there is none. Raises RunError where it has changed, or is not of
    this run."""
    file = path / EVIDENCE
    if not file.exists():
        return None
    content = records.parsed(file)
    if not records.is_sealed(content):
        raise RunError(f"{file} has changed since it was written")
    records.check_own(content, path, str(file))
    return content if content.get("format") == FORMAT else None


def gathered(run: Run, *, device: torch.device | str = "cpu", show: Show = lambda done, whole: None) -> dict[str, Any]:
    """The evidence of a run that has left none: its pictures are read again, and its model is asked.

    Raises ValueError and OSError where the pictures are not there or are not what they were, RunError where the model
    is not.
    """
    run.checkpoint()  # complain about the run before the pictures are read
    config = run.config
    source = load_source(config.data, size=tuple(run.data["shape"][1:]))
    if clause := run.split.difference(source):
        raise ValueError(f"the data of {run.path} have changed since it was trained: {clause}")
    return evidence(ask(run, source, device=device, show=show), config, source, run.split)
