"""The one training loop: `train` starts a run, `resume` goes on with one, bit for bit on the CPU."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from fewlabels import interrupt, parallel
from fewlabels.algorithms import AnyAlgorithm
from fewlabels.config import Data, Train, algorithm_name, difference
from fewlabels.data import names, sources
from fewlabels.data.aliases import ALIASES
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.protocol import Options, restrict
from fewlabels.data.source import Source
from fewlabels.data.split import Split, make_split, read_split
from fewlabels.desk import Desk, device_name
from fewlabels.evaluate import pixel_statistics
from fewlabels.interrupt import Interrupted
from fewlabels.log import reading
from fewlabels.run import Run, RunError, free_folder, run_name
from fewlabels.step import Trainer, parameters, pick_device

__all__ = ["Diverged", "Interrupted", "load_source", "resolve", "resume", "split_of", "train"]

Say = Callable[[str], None]


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message names the step, the terms and the last good state."""


class Output(NamedTuple):
    """How a training talks: the progress display (True a bar, False lines, None silence) and its sentences."""

    progress: bool | None = None
    say: Say = lambda text: None


def resolve_data(data: Data) -> Data:
    """`data` with what its name and its split file say written out. Raises ValueError where they disagree."""
    if data.split is not None and data.name == Data().name:
        data = replace(data, name=read_split(data.split).source)
    name = names.parse(data.name)
    alias = ALIASES[name.alias] if name.alias else None
    said: dict[str, Any] = {"labels": name.labels, "seed": name.seed, "valid": name.valid}
    said = {key: value for key, value in said.items() if value is not None} | dict(alias.options if alias else {})
    data = _agree(data, f"the name {data.name}", said)
    if data.split is not None:
        data = _agree(data, f"the split file {data.split}", _said_by_file(data))
    if alias and data.labels is None:
        data = replace(data, labels=alias.head)
    return _complete(data)


def _said_by_file(data: Data) -> dict[str, Any]:
    assert data.split is not None
    if data.unlabeled in ("all", "rest"):
        raise ValueError(f"Data.unlabeled {data.unlabeled} cannot be chosen: the split file {data.split} says it")
    split = read_split(data.split)
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in split.parameters.items()}
    said = {"labels": split.labels, "seed": split.seed, "valid": split.valid, "rule": split.rule}
    return {**said, **Options()._asdict(), **plain}


def _agree(data: Data, who: str, said: dict[str, Any]) -> Data:
    """`data` with what `said` says. Raises ValueError where an option says otherwise."""
    silent = Data()
    for key, value in said.items():
        own = getattr(data, key)
        both = [tuple(map(str, v)) if isinstance(v, tuple) else v for v in (own, value)]
        if own != getattr(silent, key) and both[0] != both[1]:
            raise ValueError(f"{who} says {key} {value}, but Data.{key} is {own}")
    return replace(data, **said)


def _complete(data: Data) -> Data:
    """`data` with the defaults that depend on nothing but itself."""
    rule = data.rule or "fixmatch"
    unlabeled = data.unlabeled
    if unlabeled is None and data.split is None:
        unlabeled = "rest" if rule == "realmix" else "all"
    if unlabeled not in (None, "all", "rest") and not names.is_folder(str(unlabeled)):
        raise ValueError(
            f"Data.unlabeled must be 'all', 'rest' or a folder (with a path separator, such as more/), "
            f"got {unlabeled!r}"
        )
    seed = 1 if data.seed is None else data.seed
    return replace(data, rule=rule, unlabeled=unlabeled, seed=seed, valid=data.valid or 0)


def options_of(data: Data) -> Options:
    """What `data` tells the rule beside labels, seed and valid."""
    return Options(**{name: getattr(data, name) for name in Options._fields})


def _in_memory(data: Data, source: Source) -> Data:
    """`data` for images that have no name to load them by."""
    if data.split is not None:
        data = _agree(data, f"the split file {data.split}", _said_by_file(data))
    return _complete(replace(data, name=source.name))


def load_source(data: Data, progress: Callable[[int, int], None] | None = None) -> Source:
    """The images that `data` names, without those it leaves out; a folder calls `progress(done, total)`."""
    if data.name == ARRAYS:
        raise ValueError("the run was made from arrays in memory, which are gone: name other images with --data")
    pool = data.unlabeled if data.unlabeled not in ("all", "rest") else None
    folders = {"root": data.root, "labeled": data.labeled, "unlabeled": pool, "test": data.test}
    source = sources.load(
        names.parse(data.name),
        **{part: Path(folder).expanduser() if folder else None for part, folder in folders.items()},
        image_size=data.image_size,
        fit=data.fit,
        label_from=data.label_from,
        classes=Path(data.classes) if data.classes else None,
        skip_corrupt=data.skip_corrupt,
        progress=progress,
    )
    return restrict(source, options_of(data))


