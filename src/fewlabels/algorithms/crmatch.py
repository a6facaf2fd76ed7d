"""CRMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.slots import Seen, Threshold
from fewlabels.runtime.checked import Range
from fewlabels.types import Batch, Info, Outputs


@dataclass(frozen=True, kw_only=True)
class CRMatch(Composed):
    """CRMatch (Fan et al. 2021), https://arxiv.org/abs/2112.05825.

    FixMatch where the features of the weak and the strong view of an image are pushed apart, though their class is the
    same; and the net is to tell by how much an image was turned.
    """

    name: ClassVar[str] = "crmatch"
    on_maps: ClassVar[bool] = True

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    w_distance: Annotated[float, Range(0)] = 1.0
    """Weight of the likeness of the features of both views, which is to fall."""
    w_rotation: Annotated[float, Range(0)] = 1.0
    """Weight of the rotation loss; 0 for no rotation head."""

    def compose(self, info: Info) -> Consistency:
        _, height, width = info.shape
        if self.w_rotation > 0 and height != width:
            raise ValueError(
                f"CRMatch turns images by 90 degrees and needs square ones, got {height} x {width}; "
                "resize them, or set w_rotation to 0"
            )
        d, (h, w) = info.features, info.maps or (1, 1)
        heads: dict[str, nn.Module] = {}
        terms = {}
        if self.w_distance > 0:
            heads["distance"] = nn.Linear(d * h * w, d)
            terms["loss_distance"] = (self.w_distance, distance)
        if self.w_rotation > 0:
            heads["rotation"] = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 4))
            terms["loss_rot"] = (self.w_rotation, rotation)
        step = Turned(
            select=Threshold(self.tau),
            terms=terms,
            lambda_u=self.lambda_u,
            heads=heads,
            weak_gradient=f"CRMatch.w_distance {self.w_distance:g}" if self.w_distance > 0 else None,
        )
        step.maps = info.maps is not None and self.w_distance > 0
        step.every = info.unlabeled_batch // info.batch if self.w_rotation > 0 else 0
        return step


class Turned(Consistency):
    """The step with turned images beside the views: as many weak views as there are labeled images, four times each."""

    on_features = False
    every = 0
    """Which weak views are turned, each one of so many; 0 for none."""

    def beside(self, batch: Batch) -> list[Tensor]:
        if not self.every:
            return []
        images = batch.u[0][:: self.every][: len(batch.y)]
        return [torch.cat([torch.rot90(images, k, (2, 3)) for k in range(4)])]


def rotation(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Term: mean cross-entropy of the four rotations, 0-d."""
    (turned,) = seen.further
    logits = seen.net.heads["rotation"](turned.features).float()
    by = torch.arange(4, device=logits.device).repeat_interleave(len(logits) // 4)
    return cross_entropy(logits, by).mean()


def distance(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Term: likeness of the weak and the strong view of the images with a pseudo-label, ``max(0, cosine)``, mean over
    all; with gradient through both, 0-d."""
    return (mask * cosine(*(embedded(seen, view) for view in (seen.weak, seen.strong[0]))).clamp(min=0)).mean()


def embedded(seen: Seen, view: Outputs) -> Tensor:
    """What the distance head makes of the map of each image, or of its feature where there is none, ``[N, D]``."""
    embeddings: Tensor = seen.net.heads["distance"]((view.features if view.maps is None else view.maps).flatten(1))
    return embeddings.float()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """``a . b / sqrt((|a|^2 + 1e-12) (|b|^2 + 1e-12))`` of the rows ``[N, D]``, ``[N]``."""
    norms = [x.square().sum(1) + 1e-12 for x in (a, b)]
    return (a * b).sum(1) / (norms[0] * norms[1]).sqrt()
