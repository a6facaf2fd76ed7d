"""What several of the networks are made of: TensorFlow's padding, the original's initial weights and block, a head."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_MOMENTUM = 0.001
"""Weight of the newest batch in the running statistics: what TensorFlow calls a momentum of 0.999."""


def residual_sizes(c_in: int, width: int, blocks: int, stages: int) -> Iterator[tuple[int, int, int]]:
    """Channels in, channels out and stride of each block; a new stage doubles the width and halves the size."""
    for stage in range(stages):
        for i in range(blocks):
            c_out = width << stage
            yield c_in, c_out, 2 if stage > 0 and i == 0 else 1
            c_in = c_out


def init_convolutions(net: nn.Module) -> None:
    """Weights N(0, sqrt(2 / (k k C_out))), biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def cut_normal_(weight: Tensor, deviation: float) -> None:
    """TensorFlow's truncated normal: cut off at two sigma, with this deviation after the cut."""
    std = deviation / 0.87962566103423978  # the deviation of a standard normal cut off at 2
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def glorot_normal_(linear: nn.Linear) -> None:
    """TensorFlow's Glorot normal: deviation sqrt(2 / (in + out))."""
    cut_normal_(linear.weight, math.sqrt(2 / (linear.in_features + linear.out_features)))
    nn.init.zeros_(linear.bias)


def glorot_uniform_(net: nn.Module) -> None:
    """Glorot uniform for convolutions and linear layers, biases 0: what TensorFlow's layers start with."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class LinearHead(nn.Module):
    """A network that ends in dropout and a linear layer; a subclass has `maps`, or `features`, and sets `dim` and
    `linear`."""

    dim: int
    linear: nn.Linear
    dropout: float = 0.0
    """Probability of dropping a feature before the linear layer."""

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations, ``[N, C, H, W] -> [N, dim]``."""
        pooled: Tensor = self.maps(x).mean((2, 3))
        return pooled

    def maps(self, x: Tensor) -> Tensor:
        """The activations before they are pooled, ``[N, dim, h, w]``."""
        raise NotImplementedError

    def head(self, f: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, dim]``."""
        if self.dropout:
            f = F.dropout(f, self.dropout, self.training)
        logits: Tensor = self.linear(f)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: ``ceil(size / stride)`` outputs, odd padding at the end."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(c_in, c_out, kernel, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        total = [
            max((math.ceil(n / s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in total)
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride)


class BlockTF(nn.Module):
    """Pre-activation block of google-research/fixmatch; the shortcut starts from the raw input.

    activate: the shortcut starts from the activated input instead, as in the first block of the wide residual net.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, activate: bool, slope: float, momentum: float) -> None:
        super().__init__()
        self.slope, self.activate = slope, activate
        self.bn1 = nn.BatchNorm2d(c_in, eps=1e-3, momentum=momentum)
        self.conv1 = SameConv2d(c_in, c_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(c_out, eps=1e-3, momentum=momentum)
        self.conv2 = SameConv2d(c_out, c_out, 3)
        self.shortcut = SameConv2d(c_in, c_out, 1, stride) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.bn1(x), self.slope)
        skip = h if self.activate else x
        if self.shortcut is not None:
            skip = self.shortcut(skip)
        h = F.leaky_relu(self.bn2(self.conv1(h)), self.slope)
        out: Tensor = skip + self.conv2(h)
        return out


def map_size(net: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """(h, w) of the maps that `net`, in evaluation mode, makes of images of `shape`; None where it has none."""
    if getattr(type(net), "maps", LinearHead.maps) is LinearHead.maps:
        return None
    with torch.no_grad():
        _, _, height, width = net.maps(torch.zeros(1, *shape)).shape  # type: ignore[operator]
    return height, width
