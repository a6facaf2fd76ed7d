"""`fewlabels doctor`: each rule at its limits on records made by hand, and on trainings made sick on purpose."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fewlabels as fl
from fewlabels.algorithms import FixMatch, Supervised
from fewlabels.config.plain import to_dict
from fewlabels.config.published import RECIPES
from fewlabels.config.recipes import recipe
from fewlabels.report.doctor import BECAUSE, RULES, Case, findings, unseen
from fewlabels.report.numbers import Counts
from fewlabels.report.story import tell
from fewlabels.runtime.checked import flat

K = 4


def scores(accuracy: float, n: int = 400) -> dict[str, Any]:
    return {"accuracy": accuracy, "n": n}


def evaluation(step: int, test: float, train: float = 100.0, raw: float | None = None) -> dict[str, Any]:
    """An evaluation as metrics.jsonl has it, as far as a rule looks."""
    raw = test if raw is None else raw
    return {
        "step": step,
        "test": {"ema": scores(test), "raw": scores(raw)},
        "train": {"ema": scores(train, 40), "raw": scores(train, 40)},
    }


def case(**changes: Any) -> Case:
    """A healthy run of 100 steps; `logged` and `tests` change what is logged all along, and the test accuracies."""
    settings = flat(to_dict(recipe("fixmatch", "digits@40"))) | {"steps": 100} | changes.pop("settings", {})
    logged = {"loss_x": 0.05, "loss_u": 0.3, "mask": 0.8, "confidence": 0.93, "pseudo_accuracy": 96.0}
    logged |= changes.pop("logged", {})
    tests = changes.pop("tests", [60.0, 80.0, 89.0, 90.0, 90.5])
    known = {
        "settings": settings,
        "usual_lr": settings["optim.lr"],
        "labeled": [10] * K,
        "unlabeled": 1000,
        "finished": True,
        "classes": [f"c{i}" for i in range(K)],
        "logs": [{"step": 10 * i, **{k: v for k, v in logged.items() if v is not None}} for i in range(1, 11)],
        "evaluations": [evaluation(20 * i, accuracy) for i, accuracy in enumerate(tests, 1)],
        "counts": Counts.of(K, [[i, i, 100] for i in range(K)]),
        "pool": [250] * K,
        "surplus": 2.0,
    }
    return Case(**{**known, **changes})  # type: ignore[arg-type]


def swallowing(share: float) -> Counts:
    """100 images of each class, of which class 0 takes that share of the others'."""
    taken = round(100 * share)
    rows = [[0, 0, 100]]
    for i in range(1, K):
        rows += [[i, i, 100 - taken], [i, 0, taken]]
    return Counts.of(K, rows)


TESTED = [60.0, 70.0, 75.0, 76.0, 76.0]
"""Test accuracies that rise no more and are not good."""

SICK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # name, a case that has it, and one that just has it not
    ("few in use", {"logged": {"mask": 0.049}}, {"logged": {"mask": 0.051}}),
    # 24 % are wrong, so that at most 6 % not in use are too few
    ("all in use", {"logged": {"mask": 0.95}, "tests": TESTED}, {"logged": {"mask": 0.93}, "tests": TESTED}),
    # tau is 0.95, and 10 points are allowed
    ("wrong pseudo-labels", {"logged": {"pseudo_accuracy": 84.9}}, {"logged": {"pseudo_accuracy": 85.1}}),
    (
        "overconfident",
        {"surplus": 15.1, "logged": {"pseudo_accuracy": None}},
        {"surplus": 14.9, "logged": {"pseudo_accuracy": None}},
    ),
    # called 0: 25 % + 75 % of the share; 1.8 times as many as there are from a share of 0.2667 on
    ("swallowed", {"counts": swallowing(0.27)}, {"counts": swallowing(0.26)}),
    # 0.4 * (sqrt(4 / 1000) + sqrt(4 / 40)) = 0.152, so that a distance of 0.25 is the limit
    ("other shares", {"pool": [502, 166, 166, 166]}, {"pool": [499, 167, 167, 167]}),
    ("by heart", {"tests": [60.0, 70.0, 74.0, 74.0, 74.0]}, {"tests": [60.0, 70.0, 76.0, 76.0, 76.0]}),
    (
        # exp(-0.1) = 0.905
        "labels not learned",
        {"logged": {"loss_x": 0.1}, "evaluations": [evaluation(100, 60.0, train=65.0)]},
        {"logged": {"loss_x": 0.1}, "evaluations": [evaluation(100, 60.0, train=66.0)]},
    ),
    (
        "average lags",
        {"evaluations": [evaluation(100, 80.0, raw=90.0)]},
        {"evaluations": [evaluation(100, 80.1, raw=90.0)]},
    ),
    ("stuck", {"logged": {"loss_x": 0.91 * math.log(K)}}, {"logged": {"loss_x": 0.89 * math.log(K)}}),
    ("learning rate", {"usual_lr": 0.01}, {"usual_lr": 0.011}),
    ("learning rate", {"usual_lr": 2.0}, {"usual_lr": 2.0, "settings": {"net.pretrained": "learned.pth"}}),
    ("learning rate", {"usual_lr": 0.01, "settings": {"net.pretrained": "learned.pth"}}, {"usual_lr": 0.02}),
    ("batch", {"settings": {"batch": 161}}, {"settings": {"batch": 160}}),
    ("batch", {"settings": {"batch": 3}}, {"settings": {"batch": 4}}),
    ("few steps", {"tests": [60.0, 70.0, 80.0, 88.0, 90.0]}, {"tests": [60.0, 70.0, 80.0, 88.1, 90.0]}),
    ("few steps", {"unlabeled": 12_801}, {"unlabeled": 12_800}),  # 100 steps of 32 * 4
]


