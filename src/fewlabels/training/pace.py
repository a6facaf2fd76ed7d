"""How fast a training is on this machine: its steps, evaluations and checkpoints, measured, and the whole from that."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import safetensors.torch
import torch

from fewlabels.config.settings import Train
from fewlabels.data.names import parse
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.model import PIXELS_PER_BATCH, logits_of
from fewlabels.runtime import parallel
from fewlabels.runtime.words import about
from fewlabels.training.curriculum import work
from fewlabels.training.evaluator import Evaluator
from fewlabels.training.graph import WARM_UP
from fewlabels.training.step import Trainer
from fewlabels.training.switches import switched

ENOUGH = 3.0
"""Seconds of steps after which their speed is known well enough to speak of it."""

LONG = 60.0
"""Seconds of a training that is worth a word before it."""

ROUND = ("30s", 30), ("1m", 60), ("2m", 120), ("5m", 300), ("10m", 600), ("20m", 1200), ("30m", 1800), *(
    (f"{hours}h", 3600 * hours) for hours in (1, 2, 4, 8, 12, 24, 48)
)  # fmt: skip
"""Lengths of time to name as an example."""


class Pace(NamedTuple):
    """Seconds that the parts of a training take."""

    step: float
    evaluation: float = 0.0
    save: float = 0.0
    start: float = 0.0
    """Building the net, and what the first step takes longer than others."""

    def seconds(self, steps: int, eval_every: int, save_every: int) -> float:
        """Of the whole training; each evaluation may be the best so far, which is saved too."""
        evaluations, saves = -(-steps // eval_every), -(-steps // save_every)
        return self.start + steps * self.step + evaluations * (self.evaluation + self.save) + saves * self.save


def measure(
    make: Callable[[], Trainer], source: Source, split: Split, longest: float, whole: Train | None = None
) -> Pace:
    """The pace of a trainer that is made for this and thrown away; on all ranks that of rank 0.

    whole: the settings of the training, whose curriculum the trainer has not; default: there is none.

    Steps are taken for some 3 seconds after a warm-up, for less if `longest` seconds are less, and for at least one.
    """
    begun = time.perf_counter()
    trainer = make()
    built = time.perf_counter() - begun
    with switched(trainer):
        first = _steps(trainer, 0, 1)
        done = 1 + (WARM_UP + 1) * (trainer.graph is not None)
        warm = _steps(trainer, 1, done - 1)
        while parallel.agree(int(first + warm < min(0.5, longest))):
            warm += _steps(trainer, done, 1)
            done += 1
        count, spent = 0, 0.0
        while parallel.agree(int(not count or spent < min(ENOUGH, longest))):
            spent += _steps(trainer, done + count, 1)
            count += 1
        step = spent / count
        share = 1.0 if whole is None else work(whole, trainer.algorithm.views)
        pace = None
        if parallel.rank() == 0:
            evaluator = Evaluator(trainer, source, split)
            image = image_seconds(trainer, evaluator)
            extra = built + max(0.0, first - step)
            mean = step * share + refresh_seconds(trainer, image)
            pace = Pace(mean, image * images(evaluator), _saving(trainer), extra)
    shared = parallel.from_first(pace)
    assert shared is not None
    return shared


def _steps(trainer: Trainer, first: int, count: int) -> float:
    """Seconds of some steps, with the device's work on them."""
    start = time.perf_counter()
    for step in range(first, first + count):
        trainer.step(step)
    wait(trainer.device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images(evaluator: Evaluator) -> int:
    """Images of one evaluation."""
    return sum(len(rows) for _, rows, _ in evaluator.parts.values())


def image_seconds(trainer: Trainer, evaluator: Evaluator) -> float:
    """Seconds for each image of an evaluation, by both models: of as many images as take a moment."""
    store, rows, _ = next(iter(evaluator.parts.values()))
    models, normalize, even = list(evaluator.models.values()), trainer.batches.normalize, trainer.config.compile
    _, height, width = trainer.shape

    def spent(count: int) -> float:
        start = time.perf_counter()
        logits_of(models, normalize, store, rows[:count], even=even)
        wait(trainer.device)
        return time.perf_counter() - start

    # a compiled net is given whole batches only
    count = min(len(rows), max(1, PIXELS_PER_BATCH // (height * width)) if even else 16)
    spent(count)
    while (seconds := spent(count)) < 0.1 and count < len(rows) and not even:
        count = min(len(rows), 4 * count)
    return seconds / count


def refresh_seconds(trainer: Trainer, image: float) -> float:
    """Seconds for each step of showing the algorithm all unlabeled images now and then, with one model."""
    every = trainer.algorithm.refresh_every
    return 0.0 if every is None else image / 2 * len(trainer.batches.unlabeled) / trainer.world / every


def _saving(trainer: Trainer) -> float:
    """Seconds of a checkpoint, written to a file without a name."""
    start = time.perf_counter()
    flat = {f"{n}.{k}": v.detach().cpu().contiguous() for n, part in trainer.weights().items() for k, v in part.items()}
    state = io.BytesIO()
    torch.save(trainer.state(), state)
    with tempfile.TemporaryFile() as file:
        for data in (safetensors.torch.save(flat), state.getvalue()):
            hashlib.sha256(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


class Outlook:
    """Says after the first steps of a training how long all of it will take, from the time of these steps.

    They are the training's own: nothing is done twice, and no bit is another. On rank 0 only.
    """

    def __init__(self, trainer: Trainer, evaluator: Evaluator, first: int, *, advise: bool) -> None:
        """first: step that the training begins with or goes on from; advise: name options that make it shorter."""
        self.trainer, self.evaluator, self.advise = trainer, evaluator, advise
        self.first = first
        self.warm = first + 1 + (WARM_UP + 1) * (trainer.graph is not None)
        self.start = self.since = time.perf_counter()
        self.aside = 0.0
        self.said = False

    def line(self, step: int, aside: float) -> str | None:
        """The sentence, once, after `step` steps of a training of more than a minute.

        aside: seconds that went into evaluations and checkpoints so far.
        """
        now = time.perf_counter()
        slow = step < self.warm + 1 and not (self.trainer.config.compile or self.trainer.graph)
        if slow and now - self.start - aside > ENOUGH:  # a step that takes so long needs no warm-up
            return self._sentence((now - self.start - aside) / (step - self.first), self.first, step)
        if step <= self.warm:
            self.since, self.aside = now, aside
            return None
        if now - self.since - (aside - self.aside) < ENOUGH:
            return None
        wait(self.trainer.device)
        spent = time.perf_counter() - self.since - (aside - self.aside)
        return self._sentence(spent / (step - self.warm), self.warm, step)

    def _sentence(self, seconds: float, first: int, step: int) -> str | None:
        """seconds: of each step from `first` to `step`."""
        self.said = True
        trainer, config = self.trainer, self.trainer.config
        views = trainer.algorithm.views
        seconds *= work(config, views, step) / work(config, views, first, step)
        passed, left = time.perf_counter() - self.start, config.steps - step
        if passed + 2 * left * seconds < LONG:  # however long the evaluations are, they are not worth a measurement
            return None
        image = image_seconds(trainer, self.evaluator)
        pace = Pace(seconds + refresh_seconds(trainer, image), image * images(self.evaluator))
        return forecast(
            passed + pace.seconds(left, config.eval_every, config.save_every),
            pace,
            config,
            trainer.device.type,
            advise=self.advise,
        )


def forecast(seconds: float, pace: Pace, config: Train, device: str, *, advise: bool) -> str | None:
    """The sentence about a training that takes so many seconds in all; None for less than a minute."""
    if seconds < LONG:
        return None
    text = f"about {about(seconds)} in all at {speed(pace.step)} on this {'GPU' if device == 'cuda' else 'CPU'}"
    if pace.evaluation >= 0.5:
        text += f" and {about(pace.evaluation)} for each evaluation"
    if not advise:
        return text
    fits = [text for text, length in ROUND if length <= seconds / 2]
    hints = [f"--time {fits[-1]} takes as many steps as fit into that"]
    faster = [] if config.net.name.startswith(("small", "fast")) or config.net.pretrained else ["--net small"]
    if parse(config.data.name).folder:
        faster.append("a smaller --data.image-size")
    faster.append("a smaller --batch or --uratio")
    return f"{text}; {hints[0]}, {' or '.join(faster[:2])} makes them faster"


def speed(step: float) -> str:
    """Steps in a second, or seconds of a step where that is more."""
    return f"{1 / step:.3g} steps/s" if step < 1 else f"{step:.3g} s a step"
