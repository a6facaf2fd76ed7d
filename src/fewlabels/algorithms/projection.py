"""Embeddings of images on a sphere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

EPASS = 3
"""Projectors of an ensemble (EPASS, Nguyen 2024, https://arxiv.org/abs/2310.15764)."""


class Projector(nn.Module):
    """A hidden layer as wide as the features, and a linear one; of norm 1, ``[N, D] -> [N, P]``.

    Args:
        epass: an ensemble, whose mean is taken before it is brought to norm 1.
    """

    def __init__(
        self, features: int, width: int, activation: Literal["relu", "leaky-relu"], epass: bool = False
    ) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            nn.Sequential(
                nn.Linear(features, features),
                nn.ReLU() if activation == "relu" else nn.LeakyReLU(0.1),
                nn.Linear(features, width),
            )
            for _ in range(EPASS if epass else 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        mean = torch.stack([project(features) for project in self.each]).mean(0)
        return nn.functional.normalize(mean)
