"""The algorithms. The union of their configurations is the registry: whatever lists them reads it."""

from __future__ import annotations

from typing import get_args

from fewlabels.algorithms.base import Algorithm, PseudoLabel
from fewlabels.algorithms.fixmatch import FixMatch
from fewlabels.algorithms.mixmatch import MixMatch
from fewlabels.algorithms.remixmatch import ReMixMatch
from fewlabels.algorithms.supervised import Supervised

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AnyAlgorithm",
    "FixMatch",
    "MixMatch",
    "PseudoLabel",
    "ReMixMatch",
    "Supervised",
]

AnyAlgorithm = Supervised | FixMatch | MixMatch | ReMixMatch
"""The configuration of any algorithm of the package."""

ALGORITHMS: dict[str, type[AnyAlgorithm]] = {cls.name: cls for cls in get_args(AnyAlgorithm)}
"""Their names on the command line."""
