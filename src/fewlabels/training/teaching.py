"""What finished runs say of the unlabeled images before a training that learns from it (`SelfTraining`).

The votes are computed once. They lie in the run's folder, and data.json, which every checkpoint is tied to, has their
digest: a training goes on without its teachers, wherever they are by then.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.algorithms.self_training import SelfTraining, Votes
from fewlabels.config.settings import Train
from fewlabels.data.split import Split
from fewlabels.inference.model import PIXELS_PER_BATCH, Predictor, decoding_of, load_predictor, logits_of
from fewlabels.runs import records
from fewlabels.runs.folder import VOTES
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import parallel, regular
from fewlabels.runtime.regular import expanded, real
from fewlabels.training.log import Progressing, reading
from fewlabels.training.step import Trainer

Show = Callable[[int, int], None]

AT_ONCE = 8
"""Batches of a teacher between two moves of the progress bar."""


class Taught(NamedTuple):
    """What a new run keeps of its teachers."""

    notes: tuple[str, ...]
    """Sentences for the user."""
    facts: dict[str, Any]
    """What data.json says."""
    data: bytes
    """The votes, as a .npy file: int32 ``[M, T]``."""


def teachers(config: Train, out: Path | None = None) -> list[Run]:
    """The runs whose votes are learned from; none for other algorithms.

    out: the folder of the new run. Raises ValueError where there are none, or one is named twice or would be replaced;
    RunError where one is not there or not finished.
    """
    if not isinstance(config.algorithm, SelfTraining):
        return []
    named = config.algorithm.teachers
    if not named:
        raise ValueError("SelfTraining.teachers must be the folders of one or more finished runs on the same split")
    runs, places = [Run(expanded(name)) for name in named], [real(expanded(name)) for name in named]
    for i, (name, run) in enumerate(zip(named, runs, strict=True)):
        if places[i] in places[:i]:
            raise ValueError(f"SelfTraining.teachers names {name} twice: each run has one vote")
        if out is not None and places[i].is_relative_to(real(out)):
            raise ValueError(f"the new run would take the place of its teacher {name}: name another --out")
        if not run.finished:
            raise RunError(f"the teacher {name} is not finished: `fewlabels train --resume {name}` goes on with it")
        _ = run.result  # whose seal is checked
    return runs


def teach(trainer: Trainer, split: Split, out: Path, progress: Progressing = None) -> Taught | None:
    """Ask the teachers about every unlabeled image, and give the algorithm their votes; None if it learns from none.

    A labeled image that is among the unlabeled ones gets its label from all. All ranks have the same votes.
    Raises as `teachers`; RunError for a teacher that was trained on another split or on images of another form.
    """
    runs = teachers(trainer.config, out)
    if not runs:
        return None
    for run in runs:
        _check(run, trainer, split)
    rows = torch.from_numpy(split.unlabeled)
    votes, told = torch.empty(len(rows), len(runs), dtype=torch.int64), []
    with reading(progress if parallel.rank() == 0 else None, "votes of teachers", "done") as show:
        for i, run in enumerate(runs):
            model = load_predictor(run, device=trainer.device)
            votes[:, i] = _vote(trainer, model, rows, partial(_moved, show, i, len(runs), len(rows)))
            told.append({"run": str(real(run.path)), "step": model.step, "weights": weights_digest(run)})
    own = dict(zip(split.labeled.tolist(), split.targets.tolist(), strict=True))
    labels = torch.tensor([own.get(row, -1) for row in rows.tolist()])
    known, others = labels >= 0, labels < 0
    agree = (votes == votes[:, :1]).all(1)[others]
    right = _accuracies(trainer, votes[others], rows[others])
    votes[known] = labels[known, None]
    _told(trainer).votes.copy_(votes)
    buffer = io.BytesIO()
    np.save(buffer, votes.numpy().astype(np.int32))
    facts = {"votes": hashlib.sha256(buffer.getvalue()).hexdigest(), "runs": told}
    return Taught(tuple(_notes(agree, right)), {"teachers": facts}, buffer.getvalue())


def recall(trainer: Trainer, run: Run) -> None:
    """Give the algorithm of a run that goes on the votes that it began with. Raises RunError where they are gone."""
    if not isinstance(trainer.config.algorithm, SelfTraining):
        return
    path, buffer = run.path / VOTES, _told(trainer).votes
    with records.reading(path):
        data = regular.read_bytes(path)
    told = run.data.get("teachers")
    if not isinstance(told, dict) or hashlib.sha256(data).hexdigest() != told.get("votes"):
        raise RunError(f"{path} has changed since {run.path} was started: put it back, or train the run again")
    votes: NDArray[np.int32] = np.load(io.BytesIO(data), allow_pickle=False)
    if votes.shape != tuple(buffer.shape):
        raise RunError(f"{path} does not fit the run: it has votes {list(votes.shape)}, not {list(buffer.shape)}")
    buffer.copy_(torch.from_numpy(votes.astype(np.int64)))


def _moved(show: Show, before: int, teachers: int, images: int, done: int) -> None:
    show(before * images + done, teachers * images)


def weights_digest(run: Run) -> str:
    """sha256 of the file of the weights that vote: those of the newest state."""
    path = run.checkpoint("last").path / "meta.json"
    digest = records.parsed(path)["sha256"]["weights.safetensors"]
    return str(digest)


def _told(trainer: Trainer) -> Votes:
    assert isinstance(trainer.algorithm, Votes)
    return trainer.algorithm


def _check(run: Run, trainer: Trainer, split: Split) -> None:
    """Raises RunError for a teacher that has seen other labels, or whose images are of another form."""
    theirs, data = run.split, run.data
    if data["classes"] != list(trainer.classes):
        raise RunError(
            f"the teacher {run.path} has other classes than the new run: {', '.join(data['classes'])}, and not "
            f"{', '.join(trainer.classes)}"
        )
    if theirs.fingerprint != split.fingerprint:
        raise RunError(
            f"the teacher {run.path} was trained on another split ({theirs.fingerprint[:8]}) than the new run's "
            f"({split.fingerprint[:8]}), and would know other labels: train it on the same, or add --data.split "
            f"{run.path / 'split.json'}"
        )
    config, (channels, height, width) = run.config, data["shape"]
    shape, how = trainer.shape, decoding_of(config.data)
    if (channels, height, width) != shape:
        raise RunError(
            f"the teacher {run.path} was trained on images of {channels}x{height}x{width}, and those of the new run "
            f"are {'x'.join(map(str, shape))}: both need the same --data.image-size"
        )
    if how[:2] != decoding_of(trainer.config.data)[:2]:
        raise RunError(
            f"the teacher {run.path} was trained on pictures that were brought to their size in another way than those "
            "of the new run: both need the same --data.fit and --data.bits"
        )


@torch.no_grad()
def _vote(trainer: Trainer, model: Predictor, rows: Tensor, show: Callable[[int], None]) -> Tensor:
    """The class that a teacher gives each image at `rows`, int64 ``[M]`` on the host; each rank asks about a share."""
    store, (_, height, width) = trainer.batches.store, trainer.shape
    share = -(-len(rows) // trainer.world)
    own = rows[torch.arange(trainer.rank * share, (trainer.rank + 1) * share) % len(rows)]
    size = AT_ONCE * max(1, PIXELS_PER_BATCH // (height * width))
    found, done = [], 0
    for part in torch.split(own.to(store.rows_device), size):
        (logits,) = logits_of([model.model], model.normalize, store, part)
        if not bool(logits.isfinite().all()):
            raise ValueError("a teacher gives an image no finite numbers, so that it has no class for it")
        found.append(logits.argmax(1))
        done += len(part)
        show(min(len(rows), done * trainer.world))
    return parallel.gather(torch.cat(found))[: len(rows)].cpu()


def _accuracies(trainer: Trainer, votes: Tensor, rows: Tensor) -> list[float]:
    """Percent right of each teacher's votes on those images whose class the source knows; none where it knows none."""
    truth = trainer.batches.truth.cpu()[rows]
    known = truth >= 0
    if not trainer.batches.truth_known or not known.any():
        return []
    return [100 * float((votes[known, i] == truth[known]).double().mean()) for i in range(votes.shape[1])]


def _notes(agree: Tensor, right: list[float]) -> list[str]:
    count = f"{len(agree):,} unlabeled images"
    if not len(agree):
        return ["all unlabeled images have labels, so that the teachers say nothing"]
    shares = ", ".join(f"{share:.1f}" for share in right)
    known = f"; the data know their classes, and {shares} % are right" if right else ""
    if not right or len(right) > 1:
        return [f"votes on {count}: all teachers agree on {100 * float(agree.double().mean()):.1f} %{known}"]
    return [f"votes of one teacher on {count}{known}"]
