"""Shake-Shake (Gastaldi 2017) as in google-research/fixmatch, libml/models.py and libml/layers.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels.nets.layers import BN_MOMENTUM, LinearHead, SameConv2d, glorot_normal_, init_convolutions, residual_sizes


class _Branch(nn.Sequential):
    """ReLU, 3 x 3, norm, ReLU, 3 x 3, norm."""

    def __init__(self, c_in: int, c_out: int, stride: int, momentum: float) -> None:
        super().__init__(
            nn.ReLU(),
            SameConv2d(c_in, c_out, 3, stride, bias=False),
            nn.BatchNorm2d(c_out, eps=1e-3, momentum=momentum),
            nn.ReLU(),
            SameConv2d(c_out, c_out, 3, bias=False),
            nn.BatchNorm2d(c_out, eps=1e-3, momentum=momentum),
        )


class _Shortcut(nn.Module):
    """The input brought to the block's output: as it is, by a 1 x 1 convolution, or by two on every second pixel."""

    def __init__(self, c_in: int, c_out: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.stride = stride
        widths = [c_out - c_out // 2, c_out // 2] if stride == 2 else [c_out] if c_in != c_out else []
        self.convolutions = nn.ModuleList(SameConv2d(c_in, w, 1, bias=False) for w in widths)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3, momentum=momentum) if widths else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bn is None:
            return x
        parts = [x]
        if self.stride == 2:
            x = F.relu(x)
            height, width = x.shape[2:]
            x = F.pad(x, (0, width % 2, 0, height % 2))  # no pixel at the end of odd sizes: zeros
            parts = [x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]]
        y = [conv(part) for conv, part in zip(self.convolutions, parts, strict=True)]
        out: Tensor = self.bn(torch.cat(y, 1))
        return out


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, momentum: float) -> None:
        super().__init__()
        self.a = _Branch(c_in, c_out, stride, momentum)
        self.b = _Branch(c_in, c_out, stride, momentum)
        self.shortcut = _Shortcut(c_in, c_out, stride, momentum)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        # from torch's generator, which the training loop seeds in each step
        mu = torch.rand(len(x), 1, 1, 1, dtype=a.dtype, device=a.device) if self.training else 0.5
        out: Tensor = self.shortcut(x) + a + mu * (b - a)
        return out


class ShakeNet(LinearHead):
    """Residual blocks of two branches, mixed by a random share of each image in training, by halves otherwise.

    The paper draws another share for the backward pass. The original means to, but takes the forward one again
    (an index ``mu[::1]``); the published numbers rest on that ordinary gradient, which is what happens here too.
    No normalisation or ReLU after the last block, and no bias but that of the linear layer.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels of the first stage (`filters` of the original); doubled in each further one.
        blocks: residual blocks per stage (`repeat`).
        stages: scales; all but the first begin with a stride of 2.
        dropout: probability, before the linear layer.
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
        bn_momentum: float = BN_MOMENTUM,
    ) -> None:
        super().__init__()
        self.dropout, self.dim = dropout, width << (stages - 1)
        self.stem = SameConv2d(channels, 16, 3, bias=False)
        sizes = residual_sizes(16, width, blocks, stages)
        self.blocks = nn.Sequential(*(_Block(*size, bn_momentum) for size in sizes))
        self.linear = nn.Linear(self.dim, classes)
        init_convolutions(self)
        glorot_normal_(self.linear)

    def maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(self.stem(x))
        return maps
