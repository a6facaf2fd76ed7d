"""SVHN, STL-10 and Fashion-MNIST from small files in the official formats, from a server on this machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as tv
from numpy.typing import NDArray
from scipy.io import savemat

from fewlabels.data.names import parse
from fewlabels.data.sources import DataUnavailable, load

DIGITS = np.random.default_rng(0)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def www(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


def svhn_files(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[NDArray[np.uint8], list[int]]]:
    """Matlab files with X ``[32, 32, 3, N]`` and y in 1 .. 10; the digit 0 is 10."""
    parts, table = {}, {}
    for part, labels in (("train", [10, 1, 2, 9]), ("extra", [3, 10, 5]), ("test", [1, 10])):
        x = DIGITS.integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        buffer = io.BytesIO()
        savemat(buffer, {"X": x, "y": np.array(labels, np.uint8)[:, None]})
        (folder / f"{part}_32x32.mat").write_bytes(buffer.getvalue())
        parts[part] = (x, labels)
        table[part] = [f"{url}{part}_32x32.mat", f"{part}_32x32.mat", md5(buffer.getvalue())]
    monkeypatch.setattr(tv.SVHN, "split_list", table)
    return parts


def test_svhn_counts_classes_from_the_digit_1(
    www: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = svhn_files(*www, monkeypatch)
    source = load(parse("svhn"), root=tmp_path / "new" / "root")
    assert source.labels.tolist() == [9, 0, 1, 8, 2, 9, 4]  # the file's labels less 1, train then extra
    assert [source.classes[y] for y in source.labels] == ["0", "1", "2", "9", "3", "0", "5"]
    assert source.test_labels.tolist() == [0, 9]
    assert np.array_equal(source.images[5], parts["extra"][0][..., 1])
    assert np.array_equal(source.test_images[0], parts["test"][0][..., 0])
    assert source.style.weak == "s" and source.style.shift == 4 and source.style.mean == (0.5, 0.5, 0.5)
    without = load(parse("svhn_noextra"), root=tmp_path / "new" / "root")
    assert without.labels.tolist() == [9, 0, 1, 8] and without.name == "svhn_noextra"


def test_svhn_noextra_fetches_no_extra(www: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svhn_files(*www, monkeypatch)
    (www[0] / "extra_32x32.mat").unlink()
    assert len(load(parse("svhn_noextra"), root=tmp_path / "a").images) == 4
    with pytest.raises(DataUnavailable, match=r"svhn is not in .* cannot be downloaded .*404.*extra_32x32.mat"):
        load(parse("svhn"), root=tmp_path / "a")


def test_stl10_has_unlabeled_images_and_folds(
    www: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = www
    files: dict[str, bytes] = {}
    pixels = {}
    for part, n in (("train", 6), ("unlabeled", 3), ("test", 2)):
        stored = DIGITS.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8)  # columns first
        files[f"{part}_X.bin"], pixels[part] = stored.tobytes(), stored.transpose(0, 3, 2, 1)
    files["train_y.bin"] = bytes([1, 10, 3, 4, 5, 6])
    files["test_y.bin"] = bytes([10, 1])
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    files["class_names.txt"] = "\n".join(names).encode()
    files["fold_indices.txt"] = b"0 2 4 \n1 3 5 \n"
    archive = folder / "stl10_binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"stl10_binary/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(tv.STL10, "url", url + archive.name)
    monkeypatch.setattr(tv.STL10, "tgz_md5", md5(archive.read_bytes()))
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(tv.STL10, attribute, [[n, md5(files[n])] for n, _ in getattr(tv.STL10, attribute)])
    source = load(parse("stl10"), root=tmp_path / "root")
    assert source.labels.tolist() == [0, 9, 2, 3, 4, 5, -1, -1, -1] and source.test_labels.tolist() == [9, 0]
    assert np.array_equal(source.images, np.concatenate([pixels["train"], pixels["unlabeled"]]))
    assert np.array_equal(source.test_images, pixels["test"])
    assert source.classes == tuple(names)
    assert [fold.tolist() for fold in source.folds] == [[0, 2, 4], [1, 3, 5]] and source.folds[0].dtype == np.int64
    assert source.style.shift == 12 and source.style.flip and source.style.weak == "ms"


def test_fashion_mnist_gets_two_black_pixels_around(
    www: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = www
    resources = []
    images = {}
    for part, n in (("train", 3), ("t10k", 2)):
        images[part] = DIGITS.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        packed = {
            f"{part}-images-idx3-ubyte.gz": struct.pack(">4i", 2051, n, 28, 28) + images[part].tobytes(),
            f"{part}-labels-idx1-ubyte.gz": struct.pack(">2i", 2049, n) + bytes(range(n)),
        }
        for name, content in packed.items():
            (folder / name).write_bytes(gzip.compress(content))
            resources.append((name, md5((folder / name).read_bytes())))
    monkeypatch.setattr(tv.FashionMNIST, "mirrors", [url])
    monkeypatch.setattr(tv.FashionMNIST, "resources", resources)
    source = load(parse("fashion_mnist"), root=tmp_path / "root")
    assert source.shape == (1, 32, 32) and source.labels.tolist() == [0, 1, 2] and source.test_labels.tolist() == [0, 1]
    assert np.array_equal(source.images[:, 2:30, 2:30, 0], images["train"])
    assert source.images.sum() == images["train"].sum()  # the border is black
    assert np.array_equal(source.test_images[:, 2:30, 2:30, 0], images["t10k"])
    assert source.classes[9] == "Ankle boot"
    assert not any("checksum" in note for note in source.notes)
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    path = raw / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for broken, sentence in (
        (whole[:-1] + bytes([whole[-1] ^ 1]), "train-images-idx3-ubyte.gz beside it holds other bytes"),
        (whole[:-5], "it has 2363 bytes, and not the header or the size of one"),
        (b"<html>", "it has 6 bytes"),
        (b"", "it has 0 bytes"),
        (struct.pack(">4i", 2051, 2**30, 28, 28) + whole[16:], "not the header or the size"),
        (struct.pack(">4i", 2051, 6, 28, 14) + whole[16:], "not the header or the size"),
    ):
        path.write_bytes(broken)
        with pytest.raises(DataUnavailable, match=f"{path} is no file of Fashion-MNIST: .*{sentence}.*; remove both"):
            load(parse("fashion_mnist"), root=tmp_path / "root")
    path.write_bytes(whole)
    path.with_name(f"{path.name}.gz").write_bytes(b"other")
    with pytest.raises(DataUnavailable, match="beside it has another checksum"):
        load(parse("fashion_mnist"), root=tmp_path / "root")
    path.with_name(f"{path.name}.gz").unlink()
    notes = load(parse("fashion_mnist"), root=tmp_path / "root").notes
    assert notes[0] == f"train-images-idx3-ubyte.gz not in {raw}: these images were not compared with a checksum"


@pytest.mark.parametrize("name", ["svhn", "stl10", "fashion_mnist"])
def test_without_network_there_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "http://127.0.0.1:1/"
    table = {part: [f"{closed}{part}.mat", f"{part}.mat", "0" * 32] for part in ("train", "extra", "test")}
    monkeypatch.setattr(tv.SVHN, "split_list", table)
    monkeypatch.setattr(tv.STL10, "url", closed + "stl10.tar.gz")
    monkeypatch.setattr(tv.FashionMNIST, "mirrors", [closed])
    with pytest.raises(DataUnavailable) as caught:
        load(parse(name), root=tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{name} is not in {tmp_path} and cannot be downloaded (") and "\n" not in text
    assert closed.rstrip("/") in text


def test_parts_belong_to_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test names a part of a folder of own pictures, and digits is none"):
        load(parse("digits"), test=tmp_path)
