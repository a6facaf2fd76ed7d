"""Classes with few labels, as a part of any algorithm of the consistency family."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from fewlabels.algorithms.adsh import Adaptive
from fewlabels.algorithms.balanced import Balanced
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.cossl import CoLearned
from fewlabels.algorithms.crest import Progressive
from fewlabels.algorithms.darp import Refined
from fewlabels.algorithms.daso import Semantic
from fewlabels.algorithms.debiased import Debiased
from fewlabels.algorithms.saw import Smoothed
from fewlabels.algorithms.slots import Part, Seen, Slot, Threshold
from fewlabels.algorithms.tras import Transferred
from fewlabels.runtime.checked import Checked, Range
from fewlabels.runtime.fields import Main
from fewlabels.types import Info

USERS: dict[str, tuple[str, ...]] = {
    "strength": ("adjust", "reweight", "crest"),
    "scale": ("reweight",),
    "tau": ("abc", "tras", "adsh"),
    "weight": ("abc", "daso", "tras", "cossl"),
    "target": ("abc",),
    "masks": ("abc",),
    "reach": ("abc",),
    "margin": ("debiased",),
    "momentum": ("debiased", "crest"),
    "start": ("darp", "daso", "tras", "cossl"),
    "every": ("darp", "daso", "saw", "adsh"),
    "alpha": ("darp",),
    "iterations": ("darp",),
    "shares": ("darp", "crest"),
    "queue": ("daso",),
    "temperature": ("daso",),
    "blend": ("daso",),
    "least": ("cossl",),
}
"""Which parts an option means something with."""

START = {"darp": 0.4, "daso": 0.02, "tras": 0.02, "cossl": 0.8}
"""Share of the training, as in the authors' code: 200 of 500 epochs, 5,000 of 250,000 steps, 10 and 400 of 500
epochs."""
EVERY = {"darp": 10, "daso": 100}
"""Steps, as in the authors' code."""
EPOCH, LOOKS = 1024, 20
"""Steps between two looks at all unlabeled images, as in USB; and how many looks a shorter training has at least."""


