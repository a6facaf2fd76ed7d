"""Networks of other libraries, `timm:NAME` and `torchvision:NAME`, with a new head.

timm and torchvision take seconds to import, so they are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.nets import from_timm, from_torchvision, lite
from fewlabels.nets.complaints import sentence
from fewlabels.nets.layers import LinearHead
from fewlabels.nets.weights import Weights, adopt, read

PREFIXES = ("timm:", "torchvision:")

# fmt: off
TOKENS = frozenset((
    "pos_embed", "cls_token", "dist_token", "reg_token",  # timm
    "pos_embedding", "class_token", "relative_position_bias_table", "layer_scale",  # torchvision
))
# fmt: on
"""Last names of parameters that are no kernels, whatever their shape."""


def is_zoo(name: str) -> bool:
    return name.startswith(PREFIXES)


def elsewhere(name: str) -> list[str]:
    """`name` with the prefix of each library that has a net of this name."""
    import timm
    from torchvision import models

    known = {"torchvision:": models.list_models(module=models), "timm:": timm.list_models()}
    return [f"{prefix}{name}" for prefix, names in known.items() if name in names]


class ZooNet(LinearHead):
    """A network without its head, and a new linear layer that starts with weights N(0, 0.01) and biases 0.

    So does the head of ImageNet FixMatch (google-research/fixmatch, imagenet/).

    Args:
        name: as on the command line, for messages.
        backbone: images ``[N, C, H, W]`` to features ``[N, dim]``.
        dim: width of the features.
        classes: K.
        layers: number of the layer, from 0 at the input, of each of the backbone's parameters by name, and of the
            "head"; None where nobody says so.
        undecayed: names of backbone parameters that no weight decay is meant for, beside biases and norms.
    """

    def __init__(
        self,
        name: str,
        backbone: nn.Module,
        dim: int,
        classes: int,
        *,
        dropout: float = 0.0,
        layers: Mapping[str, int] | None = None,
        undecayed: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.name, self.backbone, self.dim, self.dropout = name, backbone, dim, dropout
        self.linear = nn.Linear(dim, classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self._layers, self._undecayed = layers, undecayed

    def features(self, x: Tensor) -> Tensor:
        """Features before the head, ``[N, dim]``."""
        f: Tensor = self.backbone(x)
        return f

    def layers(self) -> dict[str, int] | None:
        """Number of the layer of each parameter, 0 at the input; the head has the largest one."""
        if self._layers is None:
            return None
        found = {f"backbone.{k}": n for k, n in self._layers.items() if k != "head"}
        return found | {f"linear.{part}": self._layers["head"] for part in ("weight", "bias")}

    def undecayed(self) -> set[str]:
        """Names of position embeddings and tokens, which are not to be decayed though they are no vectors."""
        every = (name for name, _ in self.backbone.named_parameters())
        return {f"backbone.{n}" for n in every if n in self._undecayed or n.rpartition(".")[2] in TOKENS}


def build(
    name: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    dropout: float = 0.0,
    bn_momentum: float | None = None,
    patch: int | None = None,
    drop_path: float = 0.0,
    pretrained: bool | str = False,
) -> ZooNet:
    """The network `name` for images of `shape` (C, H, W); see `fewlabels.nets.build`.

    Raises:
        ValueError: for an unknown name, a shape that the network cannot have, weights that cannot be had.
    """
    weights = read(pretrained) if isinstance(pretrained, str) else pretrained
    # the checkpoint of a run holds a whole ZooNet, other files the library's own net
    whole = weights if isinstance(weights, Weights) and "linear.weight" in weights.tensors else None
    check_parts(name, drop_path=drop_path)
    given = False if whole else weights
    if name.startswith("timm:"):
        backbone, layers, undecayed = from_timm.backbone(name, shape, patch, given, drop_path)
    else:
        backbone, layers, undecayed = from_torchvision.backbone(name, shape, patch, given)
    dim = _try(name, backbone, shape)
    if bn_momentum is not None:
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = bn_momentum
    net = ZooNet(name, backbone, dim, classes, dropout=dropout, layers=layers, undecayed=undecayed)
    if whole:
        adopt(net, whole, name)
    return net


def check(name: str, *, pretrained: bool | str = False) -> None:
    """Raises the ValueError of `build` for a name that the library does not know, weights that are not to be had, a
    file that is none of weights, or not of such a net."""
    library = from_timm if name.startswith("timm:") else from_torchvision
    shape = library.own_shape(name)
    if pretrained is True:
        library.backbone(name, shape, None, True)
    elif pretrained:
        weights = read(pretrained)
        if library is from_timm and "linear.weight" not in weights.tensors:
            from_timm.check_names(name, weights)


def check_parts(name: str, *, lora: bool = False, drop_path: float = 0.0, recompute: bool = False) -> None:
    """Raises ValueError where a net that is not built yet, of whatever library, has no layers for LoRA, no paths to
    drop, or no blocks whose activations it can compute anew."""
    if not lora and not drop_path and not recompute:
        return
    if name.startswith("timm:"):
        from_timm.check_parts(name, lora=lora, drop_path=drop_path, recompute=recompute)
    elif lora:
        raise ValueError(from_timm.NO_LORA.format(name))
    elif recompute:
        raise ValueError(f"Net.recompute is for nets of timm, not for {name!r}")
    else:
        raise ValueError(f"Net.drop_path is for nets of timm, not for {name!r}")


@torch.no_grad()
def _try(name: str, backbone: nn.Module, shape: tuple[int, int, int]) -> int:
    """Width of the features, after one image. Raises ValueError where the network cannot have such images."""
    weight = next(backbone.parameters())
    backbone.eval()
    with sentence(name, shape, None):
        f = backbone(torch.zeros(1, *shape, device=weight.device))
    backbone.train()
    if not isinstance(f, Tensor) or f.ndim != 2:
        raise ValueError(f"net {name!r} does not give one vector of features for each image")
    return f.shape[1]


def normalization(
    name: str, channels: int, pretrained: bool | str = True
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the pretrained weights of `name` were made with.

    Images of other than 3 channels get the mean over the three. Raises ValueError for an unknown name.
    """
    if isinstance(pretrained, str) and lite.STEM in read(pretrained).tensors:
        return (lite.MEAN,) * channels, (lite.STD,) * channels
    if name.startswith("timm:"):
        known = from_timm.facts(name)
    else:
        known = from_torchvision.facts(name)["DEFAULT"].transforms()
    mean, std = tuple(map(float, known.mean)), tuple(map(float, known.std))
    if channels == len(mean):
        return mean, std
    return (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels


def synchronized(net: nn.Module) -> nn.Module:
    """`net` with batch normalisation over all ranks; timm's norms with an activation inside keep it."""
    convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
    if isinstance(net, ZooNet) and net.name.startswith("timm:"):
        from timm.layers.norm_act import convert_sync_batchnorm as convert
    return convert(net)
