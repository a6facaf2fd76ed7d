"""Which parameters are decayed, and how fast each layer learns."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewlabels.nets.lora import is_bypass
from fewlabels.nets.zoo import ZooNet


def parameter_groups(
    module: nn.Module, *, weight_decay: float, layer_decay: float = 1.0, body: float = 1.0, bias: bool = False
) -> list[dict[str, Any]]:
    """Groups of an optimizer for the trained parameters of `module`, which is or contains a net.

    Decayed are matrices and convolution kernels, as in the original: not biases and norms, nor the position
    embeddings and tokens of a ViT. With a `layer_decay` d below 1, the group of layer l of L has ``"scale"``
    d^(L - l), by which the loop multiplies the learning rate (Bao et al. 2022, BEiT, appendix; layers as in timm);
    the head is layer L, and what is not part of the net, such as an algorithm's own heads, learns like it. A bypass of
    LoRA is of the layer of the weight beside it. All layers below the head have `body` as a further factor. With `bias`
    that of a net's last linear layer is decayed as well.

    Raises:
        ValueError: for a layer_decay below 1 with a net that cannot say its layers.
    """
    found = [m for m in module.modules() if isinstance(m, ZooNet)]
    layers: dict[int, int] = {}
    undecayed: set[int] = set()
    for net in found:
        numbers, plain = net.layers(), net.undecayed()
        for name, p in net.named_parameters():
            if name in plain:
                undecayed.add(id(p))
            if numbers is not None:
                beside = f"{name.rpartition('.')[0]}.weight" if is_bypass(name) else name
                layers[id(p)] = numbers[beside]
    if layer_decay < 1 and not layers:
        what = repr(found[0].name) if found else "this one"
        raise ValueError(
            f"Optim.layer_decay {layer_decay} needs a net that can say its layers, such as "
            f"timm:vit_tiny_patch16_224; {what} cannot"
        )
    top = max(layers.values(), default=0)
    last = {
        id(p) for m in module.modules() if bias and _is_net(m) for n, p in m.named_parameters() if n == "linear.bias"
    }
    below = {
        id(p) for m in module.modules() if _is_net(m) for n, p in m.named_parameters() if n.split(".")[0] != "linear"
    }
    scales: dict[float, list[nn.Parameter]] = {1.0: []}  # the head's comes first: its rate is the one that is logged
    for p in module.parameters():
        if p.requires_grad:
            scale = layer_decay ** (top - layers.get(id(p), top)) * (body if id(p) in below else 1.0)
            scales.setdefault(scale, []).append(p)
    groups = []
    for scale, members in scales.items():
        decays = {id(p) for p in members if id(p) in last or (p.ndim > 1 and id(p) not in undecayed)}
        decayed, rest = ([p for p in members if (id(p) in decays) == which] for which in (True, False))
        parts = ((decayed, weight_decay), (rest, 0.0))
        # of one rate always two groups, as the saved states of optimizers have them
        groups += [{"params": ps, "weight_decay": w, "scale": scale} for ps, w in parts if ps or len(scales) == 1]
    return groups


def _is_net(module: nn.Module) -> bool:
    """Whether it ends in `linear` on its `features`, as every net does."""
    return hasattr(module, "features") and isinstance(getattr(module, "linear", None), nn.Linear)
