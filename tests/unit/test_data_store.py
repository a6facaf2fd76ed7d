"""Resident images and the draw."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.data.store import Store, draw_rows


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_taken_pixels_are_the_images(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 2, channels), dtype=np.uint8)
    store = Store(images)
    assert store.shape == (channels, 3, 2) and len(store) == 5000
    assert store.nbytes == 5000 * 6 * {1: 1, 3: 4}.get(channels, channels)
    rows = torch.tensor([4999, 0, 4096, 0])
    pixels, expected = store.take(rows), images[rows.numpy()].reshape(4, 6, channels).astype(np.int64)
    if channels == 3:
        expected = expected @ [1, 256, 65536]
    elif channels == 1:
        expected = expected[..., 0] * (1 + 256 + 65536)
    assert pixels.dtype == (torch.int32 if channels in (1, 3) else torch.uint8)
    assert np.array_equal(pixels.numpy(), expected)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_store_keeps_a_copy(channels: int) -> None:
    images = np.zeros((2, 2, 2, channels), np.uint8)
    store = Store(images)
    images += 1
    assert store.take(torch.tensor([0, 1])).sum() == 0


def test_a_store_may_be_empty() -> None:
    store = Store(np.zeros((0, 8, 8, 3), np.uint8))
    assert len(store) == 0 and store.nbytes == 0


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 2**40), st.integers(0, 2**63))
def test_every_epoch_is_a_permutation(n: int, batch: int, first: int, seed: int) -> None:
    steps = 2 * n // batch + 2  # covers one whole epoch wherever it starts
    stream = np.concatenate([draw_rows(n, batch, step, seed, "labeled") for step in range(first, first + steps)])
    assert stream.dtype == np.int64 and len(stream) == steps * batch
    start = -(first * batch) % n
    assert sorted(stream[start : start + n]) == list(range(n))


def test_one_stream_whatever_the_batch() -> None:
    whole = draw_rows(7, 60, 0, 5, "unlabeled")
    assert np.concatenate([draw_rows(7, 12, step, 5, "unlabeled") for step in range(5)]).tolist() == whole.tolist()
    assert len({tuple(whole[i : i + 7]) for i in range(0, 56, 7)}) > 1  # epochs differ


def test_draws_depend_on_seed_purpose_and_epoch_only() -> None:
    draws = [draw_rows(1000, 50, 3, *key).tolist() for key in ((1, "a"), (2, "a"), (1, "b"))]
    assert draws[0] != draws[1] != draws[2] != draws[0]
    # Philox of numpy, keyed by the seed and the first 8 bytes of sha256(purpose), counter word 2 the epoch
    key = np.array([1, int.from_bytes(hashlib.sha256(b"a").digest()[:8], "little")], np.uint64)
    oracle = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, 0], np.uint64)))
    assert draws[0] == oracle.permutation(1000)[150:200].tolist()


def test_a_drawn_batch_may_be_changed() -> None:
    before = draw_rows(100, 10, 0, 1, "x").copy()
    draw_rows(100, 10, 0, 1, "x")[:] = 0
    assert draw_rows(100, 10, 0, 1, "x").tolist() == before.tolist()
