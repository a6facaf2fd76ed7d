"""Networks of torchvision, without their heads."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from fewlabels.nets.complaints import hub, sentence, unknown
from fewlabels.nets.weights import Weights, adopt


def backbone(
    name: str, shape: tuple[int, int, int], patch: int | None, weights: bool | Weights
) -> tuple[nn.Module, dict[str, int] | None, frozenset[str]]:
    """What `from_timm.backbone` returns, for a net of torchvision, which has no list of undecayed parameters."""
    from torchvision import models

    plain = name.removeprefix("torchvision:")
    channels, height, width = shape
    known = facts(name)
    options: dict[str, Any] = {}
    if plain in ("googlenet", "inception_v3"):
        raise ValueError(f"net {name!r} has more than one head; timm:inception_v3 has one")
    if patch is not None:
        raise ValueError(f"Net.patch is for nets of timm, not for {name!r}")
    if plain.startswith("vit_"):
        if height != width:
            raise ValueError(f"net {name!r} needs square images, got {height} x {width}")
        options["image_size"] = height
    with sentence(name, shape, patch):
        net: nn.Module = models.get_model(plain, weights=None, **options)
    head = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not head:
        raise ValueError(f"net {name!r} does not end in a linear layer, so that it cannot get a new one")
    if weights is True:
        size = known["DEFAULT"].meta["min_size"]
        if "image_size" in options and (height, width) != size:
            raise ValueError(
                f"the pretrained weights of net {name!r} are for images of {size[0]} x {size[1]}, got {height} x "
                f"{width}; those of timm:vit_* are adapted to any size"
            )
        with hub(name):
            net = models.get_model(plain, weights="DEFAULT", progress=False, **options)
    elif weights:
        adopt(net, weights, name, head=head[0])
    net.set_submodule(head[0], nn.Identity())
    _adapt_stem(name, net, channels, learned=bool(weights))
    return net, _layers(net) if plain.startswith("vit_") else None, frozenset()


def _layers(vit: nn.Module) -> dict[str, int]:
    """Embeddings 0, blocks 1 to D, head D + 1; the norm after the last block belongs to it, as in timm."""
    layers: dict[str, int] = {}
    for name, _ in vit.named_parameters():
        block = re.match(r"encoder\.layers\.encoder_layer_(\d+)\.", name)
        layers[name] = int(block[1]) + 1 if block else 0
    last = max(layers.values())
    return layers | {name: last for name in layers if name.startswith("encoder.ln.")} | {"head": last + 1}


def facts(name: str) -> Any:
    """The enumeration of a net's weights. Raises ValueError for a name that torchvision does not know."""
    from torchvision import models

    plain = name.removeprefix("torchvision:")
    known = models.list_models(module=models)
    if plain not in known:
        raise ValueError(unknown(name, plain, known))
    return models.get_model_weights(plain)


def own_shape(name: str) -> tuple[int, int, int]:
    """A (C, H, W) that the net takes. Raises ValueError for a name that torchvision does not know."""
    known = facts(name)
    height, width = known["DEFAULT"].meta["min_size"] if name.startswith("torchvision:vit_") else (224, 224)
    return 3, height, width


@torch.no_grad()
def _adapt_stem(name: str, net: nn.Module, channels: int, *, learned: bool) -> None:
    """Let the first convolution take `channels` channels, with its learned weights summed or repeated as timm does.

    One channel gets the sum over the three; more get them in turn, times 3 / channels.
    """
    if channels == 3:
        return
    key, old = next(((k, m) for k, m in net.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if old is None or old.in_channels != 3 or old.groups != 1:
        raise ValueError(f"net {name!r} takes images of 3 channels only, got {channels}")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    w = old.weight
    if learned and channels == 1:
        new.weight.copy_(w.sum(1, keepdim=True))
    elif learned:
        new.weight.copy_(w.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels))
    elif not new.weight.is_meta:
        new.weight.normal_(0, float(w.std()) * (3 / channels) ** 0.5)
    if new.bias is not None and old.bias is not None:
        new.bias.copy_(old.bias)
    net.set_submodule(key, new)
