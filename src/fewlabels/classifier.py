"""The Python way in: `fit` arrays, `load` a run, `predict` images; scikit-learn's conventions."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewlabels.config.recipes import recipe
from fewlabels.config.settings import Ema, Net, Optim, Train
from fewlabels.data.arrays import (
    are_paths,
    are_pictures,
    as_images,
    as_labels,
    from_arrays,
    hardly_differ,
    in_channels,
)
from fewlabels.data.names import is_pictures
from fewlabels.data.pictures import PLAIN, pixels_of
from fewlabels.inference.model import Predictor, decoding_of, load_predictor
from fewlabels.inference.predict import predict
from fewlabels.runs.run import Run
from fewlabels.runtime.words import first
from fewlabels.training.loop import Output, train
from fewlabels.training.step import pick_device


class Classifier:
    """A trained classifier for images of one shape.

    Images are arrays ``[N, H, W, C]`` (``[N, H, W]`` for grey) of the training images' height and width, uint8,
    integers in 0..255 or floats in 0..1; or lists of image files or of Pillow's images, which are resized and cropped
    to these. Grey images become colours, or colours grey, where the run was trained on such.
    """

    def __init__(self, model: Predictor, run: Run | None = None) -> None:
        self.model, self.run = model, run
        values = run.data.get("values") if run else None
        self.classes_: NDArray[Any] = np.asarray(values or model.classes)
        """The labels that `predict` answers with: class names, or the numbers that `fit` was given."""

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities ``[N, K]`` float32 in the order of `classes_`; rows sum to 1.

        Raises ValueError for images of another form or shape, and for files that are folders or cannot be read.
        """
        if are_paths(images):
            if folder := next((p for p in images if Path(p).is_dir()), None):
                raise ValueError(f"images must be files, and {str(folder)!r} is a folder; give the files in it")
            found = predict(self.model, [Path(p) for p in images])
            if found.corrupt:
                name, reason = found.corrupt[0]
                raise ValueError(f"could not read {len(found.corrupt)} image file(s), such as {name}: {reason}")
            return found.probabilities
        probabilities: NDArray[np.float32] = self.model.logits(self._images(images)).softmax(1).numpy()
        return probabilities

    def _images(self, images: Any) -> Any:
        """uint8 ``[N, H, W, C]`` with the model's channels, where grey and colours are all that differ."""
        channels, height, width = self.model.shape
        if are_pictures(images):
            return np.stack([pixels_of(p, channels, (height, width), self.model.how) for p in images])
        array = as_images(images)
        if np.ndim(images) == 3 and channels != 1:  # [N, H, W] of grey, or one [C, H, W]?
            return array
        return in_channels(array, channels)

    def predict(self, images: Any) -> NDArray[Any]:
        """Class of each image, ``[N]``, as in `classes_`. Raises ValueError as `predict_proba`."""
        classes: NDArray[Any] = self.classes_[self.predict_proba(images).argmax(1)]
        return classes

    def score(self, images: Any, labels: ArrayLike) -> float:
        """Accuracy, 0 to 1: the share of images whose predicted class is the given one.

        Args:
            images: N of them, as for `predict`.
            labels: ``[N]``, each one of `classes_`.

        Raises ValueError where there is no image, where the labels are not ``[N]``, or one is unknown (-1, None,
        masked) or no class of the run; and as `predict_proba`.
        """
        given: NDArray[Any] = as_labels("labels", labels) if self.classes_.dtype.kind in "iu" else np.asarray(labels)
        guess = self.predict(images)
        if given.shape != guess.shape:
            raise ValueError(f"score needs one label per image: got {len(guess)} images and labels {given.shape}")
        if not len(guess):
            raise ValueError("score needs at least one image, got none")
        if new := sorted({repr(v) for v in given.tolist()} - {repr(v) for v in self.classes_.tolist()}):
            raise ValueError(f"score needs labels among {first(self.classes_.tolist())}, got {first(new)}")
        return float((guess == given).mean())


