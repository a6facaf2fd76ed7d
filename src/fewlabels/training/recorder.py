"""The work of rank 0 around the steps of a training: log points, evaluations, checkpoints, display, result."""

from __future__ import annotations

import contextlib
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch

import fewlabels
from fewlabels.config.settings import algorithm_name
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.runs.curves import curve
from fewlabels.runs.folder import SHEET, TABLE
from fewlabels.runs.run import NotWritten, Run
from fewlabels.runtime import parallel
from fewlabels.runtime.words import reason
from fewlabels.training import log, trackers
from fewlabels.training.afterwards import leave_evidence, leave_page
from fewlabels.training.evaluator import Evaluator
from fewlabels.training.findings import sheet, table
from fewlabels.training.pace import Outlook
from fewlabels.training.step import Trainer, parameters


class RunRecorder:
    """Log points, evaluations and checkpoints of a training; `run` is None on ranks other than 0.

    A context manager: it opens the record files and the display, and closes them.
    """

    def __init__(
        self,
        trainer: Trainer,
        source: Source,
        split: Split,
        run: Run | None,
        step: int,
        progress: log.Progressing,
        *,
        advise: bool = False,
        report: bool = True,
    ) -> None:
        config = trainer.config
        self.trainer, self.run, self.source, self.split = trainer, run, source, split
        self.report = report
        self.start = self.lap_start = time.perf_counter()
        self.first = self.lap_step = step
        self.aside = 0.0
        """Seconds of evaluations and checkpoints so far."""
        self.accuracy = self.losses = ""
        self.outlook: Outlook | None = None
        self.tracker = trackers.begin(run) if run is not None else None
        if run is None:
            self.display: log.Display = log.Silence()
            return
        self.writer = log.MetricsWriter(run, step, trainer.classes, self._track)
        self.evaluator = Evaluator(trainer, source, split)
        self.best = max((r["score"] for r in run.metrics("eval")), default=-1.0)
        title = f"{algorithm_name(config.algorithm)} {config.data.name}"
        self.display = log.display(title, config.steps, step, progress=progress)
        if self.tracker is not None:
            self.display.line(f"curves also in {self.tracker.where}")
        if progress is not None:
            self.outlook = Outlook(trainer, self.evaluator, step, advise=advise)

    def __enter__(self) -> RunRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(lambda tracker: tracker.end(finished=error is None))
        self.display.close()
        if self.run:  # a full disk fails again when the files are closed: the first sentence is the one to hear
            with contextlib.suppress(NotWritten) if error else contextlib.nullcontext():
                self.writer.close()

    def _track(self, values: Mapping[str, float], step: int) -> None:
        self._tell(lambda tracker: tracker.put(values, step))

    def _tell(self, say: Callable[[trackers.Tracker], None]) -> None:
        """Tell the tracker something; one that fails is told no more, and that is all."""
        if self.tracker is None:
            return
        try:
            say(self.tracker)
        except Exception as failed:  # whatever it is, the training goes on
            self.display.line(f"note: --log {self.trainer.config.log} gets no more curves ({reason(failed)})")
            self.tracker = None

    def tick(self, step: int) -> None:
        """A step without anything to write."""
        if step % 5 == 0:
            self.display.update(step, self.text)

    def log(self, step: int) -> None:
        """Read the logged values of the last steps, on all ranks."""
        values = self.trainer.read_log()
        now = time.perf_counter()
        n = max(1, step - self.lap_step)
        step_ms = 1000 * (now - self.lap_start) / n
        timing = {
            "lr": float(self.trainer.optimizer.param_groups[0]["lr"]),
            "step_ms": step_ms,
            "data_ms": 1000 * self.trainer.data_seconds / n,
        }
        self.trainer.data_seconds = 0.0
        self.lap_step, self.lap_start = step, now
        if self.run is None:
            return
        self.writer.log(step, values, timing)
        self.losses = log.shown({"kind": "log", **values, **timing})
        self.display.update(step, self.text)

    @property
    def text(self) -> str:
        """Accuracy, losses and speed, as far as they are known."""
        return "  ".join(filter(None, (self.accuracy, self.losses)))

    def evaluate(self, step: int) -> None:
        if self.run is None:
            return
        start = time.perf_counter()
        record = self.evaluator.record()
        self.writer.evaluation(step, record)
        self.accuracy = log.shown({"kind": "eval", **record})
        steps = self.trainer.config.steps
        self.display.line(f"step {step}/{steps}  {self.text}" if steps else self.text)
        for remark in self.trainer.remarks() if step == steps else ():
            self.display.line(f"note: {remark}")
        if record["score"] > self.best:
            self.best = record["score"]
            self.writer.sync()
            self.run.save(step, self.trainer.weights(), {}, self._meta(), best=True)
        self._put_aside(start)

    def save(self, step: int) -> None:
        if self.run is None:
            return
        start = time.perf_counter()
        keep = self.trainer.config.keep
        self.writer.sync()
        self.run.save(step, self.trainer.weights(), self.trainer.state(), self._meta(), keep=keep)
        self._put_aside(start)

    def _put_aside(self, start: float) -> None:
        """The time since `start` is none of the steps'."""
        spent = time.perf_counter() - start
        self.lap_start += spent
        self.aside += spent

    def look_ahead(self, step: int) -> None:
        """Say how long the training takes, when that is known from its first steps."""
        if self.outlook is not None and (line := self.outlook.line(step, self.aside)):
            self.display.line(line)
        if self.outlook is not None and self.outlook.said:
            self.outlook = None

    def _meta(self) -> dict[str, Any]:
        return {"world": parallel.world(), "split": self.split.fingerprint, "records": self.writer.mark}

    def finish(self) -> None:
        """Write what the algorithm has found out and the evidence, then result.json, and then the page about it all."""
        if self.run is None:
            return
        findings = self.trainer.algorithm.findings(self.trainer.classes)
        for found in findings:
            self.run.write(found.name + TABLE, table(found, self.source, self.split))
            self.run.write(found.name + SHEET, sheet(found, self.source, self.split))
        average = self.trainer.average.model
        whole = {} if average.fixed or not average.frozen else {"whole": self.run.write_whole(average.merged())}
        evals = self.run.metrics("eval")
        part, config = self.evaluator.main, self.trainer.config
        last = evals[-1][part]
        cuda = self.trainer.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated() if cuda else peak_memory()
        seconds, problem = time.perf_counter() - self.start, None
        if self.report:
            problem = leave_evidence(self.trainer, self.evaluator, self.source, self.split, self.run)
        self.run.finish(
            {
                "algorithm": algorithm_name(config.algorithm),
                "data": config.data.name,
                "seed": config.seed,
                "split": self.split.fingerprint,
                "steps": config.steps,
                "measured_on": part,
                "accuracy": last["ema"]["accuracy"],
                "accuracy_raw": last["raw"]["accuracy"],
                "geometric_mean": last["ema"]["geometric_mean"],
                **curve([r[part]["ema"]["accuracy"] for r in evals]),
                "parameters": parameters(self.trainer.model.net),
                **{name: self.run.data[name] for name in ("fit", "compared") if self.run.data.get(name)},
                "seconds": seconds,
                "seconds_from_step": self.first,
                "peak_memory_bytes": memory,
                "device": device_name(self.trainer.device),
                **{found.name: found.result for found in findings},
                "records": self.writer.mark,
                **whole,
                "versions": {
                    "fewlabels": fewlabels.__version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
            }
        )
        if self.report and (problem := problem or leave_page(self.run)) is not None:
            self.display.line(f"note: {problem}")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} thread(s), {platform.machine()}"
