"""The run folder: everything that a training leaves, finished or not.

    config.json     the resolved `Train`            data.json      classes, image shape, mean and std
    split.json      which images are labeled        metrics.jsonl  a line per log point and evaluation
    tensorboard/    the same curves                 checkpoints/   step-N (newest ones) and best-N
    result.json     written when the training is complete
    evidence.json                               before that: what the model says of the pictures it is measured on
    report.html                                 after that: the page about the run
    foreign.csv, foreign.png                    before that, `--openset` or iomatch: how foreign each unlabeled image is
    votes.npy                                   of self-training: what its teachers say of each unlabeled image
    next-predictions.csv, next-split.json       after that, of a generation of CReST: the labels of the next one
    weights.safetensors                         before that, with `--net.train lora`: the whole averaged model, `ema.*`

A checkpoint is a folder that appears whole or not at all: weights.safetensors (the model, net and heads: `raw.*`, and
its average `ema.*`), state.pt (optimizer, algorithm, views, scaler) and meta.json (step, checksums, and whose it is:
`fewlabels.runs.records`). Who trains owns the folder: `fewlabels.runs.owner`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import fewlabels
from fewlabels.config.plain import from_dict, to_dict
from fewlabels.config.settings import Train
from fewlabels.data.split import Split
from fewlabels.runs import records
from fewlabels.runs.checkpoint import Checkpoint, checkpoint_name
from fewlabels.runs.folder import LITTER, PARTS, WHOLE, clear, free_folder, has_begun, is_run
from fewlabels.runs.records import NotWritten, RunError
from fewlabels.runtime import files, regular

__all__ = ["Checkpoint", "NotWritten", "Run", "RunError"]


class Run:
    """A run folder on disk."""

    def __init__(self, path: Path | str, algorithms: Iterable[type] = ()) -> None:
        """Open an existing run. `algorithms` are config classes from outside the package that it may name.

        Raises RunError where there is none.
        """
        self.path = Path(path)
        self._algorithms = tuple(algorithms)
        if not self.path.is_dir():
            raise RunError(f"there is no run folder {self.path}")
        try:
            os.lstat(self.path / "config.json")
        except FileNotFoundError:
            raise RunError(f"{self.path} is not a run folder: it has no config.json") from None
        except OSError as error:
            raise RunError(f"the run folder {self.path} cannot be read: {error.strerror}") from None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        path: Path,
        config: Train,
        split: Split,
        data: Mapping[str, Any],
        *,
        overwrite: bool = False,
        baseline: bool = False,
    ) -> Run:
        """Make the folder and write what is known before the first step.

        baseline: a supervised baseline is to follow. Raises RunError unless the folder is free, NotWritten.
        """
        cls.check_free(path, overwrite=overwrite)
        settings = {"fewlabels": fewlabels.__version__, "train": to_dict(config), "baseline": baseline}
        try:
            path.mkdir(parents=True, exist_ok=True)
            clear(path)
            # First, as it is what `check_free` knows a run by: one that was killed right here can be overwritten.
            files.write_json(path / "config.json", settings)
            files.write_file(path / "split.json", split.to_json().encode())
            files.write_json(path / "data.json", dict(data))
            (path / "checkpoints").mkdir()
        except OSError as error:
            with contextlib.suppress(OSError):
                clear(path)
            raise NotWritten(f"cannot write the run folder {path}: {error.strerror or error}") from None
        return cls(path, (type(config.algorithm),))

    @staticmethod
    def check_free(path: Path, *, overwrite: bool) -> None:
        """Raises RunError unless a run may be made at `path`: in no folder, in an empty one, in place of a run that
        was stopped before it had anything to show, or of any run with `overwrite`."""
        if os.path.lexists(path) and not path.is_dir():
            what = "a link to nowhere" if path.is_symlink() and not path.exists() else "a file"
            raise RunError(f"cannot make the run folder {path}: {what} of that name exists")
        names = {p.name for p in path.iterdir()} - {*LITTER} if path.is_dir() else set()
        if not names or (is_run(path) and names <= {*PARTS} and not has_begun(path)):
            return
        if not overwrite:
            raise RunError(f"{path} exists and is not empty; name another --out, or add --overwrite")
        if not is_run(path):
            why = "its config.json is not that of a run" if "config.json" in names else "it has no config.json"
            raise RunError(f"{path} is not a run folder ({why}), so --overwrite leaves it")

    def discard(self) -> None:
        """Take away what `create` and the first moments of a training wrote."""
        clear(self.path)

    @property
    def config(self) -> Train:
        """The resolved configuration, from config.json. Raises RunError."""
        settings = records.settings(self.path)
        try:
            return from_dict(settings, algorithms=self._algorithms)
        except (ValueError, TypeError) as error:
            raise RunError(f"{error} (in {self.path / 'config.json'})") from None

    @property
    def wants_baseline(self) -> bool:
        """Whether a supervised baseline follows the training, or has begun."""
        return records.parsed(self.path / "config.json").get("baseline") is True or (self.path / "baseline").is_dir()

    @property
    def data(self) -> dict[str, Any]:
        """Content of data.json: classes, shape (C, H, W), mean and std by channel, source. Raises RunError."""
        data = records.parsed(self.path / "data.json")
        if not _describes(data):
            raise RunError(f"{self.path / 'data.json'} does not describe the data of a run")
        return data

    @property
    def split(self) -> Split:
        """Which images are labeled, as split.json says. Raises RunError."""
        path = self.path / "split.json"
        with records.reading(path):
            text = regular.read_text(path)
        try:
            return Split.from_json(text)
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}") from None

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of the settings that the checkpoints of this run carry, as they were when first asked for.

        Raises RunError.
        """
        return records.identity(self.path)

    @property
    def finished(self) -> bool:
        return records.finished(self.path)

    @property
    def result(self) -> dict[str, Any]:
        """result.json: the summary of a complete training. Raises RunError where there is none, or it has changed."""
        return {k: v for k, v in records.result(self.path).items() if k not in ("records", "run", "seal", "whole")}

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, as `records.metrics` has them; `kind` is "eval" or "log"."""
        return records.metrics(self.path, kind)

    def written(self, step: int) -> bytes:
        """The lines of metrics.jsonl up to the checkpoint of a step. Raises RunError where they have changed."""
        name = checkpoint_name(step, best=False)
        meta = records.parsed(self.path / "checkpoints" / name / "meta.json")
        return records.written(self.path, meta["records"], name) if meta.get("records") else b""

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints by step; the best one last among those of its step."""
        found = []
        folder = self.path / "checkpoints"
        for path in folder.iterdir() if folder.is_dir() else []:
            if match := re.fullmatch(r"(step|best)-(\d+)", path.name):
                found.append(Checkpoint(path, int(match[2]), match[1] == "best"))
        return sorted(found, key=lambda c: (c.step, c.best))

    def checkpoint(self, which: str = "last") -> Checkpoint:
        """The checkpoint `last`, `best`, or of a step number. Raises RunError where it is not kept."""
        every = self.checkpoints()
        if not every:
            raise RunError(f"{self.path} has no checkpoint yet")
        kept = ", ".join(sorted({str(c.step) for c in every}, key=int))
        if which == "last":
            found = [c for c in every if not c.best][-1:] or every[-1:]
        elif which == "best":
            found = [c for c in every if c.best][-1:]
        elif which.isdecimal():
            found = [c for c in every if str(c.step) == (which.lstrip("0") or "0")][-1:]
        else:
            raise RunError(f"--checkpoint must be last, best or a step, got {which!r} (kept: {kept})")
        if not found:
            raise RunError(f"{self.path} keeps no checkpoint {which!r} (kept: {kept})")
        return found[0]

    def states(self) -> list[Checkpoint]:
        """The checkpoints that a training can go on from, if they are good, by step."""
        return [c for c in self.checkpoints() if not c.best]

    def newest_good(self) -> tuple[Checkpoint, dict[str, Any], list[str]]:
        """The newest state that is undamaged, with its meta, and a sentence for each newer one that was passed over."""
        problems: list[str] = []
        for checkpoint in reversed(self.states()):
            try:
                meta = checkpoint.meta()
                self.written(checkpoint.step)
                return checkpoint, meta, problems
            except RunError as error:
                problems.append(str(error))
        raise RunError(problems[0] if problems else f"{self.path} has no checkpoint yet, so it cannot be resumed")

    def set_aside(self, step: int) -> None:
        """Rename the states beyond `step`, which were passed over, to ``unused-...``: they count no more. What a
        killed process had half written goes. Raises NotWritten."""
        for half in (self.path / "checkpoints").glob(".*"):
            shutil.rmtree(half, ignore_errors=True)
        for checkpoint in self.states():
            if checkpoint.step > step:
                try:
                    path = checkpoint.path
                    path.rename(free_folder(path.parent, f"unused-{path.name}"))
                except OSError as error:
                    raise NotWritten(f"cannot rename {checkpoint.path}: {error.strerror}") from None

    def last_saved(self) -> str:
        """Where a run that stops now can be resumed, for a sentence."""
        for checkpoint in reversed(self.states()):
            try:
                checkpoint.meta()
            except RunError:
                continue  # who resumes is told
            return f"the last good checkpoint is step {checkpoint.step}"
        return "there is no checkpoint yet"

    def save(
        self,
        step: int,
        weights: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        meta: Mapping[str, Any],
        *,
        best: bool = False,
        keep: int = 2,
    ) -> Checkpoint:
        """Write a checkpoint in one atomic step, then drop the older ones beyond `keep`.

        meta: what meta.json says besides; `records` are the bytes and sha256 of metrics.jsonl so far.
        Raises NotWritten, leaving every earlier checkpoint in place, if it cannot be written.
        """
        path = self.path / "checkpoints" / checkpoint_name(step, best)
        flat = {f"{n}.{k}": v.detach().cpu().contiguous() for n, part in weights.items() for k, v in part.items()}
        content = {"weights.safetensors": safetensors.torch.save(flat)}
        if not best:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            content["state.pt"] = buffer.getvalue()
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        sizes = {name: len(data) for name, data in content.items()}
        whole = {"format": records.FORMAT, "step": step, "best": best, **meta, "bytes": sizes, "sha256": digests}
        whole = records.sealed(whole, self.identity)
        content["meta.json"] = json.dumps(whole, indent=1).encode()
        try:
            with files.new_folder(path) as folder:
                for name, data in content.items():
                    files.write_bytes(folder / name, data)
        except OSError as error:
            raise NotWritten(
                f"could not save the checkpoint of step {step} to {path}: {error.strerror}; {self.last_saved()}"
            ) from None
        same = [c for c in self.checkpoints() if c.best == best]
        # a killed run may have left a best one from beyond the step that it was resumed at; a state from there is bad
        for old in [c for c in same if c.step != step] if best else [c for c in same if c.step <= step][:-keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        return Checkpoint(path, step, best)

    def write_whole(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """Write the whole averaged model; what result.json says of it, by which `whole` knows it. Raises NotWritten."""
        data = safetensors.torch.save({f"ema.{k}": v.detach().cpu().contiguous() for k, v in weights.items()})
        self.write(WHOLE, data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def whole(self) -> dict[str, Tensor] | None:
        """The whole averaged model of a finished run, if it has it beside the checkpoints.

        Raises RunError where it has changed since it was written.
        """
        path = self.path / WHOLE
        if not self.finished or not os.path.lexists(path):
            return None
        mark = records.result(self.path).get("whole")
        if not isinstance(mark, dict):
            return None
        with records.reading(path):
            data = regular.read_bytes(path, mark["bytes"])
        if hashlib.sha256(data).hexdigest() != mark["sha256"]:
            raise RunError(
                f"{path} has changed since it was written: put it back, or remove it and have the body again"
            )
        return {name.removeprefix("ema."): value for name, value in safetensors.torch.load(data).items()}

    def write(self, name: str, data: bytes) -> None:
        """Write one of `PARTS`. Raises NotWritten."""
        assert name in PARTS, name
        try:
            files.write_file(self.path / name, data)
        except OSError as error:
            raise NotWritten(f"could not write {self.path / name}: {error.strerror}; {self.last_saved()}") from None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """`write` of a JSON object."""
        self.write(name, files.json_text(content))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, sealed. Raises NotWritten."""
        try:
            files.write_json(self.path / "result.json", records.sealed(result, self.identity))
        except OSError as error:
            raise NotWritten(f"could not write {self.path / 'result.json'}: {error.strerror}") from None

    def compare(self, name: str, accuracy: float) -> None:
        """Add to result.json, under `compared`, what another run came to, in percent. Raises RunError, NotWritten."""
        content = {k: v for k, v in records.result(self.path).items() if k not in ("run", "seal")}
        compared = content.get("compared", {})
        if compared.get(name) != accuracy:
            self.finish({**content, "compared": {**compared, name: accuracy}})


def _describes(data: Mapping[str, Any]) -> bool:
    """Whether data.json has what a model needs, and in the right form."""
    if not {"classes", "shape", "mean", "std"} <= data.keys():
        return False
    classes, shape, values = data["classes"], data["shape"], data.get("values")
    lists = [part for part in (classes, shape, data["mean"], data["std"]) if isinstance(part, list)]
    if len(lists) < 4 or not classes or not all(isinstance(name, str) for name in classes):
        return False
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
        return False
    numbers = [v if type(v) in (int, float) else math.nan for v in (*data["mean"], *data["std"])]
    if len(data["mean"]) != shape[0] or len(data["std"]) != shape[0] or not all(map(math.isfinite, numbers)):
        return False
    return values is None or (isinstance(values, list) and len(values) == len(classes))
