"""The settings of a training, in a line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.recipes import recipe
from fewlabels.config.resolve import complete, resolve, resolve_data
from fewlabels.config.settings import Data, Train, algorithm_name, difference
from fewlabels.data import names
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.source import Source

SEEDS = ("seed", "data.seed")


def settings(config: Train, source: Source, named: str | None = None) -> str:
    """The seeds, the recipe, and which of the settings are not the recipe's.

    config: resolved. named: the recipe of a project, where one was asked for.
    """
    algorithm, base = algorithm_name(config.algorithm), Train(data=complete(Data(config.data.name)))
    said = "the defaults"
    if algorithm in ALGORITHMS and config.data.name != ARRAYS:
        name = names.parse(config.data.name)
        base = recipe(named or algorithm, config.data.name)
        base = replace(base, data=resolve_data(replace(base.data, split=config.data.split)))
        kind = "a folder" if name.folder else name.base
        said = f"the recipe {named}" if named else f"the recipe of {algorithm} for {kind}"
    changes: dict[str, Any] = difference(config, resolve(base, source))
    other = ", ".join(f"{k}={v}" for k, v in changes.items() if k not in (*SEEDS, "algorithm.name"))
    seeds = f"seed {config.seed}, split seed {config.data.seed}"
    return f"settings: {seeds}; {said}" + (f", but {other}" if other else "")
