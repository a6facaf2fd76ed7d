"""Own pictures in every form: parts anywhere, names with classes, tables, the hub, display names, odd files."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import read_folder
from PIL import Image
from torchvision.transforms import CenterCrop

from fewlabels.data.find import find_images
from fewlabels.data.listing import alike
from fewlabels.data.names import parse
from fewlabels.data.pictures import fit
from fewlabels.data.sources import DataUnavailable, load
from fewlabels.data.split import make_split
from fewlabels.datatools.check import check_folder
from fewlabels.datatools.layout import layout

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a grey picture that is not of one value: `value` everywhere but in its last pixel."""

    def write(name: str, value: int, size: tuple[int, int] = (16, 16)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", size, value)
        image.putpixel((size[0] - 1, size[1] - 1), value + 1)
        image.save(path)
        return path

    return write


def corner(images: np.ndarray[Any, Any]) -> list[int]:
    return [int(v) for v in images[:, 0, 0, 0]]


def test_parts_may_lie_anywhere(put: Put, tmp_path: Path) -> None:
    put("photos/labeled/a/1.png", 1)
    put("photos/labeled/b/1.png", 2)
    put("elsewhere/lab/b/1.png", 3)
    put("elsewhere/lab/a/1.png", 4)
    put("more/x.png", 5)
    put("held/b/x.png", 6)
    name, more, held = parse(f"{tmp_path}/photos/"), tmp_path / "more", tmp_path / "held"
    source = load(name, unlabeled=more, test=held)
    assert corner(source.images) == [1, 2, 5] and source.labels.tolist() == [0, 1, -1]
    assert corner(source.test_images) == [6] and source.test_labels.tolist() == [1]
    assert corner(load(name, labeled=tmp_path / "elsewhere" / "lab").images) == [4, 3]
    with pytest.raises(ValueError, match=r"there is no folder '.*gone', which was given as the test part"):
        load(name, test=tmp_path / "gone")


def test_classes_from_the_ends_of_names(put: Put, tmp_path: Path) -> None:
    for name, value in (("01_zebra", 1), ("02_ant", 2), ("003_grey_zebra", 3)):
        put(f"photos/labeled/{name}.png", value)
    put("photos/unlabeled/7_whatever.png", 4)
    put("photos/test/9_ant.png", 5)
    source = read_folder(tmp_path / "photos", label_from="suffix")
    assert source.classes == ("ant", "zebra") and source.labels.tolist() == [0, 1, 1, -1]
    assert corner(source.images) == [2, 3, 1, 4] and source.test_labels.tolist() == [0]
    with pytest.raises(ValueError, match=r"outside its class folders: .*for names like 12_CLASS.png set label_from"):
        read_folder(tmp_path / "photos")
    put("photos/labeled/nothing.png", 1)
    with pytest.raises(ValueError, match=r"without a class after '_' in their names: nothing.png"):
        read_folder(tmp_path / "photos", label_from="suffix")


def test_a_val_folder_serves_as_test(put: Put, tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png"):
        put(f"photos/{name}", 50)
    source = read_folder(tmp_path / "photos")
    assert source.test_labels.tolist() == [0, 1] and any("val serves as the test part" in n for n in source.notes)


def test_a_picture_in_labeled_and_test_is_listed(put: Put, tmp_path: Path) -> None:
    put("photos/labeled/a/1.png", 1)
    put("photos/labeled/b/2.png", 2)
    put("photos/unlabeled/3.png", 3)
    put("photos/test/a/again.bmp", 1)
    put("photos/test/b/3.png", 3)
    [note] = read_folder(tmp_path / "photos").notes
    assert note.startswith("1 test pictures are labeled ones too")
    assert note.endswith(": labeled/a/1.png = test/a/again.bmp")


def test_display_names(put: Put, tmp_path: Path) -> None:
    put("photos/labeled/n01/1.png", 1)
    put("photos/labeled/n02/1.png", 2)
    file, name = tmp_path / "names.json", parse(f"{tmp_path}/photos")
    for content in ({"n01": "cat", "n02": "dog"}, {"0": "cat", "1": "dog"}, ["cat", "dog"], {"cat": 0, "dog": 1}):
        file.write_text(json.dumps(content))
        source = load(name, classes=file)
        assert source.classes == ("cat", "dog") and source.labels.tolist() == [0, 1]
    file.write_text('{"n02": "dog"}')
    assert load(name, classes=file).classes == ("n01", "dog")
    for text, sentence in (
        ('{"n03": "x"}', "names the class 'n03', which photos has not"),
        ('{"n01": "n02"}', "the class name 'n02' twice"),
        ('["one"]', "or a list of 2 names"),
        ("{", "is not a JSON file"),
        ('{"n01": null}', "which is no text"),
        ('{"n01": " "}', "gives the class 'n01' the name ' ', which is no text"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load(name, classes=file)
    with pytest.raises(ValueError, match="cannot be read"):
        load(name, classes=tmp_path / "gone.json")


def counted(put: Put, folders: list[str]) -> None:
    """Class folder number i of `folders` has i + 1 pictures."""
    for i, folder in enumerate(folders):
        for j in range(i + 1):
            put(f"photos/labeled/{folder}/{j}.png", 20 * i + j)


def test_numeric_class_folders_are_in_the_order_of_the_numbers(put: Put, tmp_path: Path) -> None:
    counted(put, [str(i) for i in range(12)])
    file, name = tmp_path / "names.json", parse(f"{tmp_path}/photos")
    source = load(name)
    assert source.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    for content in (words, {str(i): word for i, word in enumerate(words)}, {word: i for i, word in enumerate(words)}):
        file.write_text(json.dumps(content))
        source = load(name, classes=file)
        assert dict(zip(source.classes, source.histogram().tolist(), strict=True)) == {
            word: i + 1 for i, word in enumerate(words)
        }


def test_a_number_names_the_class_not_its_place(put: Put, tmp_path: Path) -> None:
    """Folders that count from 1, and with leading zeros: 1 is the first of them, not the second."""
    counted(put, ["01", "02", "03"])
    file, name = tmp_path / "names.json", parse(f"{tmp_path}/photos")
    for content in ({"one": 1, "two": 2, "three": 3}, {"1": "one", "02": "two", "3": "three"}, ["one", "two", "three"]):
        file.write_text(json.dumps(content))
        source = load(name, classes=file)
        assert dict(zip(source.classes, source.histogram().tolist(), strict=True)) == {"one": 1, "two": 2, "three": 3}
    for text, sentence in (
        ('{"0": "zero"}', "names the class '0', which photos has not"),
        ('{"1": "one", "01": "uno"}', "gives the class '01' two names: 'one' and 'uno'"),
        ('{"1": "one", "1": "uno"}', "gives the class '01' two names"),
        ("[]", "or a list of 3 names"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load(name, classes=file)


@pytest.mark.parametrize(
    ("folders", "place"),
    [
        (["class_1", "class_10", "class_2"], "class 1 of photos is 'class_10' where one may expect 'class_2'"),
        (["Zebra", "ant"], "class 0 of photos is 'Zebra' where one may expect 'ant'"),
    ],
)
def test_places_of_classes_that_a_reader_may_take_for_others(
    put: Put, tmp_path: Path, folders: list[str], place: str
) -> None:
    counted(put, folders)
    file, name = tmp_path / "names.json", parse(f"{tmp_path}/photos")
    for content in ([f"name {i}" for i in range(len(folders))], {"0": "first"}, {"first": 0}):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"names classes by their place, and {place}"):
            load(name, classes=file)
    file.write_text(json.dumps({folders[1]: "second"}))
    assert load(name, classes=file).classes[1] == "second"


# ---- parts by other names, folders of other programs


@pytest.mark.parametrize(
    ("labeled", "test", "unlabeled"),
    [
        ("train", "valid", "unlabeled"),
        ("Train", "Validation", "Unlabelled"),
        ("training", "testing", "unlabeled"),
        ("labelled", "dev", "UNLABELED"),
        ("train", "eval", "unlabeled"),
    ],
)
def test_parts_by_other_names(put: Put, tmp_path: Path, labeled: str, test: str, unlabeled: str) -> None:
    for name in (f"{labeled}/a/1.png", f"{labeled}/b/2.png", f"{test}/a/3.png", f"{unlabeled}/4.png"):
        put(f"photos/{name}", int(name[-5]))
    root = tmp_path / "photos"
    source = read_folder(root)
    assert corner(source.images) == [1, 2, 4] and source.labels.tolist() == [0, 1, -1]
    assert corner(source.test_images) == [3] and source.test_labels.tolist() == [0]
    assert {(p.part, p.label) for p in layout(root).pictures if p.part != "unlabeled"} == {
        ("labeled", "a"),
        ("labeled", "b"),
        ("test", "a"),
    }


def test_what_is_not_read_is_said(put: Put, tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "valid/a/4.png", "extra/5.png", "6.png"):
        put(f"photos/{name}", 50)
    root = tmp_path / "photos"
    note = f"not read, as they are no part of {root}: 6.png, extra"
    assert note in read_folder(root).notes and note in layout(root).notes
    note += ", valid"
    assert note in read_folder(root, validation=False).notes and note in layout(root, validation=False).notes
    put("photos/labeled/a/7.png", 1)
    for read in (read_folder, layout):
        with pytest.raises(ValueError, match="has both a folder 'labeled' and a folder 'train'; keep one of them"):
            read(root)


def test_two_validation_folders_are_refused(put: Put, tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "dev/a/4.png"):
        put(f"photos/{name}", 50)
    for read in (read_folder, layout):
        with pytest.raises(ValueError, match="has both a folder 'dev' and a folder 'val'"):
            read(tmp_path / "photos")
    assert len(read_folder(tmp_path / "photos", test=tmp_path / "photos/dev").test_images) == 1


def test_plain_class_folders_are_taken(put: Put, tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png", "unlabeled/3.png", "test/dog/4.png"):
        put(f"photos/{name}", int(name[-5]))
    root = tmp_path / "photos"
    for source in (read_folder(root, labeled=root), read_folder(root)):
        assert source.classes == ("cat", "dog") and source.labels.tolist() == [0, 1, -1]
        assert corner(source.images) == [1, 2, 3] and corner(source.test_images) == [4]
    assert check_folder(root)["problems"] == []


@pytest.mark.parametrize(
    "helper", ["@eaDir", "__MACOSX", ".AppleDouble", ".ipynb_checkpoints", "#recycle", "lost+found", "$RECYCLE.BIN"]
)
def test_folders_of_other_programs_are_passed_over(put: Put, tmp_path: Path, helper: str) -> None:
    for name in ("labeled/a/1.png", "labeled/b/2.png", "unlabeled/3.png", "test/a/4.png"):
        put(f"photos/{name}", int(name[-5]))
        parent, _, file = name.rpartition("/")
        put(f"photos/{parent}/{helper}/{file}/thumb.jpg", 200)
    put(f"photos/labeled/{helper}/5.png", 200)  # no class
    put(f"photos/{helper}/6.png", 200)
    root = tmp_path / "photos"
    source = read_folder(root)
    assert source.classes == ("a", "b") and corner(source.images) == [1, 2, 3] and corner(source.test_images) == [4]
    assert len(layout(root).pictures) == 4 and len(find_images(root)) == 4
    said = [
        f"labeled/{helper}",
        f"labeled/a/{helper}",
        f"labeled/b/{helper}",
        f"test/a/{helper}",
        f"unlabeled/{helper}",
    ]
    note = f"5 folders of other programs were passed over: {', '.join(sorted(said))}"
    assert (note in source.notes and note in layout(root).notes) == (not helper.startswith("."))


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "-1"])
def test_a_class_folder_that_means_no_class(put: Put, tmp_path: Path, name: str) -> None:
    for folder in ("a", "b", name):
        put(f"photos/labeled/{folder}/1.png", 1)
    with pytest.raises(ValueError, match=f"has a class called '{name}', which means that there is none") as caught:
        read_folder(tmp_path / "photos")
    assert check_folder(tmp_path / "photos")["problems"] == [str(caught.value)]
    (tmp_path / "photos/labeled" / name).rename(tmp_path / "photos/labeled/unknown")
    source = read_folder(tmp_path / "photos")
    assert source.classes == ("a", "b", "unknown")
    assert any(note.startswith("unknown of ") and "counts as a class" in note for note in source.notes)


def test_the_same_picture_in_two_classes_is_said(put: Put, tmp_path: Path) -> None:
    for name, value in (("labeled/a/1", 1), ("labeled/b/2", 2), ("labeled/b/3", 1), ("test/a/4", 2), ("test/b/5", 9)):
        put(f"photos/{name}.png", value)
    notes = read_folder(tmp_path / "photos").notes
    assert (
        "1 test pictures are labeled ones too, so the test accuracy is too good: labeled/b/2.png = test/a/4.png"
        in notes
    )
    [note] = [note for note in notes if "the same as one of another class" in note]
    assert note == (
        "2 labeled pictures are the same as one of another class: labeled/a/1.png (a) = labeled/b/3.png (b), "
        "labeled/b/2.png (b) = test/a/4.png (a)"
    )


def test_annotations_lead_to_no_other_folder(put: Put, tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "val/images/3.png"):
        put(f"tiny/{name}", 1)
    put("secret.png", 99)
    os.symlink(tmp_path / "secret.png", tmp_path / "tiny/val/images/4.png")
    (tmp_path / "tiny/val/val_annotations.txt").write_text("3.png\ta\n4.png\tb\n")
    with pytest.raises(ValueError, match=r"4\.png' is a symbolic link that leaves"):
        read_folder(tmp_path / "tiny")


# ---- bringing to a size


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(4, 24))
def test_centre_is_torchvisions_centre_crop(width: int, height: int, side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(fit(image, side, "centre")), np.asarray(CenterCrop(side)(image)))


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (7, 7), (3, 5), (24, 12)])
def test_pad_keeps_all_of_the_picture_on_black(size: tuple[int, int]) -> None:
    out = np.asarray(fit(Image.new("L", size, 200), 12, "pad"))
    width, height = (max(1, s * 12 // max(size)) for s in size)
    rows, columns = np.nonzero(out.any(1))[0], np.nonzero(out.any(0))[0]
    assert out.shape == (12, 12) and (out > 0).sum() == width * height and set(np.unique(out)) <= {0, 200}
    assert abs(rows[0] - (11 - rows[-1])) <= 1 and abs(columns[0] - (11 - columns[-1])) <= 1


def test_the_common_size_depends_on_how(put: Put, tmp_path: Path) -> None:
    for i, size in enumerate([(40, 20), (60, 30), (32, 32)]):
        put(f"photos/labeled/{'ab'[i % 2]}/{i}.png", 9, size)
    for how, side in (("crop", 28), ("pad", 40), ("centre", 20)):
        source = read_folder(tmp_path / "photos", fit=how)  # type: ignore[arg-type]
        assert source.shape == (1, side, side) and any(f"{side} x {side} px" in note for note in source.notes)


# ---- tables


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "photos.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table(put: Put, tmp_path: Path) -> None:
    for i, name in enumerate(["p/one.png", "p/two, too.png", "p/drei ü.png", "q.png", "t.png"]):
        put(name, 10 * i)
    path = table(
        tmp_path,
        '\ufeffpath, label, split\np/one.png,10,\n"p/two, too.png",9,train\n'
        "p/drei ü.png,,\nq.png,9,unlabeled\nt.png,10,test\n",
    )
    source = load(parse(str(path)))
    assert source.classes == ("9", "10") and source.name == "photos"
    assert source.labels.tolist() == [1, 0, -1, -1] and corner(source.images) == [0, 10, 20, 30]
    assert source.test_labels.tolist() == [1] and source.notes == ()
    moved = tmp_path / "lists" / "photos.csv"
    moved.parent.mkdir()
    path.rename(moved)
    with pytest.raises(ValueError, match="5 of 5 pictures cannot be read"):
        load(parse(str(moved)))
    assert len(load(parse(str(moved)), root=tmp_path).images) == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "its first line must name the columns path and label"),
        ("file,label\nx,1\n", "must name the columns path and label, got 'file, label'"),
        ("path,label\n,1\n", "line 2: the row has no path"),
        ("path,label\n\n,\n,1\n", "line 4: the row has no path"),
        ("path,label\n1.png,Persian, white\n", "line 2: 3 cells under 2 columns; a cell with ',' in it needs quotes"),
        ("path;label\n1.png;a;b\n", "line 2: 3 cells under 2 columns; a cell with ';' in it needs quotes"),
        ("path,label\n1.png,a\n2.png\n", "line 3: 1 cells under 2 columns; a cell may be empty, but needs its ','"),
        *(
            (
                f"path,label\n1.png,a\n2.png,{word}\n",
                f"line 3: the label '{re.escape(word)}' may mean that there is none",
            )
            for word in (
                "nan",
                "NaN",
                "None",
                "null",
                "NULL",
                "NA",
                "n/a",
                "<NA>",
                "#N/A",
                "?",
                "Unlabeled",
                "-2",
                "-100",
                "-1e0",
                "\u22121",
                "NaT",
                "-nan",
                "n.a.",
                "#N/A N/A",
                "missing",
                "-",
                "--",
            )
        ),
        ("path,label,split\n1.png,-1,labeled\n", "line 2: a labeled picture needs a label, and -1 means unlabeled"),
        ("path,label\n1.png,-1\n2.png,1\n", r"has one class only \(1\), as its label -1 means unlabeled"),
        ('path,label\n"1.png,a\n2.png",b\n', r"line 3: the path '1.png,a\\n2.png' holds a line break .*is a quote"),
        ('path,label\n1.png,"a\n2.png,b\n', "line 3: unexpected end of data; is a quote"),
        (f"path,label\n1.png,{'a' * 3000}\n", r"line 2: the label 'a{57}\.\.\.' is 3000 characters long; is a quote"),
        ("path,label\n1.png,\x1b[31mred\n", "line 2: the label .* another control character"),
        ("path,label\n1.png,a\n\0\0\0", "line 3 holds a zero byte, so this is no text"),
        ("\0" * 3000, "line 1 holds a zero byte, so this is no text"),
        ("x" * 3000, r"must name the columns path and label, got 'x{57}\.\.\.'$"),
        ("path,label,Label\nx.png,1,2\n", "names the column label more than once"),
        ("path,label\nC:\\img\\0.png,1\n", r"line 2: the path 'C:.*' begins with a Windows drive; paths start from"),
        ("path,label\n..\\x.png,1\n", "line 2: the picture .* is not in"),
        (
            "path,label\nx.png,1\n./x.png,2\n",
            r"more than once: './x.png' \(lines 2 and 3, with the labels '1' and '2'\)",
        ),
        ("path,label\n../x.png,1\n", "'../x.png' is not in .*--data.root names another folder"),
        ("path,label\n/etc/passwd,1\n", "'/etc/passwd' is not in"),
        ("path,label\nhttps://a.org/1.png,1\n", "line 2: the path 'https://a.org/1.png' is an address; download"),
        ("path,label\n1.png,1\nfile:///x/1.png,1\n", "line 3: the path 'file:///x/1.png' is an address"),
        (
            "path,label,split\nx.png,1,valid\n",
            "line 2: split must be one of train, labeled, unlabeled, test, got 'valid'",
        ),
        ("path,label,split\nx.png,,test\n", "line 2: a test picture needs a label"),
        (
            "path,label\nx.png,1\nx.png,2\n",
            r"names pictures more than once: 'x.png' \(lines 2 and 3, with the labels '1' and '2'\)",
        ),
        ('path,label\n"x.png,1\n', "is no table of pictures"),
        ("path,label\nx.png,\n", "holds no labeled pictures"),
        ("path,label\nx.png,1\n", r"has one class only \(1\); at least 2"),
        ("path,label,split\nx.png,1,\ny.png,2,\nz.png,3,test\n", "the test part has classes that .* has not: 3$"),
        (
            "path,label,split\nx.png,1,\ny.png,2,\nz.png,2.0,test\n",
            "has classes that .* has not: 2.0; these look like one and are told apart: '2' and '2.0'$",
        ),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load(parse(str(table(tmp_path, text))))


def test_unlabeled_pictures_of_a_table(put: Put, tmp_path: Path) -> None:
    for i in range(6):
        put(f"{i}.png", 10 * i)
    source = load(parse(str(table(tmp_path, "path,label\n0.png,0\n1.png,1\n2.png,-1\n3.png,\n4.png,-1.0\n"))))
    assert source.classes == ("0", "1") and source.labels.tolist() == [0, 1, -1, -1, -1]
    assert any("2 pictures" in note and "-1: they are unlabeled" in note for note in source.notes)
    text = "path,label,split\n0.png,None,labeled\n1.png,NA,labeled\n2.png,?,unlabeled\n3.png,None,test\n"
    source = load(parse(str(table(tmp_path, text))))  # classes that are called so
    assert source.classes == ("NA", "None") and source.labels.tolist() == [1, 0, -1]
    assert source.test_labels.tolist() == [1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_other_programs(put: Put, tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    """A byte order mark, other separators and ends of lines, capital letters, empty rows and cells, backslashes."""
    for i in range(3):
        put(f"img/{i}.png", 10 * i)
    put("sub\\2.png", 99)  # where a name has backslashes, they are a part of it
    rows = [["Path", "LABEL", "Split", ""], [""] * 4, ["img\\0.png", "Zürich", "Train", ""], ["img/1.png", '"a, b; c"']]
    rows[3] += ["", ""]
    rows += [[r".\img\2.png", "", "", ""], ["sub\\2.png", "Zürich", "TEST", ""], [""] * 4, [""] * 2]
    text = end.join(separator.join(row) for row in rows) + end
    path = tmp_path / "PHOTOS.CSV"
    path.write_bytes((b"\xfe\xff" if encoding.endswith("be") else b"") + text.encode(encoding))
    source = load(parse(str(path)))
    assert source.classes == ("Zürich", "a, b; c") and source.labels.tolist() == [0, 1, -1]
    assert corner(source.images) == [0, 10, 20] and corner(source.test_images) == [99]


def test_tables_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "photos.csv"
    path.write_bytes("path,label\nx.png,a\ny.png,Zürich\n".encode("latin-1"))
    with pytest.raises(ValueError, match="line 3 is not UTF-8 text; save the file as UTF-8"):
        load(parse(str(path)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="cannot be read: it is no regular file"):
        load(parse(str(path)))


def test_classes_that_look_like_one_are_said(put: Put, tmp_path: Path) -> None:
    for i in range(4):
        put(f"{i}.png", i)
    names = ("Cat", "cat", "Zu\u0308rich", "Z\xfcrich")
    source = load(parse(str(table(tmp_path, "path,label\n" + "".join(f"{i}.png,{n}\n" for i, n in enumerate(names))))))
    assert len(source.classes) == 4
    [note] = [note for note in source.notes if "look like one" in note]
    assert note.endswith(r"'Zu\u0308rich' and 'Z\xfcrich', 'Cat' and 'cat'")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("1", "1.0", "2", "02"), ["'1' and '1.0'", "'2' and '02'"]),
        (("7", "+7", "70e-1", "\u0667"), ["'7' and '+7'", "'7' and '70e-1'", r"'7' and '\u0667'"]),
        (("10", "100", "1e1", "1.01"), ["'10' and '1e1'"]),
        (("cat", "cat\u200b", "\ufeffcat", "cats"), [r"'cat' and 'cat\u200b'", r"'cat' and '\ufeffcat'"]),
        (("True", "TRUE", "1", "True 1"), ["'True' and 'TRUE'"]),
        (("9007199254740992", "9007199254740993", "a1", "a01"), []),
    ],
)
def test_names_that_look_like_one(names: tuple[str, ...], pairs: list[str]) -> None:
    look = [pair.encode("unicode_escape").decode().replace("\\\\", "\\") for pair in alike(names)]
    assert look == pairs


def test_a_picture_in_two_rows_under_two_paths(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("0.png", 10)
    put("1.png", 20)
    table(tmp_path, f"path,label\n0.png,a\n1.png,b\n{tmp_path}/0.png,b\n")
    monkeypatch.chdir(tmp_path)  # so that the table's own folder has a relative path
    with pytest.raises(ValueError, match=r"more than once: .* \(lines 2 and 4, with the labels 'a' and 'b'\)"):
        load(parse("./photos.csv"))


@pytest.mark.parametrize("column", ["set", "is_test", "Usage"])
def test_a_column_that_may_be_the_split_is_named(put: Put, tmp_path: Path, column: str) -> None:
    put("0.png", 10)
    put("1.png", 20)
    source = load(parse(str(table(tmp_path, f"path,label,{column}\n0.png,a,test\n1.png,b,train\n"))))
    assert any(note.startswith(f"the column {column.lower()} of ") for note in source.notes)
    source = load(parse(str(table(tmp_path, f"path,label,{column},split\n0.png,a,x,\n1.png,b,y,train\n"))))
    assert not any(note.startswith("the column") for note in source.notes)


def test_class_folders_that_are_parts(put: Put, tmp_path: Path) -> None:
    for i, name in enumerate(("train/a", "train/b", "Test/a", "Test/b")):
        put(f"photos/train/{name}/{i}.png", 10 * i)
    sentence = (
        f"are called Test, train, as the parts of a data set are; .* give {re.escape(str(tmp_path))}/photos/train/ as"
    )
    with pytest.raises(ValueError, match=sentence):
        load(parse(f"{tmp_path}/photos/"))
    assert sentence and check_folder(tmp_path / "photos")["problems"]
    source = load(parse(f"{tmp_path}/photos/train/"))
    assert source.classes == ("a", "b") and len(source.test_labels) == 2
    put("photos/train/cat/1.png", 90)  # one among others may be a class
    source = load(parse(f"{tmp_path}/photos/"))
    assert source.classes == ("Test", "cat", "train")
    assert any(note.startswith("Test, train of ") and "counts as a class" in note for note in source.notes)


def test_sub_folders_of_a_class_are_said(put: Put, tmp_path: Path) -> None:
    for i, name in enumerate(("animal/cat", "animal/dog", "car/images", "car/images/more")):
        put(f"photos/train/{name}/{i}.png", 10 * i)
    source = load(parse(f"{tmp_path}/photos/"))
    assert source.labels.tolist() == [0, 0, 1, 1]
    [note] = [note for note in source.notes if "sub-folders" in note]
    assert note.endswith("/train are no classes of their own: animal (cat, dog)")


@pytest.mark.parametrize(
    ("train", "test", "pair"),
    [
        ("01", "1", "'01' and '1'"),
        ("Cat", "cat", "'Cat' and 'cat'"),
        ("Z\xfcrich", "Zu\u0308rich", r"'Z\\xfcrich' and"),
    ],
)
def test_classes_of_the_test_part_that_are_written_otherwise(
    put: Put, tmp_path: Path, train: str, test: str, pair: str
) -> None:
    put(f"photos/train/{train}/1.png", 10)
    put("photos/train/x/1.png", 20)
    put(f"photos/test/{test}/1.png", 30)
    with pytest.raises(ValueError, match=f"has not: {test}; these look like one and are told apart: {pair}"):
        load(parse(f"{tmp_path}/photos/"))
    assert any(pair.replace("\\\\", "\\") in problem for problem in check_folder(tmp_path / "photos")["problems"])


@pytest.mark.slow
@pytest.mark.parametrize("side", [16, 200], ids=["small", "above 64 KiB"])
@pytest.mark.parametrize("form", ["folder", "table"])
def test_a_picture_of_the_same_size_is_another(tmp_path: Path, side: int, form: str) -> None:
    """The files of other pictures may have the same number of bytes: BMP always, PNG and JPEG by chance."""
    names = ["train/a/0.bmp", "train/b/0.bmp", "unlabeled/0.bmp", "test/a/0.bmp", "test/b/0.bmp"]
    lines = ["path,label,split"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)).save(tmp_path / name)
        part, *label, _ = name.split("/")
        lines.append(f"{name},{''.join(label)},{part}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    data = parse(str(tmp_path / "all.csv") if form == "table" else f"{tmp_path}/")
    split = make_split(load(data), labels=2, seed=1)
    assert split.difference(load(data)) is None and split.difference(load(data, stream=True)) is None
    assert split.difference(load(data, image_size=8)) is None  # how they are read is not what they are
    for name in names:
        before = (tmp_path / name).read_bytes()
        x = np.asarray(Image.open(tmp_path / name)).copy()
        x[side // 3 : -side // 3] = 255 - x[side // 3 : -side // 3]
        Image.fromarray(x).save(tmp_path / name)
        assert len(before) == (tmp_path / name).stat().st_size
        part = "test" if name.startswith("test") else "training"
        sentence = f"the {part} pictures are others now (by name, content, class or order)"
        assert split.difference(load(data)) == sentence == split.difference(load(data, stream=True))
        (tmp_path / name).write_bytes(before)
    assert split.difference(load(data)) is None


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"the table 'gone.csv' cannot be read: No such file"):
        load(parse("gone.csv"))


# ---- the hub


class FakeTable(list):  # type: ignore[type-arg]
    """As much of `datasets.Dataset` as is used; its pictures come encoded only after `cast_column`."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any], cast: bool = False) -> None:
        super().__init__(rows if cast else [])
        self.rows, self.features = rows, features

    def cast_column(self, column: str, kind: Any) -> FakeTable:
        assert column == "img" and kind.decode is False
        return FakeTable(self.rows, self.features, cast=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    class Image_:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    Image_.__name__ = "Image"
    features = {"img": Image_(), "fine": types.SimpleNamespace(names=["cat", "dog"]), "label": types.SimpleNamespace()}

    def encoded(value: int) -> dict[str, Any]:
        buffer = io.BytesIO()
        Image.new("L", (8, 8), value).save(buffer, "png")
        if value % 2:
            return {"bytes": buffer.getvalue(), "path": None}
        (tmp_path / f"{value}.png").write_bytes(buffer.getvalue())
        return {"bytes": None, "path": str(tmp_path / f"{value}.png")}

    def load_dataset(name: str, config: str | None) -> dict[str, FakeTable]:
        if name != "someone/pets":
            raise RuntimeError("Dataset not\n found")
        parts = {"train": [(1, 1), (2, 0), (3, -1)], "unlabeled": [(4, 0)], "test": [(5, 1)]}
        if config == "blind":
            parts["test"] = [(5, None)]  # type: ignore[list-item]
        return {
            part: FakeTable([{"img": encoded(v), "fine": y, "label": 0} for v, y in rows], features)
            for part, rows in parts.items()
        }

    module = types.ModuleType("datasets")
    module.load_dataset, module.Image = load_dataset, Image_  # type: ignore[attr-defined]
    module.config = types.SimpleNamespace(HF_CACHE_HOME=str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_a_data_set_of_the_hub(hub: types.ModuleType) -> None:
    source = load(parse("hf:someone/pets"))
    assert source.name == "pets" and source.classes == ("cat", "dog")
    assert corner(source.images) == [1, 2, 3, 4] and source.labels.tolist() == [1, 0, -1, -1]
    assert corner(source.test_images) == [5] and source.test_labels.tolist() == [1]
    blind = load(parse("hf:someone/pets:blind"))
    assert len(blind.test_images) == 0 and "has no labels" in blind.notes[0]
    with pytest.raises(DataUnavailable, match="hf:nobody/x cannot be loaded: Dataset not found"):
        load(parse("hf:nobody/x"))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"fine": 2},
            "picture 1 of the split 'train' of hf:someone/pets has the label '2'; allowed are 0 to 1, and -1",
        ),
        ({"fine": -2}, "has the label '-2'; allowed are 0 to 1"),
        ({"fine": [0, 1]}, r"has the label '\[0, 1\]'"),
        ({"fine": "cat"}, "has the label 'cat'; allowed are 0 to 1"),
        ({"img": None}, "picture 1 of the split 'train' of hf:someone/pets is missing: its cell is empty"),
        ({"img": {"bytes": None, "path": None}}, "is missing: its cell is empty"),
        ({"img": {"bytes": None, "path": "/etc/passwd"}}, "is said to be '/etc/passwd', which is not in"),
        ({"img": {"bytes": None, "path": "TMP/../x.png"}}, r"is said to be '.*/\.\./x.png', which is not in"),
        ({"img": {"bytes": None, "path": "TMP/gone.png"}}, "and there is no such file"),
    ],
)
def test_cells_of_the_hub_that_are_none(
    hub: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, row: dict[str, Any], sentence: str
) -> None:
    usual = hub.load_dataset

    def load_dataset(*args: Any) -> Any:
        parts = usual(*args)
        parts["train"].rows[1] |= json.loads(json.dumps(row).replace("TMP", str(tmp_path)))
        return parts

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=sentence):
        load(parse("hf:someone/pets"))


def test_labels_of_the_hub_without_class_names(hub: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = hub.load_dataset

    def load_dataset(*args: Any) -> Any:
        parts = usual(*args)
        values: list[Any] = [10, "9", "-1", 9, 10]
        table = parts["train"]
        table.rows[:] = [
            {"img": table.rows[i % 2]["img"], "label": v} for i, v in enumerate([*values, float("nan"), ""])
        ]
        for part in parts.values():
            part.features = {k: v for k, v in part.features.items() if k != "fine"}
        parts["test"].rows[0]["label"] = 9
        return parts

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    source = load(parse("hf:someone/pets"))
    assert source.classes == ("9", "10") and source.labels.tolist() == [1, 0, -1, 0, 1, -1, -1, -1]
    assert source.test_labels.tolist() == [0]


def test_the_hub_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataUnavailable, match=r"needs the package 'datasets': install fewlabels\[hub\]"):
        load(parse("hf:someone/pets"))


# ---- whatever lies in a folder


def some_bytes(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


WHOLE = {
    kind: some_bytes(Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)), kind)
    for kind in ("png", "jpeg", "webp", "bmp", "tiff", "gif", "ppm")
}

contents = st.one_of(
    st.binary(max_size=80),
    st.tuples(st.sampled_from(sorted(WHOLE)), st.floats(0, 1)).map(
        lambda x: WHOLE[x[0]][: int(x[1] * len(WHOLE[x[0]]))]
    ),
    st.tuples(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.binary(min_size=1, max_size=8)).map(
        lambda x: (w := WHOLE[x[0]])[: x[1] % len(w)] + x[2] + w[x[1] % len(w) + len(x[2]) :]
    ),
)
names = st.tuples(
    st.sampled_from(["a", "b c", "ü", "-", "x.y"]), st.sampled_from([*WHOLE, "jpg", "txt", "", "JPG", "dat", "tif"])
).map(".".join)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL.*")  # of damaged TIFF tags
@settings(deadline=None, max_examples=40)
@given(st.dictionaries(names, contents, max_size=5))
def test_no_file_is_lost_and_none_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """Every file is read, listed as unreadable, or listed as no picture."""
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("one", "two"):
        (root / "labeled" / name).mkdir(parents=True)
        (root / "labeled" / name / "good.png").write_bytes(WHOLE["png"])
    for file, data in files.items():
        (root / "labeled" / "one" / file).write_bytes(data)
    source = read_folder(root, skip_corrupt=True, image_size=8)
    corrupt = [note for note in source.notes if "cannot be read and were left out" in note]
    foreign = [note for note in source.notes if "are no pictures and were left out" in note]
    counts = [int(note.split()[0]) for note in (*corrupt, *foreign)]
    assert len(source.images) + sum(counts) == len(files) + 2
    listed = " ".join((*corrupt, *foreign))
    assert sum(f"labeled/one/{file}" in listed for file in files) >= sum(counts)
    if corrupt:
        with pytest.raises(ValueError, match=f"^{corrupt[0].split()[0]} of .* pictures cannot be read: labeled/one/"):
            read_folder(root, image_size=8)
