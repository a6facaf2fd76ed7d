"""The curves of a training in Weights & Biases or MLflow, beside the records of the run (`--log`).

Both are told what TensorBoard is told, under the same tags, and by the run's `token` a resumed training finds what it
began. Neither is needed: a tracker that fails is left out, and the training goes on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from fewlabels.config.plain import to_dict
from fewlabels.runs.run import Run
from fewlabels.runtime.checked import flat
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import reason

PROJECT = "fewlabels"
"""What runs are filed under, where the environment (WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME) says nothing."""


class Tracker(Protocol):
    """A place for curves."""

    where: str
    """In words, for a line on the screen."""

    def put(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by tag, after so many steps."""

    def end(self, finished: bool) -> None:
        """The training has ended; `finished`: with a result."""


def check(name: str) -> None:
    """Raises ValueError where the package of a tracker is not installed."""
    if name in TRACKERS and importlib.util.find_spec(name) is None:
        raise ValueError(f"Train.log {name} needs the package {name}: pip install 'fewlabels[{name}]'")


def begin(run: Run) -> Tracker | None:
    """What `Train.log` of a run asks for, begun or gone on with; None for nothing.

    Raises ValueError in the tracker's own words where that fails.
    """
    name = run.config.log
    if name == "none":
        return None
    try:
        return TRACKERS[name](run)
    except Exception as error:  # of the network, of an account, of a server
        raise ValueError(f"--log {name}: {reason(error)}") from None


def token(run: Run) -> str:
    """16 letters by which a tracker knows a run: another one that replaces it in the folder has others."""
    begun = (run.path / "config.json").stat().st_mtime_ns
    return hashlib.sha256(f"{real(run.path)} {begun}".encode(errors="surrogateescape")).hexdigest()[:16]


class Wandb:
    """A run of Weights & Biases, https://docs.wandb.ai/ref/python/init."""

    def __init__(self, run: Run) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=str(run.path),
            id=token(run),
            resume="allow",
            config=flat(to_dict(run.config)),
            settings=wandb.Settings(console="off", silent=True),  # the screen is ours
        )
        self.where = f"Weights & Biases: {self.run.url or self.run.settings.sync_dir}"

    def put(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def end(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow by its client, which leaves the caller's active run alone, https://mlflow.org/docs."""

    def __init__(self, run: Run) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client, name = MlflowClient(), os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        begun = self.client.search_runs([experiment], f"tags.{PROJECT} = '{token(run)}'", max_results=1)
        if begun:
            self.id = begun[0].info.run_id
            self.client.set_terminated(self.id, "RUNNING")
        else:
            self.id = self.client.create_run(experiment, tags={PROJECT: token(run)}, run_name=str(run.path)).info.run_id
            params = [Param(key, str(value)[:500]) for key, value in flat(to_dict(run.config)).items()]
            for start in range(0, len(params), 100):  # the most that it takes at once
                self.client.log_batch(self.id, params=params[start : start + 100])
        self.where = f"MLflow: experiment {name}, run {self.id}"

    def put(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(metric_name(tag), value, now, step) for tag, value in values.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[start : start + 1000])

    def end(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def metric_name(tag: str) -> str:
    """A tag in the letters that MLflow takes, and as the path that it must be: the others become `_`."""
    plain = re.sub(r"[^\w /-]", "_", tag, flags=re.ASCII)[:250]
    return re.sub(r"/(?=/|$)", "_", plain)


TRACKERS: Mapping[str, Callable[[Run], Tracker]] = {"wandb": Wandb, "mlflow": MLflow}
"""By the value of `Train.log`, which is the name of the module and of the extra, too."""
