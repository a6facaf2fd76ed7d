"""Labels of arrays as classes: numbers or names, of which some are unknown."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewlabels.data.arrays import as_labels
from fewlabels.data.listing import MISSING, UNLABELED
from fewlabels.data.source import Labels


def as_classes(what: str, x: Any) -> tuple[Labels, list[int] | list[str]]:
    """Class numbers int64 ``[N]``, -1 where one is unknown, and the classes in their order: sorted numbers or names.

    Args:
        what: names the labels in errors.
        x: ``[N]`` integers as for `as_labels`, whole numbers in floats, of which NaN is unknown; or names, among which
            None, NaN, pandas' NA, what is masked, -1 and an empty text are unknown.

    Raises ValueError for other forms, integers below -1, names mixed with numbers, and words such as "nan" that may
    mean that there is no label (`MISSING`).
    """
    names = _names(x)
    if names is not None:
        found = [_name(what, value) for value in names]
        classes = sorted({name for name in found if name is not None})
        number = {name: i for i, name in enumerate(classes)}
        return np.array([-1 if name is None else number[name] for name in found], np.int64), classes
    values = as_labels(what, _whole(x)) if np.size(x) else np.empty(0, np.int64)
    if values.size and values.min() < -1:
        raise ValueError(f"{what} must be -1 (unlabeled) or at least 0, got {values.min()}")
    known = np.unique(values[values >= 0])
    return np.where(values < 0, -1, np.searchsorted(known, values)).astype(np.int64), known.tolist()


def _names(x: Any) -> list[Any] | None:
    """The values of `x` if there are names among them."""
    if isinstance(x, np.ma.MaskedArray):
        x = [None if hidden else value for value, hidden in zip(x.data, np.ma.getmaskarray(x), strict=True)]
    elif not isinstance(x, list | tuple):
        kind = getattr(getattr(x, "dtype", None), "kind", "O")
        if hasattr(x, "detach") or kind not in "OUT" or np.ndim(x) != 1:  # T: NumPy's strings of any length
            return None
        x = np.asarray(x, object)  # an array, or a column of pandas
    values = list(x)
    return values if any(isinstance(value, str) for value in values) else None


def _whole(x: Any) -> Any:
    """Whole numbers in floats, as a table has integers of which some are missing, as integers; all else as it is."""
    if getattr(getattr(x, "dtype", None), "kind", "") != "f" or isinstance(x, np.ma.MaskedArray):
        return x
    values = np.asarray(x)
    missing = np.isnan(values)
    whole = missing | (np.abs(values) < 2**53) & (values == np.rint(values))
    return np.where(missing, -1, values).astype(np.int64) if whole.all() else x


def _name(what: str, value: Any) -> str | None:
    """The name of a class, None for unlabeled."""
    if isinstance(value, str):
        if value in UNLABELED:
            return None
        if value.casefold() in MISSING:
            raise ValueError(
                f"{what} hold {str(value)!r}, which may mean that there is none: give None for an unlabeled image, or "
                "call the class otherwise"
            )
        return str(value)
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return None
    if number and value == -1:
        return None
    raise ValueError(f"{what} must be all names or all integers, got {value!r} among names")
