"""Tar files at a URL: in memory, and on a web server of this process."""

from __future__ import annotations

import fcntl
import http.server
import io
import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tar_files import samples, write_tar

import fewlabels as fl
from fewlabels.config.choice import look
from fewlabels.config.settings import Data
from fewlabels.data import remote
from fewlabels.data.addresses import names_in
from fewlabels.data.archives import DataUnavailable
from fewlabels.data.names import parse
from fewlabels.data.remote import here
from fewlabels.data.sources import load
from fewlabels.runs.folder import run_name
from fewlabels.runs.run import RunError
from fewlabels.runtime import screen
from fewlabels.runtime.urls import bare, is_url, stem_of
from serving import in_a_thread


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def shard(path: Path, first: int, labels: str) -> Path:
    """Pictures from number `first` on; a label for each letter, `-` for none."""
    pictures = {f"p{first + i:02}": png(first + i) for i in range(len(labels))}
    known = {key: label for key, label in zip(pictures, labels, strict=True) if label != "-"}
    return write_tar(path, samples(pictures, known))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tar files for the labeled part, one for each other."""
    root = tmp_path_factory.mktemp("local") / "cells"
    shard(root / "labeled" / "0000.tar", 0, "0101")
    shard(root / "labeled" / "0001.tar", 4, "1010")
    shard(root / "unlabeled" / "0000.tar", 8, "--------")
    shard(root / "test" / "0000.tar", 16, "0011")
    return root


@pytest.fixture
def bucket(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same at a URL, with a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    for path in local.rglob("*.tar"):
        fsspec.filesystem("memory").pipe(f"/bucket/cells/{path.relative_to(local)}", path.read_bytes())
    fsspec.filesystem("memory").pipe("/bucket/cells/other/0000.tar", b"no part of it")
    yield "memory://bucket/cells"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


Fetched = list[str]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """The names of the files that are copied."""
    names: Fetched = []
    plain = MemoryFileSystem.get_file

    def get_file(self: Any, address: str, *args: Any, **more: Any) -> Any:
        names.append(address.removeprefix("/bucket/cells/"))
        return plain(self, address, *args, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)
    return names


ALL = ["labeled/0000.tar", "labeled/0001.tar", "test/0000.tar", "unlabeled/0000.tar"]


def below(path: Path) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*.tar"))


def test_a_set_at_a_url_is_the_one_in_the_folder_and_is_copied_once(
    bucket: str, local: Path, fetched: Fetched, capsys: pytest.CaptureFixture[str]
) -> None:
    there, near = load(parse(bucket)), load(parse(f"{local}/"))
    np.testing.assert_array_equal(there.images, near.images)
    np.testing.assert_array_equal(there.test_images, near.test_images)
    np.testing.assert_array_equal(there.labels, near.labels)
    assert there.identity == near.identity and there.name == near.name == "cells"
    assert list(there.names) == list(near.names) and there.classes == near.classes
    assert sorted(fetched) == ALL
    total = sum((local / name).stat().st_size for name in ALL)
    said = capsys.readouterr().err
    assert f"{bucket}: 4 of 4 tar files, {total / 1024:.0f} KiB, are copied to {remote.folder()}" in said
    load(parse(bucket))
    assert len(fetched) == 4 and capsys.readouterr().err == ""
    copied = here(bucket).path
    assert copied.is_relative_to(remote.folder()) and below(copied) == ALL
    for name in ALL:
        assert (copied / name).read_bytes() == (local / name).read_bytes()


def test_files_are_named_by_pattern_and_alone(bucket: str, fetched: Fetched) -> None:
    some = here(f"{bucket}/{{labeled,test}}/{{0000..0000}}.tar").path
    assert below(some) == ["labeled/0000.tar", "test/0000.tar"] and some.name == "cells"
    one = here(f"{bucket}/test/0000.tar").path
    assert one.name == "0000.tar" and one.is_file() and len(fetched) == 3
    assert load(parse(f"{bucket}/labeled/0001.tar")).labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(DataUnavailable, match=r"cells/\{0..3\}.tar is not there, or not reached"):
        here(f"{bucket}/{{0..3}}.tar")
    with pytest.raises(ValueError, match=r"there are no tar files at memory://bucket/nothing, nor in folders labeled"):
        here("memory://bucket/nothing")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x.tar", ["x.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{000..001}-{a,bc}.tar", ["000-a.tar", "000-bc.tar", "001-a.tar", "001-bc.tar"]),  # as bash has them
    ],
)
def test_patterns_mean_what_a_shell_makes_of_them(pattern: str, names: list[str]) -> None:
    assert names_in(pattern) == names


@settings(max_examples=30, deadline=None)
@given(low=st.integers(0, 1200), count=st.integers(1, 30), width=st.integers(1, 6), words=st.integers(2, 4))
def test_every_name_of_a_pattern_comes_once(low: int, count: int, width: int, words: int) -> None:
    every = [f"w{i}" for i in range(words)]
    found = names_in(f"a/{{{low:0{width}}..{low + count - 1}}}-{{{','.join(every)}}}.tar")
    assert [tuple(re.findall(r"\d+|w\d", name)) for name in found] == [
        (f"{n:0{width if low < 10 ** (width - 1) else 0}}", w)
        for n, w in itertools.product(range(low, low + count), every)
    ]


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("{3..1}.tar", "must go up"),
        ("{0..100000}.tar", "must go up, by less than 100000"),
        ("{0..999}{0..999}.tar", "means more than 100000 files"),
        ("{a}.tar", "is no pattern; one is"),
        ("{a.tar", "has a brace alone"),
    ],
)
def test_patterns_that_are_none_are_refused(pattern: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        names_in(pattern)


# ---- what changes, what is gone, and what is interrupted


def test_a_file_that_changes_is_copied_again_and_one_that_is_gone_goes(
    bucket: str, tmp_path: Path, fetched: Fetched
) -> None:
    copied = here(bucket).path
    other = shard(tmp_path / "other.tar", 30, "0101").read_bytes()
    fsspec.filesystem("memory").pipe("/bucket/cells/labeled/0001.tar", other)
    fsspec.filesystem("memory").rm("/bucket/cells/test/0000.tar")
    fetched.clear()
    assert here(bucket).path == copied and fetched == ["labeled/0001.tar"]
    assert (copied / "labeled" / "0001.tar").read_bytes() == other
    assert below(copied) == ["labeled/0000.tar", "labeled/0001.tar", "unlabeled/0000.tar"]
    (copied / "labeled" / "0000.tar").write_bytes(b"cut off")
    here(bucket)
    assert fetched == ["labeled/0001.tar", "labeled/0000.tar"]


def test_what_was_whole_before_an_interruption_stays_and_nothing_is_half_there(
    bucket: str, fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AT_ONCE", 1)
    plain = MemoryFileSystem.get_file

    def stops(self: Any, address: str, target: str, **more: Any) -> Any:
        if len(fetched) == 2:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        return plain(self, address, target, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", stops)
    with pytest.raises(KeyboardInterrupt):
        here(bucket)
    assert len(fetched) == 2
    (home,) = remote.folder().iterdir()
    assert below(home / "cells") == fetched
    monkeypatch.setattr(MemoryFileSystem, "get_file", plain)
    here(bucket)
    assert sorted(fetched) == ALL  # each once
    assert {p.name for p in home.iterdir()} == {"cells", "copies.json", "lock"}


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(1, 5))
def test_a_process_that_is_killed_leaves_whole_files_and_the_next_copies_the_rest(
    bucket: str, local: Path, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "AT_ONCE", 1)
    asked = iter(range(1, 9))
    plain = MemoryFileSystem.get_file

    def dies(self: Any, address: str, target: str, **more: Any) -> Any:
        if next(asked) == turn:
            Path(target).write_bytes(fsspec.filesystem("memory").cat(address)[:700])
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, address, target, **more)

    if (child := os.fork()) == 0:
        MemoryFileSystem.get_file = dies
        here(bucket)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (home,) = remote.folder().iterdir()
    for name in below(home / "cells"):
        assert (home / "cells" / name).read_bytes() == (local / name).read_bytes()
    assert len(below(home / "cells")) == turn - 1
    copied = here(bucket).path
    assert below(copied) == ALL and not (home / "part").exists()


def test_one_process_copies_and_the_other_waits(
    bucket: str, fetched: Fetched, capsys: pytest.CaptureFixture[str]
) -> None:
    here(bucket)
    (home,) = remote.folder().iterdir()
    (home / "copies.json").unlink()
    with (home / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=here, args=(bucket,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and len(fetched) == 4
    thread.join(20)
    assert len(fetched) == 8 and f"another process copies {bucket}: waiting for it" in capsys.readouterr().err


def test_a_network_that_fails_is_asked_again_and_then_named(
    bucket: str, fetched: Fetched, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, failing = MemoryFileSystem.get_file, iter([True, True])

    def fails(self: Any, address: str, target: str, **more: Any) -> Any:
        if address.endswith("test/0000.tar") and next(failing, False):
            raise ConnectionResetError("reset by https://cdn.example/x?Signature=SECRET of the server")
        return plain(self, address, target, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", fails)
    assert below(here(bucket).path) == ALL
    fsspec.filesystem("memory").touch("/bucket/cells/test/0000.tar")
    failing = iter([True] * 3)
    with pytest.raises(DataUnavailable) as error:
        here(bucket)
    sentence = str(error.value)
    assert sentence.startswith("memory:///bucket/cells/test/0000.tar cannot be copied to ")
    assert "asked for 3 times: reset by https://cdn.example/x of the server; files that are whole stay" in sentence
    assert "SECRET" not in sentence and error.value.__suppress_context__


def test_a_file_of_another_length_than_was_said_is_no_copy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, a, target, **more: Path(target).write_bytes(b"ab"))
    with pytest.raises(DataUnavailable, match=r"asked for 3 times: 2 bytes came, and [\d,]+ were said"):
        here(bucket)
    assert not below(remote.folder())


def test_whole_copies_are_read_where_the_server_is_away_and_a_note_says_so(
    bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(bucket)

    def away(*args: Any, **more: Any) -> Any:
        raise OSError("no route to host")

    (home,) = remote.folder().iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", away)
        source = load(parse(bucket))
        (home / "cells" / "test" / "0000.tar").rename(home / "away")
        with pytest.raises(DataUnavailable, match=r"cannot be reached: no route to host$"):
            load(parse(bucket))
    np.testing.assert_array_equal(source.images, load(parse(f"{local}/")).images)
    reached = f"{bucket} was asked for its tar files, and cannot be reached: no route to host"
    assert f"{reached}; the copies in {home} are read, which are whole" in source.notes


def test_room_is_looked_for_before_anything_is_copied(
    bucket: str, fetched: Fetched, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum((local / name).stat().st_size for name in ALL)
    with pytest.raises(
        ValueError, match=r"where copies take 0 B and Data.shard_cache allows .*: allow more, or remove"
    ):
        here(bucket, most=(size - 1) / 1e9)
    assert not fetched
    here(bucket, most=size / 1e9)
    with pytest.raises(ValueError, match=r"where copies take [1-9]\d* KiB and Data.shard_cache"):
        here(f"{bucket}/test/0000.tar", most=size / 1e9)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(ValueError, match=r"test/0000.tar needs \d+ KiB in \S*shards, and 100 B are free there"):
        here(f"{bucket}/test/0000.tar")
    assert len(fetched) == 4


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"class": "no_such_package_here.FileSystem", "err": "install it"}
    monkeypatch.setitem(known_implementations, "abc", known)
    with pytest.raises(
        DataUnavailable, match="abc://x/y needs the package 'no_such_package_here': pip install no_such_p"
    ):
        here("abc://x/y")
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(
        DataUnavailable, match=r"http://h/x.tar needs the package 'aiohttp': pip install 'fewlabels\[url"
    ):
        here("http://h/x.tar")
    with pytest.raises(ValueError, match="xyz://a/b: Protocol not known: xyz"):
        here("xyz://a/b")


# ---- trainings


def config(url: str, **changes: Any) -> fl.Train:
    train = fl.recipe("fixmatch", url)
    small = {"net": fl.Net("small-4"), "batch": 3, "uratio": 2, "steps": 4, "eval_every": 2, "save_every": 2}
    where = replace(train.data, name=url, image_size=8, residency="stream", normalize="minus-one-one")
    return replace(train, **small, log_every=1, data=where, **changes)


@pytest.mark.slow
def test_a_run_has_the_bits_of_one_on_local_files_and_refuses_files_that_changed(
    bucket: str, local: Path, tmp_path: Path
) -> None:
    weights = []
    for name, data in (("near", f"{local}/"), ("far", bucket)):
        run = fl.train(config(data), out=tmp_path / name)
        weights.append((run.checkpoint().path / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] and run.config.data.name == bucket
    fsspec.filesystem("memory").pipe(
        "/bucket/cells/labeled/0001.tar", shard(tmp_path / "other.tar", 30, "1010").read_bytes()
    )
    (tmp_path / "far" / "result.json").unlink()
    with pytest.raises(RunError, match=f"the images or labels of {bucket} have changed since"):
        fl.resume(tmp_path / "far")


def test_a_url_is_looked_at_and_names_the_run(bucket: str) -> None:
    there = look(Data(bucket))
    assert there is not None and there.pictures == 20 and there.labels == {"0": 4, "1": 4}
    assert run_name(config(bucket)) == "cells-fixmatch-s1"
    assert [stem_of(f"s3://b/{rest}") for rest in ("x.tar", "a b/{0..3}.tar", "{0..3}.tar", "")] == [
        "x",
        "a-b",
        "b",
        "b",
    ]


# ---- secrets


@settings(max_examples=60, deadline=None)
@given(
    user=st.text("abc:/@", max_size=4),
    middle=st.sampled_from(["", "/", ":", "1/", "a?b", "'\" "]),
    rest=st.sampled_from(["/x.tar", "/a/{0..3}.tar", ""]),
    query=st.sampled_from(["", "?sig=SECRET", "#SECRET", "?a=1&sig=SECRET#SECRET"]),
)
def test_what_is_shown_of_a_url_has_no_secret(user: str, middle: str, rest: str, query: str) -> None:
    url = f"https://{user}:{middle}SECRET@host.org{rest}{query}"
    if "'" not in middle:  # where a text goes on cannot be told then
        shown = bare(f"before {url} after")
        assert "SECRET" not in shown and shown.startswith("before https://") and shown.endswith(" after")
    with pytest.raises(ValueError, match="was given with a user, a password or a query") as error:
        Data(url)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("url", ["https://host:8080/x.tar", "s3://b/a/{0..3}.tar", "http://[::1]:80/x", "memory://a"])
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert bare(url) == url and is_url(url) and Data(url).name == url


@pytest.mark.slow
def test_a_command_shows_no_secret_and_says_where_no_url_goes(
    command: Callable[..., Any], bucket: str, tmp_path: Path
) -> None:
    said = command("train", "--data", "https://me:SECRET@host/x.tar?k=SECRET", "--out", tmp_path / "run")
    assert said.code == 2 and "https://host/x.tar was given with a user" in said.sentence
    assert "SECRET" not in said.out + said.err and not (tmp_path / "run").exists()
    said = command("data", "check", bucket)
    assert said.code == 0 and "2 classes" in said.out
    said = command("train", "--out", "s3://b/k?SECRET")
    assert said.code == 2 and "s3://b/k is a URL, and what is asked for here" in said.sentence
    assert "SECRET" not in said.err


# ---- a web server


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web(local: Path, bucket: str) -> Iterator[str]:
    """A server of the folder, which lists its folders."""
    pytest.importorskip("aiohttp", reason="the extra url is not installed")
    handler = partial(Handler, directory=str(local))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, in_a_thread(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


def test_a_set_on_a_web_server_by_folder_and_by_pattern(web: str, local: Path) -> None:
    near = load(parse(f"{local}/"))
    patterns = f"{web}/{{labeled/0000,labeled/0001,unlabeled/0000,test/0000}}.tar"
    for url in (f"{web}/", patterns):
        there = load(parse(url))
        np.testing.assert_array_equal(there.images, near.images)
        np.testing.assert_array_equal(there.test_labels, near.test_labels)
    with pytest.raises(DataUnavailable, match=rf"{web}/labeled/000\{{0..3\}}.tar is not there, or not reached: {web}/"):
        here(f"{web}/labeled/000{{0..3}}.tar")


def test_a_server_that_is_not_there_is_named(web: str) -> None:
    url = re.sub(r":\d+$", ":9", web) + "/x.tar"
    with pytest.raises(DataUnavailable, match=rf"^{url} is not there, or not reached: {url} \(Cannot connect to host"):
        here(url)


# ---- what is shown


def test_a_log_file_hears_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    with screen.moving("copying", 100 << 20) as show:
        for second, done in ((1, 1 << 20), (4, 8 << 20), (20, 40 << 20), (40, 80 << 20)):
            now[0] = 100.0 + second
            show(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "copying: 8 MiB of 100 MiB, 2 MiB a second, 46 s left",
        "copying: 80 MiB of 100 MiB, 2 MiB a second, 10 s left",
    ]


def test_what_is_kept_of_a_copy_is_json_without_anything_else(bucket: str) -> None:
    here(bucket)
    (home,) = remote.folder().iterdir()
    told = json.loads((home / "copies.json").read_text())
    assert told["url"] == bucket and told["wanted"] == told["have"] and sorted(told["have"]) == ALL
