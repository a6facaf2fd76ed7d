"""fewlabels list: what it names is what there is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from fewlabels import nets
from fewlabels.algorithms import ALGORITHMS
from fewlabels.cli import COMMANDS, run
from fewlabels.commands.list import VIEWS, main, options, paper
from fewlabels.commands.train_options import read
from fewlabels.config.published import RECIPES
from fewlabels.config.recipes import recipe
from fewlabels.config.settings import Train

# From the papers' front pages, by hand.
PAPERS = {
    "supervised": ("Supervised", "Berthelot et al.", 2019, "1905.02249"),
    "supervised-mixup": ("Supervised MixUp", "Zhang et al.", 2018, "1710.09412"),
    "pseudo-label": ("Pseudo-Label", "Lee", 2013, "1804.09170"),
    "pi-model": ("Pi-Model", "Laine and Aila", 2017, "1610.02242"),
    "mean-teacher": ("Mean Teacher", "Tarvainen and Valpola", 2017, "1703.01780"),
    "vat": ("VAT", "Miyato et al.", 2018, "1704.03976"),
    "ict": ("ICT", "Verma et al.", 2019, "1903.03825"),
    "mixup": ("MixUp", "Zhang et al.", 2018, "1710.09412"),
    "mixmatch": ("MixMatch", "Berthelot et al.", 2019, "1905.02249"),
    "remixmatch": ("ReMixMatch", "Berthelot et al.", 2020, "1911.09785"),
    "uda": ("UDA", "Xie et al.", 2020, "1904.12848"),
    "fixmatch": ("FixMatch", "Sohn et al.", 2020, "2001.07685"),
    "frozen": ("Frozen features", "Zhang et al.", 2025, "2503.09707"),
}


@pytest.mark.slow
def test_algorithms(command: Callable[..., Any]) -> None:
    said = command("list")
    assert said.code == 0 and said.err == "" and said.out == command("list", "algorithms").out
    rows = json.loads(command("list", "algorithms", "--json").out)
    found = {
        r["name"]: (r["title"], r["authors"], r["year"], r["link"].removeprefix("https://arxiv.org/abs/")) for r in rows
    }
    assert {name: found[name] for name in PAPERS} == PAPERS and list(found) == list(ALGORITHMS)
    lines = said.out.splitlines()
    for row in rows:
        assert row["sentence"].endswith(".") and row["sentence"].count(". ") == 0
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{row['name']} "))
        title, sentence, own = (line.strip() for line in lines[at : at + 3])
        assert title.endswith(f"{row['title']} ({row['authors']} {row['year']}), {row['link']}")
        assert sentence == row["sentence"] and own == f"recipe: {row['recipe'] or 'the defaults'}"


def test_first_sentence_of_a_docstring() -> None:
    class Mine:
        """Mine (A and B 2031), https://example.org/1.

        The first sentence stands
        on two lines, e.g. here. The second does not count.

        Nor does this.
        """

    assert paper(Mine) == (
        "Mine",
        "A and B",
        2031,
        "https://example.org/1",
        "The first sentence stands on two lines, e.g. here.",
    )


@pytest.mark.slow
def test_recipes(command: Callable[..., Any]) -> None:
    rows = {r["name"]: r for r in json.loads(command("list", "recipes", "--json").out)}
    assert set(RECIPES) < set(rows)
    assert rows["google-vat-svhn"] == {
        "name": "google-vat-svhn",
        "algorithm": "vat",
        "source": "google-research/fixmatch, vat.py",
        "settings": {
            "algorithm.eps": 6.0,
            "data.name": "svhn.3@250-1",
            "data.normalize": "minus-one-one",
            "net.name": "wrn-28-2-tf",
            "optim.name": "adamw",
            "optim.lr": 0.002,
            "optim.weight_decay": 0.02,
            "optim.schedule": "constant",
            "ema.when": "before",
            "uratio": 1,
        },
    }
    assert rows["fixmatch (cifar100)"]["settings"]["net.name"] == "wrn-28-8"
    said = command("list", "recipes", "KEKMODEL")
    assert [line.split()[0] for line in said.out.splitlines()[:-1:2]] == [n for n in RECIPES if "kekmodel" in n]
    assert command("list", "recipes", "zzz").out == "nothing has 'zzz' in its name\n"


@pytest.mark.parametrize("name", ["google-supervised-mixup-26m-cifar10", "google-remixmatch-stl10"])
def test_the_settings_of_a_recipe_are_options(name: str) -> None:
    """What is printed, given as options, is the recipe again."""
    words = shlex.split(options(recipe(name)))
    assert read([RECIPES[name].algorithm, *words]).train == recipe(name)
    assert words[words.index("--data") + 1] == RECIPES[name].data
    assert "--data" not in options(recipe(name), data=False).split()


@pytest.mark.parametrize("algorithm", ["mixmatch", "mean-teacher", "vat"])
def test_settings_that_wait_for_the_images_are_options_too(algorithm: str) -> None:
    words = shlex.split(options(recipe(algorithm, "photos/")))
    assert read([algorithm, *words]).train == recipe(algorithm, "photos/")
    assert ("None" in words) == (algorithm != "vat")  # whose default it is


@pytest.mark.slow
def test_views_and_nets(command: Callable[..., Any]) -> None:
    hints = get_type_hints(Train)
    for option in ("weak", "strong"):
        assert {"auto", *VIEWS[option]} == set(get_args(hints[option]))
        for name in VIEWS[option]:
            assert f"--{option} {name} " in command("list", "views").out
    rows = {r["name"]: r["parameters"] for r in json.loads(command("list", "nets", "--json").out)}
    assert set(nets.EXAMPLES) < set(rows)
    # the originals' own counts
    assert (rows["wrn-28-2"], rows["wrn-28-2-tf"], rows["wrn-37-2-tf"]) == (1_467_610, 1_469_642, 5_933_770)
    assert "wrn-28-2          1,467,610 parameters" in re.sub(" {2,}", "          ", command("list", "nets").out)


def test_data_and_wrong_topics(command: Callable[..., Any]) -> None:
    assert command("list", "data").out == command("data", "list").out
    assert command("list", "data", "--json").out == command("data", "list", "--json").out
    said = command("list", "algorithm")
    assert said.code == 2
    assert said.sentence.endswith("must be one of 'algorithms', 'recipes', 'nets', 'views', 'data', got 'algorithm'")


@pytest.mark.slow
def test_words_stay_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["algorithms"])
    plain = capsys.readouterr().out
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["algorithms"])
    wrapped = capsys.readouterr().out
    assert wrapped.split() == plain.split()
    assert max(map(len, wrapped.splitlines())) < 80 < max(map(len, plain.splitlines()))


def test_the_help_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert all(f"fewlabels {name} " in said for name in COMMANDS)
