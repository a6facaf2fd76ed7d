"""The public interface: what is added to it, or taken from it, is meant."""

from __future__ import annotations

import ast
from pathlib import Path

import fewlabels as fl

ALGORITHMS = (
    "AdaMatch CADR CGMatch CRMatch CoMatch Dash DeFixMatch FixMatch FlexMatch FreeMatch Frozen FullMatch ICT "
    "IOMatch MeanTeacher MixMatch MixUp PiModel PseudoLabeling ReFixMatch ReMixMatch RealMix RegMixMatch SelfTraining "
    "SequenceMatch ShrinkMatch SimMatch SoftMatch Supervised SupervisedMixUp UDA VAT"
)
PARTS = "Imbalance Missing OpenSet"
FUNCTIONS = "fit from_arrays load recipe resume train"
SETTINGS = "Curriculum Data Ema Net Optim Train"
RESULTS = "Classifier FewLabelsClassifier Run Source"
FOR_ALGORITHMS = "Algorithm Batch Consistency Info Losses Outputs Seen Views"
NAMES = {*" ".join((ALGORITHMS, PARTS, FUNCTIONS, SETTINGS, RESULTS, FOR_ALGORITHMS)).split()}


def test_the_names() -> None:
    assert set(fl.__all__) == NAMES and len(fl.__all__) == len(NAMES)
    assert {*dir(fl)} >= NAMES | {"__version__"}


def test_each_name_is_what_is_defined_under_it() -> None:
    for name in NAMES:
        value = getattr(fl, name)
        assert value.__name__ == name and value.__module__.startswith("fewlabels.")


def test_the_page_of_the_api_has_all_but_the_algorithms() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    shown = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    assert shown == {*" ".join((FUNCTIONS, SETTINGS, RESULTS, FOR_ALGORITHMS)).split()}


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(fl.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported.keys() == NAMES
    for name, module in imported.items():
        assert module is not None and getattr(__import__(module, fromlist=[name]), name) is getattr(fl, name)
