"""ResNets for larger images: CADR's ResNet-18, the ResNet-50 of ImageNet FixMatch; the ResNeXt for CIFAR of kekmodel's
port."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels.nets.layers import (
    BN_MOMENTUM,
    BlockTF,
    LinearHead,
    SameConv2d,
    cut_normal_,
    glorot_normal_,
    init_convolutions,
    residual_sizes,
)


class ResNet18(LinearHead):
    """`res18` of CADR (libml/models.py), made for mini-ImageNet: pre-activation blocks behind a 7 x 7 stem.

    Convolutions with bias and SAME padding, batch normalisation with eps 1e-3, leaky ReLU; not torchvision's net
    of that name, which is `torchvision:resnet18`.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first stage (`filters` of the original; there the default is that of its other nets).
        dropout: probability, before the linear layer.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 64,
        *,
        dropout: float = 0.0,
        slope: float = 0.1,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.slope, self.dropout, self.dim = slope, dropout, 8 * width
        self.stem = SameConv2d(channels, width, 7, 2)
        self.stem_bn = nn.BatchNorm2d(width, eps=1e-3, momentum=bn_momentum)
        sizes = residual_sizes(width, width, 2, 4)
        self.blocks = nn.Sequential(*(BlockTF(*size, False, slope, bn_momentum) for size in sizes))
        self.bn = nn.BatchNorm2d(self.dim, eps=1e-3, momentum=bn_momentum)
        self.linear = nn.Linear(self.dim, classes)
        init_convolutions(self)
        glorot_normal_(self.linear)

    def maps(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.leaky_relu(self.stem_bn(self.stem(x)), self.slope), 2)
        return F.leaky_relu(self.bn(self.blocks(h)), self.slope)


class _BottleneckTF(nn.Module):
    """1 x 1 down, 3 x 3 with the stride, 1 x 1 up to four times as many channels, in TensorFlow's padding."""

    def __init__(self, c_in: int, inner: int, stride: int, first: bool, momentum: float) -> None:
        super().__init__()

        def norm(c: int) -> nn.Module:
            return nn.BatchNorm2d(c, momentum=momentum)

        c_out = 4 * inner
        self.body = nn.Sequential(
            *(nn.Conv2d(c_in, inner, 1, bias=False), norm(inner), nn.ReLU()),
            *(SameConv2d(inner, inner, 3, stride, bias=False), norm(inner), nn.ReLU()),
            *(nn.Conv2d(inner, c_out, 1, bias=False), norm(c_out)),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out)) if first else None

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(LinearHead):
    """ResNet-50 (He et al. 2016) of google-research/fixmatch, imagenet/models/resnet50_model.py.

    "v1.5": the stride is in the 3 x 3 convolution. SAME padding but for the first convolution, no biases but the last
    layer's; He normal weights, cut off at two sigma, and N(0, 0.01) in the last layer.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the stem; the stages end with 4, 8, 16 and 32 times as many.
        dropout: probability, before the linear layer.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self, classes: int, channels: int = 3, width: int = 64, *, dropout: float = 0.0, bn_momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.dropout, self.dim = dropout, 32 * width
        self.stem = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
        self.stem_bn = nn.BatchNorm2d(width, momentum=bn_momentum)
        blocks, c_in = [], width
        for stage, count in enumerate((3, 4, 6, 3)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(_BottleneckTF(c_in, width << stage, stride, i == 0, bn_momentum))
                c_in = 4 * width << stage
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(self.dim, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                cut_normal_(module.weight, math.sqrt(2 / (module.in_channels * math.prod(module.kernel_size))))
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations, ``[N, dim]``."""
        h = F.relu(self.stem_bn(self.stem(x)))
        below, right = (max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in h.shape[2:])  # SAME: the odd one at the end
        h = F.pad(h, (right // 2, right - right // 2, below // 2, below - below // 2))  # after the ReLU 0 is the least
        pooled: Tensor = self.blocks(F.max_pool2d(h, 3, 2)).mean((2, 3))
        return pooled


class _Bottleneck(nn.Module):
    """1 x 1 down, grouped 3 x 3, 1 x 1 up, each with batch normalisation; mish between them and after the sum."""

    def __init__(self, c_in: int, inner: int, c_out: int, groups: int, stride: int, momentum: float) -> None:
        super().__init__()

        def norm(c: int) -> nn.Module:
            return nn.BatchNorm2d(c, momentum=momentum)

        self.body = nn.Sequential(
            *(nn.Conv2d(c_in, inner, 1, bias=False), norm(inner), nn.Mish()),
            *(nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False), norm(inner), nn.Mish()),
            *(nn.Conv2d(inner, c_out, 1, bias=False), norm(c_out)),
        )
        self.shortcut = (
            nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out)) if c_in != c_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


class ResNeXt(LinearHead):
    """ResNeXt for small images (Xie et al. 2017) as in kekmodel/FixMatch-pytorch, models/resnext.py.

    Mish (Misra 2019) in place of ReLU, batch normalisation with momentum 0.001. The stages have 256, 512, 1024, ...
    channels.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        cardinality: groups of the 3 x 3 convolutions.
        base: channels of a group in the first stage.
        blocks: bottlenecks per stage.
        stages: scales; all but the first begin with a stride of 2.
        dropout: probability, before the linear layer.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        cardinality: int = 4,
        base: int = 4,
        blocks: int = 2,
        stages: int = 3,
        *,
        dropout: float = 0.0,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.dropout, self.dim = dropout, 256 << (stages - 1)
        norm = nn.BatchNorm2d(64, momentum=bn_momentum)
        self.stem = nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1, bias=False), norm, nn.Mish())
        body = []
        for c_in, c_out, stride in residual_sizes(64, 256, blocks, stages):
            inner = cardinality * base * c_out // 256
            body.append(_Bottleneck(c_in, inner, c_out, cardinality, stride, bn_momentum))
        self.blocks = nn.Sequential(*body)
        self.linear = nn.Linear(self.dim, classes)
        init_convolutions(self)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(self.stem(x))
        return maps
