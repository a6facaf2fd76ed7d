"""The one training loop: `train` starts a run, `resume` goes on with one, bit for bit on the CPU."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewlabels.algorithms import Supervised
from fewlabels.config.resolve import (
    in_memory,
    load_source,
    options_of,
    pixel_statistics,
    resolve,
    resolve_data,
    split_of,
)
from fewlabels.config.settings import Train
from fewlabels.data.protocol import restrict
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.body import check_body, facts_of, with_body
from fewlabels.runs.checkpoint import Checkpoint, check_tensors
from fewlabels.runs.folder import VOTES, free_folder, run_name
from fewlabels.runs.mirror import mirrored
from fewlabels.runs.owner import Lock, owning
from fewlabels.runs.records import FREE_TO_CHANGE, PLACES
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime import interrupt, parallel
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.interrupt import Interrupted
from fewlabels.runtime.regular import expanded
from fewlabels.training import curriculum, fitting, reference, teaching, trackers
from fewlabels.training.afterwards import leave_page
from fewlabels.training.budget import Budget, fit, said
from fewlabels.training.failures import Diverged
from fewlabels.training.log import Progressing, reading, said_once
from fewlabels.training.pace import measure
from fewlabels.training.recorder import RunRecorder
from fewlabels.training.relief import relief
from fewlabels.training.step import Trainer
from fewlabels.training.summary import summary
from fewlabels.training.switches import own_generator, switched
from fewlabels.training.transfer import learned_scale, provenance, weights_file

__all__ = ["Diverged", "Interrupted", "load_source", "resolve", "resume", "split_of", "train"]

Say = Callable[[str], None]


def changed(config: Train, asked: Train) -> Train:
    """The settings of a run, with what `asked` says of those that are free to change."""
    data = replace(config.data, **{name: getattr(asked.data, name) for name in PLACES})
    return replace(config, data=data, **{name: getattr(asked, name) for name in FREE_TO_CHANGE})


class Output(NamedTuple):
    """Display of a training's progress (True a bar, False lines, None silence), and where its sentences go."""

    progress: Progressing = None
    say: Say = lambda text: None
    recipe: str | None = None
    """The recipe of a project that the settings come from, to say so."""
    advise: bool = False
    """Name options of the command that would make a long training shorter."""
    usual: Train | None = None
    """Settings that need no word, of images in memory, which have no recipe."""
    reasons: Sequence[str] = ()
    """Sentences on why the settings are what they are."""
    report: bool = True
    """Leave a report in the run folder."""


