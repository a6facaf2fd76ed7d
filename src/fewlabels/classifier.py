"""The Python way in: `fit` arrays or pictures, `load` a run, `predict`; scikit-learn's conventions."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.recipes import recipe
from fewlabels.config.settings import Data, Net, Train, algorithm_name
from fewlabels.config.usual import FITTED
from fewlabels.data.arrays import are_paths, are_pictures, as_images, from_arrays, hardly_differ, in_channels
from fewlabels.data.labels import as_classes
from fewlabels.data.names import is_pictures
from fewlabels.data.pictures import pixels_of
from fewlabels.data.remarks import About
from fewlabels.data.source import Images
from fewlabels.inference.hub import located
from fewlabels.inference.model import Predictor, decoding_of, load_predictor
from fewlabels.inference.predict import decoded_chunks, pictures
from fewlabels.runs.extract import Extract
from fewlabels.runs.run import Run
from fewlabels.runtime import streams
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.urls import is_url
from fewlabels.runtime.words import first, seconds_of, unknown
from fewlabels.training.budget import Budget, with_steps
from fewlabels.training.log import reading
from fewlabels.training.loop import Output, train


class Classifier:
    """A trained classifier for images.

    Images are arrays ``[N, H, W, C]`` (``[N, H, W]`` for grey), uint8, integers in 0..255 or floats in 0..1; a list
    of such ``[H, W, C]`` of any sizes; a picture of Pillow's or a list of them; a picture file or a list of them; or a
    folder, which means the pictures in it and below, sorted by path. They are resized and cropped as the run's own
    pictures are. Grey images become colours, or colours grey, where the run was trained on such.
    """

    def __init__(self, model: Predictor, run: Run | None = None, *, extract: Extract | None = None) -> None:
        """extract: what `save` writes where there is no run folder."""
        self.model, self.run = model, run
        self._extract = extract
        values = run.data.get("values") if run else None
        self.classes_: NDArray[Any] = np.asarray(values or model.classes)
        """The labels that `predict` answers with: class names, or the numbers that `fit` was given."""

    def __repr__(self) -> str:
        channels, height, width = self.model.shape
        return f"Classifier({first(self.classes_.tolist())}; images of {height} x {width}, {channels} channel(s))"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told: a classifier, of images."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
        )

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities ``[N, K]`` float32 in the order of `classes_`; rows sum to 1.

        Raises ValueError for images of another form, and for files that cannot be read.
        """
        return self._asked(images, lambda pixels: self.model.logits(pixels).softmax(1))

    def predict(self, images: Any) -> NDArray[Any]:
        """Class of each image, ``[N]``, as in `classes_`. Raises ValueError as `predict_proba`."""
        classes: NDArray[Any] = self.classes_[self.predict_proba(images).argmax(1)]
        return classes

    def features(self, images: Any) -> NDArray[np.float32]:
        """What the net makes of each image before its last layer, ``[N, D]`` float32. Raises as `predict_proba`."""
        return self._asked(images, self.model.features)

    def score(self, images: Any, labels: ArrayLike) -> float:
        """Accuracy, 0 to 1: the share of images whose predicted class is the given one.

        Args:
            images: N of them, as for `predict`.
            labels: ``[N]``, each one of `classes_`.

        Raises ValueError where there is no image, where the labels are not ``[N]``, or one is unknown (-1, None,
        masked) or no class of the run; and as `predict_proba`.
        """
        ids, classes = as_classes("labels", labels)
        guess = self.predict(images)
        if ids.shape != guess.shape:
            raise ValueError(f"score needs one label per image: got {len(guess)} images and labels {ids.shape}")
        if not len(guess):
            raise ValueError("score needs at least one image, got none")
        none = [-1 if self.classes_.dtype.kind in "iu" else None] * bool((ids < 0).any())
        if new := [*none, *(c for c in classes if c not in self.classes_.tolist())]:
            known = first([*map(repr, self.classes_.tolist())])
            raise ValueError(f"score needs labels among {known}, got {first([*map(repr, new)])}")
        return float((guess == np.asarray(classes)[ids]).mean())

    def save(self, path: Path | str) -> Path:
        """Write a run folder that `load` and the commands `evaluate`, `predict` and `report` take; returns its path.

        It has the settings, the weights and the records, and not what a training needs to go on. Raises RunError where
        `path` holds something already, or cannot be written.
        """
        folder = expanded(path)
        extract = self._extract
        if extract is None:
            assert self.run is not None
            extract = Extract.of(self.run, self.model.step)
        extract.write(folder)
        return folder

    def _asked(self, images: Any, ask: Callable[[Images], Tensor]) -> NDArray[np.float32]:
        """What `ask` says of the images, which it is given in chunks of uint8 ``[n, H, W, C]``."""
        return np.concatenate([ask(chunk).numpy() for chunk in self._inputs(images)])

    def _inputs(self, images: Any) -> Iterator[Images]:
        """Images of any form, as the model's, in chunks; at least one, which may have none."""
        images = listed(images)
        if isinstance(images, str | os.PathLike):
            images = [picture.file for picture in pictures([expanded(os.fspath(images))])]
        if isinstance(images, Image.Image):
            images = [images]
        if are_paths(images):
            yield from self._files([expanded(os.fspath(p)) for p in images])
        elif are_pictures(images):
            yield np.stack([self._fitted(picture, row) for row, picture in enumerate(images)])
        elif (alone := _each(images)) is not None:
            for one in alone:
                yield from self._arrays(one)
        else:
            yield from self._arrays(images)

    def _files(self, files: list[Path]) -> Iterator[Images]:
        for path in files:
            if path.is_dir():
                raise ValueError(f"images must be files, and {str(path)!r} is a folder; give the files in it")
            if not path.exists():
                raise ValueError(f"there is no file or folder {path}")
        abouts: dict[int, About] = {}
        corrupt: dict[int, str] = {}
        for _, chunk, _ in decoded_chunks(self.model, files, abouts, corrupt):
            yield chunk
        if corrupt:
            row, reason = next(iter(corrupt.items()))
            raise ValueError(f"could not read {len(corrupt)} image file(s), such as {files[row]}: {reason}")

    def _arrays(self, images: Any) -> Iterator[Images]:
        channels, height, width = self.model.shape
        array = as_images(images)
        if np.ndim(images) == 3 and channels != 1:
            shape = list(np.shape(images))
            raise ValueError(
                f"images of shape {shape} may be {shape[0]} grey ones or the channels of one, and the model takes "
                "colours: give [N, H, W, 1] or [N, H, W, 3]"
            )
        array = np.asarray(in_channels(array, channels))
        if array.shape[3] == channels and array.shape[1:3] != (height, width) and 0 not in array.shape:
            array = np.stack([self._fitted(Image.fromarray(one[..., 0] if channels == 1 else one)) for one in array])
        yield array

    def _fitted(self, picture: Image.Image, row: int | None = None) -> Images:
        channels, height, width = self.model.shape
        try:
            return pixels_of(picture, channels, (height, width), self.model.how)
        except (ValueError, OSError) as error:
            raise ValueError(f"picture {row} cannot be read: {error}") from error


