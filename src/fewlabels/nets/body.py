"""Which part of a net learns. What does not is its body: all but the last linear layer, and the bypasses of LoRA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.nets.lora import is_bypass
from fewlabels.nets.zoo import TOKENS

Learning = Literal["all", "lora", "head"]
"""What of a net learns: all of it, the last linear layer and bypasses beside the others, or that layer alone."""


def freeze(net: nn.Module, train: Learning) -> frozenset[str]:
    """Let only what `train` says learn; the names in the state dict of what stays as it is."""
    if train == "all":
        return frozenset()
    names = frozenset(key for key in net.state_dict() if not key.startswith("linear.") and not is_bypass(key))
    for key, parameter in net.named_parameters():
        parameter.requires_grad_(key not in names)
    return names


def digest(tensors: Mapping[str, Tensor], names: Iterable[str], *, fitted: bool = False) -> str:
    """sha256 (hex) of the tensors of these names, but for the counters of batch normalisation.

    fitted: also of what is fitted to the size of the images, embeddings of positions and of patches, whose last bits
    may be others on another machine.
    """
    sha = hashlib.sha256()
    for name in sorted(names):
        *path, last = name.split(".")
        if last == "num_batches_tracked" or (not fitted and (last in TOKENS or "patch_embed" in path)):
            continue
        value = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        sha.update(value.view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
