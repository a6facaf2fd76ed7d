"""FixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fewlabels.algorithms.base import Algorithm, PseudoLabel
from fewlabels.checked import Checked, Range
from fewlabels.parts import at_least, hard, sharpened, soft
from fewlabels.types import Info


@dataclass(frozen=True, kw_only=True)
class FixMatch(Checked):
    """FixMatch (Sohn et al. 2020), https://arxiv.org/abs/2001.07685.

    What the net believes with confidence about a weak view is the label of the strong view.
    """

    name: ClassVar[str] = "fixmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts."""
    lambda_u: Annotated[float, Range(0)] = 1.0
    """Weight of the unlabeled loss."""
    target: Literal["hard", "soft"] = "hard"
    """Pseudo-label: the most probable class, or the probabilities."""
    temperature: Annotated[float, Range(0, low_open=True)] = 1.0
    """Sharpens what the pseudo-label is made of: with a hard target the confidence compared with `tau`
    (the class stays the same), with a soft one the target (the confidence stays unsharpened)."""

    def build(self, info: Info) -> Algorithm:
        if self.target == "hard":
            align = None if self.temperature == 1 else sharpened(self.temperature)
            return PseudoLabel(align=align, target=hard, select=at_least(self.tau), lambda_u=self.lambda_u)
        return PseudoLabel(target=soft(self.temperature), select=at_least(self.tau), lambda_u=self.lambda_u)
