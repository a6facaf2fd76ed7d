from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewlabels.runtime.checked import Checked, Range


@dataclass(frozen=True)
class Inner(Checked):
    size: Annotated[int, Range(1, None)] = 1


@dataclass(frozen=True)
class Other(Checked):
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    flag: bool = False
    count: int = 0
    rate: float = 0.0
    name: str = ""
    kind: Literal["hard", "soft"] = "hard"
    level: Literal[1, 2] = 1
    tau: Annotated[float, Range(0, 1)] = 0.5
    steps: Annotated[int, Range(1, None)] = 1
    positive: Annotated[float, Range(0, low_open=True)] = 1.0
    share: Annotated[float, Range(0, 1, high_open=True)] = 0.0
    inside: Annotated[float, Range(-1, 1, True, True)] = 0.0
    above: Annotated[float, Range(0, 1, low_open=True)] = 1.0
    small: Annotated[int, Range(None, 9)] = 0
    less: Annotated[float, Range(high=0, high_open=True)] = -1.0
    maybe: Annotated[int | None, Range(4, 9)] = None
    perhaps: Annotated[float, Range(0, 1)] | None = None
    either: float | str = 0.0
    sizes: tuple[int, ...] = ()
    pair: tuple[float, str] = (0.0, "")
    ranged: tuple[Annotated[int, Range(0, 3)], ...] = ()
    folder: Path = Path()
    inner: Inner = field(default_factory=Inner)
    part: Inner | Other = field(default_factory=Inner)
    anything: Any = None


def test_the_defaults_are_allowed() -> None:
    assert Config() == Config()
    assert hash(Config()) == hash(Config())


ALLOWED: list[tuple[str, Any]] = [
    ("flag", True),
    ("count", -3),
    ("rate", 1.5),
    ("name", "x"),
    ("kind", "soft"),
    ("level", 2),
    ("tau", 0.0),
    ("tau", 1.0),
    ("steps", 1),
    ("steps", 10**30),
    ("positive", 5e-324),
    ("share", 0.0),
    ("inside", 0.999),
    ("above", 1.0),
    ("small", 9),
    ("small", -(10**9)),
    ("less", -1e-9),
    ("maybe", None),
    ("maybe", 4),
    ("perhaps", None),
    ("perhaps", 1.0),
    ("either", "x"),
    ("either", 2.5),
    ("sizes", ()),
    ("sizes", (1, 2, 3)),
    ("pair", (0.5, "x")),
    ("ranged", (0, 3)),
    ("folder", Path("x")),
    ("inner", Inner(3)),
    ("part", Other("x")),
    ("anything", object()),
]


@pytest.mark.parametrize(("name", "value"), ALLOWED)
def test_allowed_values_are_kept_as_they_are(name: str, value: Any) -> None:
    assert getattr(Config(**{name: value}), name) is value


CONVERTED: list[tuple[str, Any, Any]] = [
    ("rate", 1, 1.0),
    ("tau", 1, 1.0),
    ("rate", np.float32(0.5), 0.5),
    ("rate", np.float64(0.5), 0.5),
    ("rate", np.int64(2), 2.0),
    ("count", np.int64(2), 2),
    ("either", 1, 1.0),
    ("sizes", [1, 2], (1, 2)),
    ("pair", [1, "x"], (1.0, "x")),
    ("pair", (1, "x"), (1.0, "x")),
]


@pytest.mark.parametrize(("name", "value", "expected"), CONVERTED)
def test_conversions_that_lose_nothing(name: str, value: Any, expected: Any) -> None:
    got = getattr(Config(**{name: value}), name)
    assert got == expected
    assert type(got) is type(expected)
    if isinstance(got, tuple):
        assert [type(item) for item in got] == [type(item) for item in expected]


