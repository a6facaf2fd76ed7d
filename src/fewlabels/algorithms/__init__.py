"""The algorithms. The union of their configurations is the registry: whatever lists them reads it."""

from __future__ import annotations

from typing import get_args

from fewlabels.algorithms.adamatch import AdaMatch
from fewlabels.algorithms.base import Algorithm
from fewlabels.algorithms.cadr import CADR
from fewlabels.algorithms.cgmatch import CGMatch
from fewlabels.algorithms.comatch import CoMatch
from fewlabels.algorithms.composed import Composed
from fewlabels.algorithms.consistency import Consistency
from fewlabels.algorithms.crmatch import CRMatch
from fewlabels.algorithms.dash import Dash
from fewlabels.algorithms.defixmatch import DeFixMatch
from fewlabels.algorithms.fixmatch import FixMatch
from fewlabels.algorithms.flexmatch import FlexMatch
from fewlabels.algorithms.freematch import FreeMatch
from fewlabels.algorithms.frozen import Frozen
from fewlabels.algorithms.fullmatch import FullMatch
from fewlabels.algorithms.ict import ICT
from fewlabels.algorithms.imbalance import Imbalance
from fewlabels.algorithms.iomatch import IOMatch
from fewlabels.algorithms.mean_teacher import MeanTeacher
from fewlabels.algorithms.missing import Missing
from fewlabels.algorithms.mixmatch import MixMatch
from fewlabels.algorithms.mixup import MixUp
from fewlabels.algorithms.openset import OpenSet
from fewlabels.algorithms.pi_model import PiModel
from fewlabels.algorithms.pseudo_label import PseudoLabeling
from fewlabels.algorithms.realmix import RealMix
from fewlabels.algorithms.refixmatch import ReFixMatch
from fewlabels.algorithms.regmixmatch import RegMixMatch
from fewlabels.algorithms.remixmatch import ReMixMatch
from fewlabels.algorithms.self_training import SelfTraining
from fewlabels.algorithms.sequencematch import SequenceMatch
from fewlabels.algorithms.shrinkmatch import ShrinkMatch
from fewlabels.algorithms.simmatch import SimMatch
from fewlabels.algorithms.softmatch import SoftMatch
from fewlabels.algorithms.supervised import Supervised
from fewlabels.algorithms.supervised_mixup import SupervisedMixUp
from fewlabels.algorithms.uda import UDA
from fewlabels.algorithms.vat import VAT

__all__ = [
    "ALGORITHMS",
    "CADR",
    "ICT",
    "UDA",
    "VAT",
    "AdaMatch",
    "Algorithm",
    "AnyAlgorithm",
    "CGMatch",
    "CRMatch",
    "CoMatch",
    "Composed",
    "Consistency",
    "Dash",
    "DeFixMatch",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "Frozen",
    "FullMatch",
    "IOMatch",
    "Imbalance",
    "MeanTeacher",
    "Missing",
    "MixMatch",
    "MixUp",
    "OpenSet",
    "PiModel",
    "PseudoLabeling",
    "ReFixMatch",
    "ReMixMatch",
    "RealMix",
    "RegMixMatch",
    "SelfTraining",
    "SequenceMatch",
    "ShrinkMatch",
    "SimMatch",
    "SoftMatch",
    "Supervised",
    "SupervisedMixUp",
]

AnyAlgorithm = (
    Supervised
    | SupervisedMixUp
    | PseudoLabeling
    | PiModel
    | MeanTeacher
    | VAT
    | ICT
    | MixUp
    | MixMatch
    | ReMixMatch
    | RealMix
    | UDA
    | FixMatch
    | FlexMatch
    | FreeMatch
    | SoftMatch
    | AdaMatch
    | Dash
    | DeFixMatch
    | CoMatch
    | SimMatch
    | ReFixMatch
    | SequenceMatch
    | FullMatch
    | ShrinkMatch
    | CRMatch
    | CGMatch
    | RegMixMatch
    | IOMatch
    | CADR
    | Frozen
    | SelfTraining
)
"""The configuration of any algorithm of the package."""

ALGORITHMS: dict[str, type[AnyAlgorithm]] = {cls.name: cls for cls in get_args(AnyAlgorithm)}
"""Their names on the command line."""
