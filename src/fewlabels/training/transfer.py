"""A training that starts from learned weights: which file they are in, and what the new run says of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, NamedTuple

from fewlabels.config.settings import Net, Train
from fewlabels.inference.body import held
from fewlabels.nets import learned
from fewlabels.runs.checkpoint import Checkpoint
from fewlabels.runs.folder import WHOLE
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.regular import expanded


class Origin(NamedTuple):
    """The run that a file of weights belongs to."""

    run: Run
    checkpoint: Checkpoint


def weights_file(config: Train) -> Train:
    """`config` with the file of weights in place of what names it: the newest state of a run in place of the run's
    folder, the file of an installed package in place of True.

    Anything else that `Net.pretrained` may be stays. Raises RunError for a folder that is no run, or whose checkpoint
    is damaged.
    """
    given = config.net.pretrained
    if given is True and (given := learned.pretrained(config.net.name)) is not True:
        return replace(config, net=replace(config.net, pretrained=given))
    if not isinstance(given, str) or not expanded(given).is_dir():
        return config
    run = Run(expanded(given))
    checkpoint = run.checkpoint("last")
    checkpoint.meta()
    file = checkpoint.path / WHOLE
    if run.config.net.train != "all":
        file = run.path / WHOLE
        if run.whole() is None:
            place = run.data.get("body", {}).get("weights")
            raise RunError(
                f"{run.path} holds {held(run.config)} of its net only, which is nothing to start from; the weights of "
                f"its body are had with Net.pretrained {place}"
            )
    return replace(config, net=replace(config.net, pretrained=str(file)))


def origin(net: Net) -> Origin | None:
    """The run that the weights come from, if they are those of a run."""
    if not isinstance(net.pretrained, str):
        return None
    file = expanded(net.pretrained)
    if file.name == WHOLE and (file.parent / "config.json").is_file():
        run = Run(file.parent)
        return Origin(run, run.checkpoint("last")) if run.whole() is not None else None
    folder = file.parent.parent.parent
    if file.parent.parent.name != "checkpoints" or not (folder / "config.json").is_file():
        return None
    run = Run(folder)
    return next((Origin(run, c) for c in run.checkpoints() if c.path.name == file.parent.name), None)


def provenance(net: Net) -> dict[str, Any]:
    """What data.json says of a local file of weights: path, sha256, and the run and step that it belongs to."""
    if not isinstance(net.pretrained, str):
        return {}
    with expanded(net.pretrained).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told: dict[str, Any] = {"weights": net.pretrained, "sha256": digest}
    if (found := origin(net)) is not None:
        told |= {"run": str(found.run.path), "step": found.checkpoint.step}
    return {"pretrained": told}


def learned_scale(config: Train, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel that the weights of a run were trained with, where
    ``Data.normalize auto`` leaves the choice to us."""
    found = origin(config.net) if config.data.normalize == "auto" else None
    if found is None or len(found.run.data["mean"]) != channels:
        return None
    data = found.run.data
    return tuple(data["mean"]), tuple(data["std"])
