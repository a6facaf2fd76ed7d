"""Unlabeled images of none of the classes, as a part of any algorithm of the consistency family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.functional import familiarity, one_vs_all, otsu, pair_entropy, pairs
from fewlabels.algorithms.slots import Part, Seen, Slot
from fewlabels.runtime import parallel
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.types import Findings, Info

SEPARATED = 0.75
"""Share of the scores' variance that must be between Otsu's two groups: that of equally spread scores. It is 0.64 for
one normal and 0.65 for one exponential distribution, of which Otsu's rule would set aside about a half and a fifth."""

SHOWN = 64
"""Pictures on the contact sheet."""

PAIRS = "pairs"
"""The name of a head of one-vs-all classifiers, ``[N, D] -> [N, 2K]``, for `functional.pairs`."""

OF_OVA = ("weight", "entropy")
"""Options that mean something with `ova` alone."""


def confidence(seen: Seen) -> Tensor:
    """Score: the largest probability, ``[M]``."""
    return seen.weak.logits.softmax(1).amax(1)


def energy(seen: Seen) -> Tensor:
    """Score: minus the free energy, ``[M]``."""
    return familiarity(seen.weak.logits)


def inlier(seen: Seen) -> Tensor:
    """Score: what the one-vs-all classifier of the class that the net predicts says for it, ``[M]``."""
    own = pairs(seen.teacher.heads[PAIRS](seen.weak.features))[:, 1]
    return own.gather(1, seen.weak.logits.argmax(1, keepdim=True))[:, 0]


SCORES: dict[str, Slot] = {"confidence": confidence, "energy": energy, "ova": inlier}
"""By name; a high one is familiar, and none is asked for its gradient."""


