"""`bench cost`: what each method's step takes beside the passes through the net that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any, NamedTuple, cast

import torch
from torch import Tensor

from bench import subjects
from bench.measure import alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from bench.step import Ours
from fewlabels.algorithms import ALGORITHMS, FixMatch
from fewlabels.algorithms.imbalance import Imbalance
from fewlabels.config.usual import METHODS
from fewlabels.inference.model import Model
from fewlabels.runtime.checked import Range
from fewlabels.training.step import Trainer

APART = ("frozen", "self-training")
"""What takes no steps, or needs other runs."""
PARTS = ("adjust", "abc", "darp", "daso", "debiased", "saw", "tras", "adsh", "cossl")
"""Of `--imbalance`, on FixMatch."""
LATER = 0.5
"""Share of a training that is over, so that memories are full and what begins later has begun."""
REFERENCE = "fixmatch"


@dataclass(frozen=True, kw_only=True)
class Cost(Options):
    """Each method's step against the bare passes of the net that it needs, beside FixMatch's."""

    only: tuple[str, ...] = ()
    """Names of methods, and of long-tailed parts; default: all."""
    net: str = "wrn-10-1"
    """The network, or `tiny`."""
    batch: Annotated[int | None, Range(1, None)] = None
    """Labeled images of a step; default: 64 on a GPU, 8 on the CPU."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one; 1 for methods that need as many."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    steps: Annotated[int | None, Range(1, None)] = None
    """Steps in a timed block; default: 20 on a GPU, 2 on the CPU."""


class Pass(NamedTuple):
    """Images that went through a model."""

    model: Model
    images: Tensor
    gradient: bool


class Passes:
    """The passes of one step again, with the optimizer's step and the average, and nothing else."""

    def __init__(self, trainer: Trainer, passes: list[Pass]) -> None:
        self.trainer, self.passes = trainer, passes

    def __call__(self) -> None:
        total: Tensor | None = None
        for one in self.passes:
            with nullcontext() if one.gradient else torch.no_grad():
                value = one.model.head(one.model.features(one.images)).float().logsumexp(1).mean()
            if one.gradient:
                total = value if total is None else total + value
        assert total is not None
        total.backward()  # type: ignore[no-untyped-call]
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad(set_to_none=True)
        self.trainer.average.update(self.trainer.model, self.trainer.average.decay(0))


def _noted(found: list[Pass], model: Model, usual: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    found.append(Pass(model, images.detach(), torch.is_grad_enabled()))
    return usual(images)


@contextmanager
def watched(trainer: Trainer) -> Iterator[list[Pass]]:
    """The passes that the models of a trainer make meanwhile."""
    found: list[Pass] = []
    models = (trainer.model, trainer.average.model)
    for model in models:
        for name in ("features", "maps"):
            setattr(model, name, partial(_noted, found, model, getattr(model, name)))
    try:
        yield found
    finally:
        for model in models:
            del model.features, model.maps


def variants() -> dict[str, Any]:
    """Configurations by the name of the method, or of the part on FixMatch."""
    methods = {name: cls() for name, cls in ALGORITHMS.items() if name not in APART}
    return {**methods, **{part: FixMatch(imbalance=Imbalance(cast(Any, part))) for part in PARTS}}


def trainer_of(config: Any, options: Cost, batch: int, device: torch.device) -> Trainer:
    """A training in the middle of its steps, which sees the same few batches again and again."""
    ratio = METHODS.get(config.name, {}).get("uratio", options.uratio)
    plain = subjects.config(options.net, batch=batch, uratio=ratio, device=options.device, steps=subjects.STEPS)
    images = subjects.source(4096, options.side)
    trainer = subjects.trainer(replace(plain, algorithm=config), images, device)
    middle = int(LATER * trainer.config.steps)
    batches = [trainer.batch(middle + i) for i in range(4)]
    trainer.batch = lambda step, turn=0: batches[step % len(batches)]  # type: ignore[method-assign]
    return trainer


class Later(Ours):
    """A trainer's steps from the middle of its training on."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.count = int(LATER * trainer.config.steps) + 1  # no step at which all images are looked at


def run(options: Cost, stages: Stages) -> Result:
    """Ratios of a step to its passes, each method's beside FixMatch's in the same rounds."""
    device = options.prepare()
    cuda = device.type == "cuda"
    batch, steps = options.batch or (64 if cuda else 8), options.steps or (20 if cuda else 2)
    known = variants()
    if unknown := [name for name in options.only if name not in known]:
        raise ValueError(f"Cost.only: there is no method {unknown[0]!r} here (known: {', '.join(known)})")
    names = [name for name in options.only or known if name != REFERENCE]
    rows, controls = [], []
    with stages("timing") as tick:
        for i, name in enumerate(names):
            candidates: dict[str, Any] = {}
            for key in (REFERENCE, name):
                trainer = trainer_of(known[key], options, batch, device)
                step = Later(trainer)
                for _ in range(3):
                    step()
                with watched(trainer) as passes:
                    step()
                candidates |= {key: step, f"passes of {key}": Passes(trainer, list(passes))}
            timings = alternate(candidates, rounds=options.rounds, device=device, repeats=steps)
            own, usual = (timings.ratio(f"passes of {key}", key) for key in (name, REFERENCE))
            seconds = {key: timings.median(key) for key in (name, f"passes of {name}")}
            rows.append(
                {
                    "name": name,
                    "seconds": seconds[name],
                    "passes": seconds[f"passes of {name}"],
                    "ratio": own._asdict(),
                    "fixmatch": usual._asdict(),
                    "cost": own.median / usual.median,
                }
            )
            controls.append(timings.control)
            tick(i + 1, len(names))
    given = {**asdict(options), "batch": batch, "steps": steps}
    return result("cost", device, given, worst(*controls), rows=rows)
