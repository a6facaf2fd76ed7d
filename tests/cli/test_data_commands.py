"""`fewlabels data`: what the commands answer, and what they leave alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.tfrecord import read

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answer(said: Any) -> Any:
    assert said.code == 0, said.err
    return json.loads(said.out)


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two classes of two pictures each, of three sizes, one of them grey; two unlabeled, one a copy; one test."""
    root = tmp_path / "own"
    for i, (path, size, mode) in enumerate(
        [
            ("labeled/cat/a.png", (12, 8), "RGB"),
            ("labeled/cat/b.png", (8, 8), "RGB"),
            ("labeled/hot-dog/a.png", (8, 8), "RGB"),
            ("labeled/hot-dog/b.png", (8, 10), "L"),
            ("unlabeled/x.png", (8, 8), "RGB"),
            ("test/cat/t.png", (8, 8), "RGB"),
        ]
    ):
        width, height = size
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).convert(mode).save(root / path)
    Image.open(root / "labeled/cat/b.png").save(root / "unlabeled/copy.bmp")
    return root


# ---- words


def test_help_and_wrong_words(command: Command) -> None:
    said = command("data")
    assert said.code == 0
    for name in ("list", "prepare", "check", "show", "filter", "crop", "rename", "convert"):
        assert f"\n  {name} " in said.out
    said = command("data", "chekc", "digits")
    assert said.code == 2 and "no command 'chekc'; did you mean check?" in said.sentence
    assert "did you mean digits?" in command("data", "check", "digit").sentence
    said = command("data", "filter", "a", "b", "--classes", "x", "--dryrun")
    assert "no option --dryrun; did you mean --dry-run?" in said.sentence
    assert "data filter needs --classes" in command("data", "filter", "a", "b").sentence


# ---- list and prepare