def listed(images: Any) -> Any:
    """File names or pictures in an array or a column of a table as a list; all else as it is."""
    if isinstance(images, str | list | tuple) or hasattr(images, "detach"):
        return images
    kind = getattr(getattr(images, "dtype", None), "kind", "")
    if kind not in ("O", "U", "T") or np.ndim(images) != 1 or not len(images):
        return images
    values = list(np.asarray(images, object))
    return values if all(isinstance(v, str | os.PathLike | Image.Image) for v in values) else images


def _each(images: Any) -> list[Any] | None:
    """Each of a list of arrays that differ in shape, as one of one ``[1, H, W, C]``."""
    if not isinstance(images, list | tuple) or not all(hasattr(one, "shape") for one in images):
        return None
    if len({tuple(one.shape) for one in images}) < 2 or any(one.ndim not in (2, 3) for one in images):
        return None
    return [one[None, ..., None] if one.ndim == 2 else one[None] for one in images]


def fit(
    images: Any,
    labels: ArrayLike | None = None,
    *,
    algorithm: Any = None,
    net: Net | str | None = None,
    time: str | float | None = None,
    steps: int | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    config: Train | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    output: Output | None = None,
) -> Classifier:
    """Train on images of which some are labeled.

    Args:
        images: ``[N, H, W, C]`` or ``[N, H, W]``, uint8, integers in 0..255 or floats in 0..1; or a list of image
            files, or of Pillow's images. Without `labels` a folder or zip file of pictures, as of `Data.name`.
        labels: ``[N]`` integers or names; -1, None, NaN among names, pandas' NA or what is masked is an unlabeled
            image.
        algorithm: a name (``"flexmatch"``) or settings (``FlexMatch(tau=0.9)``); default FixMatch.
        net: a name (``"wrn-28-2"``) or settings (``Net("timm:resnet18", pretrained=True)``).
        time: end within this time: ``"90s"``, ``"10m"``, ``"1h30m"``, or seconds; as many steps as fit are taken.
        steps: steps to take, with evaluations, warm-up and ramps in proportion.
        image_size: side in pixels to which files and pictures are brought; default: chosen from them.
        seed: of the training; the same gives the same classifier on the same CPU.
        device: "cpu", "cuda", ...; default: a GPU where there is one.
        config: the training, of which the arguments above change what they name; default `arrays_recipe`, of a folder
            the algorithm's recipe. Of arrays its `data` only counts for `labels`, `seed`, `valid`, `rule`,
            `unlabeled`, `normalize`, and for files and pictures `image_size`, `fit`, `bits` and `max_pixels`.
        out: run folder to keep; default none (`Classifier.save` writes one afterwards).
        progress: show what is trained and how far it is, on standard error.
        output: the same as the command line has it, in place of `progress`.

    Returns a classifier whose `classes_` are the label values.

    Raises:
        ValueError: images or labels of another form, labels below -1, images that hardly differ, settings that do
            not fit the images; RunError where `out` is taken.
        Interrupted, Diverged: as `train`.
    """
    if time is not None and steps is not None:
        raise ValueError("time says how many steps are taken: leave out steps, or time")
    seconds = _seconds(time) if time is not None else None
    output = output or (Output(True, _tell) if progress else Output())
    told: dict[str, Any] = {"seed": seed, "device": device}
    given: dict[str, Any] = {}
    if labels is None:
        name = _folder_name(images)
        base = _with(config, algorithm, net) if config else _recipe(name, algorithm, net)
        told["data"] = replace(base.data, name=name, image_size=image_size or base.data.image_size)
    else:
        ids, classes = as_classes("labels", labels)
        images = listed(images)
        base = _with(config, algorithm, net) if config else arrays_recipe((3, 32, 32), algorithm, net)
        size = image_size or (base.data.image_size if config or are_paths(images) or are_pictures(images) else None)
        names = [str(c) for c in classes]
        with reading(output.progress) as show:
            source = from_arrays(images, ids, classes=names, image_size=size, how=decoding_of(base.data), progress=show)
        if isinstance(source.images, np.ndarray) and (narrow := hardly_differ(source.images)):
            raise ValueError(narrow)
        if not config:
            base = arrays_recipe(source.shape, algorithm, net)
            output = output._replace(usual=base)
        told["data"] = replace(base.data, image_size=size)
        given = {"source": source, "facts": {"values": classes}}
    base = replace(base, **{k: v for k, v in told.items() if v is not None})
    if steps is not None:
        base = with_steps(base, steps, (), 0.0, frozenset()) if steps > 0 else replace(base, steps=steps)
    budget = Budget(seconds, arguments=True) if seconds is not None else None
    return _trained(base, out, output, budget=budget, **given)


