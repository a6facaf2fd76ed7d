"""What is computed before the first step: features of images as they are, and a last layer that is fitted to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fewlabels.algorithms.frozen import on_labels
from fewlabels.algorithms.linear import Layer, unit
from fewlabels.data.features import FeatureStore
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.features import Body, features_of
from fewlabels.inference.measured import measured
from fewlabels.nets.weights import read
from fewlabels.runtime import parallel
from fewlabels.runtime.rng import philox
from fewlabels.training.log import Progressing, reading
from fewlabels.training.step import Trainer
from fewlabels.training.transfer import origin
from fewlabels.types import Fitted, Known


def prepare(
    trainer: Trainer, source: Source, split: Split, progress: Progressing = None, *, resumed: bool = False
) -> None:
    """Compute the features that do not change in the training, as far as it needs any.

    They are those of the images as they are. `fit` needs them, if the training is not resumed; and a body that does not
    learn gives no others, so that they stand for the images in evaluations, and in steps if every view leaves the
    images as they are.
    """
    frozen, fits = trainer.model.fixed, trainer.config.fits and not resumed
    if not frozen and not fits and (resumed or not _probes(trainer)):
        return
    on_features = frozen and trainer.algorithm.on_features and trainer.batches.fixed
    used = [split.labeled]
    if fits:
        used.append(_looked_at(trainer, split))
    elif on_features and trainer.algorithm.views.unlabeled:
        used.append(split.unlabeled)
    if frozen:
        used.append(split.validation)
    rows = np.unique(np.concatenate(used))
    tests = np.arange(len(source.test_labels) if frozen else 0)
    whole = len(rows) + len(tests)
    body = Body(trainer.model.twin(), trainer.batches.normalize, trainer.shape, trainer.device)
    shown = progress if parallel.rank() == 0 else None
    with parallel.first(), reading(shown, "features of pictures", "done") as show:
        table = body.table(source.name)
        found = features_of(body, source.images, rows, table, lambda done, _: show(done, whole))
        trainer.features = FeatureStore(found, rows, len(source.images), trainer.shape)
        if frozen:
            found = features_of(body, source.test_images, tests, table, lambda done, _: show(len(rows) + done, whole))
            trainer.test_features = FeatureStore(found, tests, len(tests), trainer.shape)
    if on_features:
        trainer.batches.features = trainer.features


def _looked_at(trainer: Trainer, split: Split) -> NDArray[np.int64]:
    """Rows of the unlabeled images that a layer is fitted to."""
    rows, most = split.unlabeled, getattr(trainer.config.algorithm, "most", None)
    if most is None or most >= len(rows):
        return rows
    return np.sort(philox(trainer.config.seed, "unlabeled images that are looked at").choice(rows, most, replace=False))


def _probes(trainer: Trainer) -> bool:
    return trainer.config.net.head == "probe"


@torch.no_grad()
def fit(trainer: Trainer, source: Source, split: Split, progress: Progressing = None) -> tuple[str, ...]:
    """Fit the head before the first step, if it does not start as the net has it; sentences about it."""
    if trainer.config.net.head == "kept":
        return (_keep(trainer, source),)
    if not trainer.config.fits and not _probes(trainer):
        return ()
    assert trainer.features is not None
    labeled, first = np.unique(split.labeled, return_index=True)
    pool = labeled if _probes(trainer) else np.union1d(labeled, _looked_at(trainer, split))
    known = Known(
        features=trainer.features.take(torch.from_numpy(pool).to(trainer.device)),
        labeled=torch.from_numpy(np.searchsorted(pool, labeled)).to(trainer.device),
        y=torch.from_numpy(split.targets[first]).to(trainer.device),
        classes=trainer.model.classes,
        seed=trainer.config.seed,
    )
    if _probes(trainer):
        fitted: Fitted | None = probe(known, trainer.algorithm.loss_temperature)
    else:
        with reading(progress if parallel.rank() == 0 else None, "judging the methods", "done", "fit") as show:
            fitted = trainer.algorithm.fit(known._replace(show=show))
    assert fitted is not None, "a configuration that fits makes an algorithm that does"
    weight, bias = parallel.from_first((fitted.weight.cpu(), fitted.bias.cpu()))
    trainer.model.set_head(weight, bias)
    trainer.average.update(trainer.model, 0.0)
    trainer.fitted = fitted.facts
    if fitted.plain is not None and trainer.model.fixed:
        trainer.compared = {"labels_only": _plain_accuracy(trainer, source, split, Layer(*fitted.plain))}
    return fitted.notes


def _keep(trainer: Trainer, source: Source) -> str:
    """Let the last layer start as in the run that the weights are from, where the classes are the same; a sentence.

    Raises ValueError where the weights are not those of a run.
    """
    given, found = trainer.config.net.pretrained, origin(trainer.config.net)
    if found is None:
        raise ValueError(f"Net.head kept is the last layer of a run, and Net.pretrained {given} is of none")
    if tuple(found.run.data["classes"]) != source.classes:
        return f"the last layer starts anew: {found.run.path} has other classes"
    state = read(str(given)).tensors
    trainer.model.set_head(state["linear.weight"], state["linear.bias"])
    trainer.average.update(trainer.model, 0.0)
    return f"all of the net starts as it is in {found.run.path}, its last layer too"


def probe(known: Known, temperature: float) -> Fitted:
    """Logistic regression on the features of the labeled images alone, as `frozen` has it for the labels (there on
    their directions): the features are centred, and scaled to a mean square of 1.

    temperature: by which the algorithm divides the logits in its losses; the layer is made for the quotient.
    """
    x = known.features[known.labeled]
    layer = on_labels(x, known.y, known.classes)
    right = 100 * float((layer(x).argmax(1) == known.y).float().mean())
    note = f"the head starts as a logistic regression on {len(x):,} labels, of which it has {right:.1f} % right"
    return Fitted(temperature * layer.weight, temperature * layer.bias, (note,))


def _plain_accuracy(trainer: Trainer, source: Source, split: Split, layer: Layer) -> float:
    """Accuracy in percent of a layer on the direction of the features, on what the training is measured on."""
    part = measured(source, split)
    store = trainer.test_features if part.test else trainer.features
    assert store is not None
    answers = layer(unit(store.take(torch.from_numpy(part.rows).to(trainer.device)))).argmax(1)
    return 100 * float((answers.cpu().numpy() == part.truth).mean())