def ova_of_labels(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Term: the one-vs-all loss of the labeled images, 0-d."""
    return one_vs_all(seen.net.heads[PAIRS](seen.labeled[0].features), seen.batch.y).mean()


def ova_entropy(seen: Seen, target: Tensor, mask: Tensor) -> Tensor:
    """Term: mean entropy of the one-vs-all classifiers about the weak views, 0-d."""
    return pair_entropy(seen.net.heads[PAIRS](seen.weak.features)).mean()


@dataclass(frozen=True)
class OpenSet(Checked):
    """What to do where unlabeled images may show none of the classes: leave out of the unlabeled loss those whose score
    is low. The score is that of the view that is guessed about, never of a mixed one; a high one is familiar."""

    name: Annotated[Literal["none", "confidence", "energy", "ova"], Main] = "none"
    """Score: `confidence` is the largest probability, `energy` the logarithm of the sum of exp(logits), which is minus
    the free energy of Liu et al. 2020 (https://arxiv.org/abs/2010.03759), `ova` what a one-vs-all classifier says for
    the predicted class, from a head that is trained beside (OpenMatch, Saito et al. 2021,
    https://arxiv.org/abs/2105.14148). All are high for familiar images."""
    _: KW_ONLY
    by: Literal["otsu", "percentile", "value"] | None = None
    """How the threshold is found: where the running scores of all unlabeled images fall into two groups (`otsu`), from
    the scores in the batch (`percentile`), or given (`value`); None: `value` for `ova`, `otsu` for the others."""
    share: Annotated[float, Range(0, 1, high_open=True)] = 0.1
    """`percentile`: share of each batch that is set aside."""
    threshold: Annotated[float | None, Range(-1e6, 1e6)] = None
    """`value`: the score from which an image counts; None: 0.5 for `ova`."""
    use: Literal["mask", "weight"] = "mask"
    """Images below the threshold do not count, or count less: 1 / (1 + exp(-(score - threshold) / deviation)), with the
    standard deviation of the scores in the batch."""
    start: Annotated[float, Range(0, 1)] = 0.2
    """Share of the training before which nothing is set aside, as the scores mean nothing at first."""
    momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.8
    """Weight of the old value in an image's running score, each time that the image is seen; 0: the newest counts."""
    weight: Annotated[float, Range(0)] = 1.0
    """`ova`: weight of the loss of its head on labeled images."""
    entropy: Annotated[float, Range(0)] = 0.1
    """`ova`: weight of the entropy of its head about unlabeled images, which is to fall."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("by", "share", "threshold", "use", "start", "momentum", *OF_OVA):
            value, owner = getattr(self, field), {"share": "percentile", "threshold": "value"}.get(field, self.rule)
            if value == getattr(type(self), field) or (self.name == "none" and value == "otsu"):  # the default of old
                continue
            if self.name == "none" or (field in OF_OVA and self.name != "ova"):
                raise ValueError(f"OpenSet.{field} {value} means nothing with OpenSet.name {self.name}")
            if self.rule != owner:
                raise ValueError(f"OpenSet.{field} {value} means nothing with OpenSet.by {self.rule}")
        if self.rule == "value" and self.limit is None:
            raise ValueError("OpenSet.by value needs OpenSet.threshold, the score from which an image counts")
        if self.name in ("confidence", "ova") and self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(
                f"OpenSet.threshold must be a number from 0 to 1 with OpenSet.name {self.name}, got {self.threshold:g}"
            )

    @property
    def rule(self) -> str:
        """What `by` is, also where it is not given."""
        return self.by or ("value" if self.name == "ova" else "otsu")

    @property
    def limit(self) -> float | None:
        """The threshold of `value`; None where it must be given."""
        return 0.5 if self.threshold is None and self.name == "ova" else self.threshold

    def join(self, step: Consistency, info: Info, owner: str) -> None:
        """Make it part of a step of the algorithm `owner`. Raises ValueError where that cannot be."""
        if self.name == "none":
            return
        if self.name == "ova":
            step.heads = {**step.heads, PAIRS: nn.Linear(info.features, 2 * info.classes, bias=False)}
            step.add("loss_ova", self.weight, ova_of_labels)
            if self.entropy > 0:
                step.need_weak_gradient(f"OpenSet.entropy {self.entropy:g}", owner)
                step.add("loss_oem", self.entropy, ova_entropy)
        self.set_aside(step, info, SCORES[self.name])

    def set_aside(self, step: Consistency, info: Info, score: Slot) -> None:
        """Have the step leave out images by that score, ``[M]`` of the view that is guessed about."""
        step.openset = scores = Scores(self, step.select, info.unlabeled, score)
        step.put("select", scores.select)


class Scores(Part):
    """A running score of each of N unlabeled images, equal on all ranks, and which of them are set aside."""

    score: Tensor
    """``[N]`` float32; NaN until the image is seen."""
    guess: Tensor
    """The class that the net took the image for when it saw it last, ``[N]`` int64; -1 until then."""
    limit: Tensor
    """Scores below it were set aside in the last step, 0-d float32; minus infinity where none was."""
    separation: Tensor
    """Of `otsu` in the last step, 0-d float32."""

    def __init__(self, config: OpenSet, select: Slot, images: int, score: Slot) -> None:
        """score: of the images of a step, ``[M]``; a high one is familiar."""
        super().__init__()
        self.config, self.usual, self.score_of = config, select, score
        self.register_buffer("score", torch.full((images,), torch.nan))
        self.register_buffer("guess", torch.full((images,), -1))
        self.register_buffer("limit", torch.tensor(-torch.inf))
        self.register_buffer("separation", torch.tensor(0.0))

    def select(self, seen: Seen) -> Tensor:
        """Select: the usual weights ``[M]`` times those of `familiar`."""
        usual = self.usual(seen)
        with torch.no_grad():
            seen.counts.mul_(self.familiar(seen))
            return usual * seen.counts

    def familiar(self, seen: Seen) -> Tensor:
        """Weights from 0 (foreign) to 1, ``[M]`` float32, after the running scores have taken in the step's."""
        config, rows = self.config, seen.batch.index
        every = parallel.gather(rows)
        self.take_in(every, parallel.gather(self.score_of(seen)), parallel.gather(seen.weak.logits.argmax(1)))
        own, batch = self.score[rows], self.score[every]

        threshold, usable = self.threshold(batch)
        usable = usable & (seen.batch.progress >= config.start)
        foreign = own < threshold  # not so for NaN
        weights = (~foreign).float()
        if config.use == "weight":
            deviation = batch.std(correction=0)
            weights = torch.where(deviation > 0, ((own - threshold) / deviation).sigmoid(), weights)
        self.limit.copy_(torch.where(usable, threshold, -torch.inf))
        seen.log["foreign"], seen.log["threshold"] = (foreign & usable).float().mean(), threshold.clone()
        if config.rule == "otsu":
            seen.log["separation"] = self.separation.clone()
        return torch.where(usable, weights, 1.0)

    def take_in(self, rows: Tensor, scores: Tensor, guesses: Tensor) -> None:
        """Take the step's scores into the running ones: of the images `rows`, ``[n]``, which may repeat. A score that
        is no finite number changes nothing."""
        count, total = (torch.zeros_like(self.score) for _ in range(2))
        good = scores.isfinite()
        count.index_add_(0, rows, good.float())
        total.index_add_(0, rows, torch.where(good, scores, 0.0))
        fresh = total / count
        moved = torch.where(self.score.isnan(), fresh, self.score.lerp(fresh, 1 - self.config.momentum))
        self.score.copy_(torch.where(count > 0, moved, self.score))
        newest = torch.full_like(self.guess, -1).scatter_reduce_(0, rows, guesses, "amax")  # in no order
        self.guess.copy_(torch.where(newest >= 0, newest, self.guess))

    def threshold(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The score from which an image counts, given those in the batch of all ranks, and whether it can be relied on;
        both 0-d, the first float32 and finite."""
        config = self.config
        if config.rule == "otsu":
            threshold, separation = otsu(self.score)
            self.separation.copy_(separation)
            seen = (~self.score.isnan()).sum() * 2 >= len(self.score)
            return threshold, seen & (self.separation > SEPARATED)
        if config.rule == "percentile":
            below = int(config.share * len(batch) + 1e-9)  # 0.29 * 100 is 28.999...
            threshold = batch.sort().values[below].nan_to_num()
        else:
            assert config.limit is not None
            threshold = torch.full_like(self.limit, config.limit)
        return threshold, torch.ones_like(threshold, dtype=torch.bool)

    def remarks(self, classes: Sequence[str]) -> list[str]:
        config, images = self.config, len(self.score)
        count, known = int((self.score < self.limit).sum()), int((~self.score.isnan()).sum())
        if bool(self.limit > -torch.inf):
            how = f"{config.name} below {float(self.limit):.4g}"
            what = "set aside as foreign" if config.use == "mask" else "below the threshold, and count less"
            note = f"{count:,} of {images:,} unlabeled images were {what} at the end ({how})"
        elif config.rule == "otsu" and 2 * known < images:
            note = (
                f"no unlabeled image was set aside as foreign: {known:,} of {images:,} were seen, and Otsu's rule "
                "needs half of them"
            )
        elif config.rule == "otsu" and not self.separation > SEPARATED:
            note = (
                f"no unlabeled image was set aside as foreign at the end: their {config.name} does not fall into two "
                f"groups (separation {float(self.separation):.2f}, and more than {SEPARATED} is needed)"
            )
        else:
            note = f"no unlabeled image was set aside as foreign: OpenSet.start is {config.start:g}"
        return [f"{note}; foreign.csv has them all, and foreign.png the most foreign ones"]

    def findings(self, classes: Sequence[str]) -> list[Findings]:
        order = self.score.cpu().sort(stable=True).indices  # NaN comes last
        scores, guesses = (values.cpu()[order].tolist() for values in (self.score, self.guess))
        names = [classes[guess] if guess >= 0 else None for guess in guesses]
        aside = (self.score < self.limit).cpu()[order].tolist()
        shown = [None if score != score else f"{score:.9g}" for score in scores]  # all that float32 has
        limit, count = float(self.limit), sum(aside)
        return [
            Findings(
                name="foreign",
                title=f"The most foreign of {len(order):,} unlabeled images ({self.config.name}); {count:,} set aside",
                rows=order,
                columns={"score": shown, "set_aside": ["yes" if a else "no" for a in aside], "class": names},
                captions=[f"{a:.4g} {b}" for a, b in zip(scores[:SHOWN], names[:SHOWN], strict=True) if b is not None],
                result={"set_aside": count, "of": len(order), "threshold": limit if limit > -torch.inf else None},
            )
        ]