def test_list_knows_what_is_here(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    rows = {row["name"]: row for row in answer(command("data", "list", "--root", tmp_path, "--json"))}
    assert rows["digits"]["present"] and rows["cifar10"]["present"] and not rows["cifar100"]["present"]
    assert (rows["cifar10"]["train"], rows["cifar10"]["test"], rows["cifar100"]["classes"]) == (50_000, 10_000, 100)
    said = command("data", "list", "--root", tmp_path)
    assert said.code == 0 and all(name in said.out for name in rows)


def test_prepare(command: Command, tmp_path: Path) -> None:
    result = answer(command("data", "prepare", "digits", "--json"))
    assert (result["train"], result["test"], result["classes"]) == (1437, 360, 10)  # 1797 in all
    said = command("data", "prepare", "imagenet", "--root", tmp_path)
    assert said.code == 2 and "is not downloaded" in said.sentence
    assert "is a folder" in command("data", "prepare", "./own").sentence


# ---- check


def test_check_of_a_folder(command: Command, own: Path) -> None:
    result = answer(command("data", "check", f"{own}/", "--json"))
    assert result["parts"]["labeled"] == {"images": 4, "per_class": {"cat": 2, "hot-dog": 2}}
    assert result["parts"]["unlabeled"] == {"images": 2, "per_class": None}
    assert result["parts"]["test"]["images"] == 1
    assert {(s["height"], s["width"], s["images"]) for s in result["sizes"]} == {(8, 8, 5), (8, 12, 1), (10, 8, 1)}
    assert result["channels"] == {"1": 1, "3": 6}
    assert result["overlap"]["labeled"] == {"labeled": 0, "unlabeled": 1, "test": 0}
    assert result["duplicates"] == [] and result["problems"] == []  # an unlabeled copy is no duplicate
    said = command("data", "check", f"{own}/")
    assert said.code == 0 and "hot-dog" in said.out


def test_check_finds_what_is_wrong(command: Command, own: Path) -> None:
    (own / "labeled/cat/broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    Image.open(own / "labeled/cat/a.png").save(own / "labeled/hot-dog/c.png")
    Image.open(own / "labeled/cat/a.png").save(own / "test/cat/d.tiff")
    (own / "labeled/empty").mkdir()
    (own / "notes.txt").write_text("x")
    said = command("data", "check", f"{own}/", "--json")
    result = json.loads(said.out)
    assert said.code == 1
    assert [bad["path"] for bad in result["corrupt"]] == ["labeled/cat/broken.jpg"]
    assert result["duplicates"] == [["labeled/cat/a.png", "labeled/hot-dog/c.png", "test/cat/d.tiff"]]
    assert len(result["conflicts"]) == 1
    assert result["overlap"]["labeled"] == {"labeled": 2, "unlabeled": 1, "test": 2}
    assert result["overlap"]["test"]["labeled"] == 1
    assert any("1 of 10 pictures cannot be read" in p for p in result["problems"])
    assert any("labeled/empty" in p for p in result["problems"])
    assert any("2 labeled images are in the test part" in n for n in result["notes"])
    said = command("data", "check", f"{own}/")
    assert said.code == 1 and "problem: " in said.out and "labeled/cat/broken.jpg" in said.out


def test_check_counts_the_broken_pictures_that_it_does_not_list(command: Command, own: Path) -> None:
    for i in range(13):
        (own / f"labeled/cat/broken{i:02}.png").write_bytes(b"x")
    said = command("data", "check", own)
    assert said.code == 1 and said.out.count("cannot be read: labeled/cat/broken") == 10
    assert "and 3 more that cannot be read" in said.out and "problem: 13 of 20 pictures cannot be read" in said.out


def test_check_of_a_split(command: Command) -> None:
    result = answer(command("data", "check", "digits.3@20-30", "--json"))
    sizes = {part: facts["images"] for part, facts in result["parts"].items()}
    assert sizes == {"labeled": 20, "validation": 30, "unlabeled": 1437 - 30, "test": 360}
    assert sum(result["parts"]["labeled"]["per_class"].values()) == 20
    assert result["overlap"]["labeled"]["unlabeled"] + result["overlap"]["labeled"]["validation"] >= 20
    assert result["suggestion"]["batch"] == 16  # not more than the 20 labels


# ---- show


@pytest.mark.slow
def test_show_writes_a_new_picture_each_time(command: Command, tmp_path: Path) -> None:
    first = answer(command("data", "show", "digits@40", "--json"))
    assert first["file"] == "digits@40-sheet.png"
    before = (tmp_path / "digits@40-sheet.png").read_bytes()
    second = answer(command("data", "show", "digits@40", "--json"))
    assert second["file"] == "digits@40-sheet-2.png"
    assert (tmp_path / "digits@40-sheet.png").read_bytes() == before
    with Image.open(first["file"]) as picture:
        assert picture.size == (first["width"], first["height"])
    said = command("data", "show", "digits@40", "-o", "digits@40-sheet.png")
    assert said.code == 2 and "exists" in said.sentence
    assert "PNG" in command("data", "show", "digits@40", "-o", "sheet.jpg").sentence
    assert "--rows" in command("data", "show", "digits@40", "--rows", 0).sentence


@pytest.mark.slow
def test_show_of_a_folder(command: Command, own: Path) -> None:
    result = answer(command("data", "show", f"{own}/", "--json"))
    assert result["file"] == "own-sheet.png"


# ---- new folders


def test_filter(command: Command, own: Path) -> None:
    before = tree(own)
    plan = answer(command("data", "filter", own, "cats", "--classes", "cat", "--dry-run", "--json"))
    assert plan["dry_run"] and not Path("cats").exists()
    done = answer(command("data", "filter", own, "cats", "--classes", "cat", "--json"))
    assert done["files"] == plan["files"] and done["left_out"] == 2
    assert tree(Path("cats")) == {name: data for name, data in before.items() if "hot-dog" not in name}
    answer(command("data", "filter", own, "part", "--classes", "hot-dog", "--parts", "labeled", "--json"))
    assert "test/cat/t.png" in tree(Path("part")) and "labeled/cat/a.png" not in tree(Path("part"))
    assert tree(own) == before
    assert "did you mean cat?" in command("data", "filter", own, "x", "--classes", "cut").sentence
    assert "exists" in command("data", "filter", own, "cats", "--classes", "cat").sentence
    assert "write beside it" in command("data", "filter", own, own / "in", "--classes", "cat").sentence
    assert "--parts" in command("data", "filter", own, "x", "--classes", "cat", "--parts", "tset").sentence
    assert not Path("x").exists() and not list(Path().glob(".*"))


def test_crop(command: Command, own: Path) -> None:
    answer(command("data", "crop", own, "c", "--size", 6, "--how", "centre", "--json"))
    wide = np.asarray(Image.open(own / "labeled/cat/a.png"))  # 8 x 12
    assert (np.asarray(Image.open("c/labeled/cat/a.png")) == wide[1:7, 3:9]).all()
    with Image.open("c/labeled/hot-dog/b.png") as grey:
        assert grey.mode == "L" and grey.size == (6, 6)
    assert set(tree(Path("c"))) == {name.replace(".bmp", ".png") for name in tree(own)}
    answer(command("data", "crop", own, "p", "--size", 6, "--json"))
    padded = np.asarray(Image.open("p/labeled/cat/a.png"))  # 4 x 6 in the middle
    assert not padded[0].any() and not padded[-1].any() and padded[1:5].any(axis=(1, 2)).all()

    (own / "test/cat/bad.png").write_bytes(b"nothing")
    said = command("data", "crop", own, "q", "--size", 6)
    assert said.code == 2 and "bad.png" in said.sentence and not Path("q").exists()
    result = answer(command("data", "crop", own, "q", "--size", 6, "--skip-corrupt", "--json"))
    assert result["pictures"] == 7 and result["left_out"] == 1 and not Path("q/test/cat/bad.png").exists()
    Image.new("RGB", (8, 8)).save(own / "labeled/cat/a.jpg")
    assert "would both become" in command("data", "crop", own, "r", "--size", 6).sentence


def test_rename_to_a_new_folder(command: Command, own: Path) -> None:
    before = tree(own)
    answer(command("data", "rename", own, "named", "--index", 5, "--json"))
    after = tree(Path("named"))
    assert sorted(after) == [
        "labeled/cat/05_cat.png",
        "labeled/cat/06_cat.png",
        "labeled/hot-dog/07_hot-dog.png",
        "labeled/hot-dog/08_hot-dog.png",
        "test/cat/09_cat.png",
        "unlabeled/10.bmp",
        "unlabeled/11.png",
    ]
    assert after["labeled/cat/06_cat.png"] == before["labeled/cat/b.png"] and tree(own) == before


def test_rename_in_place_can_be_undone(command: Command, own: Path, tmp_path: Path) -> None:
    before = tree(own)
    assert "--in-place" in command("data", "rename", own).sentence
    assert answer(command("data", "rename", own, "--in-place", "--dry-run", "--json"))["pictures"] == 7
    assert tree(own) == before
    answer(command("data", "rename", own, "--in-place", "--json"))
    assert "labeled/hot-dog/2_hot-dog.png" in tree(own) and sorted(tree(own).values()) == sorted(before.values())
    log = tmp_path / "own-renamed.json"
    assert "exists" in command("data", "rename", own, "--in-place", "--index", 50).sentence
    (own / "labeled/cat/a.png").write_bytes(b"new")  # an old name is taken again
    assert "cannot be undone" in command("data", "rename", log, "--undo").sentence
    (own / "labeled/cat/a.png").unlink()
    answer(command("data", "rename", log, "--undo", "--json"))
    assert tree(own) == before and not log.exists() and log.with_name("own-renamed.json.undone").exists()


@pytest.mark.parametrize(
    "pair",
    [
        ("../victim.txt", "../escaped.txt"),
        ("../victim.txt", "labeled/cat/taken.png"),
        ("labeled/cat/a.png", "../taken.png"),
        ("labeled/cat/a.png", "unlabeled/taken.png"),
        ("VICTIM", "labeled/cat/taken.png"),
        ("VICTIM", "ESCAPED"),
        ("link/victim.txt", "link/escaped.txt"),
        ("labeled/../../victim.txt", "labeled/../../escaped.txt"),
        ("..", "escaped"),
        ("labeled", ""),
        ("labeled/cat/a.png", "labeled/cat/\0"),
    ],
)
def test_undo_moves_nothing_outside_the_folder(
    command: Command, own: Path, tmp_path: Path, pair: tuple[str, str]
) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (own / "link").symlink_to(tmp_path)
    before = tree(tmp_path)
    places = {"VICTIM": str(victim), "ESCAPED": str(tmp_path / "escaped.txt")}
    log = tmp_path / "own-renamed.json"
    log.write_text(json.dumps({"root": str(own), "renamed": [[places.get(name, name) for name in pair]]}))
    said = command("data", "rename", log, "--undo")
    assert said.code == 2 and "which are not in one folder in" in said.sentence
    log.unlink()
    assert tree(tmp_path) == before


def test_undo_takes_the_log_of_the_folder_beside_it_only(command: Command, own: Path, tmp_path: Path) -> None:
    answer(command("data", "rename", own, "--in-place", "--json"))
    before = tree(own)
    (tmp_path / "logs").mkdir()
    log = (tmp_path / "own-renamed.json").rename(tmp_path / "logs/own-renamed.json")
    said = command("data", "rename", log, "--undo")
    assert said.code == 2 and "which is not beside it" in said.sentence and tree(own) == before
    (tmp_path / "logs/own").symlink_to(own)
    content = json.loads(log.read_text())
    log.write_text(json.dumps(content | {"root": str(tmp_path / "logs/own")}))
    assert "which is not beside it" in command("data", "rename", log, "--undo").sentence and tree(own) == before
    for text in ("[]", "{", '{"root": 1, "renamed": []}', json.dumps(content | {"renamed": [["a", "b", "c"]]})):
        log.write_text(text)
        assert "is not the log of a renaming" in command("data", "rename", log, "--undo").sentence
    assert "cannot be read: No such file" in command("data", "rename", tmp_path / "gone.json", "--undo").sentence


def test_rename_in_place_refuses_a_collision_before_anything_moves(command: Command, own: Path) -> None:
    (own / "labeled/cat/b.png").rename(own / "labeled/cat/0_cat.png")  # a.png will want this name? No: 0 is itself
    Image.new("RGB", (8, 8)).save(
        own / "labeled/hot-dog/2_hot-dog.png"
    )  # sorted first there, but number 2 all the same
    Image.new("RGB", (8, 8), "red").save(own / "labeled/hot-dog/4_hot-dog.png")
    before = tree(own)
    said = command("data", "rename", own, "--in-place")
    assert said.code == 2 and "exist already" in said.sentence and tree(own) == before
    assert not Path("own-renamed.json").exists()


def test_convert_folder_to_arrays_and_back(command: Command, own: Path) -> None:
    answer(command("data", "convert", own, "own.npz", "--image-size", 8, "--json"))
    with np.load("own.npz") as arrays:
        assert arrays["classes"].tolist() == ["cat", "hot-dog"]
        assert sorted(arrays["labels"].tolist()) == [-1, -1, 0, 0, 1, 1] and arrays["test_labels"].tolist() == [0]
        assert arrays["images"].shape == (6, 8, 8, 3) and arrays["images"].dtype == np.uint8
        expected = np.asarray(Image.open(own / "labeled/cat/b.png"))
        assert (arrays["images"][1] == expected).all()
    result = answer(command("data", "convert", "own.npz", "back", "--json"))
    assert result["pictures"] == 7
    assert (np.asarray(Image.open("back/labeled/cat/1.png")) == expected).all()
    assert command("data", "convert", own, "own.npz").code == 2
    assert command("data", "convert", "own.npz", "back").code == 2
    assert ".npz or .tfrecord" in command("data", "convert", own, "other").sentence
    np.savez("odd.npz", x=np.zeros(3))
    assert "must hold images and labels" in command("data", "convert", "odd.npz", "y").sentence
    np.savez("odd2.npz", images=np.array([{}], object), labels=np.zeros(1, np.int64))
    assert "plain arrays" in command("data", "convert", "odd2.npz", "y").sentence


def test_convert_folder_to_records_and_back(command: Command, own: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(own / "unlabeled/copy.bmp")
    Path("out").mkdir()
    plan = answer(command("data", "convert", own, "out/own.tfrecord", "--dry-run", "--json"))
    assert plan["pictures"] == 7 and tree(Path("out")) == {}
    answer(command("data", "convert", own, "out/own.tfrecord", "--json"))
    names = ["SSL2/own-unlabel.tfrecord", "SSL2/own.1@4-label.tfrecord", "own-test.tfrecord"]
    assert sorted(tree(Path("out"))) == names
    assert "exists" in command("data", "convert", own, "out/own.tfrecord").sentence
    answer(command("data", "convert", "out/SSL2/own.1@4-label.tfrecord", "back", "--json"))
    back, before = tree(Path("back")), tree(own)
    for name, number in (("cat", "0"), ("hot-dog", "1")):
        bytes_before = sorted(data for path, data in before.items() if path.startswith(f"labeled/{name}/"))
        assert sorted(data for path, data in back.items() if path.startswith(f"labeled/{number}/")) == bytes_before
    assert [data for path, data in back.items() if path.startswith("test/0/")] == [before["test/cat/t.png"]]
    others = [data for path, data in back.items() if path.startswith("unlabeled/")]
    bmp = next(data for data in others if data != before["unlabeled/x.png"])
    assert bmp.startswith(b"\x89PNG")  # no other reader of such files knows BMP


def test_numeric_class_folders_become_their_numbers(command: Command, tmp_path: Path) -> None:
    for number in range(11):
        path = tmp_path / f"numbers/labeled/{number}/x.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (4, 4), number).save(path)
    done = answer(command("data", "convert", "numbers", "NUMBERS.TFRECORD", "--json"))
    records = read(tmp_path / "NUMBERS-train.tfrecord")
    assert sorted(r.label for r in records) == list(range(11)) and not any("labels:" in note for note in done["notes"])
    for record in records:
        assert np.asarray(Image.open(io.BytesIO(record.image)))[0, 0] == record.label
    answer(command("data", "convert", "numbers", "numbers.npz", "--json"))
    with np.load("numbers.npz") as arrays:
        assert arrays["classes"].tolist() == [str(n) for n in range(11)]
        assert arrays["images"][:, 0, 0, 0].tolist() == arrays["labels"].tolist()
    for number in range(10, 1, -1):
        (tmp_path / f"numbers/labeled/{number}").rename(tmp_path / f"numbers/labeled/{number + 5}")
    done = answer(command("data", "convert", "numbers", "gaps.tfrecord", "--json"))
    assert any(note.startswith("labels: 0 = 0, 1 = 1, 2 = 7, 3 = 8") for note in done["notes"])


def test_filter_records(command: Command, own: Path) -> None:
    from fewlabels.data import tfrecord

    examples = [tfrecord.Example(bytes([i]), label) for i, label in enumerate((3, 1, 2, -1, 3))]
    tfrecord.write(Path("a.tfrecord"), examples)
    answer(command("data", "filter", "a.tfrecord", "b.tfrecord", "--classes", "3,2", "--json"))
    assert [(e.image, e.label) for e in tfrecord.read(Path("b.tfrecord"))] == [
        (b"\0", 3), (b"\2", 2), (b"\3", -1), (b"\4", 3)
    ]  # fmt: skip
    answer(command("data", "filter", "a.tfrecord", "c.tfrecord", "--classes", "3,2", "--remap", "--json"))
    assert [e.label for e in tfrecord.read(Path("c.tfrecord"))] == [0, 1, -1, 0]
    assert "no records of class 7" in command("data", "filter", "a.tfrecord", "d.tfrecord", "--classes", "7").sentence
    assert "by number" in command("data", "filter", "a.tfrecord", "d.tfrecord", "--classes", "cat").sentence


@pytest.mark.slow
def test_convert_a_named_split_to_a_folder(command: Command) -> None:
    result = answer(command("data", "convert", "digits@40", "digits", "--json"))
    assert result["pictures"] == 1797
    files = list(tree(Path("digits")))
    assert sum(f.startswith("labeled/") for f in files) == 40 and sum(f.startswith("test/") for f in files) == 360
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    known = {np.rint(x * 255 / 16).astype(np.uint8).tobytes(): y for x, y in zip(images, labels, strict=True)}
    for path in Path("digits/labeled").rglob("*.png"):
        assert str(known[np.asarray(Image.open(path)).tobytes()]) == path.parent.name


def test_convert_says_what_the_pixels_show(tmp_path: Path, command: Command) -> None:
    """What a training would say of the pictures is lost when they are 8-bit PNG files; so it is said now."""
    masks = np.indices((4, 8, 8)).sum(0).astype(np.uint8) % 2
    np.savez("masks.npz", images=masks, labels=[0, 1, 0, 1], classes=np.array(["caf\u00e9".encode(), b"bar"]))
    result = answer(command("data", "convert", "masks.npz", "masks", "--json"))
    assert any(note.startswith("the images hardly differ: their values lie in 0..1") for note in result["notes"])
    assert sorted(p.name for p in Path("masks/labeled").iterdir()) == ["bar", "caf\u00e9"]
    for i, name in enumerate("aabb"):
        Path("deep/labeled", name).mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(i).integers(0, 4096, (8, 8)).astype(np.uint16)
        Image.fromarray(grey).save(f"deep/labeled/{name}/{i}.png")
    for to in ("deep.npz", "deep.tfrecord"):
        notes = answer(command("data", "convert", "deep", to, "--json"))["notes"]
        assert any(note.startswith("4 of 4 pictures of 16 bits have values of at most") for note in notes)
    assert "may hold test_images, test_labels, classes" in _refused(command, x=masks)
    assert "'Unlabeled' cannot be" in _refused(command, images=masks, labels=[0, 1] * 2, classes=["Unlabeled", "b"])


def _refused(command: Command, **arrays: Any) -> str:
    np.savez("odd.npz", **arrays)
    return str(command("data", "convert", "odd.npz", "odd").sentence)
