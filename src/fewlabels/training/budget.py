"""As many steps as fit into a time: `--time`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fewlabels.config.plain import difference
from fewlabels.config.settings import Train, algorithm_name
from fewlabels.config.usual import RAMPS
from fewlabels.runtime.words import about
from fewlabels.training.pace import Pace, speed

AIM = 0.97
"""Share of the time that is planned for: what a machine does besides is not known."""

LEAST = 10
"""Steps; fewer are no training."""

MOST = 10**11
"""Steps, as many as no machine takes."""

EVALUATIONS, SAVES, LOGS = 10, 5, 20
"""About how often the training shall evaluate, save and log where the settings say less; that costs no more than a
quarter of the time."""


class Budget(NamedTuple):
    """A time that a training shall end within, from when its data have been read, and the features of a body that does
    not learn have been computed."""

    seconds: float
    given: frozenset[str] = frozenset()
    """Settings by dotted name that stay as they are, whatever the number of steps."""
    arguments: bool = False
    """Call settings as Python's arguments, not as options of the command."""

    def check(self, config: Train) -> None:
        """Raises ValueError for an algorithm that takes no steps, so that there is nothing to choose."""
        if config.fits:
            raise ValueError(
                f"a time cannot be kept with {algorithm_name(config.algorithm)}, which takes no steps: it is through "
                "when the features of all images are computed"
            )


def fit(config: Train, paces: Sequence[Pace], budget: Budget, spent: float = 0.0) -> Train:
    """`config` with as many steps as fit, and what goes by their number: ramps, warm-up, evaluations, checkpoints.

    Args:
        paces: of the training, and of each other one with the same steps (its baseline) that shares the time.
        spent: seconds of the budget that are gone already.

    Raises ValueError where the time does not suffice for `LEAST` steps.
    """
    left = AIM * budget.seconds - spent

    def seconds(trial: Train) -> float:
        return sum(pace.seconds(trial.steps, trial.eval_every, trial.save_every) for pace in paces)

    def trial(steps: int) -> Train:
        return with_steps(config, steps, paces, left, budget.given)

    least = with_steps(config, LEAST, paces, 0.0, budget.given)
    if seconds(least) > left:
        needed = about((spent + seconds(least)) / AIM)
        raise ValueError(
            f"a time of {about(budget.seconds)} is too short: the least, {LEAST} steps and an evaluation, takes about "
            f"{needed} here{' with the baseline' if len(paces) > 1 else ''}"
        )
    low, high = LEAST, 2 * LEAST
    while high < MOST and seconds(trial(high)) <= left:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(trial(middle)) <= left else (low, middle)
    found = trial(low)
    return found if seconds(found) <= left else least


def with_steps(config: Train, steps: int, paces: Sequence[Pace], seconds: float, given: frozenset[str]) -> Train:
    """`config` with another number of steps, in `seconds`; the settings that are `given` stay as they are.

    Ramps that a recipe has as a share of the steps keep it, and none is longer than that; the warm-up of the learning
    rate takes a tenth of the steps at most; evaluations, checkpoints and log points are as often as before, or oftener
    where there would be too few.
    """
    new: dict[str, Any] = {"steps": steps}
    for name, times, cost in (
        ("eval_every", EVALUATIONS, sum(pace.evaluation + pace.save for pace in paces)),
        ("save_every", SAVES, sum(pace.save for pace in paces)),
        ("log_every", LOGS, 0.0),
    ):
        affordable = max(1, int(seconds / 4 / cost)) if cost > 0 else times
        if name not in given:
            new[name] = min(getattr(config, name), -(-steps // min(times, affordable)))
    if "optim.warmup" not in given:
        new["optim"] = replace(config.optim, warmup=min(config.optim.warmup, steps // 10))
    option, share = RAMPS.get(algorithm_name(config.algorithm), ("", 0.0))
    if option and option not in given:
        algorithm: Any = config.algorithm
        old, whole = getattr(algorithm, option), max(1, int(share * steps))
        length = whole if old == int(share * config.steps) else min(old, whole)
        new["algorithm"] = replace(algorithm, **{option: length})
    return replace(config, **new)


def said(config: Train, before: Train, paces: Sequence[Pace], budget: Budget) -> str:
    """What the time has come to, with the options that repeat it without a clock."""
    pace, *others = paces
    whole = sum(one.seconds(config.steps, config.eval_every, config.save_every) for one in paces)
    both = f" ({speed(others[0].step)} of the baseline, which shares the time)" if others else ""
    options = " ".join(_options(difference(config, before)))
    again = f"steps={config.steps} in place of time repeats" if budget.arguments else ""
    return (
        f"{config.steps:,} steps fit into {about(budget.seconds)}: about {about(whole)} from here at {speed(pace.step)}"
        f"{both}; {again or f'in place of --time, {options} repeat'} the run"
    )


def _options(changes: Mapping[str, Any]) -> list[str]:
    names = {key.removeprefix("algorithm.").replace("_", "-"): value for key, value in changes.items()}
    return [f"--{name} {shlex.quote(str(value))}" for name, value in names.items()]
