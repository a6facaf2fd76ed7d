"""Train an accurate image classifier from a few labels and many unlabeled pictures.

    import fewlabels as fl
    run = fl.train(fl.recipe("fixmatch", "digits@40"), out="runs/demo")
    clf = fl.fit(images, labels)          # label -1 or None = unlabeled, as in scikit-learn

The names below are the public interface; they are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fewlabels.algorithms import (
        CADR,
        ICT,
        UDA,
        VAT,
        AdaMatch,
        CGMatch,
        CoMatch,
        CRMatch,
        Dash,
        DeFixMatch,
        FixMatch,
        FlexMatch,
        FreeMatch,
        Frozen,
        FullMatch,
        Imbalance,
        IOMatch,
        MeanTeacher,
        Missing,
        MixMatch,
        MixUp,
        OpenSet,
        PiModel,
        PseudoLabeling,
        RealMix,
        ReFixMatch,
        RegMixMatch,
        ReMixMatch,
        SelfTraining,
        SequenceMatch,
        ShrinkMatch,
        SimMatch,
        SoftMatch,
        Supervised,
        SupervisedMixUp,
    )
    from fewlabels.algorithms.base import Algorithm
    from fewlabels.algorithms.consistency import Consistency
    from fewlabels.algorithms.slots import Seen
    from fewlabels.classifier import Classifier, fit, load
    from fewlabels.config.recipes import recipe
    from fewlabels.config.settings import Curriculum, Data, Ema, Net, Optim, Train
    from fewlabels.data.arrays import from_arrays
    from fewlabels.data.source import Source
    from fewlabels.estimator import FewLabelsClassifier
    from fewlabels.runs.run import Run
    from fewlabels.training.loop import resume, train
    from fewlabels.types import Batch, Info, Losses, Outputs, Views

_MODULES = {
    "algorithms": (
        "CADR",
        "FixMatch",
        "FlexMatch",
        "CGMatch",
        "CRMatch",
        "ShrinkMatch",
        "FullMatch",
        "SequenceMatch",
        "ReFixMatch",
        "SimMatch",
        "CoMatch",
        "DeFixMatch",
        "Dash",
        "AdaMatch",
        "SoftMatch",
        "FreeMatch",
        "Frozen",
        "ICT",
        "IOMatch",
        "Imbalance",
        "MeanTeacher",
        "Missing",
        "MixMatch",
        "MixUp",
        "OpenSet",
        "PiModel",
        "PseudoLabeling",
        "ReMixMatch",
        "RealMix",
        "RegMixMatch",
        "SelfTraining",
        "Supervised",
        "SupervisedMixUp",
        "UDA",
        "VAT",
    ),
    "algorithms.base": ("Algorithm",),
    "algorithms.consistency": ("Consistency",),
    "algorithms.slots": ("Seen",),
    "classifier": ("Classifier", "fit", "load"),
    "config.settings": ("Curriculum", "Data", "Ema", "Net", "Optim", "Train"),
    "data.arrays": ("from_arrays",),
    "data.source": ("Source",),
    "config.recipes": ("recipe",),
    "estimator": ("FewLabelsClassifier",),
    "runs.run": ("Run",),
    "training.loop": ("resume", "train"),
    "types": ("Batch", "Info", "Losses", "Outputs", "Views"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CADR",
    "ICT",
    "UDA",
    "VAT",
    "AdaMatch",
    "Algorithm",
    "Batch",
    "CGMatch",
    "CRMatch",
    "Classifier",
    "CoMatch",
    "Consistency",
    "Curriculum",
    "Dash",
    "Data",
    "DeFixMatch",
    "Ema",
    "FewLabelsClassifier",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "Frozen",
    "FullMatch",
    "IOMatch",
    "Imbalance",
    "Info",
    "Losses",
    "MeanTeacher",
    "Missing",
    "MixMatch",
    "MixUp",
    "Net",
    "OpenSet",
    "Optim",
    "Outputs",
    "PiModel",
    "PseudoLabeling",
    "ReFixMatch",
    "ReMixMatch",
    "RealMix",
    "RegMixMatch",
    "Run",
    "Seen",
    "SelfTraining",
    "SequenceMatch",
    "ShrinkMatch",
    "SimMatch",
    "SoftMatch",
    "Source",
    "Supervised",
    "SupervisedMixUp",
    "Train",
    "Views",
    "fit",
    "from_arrays",
    "load",
    "recipe",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"fewlabels.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fewlabels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
