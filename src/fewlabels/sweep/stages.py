"""Self-training whole: models on the labels alone, then one more on the labels and on their votes.

Each is a run in a folder of its own, so that the same command goes on wherever it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewlabels.algorithms import SelfTraining, Supervised
from fewlabels.config.settings import Train
from fewlabels.runs.run import RunError
from fewlabels.sweep.plan import Job, job_of, root_of

SEEDS = (1, 2, 3)
"""Of the teachers, where neither seeds nor nets are named."""


def stages(
    config: Train,
    *,
    seeds: Sequence[int] = (),
    nets: Sequence[str] = (),
    out: Path | str | None = None,
    overwrite: bool = False,
) -> list[Job]:
    """The runs `teacher-1`, `teacher-2`, ... in the folder `out`, and `student` after all of them.

    Args:
        config: of the student, a `SelfTraining` without teachers; they have its data, net, optimizer and steps.
        seeds: of the trainings of the teachers, each with each of `nets`; default: `SEEDS` with the student's net, its
            own seed with other nets.
        nets: their networks by name; default: the student's.
        out: default `runs/DATA-self-training-sSEED-stages`.
        overwrite: replace runs of another configuration, which are refused otherwise.

    Raises RunError as `fewlabels.sweep.plan.plan`.
    """
    assert isinstance(config.algorithm, SelfTraining)
    root = root_of(config, "stage", out)
    own = replace(config, algorithm=Supervised(view="weak"))
    teachers = [
        replace(own, seed=seed, net=replace(config.net, name=net))
        for net in nets or (config.net.name,)
        for seed in seeds or ((config.seed,) if nets else SEEDS)
    ]
    names = [str(root / f"teacher-{i}") for i in range(1, len(teachers) + 1)]
    jobs = [
        job_of(f"teacher {i}", Path(name), teacher, overwrite=overwrite)
        for i, (name, teacher) in enumerate(zip(names, teachers, strict=True), 1)
    ]
    learning = replace(config, algorithm=replace(config.algorithm, teachers=tuple(names)))
    student = job_of("student", root / "student", learning, overwrite=overwrite, last=True)
    if student.start and (new := next((job for job in jobs if not job.finished), None)):
        if not overwrite:
            raise RunError(
                f"{student.path} has learned from its teachers already, and {new.path} is to be trained anew; name "
                "another --out, or add --overwrite to replace it"
            )
        student = replace(student, known=False, start=0, finished=False)
    return [*jobs, student]
