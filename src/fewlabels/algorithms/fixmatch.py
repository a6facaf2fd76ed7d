"""FixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fewlabels.algorithms.base import by_tempered_head
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency, Passes, Teacher
from fewlabels.algorithms.slots import Threshold, hard, sharpened, soft, tempered_labels, tempered_views
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Views


@dataclass(frozen=True, kw_only=True)
class FixMatch(Composed):
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
    loss_temperature: Annotated[float, Range(0, low_open=True)] = 1.0
    """Divides the logits in both losses, and those that the model predicts; what is compared with `tau` has its own
    `temperature` (SWIFT, tian1327/SWIFT, utils/training.py: 0.07 and 0.01 on a pretrained net)."""
    anchoring: Literal["weak.strong", "weak.weak", "strong.weak", "strong.strong"] = "weak.strong"
    """A.B: the view A gives the pseudo-label, and the view B is trained; two draws of the same name differ
    (google-research/fixmatch, ab_fixmatch_anchoring.py)."""
    teacher: Teacher = "student"
    """Whose pseudo-labels: the net's own, or those of its running average, in evaluation mode (`ema`) or with
    the statistics of the batch (`ema-batch`); google-research/fixmatch, ab_fixmatch_meanteacher*.py."""
    bn: Passes = "joint"
    """One forward pass for all images, or one of its own, without gradient, for the weak ones: 1.4 times less work
    (only with the teacher `student`)."""

    def compose(self, info: Info) -> Consistency:
        owner = type(self).__name__
        if self.bn == "separate-weak" and self.teacher != "student":
            raise ValueError(
                f"{owner}.bn separate-weak is about the net's own pseudo-labels, and {owner}.teacher {self.teacher} "
                "gives others, in a pass of their own: set one of them otherwise"
            )
        first, second = self.anchoring.split(".")
        sharp = self.target == "hard" and self.temperature != 1
        step = Consistency(
            labeled=tempered_labels(self.loss_temperature),
            unlabeled=tempered_views(self.loss_temperature),
            rule=by_tempered_head(self.loss_temperature),
            align=sharpened(self.temperature) if sharp else None,
            target=hard if self.target == "hard" else soft(self.temperature),
            select=Threshold(self.tau),
            lambda_u=self.lambda_u,
            views=Views(unlabeled=(first, second)),
            teacher=self.teacher,
            bn=self.bn,
        )
        step.loss_temperature = self.loss_temperature
        return step
