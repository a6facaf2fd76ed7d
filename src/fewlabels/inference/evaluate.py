"""Measuring a model: while it trains (`Evaluator`) and afterwards (`evaluate`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fewlabels import nets
from fewlabels.config.settings import Train
from fewlabels.runs.curves import curve, main_part
from fewlabels.data.arrays import in_channels
from fewlabels.data.gather import AnyStore, make_store
from fewlabels.data.listing import strangers
from fewlabels.data.source import Source, channel_statistics
from fewlabels.data.split import Split
from fewlabels.inference.metrics import scores, summary, tally
from fewlabels.inference.model import Model, load_predictor, logits_of
from fewlabels.runs.run import Run
from fewlabels.training.step import Trainer

TRAIN_EXAMPLES = 10_000
"""Labeled images, at most, on which the training accuracy is measured (as google-research/fixmatch does)."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that torchvision's pretrained nets expect."""


def pixel_statistics(config: Train, source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels scaled to [0, 1], that `Data.normalize` means."""
    channels = source.shape[0]
    style, kind = source.style, config.data.normalize
    if kind == "auto" and config.net.pretrained and nets.is_zoo(config.net.name):
        return nets.normalization(config.net.name, channels)
    if kind == "auto":
        kind = "measured" if style.mean is None else "mean-std"
    if kind == "minus-one-one":
        return (0.5,) * channels, (0.5,) * channels
    if kind == "measured":
        return channel_statistics(source.images)
    if kind == "imagenet":
        if channels != 3:
            raise ValueError(f"Data.normalize imagenet needs images of 3 channels, {source.name} has {channels}")
        return IMAGENET
    if style.mean is None or style.std is None:
        raise ValueError(f"Data.normalize mean-std: there are no published numbers for {source.name}; use measured")
    return style.mean, style.std


class Evaluator:
    """Scores of the averaged and the raw model on the test, validation and labeled training images.

    Both see each batch of images while it is there, in the precision of the training, and the device is waited
    for once, at the end.
    """

    def __init__(self, trainer: Trainer, source: Source, split: Split) -> None:
        self.trainer, self.classes = trainer, source.classes
        device = trainer.device
        self.parts: dict[str, tuple[AnyStore, torch.Tensor, torch.Tensor]] = {}
        self.models = {"ema": self._twin(trainer.average.model), "raw": self._twin(trainer.model)}
        if len(source.test_labels):
            test = make_store(source.test_images, device, trainer.feed.place.kind)
            rows = torch.arange(len(test), device=test.rows_device)
            self.parts["test"] = test, rows, torch.from_numpy(source.test_labels).to(device)
        measured = source.labels[split.validation]  # what is trained on may be a guess, what is measured with is not
        for name, chosen, labels in (
            ("valid", split.validation, measured),
            ("train", split.labeled[:TRAIN_EXAMPLES], split.targets[:TRAIN_EXAMPLES]),
        ):
            if len(chosen):
                rows = torch.from_numpy(np.ascontiguousarray(chosen)).to(trainer.feed.store.rows_device)
                self.parts[name] = trainer.feed.store, rows, torch.from_numpy(labels).to(device)

    def _twin(self, model: Model) -> Model:
        """The same one, compiled apart if at all: what is compiled for training shall not be made anew for this."""
        twin = model.twin()
        if self.trainer.config.compile:
            twin.compile_features()
        return twin

    @property
    def main(self) -> str:
        """The part that the reported accuracy is measured on: test, else valid, else train."""
        return next(iter(self.parts))

    @property
    def chooser(self) -> str:
        """The part whose accuracy says which checkpoint is the best: more than one validation image, else `main`."""
        return "valid" if "valid" in self.parts and len(self.parts["valid"][1]) > 1 else self.main

    def record(self) -> dict[str, Any]:
        """``record[part][weights]`` holds `metrics.scores`; ``record["score"]`` is what `best` goes by."""
        trainer, counts = self.trainer, {}
        for part, (store, rows, labels) in self.parts.items():
            both = list(self.models.values())
            logits = logits_of(both, trainer.feed.normalize, store, rows, even=trainer.config.compile)
            counts[part] = [tally(of_one, labels) for of_one in logits]
        out: dict[str, Any] = {}
        for part, (_, _, labels) in self.parts.items():
            out[part] = {}
            for which, counted in zip(self.models, counts[part], strict=True):
                values = summary(counted, labels, self.classes)
                out[part][which] = {k: v for k, v in values.items() if k != "confusion"}
        return {**out, "score": out[self.chooser]["ema"]["accuracy"]}


def evaluate(
    run: Run,
    source: Source,
    *,
    checkpoint: str = "last",
    weights: str = "ema",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Scores of a run's model on the test images of `source`, or on all its labeled images if it has no test part.

    The keys are those of `metrics.scores`, the run's curve (`curves.curve`: last1 ... best, of the evaluations
    during training), `step`, `weights` and `measured_on`. Grey images become colours, or colours grey, where the run
    was trained on such. Raises ValueError where the classes, or height and width, are not the run's.
    """
    model = load_predictor(run, checkpoint=checkpoint, weights=weights, device=device)
    if source.classes != model.classes:
        extra = sorted(set(source.classes) - set(model.classes))
        alike = strangers(extra, model.classes)
        what = f"classes that the run does not know ({alike})" if extra else "other classes than the run"
        raise ValueError(f"{source.name} has {what}; the run knows {', '.join(model.classes)}")
    part = "test" if len(source.test_labels) else "train"
    known = source.labels >= 0
    images = in_channels(source.test_images if part == "test" else source.images[known], model.shape[0])
    labels = source.test_labels if part == "test" else source.labels[known]
    values = scores(model.logits(images), torch.from_numpy(labels), model.classes)
    evals = [r for r in run.metrics("eval") if r["step"] <= model.step]
    main = main_part(evals[-1]) if evals else None
    accuracies = [r[main][weights]["accuracy"] for r in evals] if main else []
    return {**values, **curve(accuracies), "step": model.step, "weights": weights, "measured_on": part}
