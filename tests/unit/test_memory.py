"""What is kept of images, against lists and dictionaries; and the pass over the unlabeled set."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewlabels as fl
from fewlabels.algorithms.fixmatch import FixMatch
from fewlabels.algorithms.memory import PerImage, Ring
from fewlabels.config.resolve import load_source, resolve, resolve_data, split_of
from fewlabels.inference.model import logits_of
from fewlabels.runtime import parallel
from fewlabels.training.step import Trainer

WRITES = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.floats(-9, 9, width=32)), min_size=1, max_size=9), max_size=5
)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(WRITES)
def test_the_last_value_of_each_image(writes: list[list[tuple[int, float]]]) -> None:
    kept, expected = PerImage(7, 2), {}
    for batch in writes:
        rows, values = zip(*batch, strict=True)
        kept.write(torch.tensor(rows), torch.tensor([[v, -v] for v in values]))
        expected |= dict(batch)
    assert kept.seen.tolist() == [row in expected for row in range(7)]
    for row, value in expected.items():
        assert kept.values[row].tolist() == [value, -value]


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), max_size=6))
def test_the_last_rows(sizes: list[int]) -> None:
    ring, queue = Ring(5, keys=torch.zeros(1), values=torch.full((2,), 0.5)), deque([(0.0, 0.5)] * 5, maxlen=5)
    number = 0.0
    for size in sizes:
        new = [number + i + 1 for i in range(size)]
        number += size
        ring.write(keys=torch.tensor(new)[:, None], values=torch.tensor(new)[:, None].expand(-1, 2) / 10)
        queue.extend((n, n / 10) for n in new)
    keys, values = ring.rows("keys"), ring.rows("values")
    assert sorted(keys[:, 0].tolist()) == sorted(n for n, _ in queue)
    at = int(ring.place)
    for kind, found in ((0, keys), (1, values)):
        oldest_first = torch.cat((found[at:], found[:at]))[:, 0].tolist()
        assert oldest_first == pytest.approx([row[kind] for row in queue])


class Refreshed(FixMatch):
    """FixMatch that looks at all unlabeled images after every second step."""

    def build(self, info: fl.Info) -> fl.Algorithm:
        step = super().build(info)
        step.refresh_every = 2
        step.refresh = seen_by.append  # type: ignore[method-assign, assignment]
        return step


seen_by: list[torch.Tensor] = []


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_pass_over_the_unlabeled_set(short: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    seen_by.clear()
    config = short(algorithm=Refreshed())
    data = resolve_data(config.data)
    source = load_source(data)
    split = split_of(data, source)
    trainer = Trainer(resolve(config, source), source, split, device=torch.device("cpu"), mean=(0.5,), std=(0.5,))
    shares: list[torch.Tensor] = []
    trainer.step(0)
    trainer.step(1)
    assert len(seen_by) == 1
    (expected,) = logits_of(
        [trainer.average.model], trainer.batches.normalize, trainer.batches.store, trainer.batches.unlabeled
    )
    assert expected.shape == (len(split.unlabeled), 10)
    torch.testing.assert_close(seen_by[0], expected, rtol=0, atol=1e-6)
    # the shares of several ranks, put together in their order, are the same
    trainer.world = world
    monkeypatch.setattr(parallel, "gather", lambda x: shares.append(x) or torch.cat(shares))
    for trainer.rank in range(world):
        trainer._refresh(4)
    torch.testing.assert_close(seen_by[-1], expected, rtol=0, atol=1e-6)
