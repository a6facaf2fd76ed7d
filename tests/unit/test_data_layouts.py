"""Folders and zip files of pictures as people have them, and the validation part that is held back."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data, split_of
from fewlabels.config.settings import Data
from fewlabels.data import rules
from fewlabels.data.folder import list_folder
from fewlabels.data.names import is_pictures, parse
from fewlabels.data.source import Source
from fewlabels.data.sources import load
from fewlabels.data.split import Split, make_split
from fewlabels.datatools.check import check_folder


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def pgm(value: int) -> bytes:
    """A grey picture of 4 x 4 that is not of one value; its bytes are those of no library."""
    return b"P5 4 4 255\n" + bytes(15 * [value]) + bytes([value + 1])


def put(root: Path, names: Iterable[str]) -> Path:
    """Pictures of the values 1, 2, ... below a folder; a name that ends in / is an empty folder."""
    root.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).write_bytes(pgm(value))
    return root


def pack(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for value, name in enumerate(names, 1):
            archive.writestr(name, pgm(value))
    return path


def read(root: Path, **options: Any) -> tuple[Source, Split]:
    data = resolve_data(Data(f"{root}/" if root.is_dir() else str(root), **options))
    source = load_source(data)
    return source, split_of(data, source)


def values(source: Source, rows: Any = slice(None)) -> list[int]:
    return [int(v) for v in source.images[rows][:, 0, 0, 0]]


# ---- class folders alone


BARE = ("dog/1.pgm", "cat/2.pgm", "cat/deep/3.pgm", "4.pgm", "5.pgm")


def test_class_folders_alone(tmp_path: Path) -> None:
    source = load(parse(f"{put(tmp_path / 'photos', BARE)}/"))
    assert source.name == "photos" and source.classes == ("cat", "dog") and len(source.test_labels) == 0
    assert values(source) == [2, 3, 1, 4, 5] and source.labels.tolist() == [0, 0, 1, -1, -1]
    said = " ".join(source.notes)
    assert "has no folder 'labeled'; its folders are the classes" in said
    assert "2 pictures of" in said and "that lie in no class folder are unlabeled: 4.pgm, 5.pgm" in said
    assert "serve as the unlabeled set" not in said


def test_class_folders_with_parts_beside_them(tmp_path: Path) -> None:
    names = ("dog/1.pgm", "cat/2.pgm", "unlabeled/3.pgm", "test/cat/4.pgm", "val/dog/5.pgm", "6.pgm")
    root = put(tmp_path / "photos", names)
    source, split = read(root)
    assert source.classes == ("cat", "dog")
    assert values(source) == [2, 1, 3, 6, 5] and source.labels.tolist() == [0, 1, -1, -1, 1]
    assert source.test_images[:, 0, 0, 0].tolist() == [4] and source.test_labels.tolist() == [0]
    assert (split.labeled.tolist(), split.validation.tolist()) == ([0, 1], [4])
    assert sorted(split.unlabeled.tolist()) == [0, 1, 2, 3]
    report = check_folder(root)
    counts = {part: content["images"] for part, content in report["parts"].items()}
    assert counts == {"labeled": 2, "unlabeled": 2, "validation": 1, "test": 1} and report["problems"] == []


def test_folders_that_were_given_as_parts_are_no_classes(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", ("dog/1.pgm", "cat/2.pgm", "more/3.pgm"))
    assert load(parse(f"{root}/"), unlabeled=root / "more").classes == ("cat", "dog")
    assert load(parse(f"{root}/")).classes == ("cat", "dog", "more")


@pytest.mark.parametrize("place", ["runs/first", "runs/many/seed-1", "first"])
def test_runs_in_the_folder_are_no_class(tmp_path: Path, place: str) -> None:
    root = put(tmp_path / "photos", ("dog/1.pgm", "cat/2.pgm", f"{place}/foreign.pgm"))
    for name in ("config.json", "split.json"):
        (root / place / name).write_text("{}")
    source = load(parse(f"{root}/"))
    assert source.classes == ("cat", "dog") and values(source) == [2, 1]
    assert f"{place.split('/')[0]} of {root} holds runs of trainings and is no class" in source.notes
    assert check_folder(root)["problems"] == []


# ---- train, val, test


def test_train_validation_and_test(tmp_path: Path) -> None:
    names = [
        f"{part}/{c}/{i}.pgm" for part, n in (("train", 4), ("valid", 2), ("test", 1)) for c in "ab" for i in range(n)
    ]
    root = put(tmp_path / "photos", [*names, "train/loose.pgm"])
    source, split = read(root)
    assert values(source, split.labeled) == [*range(1, 9)] and values(source, split.validation) == [9, 10, 11, 12]
    assert source.labels[split.validation].tolist() == [0, 0, 1, 1]
    assert sorted(values(source, split.unlabeled)) == [*range(1, 9), 15]
    assert source.test_images[:, 0, 0, 0].tolist() == [13, 14]
    assert split.notes == ("the 4 validation images are those of photos's own validation part",)
    some, few = read(root, labels=4)
    assert len(few.labeled) == 4 and set(values(some, few.labeled)) <= {*range(1, 9)}
    assert values(some, few.validation) == [9, 10, 11, 12]
    for count in (0, 2):  # a number of them is taken from the labeled ones
        source, split = read(root, valid=count)
        assert len(source.images) == 9 and len(split.validation) == count
        assert any(note.endswith("valid") and "not read" in note for note in source.notes)


def test_a_validation_part_is_checked_as_a_test_part_is(tmp_path: Path) -> None:
    base = ("train/a/1.pgm", "train/b/2.pgm", "test/a/3.pgm")
    root = put(tmp_path / "new", (*base, "val/c/4.pgm"))
    for call in (list_folder, lambda root: [check_folder(root)["problems"]]):
        try:
            sentence = str(call(root))
        except ValueError as error:
            sentence = str(error)
        assert "has classes that" in sentence and "has not: c" in sentence
    note = f"{tmp_path}/few/val holds no pictures of b"
    assert note in load(parse(f"{put(tmp_path / 'few', (*base, 'val/a/4.pgm'))}/")).notes
    root = put(tmp_path / "same", (*base, "val/a/4.pgm"))
    (root / "val/a/4.pgm").write_bytes(pgm(1))
    twin = (
        "1 validation pictures are labeled ones too, so the accuracy on them is too good: train/a/1.pgm = val/a/4.pgm"
    )
    assert twin in load(parse(f"{root}/")).notes


# ---- what was read before is read as before


OLD: dict[str, tuple[tuple[str, int], ...]] = {
    "four": (("labeled", 4), ("unlabeled", 0), ("test", 2)),
    "two": (("train", 4), ("val", 2)),
    "more": (("labeled", 6), ("unlabeled", 0)),
    "one": (("labeled", 6),),
    "three": (("train", 6), ("val", 2), ("test", 2)),
}


@pytest.mark.parametrize(
    ("parts", "options", "fingerprint"),
    [
        ("four", {}, "0b44b98aede0eec2"),
        ("four", {"labels": 4, "valid": 3, "seed": 2}, "773f20dcf32346f6"),
        ("four", {"labels": 6, "rule": "realmix"}, "f2d53c50acf5ef31"),
        ("two", {}, "bedceb15c5dec311"),
        ("two", {"labels": 6, "rule": "realmix"}, "2ec3dc7c02f1d0f6"),
        ("more", {"valid": 0}, "a0ddda50624cc82d"),
        ("more", {"labels": 4, "valid": 3, "seed": 2}, "b8b0d2d77ea53446"),
        ("one", {"valid": 0}, "0b7543aead89ad8e"),
        ("one", {"labels": 4, "valid": 3, "seed": 2}, "ec45fb3fc78fcff8"),
        ("three", {"valid": 0}, "c54ece421222b1e8"),
        ("three", {"labels": 4, "valid": 3, "seed": 2}, "f89d68d081ce8004"),
    ],
)
def test_fingerprints_from_before(tmp_path: Path, parts: str, options: dict[str, Any], fingerprint: str) -> None:
    """Made by the code of commit 36f1578, which knew neither validation parts nor held-back pictures."""
    names: list[str] = []
    for part, each in OLD[parts]:
        names += [f"{part}/{c}/{i}.pgm" for c in ("ant", "bee") for i in range(each)]
        names += [f"{part}/{i}.pgm" for i in range(0 if each else 5)]
    assert read(put(tmp_path / "photos", names), **options)[1].fingerprint.startswith(fingerprint)


# ---- a tenth


@pytest.mark.parametrize(
    ("count", "held"),
    [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (8, 2), (20, 2), (24, 2), (25, 3), (100, 10), (1000, 100)],
)
def test_a_tenth_of_a_class(count: int, held: int) -> None:
    """Counted by hand: a tenth, rounded, at least 2, at most a third."""
    labels = np.array([-1] * 7 + [0] * count + [1] * 30, np.int64)
    rows = rules.tenth(labels, 1)
    assert np.bincount(labels[rows], minlength=2).tolist() == [held, 3]
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_the_tenth_is_a_function_of_the_seed() -> None:
    """NumPy's legacy generator by hand: the first of a permutation of 30 numbers, then of another one."""
    labels = np.repeat([0, 1], 30)
    random = np.random.RandomState(5)
    first, second = random.permutation(30)[:3], random.permutation(30)[:3] + 30
    assert rules.tenth(labels, 5).tolist() == sorted([*first.tolist(), *second.tolist()])
    assert rules.tenth(labels, 6).tolist() != rules.tenth(labels, 5).tolist()
    assert rules.tenth(np.full(4, -1), 1).tolist() == []


