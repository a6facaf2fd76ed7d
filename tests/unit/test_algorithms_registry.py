from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch

from fewlabels.algorithms import ALGORITHMS, Algorithm, AnyAlgorithm
from fewlabels.checked import Checked
from fewlabels.types import Info


def test_names() -> None:
    assert list(ALGORITHMS) == ["supervised", "fixmatch", "mixmatch", "remixmatch"]
    assert tuple(ALGORITHMS.values()) == get_args(AnyAlgorithm)


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_a_configuration_is_a_frozen_value_with_defaults_that_builds(cls: type) -> None:
    assert issubclass(cls, Checked)
    assert cls() == cls() and hash(cls()) == hash(cls())
    assert dataclasses.replace(cls()) == cls()
    assert "arxiv.org/abs/" in (cls.__doc__ or "")
    info = Info(3, (3, 8, 8), 16, torch.tensor([1, 1, 1]), 100, 10, 8, 8)
    assert isinstance(cls().build(info), Algorithm)
