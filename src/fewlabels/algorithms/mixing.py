"""What the methods with MixUp share: mixing of batches, and forward passes in interleaved batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from fewlabels.algorithms.functional import interleave, mixup
from fewlabels.nets import frozen_statistics
from fewlabels.runtime import parallel
from fewlabels.runtime.rng import Rng
from fewlabels.types import Info, Net

Groups = Sequence[Tensor]

Mix = Literal["xx.yy", "xxy.yxy", "xx.yxy", "xx.yx", "xx.", ".yy", "xxy.", ".yxy", "."]
"""What is mixed with what (google-research/fixmatch, libml/layers.py, MixMode).

Left of the point labeled images (x), right of it unlabeled ones (y); the first letter is what is mixed, the
others are what it is mixed with, and an empty side stays as it is. So ``xx.yxy`` mixes labeled images with
labeled ones, and unlabeled images with all.
"""


def larger_share(rng: Rng, purpose: str, beta: float, rows: int) -> Tensor:
    """``max(m, 1 - m)`` of m ~ Beta(beta, beta), ``[rows]``: the example itself prevails (MixMatch, eq. 8 and 9)."""
    share = rng.beta(purpose, beta, beta, rows)
    return torch.maximum(share, 1 - share)


def mix_groups(mode: Mix, images: Groups, labels: Groups, beta: float, rng: Rng) -> tuple[list[Tensor], list[Tensor]]:
    """MixUp of every example with a random one of the groups, on any rank, that `mode` names.

    Args:
        mode: see `Mix`.
        images: groups (labeled, then the unlabeled views), each ``[B, C, H, W]``, this rank's rows.
        labels: their labels as distributions, each ``[B, K]``, without gradient.
        beta: both parameters of the Beta distribution.
        rng: draws ``beta("mixup-GROUP")``, and permutations as `partners` says.

    Returns:
        The mixed images and labels in the groups of the arguments.
    """
    rows, groups = len(images[0]), len(images)
    assert all(len(group) == rows for group in (*images, *labels))
    partner = partners(mode, groups, rows, rng)
    share = {group: larger_share(rng, f"mixup-{group}", beta, rows) for group in partner}

    def mix(parts: Groups) -> list[Tensor]:
        if not partner:
            return list(parts)
        everyone = torch.cat([parallel.gather(part) for part in parts])
        return [mixup(part, everyone[partner[i]], share[i]) if i in partner else part for i, part in enumerate(parts)]

    return mix(images), mix(labels)


def partners(mode: Mix, groups: int, rows: int, rng: Rng) -> dict[int, Tensor]:
    """By group that is mixed: the numbers of its examples' partners, ``[rows]`` int64.

    The examples of the whole step are numbered group by group, and within a group rank by rank, so that the
    same global batch is mixed in the same way on any number of ranks. Groups that are mixed with a set to which
    they belong share one permutation of it (``mixup``, ``mixup-x``, ``mixup-y``); in ``xx.yx`` each unlabeled
    group has its own permutation of the labeled one (``mixup-x-GROUP``).
    """
    bounds = {"x": (0, 1), "y": (1, groups), "xy": (0, groups)}
    labeled, unlabeled = (side[1:] for side in mode.split("."))

    @cache
    def draw(purpose: str, members: int) -> Tensor:
        return rng.permutation(purpose, members * rows * rng.world).view(members, rng.world, rows)

    found = {}
    for group, pool in enumerate([labeled] + [unlabeled] * (groups - 1)):
        if pool:
            first, last = bounds[pool]
            inside = first <= group < last
            purpose = "mixup" if pool == "xy" else f"mixup-{pool}" if inside else f"mixup-{pool}-{group}"
            order = draw(purpose, last - first)[group - first if inside else 0, rng.rank]
            found[group] = first * rows * rng.world + order
    return found


def mix_reversed(purpose: str, images: Tensor, labels: Tensor, beta: float, rng: Rng) -> tuple[Tensor, Tensor]:
    """MixUp of the first example of the global batch with the last, the second with the last but one, and so on.

    Images ``[N, C, H, W]`` and labels ``[N, K]`` without gradient, this rank's rows; draws ``beta(purpose)``.
    """
    rows = len(images)
    share = larger_share(rng, purpose, beta, rows)

    def mix(part: Tensor) -> Tensor:
        return mixup(part, rng.shard(parallel.gather(part).flip(0)), share)

    return mix(images), mix(labels)


def interleaved_logits(net: Net, batches: Groups, updates: int) -> list[Tensor]:
    """Logits ``[B, K]`` of each batch, forwarded in interleaved batches, one pass for each.

    Every pass is normalised with its own batch statistics; only pass `updates` changes the running ones.
    """
    logits = []
    for i, mixed in enumerate(interleave(batches)):
        with nullcontext() if i == updates else frozen_statistics(net):
            logits.append(net(mixed).float())
    return interleave(logits)


def require_equal_batches(name: str, info: Info) -> None:
    """Raises ValueError unless a step has as many unlabeled images as labeled ones."""
    if info.unlabeled_batch != info.batch:
        raise ValueError(
            f"{name} needs uratio 1, as many unlabeled images as labeled ones in a step, "
            f"got {info.unlabeled_batch / info.batch:g} times as many"
        )
