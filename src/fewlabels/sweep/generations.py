"""The generations of CReST: trainings one after another, each on the first labels and on predictions of the one before.

Each is a run in a folder of its own. What a finished one says of the unlabeled images, and the split that the next one
has of it, lie in its folder and go with it; so the same command goes on wherever it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from fewlabels.algorithms import Composed
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.config.settings import Train
from fewlabels.data.gather import make_store
from fewlabels.data.predictions import ROW, tail_rule, with_predictions
from fewlabels.data.residency import choose
from fewlabels.data.source import Source
from fewlabels.data.split import Split, read_split
from fewlabels.data.splitfile import as_json
from fewlabels.inference.model import load_predictor, logits_of
from fewlabels.inference.predict import chunk_of
from fewlabels.inference.tables import Form, Rows, csv
from fewlabels.runs.folder import NEXT_PREDICTIONS, NEXT_SPLIT
from fewlabels.runs.owner import Lock, owning
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.fields import Main
from fewlabels.sweep.plan import Job, holds, job_of, root_of
from fewlabels.training.loop import Say

LEAST = 0.5


@dataclass(frozen=True)
class Generations(Checked):
    """CReST (Wei et al. 2021, https://arxiv.org/abs/2102.09559): train several times, each time on more labels."""

    count: Annotated[int | None, Range(2, 100), Main] = None
    """Train so many times, each time from new weights; from the second time on the labels are joined by predictions of
    the time before, more of those of rare classes. The same command goes on after a stop."""
    _: KW_ONLY
    tail: Annotated[float, Range(0, None, low_open=True)] = 3.0
    """Which share of the predictions of a class joins them, as `fewlabels split --tail` has it: the higher, the more
    of all classes."""
    least: Annotated[float, Range(0, 1)] = LEAST
    """With `--imbalance crest`: its strength in the last generation, to which it falls evenly."""


def check(plan: Generations, config: Train) -> None:
    """Raises ValueError where options mean nothing, or the training cannot be repeated on other labels."""
    if plan.count is None and plan != Generations():
        raise ValueError("Generations.tail and Generations.least are for several generations: give --generations N")
    if plan.least != LEAST and not _aligns(config):
        raise ValueError(f"Generations.least {plan.least:g} is for --imbalance crest, which makes CReST+ of CReST")


def _aligns(config: Train) -> bool:
    return isinstance(config.algorithm, Composed) and config.algorithm.imbalance.name == "crest"


def generations(
    config: Train,
    plan: Generations,
    *,
    out: Path | str | None = None,
    baseline: bool = False,
    overwrite: bool = False,
) -> list[Job]:
    """The runs `generation-1`, `generation-2`, ... in the folder `out`, each after the one before.

    Args:
        config: of the first.
        out: default `runs/DATA-ALGORITHM-sSEED-generations`.
        baseline: the first with its supervised baseline, on the labels alone.
        overwrite: replace runs of another configuration, which are refused otherwise.

    Raises RunError as `fewlabels.sweep.plan.plan`, and where a run has learned from one that is not there.
    """
    assert plan.count is not None
    root = root_of(config, "generation", out)
    config = replace(config, data=resolve_data(config.data))
    jobs = [job_of("generation 1", root / "generation-1", at(config, plan, 1), baseline=baseline, overwrite=overwrite)]
    for n in range(2, plan.count + 1):
        jobs.append(_next(jobs[-1], n, at(config, plan, n), plan, jobs[0], overwrite=overwrite))
    return jobs


def at(config: Train, plan: Generations, n: int) -> Train:
    """The settings of generation n, from 1, but for the split that it has from the one before."""
    assert plan.count is not None
    if not _aligns(config):
        return config
    assert isinstance(config.algorithm, Composed)
    part = config.algorithm.imbalance
    t = part.strength + (n - 1) / (plan.count - 1) * (plan.least - part.strength)
    return replace(config, algorithm=replace(config.algorithm, imbalance=replace(part, strength=round(t, 6))))


def _next(before: Job, n: int, config: Train, plan: Generations, first: Job, *, overwrite: bool) -> Job:
    """Generation n, which has its labels from `before`: known as far as those are there."""
    name, path, file = f"generation {n}", before.path.with_name(f"generation-{n}"), before.path / NEXT_SPLIT
    unlabeled = None if config.data.unlabeled in ("all", "rest") else config.data.unlabeled  # else the file says it
    config = replace(config, data=replace(config.data, split=str(file), unlabeled=unlabeled))
    there = before.finished and file.is_file()
    if there and not (there := _made(file, plan.tail)) and not overwrite:
        raise RunError(
            f"{file} has other labels than those by --generations.tail {plan.tail:g}: name another --out, or add "
            "--overwrite to make it anew"
        )
    if there:
        job = job_of(name, path, config, overwrite=overwrite, last=True)
    else:
        if not overwrite and not before.finished and (path / "config.json").is_file() and Run(path).states():
            raise RunError(
                f"{path} has learned from {before.path} already, which is to be trained anew; name another --out, or "
                "add --overwrite to replace it"
            )
        Run.check_free(path, overwrite=overwrite or before.finished)  # whose labels may be made again, and be the same
        job = Job(name, path, config, False, False, 0, False, overwrite, last=True)
    learns = {"first": str(first.path), "before": str(before.path), "tail": plan.tail}
    return replace(job, learns=learns, alike=first.config)


def _made(file: Path, tail: float) -> bool:
    """Whether the file has the labels by this tail."""
    lineage = read_split(file).lineage
    return bool(lineage) and lineage[-1].get("rule") == tail_rule(tail)


# ---- in the process of a run


def labels(path: Path, config: Train, learns: Mapping[str, Any], say: Say) -> dict[str, Any] | None:
    """Have the labels that the run at `path` is trained on, as `Job.learns` says: the predictions of the run before and
    the split, each made where it is not there yet.

    Returns what data.json is to say of them; None for a run that has begun. Raises RunError where the images are not
    those of the first run any more.
    """
    before, first, tail = Run(Path(learns["before"])), Run(Path(learns["first"])), float(learns["tail"])
    file = before.path / NEXT_SPLIT
    made = file.is_file() and _made(file, tail)
    if made and holds(path, config) and Run(path).states():
        return None
    source = load_source(config.data)
    base = first.split
    clause = base.difference(source)
    if clause is None and first.data["classes"] != list(source.classes):
        clause = f"the classes are {', '.join(source.classes)} now"
    if clause is not None:
        raise RunError(f"the images or labels of {config.data.name} have changed since {first.path} was made: {clause}")
    if not made:
        with owning(lambda: Lock(before.path), say):
            _make(before, base, source, config.device, tail)
    facts = _facts(base, read_split(file), source)
    known = f", of which {100 * facts['right'] / facts['known']:.2f} % are right" if facts["known"] else ""
    say(f"{path}: {facts['labels']} predictions of {before.path} join the labels{known}")
    return {"generation": facts}


def _make(before: Run, base: Split, source: Source, device: str, tail: float) -> None:
    """Write the predictions, and then the split, into the folder of the run that they are of."""
    told = before.path / NEXT_PREDICTIONS
    if not told.is_file():
        rows = np.setdiff1d(base.unlabeled, np.append(base.labeled, base.validation))
        if not len(rows):
            raise RunError(f"all unlabeled images of {before.path} have labels, so that none can join them")
        before.write(NEXT_PREDICTIONS, predictions(before, source, rows, device).encode("utf-8", "surrogateescape"))
    split = with_predictions(base, source, told, least=0.0, tail=tail)
    before.write_json(NEXT_SPLIT, as_json(split, source))


def predictions(run: Run, source: Source, rows: np.ndarray[Any, np.dtype[np.int64]], device: str) -> str:
    """The .csv text of what a run says of the training images at `rows`, int64 ``[n]``, as `fewlabels predict` has it
    of their files; images that are no files are named by their row."""
    model = load_predictor(run, device=pick_device(device))
    kind = choose("auto", len(source.images), model.shape, model.device).kind
    store = make_store(source.images, model.device, kind)
    found = []
    for part in torch.split(torch.from_numpy(rows).to(store.rows_device), chunk_of(model.shape)):
        (logits,) = logits_of([model.model], model.normalize, store, part)
        found.append(logits.cpu())
    logits = torch.cat(found)
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{run.path} gives an image no finite numbers, so that it has no class for it")
    names = tuple(source.files[row] if source.files else str(row) for row in rows.tolist())
    form = Form(source.classes, of="path" if source.files else ROW)
    return csv(Rows(names, logits.argmax(1).numpy(), logits.softmax(1).numpy()), form)


def _facts(base: Split, split: Split, source: Source) -> dict[str, Any]:
    """How many predictions joined the labels, of each class, and how many of those whose truth is known are right."""
    new = ~np.isin(split.labeled, base.labeled)
    given, truth = split.targets[new], source.labels[split.labeled[new]]
    return {
        "labels": len(given),
        "by_class": np.bincount(given, minlength=len(source.classes)).tolist(),
        "known": int((truth >= 0).sum()),
        "right": int((truth == given).sum()),
    }