def resolve(config: Train, source: Source) -> Train:
    """`config` with every `auto` of the views replaced by what suits the source."""
    style = source.style
    values: dict[str, Any] = {"weak": style.weak, "strong": style.strong, "shift": style.shift}
    return replace(config, **{k: v for k, v in values.items() if getattr(config, k) in ("auto", None)})


def split_of(data: Data, source: Source) -> Split:
    """The split that resolved `data` means."""
    assert data.seed is not None and data.valid is not None and data.rule is not None
    if data.split is not None:
        split = read_split(data.split)
        split.check_fit(source)
        return split
    kinds: dict[str | None, Literal["all", "rest"]] = {"all": "all", "rest": "rest"}
    return make_split(
        source,
        labels=data.labels,
        seed=data.seed,
        valid=data.valid,
        rule=data.rule,
        unlabeled=kinds.get(data.unlabeled),  # a folder: the rule's default
        options=options_of(data),
    )


def train(
    config: Train | None = None,
    *,
    out: Path | str | None = None,
    source: Source | None = None,
    overwrite: bool = False,
    output: Output | None = None,
) -> Run:
    """Train from the start and return the finished run.

    Args:
        config: default: `Train()`, FixMatch on 40 labels of the digits with the papers' long schedule;
            `fewlabels.recipe` gives settings that suit a data set.
        out: the run folder; default `runs/DATA-ALGORITHM-sSEED`, then `-2`, `-3`.
        source: images in memory, instead of those that `config.data` names.
        overwrite: replace a run that `out` holds.
        output: what to show; default nothing.

    Raises:
        ValueError: for what the user can mend.
        Interrupted: after SIGINT or SIGTERM; the state is saved.
        Diverged: when the loss is no longer finite.
    """
    config, output = config or Train(), output or Output()
    with parallel.session(config.device):
        device = pick_device(config.device)
        if source is None:
            config = replace(config, data=resolve_data(config.data))
            with parallel.first(), reading(output.progress if parallel.rank() == 0 else None) as show:
                source = load_source(config.data, show)
        else:
            config = replace(config, data=_in_memory(config.data, source))
            source = restrict(source, options_of(config.data))
        config = resolve(config, source)
        split = split_of(config.data, source)
        mean, std = pixel_statistics(config.data.normalize, source)
        run = None
        path = Path(out).expanduser() if out is not None else free_folder(Path("runs"), run_name(config))
        Run.check_free(path, overwrite=overwrite)
        parallel.barrier()  # every rank has looked before rank 0 makes the folder
        with _own_generator(device):
            trainer = Trainer(config, source, split, device=device, mean=mean, std=std)
        if parallel.rank() == 0:
            facts = {
                "source": source.name,
                "classes": source.classes,
                "shape": source.shape,
                "mean": mean,
                "std": std,
                "labeled_counts": split.class_counts,
                "test": len(source.test_labels),
            }
            run = Run.create(path, config, split, facts, overwrite=overwrite)
            for line in (*_summary(trainer, source, split), *source.notes, *split.notes, *trainer.notes()):
                output.say(line)
            output.say(f"run folder {run.path}")
        _loop(trainer, source, split, run, 0, output)
        return run or Run(path, (type(config.algorithm),))


def resume(
    path: Path | str,
    *,
    config: Train | None = None,
    source: Source | None = None,
    output: Output | None = None,
    algorithms: tuple[type, ...] = (),
) -> Run:
    """Go on with a run from its newest undamaged checkpoint, and return it when it is finished.

    Args:
        path: the run folder.
        config: the run's own, changed at most where the result is not touched (`device`, `keep`).
        source: as for `train`, for a run that was made from arrays.
        output: what to show; default nothing.
        algorithms: config classes from outside the package that the run's config.json may name.
    """
    output = output or Output()
    run = Run(path, algorithms)
    config = config or run.config
    with parallel.session(config.device):
        if run.finished:
            output.say(f"{run.path} is finished already")
            return run
        checkpoint, meta, problems = run.newest_good()
        if meta["world"] != parallel.world():
            raise RunError(
                f"{run.path} was trained on {meta['world']} rank(s) and cannot go on with {parallel.world()}"
            )
        device = pick_device(config.device)
        if source is not None:
            source = restrict(source, options_of(config.data))
        else:
            with reading(output.progress if parallel.rank() == 0 else None) as show:
                source = load_source(config.data, show)
        split = run.split
        if config.data.split is not None:  # the run has the file's rows
            split.check_fit(source)
        elif split_of(config.data, source).fingerprint != split.fingerprint:
            raise RunError(f"the images or labels of {config.data.name} have changed since {run.path} was started")
        data = run.data
        with _own_generator(device):
            trainer = Trainer(config, source, split, device=device, mean=tuple(data["mean"]), std=tuple(data["std"]))
        weights = {which: checkpoint.weights(which) for which in ("raw", "ema")}
        trainer.load(weights, checkpoint.state())
        lead = parallel.rank() == 0
        if lead:
            for problem in problems:
                output.say(f"{problem}; going on from step {checkpoint.step} instead")
            output.say(f"resuming {run.path} at step {checkpoint.step} of {config.steps}")
        _loop(trainer, source, split, run if lead else None, checkpoint.step, output)
        return run


