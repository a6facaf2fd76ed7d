"""Methods of the consistency family in a few lines each, with what none of the package needs yet: further heads, a
memory, two strong views, a gradient through the weak views. In the manner of the papers that they name, and shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from fewlabels.algorithms import Algorithm
from fewlabels.algorithms.consistency import Consistency, Passes, Teacher
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.memory import Ring
from fewlabels.algorithms.slots import Seen, Threshold
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Info, Net, Views


@dataclass(frozen=True, kw_only=True)
class Contrast(Checked):
    """A projection head, a memory of projections that smooths the guesses, and two strong views that are to be alike
    where their guesses are (CoMatch, Li et al. 2021, https://arxiv.org/abs/2011.11183)."""

    name: ClassVar[str] = "contrast"

    tau: Annotated[float, Range(0, 1)] = 0.6
    """Confidence from which a guess counts."""
    size: Annotated[int, Range(1)] = 20
    """Images in the memory."""

    def build(self, info: Info) -> Algorithm:
        memory = Memory(self.size, info.classes, width=4)
        return Consistency(
            align=memory,
            select=Threshold(self.tau),
            terms={"contrast": (0.5, memory.contrast)},
            views=Views(unlabeled=("weak", "strong", "strong")),
            heads={"projection": nn.Linear(info.features, 4)},
        )


class Memory(nn.Module):
    """The projections of the last images and what they were taken for; over all ranks."""

    def __init__(self, size: int, classes: int, width: int, share: float = 0.7, heat: float = 0.5) -> None:
        super().__init__()
        self.share, self.heat = share, heat
        self.last = Ring(size, keys=torch.zeros(width), values=torch.full((classes,), 1 / classes))

    def forward(self, seen: Seen) -> Tensor:
        """Align: guesses nearer to those of the images in the memory that look alike, ``[M, K]``; read, not written."""
        with torch.no_grad():
            near = (projected(seen.teacher, seen.weak.features) @ self.last.rows("keys").T / self.heat).softmax(1)
            return self.share * seen.probs + (1 - self.share) * near @ self.last.rows("values")

    def contrast(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        """Term: an image of the first strong view is to find those of the second that have its guess. Then the weak
        images enter the memory."""
        first, second = (projected(seen.net, view.features) for view in seen.strong)
        everyone, probs = parallel.gather(second.detach()), parallel.gather(seen.probs)
        alike = seen.probs @ probs.T
        loss = cross_entropy(first @ everyone.T / self.heat, alike / alike.sum(1, keepdim=True)).mean()
        self.last.write(keys=projected(seen.teacher, seen.weak.features), values=seen.probs)
        return loss


def projected(net: Net, features: Tensor) -> Tensor:
    """On the sphere, ``[N, D] -> [N, P]``."""
    return nn.functional.normalize(net.heads["projection"](features))


@dataclass(frozen=True, kw_only=True)
class Prior(Checked):
    """The mean guess is to agree with the known shares of the classes: ``-log sum_k prior_k mean_j p_jk``, with
    gradient through the weak views (in the manner of CADR's CAP, Hu et al. 2022)."""

    name: ClassVar[str] = "prior"

    weight: Annotated[float, Range(0)] = 1.0
    """Weight of the term."""
    bn: Passes = "joint"
    teacher: Teacher = "student"

    def build(self, info: Info) -> Algorithm:
        prior = info.labeled_counts / info.labeled_counts.sum()
        return Consistency(
            select=Threshold(0.5),
            terms={"prior": (self.weight, Agreement(prior))},
            weak_gradient=f"Prior.weight {self.weight:g}",
            bn=self.bn,
            teacher=self.teacher,
        )


class Agreement(nn.Module):
    prior: Tensor
    """``[K]``."""

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.register_buffer("prior", prior)

    def forward(self, seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
        return -(seen.weak.logits.softmax(1).mean(0) @ self.prior).log()
