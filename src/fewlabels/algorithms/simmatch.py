"""SimMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fewlabels.algorithms.alignment import QueueAlignment
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.memory import newest
from fewlabels.algorithms.projection import Projector
from fewlabels.algorithms.slots import Seen, Threshold, probabilities, started
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class SimMatch(Composed):
    """SimMatch (Zheng et al. 2022), https://arxiv.org/abs/2203.06915.

    Which labeled images a weak view looks like is what the strong view is to say, too; these likenesses and the guessed
    classes correct each other.
    """

    name: ClassVar[str] = "simmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    alpha: Annotated[float, Range(0, 1)] = 0.9
    """Share of the net's own guess in the pseudo-label; 1 for no smoothing."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.1
    """Divides the similarities of embeddings."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    lambda_in: Annotated[float, Range(0)] = 1.0
    """Weight of the loss on the likenesses."""
    start: Annotated[int, Range(0)] = 1024
    """Steps before the likenesses are in use."""
    bank_momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.7
    """Weight of the old embedding of a labeled image each time that it is seen (0 on ImageNet)."""
    bank_norm: Literal["embedding", "usb"] = "embedding"
    """Each embedding has norm 1; `usb` divides each of its numbers by their norm over the images of the batch, as USB
    does."""
    width: Annotated[int, Range(1)] = 128
    """Size of an embedding."""
    epass: bool = False
    """Three projectors, whose mean is the embedding (EPASS, Nguyen 2024; on in USB's configurations)."""
    alignment: Literal["usb", "authors"] = "usb"
    """Of the guesses, by the mean of the last batch means; `usb` adds 1e-6 to both class frequencies."""
    align_slots: Annotated[int, Range(1)] = 32
    """How many batch means (256 on ImageNet)."""
    teacher: Literal["student", "ema"] = "student"
    """What guesses and embeds weak and labeled views: the net itself, or its running average (on ImageNet)."""

    def compose(self, info: Info) -> Consistency:
        bank = Bank(self, info)
        return Consistency(
            align=bank,
            target=probabilities,
            select=Threshold(self.tau),
            terms={"loss_in": (self.lambda_in, bank.likeness)},
            lambda_u=self.lambda_u,
            teacher=self.teacher,
            heads={"projector": Projector(info.features, self.width, "relu", self.epass)},
        )


class Bank(nn.Module):
    """Embedding and class of each labeled image, the same on all ranks."""

    embeddings: Tensor
    """``[n, P]``, of norm 1, in random directions at first."""
    labels: Tensor
    """``[n]`` int64; -1, which counts as every class alike, until the image is seen."""

    def __init__(self, config: SimMatch, info: Info) -> None:
        super().__init__()
        self.config, self.steps = config, info.steps
        self.usual = QueueAlignment(info.classes, config.align_slots, 1e-6 if config.alignment == "usb" else 0.0)
        images = int(info.labeled_counts.sum())
        self.register_buffer("embeddings", normalize(torch.randn(images, config.width)))
        self.register_buffer("labels", torch.full((images,), -1))
        self.before = self.wanted = torch.empty(0)
        """Of the step: the embeddings as they were, and ``[M, n]`` how alike a weak view is to each of them."""

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """Align: aligned guesses, smoothed by the likenesses, ``[M, K]``; then the labeled images of the step are
        written."""
        config, project = self.config, seen.teacher.heads["projector"]
        probs = self.usual(seen)
        self.before = self.embeddings.clone()
        alike = (project(seen.weak.features.detach()) @ self.before.T / config.temperature).softmax(1)
        known, classes = self.labels >= 0, self.labels.clamp_min(0)
        wanted = alike * torch.where(known, probs[:, classes], 1 / probs.shape[1])
        self.wanted = wanted / (wanted.sum(1, keepdim=True) + torch.finfo(wanted.dtype).tiny)
        by_class = torch.zeros_like(probs).index_add_(1, classes, torch.where(known, alike, 0.0))
        by_class += torch.where(known, 0.0, alike).sum(1, keepdim=True) / probs.shape[1]
        smoothed = config.alpha * probs + (1 - config.alpha) * by_class
        labeled = seen.labeled[0].features
        self.write(seen, project(labeled if config.teacher == "student" else seen.teacher.features(seen.batch.x[0])))
        return torch.where(started(seen, config.start, self.steps), smoothed, probs)

    def write(self, seen: Seen, labeled: Tensor) -> None:
        """Embeddings ``[B, P]`` of the labeled images; of one that comes twice, the last, each moved from the old."""
        index, y, new = (parallel.gather(x) for x in (seen.batch.labeled_index, seen.batch.y, labeled))
        moved = new.lerp(self.embeddings[index], self.config.bank_momentum)
        moved = normalize(moved, dim=0 if self.config.bank_norm == "usb" else 1)
        last = newest(index, len(self.labels))[index]
        self.embeddings[index], self.labels[index] = moved[last], y[last]

    def likeness(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: cross-entropy of the likenesses of the strong view, 0-d; 0 before the start."""
        strong = seen.net.heads["projector"](seen.strong[0].features)
        losses = cross_entropy(strong @ self.before.T / self.config.temperature, self.wanted)
        return (seen.counts * losses).mean() * started(seen, self.config.start, self.steps)
