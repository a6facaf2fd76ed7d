"""A small network for small images and quick runs."""

from __future__ import annotations

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Convolution, batch normalisation and ReLU: width, twice the width, then pooled by 2 and once more.

    For 8 x 8 images one pooling; larger images are pooled and convolved again until 4 to 7 pixels are left,
    so that the last features see most of the image.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        size: the shorter side of the images that it is made for; it runs on any size from 4 at least.
        width: channels of the first convolution.
        dropout: probability, before the linear layer.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 1,
        size: int = 8,
        width: int = 32,
        *,
        dropout: float = 0.0,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = 2 * width

        def convolution(c_in: int, c_out: int) -> list[nn.Module]:
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(c_out, momentum=bn_momentum)
            return [conv, norm, nn.ReLU(inplace=True)]

        layers = [*convolution(channels, width), *convolution(width, self.dim)]
        for _ in range(max(1, (size // 4).bit_length() - 1)):
            layers += [nn.MaxPool2d(2), *convolution(self.dim, self.dim)]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.dim, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations, ``[N, dim]``."""
        pooled: Tensor = self.maps(x).mean((2, 3))
        return pooled

    def maps(self, x: Tensor) -> Tensor:
        """The activations before they are pooled, ``[N, dim, h, w]``."""
        maps: Tensor = self.body(x)
        return maps

    def head(self, f: Tensor) -> Tensor:
        """Logits ``[N, K]`` of features ``[N, dim]``."""
        logits: Tensor = self.linear(self.dropout(f))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