@pytest.mark.parametrize("rule", ["fixmatch", "balanced", "cadr", "realmix", "usb"])
@pytest.mark.parametrize("labels", [None, 6])
def test_what_is_held_back_is_in_no_other_part(tmp_path: Path, rule: str, labels: int | None) -> None:
    root = put(tmp_path / "photos", [f"{c}/{i}.pgm" for c in "ab" for i in range(9)] + ["x.pgm", "y.pgm"])
    if rule == "realmix" and labels is None:
        return
    source, split = read(root, rule=rule, labels=labels)
    assert source.labels[split.validation].tolist() == [0, 0, 1, 1]
    assert not {*split.validation.tolist()} & {*split.labeled.tolist(), *split.unlabeled.tolist()}
    assert {*split.validation.tolist(), *split.labeled.tolist(), *split.unlabeled.tolist()} == {*range(20)}
    assert len(split.labeled) == (labels or 14)
    assert split.notes[0] == (
        "4 of 18 labeled pictures are held back as validation, a tenth of each class (2 to a third of it), "
        "as there are no test pictures: --data.valid N takes another number, 0 none"
    )
    again = Split.from_json(split.to_json())
    assert again == split and again.valid is None and again.validation.tolist() == split.validation.tolist()


def test_when_nothing_is_held_back(tmp_path: Path) -> None:
    _, split = read(put(tmp_path / "few", ["a/1.pgm", "a/2.pgm", "b/3.pgm"]))
    assert len(split.validation) == 0 and len(split.labeled) == 3
    assert split.notes == (
        "no class has 3 labeled pictures, so none is held back as validation (--data.valid N takes N)",
    )
    root = put(tmp_path / "all", [f"{c}/{i}.pgm" for c in "ab" for i in range(6)])
    assert len(read(root, valid=0)[1].labeled) == 12
    with pytest.raises(ValueError, match=r"12 .* 8 images have a known label; 4 are held back .*--data.valid 0 holds"):
        read(root, labels=12)
    assert len(read(root, labels=12, valid=0)[1].labeled) == 12


