"""Measuring a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fewlabels.data.arrays import in_channels
from fewlabels.data.listing import strangers
from fewlabels.data.source import Source
from fewlabels.inference.metrics import scores
from fewlabels.inference.model import Predictor, load_predictor
from fewlabels.runs.curves import curve, main_part
from fewlabels.runs.run import Run


def evaluate(
    run: Run,
    source: Source,
    *,
    checkpoint: str = "last",
    weights: str = "ema",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Scores of a run's model on the test images of `source`.

    Without a test part on the run's validation images, if it was made from these pictures and has some, or else on all
    labeled images of `source`.

    The keys are those of `metrics.scores`, the run's curve (`curves.curve`: last1 ... best, of the evaluations
    during training), `step`, `weights` and `measured_on`. Grey images become colours, or colours grey, where the run
    was trained on such. Raises ValueError where the classes, or height and width, are not the run's; RunError as
    `load_predictor`.
    """
    return measure(load_predictor(run, checkpoint=checkpoint, weights=weights, device=device), run, source)


def measure(model: Predictor, run: Run, source: Source) -> dict[str, Any]:
    """`evaluate` of a model of the run that is loaded already."""
    if source.classes != model.classes:
        extra = sorted(set(source.classes) - set(model.classes))
        alike = strangers(extra, model.classes)
        what = f"classes that the run does not know ({alike})" if extra else "other classes than the run"
        raise ValueError(f"{source.name} has {what}; the run knows {', '.join(model.classes)}")
    part, rows = "train", np.flatnonzero(source.labels >= 0)
    split = run.split
    if len(split.validation) and split.pictures and split.difference(source) is None:
        part, rows = "valid", split.validation
    if len(source.test_labels):
        part = "test"
    images = in_channels(source.test_images if part == "test" else source.images[rows], model.shape[0])
    labels = source.test_labels if part == "test" else source.labels[rows]
    values = scores(model.logits(images), torch.from_numpy(labels), model.classes)
    evals = [r for r in run.metrics("eval") if r["step"] <= model.step]
    main = main_part(evals[-1]) if evals else None
    accuracies = [r[main][model.weights]["accuracy"] for r in evals] if main else []
    return {**values, **curve(accuracies), "step": model.step, "weights": model.weights, "measured_on": part}
