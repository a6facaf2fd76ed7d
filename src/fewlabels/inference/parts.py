"""Predictions of very many pictures, as parts that a killed process leaves whole, by several processes or machines.

A folder holds the parts of all shards. Of each shard there are a manifest (what is predicted, how, and a digest of the
list of pictures), the parts, each of so many pictures in the order of their paths, and the list of the unreadable ones.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels.data.blobs import Member
from fewlabels.data.pictures import About
from fewlabels.data.predictions import UNSURE
from fewlabels.data.remarks import sentences
from fewlabels.data.source import Progress
from fewlabels.inference.model import Predictor
from fewlabels.inference.predict import asked, decoded_chunks
from fewlabels.inference.shards import Chosen, Digest, Shard, difference, facts_of, manifests
from fewlabels.inference.tables import Form
from fewlabels.runtime import files
from fewlabels.runtime.cells import uncell

PART_ROWS = 100_000
"""Pictures of a part."""


class PartsError(Exception):
    """Parts are missing, or are not what they should be: what can be said in one sentence."""


@dataclass
class Written:
    """What came of a shard."""

    parts: int = 0
    skipped: int = 0
    """Parts that were there already."""
    unsure: int = 0
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)


def write_shard(
    model: Predictor,
    chosen: Chosen,
    folder: Path,
    form: Form,
    *,
    temperature: float | None = None,
    part_rows: int = PART_ROWS,
    progress: Progress | None = None,
) -> Written:
    """Classify the pictures of a shard into parts in `folder`, but for the parts that are there.

    A part is written under a hidden name and renamed when it is whole. Of the pictures no more than a chunk is in
    memory, and of the rows a part.

    Raises:
        ValueError: the folder was begun with other pictures or settings, holds what is no part of this, or another
            process writes this shard.
    """
    place = Place(folder, chosen.shard)
    mine = facts_of(model, form, chosen, part_rows, temperature)
    place.begun(mine)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; --shard writes a folder of parts") from None
    with place.locked():
        facts = place.begin(mine)
        by = facts["temperature"] or 1.0
        broken = place.unreadable()
        out, own = Written(), chosen.own
        for number, start in enumerate(range(0, len(own), part_rows), 1):
            some = own[start : start + part_rows]
            path = place.part(number)
            out.parts += 1
            if path.exists():
                out.unsure += _check_part(path, form, some, broken.get(number, []))
                out.skipped += 1
            else:
                broken.pop(number, None)

                def show(done: int, total: int, start: int = start) -> None:
                    if progress is not None:
                        progress(start + done, len(own))

                bad, notes, unsure = place.write(model, number, some, chosen.file, form, by, show, broken)
                out.unsure += unsure
                out.notes += [f"part {number}: {note}" for note in notes]
                if bad:
                    broken[number] = bad
            if progress is not None:
                progress(start + len(some), len(own))
        out.unreadable = sum(map(len, broken.values()))
    return out


Broken = dict[int, list[tuple[str, str]]]
"""Path and reason of the unreadable pictures, by part."""


@dataclass(frozen=True)
class Place:
    """The files of a shard in a folder."""

    folder: Path
    shard: Shard

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.shard.name}.json"

    @property
    def faulty(self) -> Path:
        """The list of the unreadable pictures."""
        return self.folder / f"{self.shard.name}-unreadable.csv"

    def part(self, number: int) -> Path:
        return self.folder / f"{self.shard.name}-part-{number:05}.csv"

    def there(self) -> set[str]:
        """Names of the parts that are whole."""
        return {path.name for path in self.folder.glob(f"{self.shard.name}-part-*.csv")}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the shard, where the file system has locks. Raises ValueError where one is in."""
        path = self.folder / f".{self.shard.name}.lock"
        handle = -1
        while handle < 0:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with contextlib.suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(handle)
                    raise ValueError(
                        f"shard {self.shard} in {self.folder} is being written by another process"
                    ) from None
            if not _is_at(handle, path):  # who had it has taken it away
                os.close(handle)
                handle = -1
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)

    def begun(self, facts: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest, if there is one. Raises ValueError where it, or another shard's, does not agree."""
        mine = None
        for other in manifests(self.folder):
            if clause := difference(facts, other):
                raise ValueError(f"{self.folder} was begun otherwise: {clause}; name another folder")
            if other["shard"] == facts["shard"]:
                mine = other
        if mine is None and (stray := sorted(self.folder.glob(f"{self.shard.name}-*.csv"))):
            raise ValueError(
                f"{stray[0]} is there without {self.manifest.name}, which says what it is: name another folder"
            )
        return mine

    def begin(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The manifest, which is written if there is none; the halves of parts that a killed process left are removed.
        Errors as `begun`."""
        mine = self.begun(facts)
        if mine is None:
            files.write_json(self.manifest, facts)
        for half in self.folder.glob(f".{self.shard.name}-part-*.tmp"):
            half.unlink(missing_ok=True)
        return mine or facts

    def unreadable(self) -> Broken:
        """The list of the unreadable pictures of the parts that are whole."""
        found: Broken = {}
        if self.faulty.exists():
            for _, (number, path, reason) in _rows(self.faulty, ["part", "path", "reason"]):
                if not number.isdecimal():
                    raise PartsError(f"{self.faulty} names a part {number!r}, which is none")
                if self.part(int(number)).exists():
                    found.setdefault(int(number), []).append((path, reason))
        return found

    def write(
        self,
        model: Predictor,
        number: int,
        paths: Sequence[str],
        file_of: Callable[[str], Path | Member],
        form: Form,
        temperature: float,
        progress: Callable[[int, int], None],
        broken: Broken,
    ) -> tuple[list[tuple[str, str]], tuple[str, ...], int]:
        """Write a part; returns the unreadable pictures, notes, and how many are unsure."""
        path = self.part(number)
        # where nothing keeps a second process out, neither writes into what the other one renames
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
        abouts: dict[int, About] = {}
        corrupt: dict[int, str] = {}
        unsure = 0
        try:
            with temporary.open("wb") as file:
                file.write(_csv([form.head]))
                for rows, images, done in decoded_chunks(model, [*map(file_of, paths)], abouts, corrupt):
                    ids, probabilities = asked(model, images, temperature)
                    found = list(zip((paths[i] for i in rows), ids.tolist(), probabilities, strict=True))
                    file.write(_csv([form.cells(*row) for row in found]))
                    unsure += sum(not form.sure(row[i]) for _, i, row in found)
                    progress(done, len(paths))
                file.flush()
                os.fsync(file.fileno())
            bad = [(paths[i], reason) for i, reason in sorted(corrupt.items())]
            if (
                bad or self.faulty.exists()
            ):  # before the part is whole, and without what a killed process left of others
                every = sorted({**broken, number: bad}.items())
                lines = [[str(n), *one] for n, some in every for one in some]
                files.write_file(self.faulty, _csv([["part", "path", "reason"], *lines]))
            temporary.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            error.filename = error.filename or str(path)
            raise
        files.sync_folder(self.folder)
        return bad, sentences(abouts, paths, model.how.bits), unsure


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    return files.csv_text(rows).encode("utf-8", "surrogateescape")


def _rows(path: Path, head: list[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file of ours without its head, each with the line that it ends on. Raises PartsError where it
    another head or a row of another length, or is no text or no file."""
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise PartsError(f"{path} is no regular file")
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            if [uncell(text) for text in next(reader, [])] != head:
                raise PartsError(f"{path} has other columns than it should")
            for row in reader:
                if len(row) != len(head):
                    raise PartsError(f"{path}, line {reader.line_num}: {len(row)} cells in place of {len(head)}")
                yield reader.line_num, [uncell(text) for text in row]
        except csv.Error as error:
            raise PartsError(f"{path}, line {reader.line_num}: {error}") from None


def _predicted(path: Path, form: Form) -> Iterator[tuple[int, str, str]]:
    """Line, path and class of the rows of a part. Raises PartsError where one is none."""
    known = {*form.classes, *([] if form.threshold is None else [UNSURE])}
    for line, (name, label, confidence, *_) in _rows(path, form.head):
        if label not in known or not re.fullmatch(r"[01]\.\d{6}", confidence):
            raise PartsError(f"{path}, line {line}: {label!r} with the confidence {confidence!r} is no prediction")
        yield line, name, label


def _check_part(path: Path, form: Form, paths: Sequence[str], broken: Sequence[tuple[str, str]]) -> int:
    """How many of a part that is there are unsure. Raises ValueError where its pictures are not `paths`."""
    missing = {name for name, _ in broken}
    wanted = iter(name for name in paths if name not in missing)
    unsure = 0
    try:
        for line, name, label in _predicted(path, form):
            if name != next(wanted, None):
                raise PartsError(f"{path}, line {line}: {name} should not stand there")
            unsure += form.threshold is not None and label == UNSURE
        if (left := next(wanted, None)) is not None:
            raise PartsError(f"{path} lacks {left}")
    except PartsError as error:
        raise ValueError(f"{error}; remove the file to have it written again") from None
    return unsure


class Checked(NamedTuple):
    """What a whole folder of parts holds."""

    shards: int
    parts: int
    pictures: int
    unreadable: int
    unsure: int | None
    """None without a threshold."""


def check(folder: Path) -> Checked:
    """Whether every picture stands in exactly one part, or in a list of unreadable ones, once.

    Memory does not grow with the number of pictures.

    Raises:
        ValueError: the folder holds no shard.
        PartsError: something is missing, or is there twice, or is not what it should be.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found = manifests(folder)
    if not found:
        raise ValueError(f"{folder} holds no parts of predictions, which predict --shard writes")
    first = found[0]
    for facts in found[1:]:
        if clause := difference(facts, first):
            raise PartsError(f"shards {first['shard']} and {facts['shard']} of {folder} do not fit: {clause}")
    if absent := sorted(set(range(1, first["shards"] + 1)) - {facts["shard"] for facts in found}):
        more = f" and {len(absent) - 1} more" if absent[1:] else ""
        raise PartsError(f"shard {absent[0]}/{first['shards']}{more} has not begun in {folder}")
    every, parts, unreadable, unsure = Digest(), 0, 0, 0
    for facts in found:
        place = Place(folder, Shard(facts["shard"], facts["shards"]))
        counts = _check_shard(place, facts, every)
        parts, unreadable, unsure = parts + counts[0], unreadable + counts[1], unsure + counts[2]
    if every.count != first["pictures"] or str(every) != first["digest"]:
        raise PartsError(f"the pictures of all shards of {folder} together are not those of the list")
    return Checked(len(found), parts, every.count, unreadable, unsure if first["threshold"] is not None else None)


def _check_shard(place: Place, facts: dict[str, Any], every: Digest) -> tuple[int, int, int]:
    """How many parts, unreadable pictures and unsure ones a shard has; its pictures are added to `every`."""
    form = Form(tuple(facts["classes"]), facts["probabilities"], facts["top"], facts["threshold"])
    count, own = -(-facts["own"] // facts["part_rows"]), Digest()
    there = place.there()
    expected = [place.part(number) for number in range(1, count + 1)]
    if lacking := [path.name for path in expected if path.name not in there]:
        raise PartsError(
            f"shard {place.shard} lacks {len(lacking)} of its {count} parts ({lacking[0]}): run the same command again"
        )
    if stray := sorted(there - {path.name for path in expected}):
        raise PartsError(f"{place.folder / stray[0]} is no part of shard {place.shard}, which has {count}")
    broken, unsure = place.unreadable(), 0
    for number, path in enumerate(expected, 1):
        before = own.count
        for _, name, label in _predicted(path, form):
            own.add(name)
            every.add(name)
            unsure += form.threshold is not None and label == UNSURE
        for name, _ in broken.get(number, []):
            own.add(name)
            every.add(name)
        if own.count - before != (size := min(facts["part_rows"], facts["own"] - (number - 1) * facts["part_rows"])):
            raise PartsError(f"{path} and the list of unreadable pictures hold {own.count - before} of {size} pictures")
    if str(own) != facts["own_digest"]:
        raise PartsError(f"the pictures of shard {place.shard} in {place.folder} are not those of its list")
    return count, sum(map(len, broken.values())), unsure
