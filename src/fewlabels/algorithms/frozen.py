"""A linear layer on the features of a net that does not learn, by the method that the labels support."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewlabels.algorithms.base import Algorithm, log
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.algorithms.graph import equal_mass, graph, spread
from fewlabels.algorithms.linear import Basis, Layer, logistic, means, mixture, ridge, unit
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.rng import philox
from fewlabels.types import Batch, Fitted, Info, Known, Losses, Net, Views

Method = Literal["labels", "votes", "spreading", "mixture"]

NAMES: dict[Method, str] = {
    "labels": "labels only",
    "votes": "votes",
    "spreading": "spreading",
    "mixture": "mixture",
}
"""From the plainest on: of two with as many right answers the plainer one is taken."""

DECAY = 0.1
"""Of logistic regression (scikit-learn's C is its inverse), and of least squares, on a few labels."""

STUDENT = 3.0
"""Of logistic regression on all images."""

AXES = 256
"""Directions in which linear layers and neighbours look at the features, at most: those of the largest variance."""

BROAD = 32
"""Those that the mixture looks at."""

REPEATS = 3
"""Cross-validations, each with other folds."""

FEW = 3000
"""Unlabeled images that a student of votes learns from in a cross-validation, at most."""

FIT = 0.5
"""Share of what guessing leaves that labels only have right, from which the features fit the pictures. Where they do,
the unlabeled pictures mostly help; where not, they harm as often, and have to show first that they help."""


@dataclass(frozen=True, kw_only=True)
class Frozen(Checked):
    """Frozen features (Zhang et al. 2025), https://arxiv.org/abs/2503.09707.

    The features of a learned net stay as they are, and a linear layer on them is fitted: on the labels alone, on votes
    of several teachers about all images, or on labels spread to the nearest neighbours. A cross-validation over the
    labels takes one of these.
    """

    name: ClassVar[str] = "frozen"
    fits: ClassVar[bool] = True
    """Before the first step, `FrozenFeatures.fit`: there may be no steps at all."""

    method: Literal["auto", "labels", "votes", "spreading", "mixture"] = "auto"
    """`labels` only, `votes` (three linear teachers and spreading, as soft labels for one linear student),
    `spreading` (over the nearest neighbours, then a linear layer on all), `mixture` (classes as Gaussians, then the
    same); `auto`: the one that does best in a cross-validation over the labels."""
    neighbours: Annotated[int, Range(1, 1000)] = 20
    """Nearest images that labels spread to."""
    alpha: Annotated[float, Range(0, 0.999)] = 0.99
    """Share that an image takes of its neighbours' labels in spreading; the rest is its own."""
    cv: Annotated[int, Range(2, 20)] = 5
    """Parts of the labels in the cross-validation, each of which is predicted from the others once."""
    most: Annotated[int | None, Range(1, None)] = None
    """Unlabeled images that are looked at, at most, drawn by the seed; default: all."""

    def build(self, info: Info) -> FrozenFeatures:
        return FrozenFeatures(self)


def by_direction(net: Net, features: Tensor) -> Tensor:
    """Rule: the net's own head on the direction of the features; their length says little about the class."""
    return net.head(unit(features))


def on_labels(features: Tensor, y: Tensor, classes: int) -> Layer:
    """Logistic regression on the labels ``[L]`` alone, in the main directions of the features ``[L, D]`` of their
    images: a layer on the features."""
    basis = Basis.of(features, AXES)
    return basis.undone(logistic(basis(features), one_hot(y, classes), DECAY))


class FrozenFeatures(Algorithm):
    """Fitted before the first step; steps, where there are any, go on with the labels alone."""

    views = Views(labeled=("weak",), unlabeled=())
    rule = staticmethod(by_direction)
    on_features = True

    def __init__(self, config: Frozen) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        (x,) = batch.x
        loss = cross_entropy(by_direction(net, net.features(x)), batch.y).mean()
        return Losses(loss, log(loss=loss, loss_x=loss))

    def fit(self, known: Known) -> Fitted:
        methods = Methods(self.config, known)
        wanted: list[Method] = list(NAMES) if self.config.method == "auto" else [self.config.method]
        right = cross_validated(methods, wanted, self.config.cv, known)
        best = supported(right, known.classes) if right else wanted[0]
        told = torch.arange(len(known.labeled), device=known.y.device)
        layer = methods.layer(best, told)
        plain = layer if best == "labels" else methods.layer("labels", told)
        return Fitted(layer.weight, layer.bias, *report(best, right, known), plain=plain)


class Methods:
    """The methods on one set of images, each as a function of the labels that it is told."""

    def __init__(self, config: Frozen, known: Known) -> None:
        self.config, self.known = config, known
        directions = unit(known.features)
        self.basis = Basis.of(directions, AXES)
        self.features = self.basis(directions)
        self._graph: Tensor | None = None
        self._last: tuple[list[int], Tensor] = [], known.y
        """The labels that were spread last, and what came of it: two methods ask for the same, one after the other."""

    def layer(self, method: Method, told: Tensor) -> Layer:
        """The linear layer on the features, fitted with the labels at `told`, places ``[n]`` in `Known.labeled`."""
        rows, y = self._told(told)
        plain = logistic(self.features[rows], y, DECAY)
        if method == "labels":
            return self.basis.undone(plain)
        target = self._target(method, rows, y)
        target[rows] = y
        return self.basis.undone(logistic(self.features, target, STUDENT, plain))

    def answers(self, method: Method, told: Tensor, asked: Tensor) -> Tensor:
        """The class ``[n]`` of the images at `asked`, which are unlabeled here: rows of all; `told` as in `layer`."""
        rows, y = self._told(told)
        if method == "labels":
            return logistic(self.features[rows], y, DECAY)(self.features[asked]).argmax(1)
        target = self._target(method, rows, y)
        if method != "votes":
            return target[asked].argmax(1)
        # four votes of which three are linear say little more than the first; the student does
        some = torch.arange(0, len(target), -(-len(target) // FEW), device=rows.device)
        some = torch.cat((some, rows))
        plain = logistic(self.features[rows], y, DECAY)
        target[rows] = y
        student = logistic(self.features[some], target[some], STUDENT * len(some) / len(target), plain)
        return student(self.features[asked]).argmax(1)

    def _told(self, told: Tensor) -> tuple[Tensor, Tensor]:
        return self.known.labeled[told], one_hot(self.known.y[told], self.known.classes)

    def _target(self, method: Method, rows: Tensor, y: Tensor) -> Tensor:
        """What a student learns of all images, ``[P, K]``: one-hots, or their mean.

        One-hots are averaged, not probabilities: teachers differ in how sure they are (Zhang et al. 2025).
        """
        if method == "spreading":
            return one_hot(self._spread(rows, y), self.known.classes)
        if method == "mixture":
            return one_hot(mixture(self.features[:, :BROAD], rows, y).argmax(1), self.known.classes)
        x = self.features[rows]
        teachers = [logistic(x, y, DECAY), ridge(x, y, DECAY), means(x, y)]
        answers = [teacher(self.features).argmax(1) for teacher in teachers] + [self._spread(rows, y)]
        return torch.stack([one_hot(answer, self.known.classes) for answer in answers]).mean(0)

    def _spread(self, rows: Tensor, y: Tensor) -> Tensor:
        """Class ``[P]`` of each image by spreading, each class taken to be equally common."""
        if self._graph is None:  # the labels have no part in it
            self._graph = graph(self.features, self.config.neighbours)
        if (key := rows.tolist()) == self._last[0]:
            return self._last[1]
        start = torch.zeros(len(self.features), self.known.classes, dtype=torch.float64, device=y.device)
        start[rows] = y.double()
        found = equal_mass(spread(self._graph, start, self.config.alpha).clamp_min(0)).argmax(1)
        self._last = key, found
        return found


def folds_of(
    y: np.ndarray[Any, np.dtype[np.int64]], count: int, seed: int, repeat: int = 0
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A fold 0 .. count-1 for each label, ``[L]``: shuffled, and each class is dealt out evenly."""
    order = philox(seed, f"folds {repeat}" if repeat else "folds").permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    folds = np.empty(len(y), np.int64)
    folds[order] = np.arange(len(y)) % count
    return folds


def cross_validated(
    methods: Methods, wanted: list[Method], count: int, known: Known
) -> dict[Method, np.ndarray[Any, np.dtype[np.bool_]]]:
    """For each method whether its answer on each label was right, ``[REPEATS, L]``, the label being held back.

    What is held back is an unlabeled image meanwhile, about which the method says something; that is its answer. Empty
    where no class has two labels: what is held back could not be known.
    """
    y = known.y.cpu().numpy()
    counts = np.bincount(y)
    if counts.max() < 2:
        return {}
    right: dict[Method, np.ndarray[Any, np.dtype[np.bool_]]] = {m: np.zeros((REPEATS, len(y)), bool) for m in wanted}
    count = min(count, len(y))
    for repeat in range(REPEATS):
        folds = folds_of(y, count, known.seed, repeat)
        for fold in np.unique(folds):
            told, held = (
                torch.from_numpy(np.flatnonzero(part)).to(known.y.device) for part in (folds != fold, folds == fold)
            )
            known.show(repeat * count + int(fold), REPEATS * count)
            for method, answers in right.items():
                guess = methods.answers(method, told, known.labeled[held])
                answers[repeat, held.cpu().numpy()] = (guess == known.y[held]).cpu().numpy()
    return right


def supported(right: dict[Method, np.ndarray[Any, np.dtype[np.bool_]]], classes: int) -> Method:
    """The method with the most right answers, of labels only and of those that beat it: by more than a standard error
    where the features do not fit (`FIT`), as the best of four by a few answers would often be none.

    The error is that of the difference of two methods on the same labels, the root of the number of answers that only
    one of them has right (McNemar 1947), in the mean of the repeated cross-validations.
    """

    def beats(answers: np.ndarray[Any, np.dtype[np.bool_]], plain: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
        gained, lost = (float(part.sum()) / repeats for part in (answers & ~plain, plain & ~answers))
        fits = classes * plain.mean() - 1 >= FIT * (classes - 1)
        return gained - lost > (0.0 if fits else math.sqrt(gained + lost))

    plain = right.get("labels")
    repeats = len(next(iter(right.values())))
    left = [m for m, answers in right.items() if m == "labels" or plain is None or beats(answers, plain)]
    return max(left, key=lambda method: int(right[method].sum()))


class Interval(NamedTuple):
    low: float
    high: float


def wilson(right: float, count: int, z: float = 1.959964) -> Interval:
    """The interval of 95 % for a share, of which `right` of `count` trials were (Wilson 1927)."""
    share = right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def report(
    best: Method, right: dict[Method, np.ndarray[Any, np.dtype[np.bool_]]], known: Known
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Sentences about the choice, and what result.json says of it."""
    n = len(known.y)
    if not right:
        said = f"{NAMES[best]} taken: with one label of each class nothing can be held back to judge by"
        return (said,), {"method": best, "expected": None, "interval": None, "judged": {}}
    shares = {method: 100 * float(answers.mean()) for method, answers in right.items()}
    interval = wilson(right[best].mean() * n, n)
    low, high = 100 * interval.low, 100 * interval.high
    each = ", ".join(f"{NAMES[method]} {share:.1f} %" for method, share in shares.items())
    notes = [
        f"judged by cross-validation over the {n} labels: {each}",
        f"{NAMES[best]} taken; expected accuracy {shares[best]:.1f} % (between {low:.1f} and {high:.1f} with 95 %)",
    ]
    if best == "labels" and len(right) > 1:
        sure = max(shares.values()) == shares[best]
        notes.append(f"the unlabeled pictures did not {'help' if sure else 'surely help'} here")
    facts = {"method": best, "expected": shares[best], "interval": [low, high], "judged": shares}
    return tuple(notes), facts
