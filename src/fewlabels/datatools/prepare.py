"""A large folder of pictures made ready once: JPEG files of quality 90 whose shorter side is small, in the same
places."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import PIL
from PIL import Image

from fewlabels.data.crops import picture_of
from fewlabels.data.find import scan
from fewlabels.data.pictures import PLAIN, About, Decoding, Unreadable, decode, header, is_plain
from fewlabels.data.source import Progress
from fewlabels.data.workers import workers
from fewlabels.datatools.layout import check_absent
from fewlabels.runtime import files
from fewlabels.runtime.regular import real
from fewlabels.runtime.words import by_reason

QUALITY = 90
CHUNK = 32
"""Pictures that a worker takes at a time."""

OWN, MANIFEST, SUMS = ".fewlabels", "manifest.jsonl", "SHA256SUMS"
"""A hidden folder in the new one, and what is in it: a line of JSON for each picture, and its checksums, which
``sha256sum -c .fewlabels/SHA256SUMS`` compares."""


class Done(NamedTuple):
    """What became of a picture; a line of the manifest."""

    path: str
    """Relative to the new folder."""
    origin: str
    """Relative to the old one."""
    state: tuple[int, int]
    """Bytes and time of the last change (st_mtime_ns) of the old one."""
    size: tuple[int, int] | None
    """(H, W) of the new one; None where the old one cannot be read."""
    bytes: int
    sha256: str
    """Of the new one; why it cannot be read, where there is none."""


class Prepared(NamedTuple):
    pictures: list[Done]
    left_out: dict[str, str]
    """Pictures that cannot be read, and why."""
    before: int
    """How many of the pictures were there from an earlier start."""


def plan(root: Path) -> list[tuple[str, str]]:
    """The old and the new path of each picture of a folder, relative, sorted: the same but for the ending of those that
    are no JPEG files. Raises ValueError where there are none."""
    found = [p.relative_to(root).as_posix() for p in scan(root).images]
    if not found:
        raise ValueError(f"{root} holds no pictures")
    taken = {old for old in found if _is_jpeg(old)}
    pairs = []
    for old in found:
        new = old
        if not _is_jpeg(old):
            new = f"{old.rpartition('.')[0] or old}.jpg"
            if new in taken:
                new = f"{old}.jpg"
            taken.add(new)
        pairs.append((old, new))
    return pairs


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))


def prepare(
    root: Path,
    to: Path,
    side: int,
    *,
    how: Decoding = PLAIN,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Make the folder `to` of the pictures in `root` and below, with all cores.

    The shorter side becomes `side` pixels where it is longer (Pillow's bicubic filter); a JPEG file that is small
    enough and that every reader takes for the same pixels is copied. Pictures are turned upright, and their colours are
    what training reads; grey ones stay grey. The folder gets its name when it is whole; until then it is a hidden one
    beside it, from which a later call goes on, after any end of this one. What it has is made anew where the old
    picture has changed since.

    Raises:
        ValueError: `to` exists, or what an earlier call began has another side or another folder; pictures cannot be
            read, unless `skip_corrupt`: the others are done then.
    """
    check_absent(to)
    pairs = plan(root)
    settings = {
        "format": 1,
        "root": str(real(root)),
        "side": side,
        "quality": QUALITY,
        "bits": how.bits,
        "max_pixels": how.max_pixels,
        "pillow": PIL.__version__,
    }
    under = to.with_name(f".{to.name}.preparing")
    (under / OWN).mkdir(parents=True, exist_ok=True)
    with _log(under / OWN / MANIFEST, settings) as (log, known):
        done: dict[str, Done] = {}
        todo: list[tuple[str, str, tuple[int, int]]] = []
        for old, new in pairs:
            state = _state(root / old)
            was = known.get(old)
            if was is not None and (was.path, was.state) == (new, state) and was.size and _has(under, was):
                done[old] = was
            else:
                todo.append((old, new, state))
        before = len(done)
        for folder in {(under / new).parent for _, new, _ in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
        with workers(len(todo)) as run:
            for made in run(prepared, [(chunk, str(root), str(under), side, how) for chunk in chunks]):
                for one in made:
                    done[one.origin] = one
                    log.write(json.dumps(one) + "\n")
                log.flush()
                if progress is not None:
                    progress(len(done), len(pairs))
        good = [done[old] for old, _ in pairs if done[old].size]
        bad = {old: done[old].sha256 for old, _ in pairs if not done[old].size}
        if bad and (not skip_corrupt or not good):
            raise ValueError(
                f"{len(bad)} of {len(pairs)} pictures of {root} cannot be read: {by_reason(bad)}; repair them and "
                "give the command again, which goes on, or leave them out (--skip-corrupt)"
            )
        for stray in [path for path in _files(under) if path not in {one.path for one in good}]:
            (under / stray).unlink()  # of a picture that is gone, or a half one of a process that was killed
        lines = [json.dumps(settings), *(json.dumps(one) for one in good)]
        files.write_file(under / OWN / SUMS, "".join(f"{one.sha256}  {one.path}\n" for one in good).encode())
        files.write_file(under / OWN / MANIFEST, ("\n".join(lines) + "\n").encode())
        check_absent(to)
        under.rename(to)
        files.sync_folder(to.parent)
    return Prepared(good, bad, before)


def _state(path: Path) -> tuple[int, int]:
    with suppress(OSError):
        facts = os.stat(path)
        return facts.st_size, facts.st_mtime_ns
    return -1, -1


def _has(under: Path, one: Done) -> bool:
    with suppress(OSError):
        return os.stat(under / one.path).st_size == one.bytes
    return False


def _files(under: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(under):
        if folder == str(under):
            folders[:] = [name for name in folders if name != OWN]
        for name in names:
            yield Path(folder, name).relative_to(under).as_posix()


@contextmanager
def _log(path: Path, settings: dict[str, Any]) -> Iterator[tuple[TextIO, dict[str, Done]]]:
    """The manifest of a folder that is being made, to add lines to, and what it says already, by old path."""
    with path.open("a+", encoding="utf-8") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another process is writing {path.parent.parent}; wait for it") from None
        log.seek(0)
        lines = log.read().split("\n")
        if len(lines) == 1:  # new, or without a whole line
            log.truncate(0)
            log.write(json.dumps(settings) + "\n")
            yield log, {}
            return
        began = json.loads(lines[0])
        if others := [name for name, value in settings.items() if began.get(name) != value]:
            name = others[0]
            raise ValueError(
                f"{path.parent.parent} was begun with {name} {began.get(name)}, and now it is {settings[name]}: "
                "give that, or remove this folder"
            )
        if lines[-1]:  # half a line of a process that was killed
            log.write("\n")
        known: dict[str, Done] = {}
        for line in lines[1:]:
            with suppress(ValueError, TypeError):
                path_, origin, state, size, count, digest = json.loads(line)
                known[origin] = Done(path_, origin, tuple(state), tuple(size) if size else None, count, digest)
        yield log, known


def prepared(
    chunk: Sequence[tuple[str, str, tuple[int, int]]], root: str, under: str, side: int, how: Decoding
) -> list[Done]:
    """Make a few pictures: old and new path, and the state of the old one."""
    out = []
    for old, new, state in chunk:
        try:
            data, size = small(Path(root, old), side, how)
        except Unreadable as error:
            out.append(Done(new, old, state, None, 0, error.reason))
            continue
        path = Path(under, new)
        half = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        half.write_bytes(data)
        half.replace(path)
        out.append(Done(new, old, state, size, len(data), hashlib.sha256(data).hexdigest()))
    return out


def small(path: Path, side: int, how: Decoding = PLAIN) -> tuple[bytes, tuple[int, int]]:
    """The bytes of one picture made ready, and its (H, W). Raises Unreadable."""
    height, width, grey = header(path, how)
    pixels = decode(path, 1 if grey else 3, None, how, About(look=False))
    short = min(height, width)
    if short <= side and path.suffix.lower() in (".jpg", ".jpeg") and is_plain(path, how):
        data = path.read_bytes()
        if data[:2] == b"\xff\xd8":
            return data, (height, width)
    picture = picture_of(pixels)
    if short > side:
        size = (max(1, round(width * side / short)), max(1, round(height * side / short)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue(), (picture.height, picture.width)
