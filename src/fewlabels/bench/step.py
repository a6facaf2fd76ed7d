"""`bench step`: one switch at a time from the usual step to ours, without the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch

from fewlabels.bench import subjects
from fewlabels.bench.ladder import Inputs, Rung, Step, difference, losses, rungs
from fewlabels.bench.measure import NotExact, Work, alternate
from fewlabels.bench.options import Options, Stages
from fewlabels.bench.record import Result, result
from fewlabels.checked import Range
from fewlabels.step import Trainer

TRAINER = "fewlabels' own step"


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
    compiled = options.compile and cuda
    images = subjects.source(4096, options.side)
    trainer = subjects.trainer(subjects.config(options.net, compiled=compiled, **settings), images, device)
    batches = fixed(trainer, 4)
    ladder = rungs(cuda=cuda, compiled=options.compile)

    candidates: dict[str, Work] = {r.name: Step(trainer.net, r.switches, batches, device) for r in ladder}
    with stages("comparing losses") as tick:
        compared = _compare(ladder, candidates, options.check, tick)
        candidates[TRAINER] = Ours(trainer)
        # in float32 our step is the usual one; in bfloat16 it is that rung
        near = ladder[0] if trainer.dtype is None else next(r for r in ladder if r.switches.bf16)
        again = Step(subjects.trainer(trainer.config, images, device).net, near.switches, batches, device)
        tolerance = 0.01 if trainer.dtype is None else 0.1
        compared.append(
            compare(
                TRAINER,
                near.name,
                losses(again, options.check),
                candidates[TRAINER].losses(options.check),  # type: ignore[attr-defined]
                tolerance,
            )
        )
    with stages("timing") as tick:
        timings = alternate(candidates, rounds=options.rounds, device=device, repeats=steps, tick=tick)
    switches = {r.name: asdict(r.switches) for r in ladder}
    return result(
        "step",
        device,
        {**asdict(options), "batch": batch, "steps": steps},
        timings.control,
        compared=compared,
        switches=switches,
        trainer={"precision": str(trainer.dtype or torch.float32), "compiled": compiled},
        **timings.as_json(),
    )


def _compare(ladder: list[Rung], candidates: dict[str, Work], steps: int, tick: Any) -> list[dict[str, Any]]:
    out, before = [], None
    for i, rung in enumerate(ladder):
        step = candidates[rung.name]
        assert isinstance(step, Step)
        curve = losses(step, steps)
        if before is not None:
            base, expected = before
            out.append(compare(rung.name, base, expected, curve, rung.tolerance))
        before = rung.name, curve
        tick(i + 1, len(ladder) + 1)
    return out
