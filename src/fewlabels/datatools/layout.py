"""How a folder of pictures is laid out, and new folders made from it."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fewlabels.data.contents import contents
from fewlabels.data.listing import class_order
from fewlabels.data.pictures import Unreadable
from fewlabels.data.source import Progress
from fewlabels.data.tarset import holds_tars
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.words import by_reason


class Picture(NamedTuple):
    path: Path
    within: Path
    """`path` relative to the folder."""
    part: str
    """labeled, unlabeled, validation or test; in a folder of plain class folders everything is labeled."""
    label: str | None
    """Name of the class folder, None where there is none."""


class Layout(NamedTuple):
    root: Path
    pictures: list[Picture]
    """Sorted by path."""
    others: list[Path]
    """Files of the parts that are no pictures."""
    empty: list[str]
    """Class folders without pictures, relative to the root."""
    plain: str
    """Why a training does not take plain class folders; empty: these are none."""
    notes: list[str]
    """What is passed over or serves as another part."""

    @property
    def classes(self) -> list[str]:
        """Names of the class folders that hold pictures, in the order of a training's."""
        return in_order(p.label for p in self.pictures)

    @property
    def labeled_classes(self) -> list[str]:
        """Those of the labeled part."""
        return in_order(p.label for p in self.pictures if p.part == "labeled")


def in_order(labels: Iterable[str | None]) -> list[str]:
    """The class names among `labels`, each once, in the order of a training's."""
    return sorted({label for label in labels if label is not None}, key=class_order)


def layout(root: Path | str, *, validation: bool = True) -> Layout:
    """Look through a folder or zip file: ``labeled/CLASS/``, ``unlabeled/``, ``test/CLASS/``, or plain ``CLASS/``.

    It is read as a training reads it (`contents`). The class of a picture is the folder right below the part (or the
    root), however deep the picture lies.

    Raises:
        ValueError: there is no such folder, or no picture in it.
    """
    if holds_tars(expanded(root)):
        raise ValueError(f"{root} holds tar files; `fewlabels data convert` makes a folder of pictures of them")
    found = contents(root, validation=validation)
    root = found.root
    if not found.pictures:
        raise ValueError(
            f"{root} holds no pictures" + (f" in its parts ({'; '.join(found.notes)})" * bool(found.notes))
        )
    pictures = [Picture(p.path, p.path.relative_to(root), p.part, p.label) for p in found.pictures]
    pictures.sort(key=lambda p: p.path.as_posix())
    empty = [folder.relative_to(root).as_posix() for folder in found.empty]
    return Layout(root, pictures, found.others, empty, found.plain, found.notes)


# ---- new folders


def check_absent(path: Path) -> None:
    """Raise ValueError if there is anything at `path`."""
    if os.path.lexists(path):
        raise ValueError(f"{path} exists; name another one, nothing is overwritten")


def check_free(path: Path, root: Path | None = None) -> None:
    """Raise ValueError unless `path` can be made new: it does not exist, its parent does, and it is not in `root`."""
    check_absent(path)
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to")
    if root is not None and real(path).is_relative_to(real(root)):
        raise ValueError(f"{path} lies in {root}, which is read; write beside it")


@contextmanager
def _hidden(path: Path) -> Iterator[Path]:
    """A hidden name to write under; what is there becomes `path` when the block ends well, and is gone otherwise.

    What killed programs left under such names is removed first. An OSError names `path`, not the hidden name, and not
    the file that was copied when the disk was full.
    """
    check_free(path)
    machine = zlib.crc32(socket.gethostname().encode())
    for left in path.parent.glob(f".tmp-{machine}-*-{glob.escape(path.name)}"):
        if not _runs(left.name.split("-")[2]):
            _remove(left)
    hidden = path.with_name(f".tmp-{machine}-{os.getpid()}-{path.name}")
    try:
        yield hidden
        check_free(path)
        hidden.rename(path)
    except OSError as error:
        if not isinstance(error.filename, str) or error.filename2 or error.filename.startswith(str(hidden)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        _remove(hidden)


def _runs(number: str) -> bool:
    """Whether another process has this number."""
    try:
        if int(number) == os.getpid():
            return False
        os.kill(int(number), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill under a hidden name; it becomes `path` when the block ends well, and is gone otherwise."""
    with _hidden(path) as hidden:
        hidden.mkdir()
        yield hidden


def write_new(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(path)`` for a new file, which appears under its name when it is whole; nothing is replaced."""
    check_free(path)
    write_all({path: write})


def write_all(files: Mapping[Path, Callable[[Path], object]]) -> None:
    """`write_new` for several files, which appear when all of them are whole. Folders are made where they are missing
    (one level), and are gone again if nothing came of it."""
    made = [folder for folder in {path.parent for path in files} if not folder.is_dir()]
    try:
        for folder in made:
            folder.mkdir()
        with ExitStack() as stack:
            for path, write in files.items():
                write(stack.enter_context(_hidden(path)))
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


class Step(NamedTuple):
    """One picture of the old folder, and its place in the new one."""

    path: Path
    to: Path
    """Relative to the new folder."""


def check_distinct(steps: Sequence[Step]) -> None:
    """Raise ValueError where two pictures would get one name, also if only for a file system without case."""
    seen: dict[str, Step] = {}
    for step in steps:
        other = seen.setdefault(step.to.as_posix().casefold(), step)
        if other is not step:
            raise ValueError(f"{other.path} and {step.path} would both become {step.to}; rename one of them first")


def fill(
    to: Path,
    steps: Sequence[Step],
    make: Callable[[Path, Path], object] = shutil.copy2,
    *,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Make the folder `to` with ``make(old path, new path)`` for each step; all of it or nothing.

    Returns the path and the reason of the pictures that `make` could not read. Raises ValueError for them unless
    `skip_corrupt`, and if `to` exists.
    """
    check_distinct(steps)

    def work(folder: Path, step: Step) -> tuple[str, str] | None:
        target = folder / step.to
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            make(step.path, target)
        except Unreadable as error:
            return str(step.path), error.reason
        return None

    corrupt: dict[str, str] = {}
    with fresh_folder(to) as folder, ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for done, trouble in enumerate(pool.map(lambda step: work(folder, step), steps), 1):
            if trouble:
                corrupt[trouble[0]] = trouble[1]
            if progress is not None and (done % 64 == 0 or done == len(steps)):
                progress(done, len(steps))
        if corrupt and (not skip_corrupt or len(corrupt) == len(steps)):
            raise ValueError(
                f"{len(corrupt)} of {len(steps)} pictures cannot be read: {by_reason(corrupt)}; nothing was written"
            )
    return corrupt
