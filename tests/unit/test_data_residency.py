"""Where the images live: the choice, and that it changes no batch."""

from __future__ import annotations

import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data, Train
from fewlabels.data import reading, residency, store
from fewlabels.data.folder import list_folder
from fewlabels.data.gather import Gather, make_store, place
from fewlabels.data.listing import Options
from fewlabels.data.pictures import Unreadable
from fewlabels.data.residency import choose, host_memory
from fewlabels.data.rules import Indices
from fewlabels.data.source import Images, OnDemand, Source, channel_statistics
from fewlabels.data.split import make_split
from fewlabels.data.store import Store, draw_rows
from fewlabels.data.stream import Files
from fewlabels.runs.run import Run
from fewlabels.runtime.words import amount
from fewlabels.training.loop import Output, resume, train
from fewlabels.training.step import Trainer

CPU = torch.device("cpu")
KINDS = ("device", "host", "stream")


def random_images(n: int, h: int = 8, w: int = 6, c: int = 3) -> Images:
    return np.random.default_rng(0).integers(0, 256, (n, h, w, c), dtype=np.uint8)


class Made(OnDemand):
    """Images on demand that are an array after all, and what was asked for."""

    ahead = 2

    def __init__(self, images: Images) -> None:
        self.images, self.shape = images, images.shape
        self.asked: list[list[int]] = []
        self.threads: set[str] = set()

    def read(self, rows: Indices, out: Images) -> None:
        self.asked.append(rows.tolist())
        self.threads.add(threading.current_thread().name)
        out[:] = self.images[rows]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 40),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([1, 2, 3, 4]),
    layout=st.sampled_from(["plain", "planes", "read-only"]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_store_gives_the_same_pixels(
    n: int, size: tuple[int, int], channels: int, layout: str, seed: int, data: Any
) -> None:
    h, w = size
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, h, w, channels), dtype=np.uint8)
    if layout == "planes":  # as torchvision's CIFAR comes
        images = random.integers(0, 256, (n, channels, h, w), dtype=np.uint8).transpose(0, 2, 3, 1)
    images.flags.writeable = layout != "read-only"
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), np.int64)
    # by hand: bytes from the lowest, grey three times, other channels as they are
    flat = images[rows].reshape(len(rows), h * w, channels).astype(np.int64)
    weights = {1: [0x010101], 3: [1, 256, 65536]}
    expected = flat @ weights[channels] if channels in weights else flat
    stores = make_store(images, CPU, "device"), make_store(images, CPU, "host"), make_store(Made(images), CPU, "stream")
    assert [type(kept) for kept in stores] == [Store, Gather, Gather]
    for kept in stores:
        kept.expect([rows])
        for _ in range(2):  # expected, and not expected
            taken = kept.take(torch.from_numpy(rows))
            assert taken.dtype == (torch.int32 if channels in (1, 3) else torch.uint8)
            assert np.array_equal(taken.numpy(), expected)
        assert kept.shape == (channels, h, w) and len(kept) == n