def test_only_folders_are_held_back_from(tmp_path: Path) -> None:
    assert [is_pictures(x) for x in ("photos/", "./a.zip", "a.zip", "hf:x/y", "a.csv", "a.tfrecord", "digits@40")] == [
        *(True, True, True, False, False, False, False)
    ]
    root = put(tmp_path, [f"{c}{i}.pgm" for c in "ab" for i in range(6)])
    rows = [f"{c}{i}.pgm,{c}" for c in "ab" for i in range(6)]
    (root / "all.csv").write_text("\n".join(["path,label", *rows]))
    assert len(read(root / "all.csv")[1].labeled) == 12


def test_a_split_file_of_held_back_pictures(tmp_path: Path) -> None:
    for name, more in (("none", []), ("own", ["val/a/v.pgm", "test/a/t.pgm"])):
        names = [f"train/{c}/{i}.pgm" for c in "ab" for i in range(6)] + more
        root, file = put(tmp_path / name, names), tmp_path / f"{name}.json"
        _, split = read(root)
        file.write_text(split.to_json())
        assert len(split.validation) == (1 if more else 4)
        assert read(root, split=str(file))[1] == split
        with pytest.raises(ValueError, match=r"says valid None, but Data\.valid is 0"):
            read(root, split=str(file), valid=0)


