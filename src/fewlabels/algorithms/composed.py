"""What the settings of every algorithm of the consistency family have in common."""

from __future__ import annotations

from dataclasses import dataclass

from fewlabels.algorithms.base import Algorithm
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.imbalance import Imbalance
from fewlabels.algorithms.missing import Missing
from fewlabels.algorithms.openset import OpenSet
from fewlabels.runtime.checked import Checked
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

    def build(self, info: Info) -> Algorithm:
        """The step with the parts. Raises ValueError for those that do not go together."""
        step = self.compose(info)
        # missing sees the logits as they are, and what openset sets aside counts under no weights of another part
        for part in (self.imbalance, self.missing, self.openset):
            part.join(step, info, type(self).__name__)
        return step