def fit(
    images: Any,
    labels: ArrayLike | None = None,
    *,
    config: Train | None = None,
    out: Path | str | None = None,
    output: Output | None = None,
) -> Classifier:
    """Train on images of which some are labeled.

    Args:
        images: ``[N, H, W, C]`` or ``[N, H, W]``, uint8, integers in 0..255 or floats in 0..1; or a list of image
            files, or of Pillow's images. Without `labels` a folder or zip file of pictures, as of `Data.name`.
        labels: ``[N]`` integers; -1, None, pandas' NA or what is masked is an unlabeled image.
        config: the training; default `arrays_recipe`, of a folder FixMatch's recipe. Of arrays its `data` only counts
            for `labels`, `seed`, `valid`, `rule`, `unlabeled`, `normalize`, and for files and pictures `image_size`,
            `fit`, `bits` and `max_pixels`.
        out: run folder to keep; default none.
        output: what to show; default nothing.

    Returns a classifier whose `classes_` are the label values.

    Raises:
        ValueError: images or labels of another form, labels below -1, images that hardly differ, settings that do
            not fit the images; RunError where `out` is taken.
        Interrupted, Diverged: as `train`.
    """
    if labels is None:
        name = f"{images}/" if isinstance(images, Path) and images.is_dir() else images
        if not isinstance(name, str | Path) or not is_pictures(str(name)):
            raise ValueError("fit needs labels, one per image; only a folder or zip file (photos/) says its own")
        config = config or recipe("fixmatch", str(name))
        return _trained(replace(config, data=replace(config.data, name=str(name))), out, output=output)
    values = as_labels("labels", labels) if np.size(labels) else np.empty(0, np.int64)
    known = np.unique(values[values >= 0])
    if values.size and values.min() < -1:
        raise ValueError(f"labels must be -1 (unlabeled) or at least 0, got {values.min()}")
    ids = np.where(values < 0, -1, np.searchsorted(known, values)).astype(np.int64)
    size = config.data.image_size if config else None
    how = decoding_of(config.data) if config else PLAIN
    source = from_arrays(images, ids, classes=[str(v) for v in known], image_size=size, how=how)
    if isinstance(source.images, np.ndarray) and (narrow := hardly_differ(source.images)):
        raise ValueError(narrow)
    config = config or arrays_recipe(source.shape)
    return _trained(config, out, source=source, facts={"values": known.tolist()}, output=output)


def _trained(config: Train, out: Path | str | None, **more: Any) -> Classifier:
    """A classifier from a training, whose run is kept where `out` is given. more: of `train`."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, out=Path(folder) / "run" if out is None else out, **more)
        classifier = load(run.path, device=config.device, algorithms=(type(config.algorithm),))
    if out is None:
        classifier.run = None
    return classifier


def arrays_recipe(shape: tuple[int, int, int]) -> Train:
    """The training that `fit` does unless it is told: minutes on a CPU for small images.

    shape: (C, H, W) of the images.
    """
    train = Train(
        net=Net("small"),
        optim=Optim(lr=0.1, warmup=30),
        ema=Ema(decay=0.99, warmup=True, buffers="averaged"),
        steps=1000,
        batch=32,
        uratio=4,
        eval_every=250,
        save_every=250,
        log_every=25,
    )
    tiny = min(shape[1:]) < 16
    return replace(train, weak="affine", strong="affine") if tiny else train


def load(
    path: Path | str,
    *,
    checkpoint: str = "last",
    weights: str = "ema",
    device: str = "auto",
    algorithms: tuple[type, ...] = (),
) -> Classifier:
    """The classifier of a run folder.

    checkpoint: "last", "best" or a step; weights: "ema" or "raw"; algorithms: config classes from outside the
    package that the run's config.json names.

    Raises RunError where there is no such run, checkpoint or kind of weights, or one is damaged; ValueError for a
    device that is not there.
    """
    run = Run(path, algorithms)
    return Classifier(load_predictor(run, checkpoint=checkpoint, weights=weights, device=pick_device(device)), run)