def _summary(trainer: Trainer, source: Source, split: Split) -> list[str]:
    """What is about to be trained, in four lines."""
    config = trainer.config
    channels, height, width = source.shape
    precision = str(trainer.dtype or torch.float32).removeprefix("torch.")
    known = isinstance(config.algorithm, AnyAlgorithm)
    changed = difference(config, Train(algorithm=type(config.algorithm)()) if known else Train())
    said = ", ".join(f"{k}={v}" for k, v in changed.items() if k != "algorithm.name")
    return [
        f"{algorithm_name(config.algorithm)} on {config.data.name}: {len(split.labeled)} labeled and "
        f"{len(split.unlabeled)} unlabeled images of {channels}x{height}x{width}, {len(source.classes)} classes, "
        f"{len(source.test_labels)} test images",
        f"{config.net.name}, {parameters(trainer.net):,} parameters, {precision} on {device_name(trainer.device)}; "
        f"{config.steps} steps of {trainer.images_per_step} images",
        f"settings other than the defaults: {said or 'none'}",
    ]


def _own_generator(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Seeds what is inside as it likes, and leaves the caller's global generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextlib.contextmanager
def _settings(trainer: Trainer) -> Iterator[None]:
    """The process-wide switches of torch, put back at the end: global generator, determinism, cuDNN."""
    old = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with _own_generator(trainer.device):
        if trainer.config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = not trainer.config.deterministic
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(old[0])
            torch.backends.cudnn.benchmark = old[1]


def _loop(trainer: Trainer, source: Source, split: Split, run: Run | None, step: int, output: Output) -> None:
    """Steps, logs, evaluations and checkpoints from `step` to the end; `run` is None on ranks other than 0."""
    config, steps = trainer.config, trainer.config.steps
    saved = step
    with (
        _settings(trainer),
        interrupt.catch() as stop,
        Desk(trainer, source, split, run, step, output.progress) as desk,
    ):
        while step < steps:
            trainer.step(step)
            step += 1
            signum = stop.agreed(step, trainer.device)
            end = step == steps
            evaluates = end or step % config.eval_every == 0
            saves = end or signum != 0 or step % config.save_every == 0
            logs = end or step % config.log_every == 0
            if not (evaluates or saves or logs):
                desk.tick(step)
                continue
            if (bad := trainer.nonfinite_step()) is not None:
                raise Diverged(_autopsy(trainer, run, f"the loss was not finite at step {bad + 1}", saved))
            if saves and not trainer.finite():  # else the checkpoint would be the last, but no good one
                raise Diverged(_autopsy(trainer, run, f"the weights were not finite after step {step}", saved))
            if logs:
                desk.log(step)
            if evaluates or saves:
                trainer.average_statistics()
            if evaluates:
                desk.evaluate(step)
            if saves:
                desk.save(step)
                saved = step
            parallel.barrier()
            if signum and not end:
                name, where = signal.Signals(signum).name, run.path if run else "RUN"
                raise Interrupted(
                    f"stopped by {name} after step {step} of {steps}; the state is saved, and "
                    f"`fewlabels train --resume {where}` goes on from it",
                    signum,
                )
        desk.finish()


def _autopsy(trainer: Trainer, run: Run | None, what: str, saved: int) -> str:
    terms = ", ".join(f"{n} {v:g}" for n, v in trainer.read_log().items() if n.startswith("loss"))
    last = f"the last good checkpoint is step {saved}" if saved else "there is no checkpoint yet"
    where = f" in {run.path}" if run else ""
    return (
        f"{what} ({terms} since the last log point); {last}{where}; "
        f"try a smaller --optim.lr (it is {trainer.config.optim.lr:g})"
    )