def _tell(text: str) -> None:
    print(text, file=streams.Stream(sys.stderr), flush=True)


def _seconds(time: str | float) -> float:
    """The seconds that a time means. Raises ValueError."""
    if isinstance(time, str):
        try:
            return seconds_of(time)
        except ValueError as error:
            raise ValueError(f"time {error}") from None
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 < time <= 3_600_000:
        raise ValueError(f"time must be text such as '10m', or seconds above 0 and at most 3,600,000, got {time!r}")
    return float(time)


def _folder_name(images: Any) -> str:
    """The data name of a folder or zip file of pictures. Raises ValueError for anything else."""
    path = isinstance(images, str | Path) and not is_url(images) and not str(images).endswith("/")
    folder = path and expanded(images).is_dir()
    name = f"{images}/" if folder else images
    if not isinstance(name, str | Path) or not is_pictures(str(name)):
        raise ValueError("fit needs labels, one per image; only a folder or zip file (photos/) says its own")
    return str(name)


def _known(algorithm: Any) -> tuple[str, Any]:
    """The name by which an algorithm has recipes, and its settings where they are given. Raises ValueError."""
    if algorithm is None or isinstance(algorithm, str):
        name = algorithm or "fixmatch"
        if name not in ALGORITHMS:
            raise ValueError(f"there is no algorithm {unknown(name, ALGORITHMS)}")
        return name, None
    if isinstance(algorithm, type) or not hasattr(algorithm, "build"):
        raise ValueError(f"algorithm must be a name or settings such as FixMatch(), got {algorithm!r}")
    name = algorithm_name(algorithm)
    return name if name in ALGORITHMS else "fixmatch", algorithm


