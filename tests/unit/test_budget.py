"""How many steps fit into a time, and how long a training will take, with a stand-in for clock and speed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import fewlabels as fl
from fewlabels.config.settings import Curriculum
from fewlabels.training import pace as pace_module
from fewlabels.training.budget import Budget, fit, said, with_steps
from fewlabels.training.pace import Outlook, Pace, forecast
from fewlabels.types import Views

DIGITS = fl.recipe("fixmatch", "digits@40")
"""500 steps with a warm-up of 30; evaluates every 50, saves every 100, logs every 10."""


def test_the_steps_that_fit_into_97_percent_of_the_time() -> None:
    assert fit(DIGITS, [Pace(0.25)], Budget(100)).steps == 97 * 4
    assert fit(DIGITS, [Pace(0.25, start=2)], Budget(100)).steps == 95 * 4
    assert fit(DIGITS, [Pace(0.25)], Budget(100), spent=12).steps == 85 * 4
    assert fit(DIGITS, [Pace(0.25), Pace(0.25)], Budget(100)).steps == 97 * 2  # with a baseline of the same steps


def test_evaluations_and_checkpoints_are_counted_in() -> None:
    # 308 steps of 1/4 s, 7 evaluations with a checkpoint each of 2 s, 4 checkpoints of 1 s, 2 s at the start
    pace = Pace(0.25, evaluation=1, save=1, start=2)
    assert pace.seconds(308, 50, 100) == 77 + 14 + 4 + 2
    given = frozenset({"eval_every", "save_every"})
    assert fit(DIGITS, [pace], Budget(100, given)) == replace(DIGITS, steps=308)
    assert pace.seconds(309, 50, 100) > 97


def test_cadences_stay_unless_there_would_be_too_few() -> None:
    long = fit(DIGITS, [Pace(0.25)], Budget(1000))
    assert long == replace(DIGITS, steps=3880)
    short = fit(DIGITS, [Pace(0.25)], Budget(100))
    assert (short.steps, short.eval_every, short.save_every, short.log_every) == (388, 39, 78, 10)
    cifar = fit(fl.recipe("fixmatch", "cifar10@40"), [Pace(0.25)], Budget(100))
    assert (cifar.steps, cifar.eval_every, cifar.save_every, cifar.log_every) == (388, 39, 78, 20)


def test_what_is_added_takes_a_quarter_of_the_time_at_most() -> None:
    rare = replace(DIGITS, eval_every=10_000)
    found = fit(rare, [Pace(0.25, evaluation=10)], Budget(100))
    assert (found.steps, found.eval_every) == (308, 154)  # 77 s of steps, 2 evaluations of 10 s


def test_what_was_given_stays() -> None:
    given = frozenset({"eval_every", "optim.warmup"})
    found = fit(DIGITS, [Pace(1.0)], Budget(100, given))
    assert (found.steps, found.eval_every, found.optim.warmup) == (97, 50, 30)
    assert fit(DIGITS, [Pace(1.0)], Budget(100)).optim.warmup == 9


@pytest.mark.parametrize(
    ("name", "option", "data", "steps", "length"),
    [
        ("mixmatch", "ramp_steps", "digits@40", 200, 200),
        ("mixmatch", "ramp_steps", "digits@40", 2000, 2000),
        ("remixmatch", "ramp_steps", "digits@40", 200, 50),
        ("uda", "tsa_ramp", "digits@40", 2000, 500),
        ("mixmatch", "ramp_steps", "cifar10@40", 1000, 1000),  # the paper's 16384 would never end
        ("mixmatch", "ramp_steps", "cifar10@40", 100_000, 16384),
        ("remixmatch", "ramp_steps", "cifar10@40", 1000, 250),
    ],
)
def test_ramps_follow(name: str, option: str, data: str, steps: int, length: int) -> None:
    config = fl.recipe(name, data)
    assert getattr(with_steps(config, steps, [Pace(1.0)], 1.0, frozenset()).algorithm, option) == length
    kept = with_steps(config, steps, [Pace(1.0)], 1.0, frozenset({option}))
    assert kept.algorithm == config.algorithm


def test_a_time_that_is_too_short() -> None:
    # 10 steps of 2 s, an evaluation of 3 s, what is best so far, and a last checkpoint, of 1 s each: 25 s of 97 percent
    pace = Pace(2.0, evaluation=3, save=1)
    with pytest.raises(ValueError) as caught:
        fit(DIGITS, [pace], Budget(20))
    assert str(caught.value) == (
        "a time of 20 s is too short: the least, 10 steps and an evaluation, takes about 26 s here"
    )
    least = fit(DIGITS, [pace], Budget(26))
    assert (least.steps, least.eval_every, least.save_every) == (10, 10, 10)
    with pytest.raises(ValueError, match="takes about 78 s here with the baseline"):
        fit(DIGITS, [pace, pace], Budget(28), spent=25)


def test_the_options_that_repeat_a_run() -> None:
    before = fl.recipe("mixmatch", "digits@40")
    paces = [Pace(1.0), Pace(0.25)]
    after = fit(before, paces, Budget(250))
    assert said(after, before, paces, Budget(250)) == (
        "194 steps fit into 4 min: about 4 min from here at 1 s a step (4 steps/s of the baseline, which shares the "
        "time); in place of --time, --ramp-steps 194 --optim.warmup 19 --steps 194 --eval-every 20 --save-every 39 "
        "repeat the run"
    )


def test_the_sentence_about_a_long_training() -> None:
    assert forecast(59.0, Pace(0.25), DIGITS, "cpu", advise=True) is None
    assert (
        forecast(7800.0, Pace(0.25), DIGITS, "cpu", advise=False) == "about 2 h 10 min in all at 4 steps/s on this CPU"
    )
    long = fl.recipe("fixmatch", "photos/")
    assert forecast(7800.0, Pace(2.5, evaluation=40), long, "cuda", advise=True) == (
        "about 2 h 10 min in all at 2.5 s a step on this GPU and 40 s for each evaluation; --time 1h takes as many "
        "steps as fit into that, --net small or a smaller --data.image-size makes them faster"
    )
    assert "; --time 30s takes" in str(forecast(61.0, Pace(0.25), DIGITS, "cpu", advise=True))


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    monkeypatch.setattr(pace_module, "image_seconds", lambda trainer, evaluator: 0.125)
    monkeypatch.setattr(pace_module, "images", lambda evaluator: 3)
    return clock


def outlook(first: int = 0, **changes: Any) -> Outlook:
    config = replace(DIGITS, eval_every=100, **changes)
    algorithm = SimpleNamespace(refresh_every=None, views=Views(labeled=("weak",), unlabeled=("weak", "strong")))
    trainer: Any = SimpleNamespace(config=config, graph=None, device=torch.device("cpu"), algorithm=algorithm)
    return Outlook(trainer, Any, first, advise=False)  # type: ignore[arg-type]


def lines(clock: Clock, one: Outlook, seconds: list[float], first: int = 0) -> list[str | None]:
    out = []
    for step, spent in enumerate(seconds, first + 1):
        clock.now += spent
        out.append(one.line(step, 0.0))
    return out


def test_the_first_steps_say_how_long_it_takes(clock: Clock) -> None:
    # 5 s so far, the first step left aside, then 1 s each, and 10 evaluations of 3 * 1/8 s
    one = outlook(steps=1000)
    said = lines(clock, one, [2, 1, 1, 1])
    assert said == [None, None, None, "about 17 min in all at 1 s a step on this CPU"]
    assert one.said


def test_the_first_steps_of_a_curriculum_stand_for_longer_ones(clock: Clock) -> None:
    one = outlook(steps=200, curriculum=Curriculum(half_size=0.5))
    (text,) = [line for line in lines(clock, one, [1.0] * 4) if line is not None]
    # 4 s so far, then 96 steps of 1 s, a quarter of the work, and 100 of 4 s: 2.53 s each
    assert text == "about 8 min in all at 2.53 s a step on this CPU"


def test_a_slow_first_step_says_it_at_once(clock: Clock) -> None:
    assert lines(clock, outlook(steps=50), [40]) == ["about 33 min in all at 40 s a step on this CPU"]
    compiled = lines(clock, outlook(steps=50, compile=True), [40, 4])  # most of the first is the compilation
    assert compiled == [None, "about 4 min in all at 4 s a step on this CPU"]


def test_a_resumed_training_and_a_short_one(clock: Clock) -> None:
    one = outlook(900, steps=1000)
    assert lines(clock, one, [1, 3.25], first=900) == [None, "about 5 min in all at 3.25 s a step on this CPU"]
    short = outlook(steps=20)
    assert lines(clock, short, [1, 1, 1, 1]) == [None] * 4 and short.said


def test_evaluations_are_no_steps(clock: Clock) -> None:
    one = outlook(steps=1000)
    clock.now += 1
    assert one.line(1, 0.0) is None
    clock.now += 10
    assert one.line(2, 9.0) is None  # nine seconds of an evaluation
    clock.now += 2
    assert one.line(4, 9.0) == "about 17 min in all at 1 s a step on this CPU"
