"""Weights from local files; nothing is unpickled that could be a program."""

from __future__ import annotations

from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from fewlabels.runtime.regular import expanded


class Weights(NamedTuple):
    """A state dict and the file that it came from."""

    path: str
    tensors: dict[str, Tensor]


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
    return Weights(path, {key.removeprefix("module."): v for key, v in content.items()})


def misfit(weights: Weights, name: str, reason: str) -> ValueError:
    """The sentence about weights that are not those of the net `name`."""
    return ValueError(f"the weights in {weights.path} do not fit net {name!r}: {reason}")


@torch.no_grad()
def adopt(net: nn.Module, weights: Weights, name: str, *, head: str = "linear") -> None:
    """Copy the weights into `net`, which is called `name`, except its layer `head`, which stays new.

    Raises:
        ValueError: when one is missing, has another shape, or is not part of the net.
    """
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(f"{head}.")}
    given = {k: v for k, v in weights.tensors.items() if not k.startswith(f"{head}.")}
    for key in own:
        if key not in given and not key.endswith("num_batches_tracked"):
            raise misfit(weights, name, f"{key} is missing")
    for key, value in given.items():
        if key not in own:
            raise misfit(weights, name, f"{key} is not part of the net")
        if value.shape != own[key].shape:
            shapes = f"{list(value.shape)} where the net has {list(own[key].shape)}"
            raise misfit(weights, name, f"{key} is {shapes}")
    net.load_state_dict(given, strict=False)
