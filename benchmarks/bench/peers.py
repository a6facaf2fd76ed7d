"""`bench peers`: other projects' data paths and steps, run from the user's clones, against ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any

from bench import clones, pillow, subjects
from bench.measure import Timings, Work, alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from bench.step import Batches, Ours
from fewlabels.runtime.checked import Range

OURS = "fewlabels"


@dataclass(frozen=True, kw_only=True)
class Peers(Options):
    """Data paths and steps of other projects, from your own clones of them, against ours."""

    kekmodel: str | None = None
    """Clone of kekmodel/FixMatch-pytorch."""
    leedoyup: str | None = None
    """Clone of LeeDoYup/FixMatch-pytorch."""
    usb: str | None = None
    """Clone of microsoft/Semi-supervised-learning."""
    rounds: Annotated[int, Range(1, None)] = 3
    """Counted rounds."""
    net: str = "wrn-28-2"
    """`wrn-28-2`, each project's own, or `tiny`, ours in all."""
    batch: Annotated[int, Range(1, None)] = 64
    """Labeled images of a step."""
    uratio: Annotated[int, Range(1, None)] = 7
    """Unlabeled images for each labeled one."""
    steps: Annotated[int | None, Range(1, None)] = None
    """Batches or steps in a timed block; default: 32 on a GPU, 4 on the CPU. A multiple of the workers is fair."""
    workers: Annotated[int | None, Range(0, None)] = None
    """Workers of each loader in the tuned rows; default: all cores."""
    train: bool = True
    """Measure the steps too, not only the data."""
    compile: bool = False
    """Compile the net of our step."""
    check: Annotated[int, Range(1, None)] = 500
    """Random sequences of ours that are compared with Pillow first."""


class Feed:
    """A peer's two loaders, kept running between timed blocks; a block takes its batches and puts them to use."""

    def __init__(self, peer: clones.Peer, workers: tuple[int, int], settings: clones.Settings, steps: int) -> None:
        self.peer, self.workers, self.device, self.steps = peer, workers, settings.device, steps
        self.iterators: list[Iterator[Any]] = []

    def begin(self) -> None:
        """Start the workers and take the first batch, which has to wait for them."""
        self.iterators = [_endless(loader) for loader in self.peer.loaders(*self.workers)]
        if any(self.workers):
            for iterator in self.iterators:
                next(iterator)

    def end(self) -> None:
        for iterator in self.iterators:
            iterator.close()  # type: ignore[attr-defined]  # ends the workers
        self.iterators = []

    def __call__(self) -> None:
        for x, u in islice(zip(*self.iterators, strict=True), self.steps):
            for tensor in self.peer.unpack(x, u):
                tensor.to(self.device, non_blocking=True)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


class Training(Feed):
    """A peer's own loop on its own batches."""

    def __init__(
        self, peer: clones.Peer, workers: tuple[int, int], settings: clones.Settings, steps: int, low: bool
    ) -> None:
        super().__init__(peer, workers, settings, steps)
        assert peer.train is not None
        self.train = peer.train(_Block(self, 0), _Block(self, 1), low)

    def __call__(self) -> None:
        self.train()


class _Block:
    """The batches of one loader in one timed block."""

    def __init__(self, feed: Feed, which: int) -> None:
        self.feed, self.which = feed, which

    def __iter__(self) -> Iterator[Any]:
        return islice(self.feed.iterators[self.which], self.feed.steps)


class Many:
    """So many of our batches or steps."""

    def __init__(self, one: Callable[[], object], steps: int) -> None:
        self.one, self.steps = one, steps

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.one()


def run(options: Peers, stages: Stages) -> Result:
    """Each project as shipped and with the best number of workers; ratios are on the wall."""
    device = options.prepare()
    cuda = device.type == "cuda"
    steps = options.steps or (32 if cuda else 4)
    best = (options.workers if options.workers is not None else os.cpu_count() or 1,) * 2
    settings = clones.Settings(options.batch, options.uratio, options.net, device)
    found = [
        open_clone(path, settings)
        for open_clone, path in (
            (clones.kekmodel, options.kekmodel),
            (clones.leedoyup, options.leedoyup),
            (clones.usb, options.usb),
        )
        if path is not None
    ]
    if not found:
        raise ValueError("bench peers needs a clone to measure: --kekmodel PATH, --leedoyup PATH or --usb PATH")
    images = subjects.source(10_000)
    exact = {}
    for name, policy in pillow.POLICIES.items():
        with stages(f"comparing {name} with Pillow") as tick:
            exact[name] = pillow.check(name, policy, images.images, device, count=options.check, tick=tick)

    train = subjects.config(
        options.net, batch=options.batch, uratio=options.uratio, device=options.device, compile=options.compile
    )
    trainer = subjects.trainer(train, images, device)
    data: dict[str, Work] = {}
    training: dict[str, Work] = {}
    for peer in found:
        for word, workers in (("as shipped", peer.shipped), ("tuned", best)):
            title = f"{peer.name} {word}, {workers[0]} + {workers[1]} workers"
            data[title] = Feed(peer, workers, settings, steps)
            if peer.train is not None and options.train:
                training[title] = Training(peer, workers, settings, steps, low=False)
                if word == "tuned" and cuda:
                    training[f"{title}, autocast"] = Training(peer, workers, settings, steps, low=True)
    with stages("timing the data") as tick:
        data[OURS] = Many(Batches(trainer), steps)
        loaded = alternate(data, rounds=options.rounds, device=device, basis="wall", tick=tick)
    runs = [loaded]
    if training:
        with stages("timing the steps") as tick:
            training[OURS] = Many(Ours(trainer), steps)
            runs.append(alternate(training, rounds=options.rounds, device=device, basis="wall", tick=tick))
    return result(
        "peers" if options.net == "wrn-28-2" else f"peers-{options.net}",
        device,
        {**asdict(options), "steps": steps, "kekmodel": None, "leedoyup": None, "usb": None},
        worst(*(t.control for t in runs)),
        exact=exact,
        data=rows(loaded, steps),
        step=rows(runs[1], steps) if training else [],
        measured=[t.as_json() for t in runs],
    )


def rows(timings: Timings, steps: int) -> list[dict[str, Any]]:
    """Each candidate but ours, and how many times faster ours is than it."""
    return [
        {"name": name, "seconds": timings.median(name) / steps, "ratio": timings.ratio(OURS, name).median}
        for name in timings.names
        if name != OURS
    ]
