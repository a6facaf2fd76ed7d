"""The lock on the folder of a training, which ends with its process, whatever ends that.

It lies on the file `.lock`, which says who: host, process and since when. Readers need no lock. The folder may be
renamed, copied or removed at any time; a copy of the file, or one that a killed process left, locks nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from fewlabels.runs.records import NotWritten, RunError
from fewlabels.runtime import parallel

LOCK = ".lock"
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class Taken(RunError):
    """Another process trains in the folder."""


class Lock:
    """A folder of one's own until `release`; it is made if it is not there."""

    def __init__(self, folder: Path, *, new: bool = False) -> None:
        """Raises Taken, RunError for a name that is not UTF-8, FileExistsError for a `new` folder that is there,
        NotWritten where it cannot be written."""
        self.folder, self.made, self.note = folder, False, ""
        if _is_no_text(str(folder)):
            raise RunError(
                f"the name of the run folder {folder} is not UTF-8, and TensorBoard takes no other: name another --out "
                "or rename it (a LANG or LC_ALL without UTF-8 makes this of letters with accents)"
            )
        try:
            while not self._take(new):
                pass
        except OSError as error:
            if new and isinstance(error, FileExistsError):
                raise
            kind = RunError if isinstance(error, NotADirectoryError) else NotWritten  # asked wrongly, or gone wrong
            raise kind(f"cannot write the run folder {folder}: {error.strerror}") from None
        _held.add(self)

    def _take(self, new: bool) -> bool:
        """False where the former owner took folder or file away in the meantime."""
        try:
            if new or not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=not new)
                self.made = True
            self._place = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileExistsError:
            if new or os.path.lexists(self.folder):  # no folder, and in its place
                raise
            return False
        except FileNotFoundError:
            return False
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(LOCK, flags, 0o666, dir_fd=self._place)
        except FileNotFoundError:
            os.close(self._place)
            return False
        except OSError as error:
            os.close(self._place)
            if error.errno not in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
                raise
            why = f"its {LOCK} is a folder, a link or a socket, and must be a file: remove it"
            raise RunError(f"cannot lock the run folder {self.folder}: {why}") from None
        before = _who(self._file)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in BUSY:
                raise Taken(self._refusal()) from None
            self.note = f"nothing keeps a second training out of {self.folder}: its file system has no locks"
        if not self._is_ours():
            self._close()
            return False
        host = socket.gethostname()
        if before and before[1] != host:
            self.note = (
                f"process {before[0]} on {before[1]}, which trained {self.folder} since {before[2]}, did not say that "
                "it has ended: if it still runs, stop it, as locks may not reach from one machine to another"
            )
        with contextlib.suppress(OSError):  # a full disk: the lock holds without it
            os.ftruncate(self._file, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(self._file, json.dumps({"pid": os.getpid(), "host": host, "since": since}).encode(), 0)
        return True

    def _refusal(self) -> str:
        """Who has the folder; the file says so a moment after it is locked."""
        who = None
        for _ in range(20):
            if who := _who(self._file):
                break
            time.sleep(0.02)
        self._close()
        if who is None:
            return f"{self.folder} is being trained by another process"
        pid, host, since = who
        return (
            f"{self.folder} is being trained by process {pid} on {host} since {since}; stop it, or wait until it ends"
        )

    def _is_ours(self) -> bool:
        """Whether the file that is open is the one in the folder."""
        try:
            return os.path.samestat(os.stat(LOCK, dir_fd=self._place), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._place)

    def release(self) -> None:
        """Give the folder up; one that was made for this and holds nothing goes with it."""
        if self not in _held:
            return
        _held.discard(self)
        with contextlib.suppress(OSError):
            if self._is_ours():
                os.unlink(LOCK, dir_fd=self._place)
        self._close()
        if self.made:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def _is_no_text(name: str) -> bool:
    """Whether there are bytes in a name that Python could not read."""
    return any("\ud800" <= letter <= "\udfff" for letter in name)


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget() -> None:
    """A forked child owns nothing, and must not keep the lock when its parent is gone."""
    for lock in list(_held):
        lock._close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


def _who(file: int) -> tuple[str, str, str] | None:
    """(process, host, since) as a lock's file says."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads(os.pread(file, 1000, 0))
        return str(said["pid"]), str(said["host"]), str(said["since"])
    return None


@contextlib.contextmanager
def owning(take: Callable[[], Lock], say: Callable[[str], None]) -> Iterator[Path]:
    """Own a folder within the block: rank 0 takes the lock, and all ranks are told where it lies, or refused."""
    lock: Lock | None = None
    answer: Path | RunError | None = None
    if parallel.rank() == 0:
        try:
            lock = take()
            answer = lock.folder
            if lock.note:
                say(lock.note)
        except RunError as error:
            answer = error
    try:
        answer = parallel.from_first(answer)
        if isinstance(answer, RunError):
            raise answer
        assert answer is not None
        yield answer
    finally:
        if lock is not None:
            lock.release()
