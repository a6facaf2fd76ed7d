"""Weights from local files; nothing is unpickled that could be a program."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from fewlabels.runtime.regular import expanded


class Weights(NamedTuple):
    """A state dict and the file that it came from."""

    path: str
    tensors: dict[str, Tensor]
    first: str
    """A key of the file, for sentences: `tensors` may have been given other names."""


def read(path: str) -> Weights:
    """The state dict in a ``.safetensors`` or ``torch.save`` file, on the CPU.

    Understood are a plain state dict, one under ``state_dict`` or ``model``, names that start with ``module.``, and
    the checkpoints of runs, of which the net's averaged weights are taken.

    Raises:
        ValueError: when there is no such file, or no such content.
    """
    file = expanded(path)
    if not file.is_file():
        raise ValueError(f"Net.pretrained: there is no file {path}")
    try:
        if file.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # the readers raise whatever the bytes happen to make them
        raise ValueError(f"Net.pretrained: {path} is no file of weights (.safetensors, or .pth of tensors)") from None
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()) or not content:
        raise ValueError(f"Net.pretrained: {path} holds no state dict of tensors")
    for prefix in ("ema.net.", "ema."):  # of a run, and of one from before models had heads
        if own := {key.removeprefix(prefix): v for key, v in content.items() if key.startswith(prefix)}:
            content = own
            break
    tensors = {key.removeprefix("module."): v for key, v in content.items()}
    return Weights(path, tensors, next(iter(tensors)))


def misfit(weights: Weights, name: str, reason: str) -> ValueError:
    """The sentence about weights that are not those of the net `name`."""
    return ValueError(f"the weights in {weights.path} do not fit net {name!r}: {reason}")


def check_names(
    weights: Weights, name: str, needed: Iterable[str], known: Container[str], given: Iterable[str]
) -> None:
    """Raises ValueError, naming a key of the file and one of the net, where one that the net `name` needs is not
    among those `given`, or one of these is not `known`."""
    given, needed = list(given), list(needed)
    missing = next((key for key in needed if key not in weights.tensors), None)
    extra = next((key for key in given if key not in known), None)
    if missing and extra:
        raise misfit(weights, name, f"{missing} is missing, and {extra} is not part of the net")
    if missing:
        raise misfit(weights, name, f"{missing} is missing (the file has {weights.first})")
    if extra:
        raise misfit(weights, name, f"{extra} is not part of the net (which has {needed[0]})")


@torch.no_grad()
def adopt(net: nn.Module, weights: Weights, name: str, *, head: str = "linear") -> None:
    """Copy the weights into `net`, which is called `name`, except its layer `head`, which stays new.

    Raises:
        ValueError: when one is missing, has another shape, or is not part of the net.
    """
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(f"{head}.")}
    given = {k: v for k, v in weights.tensors.items() if not k.startswith(f"{head}.")}
    check_names(weights, name, [k for k in own if not k.endswith("num_batches_tracked")], own, given)
    for key, value in given.items():
        if value.shape != own[key].shape:
            shapes = f"{list(value.shape)} where the net has {list(own[key].shape)}"
            raise misfit(weights, name, f"{key} is {shapes}")
    net.load_state_dict(given, strict=False)