@dataclass(frozen=True)
class Imbalance(Checked):
    """What to do where some classes have more labels than others and all are to be predicted alike."""

    name: Annotated[
        Literal[
            "none", "adjust", "reweight", "abc", "darp", "daso", "debiased", "saw", "tras", "adsh", "cossl", "crest"
        ],
        Main,
    ] = "none"
    """`adjust` trains with logits that are raised by the logarithm of the class's share of the labels (logit
    adjustment, Menon et al. 2021, https://arxiv.org/abs/2007.07314, equation 10; the net learns what is left, and
    predicts without them); `reweight` multiplies the loss of a labeled image by one over that share. The others are
    about unlabeled images as well: `abc`, `tras` and `cossl` predict by a second head for rare classes, `darp`, `daso`,
    `debiased` and `crest` change the guesses, `saw` weighs the losses, `adsh` has a threshold for each class."""
    _: KW_ONLY
    strength: Annotated[float, Range(0)] = 1.0
    """`adjust`, `reweight`: factor of the logarithms, or power of the weights: 0 changes nothing. `crest`: power of the
    shares that guesses are aligned with, 0 for equal ones; with --generations that of the first."""
    scale: Literal["mean", "largest"] = "mean"
    """`reweight`: the weights are 1 on average over the labeled images, or 1 for the largest class and more for all
    others, as in JoyHuYY1412/CADR-FixMatch."""
    tau: Annotated[float | None, Range(0, 1)] = None
    """`abc`, `tras`, `adsh`: the confidence from which a guess of the second head counts, or the highest threshold of
    any class; None: the method's, if it has one for all classes, else 0.95."""
    weight: Annotated[float, Range(0)] = 1.0
    """`abc`, `daso`, `tras`, `cossl`: weight of the loss that the part adds."""
    target: Literal["soft", "hard"] = "soft"
    """`abc`: what the second head learns of unlabeled images, its probabilities as in the authors' code, or the most
    probable class as in USB's."""
    masks: Literal["sampled", "expected"] = "sampled"
    """`abc`: images count by chance, as in the paper; or all of them do, with that chance for a weight."""
    reach: Literal["body", "head"] = "body"
    """`abc`: how far the loss of the second head goes back: through the whole net, or through that head alone."""
    margin: Annotated[float, Range(0)] = 0.4
    """`debiased`: factor of the logarithm of what the net says on average; 0 changes nothing."""
    momentum: Annotated[float, Range(0, 1, high_open=True)] = 0.999
    """`debiased`, `crest`: weight of the old average in each step."""
    start: Annotated[float | None, Range(0, 1)] = None
    """`darp`, `daso`, `tras`, `cossl`: share of the training before which guesses are the net's own, or are not learned
    by the second head; None: 0.4 for `darp`, 0.8 for `cossl`, 0.02 for the others."""
    every: Annotated[int | None, Range(1)] = None
    """Steps from one look at all unlabeled images to the next (`saw`, `adsh`), from one refinement of all guesses to
    the next (`darp`), or in which guesses are counted together (`daso`); None: 1024, but 20 times at least in a
    training, for `saw` and `adsh`, 10 for `darp`, 100 for `daso`."""
    alpha: Annotated[float, Range(0, None, low_open=True)] = 2.0
    """`darp`: images of a class that are not taken for noise, in units of its wanted number."""
    iterations: Annotated[int, Range(1)] = 10
    """`darp`: of each refinement."""
    shares: tuple[Annotated[float, Range(0)], ...] = ()
    """`darp`, `crest`: wanted shares of the classes among the unlabeled images, in any unit; default: those of the
    labels, without what `split --tail` added."""
    queue: Annotated[int, Range(1)] = 256
    """`daso`: labeled images of each class whose features are kept."""
    temperature: Annotated[float, Range(0, None, low_open=True)] = 0.05
    """`daso`: divides the cosines of features."""
    blend: Annotated[float, Range(0, None, low_open=True)] = 0.3
    """`daso`: the higher, the more the guesses of rare classes are mixed, too (1.5 in the authors' settings for
    CIFAR-10 with unlabeled images like the labeled ones)."""
    least: Annotated[float, Range(0, 1)] = 0.6
    """`cossl`: the least share of a labeled image's own feature where it is blended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, names in USERS.items():
            value = getattr(self, field)
            if value != getattr(type(self), field) and self.name not in names:
                shown = f"{value:g}" if isinstance(value, float) else value
                raise ValueError(f"Imbalance.{field} {shown} means nothing with Imbalance.name {self.name}")

    def join(self, step: Consistency, info: Info, owner: str) -> None:
        """Make it part of a step of the algorithm `owner`. Raises ValueError where that cannot be."""
        if self.name == "none":
            return
        tau = 0.95 if self.tau is None else self.tau
        if self.tau is None and isinstance(step.select, Threshold):
            tau = step.select.tau
        counts = info.labeled_counts.clamp_min(1)
        start = round(info.steps * (START.get(self.name, 0) if self.start is None else self.start))
        every = self.every or EVERY.get(self.name) or max(1, min(EPOCH, info.steps // LOOKS))
        part: Part
        match self.name:
            case "adjust" | "reweight":
                part = Balance(self, step.labeled, info.labeled_counts)
                step.put("labeled", part.labeled)
            case "abc":
                part = Balanced(counts, tau, self.target, self.masks, self.reach)
                part.join(step, info, self.weight, owner)
            case "darp":
                part = Refined(step.align, self.goal(info), start, every, self.alpha, self.iterations)
                part.join(step)
            case "daso":
                part = Semantic(step, info, self.queue, self.temperature, self.blend, start, every)
                part.join(step, self.weight)
            case "debiased":
                part = Debiased(step, info.classes, self.margin, self.momentum)
                part.join(step)
            case "saw":
                part = Smoothed(step, counts)
                part.join(step, every)
            case "tras":
                part = Transferred(step, counts, info, tau, start)
                part.join(step, info, self.weight, owner)
            case "cossl":
                part = CoLearned(step, counts, info, self.least, start)
                part.join(step, info, self.weight, owner)
            case "crest":
                part = Progressive(step, self.goal(info), self.strength, self.momentum)
                part.join(step)
            case "adsh":
                part = Adaptive(counts, tau)
                part.join(step, every, owner)
        step.imbalance = part

    def goal(self, info: Info) -> Tensor:
        """Wanted images of each class among the unlabeled ones, ``[K]`` float64."""
        if self.shares and (len(self.shares) != info.classes or sum(self.shares) == 0):
            raise ValueError(
                f"Imbalance.shares must have a share for each of the {info.classes} classes, not all of them 0, got "
                f"{self.shares}"
            )
        counts = info.labeled_counts if info.own_counts is None else info.own_counts
        shares = torch.tensor(self.shares).double() if self.shares else counts.clamp_min(1).double()
        return shares / shares.sum() * info.unlabeled


class Balance(Part):
    """What is known of the classes beforehand; no state."""

    by_class: Tensor
    """Added to the logits (`adjust`) or factor of the loss (`reweight`), ``[K]`` float32."""

    def __init__(self, config: Imbalance, usual: Slot, counts: Tensor) -> None:
        """counts: labeled images of each class, ``[K]``; a class without any counts as if it had one."""
        super().__init__()
        self.config, self.usual = config, usual
        counts = counts.double().clamp_min(1)
        if config.name == "adjust":
            by_class = config.strength * (counts / counts.sum()).log()
        else:
            by_class = (counts.amax() / counts) ** config.strength
            if config.scale == "mean":
                by_class = by_class * counts.sum() / (by_class * counts).sum()
        self.register_buffer("by_class", by_class.float(), persistent=False)

    def labeled(self, seen: Seen) -> Tensor:
        """Labeled: the usual losses, of adjusted logits or times the weight of each image's class, ``[B]``."""
        if self.config.name == "reweight":
            return self.by_class[seen.batch.y] * self.usual(seen)
        views = tuple(view._replace(logits=view.logits + self.by_class) for view in seen.labeled)
        return self.usual(seen._replace(labeled=views))
