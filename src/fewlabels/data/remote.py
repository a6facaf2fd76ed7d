"""Tar files at a URL: whole copies of them in the cache folder, made once and then read as local ones.

A step's rows are drawn from the whole set, so that a request for each picture would wait for the network
`batch * (1 + uratio)` times a step; each file is read to its end within an epoch anyway.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels.data import cache
from fewlabels.data.addresses import Found, Unreachable, found_at
from fewlabels.data.archives import DataUnavailable
from fewlabels.data.tars import ENDING
from fewlabels.runtime.screen import Screen, moving, print_line
from fewlabels.runtime.urls import bare, stem_of
from fewlabels.runtime.words import amount, reason

AT_ONCE = 4
"""Files that are copied at the same time."""

TRIES, PAUSE = 3, 2.0
"""How often a file is asked for, and the seconds before the second time; before the third they are twice as many."""


class Here(NamedTuple):
    """Where the copies lie."""

    path: Path
    """The folder that has them, or the one file that was named."""
    notes: list[str]


def folder() -> Path:
    """``fewlabels/shards`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return cache.folder().with_name("shards")


def here(url: str, most: float | None = None) -> Here:
    """Copies of the tar files that a URL means, in ``fewlabels/shards/DIGEST/NAME`` of the cache folder.

    A file is copied again where its size, its ETag or what else the server says of its state has changed. It gets its
    name when it is whole, so that a process that is killed leaves whole files, and the next one copies the others. One
    process copies, others wait for it. What is going to be copied is said on standard error, and how long it takes.

    Args:
        url: ``s3://bucket/prefix`` and the like, a folder with ``*.tar`` or with the folders of parts that hold them;
            one ``.tar`` file; or a pattern of such files with ``{000..123}`` or ``{a,b}``.
        most: 10^9 bytes that the copies of all URLs may take together; None: what is free on the disk.

    Raises:
        DataUnavailable: a package is missing, or the files cannot be had, and there are no whole copies.
        ValueError: the URL means no tar files, or there is no room for the copies.
    """
    home = folder() / cache.digest([url])
    place = home / stem_of(url)
    single = url.rpartition("/")[2] if url.endswith(ENDING) and "{" not in url else ""
    notes: list[str] = []
    try:
        system, found = found_at(url)
    except Unreachable as error:
        if not _is_whole(home, place):
            raise DataUnavailable(str(error)) from None
        notes.append(f"{error}; the copies in {home} are read, which are whole")
    else:
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _alone(home, url):
                _copy(url, system, found, home, place, most)
        except OSError as error:
            raise DataUnavailable(f"{url} cannot be copied to {home}: {error.strerror or error}") from None
    return Here(place / single, notes)


# ---- what is here already


def _read(home: Path) -> dict[str, dict[str, list[Any]]]:
    """What `_note` wrote: size and state of the files that the URL means (`wanted`) and that are here (`have`)."""
    try:
        content = json.loads((home / "copies.json").read_bytes())
        return {part: dict(content[part]) for part in ("wanted", "have")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"wanted": {}, "have": {}}


def _note(home: Path, url: str, wanted: Mapping[str, Found], have: Mapping[str, list[Any]]) -> None:
    told = {name: [one.size, one.state] for name, one in wanted.items()}
    cache.write(home / "copies.json", json.dumps({"url": url, "wanted": told, "have": have}, indent=1).encode())


def _there(place: Path, told: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Those of the files that lie there with their size."""
    return {name: state for name, state in told.items() if _size(place / name) == state[0]}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


def _is_whole(home: Path, place: Path) -> bool:
    told = _read(home)
    return bool(told["wanted"]) and _there(place, told["have"]) == told["wanted"]


@contextmanager
def _alone(home: Path, url: str) -> Iterator[None]:
    """For one process at a time; the lock goes with the process."""
    with (home / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_line(Screen(stderr=True), f"another process copies {url}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---- copying


def _copy(url: str, system: Any, found: Mapping[str, Found], home: Path, place: Path, most: float | None) -> None:
    """Bring the copies to the state that was found. Raises DataUnavailable, ValueError, OSError."""
    have = _there(place, _read(home)["have"])
    kept = {name: state for name, state in have.items() if name in found and state == list(found[name][1:])}
    missing = {name: one for name, one in found.items() if name not in kept}
    if not missing and have == kept:
        return
    need = sum(one.size for one in missing.values())
    shutil.rmtree(home / "part", ignore_errors=True)  # of a process that was killed
    _check_room(url, need, sum(state[0] for name, state in have.items() if name not in kept), most)
    _note(home, url, found, kept)  # first, as from now on the others are no copies of anything
    for name in have.keys() - kept.keys():
        (place / name).unlink(missing_ok=True)
    (home / "part").mkdir()
    said = f"{url}: {len(missing)} of {len(found)} tar files, {amount(need)}, are copied to {home}"
    print_line(Screen(stderr=True), said)

    one_at_a_time = threading.Lock()

    def keep(name: str, part: Path) -> None:
        target = place / name
        with one_at_a_time:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            kept[name] = list(found[name][1:])
            _note(home, url, found, kept)

    with moving("copying", need) as show:
        _fetch(system, missing, home / "part", keep, show)
    shutil.rmtree(home / "part", ignore_errors=True)


def _check_room(url: str, need: int, freed: int, most: float | None) -> None:
    root = folder()
    free = shutil.disk_usage(root).free + freed
    if need > free:
        raise ValueError(f"{url} needs {amount(need)} in {root}, and {amount(free)} are free there")
    if most is None:
        return
    used = sum(path.stat().st_size for path in root.rglob("*.tar") if path.is_file()) - freed
    if used + need > most * 1e9:
        raise ValueError(
            f"{url} needs {amount(need)} in {root}, where copies take {amount(used)} and Data.shard_cache allows "
            f"{amount(most * 1e9)}: allow more, or remove folders there that are no longer needed"
        )


def _fetch(
    system: Any,
    missing: Mapping[str, Found],
    parts: Path,
    keep: Callable[[str, Path], None],
    show: Callable[[int], None],
) -> None:
    """Copy some files at once, each into a part file that `keep` is called with when it is whole."""
    meter = _Meter()

    def fetch(name: str) -> None:
        part = parts / cache.digest([name])
        _fetch_one(system, missing[name], part, meter)
        keep(name, part)

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        running = {pool.submit(fetch, name) for name in missing}
        while running:
            done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            show(meter.done)
            for one in done:
                one.result()
    finally:
        meter.stop.set()  # what runs ends with its next block
        pool.shutdown(cancel_futures=True)


class _Meter:
    """Bytes that have come, of all files."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count

    def of_one(self) -> Any:
        """What fsspec tells of one file."""
        from fsspec.callbacks import Callback

        meter = self

        class Bytes(Callback):  # type: ignore[misc, unused-ignore]
            def relative_update(self, inc: int = 1) -> None:
                self.value += inc
                meter.add(inc)
                if meter.stop.is_set():
                    raise InterruptedError("stopped")

        return Bytes()


def _fetch_one(system: Any, one: Found, part: Path, meter: _Meter) -> None:
    """Copy a file, and once more where the network failed. Raises DataUnavailable."""
    for turn in range(TRIES):
        told = meter.of_one()
        try:
            system.get_file(one.address, str(part), callback=told)
            if (size := part.stat().st_size) != one.size:
                raise OSError(f"{size:,} bytes came, and {one.size:,} were said")
            with part.open("rb") as file:
                os.fsync(file.fileno())
            return
        except Exception as error:  # the kinds of each protocol's package
            meter.add(-told.value)
            final = isinstance(error, FileNotFoundError | PermissionError | InterruptedError)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
            if final or full or turn == TRIES - 1 or meter.stop.is_set():
                raise DataUnavailable(
                    f"{bare(system.unstrip_protocol(one.address))} cannot be copied to {part.parent.parent}, asked for "
                    f"{turn + 1} time{'s' * bool(turn)}: {bare(reason(error))}; files that are whole stay, and the "
                    "next start copies the others"
                ) from None
        meter.stop.wait(PAUSE * 2**turn)
