"""The body of a net that does not learn: a run does not hold it, but says where it came from and which one it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabels import nets
from fewlabels.config.settings import Train
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.regular import expanded, real

if TYPE_CHECKING:
    from fewlabels.inference.model import Model

BODY = "body.safetensors"
"""The file of the body in a run folder that goes elsewhere."""


def facts_of(config: Train, model: Model) -> dict[str, Any]:
    """What data.json says of the body: where its weights lie, and their digest; nothing where all of the net learns."""
    if not model.frozen:
        return {}
    weights = config.net.pretrained
    place = str(real(expanded(weights))) if isinstance(weights, str) else weights
    return {"body": {"weights": place, "sha256": nets.digest(model.state_dict(), model.frozen)}}


def with_body(run: Run, config: Train) -> Train:
    """`config` with the place where the body of the run lies: where it was, or in the run's folder.

    Raises RunError where it is gone.
    """
    body = run.data.get("body")
    if config.net.train == "all":
        return config
    if not isinstance(body, dict) or not isinstance(body.get("sha256"), str):
        raise RunError(f"{run.path / 'data.json'} does not say which body the net of the run has")
    place: Any = body.get("weights")
    if isinstance(place, str):
        copy = run.path / Path(place).name
        places = (copy,) if place == BODY else (Path(place), copy)  # whatever lies in the current folder
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise RunError(
                f"{run.path} holds {held(config)} of its net only, and the file of the body is gone: put {place} back, "
                f"or a copy of it to {copy}"
            )
        place = str(found)
    return replace(config, net=replace(config.net, pretrained=place))


def check_body(run: Run, model: Model) -> None:
    """Raises RunError where the body is another one than the run was trained on."""
    if model.frozen and nets.digest(model.state_dict(), model.frozen) != run.data["body"]["sha256"]:
        raise RunError(
            f"the weights {_named(run.data['body']['weights'])} are others than when {run.path} was trained on their "
            "features: put back those, or train a new run"
        )


def held(config: Train) -> str:
    """What a checkpoint holds where the body does not learn, in words."""
    return "the head" if config.net.train == "head" else "the head and the bypasses"


def _named(place: Any) -> str:
    return f"in {place}" if isinstance(place, str) else "that the library offers for the net"
