"""The step of the consistency family: FixMatch and what differs from it in parts only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.algorithms.base import Algorithm, by_head, log
from fewlabels.algorithms.slots import (
    Divergence,
    Part,
    Seen,
    Slot,
    Term,
    cross_entropy_of_labels,
    cross_entropy_of_views,
    hard,
)
from fewlabels.nets import frozen_statistics
from fewlabels.types import Batch, Findings, Losses, Net, Outputs, Rule, Views

Teacher = Literal["student", "ema", "ema-batch"]
"""Whose pseudo-labels: the net's own, those of its running average in evaluation mode, or of the average with
the statistics of the batch."""

Passes = Literal["joint", "separate-weak"]
"""One forward pass over labeled, weak and strong images, as in the papers; or the weak ones in a pass of their own
without gradient, a third less work. Each pass is normalised with its own batch statistics."""


class Consistency(Algorithm):
    """FixMatch's step (Sohn et al. 2020, section 2.2) with slots, each called with what the net gave (`Seen`).

    ``mean_i labeled_i + lambda_u mean_j select_j unlabeled_j + sum_t weight_t term_t``, where by default
    ``labeled_i = CE(y_i, x_i)`` and ``unlabeled_j = CE(target_j, strong_j)``; the second mean is over all M unlabeled
    images, selected or not. The order of the calls: align, target, select, labeled, unlabeled, terms. A slot that is a
    module is part of the algorithm, and its buffers are saved.

    Args:
        select: weights ``[M]`` of the unlabeled images.
        align: new probabilities ``[M, K]``, before the other slots see them; None leaves them.
        target: pseudo-labels, ``[M]`` int64 or ``[M, K]``.
        labeled: losses ``[B]`` of the labeled images.
        unlabeled: losses ``[M]`` of the unlabeled images, given their targets.
        terms: further losses by the name under which they are logged, each with its weight.
        lambda_u: weight of the unlabeled loss, or a function of the progress (0-d, step / steps) that gives it.
        views: of the unlabeled images the first is guessed about and the others are trained; one alone is both, and
            passes through the net apart from the labeled images, without moving the running statistics.
        teacher: what guesses; with the averaged net, the net itself sees labeled and strong images only.
        bn: whether the weak images share a forward pass with the others; they never do with another teacher.
        heads: what the model is to have beside the net, by name; slots and terms find it in ``seen.net.heads``.
        rule: how the model predicts, from features ``[N, D]`` to logits ``[N, K]``; default: by the net's own head.
        weak_gradient: the setting that needs the gradient of the weak images, as ``CLASS.FIELD VALUE``; None: none
            does, and `Seen.weak` is without gradient. Raises ValueError where `teacher` or `bn` leaves it out.
    """

    on_features = True
    maps = False
    """Whether the joint pass is to give maps, too, where the net has them."""
    selected_by = ""
    """The setting of a part that has taken the place of the method's own `select`."""

    def __init__(
        self,
        *,
        select: Slot,
        align: Slot | None = None,
        target: Slot = hard,
        labeled: Slot = cross_entropy_of_labels,
        unlabeled: Divergence = cross_entropy_of_views,
        terms: Mapping[str, tuple[float, Term]] | None = None,
        lambda_u: float | Callable[[Tensor], Tensor] = 1.0,
        views: Views | None = None,
        teacher: Teacher = "student",
        bn: Passes = "joint",
        heads: Mapping[str, nn.Module] | None = None,
        rule: Rule = by_head,
        weak_gradient: str | None = None,
    ) -> None:
        super().__init__()
        self.views = views or Views(labeled=("weak",), unlabeled=("weak", "strong"))
        self.align, self.target, self.select = align, target, select
        self.labeled, self.unlabeled, self.lambda_u = labeled, unlabeled, lambda_u
        self.terms: dict[str, float] = {}
        for name, (weight, term) in (terms or {}).items():
            self.add(name, weight, term)
        self.teacher, self.bn = teacher, bn
        self.heads, self.rule = dict(heads or {}), rule
        self.weak_gradient = False
        if weak_gradient is not None:
            self.need_weak_gradient(weak_gradient, weak_gradient.split(".")[0])

    def put(self, name: str, slot: Slot | Divergence) -> None:
        """Another slot in place of the one called `name`, which the new one may call."""
        delattr(self, name)  # a module gives way to a function only so
        setattr(self, name, slot)

    def add(self, name: str, weight: float, term: Term) -> None:
        """One term more, logged as `name`."""
        self.terms[name] = weight
        setattr(self, f"term_{name}", term)  # a module is registered by that

    def predict_by(self, name: str, head: nn.Module, rule: Rule, setting: str, owner: str) -> None:
        """The model is to have a further `head` called `name`, and to predict by `rule`, for `setting`. Raises
        ValueError where another one, of the configuration `owner`, has it predict otherwise."""
        if self.rule is not by_head:
            raise ValueError(
                f"{setting} predicts by a head of its own, whose logits are trained as they are, and "
                f"{owner}.loss_temperature {self.loss_temperature:g} trains others: set one of them otherwise"
            )
        self.heads, self.rule = {**self.heads, name: head}, rule

    def need_weak_gradient(self, setting: str, owner: str) -> None:
        """`Seen.weak` is to have its gradient, for `setting`. Raises ValueError where another one, of the
        configuration `owner`, leaves it out."""
        if len(self.views.unlabeled) > 1:
            for field, value, has_it in (("bn", self.bn, "joint"), ("teacher", self.teacher, "student")):
                if value != has_it:
                    raise ValueError(
                        f"{setting} needs the gradient of the weak views, which {owner}.{field} {value} "
                        "leaves out: set one of them otherwise"
                    )
        self.weak_gradient = True

    def forward(self, batch: Batch, net: Net, ema: Net) -> Losses:
        seen = self.see(batch, net, ema)
        if self.align is not None:
            seen = seen._replace(probs=self.align(seen))
        target = self.target(seen)
        mask = self.select(seen)

        loss_x = self.labeled(seen).mean()
        loss_u = (mask * self.unlabeled(seen, target)).mean()
        weight = self.lambda_u(batch.progress) if callable(self.lambda_u) else self.lambda_u
        total = loss_x + weight * loss_u
        terms = {name: getattr(self, f"term_{name}")(seen, target, mask) for name in self.terms}
        for name, value in terms.items():
            assert value.requires_grad or not self.terms[name] or not torch.is_grad_enabled(), (
                f"the term {name} trains nothing; if it is about the weak views, it needs weak_gradient"
            )
            total = total + self.terms[name] * value
        confidence = seen.probs.amax(1).mean()
        logged = {
            "loss": total,
            "loss_x": loss_x,
            "loss_u": loss_u,
            **terms,
            "mask": mask.mean(),
            "confidence": confidence,
        }
        pseudo = target if target.ndim == 1 else target.argmax(1)
        return Losses(total, log(**logged, **seen.log), pseudo=pseudo, kept=mask)

    def see(self, batch: Batch, net: Net, ema: Net) -> Seen:
        """The forward passes of a step."""
        weak, *strong = batch.u
        views, strong = len(strong), [*strong, *self.beside(batch)]
        labeled, teacher = len(batch.x), net if self.teacher == "student" else ema
        if not strong:
            seen = passed(net, batch.x)
            views = 1
            with frozen_statistics(net):
                (guessed,) = trained = passed(net, [weak])
        elif self.teacher == "student" and self.bn == "joint":
            seen = passed(net, [*batch.x, weak, *strong], self.maps)
            guessed, trained = seen[labeled], seen[labeled + 1 :]
        else:
            # a pass of the weak images alone leaves the running statistics of batch normalisation as they are
            frozen = self.teacher != "ema"
            with torch.no_grad(), frozen_statistics(teacher) if frozen else nullcontext():
                (guessed,) = passed(teacher, [weak])
            seen = passed(net, [*batch.x, *strong])
            trained = seen[labeled:]
        trained, further = trained[:views], trained[views:]
        if not self.weak_gradient:
            guessed = Outputs(guessed.features.detach(), guessed.logits.detach())
        probs = guessed.logits.detach().softmax(1)
        counts = probs.new_ones(len(probs))
        outputs = tuple(seen[:labeled]), guessed, tuple(trained)
        return Seen(*outputs, probs, batch, net, teacher, {}, counts, tuple(further), ema)

    def beside(self, batch: Batch) -> list[Tensor]:
        """Further images that pass through the net with the trained views, in groups."""
        return []

    def refresh(self, logits: Tensor) -> None:
        for part in self.parts:
            part.refresh(logits)

    def remarks(self, classes: Sequence[str]) -> list[str]:
        return [sentence for part in self.parts for sentence in part.remarks(classes)]

    def findings(self, classes: Sequence[str]) -> list[Findings]:
        return [found for part in self.parts for found in part.findings(classes)]

    @property
    def parts(self) -> list[Part]:
        return [part for part in self.children() if isinstance(part, Part)]


def passed(net: Net, groups: Sequence[Tensor], maps: bool = False) -> list[Outputs]:
    """Outputs of some groups of images that pass through the net together, with maps if asked for."""
    sizes = [len(group) for group in groups]
    images = groups[0] if len(groups) == 1 else torch.cat(tuple(groups))
    if maps:
        whole = net.maps(images)
        features = whole.mean((2, 3))
    else:
        features = net.features(images)
    logits = net.head(features).float()
    parts = [torch.split(part, sizes) for part in (features, logits, *([whole] if maps else []))]
    return [Outputs(*part) for part in zip(*parts, strict=True)]
