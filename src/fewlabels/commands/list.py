"""fewlabels list: what there is to choose from."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro

from fewlabels import nets
from fewlabels.algorithms import ALGORITHMS
from fewlabels.commands import data_look
from fewlabels.commands.options import parse
from fewlabels.config.plain import difference
from fewlabels.config.published import RECIPES
from fewlabels.config.recipes import recipe
from fewlabels.config.settings import Train, algorithm_name
from fewlabels.config.usual import DATASETS, SMALL
from fewlabels.nets import learned

VIEWS: Mapping[str, Mapping[str, str]] = {
    "weak": {
        "ms": "mirror with probability 1/2, then shift by up to --shift pixels, with reflected borders",
        "m": "mirror",
        "s": "shift",
        "ms:zero": "ms, with black where the image was shifted away from",
        "s:zero": "s, likewise",
        "x": "the image as it is",
        "affine": "small smooth moves, for tiny images",
    },
    "strong": {
        "rand:kekmodel": "RandAugment of kekmodel/FixMatch-pytorch, cutout",
        "rand:leedoyup": "RandAugment of LeeDoYup/FixMatch-pytorch, its cutout of random size",
        "rand:google": "RandAugment of google-research/fixmatch, grey behind what moves, cutout",
        "rand:imagenet": "RandAugment of google-research/fixmatch, imagenet",
        "cta": "CTAugment, which learns how strong to be, cutout",
        "cta:imagenet": "CTAugment of google-research/fixmatch, imagenet",
        "autoaugment": "AutoAugment's policies for CIFAR and SVHN, cutout",
        "cutout": "a grey square",
        "affine": "larger smooth moves, brightness, noise, for tiny images",
        "none": "a second weak view",
    },
}
"""The values of --weak and --strong."""


@dataclass(frozen=True, kw_only=True)
class List:
    """List algorithms, recipes, nets, views or data sets."""

    topic: Annotated[
        Literal["algorithms", "recipes", "nets", "views", "data"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="algorithms|recipes|nets|views|data"),
    ] = "algorithms"
    """What to list."""
    word: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORD")] = ""
    """Only what has this word in its name."""
    json: bool = False
    """Print JSON."""


class Paper(NamedTuple):
    """What the docstring of an algorithm's configuration says first."""

    title: str
    authors: str
    year: int
    link: str
    sentence: str


_FIRST_LINE = re.compile(r"(?P<title>[^(]+) \((?P<authors>.+) (?P<year>\d{4})\), (?P<link>https://\S+)\.")


def paper(cls: type) -> Paper:
    """Paper and first sentence of a docstring ``NAME (Authors YEAR), https://LINK.`` and a paragraph."""
    first, _, rest = (cls.__doc__ or "").partition("\n\n")
    match = _FIRST_LINE.fullmatch(first.strip())
    assert match, f"the docstring of {cls.__name__} does not begin with NAME (Authors YEAR), LINK."
    sentence = " ".join(rest.split("\n\n")[0].split())
    sentence = re.match(r".*?\.(?= [A-Z]|$)|.*", sentence)[0]  # type: ignore[index]  # matches anything
    return Paper(match["title"], match["authors"], int(match["year"]), match["link"], sentence)


def options(config: Train, data: bool = True) -> str:
    """What `config` says otherwise than the defaults, as options of the command line."""
    words = []
    for name, value in difference(config, Train(algorithm=type(config.algorithm)())).items():
        if name == "data.name" and not data:
            continue
        if name == "net.pretrained" and value == learned.pretrained(config.net.name):
            value = True  # the file of a package, where it lies on this machine
        group, _, last = name.removeprefix("algorithm.").removesuffix(".name").rpartition(".")
        flag = f"{group}." if group else ""
        if isinstance(value, bool):
            words.append(f"--{flag}{'' if value else 'no-'}{last}".replace("_", "-"))
        else:
            items = value if isinstance(value, list) else [value]
            words.append(" ".join([f"--{flag}{last}".replace("_", "-"), *map(str, items)]))
    return " ".join(words)


