"""fewlabels as a classifier of scikit-learn: `clone`, `cross_val_score`, `Pipeline`, `GridSearchCV`."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from fewlabels.classifier import Classifier, fit
from fewlabels.config.settings import Net, Train
from fewlabels.data.labels import as_classes


class FewLabelsClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that learns from a few labels and many unlabeled images, by scikit-learn's rules.

    Args:
        algorithm, net, time, steps, image_size, device, config: as of `fit`.
        random_state: seed of the training: an integer, a `RandomState`, or None for one of NumPy's own.
        verbose: show progress, on standard error.

    X is what `fit` takes as images: arrays ``[N, H, W, C]`` or ``[N, H, W]``, or lists of files or of Pillow's images;
    y are integers or names, of which -1 or None is an unlabeled image. After `fit` there are `classes_` and
    `classifier_`, a `Classifier`.
    """

    def __init__(
        self,
        algorithm: Any = None,
        net: Net | str | None = None,
        *,
        time: str | float | None = None,
        steps: int | None = None,
        image_size: int | None = None,
        device: str | None = None,
        config: Train | None = None,
        random_state: Any = 1,
        verbose: bool = False,
    ) -> None:
        self.algorithm, self.net = algorithm, net
        self.time, self.steps = time, steps
        self.image_size, self.device, self.config = image_size, device, config
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: ArrayLike) -> FewLabelsClassifier:
        """Train; raises ValueError as `fewlabels.fit`, and where y is missing."""
        if y is None:
            raise ValueError("FewLabelsClassifier requires y to be passed, but the target y is None")
        whole = isinstance(self.random_state, Integral) and not isinstance(self.random_state, bool)
        seed = self.random_state if whole else check_random_state(self.random_state).randint(2**31)
        self.classifier_: Classifier = fit(
            X,
            y,
            algorithm=self.algorithm,
            net=self.net,
            time=self.time,
            steps=self.steps,
            image_size=self.image_size,
            device=self.device,
            config=self.config,
            seed=int(seed),
            progress=bool(self.verbose),
        )
        self.classes_ = self.classifier_.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Class of each image, ``[N]``."""
        check_is_fitted(self)
        return self.classifier_.predict(X)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities ``[N, K]`` in the order of `classes_`."""
        check_is_fitted(self)
        return self.classifier_.predict_proba(X)

    def features(self, X: Any) -> NDArray[np.float32]:
        """What the net makes of each image before its last layer, ``[N, D]``."""
        check_is_fitted(self)
        return self.classifier_.features(X)

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy, 0 to 1, on the images that have a label in y; those that have none are left out.

        sample_weight: ``[N]``, how much each image counts. Raises ValueError where no image has a label.
        """
        ids, classes = as_classes("y", y)
        guess = self.predict(X)
        if guess.shape != ids.shape:
            raise ValueError(f"score needs one label per image: got {len(guess)} images and labels {ids.shape}")
        known = np.flatnonzero(ids >= 0)
        if not len(known):
            raise ValueError("score needs at least one image with a label, got none")
        weights = None if sample_weight is None else np.asarray(sample_weight, float)[known]
        right = [guess[row] == classes[ids[row]] for row in known]
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self) -> Tags:
        return Classifier.__sklearn_tags__(self)
