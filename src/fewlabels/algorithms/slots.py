"""Parts from which algorithms are put together: the slots of `Consistency`, and state with an owner.

A slot is called with what the net gave in a step. State is a buffer, changed without gradient, equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewlabels.algorithms.functional import annealed, cross_entropy, one_hot
from fewlabels.algorithms.memory import follow
from fewlabels.runtime import parallel
from fewlabels.types import Batch, Findings, Info, Net, Outputs


class Seen(NamedTuple):
    """A step as the slots of `Consistency` see it: B labeled and M unlabeled images of this rank, K classes."""

    labeled: tuple[Outputs, ...]
    """Of each labeled view, with gradient."""
    weak: Outputs
    """Of the view that is guessed about; with gradient only if the composition asks for it (`weak_gradient`)."""
    strong: tuple[Outputs, ...]
    """Of each view that is trained, with gradient."""
    probs: Tensor
    """``[M, K]``, softmax of the logits of `weak`, detached, after align."""
    batch: Batch
    net: Net
    teacher: Net
    """What guesses, the net itself or its average: whose heads fit the features of `weak`."""
    log: dict[str, Tensor]
    """Further values to log, 0-d or one for each class, ``[K]``; a slot may add to them."""
    counts: Tensor
    """Weights ``[M]`` of the unlabeled images in terms that do not go by the mask: 1, or what a part has left of it,
    which it writes here in `select`."""
    further: tuple[Outputs, ...] = ()
    """Of the images that a step has beside the views (`Consistency.beside`), with gradient."""
    average: Net | None = None
    """The running average of the net, whoever guesses."""


class Part(nn.Module):
    """State that several slots share."""

    def refresh(self, logits: Tensor) -> None:
        """Take in what the averaged model says of all unlabeled images, as `Algorithm.refresh`."""

    def remarks(self, classes: Sequence[str]) -> list[str]:
        """Sentences for the user after the training, as `Algorithm.remarks`."""
        return []

    def findings(self, classes: Sequence[str]) -> list[Findings]:
        """What it has found out about unlabeled images, as `Algorithm.findings`."""
        return []


def step_of(seen: Seen, steps: int) -> Tensor:
    """How many of the `steps` are over, a whole number, 0-d float on the device."""
    return (seen.batch.progress * steps).round()


def started(seen: Seen, start: int, steps: int) -> Tensor:
    """Whether `start` of the `steps` are over, 0-d bool on the device."""
    return step_of(seen, steps) >= start


Slot = Callable[[Seen], Tensor]
Divergence = Callable[[Seen, Tensor], Tensor]
"""``(seen, target) -> [M]``: losses of the unlabeled images."""
Term = Callable[[Seen, Tensor, Tensor], Tensor]
"""``(seen, target, mask) -> 0-d``: a further loss."""


def hard(seen: Seen) -> Tensor:
    """Target: the most probable class, ``[M]`` int64."""
    return seen.probs.argmax(1)


def soft(temperature: float) -> Slot:
    """Target: the probabilities, sharpened, ``[M, K]``."""

    def target(seen: Seen) -> Tensor:
        # From logarithms, as powers of small probabilities underflow.
        tiny = torch.finfo(seen.probs.dtype).tiny
        return (seen.probs.clamp_min(tiny).log() / temperature).softmax(1)

    return target


def probabilities(seen: Seen) -> Tensor:
    """Target: the probabilities as they are, ``[M, K]``."""
    return seen.probs


def sharpened(temperature: float) -> Slot:
    """Align: ``softmax(logits / T)`` in place of ``softmax(logits)``, ``[M, K]``."""
    return lambda seen: (seen.weak.logits.detach() / temperature).softmax(1)


def guesses(align: Slot | None, seen: Seen) -> Tensor:
    """The probabilities that `align` gives, ``[M, K]``; None: those of the step."""
    return seen.probs if align is None else align(seen)


def guessed_by(align: Slot | None, seen: Seen, logits: Tensor) -> Tensor:
    """What `align` makes of other logits ``[M, K]`` of the weak views, ``[M, K]``; None: their softmax."""
    seen = seen._replace(weak=seen.weak._replace(logits=logits), probs=logits.softmax(1))
    return guesses(align, seen)


class Threshold:
    """Select: 1 where the largest probability reaches `tau`, else 0; ``[M]`` float32.

    Args:
        strict: it must be above `tau`.
        broadcast: each image counts with the share of the selected ones, over all ranks.
    """

    def __init__(self, tau: float, *, strict: bool = False, broadcast: bool = False) -> None:
        self.tau, self.strict, self.broadcast = tau, strict, broadcast

    def __call__(self, seen: Seen) -> Tensor:
        confidence = seen.probs.amax(1)
        mask = (confidence > self.tau if self.strict else confidence >= self.tau).float()
        return parallel.mean(mask.mean()).expand_as(mask) if self.broadcast else mask


def cross_entropy_of_labels(seen: Seen) -> Tensor:
    """Labeled: cross-entropy of the first labeled view, ``[B]``."""
    return cross_entropy(seen.labeled[0].logits, seen.batch.y)


def cross_entropy_of_labeled_views(seen: Seen) -> Tensor:
    """Labeled: mean over the labeled views of their cross-entropy, ``[B]``."""
    return torch.stack([cross_entropy(view.logits, seen.batch.y) for view in seen.labeled]).mean(0)


def tempered_labels(temperature: float) -> Slot:
    """Labeled: cross-entropy of the first labeled view, of ``softmax(logits / T)``, ``[B]``."""
    if temperature == 1:
        return cross_entropy_of_labels
    return lambda seen: cross_entropy(seen.labeled[0].logits / temperature, seen.batch.y)


def annealed_labels(schedule: str, ramp: int, info: Info) -> Slot:
    """Labeled: training signal annealing (UDA, Xie et al. 2020), ``[B]``.

    Images whose class has more probability than a threshold do not count; their mean is over those that do, of all
    ranks, and 0 if there are none. Logs the share of these as `mask_sup`.

    Args:
        schedule: of `functional.annealed`, or "none": all count.
        ramp: steps in which the threshold grows.
    """

    def labeled(seen: Seen) -> Tensor:
        logits, y = seen.labeled[0].logits, seen.batch.y
        counts = torch.ones(len(y), device=logits.device)
        if schedule != "none":
            right = logits.detach().softmax(1).gather(1, y[:, None])[:, 0]
            counts = (right <= annealed(seen.batch.progress * (info.steps / ramp), schedule, info.classes)).float()
        seen.log["mask_sup"] = counts.mean()
        return counts * cross_entropy(logits, y) / parallel.mean(counts.mean()).clamp_min(1 / info.batch)

    return labeled


def cross_entropy_of_views(seen: Seen, target: Tensor) -> Tensor:
    """Unlabeled: cross-entropy of the trained views against the targets, their mean, ``[M]``."""
    first, *more = (cross_entropy(view.logits, target) for view in seen.strong)
    return torch.stack([first, *more]).mean(0) if more else first


def tempered_views(temperature: float) -> Divergence:
    """Unlabeled: the same, of ``softmax(logits / T)``, ``[M]``."""
    if temperature == 1:
        return cross_entropy_of_views

    def unlabeled(seen: Seen, target: Tensor) -> Tensor:
        tempered = tuple(view._replace(logits=view.logits / temperature) for view in seen.strong)
        return cross_entropy_of_views(seen._replace(strong=tempered), target)

    return unlabeled


class DistributionAlignment(nn.Module):
    """Moves guesses towards the class frequencies of the labels: ``p (eps + p_data) / (eps + p_model)``.

    ReMixMatch (Berthelot et al. 2020, section 3.1) as in google-research/fixmatch, libml/layers.py and
    remixmatch_no_cta.py: `p_model` is the mean of the last 128 batch means of the guesses, `p_data` the
    running mean of the labels with decay 0.999; both start uniform. Over all ranks.

    The original leaves open which comes first, reading or updating; running it shows that `p_data` has the
    newest labels and `p_model` not yet the newest guesses, and so it is here.

    Frequencies that are known beforehand (`known`, of any sum) stay `p_data`. With `newest` the guesses are written
    before they are read (google-research/adamatch).
    """

    recent: Tensor
    """Batch means of the guesses, oldest first, ``[128, K]``."""
    p_data: Tensor
    """Class frequencies of the labels, ``[K]``."""

    def __init__(
        self,
        classes: int,
        slots: int = 128,
        decay: float = 0.999,
        eps: float = 1e-6,
        known: Sequence[float] = (),
        newest: bool = False,
    ) -> None:
        super().__init__()
        self.decay, self.eps, self.newest = 1.0 if known else decay, eps, newest
        self.register_buffer("recent", torch.full((slots, classes), 1 / classes))
        p_data = torch.tensor(known or [1.0] * classes)
        self.register_buffer("p_data", p_data / p_data.sum())

    def forward(self, seen: Seen) -> Tensor:
        """Align: the guesses of a step, ``[M, K]``."""
        return self.aligned(seen.probs, one_hot(seen.batch.y, seen.probs.shape[1]))

    def aligned(self, probs: Tensor, labels: Tensor) -> Tensor:
        """Guesses ``[M, K]`` and labels as distributions ``[B, K]`` to aligned guesses ``[M, K]``."""
        with torch.no_grad():
            before = self.recent.mean(0)
            follow(self.p_data, parallel.mean(labels.mean(0)), self.decay)
            p_data = self.p_data / self.p_data.sum()
            newest = parallel.mean(probs.mean(0, keepdim=True))
            newest = torch.where(newest.isfinite().all(), newest, before / before.sum())  # fp16 overflows now and then
            self.recent.copy_(torch.cat((self.recent[1:], newest)))
            p_model = self.recent.mean(0) if self.newest else before
            p_model = p_model / p_model.sum()
            aligned = probs * ((self.eps + p_data) / (self.eps + p_model))
            return aligned / aligned.sum(1, keepdim=True)
