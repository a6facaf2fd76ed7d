"""torch's optimizers without what they do for torch.compile."""

from __future__ import annotations

import inspect
from typing import TypeVar, cast

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=type[Optimizer])


def eager(kind: Kind) -> Kind:
    """The optimizer `kind`, to be used outside compiled code only.

    torch wraps some methods for the case that they are called inside compiled code, and the wrappers import the
    compiler at their first call: about two CPU-seconds of each start. The wrapped methods themselves do all the work.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    return cast(Kind, type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(inspect.unwrap(kind.step))}))


_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
