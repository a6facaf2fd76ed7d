"""The cache of decoded pictures: found again, never stale, never in the way."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from picture_folders import read_folder
from PIL import Image

from fewlabels.data import cache, reading, workers


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("a", 10), ("b", 20)):
        for i in range(3):
            path = tmp_path / "photos" / "labeled" / name / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), value + i).save(path)
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each decoding was of."""
    counts: list[int] = []
    original = reading.decoded_of

    def counted(files: reading.Files, *options: object) -> object:
        counts.append(len(files))
        return original(files, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "decoded_of", counted)
    return counts


def values(root: Path, **options: object) -> list[int]:
    source = read_folder(root, **options)  # type: ignore[arg-type]
    return [int(v) for v in source.images[:, 8, 8, 0]]


def test_a_second_start_decodes_nothing(photos: Path, decoded: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    assert values(photos) == [10, 11, 12, 20, 21, 22]
    assert values(photos, progress=lambda *n: seen.append(n)) == [10, 11, 12, 20, 21, 22]
    assert decoded == [6] and seen == [(6, 6)]
    assert len(list((cache.folder()).iterdir())) == 4  # pixels and digests, each with facts beside it
    again = read_folder(photos)
    assert again.notes == read_folder(photos).notes


def test_a_changed_picture_is_read_again_and_the_old_entry_goes(photos: Path, decoded: list[int]) -> None:
    values(photos)
    changed = photos / "labeled" / "a" / "1.bmp"
    before = changed.stat()
    Image.new("L", (16, 16), 99).save(changed)  # the same size in bytes
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # and the same time: only the ctime tells
    assert values(photos) == [10, 99, 12, 20, 21, 22]
    (photos / "labeled" / "b" / "2.bmp").unlink()
    assert values(photos) == [10, 99, 12, 20, 21]
    (photos / "labeled" / "b" / "0.bmp").rename(photos / "labeled" / "b" / "9.bmp")
    assert values(photos) == [10, 99, 12, 21, 20]
    assert decoded == [6, 6, 5, 5]
    assert len(list(cache.folder().iterdir())) == 4


def test_options_have_entries_of_their_own(photos: Path, decoded: list[int]) -> None:
    assert read_folder(photos, image_size=8).shape == (1, 8, 8)
    assert read_folder(photos).shape == (1, 16, 16)
    assert read_folder(photos, image_size=20, fit="centre").images[0, 0, 0, 0] == 0
    assert read_folder(photos, image_size=20).images[0, 0, 0, 0] == 10
    assert read_folder(photos, image_size=8).shape == (1, 8, 8)
    assert decoded == [6] * 4


@pytest.mark.parametrize("damage", ["facts", "array", "empty", "gone"])
def test_a_damaged_entry_counts_for_nothing(photos: Path, decoded: list[int], damage: str) -> None:
    values(photos)
    pictures = read_folder(photos).pictures
    for array in list(cache.folder().glob("*.npy")):
        if damage == "facts":
            array.with_suffix(".json").write_text('{"shape": [1')
        elif damage == "array":
            array.write_bytes(array.read_bytes()[:-5])
        elif damage == "empty":
            array.write_bytes(b"")
        else:
            array.unlink()
    assert read_folder(photos).pictures == pictures
    assert values(photos) == [10, 11, 12, 20, 21, 22]
    assert decoded == [6, 6]


def test_a_cache_that_cannot_be_written_is_none(
    photos: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = photos.parent / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert values(photos) == values(photos) == [10, 11, 12, 20, 21, 22]
    assert decoded == [6, 6]


def test_broken_pictures_are_tried_again(photos: Path, decoded: list[int]) -> None:
    broken = photos / "labeled" / "a" / "1.bmp"
    whole = broken.read_bytes()
    broken.write_bytes(b"BM")
    stat = broken.stat()
    with pytest.raises(ValueError, match=r"1 of 6 pictures cannot be read: labeled/a/1.bmp"):
        values(photos)
    assert values(photos, skip_corrupt=True) == values(photos, skip_corrupt=True) == [10, 12, 20, 21, 22]
    with pytest.raises(ValueError, match="1 of 6 pictures cannot be read"):
        values(photos)
    assert decoded == [6, 6]
    broken.write_bytes(whole)
    os.utime(broken, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert values(photos) == [10, 11, 12, 20, 21, 22]


@pytest.mark.slow
def test_many_may_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            entry = cache.Entry("place", "state")
            entry.store(images, {"broken": []})
            found = entry.load()
            if found is None or not np.array_equal(found[0], images):
                wrong.append("half an entry")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sorted(p.name for p in cache.folder().iterdir()) == ["place-state.json", "place-state.npy"]


def test_an_open_array_outlives_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = np.full((2, 4, 4, 1), 7, np.uint8)
    cache.Entry("place", "old").store(old, {})
    found = cache.Entry("place", "old").load()
    assert found is not None
    cache.Entry("place", "new").store(old + 1, {})
    assert cache.Entry("place", "old").load() is None
    assert np.array_equal(found[0], old) and not found[0].flags.writeable


@pytest.mark.slow
def test_processes_give_what_threads_give(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (photos / "labeled" / "a" / "x.png").write_bytes(b"no picture")
    one = read_folder(photos, skip_corrupt=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(workers, "FROM", 1)
    other = read_folder(photos, skip_corrupt=True)
    assert np.array_equal(one.images, other.images) and one.notes == other.notes


def test_decoders_keep_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(workers, "keep_freed_memory", lambda: called.append(1))
    with workers.workers(1):
        assert called == [1]


def test_a_process_that_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FROM", 1)
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with workers.workers(5) as run:
        assert list(run(divmod, [(7, 2), (9, 4)])) == [(3, 1), (2, 1)]
    monkeypatch.undo()
    monkeypatch.setattr(workers, "FROM", 1)
    with workers.workers(5) as run, pytest.raises(ZeroDivisionError):
        list(run(divmod, [(1, 0)]))
