"""`bench e2e`: whole steps with data and logging: where the time goes, and what the usual way takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from torch import nn

from bench import loader, pillow, subjects
from bench.ladder import Inputs, Step, Switches
from bench.measure import Work, alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from fewlabels.augment import View
from fewlabels.data.split import make_split
from fewlabels.data.store import draw_rows
from fewlabels.runs.run import Run
from fewlabels.runtime.checked import Range
from fewlabels.runtime.rng import Rng
from fewlabels.training.recorder import RunRecorder
from fewlabels.training.step import Trainer


@dataclass(frozen=True, kw_only=True)
class EndToEnd(Options):
    """Whole steps with data and logging: where the time goes; against DataLoader, Pillow and the usual step."""

    net: str = "tiny"
    """The network; `tiny` leaves the time to everything else, as a fast GPU does."""
    batch: Annotated[int, Range(1, None)] = 64
    """Labeled images of a step."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    steps: Annotated[int | None, Range(1, None)] = None
    """Steps in a timed block; default: 50 on a GPU, 2 on the CPU."""
    log_every: Annotated[int, Range(1, None)] = 64
    """Steps between two log points."""
    compile: bool = False
    """Compile the net of our step."""
    usual: bool = True
    """Measure the usual way too."""
    check: Annotated[int, Range(1, None)] = 500
    """Random sequences of ours that are compared with Pillow first."""
    images: tuple[int, ...] = ()
    """Compare the step with data sets of these sizes instead, such as 5000 1000000."""


class Logged:
    """Steps of a trainer with their log points, as a training takes them."""

    def __init__(self, trainer: Trainer, recorder: RunRecorder, every: int) -> None:
        self.trainer, self.recorder, self.every, self.count = trainer, recorder, every, 0

    def __call__(self) -> None:
        self.trainer.step(self.count)
        self.count += 1
        if self.count % self.every == 0:
            self.recorder.log(self.count)
        else:
            self.recorder.tick(self.count)


class Usual:
    """DataLoaders without workers and the usual step."""

    def __init__(self, options: EndToEnd, net: nn.Module, device: torch.device) -> None:
        data = loader.Data(batch=options.batch, uratio=options.uratio, side=options.side)
        self.loaders, self.device = loader.Loaders(data, 0, device), device
        self.labels = torch.arange(options.batch) % subjects.CLASSES
        nothing = [torch.zeros(1)] * 4
        self.step = Step(net, Switches(), [Inputs(*nothing)], device)

    def begin(self) -> None:
        self.loaders.begin()

    def end(self) -> None:
        self.loaders.end()

    def __call__(self) -> None:
        x, weak, strong = self.loaders()
        self.step.train(Inputs(x, self.labels.to(self.device), weak, strong))


def parts(trainer: Trainer, recorder: RunRecorder, every: int) -> dict[str, Work]:
    """What a step does beside forward, backward and optimizer, each alone."""
    config, count = trainer.config, 0
    wanted, views = trainer.algorithm.views, trainer.batches.assigned
    sets = (
        ("labeled", len(trainer.batches.labeled), config.batch, views.labeled),
        ("unlabeled", len(trainer.batches.unlabeled), config.batch * config.uratio, views.unlabeled),
    )

    def draw() -> None:
        nonlocal count
        count += 1
        rng = Rng(config.seed, count, device=trainer.device)
        for purpose, n, batch, keys in sets:
            draw_rows(n, batch, count, config.seed, purpose)
            for i, key in enumerate(keys):
                cast(View, trainer.batches.views[key]).draw(rng, batch, f"{purpose}/{i}")

    def data() -> None:
        nonlocal count
        count += 1
        trainer.batch(count)

    losses = trainer.objective(trainer.batch(0), trainer.average.model)
    losses = losses._replace(total=losses.total.detach())
    index = torch.zeros(config.batch * config.uratio, dtype=torch.int64, device=trainer.device)

    def log() -> None:
        """What one step adds to the log, and its share of a log point."""
        nonlocal count
        for _ in range(every):
            trainer._accumulate(index, losses)
            count += 1
        recorder.log(count)
        recorder.writer.board.flush()  # else its thread works while the next block is timed

    assert wanted.unlabeled
    return {
        "draw and views": data,
        "draw": draw,
        "average": lambda: trainer.average.update(trainer.model, trainer.config.ema.decay),
        "log points": log,
    }


@contextmanager
def logging(trainer: Trainer, images: Any) -> Iterator[RunRecorder]:
    """A recorder that writes into a folder of its own, which goes away."""
    split = make_split(images, labels=min(250, len(images.labels)), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        facts = {"source": images.name, "classes": images.classes, "shape": images.shape}
        run = Run.create(Path(folder) / "run", trainer.config, split, facts)
        with RunRecorder(trainer, images, split, run, 0, None) as recorder:
            yield recorder


def run(options: EndToEnd, stages: Stages) -> Result:
    """Whole steps of ours and of the usual way, then the parts of ours, each alone."""
    device = options.prepare()
    steps = options.steps or (50 if device.type == "cuda" else 2)
    settings: dict[str, Any] = {"batch": options.batch, "uratio": options.uratio, "device": options.device}
    train = subjects.config(options.net, compile=options.compile, **settings)
    images = subjects.source(4096, options.side)
    trainer = subjects.trainer(train, images, device)
    exact = {}
    if options.usual:
        with stages("comparing with Pillow") as tick:
            policy = pillow.POLICIES["kekmodel"]
            exact = pillow.check("kekmodel", policy, images.images, device, count=options.check, tick=tick)
    usual = {"usual": Usual(options, trainer.model.net, device)} if options.usual else {}
    with logging(trainer, images) as recorder:
        candidates: dict[str, Work] = {**usual, "fewlabels": Logged(trainer, recorder, options.log_every)}
        with stages("timing whole steps") as tick:
            whole = alternate(candidates, rounds=options.rounds, device=device, repeats=steps, even=True, tick=tick)
        pieces = parts(trainer, recorder, options.log_every)
        with stages("timing the parts") as tick:
            # these are short: few of them are mostly noise
            calls = max(steps, 100)
            apart = alternate(pieces, rounds=options.rounds, device=device, repeats=calls, even=True, tick=tick)
    shares = split(whole.median("fewlabels"), {n: apart.median(n) for n in apart.names}, options.log_every)
    clock = min(sample.wall for sample in whole.samples["fewlabels"]) / whole.calls["fewlabels"]
    ratio = {"ratio": whole.ratio("fewlabels").median} if usual else {}
    return result(
        "e2e" if options.net == "tiny" else f"e2e-{options.net.replace(':', '-')}",
        device,
        {**asdict(options), "steps": steps},
        worst(whole.control, apart.control),
        exact=exact,
        **ratio,
        **shares,
        images_per_second=trainer.images_per_step / clock,
        hours_for_2_20=subjects.STEPS * clock / 3600,
        whole=whole.as_json(),
        apart=apart.as_json(),
    )


def split(whole: float, apart: dict[str, float], log_every: int) -> dict[str, Any]:
    """Seconds of a step by part, and the share that is not forward, backward and optimizer."""
    views = max(0.0, apart["draw and views"] - apart["draw"])
    seconds = {
        "draw": apart["draw"],
        "views": views,
        "average": apart["average"],
        "log": apart["log points"] / log_every,
    }
    outside = sum(seconds.values())
    seconds["forward, backward, optimizer"] = max(0.0, whole - outside)
    return {"seconds": seconds, "step_seconds": whole, "share_outside": outside / whole}
