"""Scores of a model while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fewlabels.data.features import FeatureStore
from fewlabels.data.gather import AnyStore, make_store
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.metrics import summary, tally
from fewlabels.inference.model import Model, logits_of
from fewlabels.training.step import Trainer

TRAIN_EXAMPLES = 10_000
"""Labeled images, at most, on which the training accuracy is measured (as google-research/fixmatch does)."""


class Evaluator:
    """Scores of the averaged and the raw model on the test, validation and labeled training images.

    Both see each batch of images while it is there, in the precision of the training, and the device is waited
    for once, at the end.
    """

    def __init__(self, trainer: Trainer, source: Source, split: Split) -> None:
        self.trainer, self.classes = trainer, source.classes
        device = trainer.device
        self.parts: dict[str, tuple[AnyStore | FeatureStore, torch.Tensor, torch.Tensor]] = {}
        images = trainer.batches.store if trainer.test_features is None else trainer.features
        assert images is not None
        self.models = {"ema": self._twin(trainer.average.model), "raw": self._twin(trainer.model)}
        if len(source.test_labels):
            test = trainer.test_features or make_store(source.test_images, device, trainer.batches.place.kind)
            rows = torch.arange(len(test), device=test.rows_device)
            self.parts["test"] = test, rows, torch.from_numpy(source.test_labels).to(device)
        measured = source.labels[split.validation]  # what is trained on may be a guess, what is measured with is not
        for name, chosen, labels in (
            ("valid", split.validation, measured),
            ("train", split.labeled[:TRAIN_EXAMPLES], split.targets[:TRAIN_EXAMPLES]),
        ):
            if len(chosen):
                rows = torch.from_numpy(np.ascontiguousarray(chosen)).to(images.rows_device)
                self.parts[name] = images, rows, torch.from_numpy(labels).to(device)

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
            logits = logits_of(both, trainer.batches.normalize, store, rows, even=trainer.config.compile)
            counts[part] = [tally(of_one, labels) for of_one in logits]
        out: dict[str, Any] = {}
        for part, (_, _, labels) in self.parts.items():
            out[part] = {}
            for which, counted in zip(self.models, counts[part], strict=True):
                values = summary(counted, labels, self.classes)
                out[part][which] = {k: v for k, v in values.items() if k != "confusion"}
        return {**out, "score": out[self.chooser]["ema"]["accuracy"]}
