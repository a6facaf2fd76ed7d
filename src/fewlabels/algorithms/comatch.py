"""CoMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.alignment import QueueAlignment
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.functional import cross_entropy, one_hot
from fewlabels.algorithms.memory import Ring
from fewlabels.algorithms.projection import Projector
from fewlabels.algorithms.slots import Seen, Threshold, probabilities, started
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Views


@dataclass(frozen=True, kw_only=True)
class CoMatch(Composed):
    """CoMatch (Li et al. 2021), https://arxiv.org/abs/2011.11183.

    Pseudo-labels are smoothed over a memory of images that look alike, and how alike they are is what the embeddings of
    two strong views are to say, too.
    """

    name: ClassVar[str] = "comatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    tau_graph: Annotated[float, Range(0, 1)] = 0.8
    """Likeness of two pseudo-labels from which their images are to look alike."""
    alpha: Annotated[float, Range(0, 1)] = 0.9
    """Share of the net's own guess in the pseudo-label; 1 for no smoothing."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.2
    """Divides the similarities of embeddings."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    lambda_c: Annotated[float, Range(0)] = 1.0
    """Weight of the contrastive loss."""
    queue_batches: Annotated[int, Range(1)] = 5
    """Steps whose labeled and unlabeled images are in the memory."""
    start: Annotated[int | None, Range(0)] = None
    """Steps before the smoothing; None: one more than `queue_batches` (USB: 1024)."""
    width: Annotated[int, Range(1)] = 64
    """Size of an embedding."""
    activation: Literal["leaky-relu", "relu"] = "leaky-relu"
    """In the projector (USB: `relu`)."""
    epass: bool = False
    """Three projectors, whose mean is the embedding (EPASS, Nguyen 2024; on in USB's configurations)."""
    alignment: Literal["authors", "usb"] = "authors"
    """Of the guesses, by the mean of the last batch means; `usb` adds 1e-6 to both class frequencies."""
    align_slots: Annotated[int, Range(1)] = 32
    """How many batch means."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.3 times less work."""

    def compose(self, info: Info) -> Consistency:
        memory = Memory(self, info)
        return Consistency(
            align=memory,
            target=probabilities,
            select=Threshold(self.tau),
            unlabeled=lambda seen, target: cross_entropy(seen.strong[0].logits, target),
            terms={"loss_c": (self.lambda_c, memory.contrast)},
            lambda_u=self.lambda_u,
            views=Views(unlabeled=("weak", "strong", "strong")),
            bn=self.bn,
            heads={"projector": Projector(info.features, self.width, self.activation, self.epass)},
        )


class Memory(nn.Module):
    """Embeddings and probabilities of the last images, of all ranks."""

    def __init__(self, config: CoMatch, info: Info) -> None:
        super().__init__()
        self.config, self.steps = config, info.steps
        self.start = config.queue_batches + 1 if config.start is None else config.start
        self.usual = QueueAlignment(info.classes, config.align_slots, 1e-6 if config.alignment == "usb" else 0.0)
        size = config.queue_batches * (info.unlabeled_batch + info.batch)
        self.last = Ring(size, features=torch.zeros(config.width), probs=torch.zeros(info.classes))

    @torch.no_grad()
    def forward(self, seen: Seen) -> Tensor:
        """Align: aligned guesses, smoothed over the memory, ``[M, K]``; then the images of the step enter it."""
        project, alpha = seen.teacher.heads["projector"], self.config.alpha
        probs, weak = self.usual(seen), project(seen.weak.features.detach())
        near = (weak @ self.last.rows("features").T / self.config.temperature).softmax(1)
        smoothed = alpha * probs + (1 - alpha) * near @ self.last.rows("probs")
        labeled = project(seen.labeled[0].features.detach())
        self.last.write(features=weak, probs=probs)
        self.last.write(features=labeled, probs=one_hot(seen.batch.y, probs.shape[1]))
        return torch.where(started(seen, self.start, self.steps), smoothed, probs)

    def contrast(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: the first strong view of an image is to find, among the second ones of all ranks, those whose
        pseudo-labels are like its own; 0-d."""
        first, second = (seen.net.heads["projector"](view.features) for view in seen.strong)
        own, start = len(first), parallel.rank() * len(first)
        alike = seen.probs @ parallel.gather(seen.probs).T
        itself = torch.eye(alike.shape[1], device=alike.device)[start : start + own]
        graph = torch.where(alike >= self.config.tau_graph, alike, 0.0).where(itself == 0, 1.0)
        found = (first @ parallel.joined(second).T / self.config.temperature).softmax(1)
        losses: Tensor = -(graph / graph.sum(1, keepdim=True) * (found + 1e-7).log()).sum(1)
        return (seen.counts * losses).mean()
