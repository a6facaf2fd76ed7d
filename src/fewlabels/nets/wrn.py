"""Wide residual networks (Zagoruyko & Komodakis 2016), in the two forms that the methods are run with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels.nets.layers import (
    BN_MOMENTUM,
    BlockTF,
    LinearHead,
    SameConv2d,
    glorot_normal_,
    init_convolutions,
    residual_sizes,
)


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


class WideResNet(LinearHead):
    """WRN as in LeeDoYup/FixMatch-pytorch (models/nets/wrn.py), for images of any size.

    Convolutions without bias, padding 1, batch normalisation with eps 1e-5; 1,467,610 parameters for WRN-28-2
    (the defaults) and 10 classes. Where kekmodel's port feeds the raw input to the first convolution of groups 2
    and 3, this form feeds the activated one; the linear layer starts Glorot-normal, as in kekmodel's port.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first stage, 16 times the WIDTH of the name; doubled in each further one.
        blocks: residual blocks per stage.
        stages: scales; all but the first begin with a stride of 2.
        dropout: probability, between the two convolutions of a block.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 32,
        blocks: int = 4,
        stages: int = 3,
        *,
        dropout: float = 0.0,
        slope: float = 0.1,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.slope, self.dim = slope, width << (stages - 1)
        self.stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        sizes = residual_sizes(16, width, blocks, stages)
        self.blocks = nn.Sequential(*(_Block(*size, dropout, slope, bn_momentum) for size in sizes))
        self.bn = nn.BatchNorm2d(self.dim, momentum=bn_momentum)
        self.linear = nn.Linear(self.dim, classes)
        init_convolutions(self)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def maps(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.blocks(self.stem(x))), self.slope)


class WideResNetTF(LinearHead):
    """The form of google-research/fixmatch (libml/models.py), which the published numbers come from.

    Convolutions with bias and SAME padding, batch normalisation with eps 1e-3; 1,469,642 parameters with the
    defaults and 10 classes.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first stage (`filters` of the original); doubled in each further one.
        blocks: residual blocks per stage (`repeat`).
        stages: scales, 3 for images of 32 pixels; the paper's STL-10 net has 4.
        dropout: probability, before the linear layer.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 32,
        blocks: int = 4,
        stages: int = 3,
        *,
        dropout: float = 0.0,
        slope: float = 0.1,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.slope, self.dropout, self.dim = slope, dropout, width << (stages - 1)
        self.stem = SameConv2d(channels, 16, 3)
        sizes = residual_sizes(16, width, blocks, stages)
        self.blocks = nn.Sequential(*(BlockTF(*size, i == 0, slope, bn_momentum) for i, size in enumerate(sizes)))
        self.bn = nn.BatchNorm2d(self.dim, eps=1e-3, momentum=bn_momentum)
        self.linear = nn.Linear(self.dim, classes)
        init_convolutions(self)
        glorot_normal_(self.linear)

    def maps(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.blocks(self.stem(x))), self.slope)
