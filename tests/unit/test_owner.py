"""Who trains in a folder: real processes, real locks."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewlabels.runs.owner import Lock, Taken
from fewlabels.runs.records import RunError
from fewlabels.runs.run import Run

FORK: Any = multiprocessing.get_context("fork")


def in_child(work: Callable[[], object]) -> Any:
    child = FORK.Process(target=work)
    child.start()
    return child


class Holder:
    """A child that owns a folder until it is told to end, or killed."""

    def __init__(self, folder: Path, *, forks: bool = False) -> None:
        self.own, its = FORK.Pipe()

        def hold() -> None:
            lock, helper = Lock(folder), 0
            if forks and not (helper := os.fork()):
                time.sleep(30)  # a child of the owner, which outlives it
                os._exit(0)
            its.send(helper)
            its.recv()
            lock.release()

        self.child = in_child(hold)
        self.helper = self.own.recv()

    def end(self) -> None:
        self.own.send("end")
        self.child.join(30)

    def kill(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.join()  # with a limit it would wait for the helper, which has the other end of its pipe

    def end_helper(self) -> None:
        if self.helper:
            os.kill(self.helper, signal.SIGKILL)


@pytest.mark.slow
def test_a_second_owner_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    holder = Holder(tmp_path / "run")
    before = (tmp_path / "run" / ".lock").read_bytes()
    with pytest.raises(Taken) as caught:
        Lock(tmp_path / "run")
    assert re.fullmatch(
        rf"{tmp_path}/run is being trained by process {holder.child.pid} on {socket.gethostname()} "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; stop it, or wait until it ends",
        str(caught.value),
    )
    assert (tmp_path / "run" / ".lock").read_bytes() == before
    holder.end()
    assert not (tmp_path / "run").exists()  # it was made for this, and holds nothing
    Lock(tmp_path / "run").release()


def test_within_one_process_too(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(Taken, match=f"by process {os.getpid()} on"):
        Lock(tmp_path)
    lock.release()
    lock.release()
    Lock(tmp_path).release()
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("forks", [False, True])
def test_kill_9_frees_the_folder(tmp_path: Path, forks: bool) -> None:
    """A child of the killed one that lives on, a helper of some library, must not keep it."""
    holder = Holder(tmp_path, forks=forks)
    holder.kill()
    assert (tmp_path / ".lock").is_file()
    Run.check_free(tmp_path, overwrite=False)  # what it left makes the folder no occupied one
    lock = Lock(tmp_path)
    assert lock.note == ""  # it was a process of this machine, and is gone
    lock.release()
    holder.end_helper()
    assert not list(tmp_path.iterdir())


def test_folder_may_be_renamed_copied_and_removed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    lock = Lock(path)
    (path / "config.json").write_text("{}")
    shutil.copytree(path, tmp_path / "copy")
    Lock(tmp_path / "copy").release()
    path.rename(elsewhere)
    with pytest.raises(Taken):
        Lock(elsewhere)
    Lock(path).release()  # another folder by now
    lock.release()
    assert [p.name for p in elsewhere.iterdir()] == ["config.json"]
    lock = Lock(elsewhere)
    shutil.rmtree(elsewhere)
    lock.release()


def test_an_owner_on_another_machine_is_named(tmp_path: Path) -> None:
    """Where locks do not reach that far, its file is all that can be seen of it."""
    said = {"pid": 77, "host": "elsewhere", "since": "2026-01-02 03:04:05"}
    (tmp_path / ".lock").write_text(json.dumps(said))
    lock = Lock(tmp_path)
    assert lock.note.startswith(
        f"process 77 on elsewhere, which trained {tmp_path} since 2026-01-02 03:04:05, did not say that it has ended"
    )
    lock.release()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK])
def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = Lock(tmp_path)
    assert lock.note == f"nothing keeps a second training out of {tmp_path}: its file system has no locks"
    lock.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"pid": 3}', b"x" * 5000])
def test_file_of_an_owner_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Taken, match=r"is being trained by another process$"):
            Lock(tmp_path)
    Lock(tmp_path).release()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "letter")
    with pytest.raises(RunError, match=r"its \.lock is a folder, a link or a socket"):
        Lock(tmp_path / "run")
    assert (tmp_path / "letter").read_text() == "dear"


@pytest.mark.parametrize("new", [False, True])
def test_a_folder_that_goes_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    """Its former owner removes it between two calls of ours."""
    made: list[Path] = []

    def mkdir(path: Path, **options: Any) -> None:
        made.append(path)
        os.mkdir(path)
        if len(made) == 1:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    Lock(tmp_path / "run", new=new).release()
    assert len(made) == 2 and not list(tmp_path.iterdir())


def test_a_folder_that_was_there_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mkdir` finds another's folder, which is gone when `mkdir` looks whether it is one."""
    calls: list[Path] = []

    def mkdir(path: Path, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.mkdir(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    Lock(tmp_path / "run").release()
    assert len(calls) == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_folder_is_left(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "run"
    if link:
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("mine")
    with pytest.raises(RunError, match=r"run folder .*run: File exists$"):
        Lock(path)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_many_processes_and_one_folder(tmp_path: Path) -> None:
    """Taken and given up again and again: never by two at once, and nothing is left."""
    folder, count = tmp_path / "run", FORK.Value("i", 0)

    def work() -> None:
        taken = 0
        while taken < 30:
            try:
                lock = Lock(folder)
            except Taken:
                continue
            inside = folder / "inside"
            inside.touch(exist_ok=False)
            inside.unlink()
            lock.release()
            taken += 1
        with count.get_lock():
            count.value += taken

    children = [in_child(work) for _ in range(4)]
    for child in children:
        child.join(60)
    assert count.value == 120 and not (folder.exists() and list(folder.iterdir()))


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [a_folder, a_link, a_socket], ids=lambda make: make.__name__)
def test_a_lock_that_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(RunError, match=rf"^cannot lock the run folder {tmp_path}: its \.lock is .*: remove it$"):
        Lock(tmp_path)
    assert os.path.lexists(tmp_path / ".lock")


@pytest.mark.parametrize("name", [b"caf\xe9", b"a/\xff"])
def test_a_name_that_tensorboard_does_not_take(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(RunError, match="is not UTF-8, and TensorBoard takes no other"):
        Lock(tmp_path / os.fsdecode(name))
    assert not list(tmp_path.iterdir())
