"""`bench step`: one switch at a time from the usual step to ours, without the data."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import torch
from torch import nn

from bench import subjects
from bench.ladder import Inputs, Step, Training, difference, lockstep, rungs
from bench.measure import NotExact, alternate
from bench.options import Options, Stages
from bench.record import Result, result
from fewlabels.runtime.checked import Range
from fewlabels.training.step import Trainer

OWN = "fewlabels' own step"


class OwnRung(NamedTuple):
    name: str
    settings: dict[str, Any]
    """Of `fewlabels train`."""
    tolerance: float
    """Largest `difference` from the step before; the first one's is from the usual step in the same precision."""


def own_rungs(*, cuda: bool, compiled: bool) -> list[OwnRung]:
    """The step of `fewlabels train`, alone and with its switches, each with those before."""
    plan: list[tuple[str, dict[str, Any], float]] = [
        ("--bn separate-weak", {"bn": "separate-weak"}, 0.5)  # other batch statistics, so another training
    ]
    if not cuda:  # a GPU has it by default
        plan.append(("--precision bf16", {"precision": "bf16"}, 0.1))
    if compiled:
        plan.append(("--compile", {"compile": True}, 0.1))
    if cuda:
        plan.append(("--graph", {"graph": True}, 0.05))
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
    """Steps over which the losses of a rung are compared with the rung before; every second starts from its weights."""
    compile: bool = True
    """Measure the compiled rungs too."""


def fixed(trainer: Trainer, count: int) -> list[Inputs]:
    """Let the trainer see the same few batches again and again, and return them."""
    batches = [trainer.batch(step) for step in range(count)]
    trainer.batch = lambda step, turn=0: batches[step % count]  # type: ignore[method-assign]
    return [Inputs(b.x[0], b.y, *b.u) for b in batches]


class Batches:
    """A trainer's batches, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.count = trainer, 0

    def __call__(self) -> None:
        self.trainer.batch(self.count)
        self.count += 1


class Ours:
    """A trainer's steps, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.count = trainer, 0

    def __call__(self) -> None:
        self.trainer.step(self.count)
        self.count += 1

    @property
    def net(self) -> nn.Module:
        return self.trainer.model.net

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizer

    def loss(self) -> float:
        """The loss of one further step."""
        self.trainer.read_log()
        self()
        return float(self.trainer.read_log()["loss"])


def compare(names: tuple[str, str], trainings: tuple[Training, Training], steps: int, allowed: float) -> dict[str, Any]:
    """How far the losses of two trainings are apart. Raises NotExact where that is more than is allowed."""
    far = difference(*lockstep(*trainings, steps))
    base, name = names
    if not far <= allowed:
        raise NotExact(
            f"over {steps} steps the losses of {name!r} differ by {far:.2g} of those of {base!r}, and {allowed:g} "
            "is allowed; it was not timed"
        )
    return {"name": name, "against": base, "steps": steps, "difference": far, "tolerance": allowed}


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
    net, dtype = trainers[0].model.net, trainers[0].dtype
    usual = {r.name: Step(net, r.switches, batches, device) for r in ladder}
    ours = {rung.name: Ours(trainer) for rung, trainer in zip(own, trainers, strict=True)}
    near = ladder[0] if dtype is None else next(r for r in ladder if r.switches.bf16)
    links = [(a.name, b.name, b.tolerance) for a, b in pairwise(ladder)]
    links.append((near.name, own[0].name, own[0].tolerance))
    links += [(a.name, b.name, b.tolerance) for a, b in pairwise(own)]
    candidates: dict[str, Step | Ours] = {**usual, **ours}
    compared, wrong = [], []
    with stages("comparing losses") as tick:
        for i, (base, name, allowed) in enumerate(links):
            try:
                compared.append(compare((base, name), (candidates[base], candidates[name]), options.check, allowed))
            except NotExact as error:  # one stage that is off must not cost the times of the others
                wrong.append(name)
                print(f"fewlabels: {error}", file=sys.stderr)
            tick(i + 1, len(links))
    for name in wrong:
        del candidates[name]
    with stages("timing") as tick:
        timings = alternate(candidates, rounds=options.rounds, device=device, repeats=steps, tick=tick)
    switches = {r.name: asdict(r.switches) for r in ladder} | {r.name: r.settings for r in own}
    return result(
        "step",
        device,
        {**asdict(options), "batch": batch, "steps": steps},
        timings.control,
        compared=compared,
        wrong=wrong,
        switches=switches,
        precision=str(dtype or torch.float32),
        **timings.as_json(),
    )
