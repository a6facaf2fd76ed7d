"""FlexMatch's thresholds and state beyond the golden cases: other maps, several ranks, other parts in the same step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from algorithm_oracles import Identity, K, info, on_ranks, shard

from fewlabels.algorithms import FlexMatch, Missing
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch


def make(seed: int, index: list[int]) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x, weak, strong = (4 * torch.randn(n, K, 1, 1, generator=g) for n in (4, len(index), len(index)))
    y = torch.randint(K, (4,), generator=g)
    return Batch((x,), y, (weak, strong), torch.tensor(index), torch.tensor(0.5), Rng(seed, 0), torch.arange(4))


@pytest.mark.parametrize(
    ("mapping", "share"),
    [
        ("convex", lambda b: b / (2 - b)),
        ("linear", lambda b: (b + 1) / 2),
        ("low-limit", lambda b: 1 / (2 - b)),
        ("concave", lambda b: (math.log(b + 1) + 0.5) / (math.log(2) + 0.5)),
    ],
)
@pytest.mark.parametrize("warmup", [True, False])
def test_maps(mapping: Any, share: Any, warmup: bool) -> None:
    """Four, two, one and no images of the classes, and eight that were never sure."""
    algorithm: Any = FlexMatch(tau=0.9, mapping=mapping, warmup=warmup).build(info(4, 6)._replace(unlabeled=15))
    algorithm.select.last.copy_(torch.tensor([0] * 4 + [1] * 2 + [3] + [-1] * 8))
    most = 8 if warmup else 4
    expected = [0.9 * share(n / most) for n in (4, 2, 0, 1, 0)]
    assert algorithm.select.thresholds().tolist() == pytest.approx(expected, rel=1e-6)


def steps(algorithm: Any, batches: list[Batch]) -> tuple[list[float], list[int]]:
    masks = [m for b in batches for m in algorithm(b, Identity(), Identity()).kept.tolist()]
    return masks, algorithm.select.last.tolist()


def test_two_ranks_have_the_state_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are on both ranks in one step too: the last row in the order of the ranks is kept."""
    batches = [make(seed, [0, 1, 2, 3, 4, 5, 2, 1, 6, 7, 0, 3]) for seed in range(4)]
    one, *both = (FlexMatch(tau=0.8).build(info(4, 12)._replace(unlabeled=8)) for _ in range(3))
    masks, last = steps(one, batches)
    assert 0 < sum(masks) < len(masks) and len(set(last)) > 2
    found = on_ranks(monkeypatch, 2, lambda rank: steps(both[rank], [shard(b, rank, 2) for b in batches]))
    assert [state for _, state in found] == [last, last]
    halves = [[m for s in range(4) for m in masks[12 * s + 6 * r : 12 * s + 6 * r + 6]] for r in range(2)]
    assert [kept for kept, _ in found] == halves


def test_its_state_stays_where_labels_are_missing() -> None:
    batches = [make(seed, list(range(8))) for seed in range(3)]
    told = info(4, 8)._replace(unlabeled=8)
    usual, capped = (FlexMatch(tau=0.8, missing=Missing(name)).build(told) for name in ("none", "cap"))
    for batch in batches:
        ours, theirs = (algorithm(batch, Identity(), Identity()) for algorithm in (usual, capped))
        assert ours.kept.tolist() == theirs.kept.tolist()
    (state,) = (value for name, value in capped.state_dict().items() if name.endswith("last"))
    assert torch.equal(state, usual.state_dict()["select.last"]) and (state >= 0).any()
