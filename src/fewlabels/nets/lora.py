"""LoRA (Hu et al. 2022, https://arxiv.org/abs/2106.09685): the linear layers of a learned net stay as they are, and a
bypass of low rank beside each of them learns.

``y = W x + b + alpha / r B A x``, with A ``[r, in]`` and B ``[out, r]``. A starts as torch's linear layers do
(He-uniform with a = sqrt(5)) and B with zeros, as in microsoft/LoRA, loralib/layers.py, and in peft: at the start the
net is the learned one.
"""

from __future__ import annotations

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

A, B = "lora_a", "lora_b"
"""Names of the two in the state dict, beside `weight` and `bias`, which keep theirs."""

_LAYER = re.compile(
    r"(?:.*\.)?(?:(?:attn|attention|xca)\w*\.(?:qkv|kv|q|k|v|q_proj|k_proj|v_proj|proj)|mlp\w*\.(?:fc1|fc1_g|fc1_x|fc2))"
)
"""Names in nets of timm of the linear layers of attention and MLP."""


class Adapted(nn.Linear):
    """A linear layer that does not learn, and its bypass.

    In training it computes the bypass beside the layer, ``r (in + out)`` products for each row in place of a gradient
    ``[out, in]``; in evaluation mode it is one layer with the merged weight, so that what is measured is, bit for bit,
    what `merged` exports.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.scale = layer.in_features, layer.out_features, scale
        self._parameters |= layer._parameters  # what `weight` gives is another one
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
        self.lora_a = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The merged weight ``[out, in]``, with gradient. BEiT, EVA and Swin 2 read it and never call the layer."""
        own = self._parameters["weight"]
        assert own is not None
        with torch.autocast(own.device.type, enabled=False):
            return torch.addmm(own, self.lora_b, self.lora_a, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.linear(x, self.weight, self.bias)
        own = self._parameters["weight"]
        assert own is not None
        return F.linear(x, own, self.bias) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def layers(net: nn.Module) -> list[str]:
    """Names of the linear layers of attention and MLP in a net of timm, as far as it has any."""
    return [name for name, m in net.named_modules() if isinstance(m, nn.Linear) and _LAYER.fullmatch(name)]


def adapt(net: nn.Module, rank: int, alpha: float | None) -> None:
    """Give each of the `layers` of `net` its bypass, drawn from torch's generator.

    alpha: None for the rank, so that the bypass counts with a factor of 1.
    """
    for name in layers(net):
        owner, _, last = name.rpartition(".")
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        setattr(net.get_submodule(owner), last, Adapted(layer, rank, (rank if alpha is None else alpha) / rank))


def is_bypass(name: str) -> bool:
    """Whether a name in a state dict is that of a bypass."""
    return name.rpartition(".")[2] in (A, B)


@torch.no_grad()
def merged(net: nn.Module) -> dict[str, Tensor]:
    """The state dict that a net without bypasses has for the same outputs."""
    state = {name: value for name, value in net.state_dict().items() if not is_bypass(name)}
    for name, module in net.named_modules():
        if isinstance(module, Adapted):
            state[f"{name}.weight"] = module.weight.detach()
    return state
