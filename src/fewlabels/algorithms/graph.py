"""Label spreading over the nearest neighbours (Zhou et al. 2003). P images, D features, K classes.

Memory grows with P, not with its square: similarities are computed a block of rows at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 2**24
"""Similarities that are there at a time, at most (but one row at least)."""


def neighbours(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` images with the largest cosine to each image, itself left out: rows ``[P, count]`` int64, cosines."""
    unit = torch.nn.functional.normalize(features, dim=1)
    size = max(1, BLOCK // len(unit))
    rows, cosines = [], []
    for start in range(0, len(unit), size):
        block = unit[start : start + size] @ unit.T
        own = torch.arange(len(block), device=block.device)
        block[own, start + own] = -torch.inf
        found = block.topk(min(count, len(unit) - 1), dim=1)
        rows.append(found.indices)
        cosines.append(found.values)
    return torch.cat(rows), torch.cat(cosines)


def graph(features: Tensor, count: int) -> Tensor:
    """``S = D^-1/2 W D^-1/2``, sparse ``[P, P]`` float64, D the row sums of W.

    W_ij is the cube of the cosine of i and j where one is among the `count` nearest of the other, else 0; cosines below
    0 count as 0. (Iscen et al. 2019, https://arxiv.org/abs/1904.04717, have such a graph, with the sum of both ways.)
    """
    rows, cosines = neighbours(features, count)
    images = torch.arange(len(rows), device=rows.device).repeat_interleave(rows.shape[1])
    weights = cosines.flatten().double().clamp_min(0) ** 3
    one, other = torch.cat((images, rows.flatten())), torch.cat((rows.flatten(), images))
    key, place = torch.unique(one * len(rows) + other, return_inverse=True)
    values = torch.zeros(len(key), dtype=torch.float64, device=key.device)
    values.scatter_reduce_(0, place, torch.cat((weights, weights)), "amax")
    one, other = key // len(rows), key % len(rows)
    mass = torch.zeros(len(rows), dtype=torch.float64, device=key.device).index_add_(0, one, values)
    root = mass.clamp_min(1e-12).sqrt()
    places, shape = torch.stack((one, other)), (len(rows), len(rows))
    return torch.sparse_coo_tensor(
        places, values / (root[one] * root[other]), shape, is_coalesced=True, check_invariants=False
    )


def spread(graph: Tensor, start: Tensor, alpha: float, tolerance: float = 1e-6) -> Tensor:
    """Where ``F = alpha S F + (1 - alpha) Y`` ends (Zhou et al. 2003, section 2), ``[P, K]`` float64.

    By conjugate gradients for ``(I - alpha S) F = (1 - alpha) Y``, a column for each class.

    Args:
        graph: S, sparse ``[P, P]``.
        start: Y, ``[P, K]``: one-hot where the label is known, else 0.
        tolerance: of the residual, as a share of the right side's length.
    """
    right = (1 - alpha) * start.double()
    found, rest = torch.zeros_like(right), right.clone()
    way, square = rest.clone(), rest.square().sum(0)
    enough = tolerance**2 * square
    for _ in range(1000):
        moving = square > enough
        if not bool(moving.any()):
            break
        image = way - alpha * torch.sparse.mm(graph, way)
        step = torch.where(moving, square / (way * image).sum(0).clamp_min(1e-300), 0.0)
        found += step * way
        rest -= step * image
        before, square = square, rest.square().sum(0)
        way = rest + torch.where(moving, square / before.clamp_min(1e-300), 0.0) * way
    return found


def equal_mass(scores: Tensor) -> Tensor:
    """Scores ``[P, K]``, not negative, scaled so that each class has the same sum: classes are taken to be equally
    common (Zhu et al. 2003, class mass normalization). A class without any score stays so."""
    return scores / scores.sum(0).clamp_min(1e-12) * len(scores) / scores.shape[1]
