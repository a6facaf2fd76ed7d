"""The name grammar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.data.names import DataName, parse


@pytest.mark.parametrize(
    ("text", "base", "seed", "labels", "valid"),
    [
        ("cifar10", "cifar10", None, None, None),
        ("digits@40", "digits", None, 40, None),
        ("cifar10.3@250-1", "cifar10", 3, 250, 1),
        ("cifar10-5000", "cifar10", None, None, 5000),
        ("cifar100.0", "cifar100", 0, None, None),
        ("cifar10@4000-0", "cifar10", None, 4000, 0),
        (" cifar10.2-7 ", "cifar10", 2, None, 7),
    ],
)
def test_parts_of_a_name(text: str, base: str, seed: int | None, labels: int | None, valid: int | None) -> None:
    assert parse(text) == DataName(base, seed, labels, valid, folder=False)


@pytest.mark.parametrize("text", ["photos/", "./a.3@4/", "a/b", ".", "..", "~/photos", "/data/x@40", ".hidden"])
def test_folders_are_taken_whole(text: str) -> None:
    assert parse(text) == DataName(text, None, None, None, folder=True)


@pytest.mark.slow
@given(
    st.sampled_from(["digits", "cifar10", "cifar100"]),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(1, 10**9),
    st.none() | st.integers(0, 10**9),
)
def test_text_and_name_are_the_same_thing(base: str, seed: int | None, labels: int | None, valid: int | None) -> None:
    name = DataName(base, seed, labels, valid)
    assert parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cifar", "unknown data set 'cifar'; did you mean cifar10 or cifar100"),
        ("CIFAR10.3@40", "did you mean cifar10 or cifar100"),
        ("digit@40", "did you mean digits"),
        ("qqq", r"unknown data set 'qqq' \(known: cifar10, cifar100, digits, .*; a folder is written with"),
        ("cifar10_LT_60.1@50-1", "unknown data set 'cifar10_LT_60'; did you mean cifar10_LT_"),
        ("miniimagenet_lt_100", "did you mean miniImageNet_LT_100"),
        ("cifar10@0", "asks for 0 labels"),
        ("cifar10.4294967296", "allowed are 0 to 4294967295"),
        ("cifar10@x", "not of the form NAME.SEED@SIZE-VALID"),
        ("cifar10@40.3", "not of the form"),
        ("cifar10@-1", "not of the form"),
        ("cifar10.٣", "not of the form"),
        ("", "not of the form"),
    ],
)
def test_what_is_no_name_is_said(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse(text)


def test_a_folder_without_separator_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="for the folder of this name write photos/"):
        parse("photos")


@pytest.mark.slow
def test_a_name_is_checked_without_loading_torch() -> None:
    code = "import sys, fewlabels.data.names as n; n.parse('cifar10.3@40'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