def _recipe(data: str, algorithm: Any, net: Net | str | None) -> Train:
    """The recipe for data, with the algorithm and net that were asked for."""
    name, settings = _known(algorithm)
    if isinstance(net, Net):
        return _with(recipe(name, data, net=net.name, pretrained=net.pretrained), settings, net)
    return _with(recipe(name, data, net=net), settings, None)


def _with(config: Train, algorithm: Any, net: Net | str | None) -> Train:
    """`config` with another algorithm and net."""
    if algorithm is not None:
        name, settings = _known(algorithm)
        config = replace(config, algorithm=settings or ALGORITHMS[name]())
    if net is not None:
        config = replace(config, net=Net(net) if isinstance(net, str) else net)
    return config


def _trained(config: Train, out: Path | str | None, output: Output, **more: Any) -> Classifier:
    """A classifier from a training, whose run is kept where `out` is given. more: of `train`."""
    algorithms = (type(config.algorithm),)
    if out is not None:
        run = train(config, out=out, output=output, **more)
        _remark(run, output)
        return load(run.path, device=config.device, algorithms=algorithms)
    with tempfile.TemporaryDirectory() as folder:
        quiet = output._replace(say=lambda text: None if folder in text else output.say(text), report=False)
        try:
            run = train(config, out=Path(folder) / "run", output=quiet, **more)
        except Interrupted as stop:
            raise Interrupted("stopped; nothing is kept, as `out` names no run folder", stop.signum) from None
        _remark(run, output)
        classifier = load(run.path, device=config.device, algorithms=algorithms)
        classifier._extract, classifier.run = Extract.of(run, classifier.model.step), None
    return classifier


def _remark(run: Run, output: Output) -> None:
    if run.result["measured_on"] == "train":
        output.say("train: accuracy on the labeled images, which were trained on; there are no others to measure on")


def arrays_recipe(shape: tuple[int, int, int], algorithm: Any = None, net: Net | str | None = None) -> Train:
    """The training that `fit` does unless it is told: minutes on a CPU for small images.

    shape: (C, H, W) of the images; algorithm, net: as for `fit`.
    """
    train = replace(_recipe("digits", algorithm, net), data=Data())
    if algorithm_name(train.algorithm) in FITTED:
        return train
    train = replace(with_steps(train, 1000, (), 0.0, frozenset()), eval_every=250, save_every=250, log_every=25)
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
    """The classifier of a run folder, or of a model of the Hugging Face hub, ``hf:OWNER/NAME``.

    checkpoint: "last", "best" or a step; weights: "ema" or "raw"; algorithms: config classes from outside the
    package that the run's config.json names.

    Raises RunError where there is no such run, checkpoint or kind of weights, or one is damaged; ValueError for a
    device that is not there.
    """
    run = Run(located(str(path)), algorithms)
    return Classifier(load_predictor(run, checkpoint=checkpoint, weights=weights, device=pick_device(device)), run)
