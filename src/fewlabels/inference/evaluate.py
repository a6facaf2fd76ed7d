"""Measuring a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fewlabels.data.arrays import in_channels
from fewlabels.data.listing import strangers
from fewlabels.data.source import Source
from fewlabels.inference.calibration import calibrate, calibrated, calibration_error
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
    calibration: bool = False,
) -> dict[str, Any]:
    """Scores of a run's model on the test images of `source`.

    Without a test part on the run's validation images, if it was made from these pictures and has some, or else on all
    labeled images of `source`.

    The keys are those of `metrics.scores`, `ece` (`calibration_error`), the run's curve (`curves.curve`: last1 ...
    best, of the evaluations during training), `step`, `weights` and `measured_on`; with `calibration` also
    `calibrated` (`calibration.calibrated`). Grey images become colours, or colours grey, where the run was trained on
    such. Raises ValueError where the classes, or height and width, are not the run's, or where there is nothing to
    calibrate with; RunError as `load_predictor`.
    """
    model = load_predictor(run, checkpoint=checkpoint, weights=weights, device=device)
    return measure(model, run, source, calibration=calibration)


def measure(model: Predictor, run: Run, source: Source, *, calibration: bool = False) -> dict[str, Any]:
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
    if calibration and part == "valid":
        raise ValueError(
            "the temperature is fitted on the run's validation images, and without test images they are what is "
            "measured: leave out --calibrate, or name other pictures with --data"
        )
    logits, truth = model.logits(images), torch.from_numpy(labels)
    values = {**scores(logits, truth, model.classes), "ece": calibration_error(logits, truth)}
    if calibration:
        values["calibrated"] = calibrated(logits, truth, calibrate(model, run))
    evals = [r for r in run.metrics("eval") if r["step"] <= model.step]
    main = main_part(evals[-1]) if evals else None
    accuracies = [r[main][model.weights]["accuracy"] for r in evals] if main else []
    return {**values, **curve(accuracies), "step": model.step, "weights": model.weights, "measured_on": part}
