"""What may be wrong with a training: rules over its records, each with the number behind it and the option that helps.

A rule is silent where it cannot be sure: its limits are such that the recipes' own runs pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from fewlabels.report.numbers import Counts, distance, in_use, unjudged
from fewlabels.runs.curves import main_part
from fewlabels.runtime.streams import visible

ENOUGH = 50
"""Pictures below which an accuracy says too little for a rule."""


class Finding(NamedTuple):
    """Something that may be wrong."""

    name: str
    text: str
    """A sentence or two with the number."""
    value: float
    """The number."""
    option: str
    """What may help."""


@dataclass(frozen=True)
class Case:
    """A run as the rules see it."""

    settings: Mapping[str, Any]
    """By dotted name."""
    usual_lr: float | None
    """The learning rate of the recipe for this algorithm and data with the same optimizer."""
    labeled: Sequence[int]
    """Labeled images of each class."""
    unlabeled: int
    finished: bool
    classes: Sequence[str]
    logs: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[Mapping[str, Any]] = ()
    counts: Counts | None = None
    """What the images that are measured on are called, if that is known."""
    pool: Sequence[int] | None = None
    """Of how many unlabeled images each class is said."""
    surplus: float | None = None
    """Mean confidence less accuracy, in percent points, on the images that are measured on."""
    measured: str | None = field(init=False)
    """`test`, `valid`, `train`, or None without an evaluation."""

    def __post_init__(self) -> None:
        part = main_part(self.evaluations[-1]) if self.evaluations else None
        object.__setattr__(self, "measured", part)

    @property
    def done(self) -> int:
        return max((int(r["step"]) for r in (*self.logs, *self.evaluations)), default=0)

    def late(self, name: str, share: float = 0.25) -> float | None:
        """Mean of a logged value over the last `share` of the log points; None where there are fewer than three."""
        values = [float(r[name]) for r in self.logs if isinstance(r.get(name), int | float)]
        if len(values) < 3:
            return None
        return fmean(values[-max(1, round(share * len(values))) :])

    def last(self, part: str | None, weights: str = "ema") -> float | None:
        """Accuracy in percent of the last evaluation."""
        found = self.evaluations[-1].get(part, {}).get(weights) if self.evaluations and part else None
        return None if found is None else float(found["accuracy"])

    def tested(self) -> tuple[float, int] | None:
        """Accuracy in percent on enough images that were not trained on, and how many they are."""
        accuracy, part = self.last(self.measured), self.measured
        if accuracy is None or part is None or part == "train":
            return None
        n = int(self.evaluations[-1][part]["ema"]["n"])
        return (accuracy, n) if n >= ENOUGH else None

    def has(self, name: str) -> bool:
        """Whether the algorithm has an option of that name."""
        return f"algorithm.{name}" in self.settings

    def tau(self) -> float | None:
        value = self.settings.get("algorithm.tau")
        return float(value) if isinstance(value, int | float) else None


def few_in_use(case: Case) -> Finding | None:
    name = in_use(case.logs)
    late = case.late(name) if name else None
    if late is None or late >= 0.05:
        return None
    tau = case.tau()
    how = "more --steps, or learned weights to start from (--net.pretrained)"
    if tau is not None and tau > 0.5:
        how = f"a lower --tau (it is {tau:g}), or {how}"
    text = f"Almost no unlabeled picture counts ({100 * late:.1f} % at the end): it was a training on the labels alone."
    return Finding("few in use", text, late, how)


def all_in_use(case: Case) -> Finding | None:
    name, tested = in_use(case.logs), case.tested()
    late = case.late(name, 0.5) if name else None
    if late is None or tested is None or late < 0.95 or tested[0] >= 90 or 1 - late >= (1 - tested[0] / 100) / 4:
        return None
    tau = case.tau()
    how = "more labels, or a smaller --lambda-u" if case.has("lambda_u") else "more labels"
    if tau is not None and tau < 0.95:
        how = f"a higher --tau (it is {tau:g})"
    text = (
        f"Almost every unlabeled picture counts ({100 * late:.1f} %), but {100 - tested[0]:.1f} % of the answers are "
        "wrong: wrong guesses are learned like right ones."
    )
    return Finding("all in use", text, late, how)


def wrong_guesses(case: Case) -> Finding | None:
    right, sure = case.late("pseudo_accuracy"), case.late("confidence")
    name = in_use(case.logs)
    if right is None or sure is None or (name is not None and (case.late(name) or 0.0) < 0.01):
        return None
    claim = max(100 * sure, 100 * (case.tau() or 0.0) if name is not None else 0.0)
    if right >= claim - 10:
        return None
    text = (
        f"The pseudo-labels are less often right ({right:.1f} %) than the net is sure of them ({claim:.0f} % or more)."
    )
    return Finding("wrong pseudo-labels", text, right, _steadier(case))


def overconfident(case: Case) -> Finding | None:
    tested = case.tested()
    if case.surplus is None or tested is None or case.surplus < 15 or case.late("pseudo_accuracy") is not None:
        return None
    text = (
        f"The net is {case.surplus:.0f} points surer of its answers than they are right "
        f"({tested[0]:.1f} % of {tested[1]} pictures)."
    )
    numbers = "`fewlabels predict --calibrate` for the numbers"
    if case.last("valid") is None:
        numbers = "some labels for validation (--data.valid), by which `fewlabels predict --calibrate` corrects it"
    how = f"{numbers}, and for the guesses {_steadier(case)}"
    return Finding("overconfident", text, case.surplus, how)


def _steadier(case: Case) -> str:
    tau = case.tau()
    first = f"a higher --tau (it is {tau:g}), " if tau is not None and tau < 0.95 else ""
    return f"{first}more labels, or learned weights to start from (--net.pretrained)"


def swallowed(case: Case) -> Finding | None:
    if case.counts is None or case.tested() is None:
        return None
    found = _swallower(case.counts)
    if found is None:
        return None
    c, called, true = found
    name = visible(case.classes[c], lines=False)
    said = f"{100 * called:.0f} % of the pictures are called so, and {100 * true:.0f} % are"
    text = f"The class {name} swallows others: {said}."
    how = "more labels of the classes that are taken for it"
    if case.has("imbalance.name") and max(case.labeled) > 1.5 * max(1, min(case.labeled)):
        how += ", or --imbalance adjust, as they have different numbers of labels"
    elif case.has("missing.name"):
        how += ", or `fewlabels data probe` to see whether their shares differ, and --missing then"
    return Finding("swallowed", text, called, how)


def _swallower(counts: Counts) -> tuple[int, float, float] | None:
    """The class that is called far more often than it is true, and both shares."""
    n = counts.images
    shares = [(c, counts.called[c] / n, counts.true[c] / n) for c in range(counts.classes)]
    c, called, true = max(shares, key=lambda each: each[1] - each[2])
    return (c, called, true) if called - true > 0.15 and called >= 1.8 * true else None


def other_shares(case: Case) -> Finding | None:
    tested, pool = case.tested(), case.pool
    if pool is None or tested is None or tested[0] < 60 or sum(pool) < ENOUGH or case.counts is None:
        return None
    if _swallower(case.counts) is not None or case.settings.get("algorithm.missing.name", "none") != "none":
        return None
    far, own = distance(pool, case.labeled), distance(case.counts.called, case.counts.true)
    noise = 0.4 * sum(math.sqrt(len(pool) / sum(amounts)) for amounts in (pool, case.labeled))
    if far < max(0.25, own + noise):
        return None
    shares = [
        (p / sum(pool), n / sum(case.labeled), c) for c, (p, n) in enumerate(zip(pool, case.labeled, strict=True))
    ]
    said, known, c = max(shares, key=lambda each: abs(each[0] - each[1]))
    text = (
        f"The unlabeled pictures have other shares of the classes than the labels: {100 * far:.0f} % of them would "
        f"have to change their class, most of all {visible(case.classes[c], lines=False)} ({100 * said:.0f} % of the "
        f"answers, {100 * known:.0f} % of the labels)."
    )
    how = "`fewlabels data probe` says whether that is so"
    if case.has("missing.name"):
        how += ", and --missing cap+cai allows for it"
    return Finding("other shares", text, far, how)


def by_heart(case: Case) -> Finding | None:
    tested, train = case.tested(), case.last("train")
    if tested is None or train is None or train - tested[0] < 25 or not case.settings["steps"]:
        return None  # a last layer that is fitted to many features knows its few labels always
    text = (
        f"The labeled pictures are known by heart ({train:.0f} % right), others are not: {tested[0]:.1f} % of "
        f"{tested[1]} are right."
    )
    how = "more labels, learned weights (--net.pretrained), or a smaller --net"
    if case.settings.get("net.train") == "head":
        how = "more labels (`fewlabels label RUN` says of which pictures), or a larger learned net"
    elif case.settings.get("net.pretrained"):
        how = "more labels, or --net.train head, which leaves the learned body as it is"
    return Finding("by heart", text, train - tested[0], how)


def not_learned(case: Case) -> Finding | None:
    loss, raw = case.late("loss_x"), case.last("train", "raw")
    if loss is None or raw is None or raw >= 100 * math.exp(-loss) - 25:
        return None
    text = (
        f"The labeled pictures are learned in training (a loss of {loss:.2f}), and yet only {raw:.0f} % of them are "
        "right when they are evaluated: the running statistics of batch normalisation are not those of the pictures."
    )
    how = "a larger --net.bn-momentum such as 0.1; `fewlabels evaluate RUN --recompute-bn 20` shows whether it is that"
    return Finding("labels not learned", text, raw, how)


def average_lags(case: Case) -> Finding | None:
    ema, raw = case.last(case.measured), case.last(case.measured, "raw")
    if ema is None or raw is None or raw - ema < 10:
        return None
    decay = float(case.settings["ema.decay"])
    text = (
        f"The averaged weights lag behind: they are right in {ema:.1f} %, the net itself in {raw:.1f} %. With a decay "
        f"of {decay:g} they remember some {1 / (1 - decay):.0f} steps of {case.done}."
    )
    return Finding("average lags", text, raw - ema, "--ema.warmup True, a smaller --ema.decay, or more --steps")


def stuck(case: Case) -> Finding | None:
    loss, lr, usual = case.late("loss_x"), float(case.settings["optim.lr"]), case.usual_lr
    guessing = math.log(len(case.classes))
    if loss is None or loss <= 0.9 * guessing or not case.finished:
        return None
    how = "more --steps, or another --optim.lr"
    if usual is not None and not usual / 3 <= lr <= 3 * usual:
        how = f"--optim.lr {usual:g}, which the recipe has (it is {lr:g})"
    text = f"The labels are not learned: their loss is {loss:.2f} at the end, and guessing gives {guessing:.2f}."
    return Finding("stuck", text, loss, how)


def learning_rate(case: Case) -> Finding | None:
    lr, usual = float(case.settings["optim.lr"]), case.usual_lr
    tuned = lr < usual if usual and case.settings.get("net.pretrained") else False  # a learned net may need far less
    if usual is None or usual / 10 < lr < 10 * usual or tuned or not case.settings["steps"]:
        return None
    text = f"The learning rate is {lr:g}, and the recipe for such data has {usual:g}."
    return Finding("learning rate", text, lr, f"--optim.lr {usual:g}")


def batch(case: Case) -> Finding | None:
    size, labels = int(case.settings["batch"]), sum(case.labeled)
    if not case.settings["steps"]:
        return None
    if size < 4:
        text = f"A batch of {size} labeled pictures is too small for steady steps and for batch normalisation."
        return Finding("batch", text, size, "--batch 16 or more")
    if size > 4 * labels:
        text = f"A batch of {size} shows each of the {labels} labeled pictures {size / labels:.0f} times in every step."
        how = f"--batch {max(8, 2 ** round(math.log2(max(labels, 8))))}"
        more = ", and more --uratio" if any("loss_u" in r for r in case.logs) else ""
        return Finding("batch", text, size, how + more)
    return None


def few_steps(case: Case) -> Finding | None:
    if not case.finished or not case.settings["steps"]:
        return None
    seen = case.done * int(case.settings["batch"]) * int(case.settings["uratio"])
    if any("loss_u" in r for r in case.logs) and seen < case.unlabeled:
        share = seen / case.unlabeled
        text = f"The training was over before it had seen the unlabeled pictures once ({100 * share:.0f} % of them)."
        return Finding("few steps", text, share, "more --steps (or a longer --time)")
    part = str(case.measured)
    curve = [float(r[part]["ema"]["accuracy"]) for r in case.evaluations if part in r]
    fifth = max(1, len(curve) // 5)
    if case.tested() is None or len(curve) < 5:
        return None
    before, after = fmean(curve[-2 * fifth : -fifth]), fmean(curve[-fifth:])
    if after - before < 2 or after < max(curve) - 1:
        return None
    text = (
        f"The accuracy was still rising at the end: by {after - before:.1f} points over the last fifth of the training."
    )
    return Finding("few steps", text, after - before, f"more --steps (there were {case.done})")


RULES: tuple[Callable[[Case], Finding | None], ...] = (
    few_in_use,
    all_in_use,
    wrong_guesses,
    overconfident,
    swallowed,
    other_shares,
    by_heart,
    not_learned,
    average_lags,
    stuck,
    learning_rate,
    batch,
    few_steps,
)

BECAUSE: Mapping[str, frozenset[str]] = {
    "few in use": frozenset({"stuck", "batch"}),
    "wrong pseudo-labels": frozenset({"stuck"}),
    "overconfident": frozenset({"stuck", "average lags", "labels not learned", "batch"}),
    "swallowed": frozenset({"stuck", "average lags", "labels not learned", "all in use", "batch"}),
    "few steps": frozenset({"average lags", "labels not learned", "all in use"}),
}
"""Findings that others explain, and which: they are left out then."""


def findings(case: Case) -> list[Finding]:
    """What the rules find, in their order, without what follows from another finding."""
    every = [found for rule in RULES if (found := rule(case)) is not None]
    names = {found.name for found in every}
    return [found for found in every if not names & BECAUSE.get(found.name, frozenset())]


def unseen(case: Case) -> list[str]:
    """What the rules could not look at, and why, a clause each."""
    out = []
    if not case.evaluations:
        out.append("accuracies: there is no evaluation yet")
    elif case.measured == "train":
        out.append("accuracies on other pictures: there are no test or validation pictures")
    elif case.tested() is None:
        out.append(f"accuracies: they are of fewer than {ENOUGH} pictures")
    if case.settings["steps"] and len(case.logs) < 3:
        out.append("the course of the training: there are fewer than 3 log points")
    if case.counts is None:
        out.append("what the classes are taken for: the pictures are not at hand")
    if case.late("pseudo_accuracy") is None and in_use(case.logs) is not None:
        why = unjudged(case.logs) or "they counted at fewer than 3 log points"
        out.append(f"whether the pseudo-labels are right: {why}")
    return out