def train(
    config: Train | None = None,
    *,
    out: Path | str | None = None,
    source: Source | None = None,
    overwrite: bool = False,
    baseline: bool = False,
    budget: Budget | None = None,
    facts: Mapping[str, Any] | None = None,
    output: Output | None = None,
) -> Run:
    """Train from the start and return the finished run.

    Args:
        config: default: `Train()`, FixMatch on 40 labels of the digits with the papers' long schedule;
            `fewlabels.recipe` gives settings that suit a data set.
        out: the run folder; default `runs/DATA-ALGORITHM-sSEED`, then `-2`, `-3`.
        source: images in memory, instead of those that `config.data` names.
        overwrite: replace a run that `out` holds.
        baseline: note in the run that a supervised baseline is to follow.
        budget: a time to end within, which says the steps in place of `config.steps`; a baseline that is to follow
            shares it.
        facts: what data.json shall say besides.
        output: what to show; default nothing.

    Raises:
        ValueError: for what the user can mend; RunError where `out` is taken, or another process trains in it.
        Interrupted: after SIGINT, SIGTERM or SIGHUP; the state is saved.
        Diverged: when the loss is no longer finite.
        Lost: when another rank of the training did not come or has ended (`fewlabels.runtime.ranks`).
    """
    config, output = weights_file(config or Train()), output or Output()
    if budget is not None:
        budget.check(config)
    device = pick_device(config.device)
    with parallel.session(device), contextlib.ExitStack() as stack:
        config.net.check()
        trackers.check(config.log)
        teaching.teachers(config)  # before the images are read
        if source is None:
            config = replace(config, data=resolve_data(config.data))
        else:
            config = replace(config, data=in_memory(config.data, source))
            source = restrict(source, options_of(config.data))
        name = run_name(config)
        path = stack.enter_context(owning(lambda: _place(out, name, overwrite), output.say))
        if source is None:
            with parallel.first(), reading(output.progress if parallel.rank() == 0 else None) as show:
                source = load_source(config.data, show)
        config = resolve(config, source)
        split = split_of(config.data, source)
        mean, std = learned_scale(config, source.shape[0]) or pixel_statistics(config, source)
        run = None
        if budget is not None:
            config = _fitted(config, budget, baseline, output, source, split, device=device, mean=mean, std=std)
        with own_generator(device):
            trainer = Trainer(config, source, split, device=device, mean=mean, std=std)
            fitting.prepare(trainer, source, split, output.progress)
            fitted = fitting.fit(trainer, source, split, output.progress)
            taught = teaching.teach(trainer, split, path, output.progress)
            compared = trainer.compared or reference.compared(config, source, split, device, output.progress)
        if parallel.rank() == 0:
            known = {
                "source": source.name,
                "classes": source.classes,
                **({"folders": source.folders} if source.folders else {}),
                "shape": source.shape,
                "mean": mean,
                "std": std,
                "labeled_counts": split.class_counts,
                "test": len(source.test_labels),
                **provenance(config.net),
                **facts_of(config, trainer.model),
                **({"fit": dict(trainer.fitted)} if trainer.fitted else {}),
                **(taught.facts if taught else {}),
                **({"compared": dict(compared)} if compared else {}),
                **(facts or {}),
            }
            run = Run.create(path, config, split, known, overwrite=overwrite, baseline=baseline)
            if taught:
                run.write(VOTES, taught.data)
            for line in (
                *output.reasons,
                *summary(trainer, source, split, output.recipe, output.usual),
                *source.notes,
                *split.remarks,
                *trainer.notes(),
                *fitted,
                *(taught.notes if taught else ()),
            ):
                output.say(line)
            output.say(f"run folder {run.path}")
        _loop(trainer, source, split, run, 0, output)
        seen = mirrored(path, weights=False)
        return run or Run(seen, (type(config.algorithm),))


def _fitted(
    config: Train, budget: Budget, baseline: bool, output: Output, source: Source, split: Split, **place: Any
) -> Train:
    """`config` with the steps that the budget has time for, on all ranks the same.

    place: device, mean and std, for the trainers that are made to be measured.
    """
    fixed, paces = config.net.train == "head", []

    def make(trial: Train, progress: Progressing = None) -> Trainer:
        trainer = Trainer(trial, source, split, **place, blank=True)
        if fixed:
            fitting.prepare(trainer, source, split, progress)
        return trainer

    if fixed:
        with own_generator(place["device"]):
            make(config, output.progress)  # features are computed before the clock begins, and kept
    start = time.perf_counter()
    for one in (config, *([supervised(config)] if baseline else [])):
        trial = curriculum.without(replace(one, steps=max(config.steps, 2**20)))  # more than are taken
        with own_generator(place["device"]):
            paces.append(measure(partial(make, trial), source, split, budget.seconds / 20, whole=one))
    fitted = fit(config, paces, budget, parallel.from_first(time.perf_counter() - start))
    output.say(said(fitted, config, paces, budget))
    return fitted


def supervised(config: Train) -> Train:
    """The settings of a training's baseline: the same but for the unlabeled images."""
    return replace(config, algorithm=Supervised(view="strong"))


