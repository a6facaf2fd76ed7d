"""CIFAR from small files in the official format; nothing is fetched from outside this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv
from numpy.typing import NDArray

from fewlabels.data.names import parse
from fewlabels.data.source import FACTS
from fewlabels.data.sources import DataUnavailable, default_root, load

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def rows(n: int, seed: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels as the official files store them, ``[n, 3072]``: 1024 red, 1024 green, 1024 blue."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 3072), dtype=np.uint8), random.integers(0, 10, n).tolist()


def write(path: Path, content: dict[str, object]) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with ten images per official batch; torchvision is told their checksums and a closed port."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    for seed, name in enumerate([*batches, "test_batch"]):
        pixels, labels = rows(10, seed)
        write(folder / name, {"data": pixels, "labels": labels})
    write(folder / "batches.meta", {"label_names": NAMES})
    reader = tv.CIFAR10
    monkeypatch.setattr(reader, "train_list", [[name, md5(folder / name)] for name in batches])
    monkeypatch.setattr(reader, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": md5(folder / "batches.meta")})
    monkeypatch.setattr(reader, "url", "http://127.0.0.1:1/cifar-10-python.tar.gz")
    return tmp_path / "data"


def check(root: Path) -> None:
    source = load(parse("cifar10.1@10"), root=root)
    pixels = np.concatenate([rows(10, seed)[0] for seed in range(5)])
    assert np.array_equal(source.images, pixels.reshape(50, 3, 32, 32).transpose(0, 2, 3, 1))
    assert source.labels.tolist() == [y for seed in range(5) for y in rows(10, seed)[1]]
    assert np.array_equal(source.test_images[3, :, :, 1], rows(10, 5)[0][3, 1024:2048].reshape(32, 32))
    assert source.test_labels.tolist() == rows(10, 5)[1]
    assert source.classes == tuple(NAMES) and source.name == "cifar10"
    assert source.style == FACTS["cifar10"].style and source.shape == FACTS["cifar10"].shape


def test_cifar10_is_read_in_the_official_order(cifar10: Path) -> None:
    check(cifar10)


def test_root_comes_from_the_environment(cifar10: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ML_DATA", str(cifar10))
    assert len(load(parse("cifar10")).images) == 50
    monkeypatch.delenv("ML_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root() == tmp_path / "cache" / "fewlabels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "fewlabels"


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    fine = list(range(100))
    for seed, name in enumerate(["train", "test"]):
        write(folder / name, {"data": rows(100, seed)[0], "fine_labels": fine, "coarse_labels": [0] * 100})
    write(folder / "meta", {"fine_label_names": [f"c{i}" for i in fine], "coarse_label_names": ["x"]})
    monkeypatch.setattr(tv.CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(tv.CIFAR100, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(tv.CIFAR100, "meta", tv.CIFAR100.meta | {"md5": md5(folder / "meta")})
    source = load(parse("cifar100"), root=tmp_path)
    assert source.labels.tolist() == fine and source.classes[7] == "c7"
    assert source.style.std == (0.2675, 0.2565, 0.2761)


def test_without_network_one_sentence_says_what_to_do(cifar10: Path, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        load(parse("cifar10"), root=tmp_path / "empty")
    text = str(caught.value)
    assert text.startswith(f"cifar10 is not in {tmp_path / 'empty'} and cannot be downloaded (")
    assert "put cifar-10-python.tar.gz from http://127.0.0.1:1/" in text and "$ML_DATA" in text
    assert "\n" not in text
    assert isinstance(caught.value, ValueError)


def test_a_mistyped_root_leaves_nothing_behind(cifar10: Path, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable):
        load(parse("cifar10"), root=tmp_path / "mistyped" / "deep")
    assert not (tmp_path / "mistyped").exists()


def test_a_damaged_file_is_never_unpickled(cifar10: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("a file with a wrong checksum was unpickled",)

    write(cifar10 / "cifar-10-batches-py" / "data_batch_3", {"data": Trap()})
    with pytest.raises(DataUnavailable):
        load(parse("cifar10"), root=cifar10)


@pytest.fixture
def server(cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serves the official archive, made of the small files, on this machine; gives the archive's path."""
    www = tmp_path / "www"
    www.mkdir()
    archive = www / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar10 / "cifar-10-batches-py", "cifar-10-batches-py")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=www)) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(tv.CIFAR10, "url", f"http://127.0.0.1:{httpd.server_port}/{archive.name}")
        monkeypatch.setattr(tv.CIFAR10, "tgz_md5", md5(archive))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield archive
        httpd.shutdown()


def test_what_is_missing_is_downloaded_once(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(tmp_path / "new" / "root")
    monkeypatch.setattr(tv.CIFAR10, "url", "http://127.0.0.1:1/gone")
    check(tmp_path / "new" / "root")


def test_a_download_with_a_wrong_checksum_is_refused(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DataUnavailable, match=r"cannot be downloaded .*corrupted"):
        load(parse("cifar10"), root=tmp_path / "new")
    assert not (tmp_path / "new" / "cifar-10-batches-py").exists()
