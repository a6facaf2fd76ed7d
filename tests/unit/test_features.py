"""Features on the disk: computed once for each picture, never another's, never in the way."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewlabels import nets
from fewlabels.augment.pixels import Normalize
from fewlabels.data import cache, features
from fewlabels.data.features import FeatureStore, Table
from fewlabels.inference.features import Body, features_of
from fewlabels.inference.model import Model

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.folder()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each forward pass was of."""
    counts: list[int] = []
    original = Body.features

    def counted(self: Body, images: Any) -> Any:
        counts.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Body, "features", counted)
    return counts


def body(seed: int = 0, mean: float = 0.5) -> Body:
    torch.manual_seed(seed)
    net = nets.build("wrn-10-1", classes=3, shape=SHAPE)
    model = Model(net, frozen=nets.freeze(net, "head")).eval()
    return Body(model, Normalize(SHAPE, (mean,) * 3, (0.5,) * 3), SHAPE, torch.device("cpu"))


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def found(own: Body, pixels: Any, rows: Any = None, name: str = "photos/") -> Any:
    rows = np.arange(len(pixels)) if rows is None else np.array(rows)
    return features_of(own, pixels, rows, own.table(name)).numpy()


def expected(own: Body, pixels: Any) -> Any:
    x = torch.from_numpy((pixels / 255 - own.normalize.mean.numpy()) / 0.5).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        return own.model.net.features(x).half().numpy()  # type: ignore[operator]


def test_they_are_the_net_s_own_and_computed_once(computed: list[int], folder: Path) -> None:
    own, pixels = body(), images(10)
    shown: list[tuple[int, int]] = []
    first = features_of(own, pixels, np.arange(10), own.table("photos/"), lambda *n: shown.append(n)).numpy()
    assert first.dtype == np.float16 and shown == [(10, 10)] and computed == [10]
    np.testing.assert_allclose(first, expected(own, pixels), atol=2e-3)
    assert np.array_equal(found(own, pixels), first) and computed == [10]
    # a picture is known by its pixels: in another order, beside new ones, twice
    again = found(own, np.concatenate([pixels[::-1], images(2, seed=1), pixels[:1]]))
    assert np.array_equal(again[:10], first[::-1]) and np.array_equal(again[-1], first[0]) and computed == [10, 2]
    assert np.array_equal(found(own, pixels, rows=[7, 3]), first[[7, 3]]) and computed == [10, 2]
    assert len(list(folder.iterdir())) == 2  # the rows, and their digest


def test_other_weights_scales_and_sets_have_their_own(computed: list[int]) -> None:
    pixels = images(4)
    one = found(body(), pixels)
    assert not np.array_equal(found(body(seed=1), pixels), one)
    assert not np.array_equal(found(body(mean=0.4), pixels), one)
    found(body(), pixels, name="others/")
    assert computed == [4] * 4
    head = body()
    with torch.no_grad():
        head.model.net.linear.weight.zero_()  # type: ignore[union-attr, operator]
    assert np.array_equal(found(head, pixels), one) and computed == [4] * 4  # the head has no part in them


@pytest.mark.parametrize("damage", ["cut", "bit", "facts", "gone", "other"])
def test_a_damaged_entry_is_none(computed: list[int], folder: Path, damage: str) -> None:
    own, pixels = body(), images(4)
    first = found(own, pixels)
    (rows,), (facts,) = folder.glob("*.npy"), folder.glob("*.json")
    content = rows.read_bytes()
    if damage == "cut":
        rows.write_bytes(content[:-3])
    elif damage == "bit":
        rows.write_bytes(content[:-3] + bytes([content[-3] ^ 64]) + content[-2:])
    elif damage == "facts":
        facts.write_text("{")
    elif damage == "gone":
        rows.unlink()
    else:  # half of what two processes wrote
        found(own, images(4, seed=1), name="others/")
        (other,) = set(folder.glob("*.npy")) - {rows}
        rows.write_bytes(other.read_bytes())
    before = len(computed)
    assert np.array_equal(found(own, pixels), first) and computed[before:] == [4]
    assert np.array_equal(found(own, pixels), first) and computed[before:] == [4]  # mended


def test_a_full_disk_and_a_folder_that_cannot_be(
    computed: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, pixels = body(), images(4)

    def full(file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        first = found(own, pixels)
    assert not list(folder.iterdir())
    folder.rmdir()
    folder.write_text("a file")
    assert np.array_equal(found(own, pixels), first) and computed == [4, 4]


def test_what_was_computed_before_an_error_is_kept(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from fewlabels.inference import features as inference

    monkeypatch.setattr(inference, "PIXELS_PER_BATCH", 2 * 64)
    own, pixels = body(), images(6)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of(own, pixels, np.arange(6), own.table("photos/"), stop)
    assert computed == [2, 2]
    found(own, pixels)
    assert computed == [2, 2, 2]


@pytest.mark.slow
def test_many_writers(folder: Path) -> None:
    """Each keeps what others have stored, and whatever is there is whole."""
    entry = cache.Entry(cache.digest(["x"]), "1")

    def write(number: int) -> None:
        for i in range(10):
            table = Table(entry, 3)
            table.put(bytes([number, i] * 8), np.full(3, 10 * number + i, np.float16))
            table.store(set())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = Table(entry, 3).known
    assert all(np.array_equal(value, np.full(3, 10 * key[0] + key[1], np.float16)) for key, value in known.items())
    write(5)
    assert len(Table(entry, 3).known) >= 10


def test_a_large_entry_is_begun_anew(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(features, "MOST", 10 * (features.KEY + 2 * 64))
    own = body()
    assert own.model.dim == 64
    found(own, images(8))
    found(own, images(8, seed=1))
    assert len(own.table("photos/").known) == 8
    assert {*own.table("photos/").known} == {features.key_of(image) for image in images(8, seed=1)}


def test_features_that_float16_cannot_hold() -> None:
    own = body()
    with torch.no_grad():
        own.model.net.bn.weight.mul_(1e6)  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match=r"^the features of the net are no numbers, or larger than 65,504, which"):
        found(own, images(4))


def test_a_store_of_features() -> None:
    store = FeatureStore(torch.arange(6.0).half().view(3, 2), np.array([4, 1, 7]), 9, SHAPE)
    assert len(store) == 9 and store.shape == SHAPE
    taken = store.take(torch.tensor([7, 4, 4]))
    assert taken.dtype == torch.float32 and taken.tolist() == [[4, 5], [0, 1], [0, 1]]
    with pytest.raises(Exception, match="index"):  # one whose features nobody computed
        store.take(torch.tensor([0]))
