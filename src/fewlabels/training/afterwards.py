"""What a finished training leaves about itself: evidence.json and report.html."""

from __future__ import annotations

import torch

from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.model import logits_of
from fewlabels.report import evidence
from fewlabels.report.write import write_page
from fewlabels.runs.run import Run
from fewlabels.training.evaluator import Evaluator
from fewlabels.training.step import Trainer


def leave_report(trainer: Trainer, evaluator: Evaluator, source: Source, split: Split, run: Run) -> str | None:
    """Write what the averaged model says of the pictures that are measured on, and the page about the run.

    The run is finished, and this changes nothing of it: where it fails, a sentence says so, and that is all.
    """
    try:
        asked = _asked(trainer, evaluator, split)
        evidence.write(run, evidence.evidence(asked, trainer.config, source, split))
        write_page(run)
    except Exception as error:  # whatever it is, the training has succeeded
        return _sentence(error)
    return None


def anew(run: Run) -> str | None:
    """Write the page again, for what the run is compared with by now; where that fails, a sentence."""
    try:
        write_page(run)
    except Exception as error:  # as above
        return _sentence(error)
    return None


def _sentence(error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    return f"the report was not written ({why}); `fewlabels report RUN --html FILE` makes one"


def _asked(trainer: Trainer, evaluator: Evaluator, split: Split) -> evidence.Asked:
    """The answers of the averaged model, as in an evaluation: the stores and features of the training are used."""
    model, normalize, even = evaluator.models["ema"], trainer.batches.normalize, trainer.config.compile
    store, rows, _ = evaluator.parts[evaluator.main]
    (logits,) = logits_of([model], normalize, store, rows, even=even)
    pool, chosen = None, evidence.pool_rows(split, len(rows))
    images = trainer.batches.store if trainer.features is None else trainer.features
    known = trainer.features is None or trainer.features.holds(chosen)
    if len(chosen) and known:
        (pool,) = logits_of([model], normalize, images, torch.from_numpy(chosen).to(images.rows_device), even=even)
        pool = pool.cpu()
    return evidence.Asked(logits.cpu(), pool, trainer.config.steps)