def _place(out: Path | str | None, name: str, overwrite: bool) -> Lock:
    """The folder of a new run, locked: `out`, or the first free one that no other process takes at this moment."""
    while out is None:
        with contextlib.suppress(FileExistsError):
            return Lock(free_folder(Path("runs"), name), new=True)
    path = expanded(out)
    Run.check_free(path, overwrite=overwrite)  # else the lock would be put into somebody's folder
    with contextlib.ExitStack() as stack:
        lock = Lock(path)
        stack.callback(lock.release)
        Run.check_free(path, overwrite=overwrite)
        if (path / "baseline").is_dir():  # it may be trained by itself
            Lock(path / "baseline").release()
        stack.pop_all()
    return lock


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
        config: the run's own, changed at most where the result is not touched (`device`, `keep`, and
            where own pictures lie now).
        source: as for `train`, for a run that was made from arrays.
        output: what to show; default nothing.
        algorithms: config classes from outside the package that the run's config.json may name.

    It may have been trained on another number of ranks: the images and all draws stay the same.

    Raises:
        RunError: there is no such run, it has no undamaged checkpoint, another process trains in it, or its images,
            labels or classes have changed.
        ValueError: the data or the device are not there.
        Interrupted, Diverged, Lost: as `train`.
    """
    output = output or Output()
    with contextlib.ExitStack() as stack:
        stack.enter_context(parallel.meeting())
        config = config or Run(mirrored(path, weights=False), algorithms).config
        trackers.check(config.log)
        device = pick_device(config.device)
        stack.enter_context(parallel.session(device))
        run = Run(mirrored(path), algorithms)
        own = stack.enter_context(contextlib.ExitStack())
        if not run.finished:
            own.enter_context(owning(lambda: Lock(run.path), output.say))
        if run.finished:
            _ = run.result  # whose seal is checked
            output.say(f"{run.path} is finished already")
            if parallel.rank() == 0 and output.report and (problem := leave_page(run, old=True)) is not None:
                output.say(f"note: {problem}")
            return run
        split, data = run.split, run.data  # what is no split and no data says so itself
        if not config.steps and not run.states():  # killed before it was fitted
            own.close()
            facts = {k: v for k, v in run.data.items() if k == "values"}
            return train(config, out=path, source=source, overwrite=True, facts=facts, output=output)
        config = with_body(run, config)
        checkpoint, meta, problems = run.newest_good()
        if source is not None:
            source = restrict(source, options_of(config.data))
        else:
            with parallel.first(), reading(output.progress if parallel.rank() == 0 else None) as show:
                source = load_source(config.data, show)
        if clause := split.difference(source):
            what = f"the images or labels of {config.data.name} have changed since {run.path} was started"
            raise RunError(f"{what}: {clause}")
        if config.data.split is not None:  # the run has the file's rows
            split.check_fit(source)
        elif split_of(config.data, source).drawn != split.drawn:
            raise RunError(f"the images or labels of {config.data.name} have changed since {run.path} was started")
        if data["classes"] != list(source.classes):
            raise RunError(
                f"the classes of {config.data.name} have changed since {run.path} was started: they were "
                f"{', '.join(data['classes'])}, and are {', '.join(source.classes)}"
            )
        with own_generator(device):
            mean, std = tuple(data["mean"]), tuple(data["std"])
            trainer = Trainer(config, source, split, device=device, mean=mean, std=std, blank=True)
            check_body(run, trainer.model)
            fitting.prepare(trainer, source, split, output.progress, resumed=True)
            teaching.recall(trainer, run)
        _restore(trainer, checkpoint)
        parallel.barrier()  # every rank has chosen the checkpoint
        lead = parallel.rank() == 0
        if lead:
            run.set_aside(checkpoint.step)
            for problem in problems:
                output.say(f"{problem}; going on from step {checkpoint.step} instead")
            output.say(f"resuming {run.path} at step {checkpoint.step} of {config.steps}")
            if (before := meta["world"]) != trainer.world:
                output.say(
                    f"{trainer.world} rank(s) in place of {before}: the images and draws stay the same, the numbers to "
                    "rounding, but batch norm sees other shares of a batch"
                )
        _loop(trainer, source, split, run if lead else None, checkpoint.step, output)
        return run


def _restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Give a trainer the state of a checkpoint. Raises RunError where it is that of another training."""
    weights = {which: checkpoint.weights(which) for which in ("raw", "ema")}
    state, wanted, name = checkpoint.state(), trainer.state(), f"of checkpoint {checkpoint.path}"
    nets = trainer.weights()
    for which in weights:
        check_tensors(weights[which], nets[which], f"the {which} weights {name}")
    check_tensors(state, wanted, f"the parts {name}")
    for part in ("algorithm", "views"):
        check_tensors(state[part], wanted[part], f"the {part} {name}")
    sums, classes = state["sums"].values(), len(trainer.classes)
    if not all(isinstance(value, torch.Tensor) and value.shape in ((), (classes,)) for value in sums):
        raise RunError(f"the logged sums {name} do not fit the run: each must be one number, or one for each class")
    try:
        trainer.load(weights, state)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunError(f"the optimizer {name} does not fit the run: {' '.join(str(error).split())}") from None
    for weight, kept in trainer.optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != weight.shape:
                raise RunError(
                    f"the optimizer {name} does not fit the run: {key} of a weight of {list(weight.shape)} is "
                    f"{list(value.shape)}"
                )