def test_expected_rows_are_read_ahead_in_order_and_once() -> None:
    made = Made(random_images(10))
    kept = Gather(made)
    assert kept.ahead == 2 and kept.nbytes == 0 and kept.rows_device == CPU
    batches = [np.array(rows, np.int64) for rows in ([3, 1], [4], [1, 5], [9, 9])]
    kept.expect(batches[:2])
    deadline = time.monotonic() + 10
    while len(made.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made.asked == [[3, 1], [4]]  # nobody has taken them yet
    assert made.threads == {"gather_0"}
    kept.take(torch.tensor([3, 1]))
    kept.expect(batches[1:3])  # [4] is there already
    kept.take(torch.tensor([4]))
    kept.take(torch.tensor([1, 5]))
    assert made.asked == [[3, 1], [4], [1, 5]]
    kept.take(torch.tensor([9, 9]))  # not expected: read in this thread
    assert made.asked[-1] == [9, 9] and threading.current_thread().name in made.threads


def test_an_error_of_the_reader_comes_up_where_the_rows_are_taken() -> None:
    class Broken(Made):
        def read(self, rows: Indices, out: Images) -> None:
            raise Unreadable("a.png", "cut off")

    kept = Gather(Broken(random_images(3)))
    kept.expect([np.array([1])])
    with pytest.raises(Unreadable, match=r"^a.png cannot be read as a picture: cut off$"):
        kept.take(torch.tensor([1]))


def test_the_host_s_array_is_not_copied() -> None:
    images = random_images(4)
    kept = Gather(images)
    images[2] = 7
    assert kept.take(torch.tensor([2])).unique().tolist() == [0x070707]


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_of_the_resident_set(channels: int) -> None:
    """At most 1.4 times the bytes of the images, and next to nothing more while it is made."""
    images = random_images(6000, 32, 32, channels)
    tracemalloc.start()
    kept = Store(images)
    _, peak = tracemalloc.get_traced_memory()  # NumPy's arrays; torch's own memory is not in it
    tracemalloc.stop()
    assert images.nbytes <= kept.nbytes <= 1.4 * images.nbytes
    assert peak < 0.15 * images.nbytes


def test_the_choice_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cuda": 0, "cpu": 0}
    monkeypatch.setattr(residency, "host_memory", lambda: free["cpu"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["cuda"], 10**12))
    gpu = torch.device("cuda", 0)
    shape, packed, plain = (3, 10, 10), 4 * 100 * 50, 3 * 100 * 50
    free.update(cuda=2 * packed, cpu=2 * plain)
    assert choose("auto", 50, shape, gpu) == ("device", "cuda:0", packed, 2 * packed, False)
    free.update(cuda=2 * packed - 1)
    assert choose("auto", 50, shape, gpu).kind == "host"
    assert choose("auto", 50, shape, gpu, files=True).kind == "host"
    free.update(cuda=10**9, cpu=2 * plain - 1)  # files are decoded into the host's memory before they go anywhere
    assert choose("auto", 50, shape, gpu, files=True) == ("stream", "cpu", plain, 2 * plain - 1, False)
    assert choose("auto", 50, shape, gpu).kind == "device"
    assert choose("auto", 50, shape, CPU).kind == "host"
    assert [choose(kind, 50, shape, gpu).kind for kind in KINDS] == list(KINDS)  # type: ignore[arg-type]
    assert choose("auto", 50, (1, 10, 10), gpu).needed == 5000 and choose("auto", 50, (4, 10, 10), gpu).needed == 20000


def test_the_choice_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "host_memory", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    gpu, shape = torch.device("cuda", 1), (3, 32, 32)
    assert str(choose("auto", 60_000, shape, gpu)) == "images on cuda:1, 234 MiB of 1.0 GiB free there"
    assert str(choose("auto", 600_000, shape, gpu)) == (
        "images in host memory, gathered for each step; they would take 2.3 GiB of 1.0 GiB free on cuda:1"
    )
    assert str(choose("auto", 600_000, shape, gpu, files=True)) == (
        "images stay in their files, decoded for each step; they would take 1.7 GiB of 3.0 GiB free memory"
    )
    assert str(choose("device", 2, shape, CPU)) == "images in memory, 8 KiB of 3.0 GiB free memory (as asked)"
    assert [amount(n) for n in (5, 2048, 3 << 20, 3 << 29)] == ["5 B", "2 KiB", "3 MiB", "1.5 GiB"]


def test_free_memory_of_this_machine() -> None:
    pages = Path("/proc/meminfo")
    assert host_memory() > 2**20
    if pages.exists():
        total = int(pages.read_text().split()[1]) * 1024  # its first line: MemTotal
        assert host_memory() <= total


def test_a_control_group_s_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "/proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 80 kB\n",
        "/sys/fs/cgroup/memory.max": "50000\n",
        "/sys/fs/cgroup/memory.current": "30000\n",
        "/sys/fs/cgroup/memory.stat": "anon 9\ninactive_file 4000\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: texts[str(self)])
    assert host_memory() == 50000 - 30000 + 4000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert host_memory() == 80 * 1024


# ---- pictures in files


def stream(photos: Path) -> Source:
    return list_folder(photos).read(Options(stream=True))


def test_streamed_pictures_are_the_decoded_ones(photos: Path) -> None:
    source, whole = stream(photos), list_folder(photos).read(Options())
    assert isinstance(source.images, Files) and isinstance(source.test_images, Files)
    for mine, decoded in ((source.images, whole.images), (source.test_images, whole.test_images)):
        assert mine.shape == decoded.shape and mine.dtype == decoded.dtype and len(mine) == len(decoded)
        assert np.array_equal(np.asarray(mine), decoded)
        assert np.array_equal(np.asarray(mine[np.array([2, 0])]), decoded[[2, 0]])
        assert np.array_equal(np.asarray(mine[1:5:2]), decoded[1:5:2]) and np.array_equal(mine[3], decoded[3])
        assert np.array_equal(np.asarray(mine[np.arange(len(mine)) == 1]), decoded[1:2])
    first = np.asarray(Image.open(sorted((photos / "labeled" / "blue").iterdir())[0]).convert("RGB"))
    assert np.array_equal(source.images[0], first)
    assert np.array_equal(source.labels, whole.labels) and source.classes == whole.classes
    assert source.notes[-1] == "the pictures were not compared with each other, as they are not decoded yet"
    assert channel_statistics(source.images) == channel_statistics(np.asarray(whole.images))


@pytest.mark.slow
def test_processes_decode_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewlabels.data.workers.FROM", 1)
    source, whole = stream(photos), list_folder(photos).read(Options())
    rows = np.array([7, 0, 7, 3, 2, 5], np.int64)
    kept = Gather(source.images)
    kept.expect([rows, rows[:2]])
    for some in (rows, rows[:2], rows[2:]):
        assert torch.equal(kept.take(torch.from_numpy(some)), Store(whole.images).take(torch.from_numpy(some)))


def test_a_broken_picture_is_named_when_it_is_read(photos: Path, tmp_path: Path) -> None:
    good = sorted((photos / "labeled" / "red").iterdir())[0]
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:400])  # the header is whole
    files = Files([good, cut], 3, (16, 16))
    with pytest.raises(Unreadable, match=rf"^{cut} cannot be read as a picture: "):
        np.asarray(files)
    assert np.asarray(files[:1]).shape == (1, 16, 16, 3)


