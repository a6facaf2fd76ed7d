"""Pieces of sentences."""

from __future__ import annotations

import pytest

from fewlabels.runtime.words import (
    about,
    amount,
    by_reason,
    close,
    did_you_mean,
    duration,
    first,
    nearest,
    seconds_of,
    unknown,
)


def test_the_nearest_known_words() -> None:
    known = ["train", "predict", "evaluate", "report"]
    assert nearest("trian", known) == "; did you mean train?"
    assert nearest("TRAIN", known) == "; did you mean train?"
    assert nearest("zzz", known) == nearest("", known) == nearest("train", []) == ""
    assert (
        nearest("cifar", ["svhn", "cifar10", "cifar100"], most=3, cutoff=0.5) == "; did you mean cifar10 or cifar100?"
    )


def test_known_words_keep_their_spelling() -> None:
    assert close("imagenet1k_v3", ["IMAGENET1K_V1", "DEFAULT"]) == ["IMAGENET1K_V1"]
    assert nearest("tabby cat", ["Tabby Cat", "Dog"]) == "; did you mean Tabby Cat?"


def test_less_alike_than_the_cutoff_is_not_close() -> None:
    # difflib: 2 * 3 letters in common of 4 + 4
    assert close("abcx", ["abcy"], cutoff=0.75) == ["abcy"] and close("abcx", ["abcy"], cutoff=0.76) == []


def test_names_that_may_have_been_meant() -> None:
    assert did_you_mean([]) == ""
    assert did_you_mean(repr(name) for name in ["small"]) == "; did you mean 'small'?"
    assert did_you_mean(["a", "b", "c"]) == "; did you mean a or b or c?"


def test_the_first_of_many() -> None:
    assert first([1, 2]) == "1, 2" and first([]) == ""
    assert first(list("abcd"), 2) == "a, b and 2 more"
    broken = {"a.png": "cut off", "b.png": "empty", "c.png": "cut off", "d.png": "empty"}
    assert by_reason(broken) == "a.png, c.png (cut off), b.png, d.png (empty)"
    assert by_reason(broken, 3) == "a.png, c.png (cut off), b.png (empty) and 1 more"


def test_a_name_stays_in_its_line() -> None:
    """Whatever a folder or file is called, a sentence is one line."""
    odd = "a\nfewlabels: all is well\u202e"
    told = r"a\nfewlabels: all is well\u202e"
    assert first([odd, 1]) == f"{told}, 1" and by_reason({odd: "empty"}) == f"{told} (empty)"
    assert did_you_mean([odd]) == f"; did you mean {told}?" and unknown("b", [odd]) == f"'b' (known: {told})"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "2 KiB"),
        (5 * 2**20, "5 MiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (89.9, "90 s"),
        (90, "2 min"),
        (659, "11 min"),
        (3569, "59 min"),
        (3571, "1 h"),
        (7800, "2 h 10 min"),
        (7950, "2 h 10 min"),
        (86400 * 2, "2 days"),
        (86400 * 9.6, "10 days"),
    ],
)
def test_lengths_of_time_that_are_estimated(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_lengths_of_time_that_are_given() -> None:
    given = {
        "90s": 90,
        "10m": 600,
        "1h30m": 5400,
        "2h": 7200,
        "1h2m3s": 3723,
        " 5M ": 300,
        "90m": 5400,
        "1000h": 3600000,
    }
    assert {text: seconds_of(text) for text in given} == given


@pytest.mark.parametrize(
    "text", ["", "10", "10 m", "m", "1.5h", "-5m", "10m1h", "5m5m", "1d", "1e3s", "\u0665m", "10min"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a length of time such as 90s, 10m, 1h30m or 2h, got '"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["0s", "0h0m", "1001h", "1000h1s"])
def test_lengths_of_time_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match=f"^must be more than 0s and at most 1000h, got '{text}'$"):
        seconds_of(text)


def test_a_word_that_is_no_known_one() -> None:
    assert unknown("trian", ["train", "list"]) == "'trian'; did you mean train? (known: train, list)"
    assert unknown("xyz", ["train", "list"]) == "'xyz' (known: train, list)"
    assert unknown("bench", iter(["train"]), "it is elsewhere") == "'bench'; it is elsewhere (known: train)"
    assert unknown("x", []) == "'x'"