def test_classes_that_are_left_out_are_not_measured_on(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", [f"{c}/{i}.pgm" for c in "abc" for i in range(6)])
    source, split = read(root, keep_labeled=("a", "c"), remap=True)
    assert source.labels[split.validation].tolist() == [0, 0, 1, 1]
    assert len(split.unlabeled) == 12


@pytest.mark.slow
def test_a_training_is_measured_on_what_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "photos", [f"{c}/{i}.pgm" for c in "ab" for i in range(9)])
    short = ("--data", "photos/", "--net", "small", "--steps", 2, "--batch", 4, "--uratio", 1, "--device", "cpu")
    said = command("train", "supervised", *short, "--out", "run", "--no-progress")
    assert said.code == 0 and " % valid accuracy" in said.out
    assert "it is that of the 4 validation pictures, which are held back" in said.out
    assert "4 of 18 labeled pictures are held back as validation" in said.out + said.err
    run = fl.Run("run")
    assert run.result["measured_on"] == "valid" and run.config.data.valid is None
    said = command("evaluate", "run", "--json")
    assert said.code == 0 and '"measured_on": "valid"' in said.out and '"n": 4' in said.out
    assert split_of(run.config.data, load_source(run.config.data)) == run.split


@pytest.mark.slow
def test_fit_takes_a_folder_and_a_zip_file(tmp_path: Path) -> None:
    names = [f"{c}/{i}.pgm" for c in ("cat", "dog") for i in range(9)]
    root, path = put(tmp_path / "photos", names), pack(tmp_path / "photos.zip", names)
    short = fl.Train(net=fl.Net("small"), steps=2, batch=4, uratio=1, device="cpu")
    for given in (root, f"{root}/", path):
        classifier = fl.fit(given, config=short, out=tmp_path / f"run{type(given).__name__}{str(given)[-3:-1]}")
        assert classifier.classes_.tolist() == ["cat", "dog"]
        assert classifier.run is not None and classifier.run.result["measured_on"] == "valid"
        assert len(classifier.run.split.validation) == 4
    for wrong in (np.zeros((4, 4, 4), np.uint8), "photos", [root / "cat/0.pgm"]):
        with pytest.raises(ValueError, match=r"fit needs labels, one per image; only a folder or zip file"):
            fl.fit(wrong, config=short)


