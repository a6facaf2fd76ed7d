"""Tar files in WebDataset's form, written by Python's tarfile: what is in them, and what is refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tar_files import samples, write_tar

import fewlabels as fl
from fewlabels.config.choice import look
from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data
from fewlabels.data import crops, tars
from fewlabels.data.names import parse
from fewlabels.data.paths import Members
from fewlabels.data.pictures import Unreadable, decode, header
from fewlabels.data.sources import load
from fewlabels.data.stream import Files
from fewlabels.data.tars import index_of, members_of
from fewlabels.training import loop


def png(seed: int, size: tuple[int, int] = (12, 12)) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


PARTS = {"labeled": 12, "unlabeled": 10, "test": 6}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same pictures as files, and as two tar files for each part, in the order that the folder's have."""
    root = tmp_path_factory.mktemp("both")
    seed = 0
    for part, count in PARTS.items():
        rows: list[tuple[str, bytes, str]] = []
        for i in range(count):
            seed += 1
            name, data = f"{i * 3 // count}", png(seed, (14 + seed % 3, 15))
            rows.append((f"p{i:02}", data, name))
            file = root / "files" / part / ("" if part == "unlabeled" else name) / f"p{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for shard, some in enumerate((rows[: count // 2], rows[count // 2 :])):
            labels = {} if part == "unlabeled" else {key: label for key, _, label in some}
            pictures = {key: data for key, data, _ in some}
            write_tar(root / "tars" / part / f"{shard:04}.tar", samples(pictures, labels))
    return root / "files", root / "tars"


def test_pictures_in_tar_files_are_the_bits_and_the_order_of_the_same_files(both: tuple[Path, Path]) -> None:
    files, packed = (load(parse(f"{root}/"), image_size=8, stream=False) for root in both)
    np.testing.assert_array_equal(packed.images, files.images)
    np.testing.assert_array_equal(packed.test_images, files.test_images)
    np.testing.assert_array_equal(packed.labels, files.labels)
    np.testing.assert_array_equal(packed.test_labels, files.test_labels)
    assert packed.classes == files.classes == ("0", "1", "2")
    assert packed.names[0] == "labeled/0000.tar/p00.png" and packed.test_names[-1] == "test/0001.tar/p05.png"
    assert packed.notes == files.notes  # of what was resized


def test_streamed_pictures_and_their_random_crops_are_those_of_the_files(both: tuple[Path, Path]) -> None:
    files, packed = (load(parse(f"{root}/"), image_size=8, stream=True) for root in both)
    assert isinstance(packed.images, Files)
    rows = np.array([3, 21, 0, 3, 12])
    drawn = crops.draw(np.random.default_rng(0), len(rows), flip=True)
    for numbers in (None, drawn):
        a, b = (np.empty((len(rows), 8, 8, 3), np.uint8) for _ in range(2))
        files.images.read(rows, a, numbers)  # type: ignore[attr-defined]
        packed.images.read(rows, b, numbers)
        np.testing.assert_array_equal(a, b)


def config(data: Path, **changes: Any) -> fl.Train:
    train = fl.recipe("fixmatch", f"{data}/")
    small = {"net": fl.Net("small-4"), "batch": 3, "uratio": 2, "steps": 6, "eval_every": 3, "save_every": 2}
    where = replace(train.data, name=f"{data}/", image_size=8, residency="stream", normalize="minus-one-one")
    return replace(train, **small, log_every=1, data=where, **changes)


