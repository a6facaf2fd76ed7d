"""`bench step`: one switch at a time from the usual step to ours, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import torch

from fewlabels.bench import subjects
from fewlabels.bench.ladder import Inputs, Step, difference, rungs
from fewlabels.bench.measure import NotExact, Tick, alternate
from fewlabels.bench.options import Options, Stages
from fewlabels.bench.record import Result, result
from fewlabels.checked import Range
from fewlabels.step import Trainer

OWN = "fewlabels' own step"


class OwnRung(NamedTuple):
    name: str
    settings: dict[str, Any]
    """Of `fewlabels train`."""
    tolerance: float
    """Largest `difference` from the step before; the first one's is from the usual step in the same precision."""


def own_rungs(*, cuda: bool, compiled: bool) -> list[OwnRung]:
    """The step of `fewlabels train`, alone and with its switches, each with those before."""
    plan: list[tuple[str, dict[str, Any], float]] = [("--compile", {"compile": True}, 0.1 if cuda else 0.01)]
    plan = plan if compiled else []
    if cuda:
        plan.append(("--graph", {"graph": True}, 0.05))
    plan.append(("--bn separate-weak", {"bn": "separate-weak"}, 0.5))  # other batch statistics, so another training
    out = [OwnRung(OWN, {}, 0.1 if cuda else 0.01)]
    for name, more, tolerance in plan:
        out.append(OwnRung(f"{out[-1].name} {name}", out[-1].settings | more, tolerance))
    return out


@dataclass(frozen=True, kw_only=True)
class Steps(Options):
    """The training step without the data: one switch at a time from the usual one to ours."""

    net: str = "wrn-28-2"
    """The network, or `tiny`."""
    batch: Annotated[int | None, Range(1, None)] = None
    """Labeled images of a step; default: 64 on a GPU, 4 on the CPU."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    steps: Annotated[int | None, Range(1, None)] = None
    """Steps in a timed block; default: 50 on a GPU, 1 on the CPU."""
    check: Annotated[int, Range(1, None)] = 20
    """Steps over which the losses of a rung are compared with the rung before."""
    compile: bool = True
    """Measure the compiled rungs too."""


def fixed(trainer: Trainer, count: int) -> list[Inputs]:
    """Let the trainer see the same few batches again and again, and return them."""
    batches = [trainer.batch(step) for step in range(count)]
    trainer.batch = lambda step: batches[step % count]  # type: ignore[method-assign]
    return [Inputs(b.x[0], b.y, *b.u) for b in batches]


class Ours:
    """A trainer's steps, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.count = trainer, 0

    def __call__(self) -> None:
        self.trainer.step(self.count)
        self.count += 1

    def losses(self, steps: int) -> list[float]:
        out = []
        for _ in range(steps):
            self()
            out.append(self.trainer.read_log()["loss"])
        return out


def compare(name: str, base: str, expected: list[float], got: list[float], tolerance: float) -> dict[str, Any]:
    """Raises NotExact where the losses are further apart than the tolerance; else how far they are."""
    far = difference(expected, got)
    if not far <= tolerance:
        raise NotExact(
            f"over {len(got)} steps the losses of {name!r} differ by {far:.2g} of those of {base!r}, and {tolerance:g} "
            "is allowed; nothing was timed"
        )
    return {"name": name, "against": base, "steps": len(got), "difference": far, "tolerance": tolerance}


def run(options: Steps, stages: Stages) -> Result:
    """Losses first, then times; ratios are over the usual step."""
    device = options.prepare()
    cuda = device.type == "cuda"
    batch, steps = options.batch or (64 if cuda else 4), options.steps or (50 if cuda else 1)
    settings: dict[str, Any] = {"batch": batch, "uratio": options.uratio, "device": options.device}
    images = subjects.source(4096, options.side)
    ladder, own = rungs(cuda=cuda, compiled=options.compile), own_rungs(cuda=cuda, compiled=options.compile)
    trainers = [
        subjects.trainer(subjects.config(options.net, **settings, **rung.settings), images, device) for rung in own
    ]
    for trainer in trainers:
        batches = fixed(trainer, 4)  # the same in all: they follow from the seed
    net, dtype = trainers[0].net, trainers[0].dtype
    usual = {r.name: Step(net, r.switches, batches, device) for r in ladder}
    near = ladder[0] if dtype is None else next(r for r in ladder if r.switches.bf16)
    again = Step(net, near.switches, batches, device)
    ours = {rung.name: Ours(trainer) for rung, trainer in zip(own, trainers, strict=True)}
    with stages("comparing losses") as tick:
        compared = _compare(usual, {r.name: r.tolerance for r in ladder}, options.check, tick, first=0)
        known = near.name, again.losses(options.check)
        compared += _compare(
            ours, {r.name: r.tolerance for r in own}, options.check, tick, first=len(ladder), known=known
        )
    with stages("timing") as tick:
        timings = alternate({**usual, **ours}, rounds=options.rounds, device=device, repeats=steps, tick=tick)
    switches = {r.name: asdict(r.switches) for r in ladder} | {r.name: r.settings for r in own}
    return result(
        "step",
        device,
        {**asdict(options), "batch": batch, "steps": steps},
        timings.control,
        compared=compared,
        switches=switches,
        precision=str(dtype or torch.float32),
        **timings.as_json(),
    )


def _compare(
    steps: Mapping[str, Step] | Mapping[str, Ours],
    tolerances: Mapping[str, float],
    count: int,
    tick: Tick,
    *,
    first: int,
    known: tuple[str, list[float]] | None = None,
) -> list[dict[str, Any]]:
    """Each rung against the one before, the first against what is `known`."""
    out = []
    for i, (name, tolerance) in enumerate(tolerances.items()):
        curve = steps[name].losses(count)
        if known is not None:
            out.append(compare(name, *known, curve, tolerance))
        known = name, curve
        tick(first + i + 1, first + len(tolerances))
    return out
