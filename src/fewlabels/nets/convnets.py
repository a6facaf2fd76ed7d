"""The two plain convolutional networks of the originals: CNN-13 and RealMix's ConvNet."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels.nets.layers import BN_MOMENTUM, LinearHead, SameConv2d, glorot_uniform_


class CNN13(LinearHead):
    """CNN-13 (Laine & Aila 2017) in the form of google-research/fixmatch, libml/models.py.

    Each convolution is followed by leaky ReLU and then batch normalisation; all weights start Glorot-uniform.
    Images of 12 x 12 pixels at least.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first three convolutions (`filters` of the original).
        dropout: probability, before the linear layer.
        slope: of the leaky ReLU.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 128,
        *,
        dropout: float = 0.0,
        slope: float = 0.2,
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.dropout, self.dim = dropout, width
        layers: list[nn.Module] = []
        c_in = channels

        def add(convolution: nn.Conv2d) -> None:
            nonlocal c_in
            c_in = convolution.out_channels
            norm = nn.BatchNorm2d(c_in, eps=1e-3, momentum=bn_momentum)
            layers.extend([convolution, nn.LeakyReLU(slope), norm])

        for c_out in (width, 2 * width):
            for _ in range(3):
                add(SameConv2d(c_in, c_out, 3))
            layers.append(nn.MaxPool2d(2))
        add(nn.Conv2d(c_in, 4 * width, 3))
        add(nn.Conv2d(c_in, 2 * width, 1))
        add(nn.Conv2d(c_in, width, 1))
        self.body = nn.Sequential(*layers)
        self.linear = nn.Linear(width, classes)
        glorot_uniform_(self)

    def maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.body(x)
        return maps


class ConvNet(LinearHead):
    """ConvNet of RealMix (libml/models.py): convolutions, leaky ReLU and average pooling, no normalisation.

    The original ends in a 3 x 3 convolution with K channels whose output is averaged over the image. That is a
    linear function of the averaged 3 x 3 windows of its input, which are therefore the features here
    (``dim = 9 * channels``) with the convolution's weights as the linear layer.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first convolution (`filters` of the original); stage s ends with width * 2^(s + 1).
        stages: scales, each of two convolutions and a pooling; images of 2^stages pixels at least.
        dropout: probability, before the linear layer.
        slope: of the leaky ReLU.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 32,
        stages: int = 3,
        *,
        dropout: float = 0.0,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        c_out = width << stages
        self.dropout, self.dim = dropout, 9 * c_out
        layers: list[nn.Module] = [SameConv2d(channels, width, 3), nn.LeakyReLU(slope)]
        for stage in range(stages):
            c_in = width << stage
            layers += [SameConv2d(c_in, c_in, 3), nn.LeakyReLU(slope)]
            layers += [SameConv2d(c_in, 2 * c_in, 3), nn.LeakyReLU(slope), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.linear = nn.Linear(self.dim, classes)
        glorot_uniform_(self)
        bound = math.sqrt(6 / (self.dim + 9 * classes))  # of the 3 x 3 convolution that it stands for
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def features(self, x: Tensor) -> Tensor:
        """Mean 3 x 3 windows, ``[N, dim]``: channels, then positions in the window."""
        return F.unfold(self.body(x), 3, padding=1).mean(2)
