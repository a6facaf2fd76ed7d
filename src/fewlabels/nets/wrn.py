"""Wide residual networks (Zagoruyko & Komodakis 2016), in the two forms that the methods are run with."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

BN_MOMENTUM = 0.001


def _init_convolutions(net: nn.Module) -> None:
    """Weights N(0, sqrt(2 / (k k C_out))), biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def glorot_normal_(linear: nn.Linear) -> None:
    """TensorFlow's Glorot normal: cut off at two sigma, deviation sqrt(2 / (in + out)) after the cut."""
    # 0.8796... is the deviation of a standard normal cut off at 2.
    std = math.sqrt(2 / (linear.in_features + linear.out_features)) / 0.87962566103423978
    nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(linear.bias)


class _Block(nn.Module):
    """Pre-activation block; where the width changes, both branches start from the activated input."""

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float, slope: float, momentum: float) -> None:
        super().__init__()
        self.slope, self.dropout = slope, dropout
        self.bn1 = nn.BatchNorm2d(c_in, momentum=momentum)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out, momentum=momentum)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.bn1(x), self.slope)
        skip = x if self.shortcut is None else self.shortcut(h)
        h = F.leaky_relu(self.bn2(self.conv1(h)), self.slope)
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        out: Tensor = skip + self.conv2(h)
        return out


class WideResNet(nn.Module):
    """WRN-depth-width as in LeeDoYup/FixMatch-pytorch (models/nets/wrn.py), for images of any size.

    Convolutions without bias, padding 1, batch normalisation with eps 1e-5; 1,467,610 parameters for WRN-28-2
    and 10 classes. Where kekmodel's port feeds the raw input to the first convolution of groups 2 and 3, this
    form feeds the activated one; the linear layer starts Glorot-normal, as in kekmodel's port.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        depth: 6n + 4.
        width: multiple of 16, 32, 64 channels.
        dropout: probability, between the two convolutions of a block.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        depth: int = 28,
        width: int = 2,
        *,
        dropout: float = 0.0,
        slope: float = 0.1,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        assert depth >= 10 and (depth - 4) % 6 == 0
        self.slope, self.dim = slope, 64 * width
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks, c_in = [], 16
        for group, c_out in enumerate((16 * width, 32 * width, 64 * width)):
            for i in range((depth - 4) // 6):
                stride = 2 if group > 0 and i == 0 else 1
                blocks.append(_Block(c_in, c_out, stride, dropout, slope, bn_momentum))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(self.dim, momentum=bn_momentum)
        self.linear = nn.Linear(self.dim, classes)
        _init_convolutions(self)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations, ``[N, dim]``."""
        return F.leaky_relu(self.bn(self.blocks(self.stem(x))), self.slope).mean((2, 3))

    def head(self, f: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, dim]``."""
        logits: Tensor = self.linear(f)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: ``ceil(size / stride)`` outputs, odd padding at the end."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        total = [
            max((math.ceil(n / s) - 1) * s + k - n, 0)
            for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in total)
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride)


class _BlockTF(nn.Module):
    """Pre-activation block; the shortcut starts from the raw input, except in the net's first block."""

    def __init__(self, c_in: int, c_out: int, stride: int, first: bool, slope: float, momentum: float) -> None:
        super().__init__()
        self.slope, self.first = slope, first
        self.bn1 = nn.BatchNorm2d(c_in, eps=1e-3, momentum=momentum)
        self.conv1 = SameConv2d(c_in, c_out, 3, stride)
        self.bn2 = nn.BatchNorm2d(c_out, eps=1e-3, momentum=momentum)
        self.conv2 = SameConv2d(c_out, c_out, 3)
        self.shortcut = SameConv2d(c_in, c_out, 1, stride) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.bn1(x), self.slope)
        skip = h if self.first else x
        if self.shortcut is not None:
            skip = self.shortcut(skip)
        h = F.leaky_relu(self.bn2(self.conv1(h)), self.slope)
        out: Tensor = skip + self.conv2(h)
        return out


class WideResNetTF(nn.Module):
    """The form of google-research/fixmatch (libml/models.py), which the published numbers come from.

    Convolutions with bias and SAME padding, batch normalisation with eps 1e-3; 1,469,642 parameters with the
    defaults and 10 classes.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        filters: channels of the first scale; doubled in each further one.
        repeat: blocks per scale.
        scales: 3 for images of 32 pixels; the paper's STL-10 net has 4.
        dropout: probability, before the linear layer.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        filters: int = 32,
        repeat: int = 4,
        scales: int = 3,
        *,
        dropout: float = 0.0,
        slope: float = 0.1,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.slope, self.dropout, self.dim = slope, dropout, filters << (scales - 1)
        self.stem = SameConv2d(channels, 16, 3)
        blocks: list[nn.Module] = []
        c_in = 16
        for scale in range(scales):
            for i in range(repeat):
                c_out, stride = filters << scale, 2 if scale > 0 and i == 0 else 1
                blocks.append(_BlockTF(c_in, c_out, stride, not blocks, slope, bn_momentum))
                c_in = c_out
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(self.dim, eps=1e-3, momentum=bn_momentum)
        self.linear = nn.Linear(self.dim, classes)
        _init_convolutions(self)
        glorot_normal_(self.linear)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations, ``[N, dim]``."""
        return F.leaky_relu(self.bn(self.blocks(self.stem(x))), self.slope).mean((2, 3))

    def head(self, f: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, dim]``."""
        if self.dropout:
            f = F.dropout(f, self.dropout, self.training)
        logits: Tensor = self.linear(f)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