def main(args: list[str]) -> int:
    command = parse(List, args, prog="fewlabels list")
    if command.topic == "data":
        return data_look.run_list(data_look.List(json=command.json))
    rows_of, note = TOPICS[command.topic]
    rows = [row for row in rows_of() if command.word.lower() in str(row["name"]).lower()]
    if command.json:
        print(json.dumps([{k: v for k, v in row.items() if k != "lines"} for row in rows]))
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    # words stay whole on a terminal; elsewhere a line stays one line, for grep
    room = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 0
    for i, row in enumerate(rows):
        if room and i and max(map(len, row["lines"])) > room - width - 2:
            print()
        first, *more = (part for line in row.pop("lines") for part in _wrap(line, room - width - 2))
        print(f"{row['name']:{width}}  {first}".rstrip())
        for line in more:
            print(f"{'':{width}}  {line}")
    print("\n".join(_wrap(note if rows else f"nothing has {command.word!r} in its name", room)))
    return 0


def _wrap(line: str, room: int) -> list[str]:
    if room < 20:
        return [line]
    line = re.sub(r"(?<!\S)(--\S+) (?!--)", "\\1\0", line)  # an option and its value stay together
    parts = textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [line]
    return [part.replace("\0", " ") for part in parts]


def _algorithms() -> list[dict[str, Any]]:
    rows = []
    for name, cls in ALGORITHMS.items():
        about = paper(cls)
        own = options(recipe(name, "cifar10"), data=False)
        source = f"{about.title} ({about.authors} {about.year}), {about.link}"
        lines = [source, about.sentence, f"recipe: {own or 'the defaults'}"]
        rows.append({"name": name, **about._asdict(), "recipe": own, "lines": lines})
    return rows


def _recipes() -> list[dict[str, Any]]:
    """The recipes that are chosen by themselves, and those that have a name."""
    usual = {f"{algorithm} (CIFAR-10)": recipe(algorithm, "cifar10") for algorithm in ALGORITHMS}
    usual |= {f"fixmatch ({base})": recipe("fixmatch", base) for base in DATASETS}
    usual |= {f"fixmatch ({kind})": recipe("fixmatch", FOLDER.get(kind, kind)) for kind in SMALL}
    usual["fixmatch (cifar10_LT_50)"] = recipe("fixmatch", "cifar10_LT_50")
    named = {name: recipe(name) for name in RECIPES}
    rows = []
    for name, train in {**usual, **named}.items():
        algorithm, source = algorithm_name(train.algorithm), RECIPES[name].source if name in RECIPES else ""
        text = options(train, data=name in RECIPES)
        lines = [source, f"{algorithm} {text}"] if source else [text or "the defaults"]
        rows.append(
            {
                "name": name,
                "algorithm": algorithm,
                "settings": difference(train, Train(algorithm=type(train.algorithm)())),
                "source": source,
                "lines": lines,
            }
        )
    return rows


FOLDER = {"a folder": "photos/"}


def _nets() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with torch.device("meta"):  # counted, not made
        for name in nets.EXAMPLES:
            count = sum(p.numel() for p in nets.build(name, classes=10, shape=(3, 32, 32)).parameters())
            rows.append({"name": name, "parameters": count, "lines": [f"{count:>10,} parameters"]})
    for name, text in (("timm:NAME", "a net of timm"), ("torchvision:NAME", "a net of torchvision.models")):
        rows.append({"name": name, "parameters": None, "lines": [f"{text}; --net.pretrained for its weights"]})
    return rows


def _views() -> list[dict[str, Any]]:
    return [
        {"name": f"--{option} {name}", "lines": [text]}
        for option, names in VIEWS.items()
        for name, text in names.items()
    ]


TOPICS: Mapping[str, tuple[Callable[[], list[dict[str, Any]]], str]] = {
    "algorithms": (
        _algorithms,
        "fewlabels train NAME; the recipe is for CIFAR-10 and the like, `fewlabels list recipes` has the others",
    ),
    "recipes": (
        _recipes,
        "what each says otherwise than the defaults of the settings, which are FixMatch's for CIFAR-10; those with "
        "parentheses are chosen by themselves, the others with --recipe NAME",
    ),
    "nets": (_nets, "for 10 classes at 32 x 32 pixels; any other depth and width of the same form will do"),
    "views": (_views, "`auto` is what suits the data set"),
}
"""What makes the rows of a topic, and the closing line."""
