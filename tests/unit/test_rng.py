from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.runtime.rng import Rng, philox, seed_torch

MASK = 2**64 - 1


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10, written from Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 64) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def test_oracle_gives_the_known_answers_of_random123() -> None:
    # DEShawResearch/random123, tests/kat_vectors
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    assert philox4x64([MASK] * 4, [MASK] * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


@pytest.mark.parametrize(
    ("seed", "purpose", "step"), [(0, "init", 0), (1, "labeled", 7), (2**32 - 1, "mixup-0", 2**20)]
)
def test_stream_is_philox_keyed_by_seed_and_purpose_with_the_step_as_counter(
    seed: int, purpose: str, step: int
) -> None:
    key = [seed, int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")]
    # numpy counts up before it makes a block
    expected = philox4x64([1, 0, step, 0], key) + philox4x64([2, 0, step, 0], key)
    assert philox(seed, purpose, step).bit_generator.random_raw(8).tolist() == expected


def test_first_numbers_are_pinned() -> None:
    """A change here changes every training that was ever recorded."""
    key = [1, int.from_bytes(hashlib.sha256(b"labeled").digest()[:8], "little")]
    pinned = [0.4635588824180388, 0.3837679659226806, 0.27340296163619504]
    assert [(word >> 11) / 2**53 for word in philox4x64([1, 0, 0, 0], key)[:3]] == pinned
    assert philox(1, "labeled").random(3).tolist() == pinned


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**30),
    rows=st.integers(1, 6),
    world=st.sampled_from([1, 2, 3, 4]),
)
def test_ranks_together_draw_what_one_rank_draws(seed: int, step: int, rows: int, world: int) -> None:
    one = Rng(seed, step)
    ranks = [Rng(seed, step, rank=r, world=world) for r in range(world)]
    total = rows * world
    assert torch.equal(one.uniform("a", total, 2), torch.cat([r.uniform("a", rows, 2) for r in ranks]))
    assert torch.equal(one.normal("a", total), torch.cat([r.normal("a", rows) for r in ranks]))
    assert torch.equal(one.beta("a", 0.5, 0.5, total), torch.cat([r.beta("a", 0.5, 0.5, rows) for r in ranks]))
    global_rows = np.arange(total)
    assert np.concatenate([r.shard(global_rows) for r in ranks]).tolist() == global_rows.tolist()
    permutations = [r.permutation("a", 7).tolist() for r in ranks]
    assert sorted(permutations[0]) == list(range(7)) and permutations.count(permutations[0]) == world


def test_purposes_steps_and_seeds_draw_differently() -> None:
    draws = [
        Rng(seed, step).uniform(purpose, 8).tolist()
        for seed, step, purpose in [(1, 0, "a"), (1, 1, "a"), (1, 0, "b"), (2, 0, "a"), (1, 2**31, "a"), (0, 1, "a")]
    ]
    values = [v for draw in draws for v in draw]
    assert len(set(values)) == len(values) == 48


def test_a_draw_depends_on_nothing_drawn_before() -> None:
    rng = Rng(3, 4)
    first = rng.uniform("a", 5)
    rng.normal("b", 100)
    rng.bulk("c")
    np.random.default_rng(0).random(3)
    torch.rand(3)
    assert torch.equal(rng.uniform("a", 5), first)


def test_distributions() -> None:
    rng = Rng(5, 0)
    n = 20_000
    uniform, normal, beta = rng.uniform("u", n), rng.normal("n", n), rng.beta("b", 0.75, 0.75, n)
    for draw in (uniform, normal, beta):
        assert draw.dtype == torch.float32 and draw.shape == (n,)
    # mean and variance within five standard errors: U(0,1): 1/2, 1/12; N: 0, 1; Beta(a,a): 1/2, 1/(4(2a+1))
    for draw, mean, variance in ((uniform, 0.5, 1 / 12), (normal, 0, 1), (beta, 0.5, 1 / (4 * 2.5))):
        assert abs(draw.double().mean().item() - mean) < 5 * (variance / n) ** 0.5
        assert abs(draw.double().var().item() - variance) < 5 * variance * (2 / n) ** 0.5


def test_bulk_generator_is_a_function_of_seed_step_and_purpose() -> None:
    def noise(seed: int, step: int, purpose: str) -> torch.Tensor:
        return torch.randn(4, generator=Rng(seed, step).bulk(purpose))

    assert torch.equal(noise(1, 2, "vat"), noise(1, 2, "vat"))
    others = [noise(2, 2, "vat"), noise(1, 3, "vat"), noise(1, 2, "dropout")]
    assert not any(torch.equal(noise(1, 2, "vat"), other) for other in others)


def test_seeded_for_one_device_as_for_all() -> None:
    for seed in (0, 7, 2**63 - 1):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        seed_torch(seed, torch.device("cpu"))
        assert torch.equal(torch.rand(3), expected)
