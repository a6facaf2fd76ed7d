"""Writing files so that a reader, or a program killed at any moment, never meets half of one."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fewlabels.runtime.cells import cell


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write and fsync, not atomic by itself."""
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Replace `path` in one step: temporary name, fsync, rename. An OSError leaves the old file as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_bytes(temporary, data)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a write that finds the disk full names no file
        raise
    sync_folder(path.parent)


def json_text(value: Any) -> bytes:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # lone surrogates, as JSON escapes them


def write_json(path: Path, value: Any) -> None:
    write_file(path, json_text(value))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """CSV in which no cell is a formula for a spreadsheet; see `cells.cell`. None is empty."""
    lines: list[str] = []
    _writer(lines).writerows([map(cell, row) for row in rows])
    return "".join(lines)


class _Lines:
    """Takes what csv.writer writes, a row at a time, and ends it as a text file ends its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def write(self, row: str) -> None:
        self.lines.append(row.removesuffix("\r\n") + "\n")


def _writer(lines: list[str]) -> Any:
    # before Python 3.13 it quotes a carriage return, which ends a row for a reader, only where it is in its own ends
    return csv.writer(_Lines(lines), lineterminator="\r\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill under a temporary name, which becomes `path` in one rename when the block ends well."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_folder(temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)
