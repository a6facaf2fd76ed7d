"""CADR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fewlabels.algorithms.fixmatch import FixMatch
from fewlabels.algorithms.missing import Missing


@dataclass(frozen=True, kw_only=True)
class CADR(FixMatch):
    """CADR (Hu et al. 2022), https://arxiv.org/abs/2206.14923.

    FixMatch where classes differ in their chance of having a label: a short name for `fixmatch --missing cadr`.
    """

    name: ClassVar[str] = "cadr"

    missing: Missing = Missing("cadr")  # noqa: RUF009  (frozen)
    """Labels that are missing not at random."""
