from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
from pathlib import Path

import pytest

from fewlabels.runtime import files


class Disk:
    """Stands in for `os.fsync`: full from the n-th call on; remembers what was synced."""

    def __init__(self, full_after: int | None = None) -> None:
        self.calls, self.full_after = 0, full_after

    def __call__(self, handle: int) -> None:
        self.calls += 1
        if self.full_after is not None and self.calls > self.full_after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_write_file_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_file(path, b"old")
    files.write_file(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.json"]


def test_data_are_on_the_disk_before_the_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, rename, fsync of the folder: in this order a power cut finds the old or the new file."""
    events: list[str] = []
    real, rename = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        real(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    files.write_file(tmp_path / "a", b"x")
    assert events == ["sync file", "rename", "sync folder"]


def test_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    files.write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", Disk(full_after=0))
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_file(path, b"new")
    assert caught.value.filename == str(path)  # a write that fails names no file of its own
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_write_json_is_utf_8_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"name": "Bär", "n": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"name": "Bär", "n": [1, 2]}


def test_new_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "step-1"
    with files.new_folder(path) as folder:
        assert folder != path and folder.parent == tmp_path
        (folder / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1" and names(tmp_path) == ["step-1"]


def test_new_folder_replaces_a_whole_folder_by_a_whole_folder(tmp_path: Path) -> None:
    path = tmp_path / "step-1"
    for content in ("a", "b"):
        with files.new_folder(path) as folder:
            (folder / content).write_text(content)
    assert names(path) == ["b"] and names(tmp_path) == ["step-1"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_new_folder_that_fails_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "step-1"
    with files.new_folder(path) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(type(error)), files.new_folder(path) as folder:
        (folder / "a").write_text("half")
        raise error
    assert (path / "a").read_text() == "old" and names(tmp_path) == ["step-1"]


def test_what_a_killed_program_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "step-1"
    (tmp_path / ".step-1.tmp").mkdir()
    (tmp_path / ".step-1.tmp" / "half").write_text("x")
    (tmp_path / ".a.tmp").write_text("half")
    with files.new_folder(path) as folder:
        (folder / "a").write_text("1")
    files.write_file(tmp_path / "a", b"whole")
    assert names(path) == ["a"] and names(tmp_path) == ["a", "step-1"]


def test_a_carriage_return_in_a_cell_ends_no_row() -> None:
    rows = [["a\rb", "c"], ["d\ne", 'f"g,'], ["h\r\n", ""]]
    assert list(csv.reader(io.StringIO(files.csv_text(rows), newline=""))) == rows
    assert files.csv_text([["a", 1, None]]) == "a,1,\n"
