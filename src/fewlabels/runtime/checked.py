"""Frozen configuration dataclasses that check type and range of each field, once, when they are made.

Needs nothing but the standard library, so that the command line answers ``--help`` without importing torch.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from math import isfinite
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints


class Range(NamedTuple):
    """Allowed values of a number, written beside its type: ``tau: Annotated[float, Range(0, 1)] = 0.95``."""

    low: float | None = None
    """None: no bound."""
    high: float | None = None
    """None: no bound."""
    low_open: bool = False
    """The value `low` itself is refused."""
    high_open: bool = False
    """The value `high` itself is refused."""

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, (int, float))
        above = self.low is None or value > self.low or (value == self.low and not self.low_open)
        below = self.high is None or value < self.high or (value == self.high and not self.high_open)
        return above and below

    def __str__(self) -> str:
        low, high = _plain(self.low), _plain(self.high)
        if self.high is None:
            return "" if self.low is None else f"above {low}" if self.low_open else f"of at least {low}"
        if self.low is None:
            return f"below {high}" if self.high_open else f"of at most {high}"
        start = f"above {low}" if self.low_open else f"from {low}"
        joint = "and" if self.low_open else "to"
        if self.high_open:
            return f"{start} {joint} below {high}"
        return f"above {low} and at most {high}" if self.low_open else f"from {low} to {high}"


@dataclass(frozen=True)
class Checked:
    """Base of the configuration dataclasses.

    When an instance is made, each field is checked against its type hint: bool, int, float, str, Literal,
    None, unions, ``tuple[X, ...]``, ``tuple[X, Y]``, dataclasses and other classes, numbers also against a
    `Range`. A bool is no int. An int (or a NumPy number) where a float is asked for becomes a float, a list
    where a tuple is asked for becomes a tuple. NaN and the infinities are refused: JSON has none.

    Raises:
        ValueError: ``FixMatch.tau must be a number from 0 to 1, got 1.5``.
    """

    def __post_init__(self) -> None:
        hints = _hints(type(self))  # type: ignore[arg-type]
        for field in fields(self):
            hint, value = hints[field.name], getattr(self, field.name)
            try:
                fitted = _fit(hint, value)
            except _Misfit:
                name = f"{type(self).__name__}.{field.name}"
                raise ValueError(f"{name} must be {describe(hint)}, got {value!r}") from None
            if fitted is not value:
                object.__setattr__(self, field.name, fitted)


class _Misfit(Exception):
    pass


T = TypeVar("T")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _plain(x: float | None) -> str:
    return str(int(x)) if x is not None and x == int(x) else repr(x)


def _range(hint: Any) -> tuple[Any, Range | None]:
    """The hint without `Annotated`, and its range."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return inner, next((mark for mark in marks if isinstance(mark, Range)), None)
    return hint, None


def _fit(hint: Any, value: Any, limits: Range | None = None) -> Any:
    """`value`, converted where that loses nothing; raises `_Misfit` where it is not what `hint` says."""
    hint, own = _range(hint)
    limits = own or limits
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _fit_any(args, value, limits)
    if origin is Literal:
        return _only_if(any(value == arg and type(value) is type(arg) for arg in args), value)
    if origin is tuple:
        return _fit_tuple(args, value, limits)
    if hint is None or hint is type(None):
        return _only_if(value is None, value)
    if hint is bool:
        return _only_if(isinstance(value, bool), value)
    if hint is int:
        _only_if(isinstance(value, Integral) and not isinstance(value, bool), value)
        number = value if type(value) is int else int(value)
        return _only_if(limits is None or number in limits, number)
    if hint is float:
        _only_if(isinstance(value, Real) and not isinstance(value, bool), value)
        real = value if type(value) is float else float(value)
        return _only_if(isfinite(real) and (limits is None or real in limits), real)
    assert isinstance(hint, type), f"a configuration field cannot have the type {hint}"
    return _only_if(isinstance(value, hint), value)


def _only_if(condition: bool, value: T) -> T:
    if not condition:
        raise _Misfit
    return value


def _fit_any(options: tuple[Any, ...], value: Any, limits: Range | None) -> Any:
    # The exact type first: 1 stays an int in `float | int`.
    for option in sorted(options, key=lambda option: _range(option)[0] is not type(value)):
        try:
            return _fit(option, value, limits)
        except _Misfit:
            continue
    raise _Misfit


def _fit_tuple(args: tuple[Any, ...], value: Any, limits: Range | None) -> Any:
    _only_if(isinstance(value, (tuple, list)), value)
    if len(args) == 2 and args[1] is Ellipsis:
        args = args[:1] * len(value)
    _only_if(len(args) == len(value), value)
    fitted = tuple(_fit(arg, item, limits) for arg, item in zip(args, value, strict=True))
    same = isinstance(value, tuple) and all(a is b for a, b in zip(fitted, value, strict=True))
    return value if same else fitted


_NOUNS: dict[Any, str] = {
    Any: "anything",
    None: "None",
    type(None): "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
}


def describe(hint: Any, limits: Range | None = None) -> str:
    """What a type hint allows, in words: ``a number from 0 to 1 or None``."""
    hint, own = _range(hint)
    limits = own or limits
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg, limits) for arg in args)
    if origin is Literal:
        return " or ".join(repr(arg) for arg in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a tuple whose items are each {describe(args[0], limits)}"
        return f"a tuple of {len(args)}: " + ", ".join(describe(arg, limits) for arg in args)
    if hint in (int, float) and limits is not None:
        return f"{_NOUNS[hint]} {limits}".strip()
    return _NOUNS.get(hint) or f"{'an' if hint.__name__[0] in 'AEIOU' else 'a'} {hint.__name__}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: ``{"optim": {"lr": 0.03}}`` as ``{"optim.lr": 0.03}``."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