def _loop(trainer: Trainer, source: Source, split: Split, run: Run | None, step: int, output: Output) -> None:
    """Steps, logs, evaluations and checkpoints from `step` to the end; `run` is None on ranks other than 0."""
    config, steps = trainer.config, trainer.config.steps
    first = saved = step
    with (
        _removed_unless_begun(run, step) as done,
        switched(trainer),
        interrupt.catch() as stop,
        said_once(),
        RunRecorder(
            trainer, source, split, run, step, output.progress, advise=output.advise, report=output.report
        ) as recorder,
    ):
        if not steps and run is not None and not run.states():
            recorder.evaluate(0)
            recorder.save(0)
        while step < steps:
            start = time.perf_counter() if step == first and config.compile else None
            try:
                trainer.step(step)
            except torch.OutOfMemoryError as error:
                error.add_note(relief(config, trainer.shape, trainer.world))
                raise
            step += 1
            done[0] = step
            recorder.look_ahead(step)
            if start is not None:
                trainer.nonfinite_step()  # which waits for the device
                output.say(f"the first step, with its compilation, took {time.perf_counter() - start:.0f} s")
            signum = stop.agreed(step)
            end = step == steps
            evaluates = end or step % config.eval_every == 0
            saves = end or signum != 0 or step % config.save_every == 0
            logs = end or step % config.log_every == 0
            if not (evaluates or saves or logs):
                recorder.tick(step)
                continue
            if (bad := trainer.nonfinite_step()) is not None:
                raise Diverged(_autopsy(trainer, run, f"the loss was not finite at step {bad + 1}", saved))
            if saves and not trainer.finite():  # else the checkpoint would be the last, but no good one
                raise Diverged(_autopsy(trainer, run, f"the weights were not finite after step {step}", saved))
            if logs:
                recorder.log(step)
                for text in trainer.batches.news():
                    output.say(text)
            if evaluates or saves:
                trainer.average_statistics()
            if evaluates:
                recorder.evaluate(step)
            if saves:
                recorder.save(step)
                saved = step
            parallel.barrier()
            if signum and not end:
                name, where = signal.Signals(signum).name, run.path if run else "RUN"
                raise Interrupted(
                    f"stopped by {name} after step {step} of {steps}; the state is saved, and "
                    f"`fewlabels train --resume {where}` goes on from it",
                    signum,
                )
        recorder.finish()


@contextlib.contextmanager
def _removed_unless_begun(run: Run | None, step: int) -> Iterator[list[int]]:
    """A run that fails on its way to the first step leaves nothing; the block notes in the list how far it is."""
    done = [step]
    try:
        yield done
    except Exception:
        if run is not None and not done[0]:
            run.discard()
        raise


def _autopsy(trainer: Trainer, run: Run | None, what: str, saved: int) -> str:
    terms = ", ".join(f"{n} {v:g}" for n, v in trainer.read_log().items() if n.startswith("loss"))
    last = f"the last good checkpoint is step {saved}" if saved else "there is no checkpoint yet"
    where = f" in {run.path}" if run else ""
    return (
        f"{what} ({terms} since the last log point); {last}{where}; "
        f"try a smaller --optim.lr (it is {trainer.config.optim.lr:g})"
    )