@pytest.fixture
def cut(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photos` with two broken pictures more, whose headers are whole; an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(photos, tmp_path / "cut")
    good = sorted((photos / "labeled" / "red").iterdir())[0].read_bytes()
    for name in ("labeled/blue/00.png", "unlabeled/m.png"):
        (tmp_path / "cut" / name).write_bytes(good[:400])
    return tmp_path / "cut"


def test_broken_pictures_are_left_out_before_streaming(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    original = reading.faults_of
    monkeypatch.setattr(reading, "faults_of", lambda files, *how: looked.append(len(files)) or original(files, *how))
    whole = list_folder(cut).read(Options(skip_corrupt=True))
    seen: list[tuple[int, int]] = []
    source = list_folder(cut).read(Options(stream=True, skip_corrupt=True, progress=lambda *n: seen.append(n)))
    assert isinstance(source.images, Files) and isinstance(whole.images, np.ndarray)
    assert np.array_equal(np.asarray(source.images), whole.images) and len(whole.images) == 16
    assert np.array_equal(source.labels, whole.labels)
    assert source.notes[0] == whole.notes[0] and "2 of 26 pictures cannot be read and were left out" in source.notes[0]
    assert looked == [26] and seen[-1] == (26, 26)
    again = list_folder(cut).read(Options(stream=True, skip_corrupt=True))  # as a resume does
    assert looked == [26] and again.notes == source.notes and np.array_equal(again.labels, source.labels)
    shutil.copy(cut / "labeled" / "blue" / "0.png", cut / "labeled" / "blue" / "00.png")
    assert len(list_folder(cut).read(Options(stream=True, skip_corrupt=True)).images) == 17
    assert looked == [26, 26]


@pytest.mark.slow
def test_a_training_on_broken_pictures_is_the_same_streamed_and_resumed(
    short: Callable[..., Train], cut: Path, tmp_path: Path
) -> None:
    def config(kind: str) -> Train:
        made: Train = short(data=Data(f"{cut}/", skip_corrupt=True, residency=kind))  # type: ignore[arg-type]
        return made

    weights = train(config("host"), out=tmp_path / "host").checkpoint("last").weights("ema")
    run = train(config("stream"), out=tmp_path / "stream")
    run.path.joinpath("result.json").unlink()
    shutil.rmtree(run.checkpoint("last").path)  # step 12: it goes on from step 8
    others = resume(run.path).checkpoint("last").weights("ema")
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_picture_that_breaks_while_streaming_ends_the_training_in_one_sentence(
    short: Callable[..., Train], photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "own")
    config = short(data=Data(f"{tmp_path / 'own'}/", residency="stream"))
    source = load_source(config.data)
    for broken in (tmp_path / "own" / "unlabeled").iterdir():
        broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(
        ValueError, match=r"unlabeled/\S+ cannot be read as a picture: .*; mend it and resume"
    ) as caught:
        train(config, out=tmp_path / "run", source=source)
    assert "\n" not in str(caught.value)


def test_pictures_that_do_not_fit_stay_in_their_files(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos.parent / "no cache"))
    monkeypatch.setattr(reading, "fits", lambda plain: plain < 24 * 16 * 16 * 3)
    assert isinstance(load_source(Data(f"{photos}/", residency="auto")).images, Files)
    assert isinstance(load_source(Data(f"{photos}/", residency="host")).images, np.ndarray)
    # decoded once, they are mapped from the cache and need no memory
    assert isinstance(load_source(Data(f"{photos}/", residency="auto")).images, np.ndarray)
    assert isinstance(load_source(Data(f"{photos}/", residency="stream")).images, Files)


def test_what_is_read_whole_cannot_be_streamed() -> None:
    source = load_source(Data("digits"))
    with pytest.raises(ValueError, match="stream is for pictures that are read from their files, and digits is read w"):
        place("stream", source, CPU)


# ---- trainings


def trainer(short: Callable[..., Train], photos: Path, kind: str, **changes: Any) -> Trainer:
    data = Data(f"{photos}/", residency=kind, labels=4, seed=1, valid=2)  # type: ignore[arg-type]
    source = load_source(data)
    config = short(weak="ms", shift=2, strong="rand:kekmodel", data=data, **changes)
    split = make_split(source, labels=4, seed=1, valid=2)
    return Trainer(config, source, split, device=CPU, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.slow
def test_the_same_batches_wherever_the_images_live(short: Callable[..., Train], photos: Path) -> None:
    trainers = [trainer(short, photos, kind) for kind in KINDS]
    assert [t.batches.place.kind for t in trainers] == list(KINDS)
    for step in (0, 1, 2, 7, 3, 4):  # in order, forward and back
        one, *others = (t.batch(step) for t in trainers)
        for other in others:
            for a, b in zip(
                (*one.x, *one.u, one.y, one.index), (*other.x, *other.u, other.y, other.index), strict=True
            ):
                assert torch.equal(a, b)


@pytest.mark.slow
def test_each_rank_gathers_its_own_rows(short: Callable[..., Train], photos: Path) -> None:
    whole, *ranks = (trainer(short, photos, "host") for _ in range(3))
    for rank, t in enumerate(ranks):
        t.batches.rank, t.batches.world = rank, 2
    for step in range(3):
        parts = [t.batch(step) for t in ranks]
        assert torch.equal(torch.cat([p.u[1] for p in parts]), whole.batch(step).u[1])
        assert torch.equal(torch.cat([p.x[0] for p in parts]), whole.batch(step).x[0])


def test_only_the_rows_of_steps_to_come_are_expected(short: Callable[..., Train], photos: Path) -> None:
    t = trainer(short, photos, "stream", steps=3)
    assert isinstance(t.batches.store, Gather) and t.batches.store.ahead == 3
    expected = []
    t.batches.store.expect = lambda batches: expected.append([len(rows) for rows in batches])  # type: ignore[method-assign]
    for step in range(3):
        t.batch(step)
    assert expected == [[4, 8, 4, 8], [4, 8], []]


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_with_its_images_elsewhere(
    short: Callable[..., Train], photos: Path, tmp_path: Path
) -> None:
    def config(kind: str) -> Train:
        made: Train = short(data=Data(f"{photos}/", valid=2, residency=kind))  # type: ignore[arg-type]
        return made

    def end(run: Run) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        records = [{k: v for k, v in record.items() if k != "seconds"} for record in run.metrics("eval")]
        return run.checkpoint("last").weights("ema"), records

    weights, evaluations = end(train(config("device"), out=tmp_path / "device"))
    for begun, then in (("host", "stream"), ("stream", "device")):
        run = train(config(begun), out=tmp_path / begun)
        run.path.joinpath("result.json").unlink()
        shutil.rmtree(run.checkpoint("last").path)  # step 12: it goes on from step 8
        moved = replace(run.config, data=replace(run.config.data, residency=then))
        said: list[str] = []
        others, records = end(resume(run.path, config=moved, output=Output(say=said.append)))
        assert said[0] == f"resuming {run.path} at step 8 of 12"
        assert records == evaluations
        assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


# ---- the draw


def test_the_next_epoch_of_a_large_set_is_drawn_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    n, batch = 2**16, 2**14
    asked: list[tuple[Any, ...]] = []

    class Now:
        def submit(self, function: Any, *args: Any) -> None:
            asked.append(args)
            function(*args)

    monkeypatch.setattr(store, "_background", Now())
    drawn = [draw_rows(n, batch, step, 5, "ahead") for step in range(8)]
    assert asked == [(n, 5, "ahead", 1), (n, 5, "ahead", 2)]
    for epoch in range(2):
        rows = np.concatenate(drawn[4 * epoch : 4 * epoch + 4])
        assert np.array_equal(np.sort(rows), np.arange(n))
    asked.clear()
    for step in range(8):
        draw_rows(n - 1, batch, step, 5, "small")
    assert asked == []