REFUSED: list[tuple[str, Any, str]] = [
    ("flag", 1, "True or False, got 1"),
    ("flag", "yes", "True or False, got 'yes'"),
    ("flag", None, "True or False, got None"),
    ("count", True, "a whole number, got True"),
    ("count", 1.0, "a whole number, got 1.0"),
    ("count", "1", "a whole number, got '1'"),
    ("rate", True, "a number, got True"),
    ("rate", "1", "a number, got '1'"),
    ("rate", math.nan, "a number, got nan"),
    ("rate", math.inf, "a number, got inf"),
    ("rate", 1j, "a number, got 1j"),
    ("name", 1, "a string, got 1"),
    ("name", None, "a string, got None"),
    ("kind", "hrad", "'hard' or 'soft', got 'hrad'"),
    ("level", True, "1 or 2, got True"),
    ("level", 1.0, "1 or 2, got 1.0"),
    ("tau", 1.5, "a number from 0 to 1, got 1.5"),
    ("tau", -1e-9, "a number from 0 to 1, got -1e-09"),
    ("tau", math.nan, "a number from 0 to 1, got nan"),
    ("steps", 0, "a whole number of at least 1, got 0"),
    ("positive", 0.0, "a number above 0, got 0.0"),
    ("positive", math.inf, "a number above 0, got inf"),
    ("share", 1.0, "a number from 0 to below 1, got 1.0"),
    ("inside", -1.0, "a number above -1 and below 1, got -1.0"),
    ("inside", 1, "a number above -1 and below 1, got 1"),
    ("above", 0, "a number above 0 and at most 1, got 0"),
    ("small", 10, "a whole number of at most 9, got 10"),
    ("less", 0.0, "a number below 0, got 0.0"),
    ("maybe", 3, "a whole number from 4 to 9 or None, got 3"),
    ("maybe", "x", "a whole number from 4 to 9 or None, got 'x'"),
    ("perhaps", 2.0, "a number from 0 to 1 or None, got 2.0"),
    ("either", None, "a number or a string, got None"),
    ("sizes", (1, "x"), "a tuple whose items are each a whole number, got (1, 'x')"),
    ("sizes", 1, "a tuple whose items are each a whole number, got 1"),
    ("sizes", "12", "a tuple whose items are each a whole number, got '12'"),
    ("pair", (1.0,), "a tuple of 2: a number, a string, got (1.0,)"),
    ("pair", ("x", 1.0), "a tuple of 2: a number, a string, got ('x', 1.0)"),
    ("ranged", (0, 4), "a tuple whose items are each a whole number from 0 to 3, got (0, 4)"),
    ("folder", "x", "a Path, got 'x'"),
    ("inner", None, "an Inner, got None"),
    ("inner", {"size": 1}, "an Inner, got {'size': 1}"),
    ("part", "x", "an Inner or an Other, got 'x'"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_refused_values_are_named_in_one_sentence(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        Config(**{name: value})
    assert str(caught.value) == f"Config.{name} must be {message}"
    assert caught.value.__suppress_context__, "one error, not a chain"


def test_a_nested_configuration_names_itself() -> None:
    with pytest.raises(ValueError, match=r"^Inner\.size must be a whole number of at least 1, got 0$"):
        Config(inner=Inner(0))


def test_frozen_and_fields_of_a_subclass_are_checked_too() -> None:
    @dataclass(frozen=True)
    class Derived(Inner):
        extra: Annotated[float, Range(0, 1)] = 0.0

    assert Derived(2, 1).extra == 1.0
    with pytest.raises(ValueError, match=r"^Derived\.extra must be a number from 0 to 1, got 2$"):
        Derived(2, 2)
    with pytest.raises(ValueError, match=r"^Derived\.size must be"):
        Derived(0)
    with pytest.raises(FrozenInstanceError):
        Derived().size = 2  # type: ignore[misc]


@pytest.mark.slow
@given(
    low=st.integers(-5, 5),
    width=st.integers(1, 5),
    low_open=st.booleans(),
    high_open=st.booleans(),
    value=st.floats(-12, 12),
)
def test_range_is_the_interval(low: int, width: int, low_open: bool, high_open: bool, value: float) -> None:
    high = low + width
    allowed = (low < value or (value == low and not low_open)) and (value < high or (value == high and not high_open))
    assert (value in Range(low, high, low_open, high_open)) == allowed
    assert (value in Range(low, None, low_open)) == (value > low or (value == low and not low_open))
    assert (value in Range(None, high, high_open=high_open)) == (value < high or (value == high and not high_open))
    assert value in Range()


@given(st.floats())
def test_a_number_is_accepted_exactly_when_it_is_in_the_range(value: float) -> None:
    if 0 <= value <= 1:
        assert Config(tau=value).tau == value
    else:
        with pytest.raises(ValueError, match=r"^Config\.tau must be"):
            Config(tau=value)


def test_needs_no_torch() -> None:
    code = "import sys, fewlabels.runtime.checked; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