# ---- ambiguous folders


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["cat/1.pgm"],
            r"has no folder 'labeled' \(or 'train'\), and one class folder only \(cat\); own pictures lie in .*/CLASS/ "
            r"or in .*/labeled/CLASS/ with at least 2 classes, and beside it in unlabeled/ and test/CLASS/",
        ),
        (["1.pgm", "2.pgm"], "and no class folders; own pictures lie in"),
        (["inner/cat/1.pgm", "inner/dog/2.pgm"], "if the classes are the folders of .*/inner, give that as the data$"),
        (
            ["labeled/cat/1.pgm", "labeled/dog/2.pgm", "cat/3.pgm"],
            r"has class folders in labeled/ and others of these classes beside it \(cat\); they lie either in labeled/ "
            "or right in",
        ),
        (
            ["labeled/a/1.pgm", "labeled/b/2.pgm", "test/3.pgm"],
            "/test has pictures and no class folders: 3.pgm; they belong into .*/test/CLASS/, or into .*/unlabeled/ "
            "where no class is known$",
        ),
        (
            ["a/1.pgm", "b/2.pgm", "test/3.pgm"],
            "/test has pictures and no class folders: .*, or a class of this name into .*/labeled/ with the others$",
        ),
        (["train/a/1.pgm", "train/b/2.pgm", "test/a/3.pgm", "val/4.pgm"], "/val has pictures and no class folders"),
        (["a/1.pgm", "b/2.pgm", "empty/"], "has class folders without pictures: empty; fill them or remove them"),
        (
            ["one/train/a/1.pgm", "one/train/b/2.pgm", "two/train/a/3.pgm"],
            "/one may be a data set and no class of .*, as it has a folder 'train': give the one or the other",
        ),
        (["train/a/1.pgm", "train/2.pgm"], r"train has one class only \(a\); at least 2 are needed"),
        (["train/1_cat.pgm", "train/2_dog.pgm"], "outside its class folders: .*set label_from to suffix"),
        (["labeled/a/1.pgm", "labeled/b/2.pgm", "labeled/3.pgm"], "labeled has pictures outside its class folders"),
        (
            ["train/a/1.pgm", "train/b/2.pgm", "test/a/3.pgm", "val/a/4.pgm", "dev/a/5.pgm"],
            "has both a folder 'dev' and a folder 'val'; keep one of them",
        ),
    ],
)
def test_ambiguous_folders_are_named(tmp_path: Path, names: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        list_folder(put(tmp_path / "photos", names))


def test_the_labeled_folder_may_be_said(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", ["labeled/cat/1.pgm", "labeled/dog/2.pgm", "cat/3.pgm", "dog/4.pgm"])
    assert values(load(parse(f"{root}/"), labeled=root / "labeled")) == [1, 2]
    assert check_folder(root)["problems"][0].startswith(f"{root} has class folders in labeled/ and others")


def test_named_sets_take_no_class_folders_alone(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", BARE)
    with pytest.raises(ValueError, match=rf"--data.labeled {root} takes its folders for the classes: cat, dog$"):
        list_folder(root, strict=True)


# ---- zip files


@pytest.mark.parametrize("top", ["", "photos/", "a/b/"])
def test_a_zip_file_is_read_as_its_folder(tmp_path: Path, top: str) -> None:
    names = [f"{c}/{i}.pgm" for c in ("cat", "dog") for i in range(4)] + ["unlabeled/x.pgm"]
    root = put(tmp_path / "photos", names)
    path = pack(tmp_path / "photos.zip", [top + name for name in names] + ["__MACOSX/._x.pgm", ".hidden/y.pgm"])
    for options in ({}, {"valid": 0}, {"labels": 4}):
        (one, first), (two, second) = read(root, **options), read(path, **options)
        assert first == second and values(one) == values(two)
    assert any("photos.zip was unpacked into" in note for note in two.notes)
    assert check_folder(path)["parts"] == check_folder(root)["parts"]


def test_a_part_of_an_archive_is_not_taken_for_its_top(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", ["train/a/1.pgm", "train/b/2.pgm"])
    assert load(parse(str(path))).classes == ("a", "b")


def test_an_archive_is_unpacked_once_and_again_where_files_are_gone(tmp_path: Path) -> None:
    path = pack(tmp_path / "photos.zip", ["a/1.pgm", "b/2.pgm"])
    root = list_folder(path).base
    assert root is not None and values(load(parse(str(path)))) == [1, 2]
    inode = (root / "a/1.pgm").stat().st_ino
    assert list_folder(path).base == root and (root / "a/1.pgm").stat().st_ino == inode
    (root / "a/1.pgm").unlink()
    assert list_folder(path).base == root and (root / "a/1.pgm").read_bytes() == pgm(1)
    (root / "a/mine.pgm").write_bytes(pgm(9))
    with pytest.raises(ValueError, match=r"holds files that the archive has not: a/mine.pgm; move them away"):
        list_folder(path)
    assert (root / "a/mine.pgm").exists()
    assert list_folder(pack(tmp_path / "other.zip", ["a/1.pgm", "b/2.pgm", "b/3.pgm"])).base != root


@pytest.mark.parametrize("name", ["../out.pgm", "a/../../out.pgm", "/out.pgm", "..\\out.pgm", "C:\\out.pgm"])
def test_no_path_leaves_an_archive(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "photos.zip", ["a/1.pgm", "b/2.pgm", name])
    with pytest.raises(ValueError, match=r"photos.zip holds '.*out.pgm', which leads out of the archive; make it anew"):
        list_folder(path)
    assert [p.name for p in tmp_path.rglob("*.pgm")] == []


@pytest.mark.slow
def test_archives_that_cannot_be_read(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a/1.pgm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"holds the symbolic link 'a/1\.pgm'"):
        list_folder(path)
    whole = pack(path, [f"{c}/{i}.pgm" for c in "ab" for i in range(3)]).read_bytes()
    marked = bytearray(whole)
    marked[whole.index(b"PK\x01\x02") + 8] |= 1
    for content, sentence in (
        (bytes(marked), "is encrypted (a/0.pgm); unpack it, and give the folder"),
        (whole[: len(whole) // 2], "cannot be read as a zip file: File is not a zip file; make it anew"),
        (whole.replace(b"a/0.pgm", b"b/0.pgm"), "holds 'b/0.pgm' twice; make it anew"),
        (b"", "cannot be read as a zip file: File is not a zip file; make it anew"),
    ):
        path.write_bytes(content)
        for words in (("split", path), ("data", "check", path), ("train", "--data", path)):
            said = command(*words)
            assert said.code == 2 and said.sentence == f"{path} {sentence}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/1.pgm", pgm(1))
        archive.writestr("b/2.pgm", pgm(2))
    path.write_bytes(path.read_bytes().replace(pgm(1), pgm(7)))  # another content than the check sum says
    with pytest.raises(ValueError, match=r"cannot be read as a zip file: Bad CRC-32 for file 'a/1.pgm'"):
        list_folder(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert command("split", path).sentence == f"{path} holds no files"
    assert command("split", tmp_path / "gone.zip").sentence == f"there is no file '{tmp_path}/gone.zip'"


def test_an_archive_stays_as_it_is(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = pack(tmp_path / "photos.zip", ["a/1.pgm", "b/2.pgm"])
    before = path.read_bytes()
    said = command("data", "rename", path, "--in-place")
    assert said.code == 2 and said.sentence == f"{path} is an archive, which stays as it is: name a new folder after it"
    assert command("data", "rename", path, tmp_path / "new").code == 0 and path.read_bytes() == before
    assert sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "new").rglob("*.pgm")) == [
        *("new/a/0_a.pgm", "new/b/1_b.pgm")
    ]


def test_valid_none_of_arrays_is_the_rule_too() -> None:
    images = np.arange(20 * 16, dtype=np.uint8).reshape(20, 4, 4, 1)
    source = fl.from_arrays(images, np.repeat([0, 1], 10))
    assert len(make_split(source, labels=None, seed=1).validation) == 0
    assert len(make_split(source, labels=None, seed=1, valid=None).validation) == 4
