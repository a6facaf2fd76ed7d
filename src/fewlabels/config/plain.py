"""Settings as plain values, as in config.json and TOML files: to nested dictionaries and back, and what differs."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_type_hints

from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.settings import Train, algorithm_name, name_of
from fewlabels.runtime.checked import flat
from fewlabels.runtime.words import nearest


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values; an algorithm carries its name first."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if f.name == "algorithm":
            out[f.name] = {"name": algorithm_name(value), **to_dict(value)}
        elif dataclasses.is_dataclass(value):
            out[f.name] = to_dict(value)
        else:
            out[f.name] = list(value) if isinstance(value, tuple) else value
    return out


def from_dict(values: Mapping[str, Any], default: Train | None = None, algorithms: Iterable[type] = ()) -> Train:
    """A `Train` from nested plain values; what is missing comes from `default`. Unknown keys are refused."""
    known = {**ALGORITHMS, **{name_of(cls): cls for cls in algorithms}}
    return typing.cast(Train, _build(Train, values, default or Train(), known, ()))


_hints = cache(get_type_hints)


def _build(cls: type, values: Any, default: Any, algorithms: Mapping[str, type], path: tuple[str, ...]) -> Any:
    where = ".".join(path) or "the configuration"
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must hold named values, got {json.dumps(values)}")
    hints = _hints(cls)
    fields = {f.name for f in dataclasses.fields(cls)}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where} has no setting {key!r}{nearest(key, fields)}")
        old = getattr(default, key) if default is not None else None
        if key == "algorithm" and cls is Train:
            given[key] = _algorithm(value, old, algorithms)
        elif dataclasses.is_dataclass(hints[key]):
            given[key] = _build(hints[key], value, old, algorithms, (*path, key))
        else:
            given[key] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(default, **given) if default is not None else cls(**given)


def _algorithm(value: Any, default: Any, algorithms: Mapping[str, type]) -> Any:
    value = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else value
    if not isinstance(value, dict):
        raise ValueError(f"algorithm must be a name or named values, got {json.dumps(value)}")
    name = value.pop("name", algorithm_name(default))
    if not isinstance(name, str) or name not in algorithms:
        raise ValueError(
            f"there is no algorithm {name!r}{nearest(str(name), algorithms)} (known: {', '.join(algorithms)})"
        )
    cls = algorithms[name]
    return _build(cls, value, default if type(default) is cls else None, algorithms, ("algorithm",))


def difference(config: Train, default: Train) -> dict[str, Any]:
    """The settings of `config` that are not those of `default`, by dotted name."""
    old = flat(to_dict(default))
    return {k: v for k, v in flat(to_dict(config)).items() if k not in old or old[k] != v}
