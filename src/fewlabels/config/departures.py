"""How settings differ from the recipe that they began with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.plain import difference
from fewlabels.config.recipes import recipe
from fewlabels.config.resolve import complete, resolve, resolve_data
from fewlabels.config.settings import Data, Train, algorithm_name
from fewlabels.data import names
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.source import Source

SEEDS = ("seed", "data.seed")


def departures(
    config: Train, source: Source, named: str | None = None, usual: Train | None = None
) -> tuple[str, dict[str, Any]]:
    """What the settings are compared with, in words, and those that differ, by dotted name, seeds aside.

    config: resolved. named: the recipe of a project, where one was asked for. usual: what stands in place of a recipe
    for images in memory.
    """
    algorithm, base = algorithm_name(config.algorithm), Train(data=complete(Data(config.data.name)))
    said = "the defaults"
    if usual is not None and config.data.name == ARRAYS:
        said, base = f"the usual ones of {algorithm} for images in memory", replace(usual, data=base.data)
    if algorithm in ALGORITHMS and config.data.name != ARRAYS:
        name = names.parse(config.data.name)
        base = recipe(named or algorithm, config.data.name)
        base = replace(base, data=resolve_data(replace(base.data, split=config.data.split)))
        kind = "a folder" if name.folder else name.base
        said = f"the recipe {named}" if named else f"the recipe of {algorithm} for {kind}"
    changes = difference(config, resolve(base, source))
    return said, {k: v for k, v in changes.items() if k not in (*SEEDS, "algorithm.name")}
