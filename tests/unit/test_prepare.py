"""A large folder made ready once: `fewlabels data convert FOLDER NEW --image-size SIDE`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data
from fewlabels.datatools import prepare as preparing
from fewlabels.datatools.prepare import prepare
from imagenet_tree import make_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path) / "imagenet"


def pictures(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and ".fewlabels" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.mark.slow
def test_the_shorter_side_is_as_asked_and_small_files_are_copied(root: Path, tmp_path: Path) -> None:
    before = pictures(root)
    made = prepare(root, tmp_path / "new", 50)
    after = pictures(tmp_path / "new")
    assert after.keys() == before.keys() and pictures(root) == before and not made.left_out and not made.before
    sizes, copied = set(), 0
    for name in before:
        with Image.open(root / name) as old, Image.open(tmp_path / "new" / name) as new:
            if min(old.size) <= 50:
                assert after[name] == before[name]
                copied += 1
                continue
            sizes.add(min(new.size))
            width, height = (round(n * 50 / min(old.size)) for n in old.size)
            by_hand = old.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            by_hand.save(tmp_path / "hand.jpg", quality=90)
            assert (tmp_path / "hand.jpg").read_bytes() == after[name]
    assert sizes == {50} and 0 < copied < len(before)


def test_the_manifest_and_the_checksums_say_what_is_there(root: Path, tmp_path: Path) -> None:
    made = prepare(root, tmp_path / "new", 50)
    own = tmp_path / "new/.fewlabels"
    first, *lines = map(json.loads, (own / "manifest.jsonl").read_text().splitlines())
    assert first["side"] == 50 and first["quality"] == 90 and len(lines) == len(made.pictures) == 48
    assert (own / "SHA256SUMS").read_text().splitlines() == [f"{digest}  {path}" for path, *_, digest in lines]
    for path, origin, _, size, count, digest in lines:
        data = (tmp_path / "new" / path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest and len(data) == count and path == origin
        with Image.open(tmp_path / "new" / path) as picture:
            assert [picture.height, picture.width] == size


@pytest.mark.slow
def test_a_training_reads_the_new_folder_as_the_old_one(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    prepare(root, tmp_path / "other/imagenet", 40)
    old, new = (load_source(Data("imagenet", root=str(r), image_size=8)) for r in (root.parent, tmp_path / "other"))
    assert old.names == new.names and np.array_equal(old.labels, new.labels) and len(new.test_labels) == 12
    assert np.abs(old.images.astype(int) - new.images).mean() < 4


def test_grey_turned_and_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    colours.convert("L").save(folder / "grey.png")
    colours.save(folder / "a.png")
    colours.save(folder / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.save(folder / "turned.jpg", exif=exif)
    prepare(folder, tmp_path / "new", 100)
    seen = {}
    for path in (tmp_path / "new").iterdir():
        if path.is_file():
            with Image.open(path) as picture:
                seen[path.name] = (picture.mode, picture.size)
    assert seen == {
        "grey.jpg": ("L", (90, 60)), "a.png.jpg": ("RGB", (90, 60)), "a.jpg": ("RGB", (90, 60)),
        "turned.jpg": ("RGB", (60, 90)),
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_there_is_not_made_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tmp_path / "expected"
    prepare(root, expected, 50)
    small, made = preparing.small, []

    def fails(path: Path, side: int, how: Any) -> Any:
        if len(made) == 40:
            raise KeyboardInterrupt
        made.append(path)
        return small(path, side, how)

    monkeypatch.setattr(preparing, "small", fails)
    monkeypatch.setattr(preparing, "CHUNK", 5)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "new", 50)
    assert not (tmp_path / "new").exists()
    changed = sorted(root.rglob("*.JPEG"))[0]
    Image.new("RGB", (70, 80), (9, 200, 30)).save(changed)
    made.clear()
    monkeypatch.setattr(preparing, "small", lambda path, side, how: made.append(path) or small(path, side, how))
    found = prepare(root, tmp_path / "new", 50)
    assert found.before >= 20 and len(made) == 48 - found.before and changed in made
    whole, again = pictures(expected), pictures(tmp_path / "new")
    name = changed.relative_to(root).as_posix()
    assert whole.pop(name) != again.pop(name) and whole == again
    assert not list(tmp_path.glob(".new*"))


@pytest.mark.slow
def test_a_killed_process_leaves_no_half_folder_and_another_goes_on(root: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    prepare(root, expected, 50)
    program = (
        "import sys, time; from fewlabels.datatools import prepare as p; small = p.small\n"
        "def slow(*args):\n    time.sleep(0.02)\n    return small(*args)\n"
        "p.small, p.CHUNK = slow, 2\n"
        "p.prepare(*map(p.Path, sys.argv[1:3]), 50)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(root), str(tmp_path / "new")])
    log = tmp_path / ".new.preparing/.fewlabels/manifest.jsonl"
    deadline = time.monotonic() + 60
    while (not log.exists() or log.read_text().count("\n") < 8) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not (tmp_path / "new").exists()
    found = prepare(root, tmp_path / "new", 50)
    assert 0 < found.before < 48 and pictures(tmp_path / "new") == pictures(expected)


def test_what_was_begun_otherwise_is_not_gone_on_with(root: Path, tmp_path: Path) -> None:
    broken = sorted(root.rglob("*.JPEG"))[3]
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^1 of 48 pictures of .* cannot be read: .*--skip-corrupt"):
        prepare(root, tmp_path / "new", 50)
    with pytest.raises(ValueError, match="was begun with side 50, and now it is 60: give that, or remove this folder"):
        prepare(root, tmp_path / "new", 60)
    found = prepare(root, tmp_path / "new", 50, skip_corrupt=True)
    assert list(found.left_out) == [broken.relative_to(root).as_posix()] and found.before == 47
    with pytest.raises(ValueError, match="exists"):
        prepare(root, tmp_path / "new", 50)


@pytest.mark.slow
def test_the_command(root: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    to = tmp_path / "new"
    said = command("data", "convert", root, to, "--image-size", 50, "--dry-run")
    assert said.code == 0 and "48 pictures would be written" in said.out and not to.exists()
    said = command("data", "convert", root, to)
    assert "becomes a folder of smaller ones with --image-size" in said.sentence
    said = command("data", "convert", root, root / "new", "--image-size", 50)
    assert "which is read; write beside it" in said.sentence
    said = command("data", "convert", root, to, "--image-size", 50)
    assert said.code == 0 and "48 pictures written" in said.out and "train 36, val 12" in said.out, said.err
    said = command("data", "convert", root, to, "--image-size", 50)
    assert "exists" in said.sentence
