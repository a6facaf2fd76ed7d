"""The run folder: everything that a training leaves, finished or not.

    config.json     the resolved `Train`            data.json      classes, image shape, mean and std
    split.json      which images are labeled        metrics.jsonl  a line per log point and evaluation
    tensorboard/    the same curves                 checkpoints/   step-N (newest ones) and best-N
    result.json     written when the training is complete

A checkpoint is a folder that appears whole or not at all: weights.safetensors (the nets, `raw.*` and
`ema.*`), state.pt (optimizer, algorithm, views, scaler) and meta.json (step, split, checksums).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

import fewlabels
from fewlabels import files
from fewlabels.config import Train, algorithm_name, from_dict, to_dict
from fewlabels.data.names import is_folder
from fewlabels.data.split import Split


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message is one sentence for the user."""


class NotWritten(RunError):
    """The disk did not take it; what was saved before is as it was."""


class Checkpoint(NamedTuple):
    path: Path
    step: int
    best: bool

    def meta(self) -> dict[str, Any]:
        """Checked content of meta.json: every file that it names is there, whole and unchanged."""
        try:
            meta: dict[str, Any] = json.loads((self.path / "meta.json").read_text())
            for name, digest in meta["sha256"].items():
                data = (self.path / name).read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise RunError(f"checkpoint {self.path} is damaged: {name} has changed since it was written")
        except FileNotFoundError as error:
            raise RunError(f"checkpoint {self.path} is incomplete: {Path(error.filename).name} is missing") from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"checkpoint {self.path} is damaged: meta.json cannot be read") from None
        return meta

    def weights(self, which: str) -> dict[str, Tensor]:
        """State dict of the net; `which` is "ema" or "raw"."""
        tensors = safetensors.torch.load((self.path / "weights.safetensors").read_bytes())
        return {k[len(which) + 1 :]: v for k, v in tensors.items() if k.startswith(which + ".")}

    def state(self) -> dict[str, Any]:
        data = io.BytesIO((self.path / "state.pt").read_bytes())
        state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
        return state


