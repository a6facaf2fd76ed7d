"""What the settings of every algorithm of the consistency family have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fewlabels.algorithms.consistency import Consistency, Passes
from fewlabels.algorithms.imbalance import Imbalance
from fewlabels.algorithms.missing import Missing
from fewlabels.algorithms.openset import OpenSet
from fewlabels.algorithms.slots import hard, soft
from fewlabels.runtime.checked import Checked, Range
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class Composed(Checked):
    """Settings of an algorithm that is a `Consistency` step, with the parts that any of them takes.

    A part answers a question about the data. Its settings have a `name`, "none" by default, and a method
    ``join(step, info, owner)`` that changes the slots of the step, or says why it cannot.
    """

    imbalance: Imbalance = Imbalance()  # noqa: RUF009  (frozen)
    """Classes with more labels than others."""
    missing: Missing = Missing()  # noqa: RUF009  (frozen)
    """Labels that are missing not at random."""
    openset: OpenSet = OpenSet()  # noqa: RUF009  (frozen)
    """Unlabeled images of none of the classes."""

    def compose(self, info: Info) -> Consistency:
        """The step without the parts."""
        raise NotImplementedError

    def build(self, info: Info) -> Consistency:
        """The step with the parts. Raises ValueError for those that do not go together."""
        step = self.compose(info)
        # missing sees the logits as they are, and what openset sets aside counts under no weights of another part
        for part in (self.imbalance, self.missing, self.openset):
            part.join(step, info, type(self).__name__)
        return step


@dataclass(frozen=True, kw_only=True)
class Guided(Composed):
    """Settings of a step in which what the net says about a weak view is the label of the strong view."""

    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    target: Literal["hard", "soft"] = "hard"
    """Pseudo-label: the most probable class, or the probabilities."""
    temperature: Annotated[float, Range(0, low_open=True)] = 0.5
    """Sharpens a soft target; nothing else."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work."""

    def guided(self, kind: type[Consistency] = Consistency, **slots: Any) -> Consistency:
        """The step of a kind with these settings, and with the given arguments of `Consistency`."""
        usual: dict[str, Any] = {
            "target": hard if self.target == "hard" else soft(self.temperature),
            "lambda_u": self.lambda_u,
            "bn": self.bn,
        }
        return kind(**usual | slots)