def names(of: Case) -> list[str]:
    return [found.name for found in findings(of)]


def test_a_healthy_run_has_nothing() -> None:
    assert names(case()) == [] and unseen(case()) == []


@pytest.mark.parametrize(("name", "sick", "well"), SICK, ids=[f"{i}-{name}" for i, (name, _, _) in enumerate(SICK)])
def test_each_rule_at_its_limit(name: str, sick: dict[str, Any], well: dict[str, Any]) -> None:
    settings = case().settings
    assert (settings["optim.lr"], settings["batch"], settings["uratio"]) == (0.1, 32, 4) or name != "few steps"
    assert names(case(**sick)) == [name]
    assert names(case(**well)) == []
    (found,) = findings(case(**sick))
    assert found.text.endswith(".") and found.option and math.isfinite(found.value)


@pytest.mark.slow
def test_every_rule_is_tested() -> None:
    found = {rule(case(**sick)).name for name, sick, _ in SICK for rule in RULES if rule(case(**sick)) is not None}  # type: ignore[union-attr]
    assert found == {name for name, _, _ in SICK} and len(found) == len(RULES)
    assert BECAUSE.keys() | {cause for causes in BECAUSE.values() for cause in causes} <= found


def test_what_follows_from_another_finding_is_left_out() -> None:
    lagging = case(evaluations=[evaluation(100, 30.0, raw=90.0)], counts=swallowing(0.9))
    assert names(lagging) == ["by heart", "average lags"]
    assert names(replace(lagging, evaluations=[evaluation(100, 80.0)])) == ["swallowed"]


def test_the_option_names_what_the_run_has() -> None:
    low = findings(case(logged={"mask": 0.0}))[0]
    assert low.option.startswith("a lower --tau (it is 0.95)")
    (high,) = findings(case(logged={"mask": 1.0}, tests=TESTED, settings={"algorithm.tau": 0.5}))
    assert high.option == "a higher --tau (it is 0.5)"
    (rate,) = findings(case(usual_lr=0.0003))
    assert rate.option == "--optim.lr 0.0003" and "The learning rate is 0.1" in rate.text
    uneven = case(counts=swallowing(0.9), labeled=[100, 5, 5, 5], pool=None)
    assert "--imbalance adjust" in findings(uneven)[0].option
    (big,) = findings(case(settings={"batch": 512}))
    (alone,) = findings(case(settings={"batch": 512}, logged=dict.fromkeys(("loss_u", "mask", "pseudo_accuracy"))))
    assert big.option == "--batch 32, and more --uratio" and alone.option == "--batch 32"
    wild = case(counts=swallowing(0.9), classes=["\x1b[31m", "b", "c", "d"])
    assert "The class \\x1b[31m swallows" in findings(wild)[0].text


def test_an_option_can_be_followed() -> None:
    """`predict --calibrate` needs validation pictures; a learned body that is left as it is need not be left so."""
    sure = {"surplus": 20.0, "logged": {"pseudo_accuracy": None}}
    (without,) = findings(case(**sure))
    assert without.option.startswith("some labels for validation (--data.valid), by which `fewlabels predict --calib")
    checked = {**evaluation(100, 90.0), "valid": {"ema": scores(90.0, 60), "raw": scores(90.0, 60)}}
    (held,) = findings(case(**sure, evaluations=[checked]))
    assert held.option.startswith("`fewlabels predict --calibrate` for the numbers, and")
    learned = {"net.pretrained": "learned.pth", "net.train": "head"}
    (known,) = findings(case(tests=[50.0] * 5, settings=learned))
    assert known.name == "by heart" and "--net.train" not in known.option and "fewlabels label RUN" in known.option


def test_a_fit_knows_its_labels_by_heart() -> None:
    """Ten labels a class among 1,280 features: a linear layer tells them apart, whatever they are."""
    fitted = {"settings": {"steps": 0, "net.train": "head"}, "tests": [60.0], "logs": [], "unlabeled": 1000}
    assert names(case(**fitted)) == []
    assert names(case(tests=[60.0])) == ["by heart"]


