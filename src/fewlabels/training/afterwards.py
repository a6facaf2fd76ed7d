"""What a training leaves about itself: evidence.json before its result, report.html after it.

The page is made from the files of the folder alone, so what a kill leaves without one gets it from whoever comes next.
"""

from __future__ import annotations

import torch

from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.model import logits_of
from fewlabels.report import evidence
from fewlabels.report.write import outdated, write_page
from fewlabels.runs.run import Run
from fewlabels.runtime.words import reason
from fewlabels.training.evaluator import Evaluator
from fewlabels.training.step import Trainer


def leave_evidence(trainer: Trainer, evaluator: Evaluator, source: Source, split: Split, run: Run) -> str | None:
    """Write what the averaged model says of the pictures that are measured on.

    All steps are done, and this changes nothing of them: where it fails, a sentence says so, and that is all.
    """
    try:
        asked = _asked(trainer, evaluator, split)
        evidence.write(run, evidence.evidence(asked, trainer.config, source, split))
    except Exception as error:  # whatever it is, the training has succeeded
        return _sentence(error)
    return None


def leave_page(run: Run, *, old: bool = False) -> str | None:
    """Write the page about a finished run, or write it again; where that fails, a sentence.

    old: only where the run has no page, or one from before its result.
    """
    try:
        if old and not outdated(run):
            return None
        write_page(run)
    except Exception as error:  # as above
        return _sentence(error)
    return None


def _sentence(error: Exception) -> str:
    return f"the report was not written ({reason(error)}); `fewlabels report RUN --html FILE` makes one"


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
