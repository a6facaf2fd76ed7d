"""What MixMatch and ReMixMatch share: MixUp over everything, and forward passes in interleaved batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from fewlabels import parallel
from fewlabels.functional import interleave, mixup
from fewlabels.nets import frozen_statistics
from fewlabels.rng import Rng
from fewlabels.types import Info, Net

Groups = Sequence[Tensor]


def mix_all(images: Groups, labels: Groups, beta: float, rng: Rng) -> tuple[list[Tensor], list[Tensor]]:
    """MixUp of every example with a random one of all groups and ranks (mode ``xxy.yxy`` of the original).

    The examples of the whole step are numbered group by group, and within a group rank by rank, so that the
    same global batch is mixed in the same way on any number of ranks.

    Args:
        images: groups (labeled, unlabeled views), each ``[B, C, H, W]``, this rank's rows.
        labels: their labels as distributions, each ``[B, K]``, without gradient.
        beta: both parameters of the Beta distribution; the larger of share and 1 - share goes to the example
            itself (MixMatch, eq. 11).
        rng: draws ``beta("mixup-0"...)`` per group and ``permutation("mixup")``.

    Returns:
        The mixed images and labels in the groups of the arguments.
    """
    rows, groups = len(images[0]), len(images)
    assert all(len(group) == rows for group in (*images, *labels))
    share = torch.cat([rng.beta(f"mixup-{group}", beta, beta, rows) for group in range(groups)])
    share = torch.maximum(share, 1 - share)
    partner = rng.permutation("mixup", groups * rows * rng.world)
    partner = partner.view(groups, rng.world, rows)[:, rng.rank].flatten()

    def mix(parts: Groups) -> list[Tensor]:
        everyone = torch.cat([parallel.gather(part) for part in parts])
        mixed = mixup(torch.cat(list(parts)), everyone[partner], share)
        return list(torch.split(mixed, rows))

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
