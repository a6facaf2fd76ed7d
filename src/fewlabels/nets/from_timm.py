"""Networks of timm, without their heads. timm takes seconds to import, so it is imported where it is used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.nets import lite
from fewlabels.nets.complaints import hub, sentence, unknown
from fewlabels.nets.lora import layers as linear_layers
from fewlabels.nets.weights import Weights, misfit
from fewlabels.nets.weights import check_names as check_keys

_GONE = ("relative_position_index", "attn_mask", "mask_token", "num_batches_tracked")
"""Ends of names that files of older versions hold beside the weights."""


def backbone(
    name: str, shape: tuple[int, int, int], patch: int | None, weights: bool | Weights, drop_path: float = 0.0
) -> tuple[nn.Module, dict[str, int] | None, frozenset[str]]:
    """The net without its head, numbers of its layers by parameter and of the "head" (None: unknown), and parameters
    that are not to be decayed.

    drop_path: of one of which `check_parts` says that it has such.

    Raises ValueError for an unknown name, a shape that the net cannot have, weights that cannot be had.
    """
    import timm
    from timm.models import group_parameters

    plain = name.removeprefix("timm:")
    channels, height, width = shape
    config = facts(name)
    heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ("head",))
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    if config.fixed_input_size:
        options["img_size"] = (height, width)
    if patch is not None:
        options["patch_size"] = patch
    if drop_path:
        options["drop_path_rate"] = drop_path

    def make(**given: Any) -> nn.Module:
        net: nn.Module = timm.create_model(plain, **options, **given)
        return net

    with sentence(name, shape, patch):
        net = make()
    side = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if isinstance(side, tuple) and (height % side[0] or width % side[1]):  # timm would leave out the rest
        raise ValueError(
            f"net {name!r} cuts images into patches of {side[0]} x {side[1]} pixels, which {height} x {width} cannot "
            "be cut into; set Net.patch, or Data.image_size for own images"
        )
    if weights is True:
        if not timm.is_model_pretrained(plain):
            raise ValueError(f"net {name!r}: timm has no pretrained weights for it")
        with hub(name):
            net = make(pretrained=True)
    elif weights:
        weights = _named(net, weights)
        _check(net, weights, heads, name)
        try:  # timm brings position embeddings and the first convolution to the shape
            net = make(pretrained=True, pretrained_cfg_overlay={"state_dict": weights.tensors, "custom_load": False})
        except RuntimeError as error:
            raise misfit(weights, name, str(error).splitlines()[-1].strip()) from None
        net.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]
    layers = None
    if hasattr(net, "group_matcher"):
        head = f"{heads[0]}.weight"
        with_head: Any = SimpleNamespace(named_parameters=lambda: [*net.named_parameters(), (head, None)])
        layers = group_parameters(with_head, net.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
        layers["head"] = layers.pop(head)  # a layer of its own, or with a last norm, as timm has it
    undecayed = frozenset(net.no_weight_decay()) if hasattr(net, "no_weight_decay") else frozenset()  # type: ignore[operator]
    return net, layers, undecayed


def facts(name: str) -> Any:
    """What timm knows of a name without building the net. Raises ValueError for one that it does not know."""
    import timm

    plain = name.removeprefix("timm:")
    architecture, _, tag = plain.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(unknown(name, architecture, timm.list_models()))
    try:
        return timm.get_pretrained_cfg(plain)
    except RuntimeError:
        known = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise ValueError(unknown(name, tag, known, "weights")) from None


def own_shape(name: str) -> tuple[int, int, int]:
    """The (C, H, W) that the net was made for. Raises ValueError for a name that timm does not know."""
    c, h, w = facts(name).input_size
    return c, h, w


def check_parts(name: str, *, lora: bool, drop_path: float, recompute: bool = False) -> None:
    """Raises ValueError where the net has none of the layers that LoRA is about, no paths that can be dropped, or does
    not compute its activations anew."""
    import timm
    from timm.layers.drop import DropPath

    facts(name)
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        with torch.device("meta"):
            net: nn.Module = timm.create_model(name.removeprefix("timm:"), num_classes=0, **options)
    except TypeError:  # the library's own way to say so
        net = nn.Identity()
    if drop_path and not any(isinstance(m, DropPath) and m.drop_prob for m in net.modules()):
        raise ValueError(f"net {name!r} has no paths to drop (Net.drop_path is {drop_path:g})")
    if recompute:
        why = "it has batch norm, whose statistics would see each batch twice"
        try:
            net.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AssertionError, AttributeError):
            why = "timm cannot do that for it"
        else:
            if not any(isinstance(module, _BatchNorm) for module in net.modules()):
                why = ""
        if why:
            raise ValueError(f"net {name!r} is not for Net.recompute: {why}; most ViTs and ConvNeXts of timm are")
    if lora and not linear_layers(net):
        raise ValueError(NO_LORA.format(name))


NO_LORA = (
    "net {!r} has no linear layers of attention or MLP, beside which Net.train lora learns; a ViT or a ConvNeXt of "
    "timm has them, such as timm:vit_small_patch14_dinov2.lvd142m"
)


def check_names(name: str, weights: Weights) -> None:
    """Raises ValueError where the weights are, by their names, not those of the net."""
    import timm

    config = facts(name)
    heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ("head",))
    with torch.device("meta"):
        net = timm.create_model(name.removeprefix("timm:"), num_classes=0)
    _check(net, _named(net, weights), heads, name)


def _named(net: nn.Module, weights: Weights) -> Weights:
    """The weights in timm's names, where they come in another package's."""
    if lite.STEM not in weights.tensors:
        return weights
    return weights._replace(tensors=lite.in_timms_names(weights.tensors, net.state_dict()))


def _check(net: nn.Module, weights: Weights, heads: tuple[str, ...], name: str) -> None:
    """Refuse weights of another network; heads may be there or not. timm itself would take what fits."""

    def counts(key: str) -> bool:
        return not key.endswith(_GONE) and not any(key.startswith(f"{head}.") for head in heads)

    own = net.state_dict()
    check_keys(weights, name, filter(counts, own), own, filter(counts, weights.tensors))