class Run:
    """A run folder on disk."""

    def __init__(self, path: Path | str, algorithms: Iterable[type] = ()) -> None:
        """Open an existing run. `algorithms` are config classes from outside the package that it may name."""
        self.path = Path(path)
        self._algorithms = tuple(algorithms)
        if not self.path.is_dir():
            raise RunError(f"there is no run folder {self.path}")
        if not (self.path / "config.json").is_file():
            raise RunError(f"{self.path} is not a run folder: it has no config.json")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(
        cls, path: Path, config: Train, split: Split, data: Mapping[str, Any], *, overwrite: bool = False
    ) -> Run:
        """Make the folder and write what is known before the first step."""
        cls.check_free(path, overwrite=overwrite)
        try:
            if path.is_dir():
                shutil.rmtree(path)
            path.mkdir(parents=True)
            # First, as it is what `check_free` knows a run by: one that was killed right here can be overwritten.
            files.write_json(path / "config.json", {"fewlabels": fewlabels.__version__, "train": to_dict(config)})
            files.write_file(path / "split.json", split.to_json().encode())
            files.write_json(path / "data.json", dict(data))
            (path / "checkpoints").mkdir()
        except OSError as error:
            raise RunError(f"cannot write the run folder {path}: {error.strerror}") from None
        return cls(path, (type(config.algorithm),))

    @staticmethod
    def check_free(path: Path, *, overwrite: bool) -> None:
        """Raises RunError unless a run may be made at `path`."""
        if path.exists() and not path.is_dir():
            raise RunError(f"cannot make the run folder {path}: a file of that name exists")
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise RunError(f"{path} exists and is not empty; name another --out, or add --overwrite")
            if not (path / "config.json").is_file():
                raise RunError(f"{path} is not a run folder (it has no config.json), so --overwrite leaves it")

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text()
        except FileNotFoundError:
            raise RunError(f"{self.path} is incomplete: {name} is missing") from None
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{self.path / name} cannot be read") from None

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self._text(name))
        except json.JSONDecodeError:
            raise RunError(f"{self.path / name} is not JSON") from None

    @property
    def config(self) -> Train:
        """The resolved configuration."""
        content = self._read("config.json")
        if not isinstance(content, dict) or "train" not in content:
            raise RunError(f"{self.path / 'config.json'} holds no training configuration")
        return from_dict(content["train"], algorithms=self._algorithms)

    @property
    def data(self) -> dict[str, Any]:
        """What data.json says: classes, shape, mean, std, source."""
        data: dict[str, Any] = self._read("data.json")
        if not isinstance(data, dict) or not {"classes", "shape", "mean", "std"} <= data.keys():
            raise RunError(f"{self.path / 'data.json'} does not describe the data of a run")
        return data

    @property
    def split(self) -> Split:
        try:
            return Split.from_json(self._text("split.json"))
        except RunError:
            raise
        except ValueError as error:
            raise RunError(f"{self.path / 'split.json'} is damaged: {error}") from None

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").is_file()

    @property
    def result(self) -> dict[str, Any]:
        """result.json: the summary of a complete training."""
        result: dict[str, Any] = self._read("result.json")
        return result

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl; `kind` is "eval" or "log". A half-written last line is left out."""
        path = self.path / "metrics.jsonl"
        out = []
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if kind is None or record["kind"] == kind:
                out.append(record)
        return out

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints by step; the best one last among those of its step."""
        found = []
        folder = self.path / "checkpoints"
        for path in folder.iterdir() if folder.is_dir() else []:
            if match := re.fullmatch(r"(step|best)-(\d+)", path.name):
                found.append(Checkpoint(path, int(match[2]), match[1] == "best"))
        return sorted(found, key=lambda c: (c.step, c.best))

    def checkpoint(self, which: str = "last") -> Checkpoint:
        """`last`, `best`, or a step number."""
        every = self.checkpoints()
        if not every:
            raise RunError(f"{self.path} has no checkpoint yet")
        kept = ", ".join(sorted({str(c.step) for c in every}, key=int))
        if which == "last":
            found = [c for c in every if not c.best][-1:] or every[-1:]
        elif which == "best":
            found = [c for c in every if c.best][-1:]
        elif which.isdigit():
            found = [c for c in every if c.step == int(which)][-1:]
        else:
            raise RunError(f"--checkpoint must be last, best or a step, got {which!r} (kept: {kept})")
        if not found:
            raise RunError(f"{self.path} keeps no checkpoint {which!r} (kept: {kept})")
        return found[0]

    def newest_good(self) -> tuple[Checkpoint, dict[str, Any], list[str]]:
        """The newest undamaged checkpoint with its meta, and a sentence for each damaged one that was passed over."""
        problems: list[str] = []
        for checkpoint in reversed([c for c in self.checkpoints() if not c.best]):
            try:
                return checkpoint, checkpoint.meta(), problems
            except RunError as error:
                problems.append(str(error))
        raise RunError(problems[0] if problems else f"{self.path} has no checkpoint yet, so it cannot be resumed")

    def last_saved(self) -> str:
        """Where a run that stops now can be resumed, for a sentence."""
        steps = [c.step for c in self.checkpoints() if not c.best]
        return f"the last good checkpoint is step {steps[-1]}" if steps else "there is no checkpoint yet"

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

        Raises NotWritten, leaving every earlier checkpoint in place, if it cannot be written.
        """
        kind = "best" if best else "step"
        path = self.path / "checkpoints" / f"{kind}-{step:08d}"
        flat = {f"{n}.{k}": v.detach().cpu().contiguous() for n, part in weights.items() for k, v in part.items()}
        content = {"weights.safetensors": safetensors.torch.save(flat)}
        if not best:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            content["state.pt"] = buffer.getvalue()
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        content["meta.json"] = json.dumps({"step": step, **meta, "sha256": digests}, indent=1).encode()
        try:
            with files.new_folder(path) as folder:
                for name, data in content.items():
                    files.write_bytes(folder / name, data)
        except OSError as error:
            raise NotWritten(
                f"could not save the checkpoint of step {step} to {path}: {error.strerror}; {self.last_saved()}"
            ) from None
        same = [c for c in self.checkpoints() if c.best == best]
        # a killed run may have left a best one from beyond the step that it was resumed at
        for old in [c for c in same if c.step != step] if best else same[:-keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        return Checkpoint(path, step, best)

    def finish(self, result: Mapping[str, Any]) -> None:
        files.write_json(self.path / "result.json", dict(result))


def run_name(train: Train) -> str:
    """`DATA-ALGORITHM-sSEED`, the folder name of a run that was given none."""
    name = train.data.name
    data = Path(name).expanduser().resolve().name if is_folder(name) else name
    return f"{data}-{algorithm_name(train.algorithm)}-s{train.seed}"


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3`, ... that does not exist."""
    path, n = parent / name, 1
    while path.exists():
        n += 1
        path = parent / f"{name}-{n}"
    return path
