"""Settings for an algorithm on a data set, between the dataclasses' defaults and the command line.

A recipe is a table of settings by dotted name. `recipe("vat", "svhn@250")` puts together those of the algorithm and
of the data set (`fewlabels.config.usual`); `recipe("google-vat-svhn")` takes what a project trained with, under its
name in `RECIPES` (`fewlabels.config.published`).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.plain import from_dict
from fewlabels.config.published import RECIPES
from fewlabels.config.settings import Train
from fewlabels.config.usual import DATASETS, Settings, settings
from fewlabels.data.names import parse
from fewlabels.nets import Learning
from fewlabels.runtime.words import nearest


def recipe(
    algorithm: str = "fixmatch",
    data: str | None = None,
    *,
    net: str | None = None,
    pretrained: bool | str = False,
    train: Learning = "all",
) -> Train:
    """The default `Train` of an algorithm on a data set, or that of a project.

    Args:
        algorithm: an algorithm's command-line name, or a name of `RECIPES`.
        data: a data name or a folder; default: the project's, or 40 labels of the digits.
        net: the network's name, in place of the recipe's own.
        pretrained: as `Net.pretrained`; a short training takes a smaller rate then.
        train: as `Net.train`; a short training takes another optimizer for `lora`.

    Raises ValueError for unknown names.
    """
    given = {"net.name": net, "net.pretrained": pretrained, "net.train": train if train != "all" else None}
    given = {name: value for name, value in given.items() if value}
    if algorithm in RECIPES:
        named = RECIPES[algorithm]
        own = settings(named.algorithm, parse(named.data))
        return _train(named.algorithm, data or named.data, {**own, **named.changes, **given})
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        near = nearest(algorithm, [*ALGORITHMS, *RECIPES])
        raise ValueError(f"there is no algorithm {algorithm!r}{near} (known: {known})")
    data = data or "digits@40"
    return _train(algorithm, data, {**settings(algorithm, parse(data), net, pretrained, train), **given})


def _train(algorithm: str, data: str, values: Settings) -> Train:
    """A `Train` with settings by dotted name."""
    return changed(from_dict({"algorithm": {"name": algorithm}, "data": {"name": data}}), values)


def changed(train: Train, values: Settings) -> Train:
    """`train` with other settings by dotted name."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parts, last = name.split(".")
        reduce(lambda inside, part: inside.setdefault(part, {}), parts, nested)[last] = value
    return from_dict(nested, train)


PUBLISHED = {"cifar100": "CIFAR-100", "stl10": "STL-10", "mini_imagenet": "mini-ImageNet"}


def hint(train: Train) -> str | None:
    """A sentence if the published numbers on the data set rest on another net than that of `train`."""
    base = parse(train.data.name).base
    usual = DATASETS.get(base, {})
    if not usual or train.net.name.removesuffix("-tf") == usual["net.name"]:
        return None
    decay = usual.get("optim.weight_decay")
    return f"published {PUBLISHED[base]} numbers use {usual['net.name']}" + (f", weight decay {decay}" if decay else "")
