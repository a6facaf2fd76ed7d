"""A network with few multiply-adds for its accuracy, for short trainings on small pictures."""

from __future__ import annotations

from torch import Tensor, nn

from fewlabels.nets.layers import LinearHead


class FastNet(LinearHead):
    """A stem of overlapping patches that halves the image, then stages that double the width and halve the maps early.

    Each stage is a convolution, a pooling, and a second convolution on the smaller maps, as in airbench (Jordan 2024,
    arXiv:2404.00498, section 3), whose first layer whitens patches and is not learnt; here it is a 4 x 4 convolution
    that is. With the default width and 3 stages 21 million multiply-adds for a picture of 32 x 32, a tenth of a
    WRN-28-2's.

    Args:
        classes: K of ``[N, C, H, W] -> [N, K]``.
        channels: C.
        width: channels after the stem; doubled in each stage.
        stages: how often the maps are halved after the stem.
        dropout: probability, before the linear layer.
        bn_momentum: weight of the newest batch in the running statistics.
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        width: int = 32,
        stages: int = 3,
        *,
        dropout: float = 0.0,
        bn_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.dropout = dropout

        def normed(channels: int) -> list[nn.Module]:
            return [nn.BatchNorm2d(channels, momentum=bn_momentum), nn.ReLU(inplace=True)]

        layers = [nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False), *normed(width)]
        for _ in range(stages):
            layers += [nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.MaxPool2d(2), *normed(2 * width)]
            width *= 2
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), *normed(width)]
        self.dim = width
        self.body = nn.Sequential(*layers)
        self.linear = nn.Linear(width, classes)

    def maps(self, x: Tensor) -> Tensor:
        """The activations before they are pooled, ``[N, dim, h, w]``."""
        maps: Tensor = self.body(x)
        return maps