def test_it_says_what_it_could_not_look_at() -> None:
    blind = case(evaluations=[], logs=[], counts=None, pool=None, surplus=None)
    assert names(blind) == []
    assert [clause.split(":")[0] for clause in unseen(blind)] == [
        "accuracies",
        "the course of the training",
        "what the classes are taken for",
    ]
    few = case(evaluations=[{"step": 9, "test": {"ema": scores(10.0, 49), "raw": scores(10.0, 49)}}])
    assert "accuracies: they are of fewer than 50 pictures" in unseen(few) and names(few) == []
    own = case(logged={"pseudo_accuracy": None})
    assert unseen(own) == [
        "whether the pseudo-labels are right: the true classes of the unlabeled pictures are not known"
    ]
    none = case(logged={"pseudo_accuracy": None, "mask": 0.0})
    assert unseen(none) == ["whether the pseudo-labels are right: no unlabeled picture counted"]
    late = case()
    late = replace(late, logs=[{k: v for k, v in r.items() if r["step"] > 80 or k[:2] != "ps"} for r in late.logs])
    assert unseen(late) == ["whether the pseudo-labels are right: they counted at fewer than 3 log points"]


@pytest.mark.parametrize("name", RECIPES)
def test_no_published_learning_rate_is_odd(name: str) -> None:
    published = recipe(name)
    usual = recipe(published.algorithm.name, published.data.name, net=published.net.name)
    if usual.optim.name == published.optim.name:
        settings = flat(to_dict(published))
        healthy = case(
            settings={k: settings[k] for k in ("optim.lr", "batch", "net.pretrained")}, usual_lr=usual.optim.lr
        )
        assert "learning rate" not in names(healthy)


# ---- trainings


def trained(short: Callable[..., Any], path: Path, algorithm: str = "fixmatch", /, **changes: Any) -> list[str]:
    """What is found in a training of a small net on digits."""
    usual: dict[str, Any] = {
        "net": fl.Net("small-8"),
        "batch": 16,
        "uratio": 3,
        "steps": 60,
        "eval_every": 20,
        "save_every": 1000,
        "log_every": 6,
    }
    config = short(algorithm, **{**usual, **changes})
    if "optim" not in changes:
        config = replace(config, optim=replace(config.optim, lr=0.2))
    fl.train(config, out=path)
    return [found.name for found in tell(path).findings]


def optim(lr: float) -> fl.Optim:
    return replace(recipe("fixmatch", "digits@40").optim, lr=lr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "algorithm", "changes"),
    [
        ("few in use", "fixmatch", {"algorithm": FixMatch(tau=0.99999)}),
        ("all in use", "fixmatch", {"algorithm": FixMatch(tau=0.0)}),
        ("stuck", "fixmatch", {"optim": optim(1e-5)}),
        ("learning rate", "fixmatch", {"optim": optim(20.0)}),
        ("average lags", "fixmatch", {"ema": fl.Ema(decay=0.999)}),
        ("labels not learned", "fixmatch", {"net": fl.Net("small-8", bn_momentum=0.0005)}),
        ("batch", "fixmatch", {"batch": 2}),
        ("batch", "supervised", {"batch": 512, "steps": 4}),
        ("overconfident by heart", "supervised", {"data": fl.Data("digits@10"), "algorithm": Supervised(view="weak")}),
        ("few steps", "fixmatch", {"steps": 20}),
        ("swallowed", "fixmatch", {"data": fl.Data("digits", rule="cadr", labels=60, imbalance=60)}),
        (
            "other shares",
            "fixmatch",
            {"data": fl.Data("digits", rule="cadr", labels=10, imbalance=1, imbalance_unlabeled=100), "steps": 90},
        ),
        (
            "wrong pseudo-labels",
            "fixmatch",
            {"algorithm": FixMatch(tau=0.9, temperature=0.1), "data": fl.Data("digits@10")},
        ),
    ],
)
def test_sick_trainings(
    short: Callable[..., Any], tmp_path: Path, name: str, algorithm: str, changes: dict[str, Any]
) -> None:
    found = trained(short, tmp_path / "run", algorithm, **changes)
    assert name in found or name == " ".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["fixmatch", "supervised"])
def test_healthy_trainings(short: Callable[..., Any], tmp_path: Path, algorithm: str) -> None:
    assert trained(short, tmp_path / "run", algorithm, steps=300, eval_every=50, log_every=20) == []


# ---- the command


def test_the_command(digits_run: Any, command: Callable[..., Any]) -> None:
    said = command("doctor", digits_run.path)
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"{digits_run.path}: fixmatch is right on ")
    told = json.loads(command("doctor", digits_run.path, "--json").out)
    assert told["run"] == str(digits_run.path) and told["not_looked_at"] == []
    for found in told["findings"]:
        assert set(found) == {"name", "text", "value", "option"}
        assert f"{found['name']}: {found['text']}" in " ".join(said.out.split())
    assert [f["name"] for f in told["findings"]] == [f.name for f in tell(digits_run.path).findings]


def test_the_command_without_a_run(command: Callable[..., Any], tmp_path: Path) -> None:
    assert command("doctor", tmp_path / "none").sentence == f"there is no run folder {tmp_path / 'none'}"
    assert command("doctor").code == 2
