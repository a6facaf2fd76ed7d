"""DeFixMatch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from fewlabels.algorithms.composed import Guided
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import cross_entropy
from fewlabels.algorithms.slots import Seen, Threshold, cross_entropy_of_labeled_views
from fewlabels.runtime.checked import Range
from fewlabels.types import Info, Views


@dataclass(frozen=True, kw_only=True)
class DeFixMatch(Guided):
    """DeFixMatch (Schmutz et al. 2023), https://arxiv.org/abs/2203.07512.

    FixMatch less what its unlabeled loss is on the labeled images, so that the estimate of the risk is unbiased.
    """

    name: ClassVar[str] = "defixmatch"

    tau: Annotated[float, Range(0, 1)] = 0.95
    """Confidence from which a pseudo-label counts, of labeled images too."""
    lambda_u: Annotated[float, Range(0)] = 0.5
    """Weight of the unlabeled loss, and of what is subtracted."""

    def compose(self, info: Info) -> Consistency:
        sure = Threshold(self.tau)
        step = self.guided(
            select=lambda seen: sure(seen),  # of labeled and unlabeled images alike: no part may change one of them
            labeled=cross_entropy_of_labeled_views,
            views=Views(labeled=("weak", "strong")),
        )
        usual = step.target

        def subtracted(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
            """Term: the unlabeled loss of the labeled images, 0-d."""
            weak, strong = seen.labeled
            guessed = seen._replace(probs=weak.logits.detach().softmax(1))
            mask_x = sure(guessed)
            seen.log["mask_x"] = mask_x.mean()
            return (mask_x * cross_entropy(strong.logits, usual(guessed))).mean()

        step.add("loss_a", -self.lambda_u, subtracted)
        return step