def weights(run: Any) -> bytes:
    return (run.checkpoint().path / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_on_tar_files_has_the_bits_of_one_on_the_files_also_after_a_stop(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = loop.train(config(both[0]), out=tmp_path / "files")
    step = loop.Trainer.step

    def stops(trainer: Any, number: int) -> None:
        if number == 5:
            raise KeyError("stopped")
        step(trainer, number)

    monkeypatch.setattr(loop.Trainer, "step", stops)
    with pytest.raises(KeyError):
        loop.train(config(both[1]), out=tmp_path / "tars")
    monkeypatch.undo()
    assert weights(fl.resume(tmp_path / "tars")) == weights(files)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/.\0", categories=("L", "N", "Zs")), min_size=1)
        | st.integers(90, 300).map(lambda n: "n" * n),
        min_size=1,
        max_size=4,
        unique=True,
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    sizes=st.lists(st.integers(0, 3000), min_size=4, max_size=4),
    folder=st.sampled_from(["", "a/", "./b/c/"]),
    seed=st.integers(0, 99),
)
def test_what_is_read_at_a_place_is_what_was_put_there(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], form: int, sizes: list[int], folder: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    contents = [(f"{folder}{name}.jpg", random.bytes(n)) for name, n in zip(names, sizes, strict=False)]
    path = write_tar(tmp_path_factory.mktemp("t") / "x.tar", contents, form=form)
    members, (index,) = members_of([path])
    assert index.names == [name.removeprefix("./") for name, _ in contents]
    assert [member.data for member in members] == [data for _, data in contents]
    for member, (_, data) in zip(members, contents, strict=True):
        at = int(random.integers(0, 3001))
        with member.open() as file:
            file.seek(at)
            assert file.read(7) == data[at : at + 7] and file.seek(0, os.SEEK_END) == len(data)
            file.seek(-min(5, len(data)), os.SEEK_CUR)
            assert file.read() == data[len(data) - min(5, len(data)) :]


def test_members_are_a_sequence_of_parts() -> None:
    a, b = tars.Tar(Path("a.tar"), 1, 2, 3), tars.Tar(Path("b.tar"), 4, 5, 6)
    both = Members.of([(a, ["x", "y"]), (b, ["z"])], np.array([[0, 1], [2, 3], [4, 5]]))
    plain = [tars.Member(a, "x", 0, 1), tars.Member(a, "y", 2, 3), tars.Member(b, "z", 4, 5)]
    assert list(both) == plain and list(both[1:]) == plain[1:] and list(both[np.array([2, 0])]) == [plain[2], plain[0]]
    assert list(both[:1] + both[1:]) == plain
    assert str(both[2]) == "b.tar/z"


# ---- labels and parts


def tar_of(root: Path, labels: dict[str, str], name: str = "x.tar", **more: bytes) -> Path:
    pictures = {key: png(i) for i, key in enumerate(labels)}
    return write_tar(root / name, [*samples(pictures, labels), *((k.replace("_", "."), v) for k, v in more.items())])


def test_one_tar_file_is_a_set_and_minus_one_is_unlabeled(tmp_path: Path) -> None:
    path = tar_of(tmp_path, {"a": "1", "b": "0", "c": "-1", "d": "1\n", "e": ""})
    source = load(parse(str(path)))
    assert source.labels.tolist() == [1, 0, -1, 1, -1] and source.classes == ("0", "1")
    assert not len(source.test_images) and "no test part" in " ".join(source.notes)


def test_numbers_are_those_of_the_classes_and_names_are_in_order(tmp_path: Path) -> None:
    assert load(parse(str(tar_of(tmp_path, {"a": "3", "b": "1"})))).classes == ("0", "1", "2", "3")
    named = load(parse(str(tar_of(tmp_path, {"a": "dog", "b": "cat", "c": "10"}, "named.tar"))))
    assert named.classes == ("10", "cat", "dog") and named.labels.tolist() == [2, 1, 0]


def test_a_label_may_stand_in_a_json_file(tmp_path: Path) -> None:
    facts = [json.dumps({"label": 1, "text": "x"}), json.dumps({"label": "0"}), "{"]
    files = [
        (f"{i}.{end}", data) for i, text in enumerate(facts) for end, data in (("json", text.encode()), ("png", png(i)))
    ]
    found = index_of(write_tar(tmp_path / "x.tar", files))
    assert [found.label(row) for row in range(3)] == ["1", "0", None]


def test_a_word_in_the_names_of_the_files_says_the_part(tmp_path: Path) -> None:
    tar_of(tmp_path, {"a": "1", "b": "0"}, "cells-train-0000.tar")
    tar_of(tmp_path, {"a": "0"}, "cells-train-0001.tar")
    tar_of(tmp_path, {"a": "1"}, "cells-val-0000.tar")
    write_tar(tmp_path / "cells-unlabeled-0.tar", samples({"u": png(9)}, {}))
    source = load(parse(f"{tmp_path}/"))
    assert source.labels.tolist() == [1, 0, 0, -1] and source.test_labels.tolist() == [1] and source.held == 0
    tar_of(tmp_path, {"t": "0"}, "cells-test-0000.tar")
    source = load(parse(f"{tmp_path}/"))
    assert source.held == 1 and source.labels.tolist() == [1, 0, 0, -1, 1] and source.test_labels.tolist() == [0]
    assert load(parse(f"{tmp_path}/"), validation=False).held == 0
    tar_of(tmp_path, {"t": "0"}, "more.tar")
    with pytest.raises(ValueError, match=r"more\.tar may be of any part"):
        load(parse(f"{tmp_path}/"))


def test_pictures_in_folders_beside_unlabeled_tar_files_are_refused(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "labeled", tmp_path / "labeled")
    write_tar(tmp_path / "unlabeled" / "0.tar", samples({"u": png(9)}, {}))
    with pytest.raises(ValueError, match=r"unlabeled holds no pictures, .* hold tar files beside folders"):
        load(parse(f"{tmp_path}/"))


def test_parts_may_lie_elsewhere_and_a_folder_of_pictures_stays_one(both: tuple[Path, Path], tmp_path: Path) -> None:
    tar_of(tmp_path / "set" / "train", {"a": "0", "b": "2", "c": "1"})
    source = load(parse(f"{tmp_path}/set/"), test=both[1] / "test", image_size=8)
    assert source.test_labels.tolist() == [0, 0, 1, 1, 2, 2] and len(source.images) == 3
    write_tar(both[0] / "backup.tar", [])
    try:
        assert len(load(parse(f"{both[0]}/"), image_size=8).images) == PARTS["labeled"] + PARTS["unlabeled"]
    finally:
        (both[0] / "backup.tar").unlink()


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"a": "0", "b": "-2"}, "the label of .*x.tar/b.png is '-2'; allowed are 0 to 99999, and -1 for an unlabeled"),
        ({"a": "0", "b": "100000"}, "b.png is '100000'; allowed are 0 to 99999"),
        ({"a": "0", "b": "1" * 5000}, "b.png is '1+...'; allowed are 0 to 99999"),
        ({"a": "cat", "b": "-3"}, "b.png is '-3'; allowed are names, and -1"),
        ({"a": "cat", "b": "None"}, "b.png is 'None', which may mean that there is none; write -1"),
        ({"a": "0", "b": "0"}, "has one class only"),
        ({"a": "-1"}, "holds no labeled pictures"),
        ({"a": "cat\ndog"}, "a.cls of .* is no label: it must be one line of text or a number"),
        ({"a": "\x00"}, "a.cls of .* is no label"),
        ({"a": "1" * 70000}, "a.cls of .* has 70000 bytes, and is no label"),
    ],
)
def test_labels_that_are_none_are_named(labels: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        load(parse(str(tar_of(tmp_path, labels))))


def test_a_picture_that_needs_a_label_and_has_none_is_named(tmp_path: Path) -> None:
    tar_of(tmp_path / "labeled", {"a": "0", "b": "1"}, c_png=png(5))
    with pytest.raises(ValueError, match=r"of the labeled part needs a label, .* none: \S*x.tar/c.png; -1 in there"):
        load(parse(f"{tmp_path}/"))
    tar_of(tmp_path / "labeled", {"a": "0", "b": "1"})
    tar_of(tmp_path / "test", {"t": "-1"})
    with pytest.raises(ValueError, match=r"of the test part needs a label, .* none: \S*test/x.tar/t.png$"):
        load(parse(f"{tmp_path}/"))
    (tmp_path / "test" / "x.tar").unlink()
    with pytest.raises(ValueError, match="test holds no tar files, as other parts do"):
        load(parse(f"{tmp_path}/"))


# ---- files that are not what they should be


def special(name: str, kind: bytes, link: str = "") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)

    return write


