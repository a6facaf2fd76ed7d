from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from fewlabels import algorithms
from fewlabels.algorithms import ALGORITHMS, Algorithm, AnyAlgorithm
from fewlabels.runtime.checked import Checked
from fewlabels.types import Info


def test_names() -> None:
    """No algorithm gets lost, and what the command line offers is the union, in its order."""
    baselines = "supervised supervised-mixup pseudo-label pi-model mean-teacher vat ict mixup"
    assert {*baselines.split(), "mixmatch", "remixmatch", "uda", "fixmatch"} <= set(ALGORITHMS)
    assert tuple(ALGORITHMS.values()) == get_args(AnyAlgorithm)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ALGORITHMS)


def test_each_algorithm_has_a_file_of_its_name() -> None:
    files = {path.stem for path in Path(algorithms.__file__).parent.glob("*.py")} - {
        "__init__",
        "base",
        "composed",
        "imbalance",
        "missing",
        "openset",
        "mixing",
        "consistency",
        "slots",
        "memory",
        "alignment",
        "projection",
        "functional",
        "graph",
        "linear",
    }
    files -= {"balanced", "cossl", "darp", "daso", "debiased", "saw", "tras", "adsh", "crest"}  # parts of imbalance
    assert files == {name.replace("-", "_") for name in ALGORITHMS}
    for name, cls in ALGORITHMS.items():
        assert cls.__module__ == f"fewlabels.algorithms.{name.replace('-', '_')}"
        assert getattr(algorithms, cls.__name__) is cls and cls.__name__ in algorithms.__all__


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_a_configuration_is_a_frozen_value_with_defaults_that_builds(cls: Any) -> None:
    assert issubclass(cls, Checked)
    assert cls() == cls() and hash(cls()) == hash(cls())
    assert dataclasses.replace(cls()) == cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().name = "other"
    with pytest.raises(TypeError):
        cls(1.0)  # by name only
    info = Info(3, (3, 8, 8), 16, torch.tensor([1, 1, 1]), 100, 10, 8, 8)
    assert isinstance(cls().build(info), Algorithm)
