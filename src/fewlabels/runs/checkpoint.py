"""A checkpoint of a run: a folder with weights, state and meta.json, checked before anything of it is used."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fewlabels.runs import records
from fewlabels.runs.records import RunError
from fewlabels.runtime import regular


def checkpoint_name(step: int, best: bool) -> str:
    """The name of its folder."""
    return f"{'best' if best else 'step'}-{step:08d}"


class Checkpoint(NamedTuple):
    """The folder of a checkpoint, found by its name; whether it is good, `meta` checks."""

    path: Path
    step: int
    best: bool

    def meta(self) -> dict[str, Any]:
        """Checked content of meta.json: it is of this run, and every file that it names is there, whole and unchanged.

        Raises RunError.
        """
        damaged = f"checkpoint {self.path} is damaged: "
        meta = records.parsed(self.path / "meta.json", f"checkpoint {self.path}")
        if not records.is_sealed(meta):
            if meta.keys() >= records.FORMAT_1 and "seal" not in meta:
                raise RunError(
                    f"checkpoint {self.path} is of an earlier version of fewlabels, whose checkpoints do not say which "
                    "run they are of: go on with that version, or train the run again"
                )
            raise RunError(f"{damaged}meta.json has changed since it was written")
        if (form := meta.get("format", 1)) != records.FORMAT:
            raise RunError(
                f"checkpoint {self.path} is of another version of fewlabels, with weights in format {form!r}, which "
                f"must be {records.FORMAT} here: go on with that version, or train the run again"
            )
        records.check_own(meta, self.path.parent.parent, f"checkpoint {self.path}")
        if (meta["step"], meta["best"]) != (self.step, self.best):
            raise RunError(f"{damaged}it was renamed from {checkpoint_name(meta['step'], meta['best'])}")
        for name, digest in meta["sha256"].items():
            if hashlib.sha256(self._bytes(name, meta["bytes"][name])).hexdigest() != digest:
                raise RunError(f"{damaged}{name} has changed since it was written")
        return meta

    def _bytes(self, name: str, size: int | None = None) -> bytes:
        with records.reading(self.path / name, f"checkpoint {self.path}"):
            return regular.read_bytes(self.path / name, size)

    def weights(self, which: str) -> dict[str, Tensor]:
        """State dict of the model; `which` is "ema" or "raw". Raises RunError."""
        try:
            tensors = safetensors.torch.load(self._bytes("weights.safetensors"))
        except (SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"checkpoint {self.path} is damaged: weights.safetensors holds no weights ({error})"
            ) from None
        return {k[len(which) + 1 :]: v for k, v in tensors.items() if k.startswith(which + ".")}

    def state(self) -> dict[str, Any]:
        """Content of state.pt, a dictionary. Raises RunError."""
        damaged = f"checkpoint {self.path} is damaged: state.pt holds no state that torch loads with weights_only=True"
        data = io.BytesIO(self._bytes("state.pt"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is no state torch warns, and then raises
                state = torch.load(data, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError):
            raise RunError(damaged) from None
        if not isinstance(state, dict):
            raise RunError(damaged)
        return state


def check_tensors(found: Any, wanted: Mapping[str, Any], what: str) -> None:
    """Raises RunError where `found`, called `what` in the sentence, has not the keys, shapes and dtypes of `wanted`."""
    if not isinstance(found, dict):
        raise RunError(f"{what} do not fit the run: they have no names")
    for name in [*wanted, *found]:
        mine, theirs = (_form(part[name]) if name in part else "nothing" for part in (wanted, found))
        if mine != theirs:
            raise RunError(f"{what} do not fit the run: {name} must be {mine}, and is {theirs}")


def _form(value: Any) -> str:
    """What must be the same of a part of a state."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"of type {type(value).__name__}"