def patched(offset: int, data: bytes) -> Callable[[Path], None]:
    """A tar file of two pictures with other bytes at an offset."""

    def write(path: Path) -> None:
        content = bytearray(tar_of(path.parent, {"a": "0", "b": "1"}).read_bytes())
        content[offset : offset + len(data)] = data
        path.write_bytes(content)

    return write


def with_sum(path: Path, size: bytes) -> None:
    """A tar file whose first header has another size, and the checksum that goes with it."""
    content = bytearray(write_tar(path, [("a.png", png(0)), ("b.png", png(1))]).read_bytes())
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    path.write_bytes(content)


def pax_size(path: Path) -> None:
    """A tar file with a pax header that sends a reader back."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": "-2048"}
        tar.addfile(info)


def twice_over(path: Path) -> None:
    one = tar_of(path.parent, {"a": "0", "b": "1"}).read_bytes()
    path.write_bytes(one + one)


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda p: write_tar(p, [("/etc/x.png", b"")]), "holds '/etc/x.png', which leads out of the archive"),
        (lambda p: write_tar(p, [("a/../../x.png", b"")]), "holds 'a/../../x.png', which leads out of the archive"),
        (special("a.png", tarfile.SYMTYPE, "/etc/passwd"), "holds 'a.png', which is a link"),
        (special("a.png", tarfile.LNKTYPE, "b.png"), "holds 'a.png', which is a link"),
        (special("a.png", tarfile.FIFOTYPE), "holds 'a.png', which is no plain file"),
        (special("a.png", tarfile.GNUTYPE_SPARSE), "holds 'a.png', which is no plain file"),
        (lambda p: write_tar(p, [("a.png", b"1"), ("b.png", b""), ("a.png", b"2")]), "holds 'a.png' twice"),
        (lambda p: write_tar(p, [("a.png", b"1"), ("./a.png", b"2")]), "holds 'a.png' twice"),
        (lambda p: write_tar(p, [("a.1.png", b"1"), ("a.2.png", b"2")]), "holds two pictures of one sample, 'a.1.png'"),
        (lambda p: write_tar(p, [("a.cls", b"1")]), "holds a label for 'a' and no picture"),
        (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(600)), "is compressed, and cannot be read in place; unpack it"),
        (lambda p: p.write_bytes(b"no tar file at all" * 99), "cannot be read as a tar file"),
        (lambda p: p.write_bytes(b""), "cannot be read as a tar file"),
        (lambda p: p.mkdir(), "is no regular file"),
        (lambda p: os.mkfifo(p), "is no regular file"),
        (lambda p: p.symlink_to("nothing"), "there is no file"),
        (patched(2048, b"\xff" * 99), "cannot be read as a tar file: what follows byte 2048 is no file of it"),
        (twice_over, "is no file of it, though the tar file does not end there"),
        (lambda p: with_sum(p, (-1024).to_bytes(12, "big", signed=True)), "cannot be read as a tar file"),
        (lambda p: with_sum(p, b"77777777777\0"), "cannot be read as a tar file"),
        (pax_size, "cannot be read as a tar file: its headers lead in a circle"),
    ],
)
def test_hostile_and_damaged_files_are_refused_in_a_sentence(
    write: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.tar"
    write(path)
    with pytest.raises(ValueError, match=sentence) as error:
        index_of(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tar_of(tmp_path_factory.mktemp("whole"), {"a": "0", "b": "1", "c": "0"}).read_bytes()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 10240))
def test_of_a_file_that_is_cut_off_there_is_all_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.tar"
    path.write_bytes(whole[: max(1, len(whole) - cut)])
    try:
        found = index_of(path)
    except ValueError as error:
        assert "cannot be read as a tar file" in str(error)
    else:
        assert [found.label(row) for row in range(len(found.names))] == ["0", "1", "0"]
        assert not any(whole[-cut:])


# ---- the index


def test_a_file_is_looked_through_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tar_of(tmp_path, {"a": "0", "b": "1"})
    before = index_of(path)
    looked: list[object] = []
    through = tars._look_through
    monkeypatch.setattr(tars, "_look_through", lambda tar: looked.append(tar) or through(tar))
    again = index_of(path)
    assert not looked and again.names == before.names and again.labels == before.labels
    np.testing.assert_array_equal(again.places, before.places)
    tar_of(tmp_path, {"a": "0", "b": "1", "c": "0"})
    assert len(index_of(path).names) == 3 and len(looked) == 1


def test_many_may_look_through_a_file_at_once(tmp_path: Path) -> None:
    path = tar_of(tmp_path, {str(i): str(i % 2) for i in range(9)})
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(index_of, [path] * 12))
    assert all(one.names == found[0].names and (one.places == found[0].places).all() for one in found)
    assert index_of(path).label(4) == "0"


def test_a_file_that_changes_in_a_training_is_named_and_not_read(tmp_path: Path) -> None:
    path = tar_of(tmp_path, {"a": "0", "b": "1"})
    source = load(parse(str(path)), stream=True)
    member = members_of([path])[0][0]
    assert header(member).height == 12 and decode(member, 3, None).shape == (12, 12, 3)
    tar_of(tmp_path, {"b": "1", "a": "0"})
    os.utime(path, ns=(0, 1))
    with pytest.raises(Unreadable, match=r"x.tar/a.png cannot be read .*x.tar has changed since its members were"):
        source.images[0]
    out = np.empty((1, 12, 12, 3), np.uint8)
    with pytest.raises(Unreadable, match="has changed"):
        source.images.read(np.array([0]), out)  # type: ignore[attr-defined]


def test_a_broken_picture_in_a_tar_file_is_left_out_as_one_in_a_file(tmp_path: Path) -> None:
    pictures = {"a": png(0), "b": png(1)[:60], "c": png(2), "d": png(3)}
    path = write_tar(tmp_path / "x.tar", samples(pictures, {"a": "0", "b": "0", "c": "0", "d": "1"}))
    with pytest.raises(ValueError, match=r"1 of 4 pictures cannot be read: x.tar/b.png"):
        load(parse(str(path)))
    source = load_source(Data(str(path), skip_corrupt=True, residency="stream"))
    assert source.labels.tolist() == [0, 0, 1] and list(source.names) == ["x.tar/a.png", "x.tar/c.png", "x.tar/d.png"]


# ---- commands


@pytest.mark.slow
def test_a_set_of_tar_files_is_checked_and_looked_at_before_a_recipe_is_chosen(
    command: Callable[..., Any], both: tuple[Path, Path], tmp_path: Path
) -> None:
    said = command("data", "check", f"{both[1]}/")
    assert said.code == 0 and "3 classes" in said.out, said
    there = look(Data(f"{both[1]}/"))
    assert there is not None and there.pictures == 28 and there.labels == {"0": 4, "1": 4, "2": 4} and not there.grey
    said = command("train", "--data", str(tmp_path / "no.tar"), "--out", tmp_path / "run")
    assert said.code != 0 and "there is no file" in said.sentence


@pytest.mark.slow
def test_a_folder_becomes_tar_files_and_a_folder_again(
    command: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    said = command("data", "convert", f"{photos}/", tmp_path / "shards", "--tar", 3, "--json")
    assert said.code == 0, said
    files = json.loads(said.out)["files"]
    assert len(files) == 24 and files[0][1] == "labeled/000000.tar/00000000"
    found = sorted(p.relative_to(tmp_path / "shards").as_posix() for p in (tmp_path / "shards").rglob("*.tar"))
    assert found == [f"{part}/{i:06}.tar" for part in ("labeled", "test", "unlabeled") for i in range(3)]
    with tarfile.open(tmp_path / "shards" / "labeled" / "000000.tar") as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    assert sorted(content) == [f"0000000{i}.{end}" for i in range(3) for end in ("cls", "json", "png")]
    for key in ("00000000", "00000001", "00000002"):
        facts = json.loads(content[f"{key}.json"])
        assert content[f"{key}.cls"] == {"blue": b"0", "red": b"1"}[facts["class"]]
        assert content[f"{key}.png"] == (photos / facts["path"]).read_bytes()
    plain = load(parse(f"{photos}/"))
    packed = load(parse(f"{tmp_path}/shards/"), classes=tmp_path / "shards" / "classes.json")
    assert packed.classes == plain.classes
    pixels = lambda s: sorted(zip((x.tobytes() for x in s.images), s.labels.tolist(), strict=True))  # noqa: E731
    assert pixels(packed) == pixels(plain)
    assert command("data", "convert", tmp_path / "shards", tmp_path / "again").code == 0
    bytes_of = lambda root: sorted(p.read_bytes() for p in root.rglob("*.png"))  # noqa: E731
    assert bytes_of(tmp_path / "again") == bytes_of(photos)
    assert sorted(p.name for p in (tmp_path / "again" / "labeled").iterdir()) == ["0", "1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("convert", "PHOTOS", "NEW", "--tar", "0"), "--tar must be at least 1, got 0"),
        (("convert", "PHOTOS", "NEW", "--tar", "3", "--image-size", "8"), "--tar takes pictures as they are"),
        (("convert", "PHOTOS", "NEW.npz", "--tar", "3"), "is called as a file is"),
        (("convert", "PHOTOS", "PHOTOS/new", "--tar", "3"), "lies in"),
        (("crop", "TARS", "NEW", "--size", "8"), "holds tar files; `fewlabels data convert` makes a folder"),
    ],
)
def test_what_is_no_conversion_is_refused(
    words: tuple[str, ...],
    sentence: str,
    command: Callable[..., Any],
    both: tuple[Path, Path],
    photos: Path,
    tmp_path: Path,
) -> None:
    places = {"PHOTOS": str(photos), "TARS": str(both[1]), "NEW": str(tmp_path / "new")}
    for short, place in places.items():
        words = tuple(word.replace(short, place) for word in words)
    said = command("data", *words)
    assert said.code != 0 and sentence in said.sentence
    assert not list(tmp_path.iterdir())


# ---- predictions


def labels_of(table: str) -> dict[str, tuple[str, str]]:
    """Class and confidence by the bytes of the picture, wherever it lies."""
    return {
        Path(path).stem: (label, confidence) for path, label, confidence in (r.split(",") for r in table.split()[1:])
    }


@pytest.mark.slow
def test_predictions_for_tar_files_are_those_for_the_files(
    command: Callable[..., Any], photos: Path, photo_run: Any, tmp_path: Path
) -> None:
    files = sorted((photos / "test").rglob("*.png"))
    pictures = {f"{file.parent.name}-{file.stem}": file.read_bytes() for file in files}
    for key, data in pictures.items():
        (tmp_path / "plain" / f"{key}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "plain" / f"{key}.png").write_bytes(data)
    keys = list(pictures)
    for name, some in (("b", keys[:3]), ("a", keys[3:])):
        write_tar(tmp_path / "set" / "x" / f"{name}.tar", samples({key: pictures[key] for key in some}, {}))
    write_tar(tmp_path / "set" / "empty.tar", [])
    plain = command("predict", photo_run.path, tmp_path / "plain")
    packed = command("predict", photo_run.path, tmp_path / "set")
    assert plain.code == packed.code == 0 and labels_of(packed.out) == labels_of(plain.out), packed
    paths = [line.split(",")[0] for line in packed.out.splitlines()[1:]]
    where = {"b": keys[:3], "a": keys[3:]}
    assert paths == [f"{tmp_path}/set/x/{name}.tar/{key}.png" for name in "ab" for key in where[name]]
    one = command("predict", photo_run.path, tmp_path / "set" / "x" / "b.tar")
    assert [line.split(",")[0] for line in one.out.splitlines()[1:]] == paths[-3:]
    for i in (1, 2):
        said = command(
            "predict", photo_run.path, tmp_path / "set", "--shard", f"{i}/2", "--part-rows", 2, "-o", tmp_path / "parts"
        )
        assert said.code == 0, said
    assert "each of 8 pictures stands in exactly one" in command("predict", "--check", tmp_path / "parts").out
    rows = [line for part in sorted((tmp_path / "parts").glob("*.csv")) for line in part.read_text().splitlines()[1:]]
    assert labels_of("\n".join(["head", *rows])) == labels_of(plain.out)
    write_tar(tmp_path / "set" / "bad.tar", samples(pictures, {})).write_bytes(b"no tar")
    said = command("predict", photo_run.path, tmp_path / "set")
    assert said.code == 2 and said.out == "" and "bad.tar cannot be read as a tar file" in said.sentence
    said = command("predict", photo_run.path, tmp_path / "set" / "empty.tar")
    assert said.code == 2 and said.sentence.endswith("empty.tar holds no pictures")
