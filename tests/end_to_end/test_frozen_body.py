"""Runs whose body does not learn: what they hold, what they are without it, and `frozen`, which has no steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import fewlabels as fl
from algorithm_cases import SHAPE, K, killed_in, toy, toy_training
from fewlabels import nets
from fewlabels.algorithms.frozen import FrozenFeatures
from fewlabels.config.resolve import pixel_statistics
from fewlabels.inference.evaluate import evaluate
from fewlabels.inference.features import Body
from fewlabels.inference.model import load_predictor
from fewlabels.inference.predict import predict
from fewlabels.runs.run import Run
from fewlabels.training import loop
from fewlabels.training.budget import Budget
from fewlabels.training.loop import Output
from fewlabels.training.step import Trainer
from fewlabels.types import Info, Known

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A net that has seen something: its statistics are not those of a new one."""
    torch.manual_seed(0)
    net = nets.build("wrn-10-1", classes=7, shape=SHAPE)
    with torch.no_grad():
        net(torch.randn(64, *SHAPE))
    path = tmp_path / "weights" / "w.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(net.state_dict(), path)
    return path


def head_only(algorithm: Any, weights: Path, **changes: Any) -> fl.Train:
    net = fl.Net("wrn-10-1", pretrained=str(weights), train="head")
    return toy_training(algorithm, net=net, **changes)


def frozen(weights: Path, **changes: Any) -> fl.Train:
    return head_only(fl.Frozen(), weights, **{"steps": 0, **changes})


def wide(run: Run) -> Any:
    return safetensors.torch.load_file(run.checkpoint().path / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixmatch", "mean-teacher", "remixmatch", "vat"])
def test_only_the_head_and_the_heads_learn(
    weights: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body, its batch norm too, is bit for bit that of the file after some steps; nothing else is saved."""
    trainers: list[Trainer] = []
    original = Trainer.step

    def watched(self: Trainer, number: int) -> None:
        original(self, number)
        trainers[:] = [self]

    monkeypatch.setattr(Trainer, "step", watched)
    config = head_only(fl.recipe(name, "digits").algorithm, weights, steps=4)
    run = fl.train(config, out=tmp_path / "run", source=toy())
    trainer, given = trainers[0], safetensors.torch.load_file(weights)
    for model in (trainer.model, trainer.average.model):
        state = model.net.state_dict()
        for key, value in given.items():
            if not key.startswith("linear."):
                assert torch.equal(state[key], value), key
    mine = dict(trainer.average.model.net.named_parameters())
    assert all(mine[k] is p for k, p in trainer.model.net.named_parameters() if not k.startswith("linear."))
    held = {key.partition(".")[2] for key in wide(run)}
    assert {"net.linear.weight", "net.linear.bias"} <= held
    assert all(key.startswith(("net.linear.", "heads.")) for key in held)
    assert any(key.startswith("heads.") for key in held) == (name == "remixmatch")
    learning = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for p in trainer.model.parameters() if p.requires_grad} and len(learning) <= 4
    raw = wide(run)
    assert not torch.equal(raw["raw.net.linear.weight"], raw["ema.net.linear.weight"])


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(weights: Path, tmp_path: Path) -> None:
    config = head_only(fl.FixMatch(), weights, steps=6, save_every=3)
    whole = fl.train(config, out=tmp_path / "whole", source=toy())
    killed_in(4, config, tmp_path / "run")
    fl.resume(tmp_path / "run", source=toy())
    one, two = (wide(Run(tmp_path / name)) for name in ("whole", "run"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert whole.result["accuracy"] == Run(tmp_path / "run").result["accuracy"]


@pytest.mark.slow
def test_a_time_begins_when_the_features_are_there(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, found = loop.measure, []

    def watched(make: Any, *args: Any, **options: Any) -> Any:
        found.append(any(file.is_file() for file in (tmp_path / "cache").rglob("*")))
        return original(make, *args, **options)

    monkeypatch.setattr(loop, "measure", watched)
    config = head_only(fl.FixMatch(), weights, weak="x", shift=0, strong="none")
    timed = fl.train(config, out=tmp_path / "timed", source=toy(), budget=Budget(2.0))
    assert found == [True] and timed.config.steps > 10
    steps = fl.train(timed.config, out=tmp_path / "steps", source=toy())
    one, two = wide(timed), wide(steps)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [fl.Supervised(), fl.PseudoLabeling(tau=0.4)], ids=["supervised", "pseudo-label"])
def test_features_stand_for_images_that_stay_as_they_are(
    weights: Path, tmp_path: Path, algorithm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same steps within what float16 rounds off; the net then sees no image in them."""
    config = head_only(algorithm, weights, steps=5, weak="x", shift=0, strong="none")
    passed: list[int] = []
    original = nets.WideResNet.features

    def watched(self: Any, x: Any) -> Any:
        passed.append(len(x))
        return original(self, x)

    monkeypatch.setattr(nets.WideResNet, "features", watched)
    quick = fl.train(config, out=tmp_path / "quick", source=toy())
    unlabeled = isinstance(algorithm, fl.PseudoLabeling)
    assert sum(passed) == (300 if unlabeled else 12) + 150  # each picture once, the test pictures too
    monkeypatch.setattr(type(algorithm.build(Info(3, SHAPE, 64, torch.ones(3), 300, 5, 6, 18))), "on_features", False)
    slow = fl.train(config, out=tmp_path / "slow", source=toy())
    one, two = wide(quick), wide(slow)
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=2e-3)
    assert not all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_frozen_makes_an_ordinary_run(weights: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = fl.train(frozen(weights), out=tmp_path / "run", source=toy(), output=Output(say=said.append))
    assert run.result["steps"] == 0 and run.checkpoint().step == 0
    fit = run.result["fit"]
    assert fit == run.data["fit"] and fit["method"] in ("labels", "votes", "spreading")
    assert any(line.startswith("judged by cross-validation over the 12 labels: labels only ") for line in said)
    assert any(f"expected accuracy {fit['expected']:.1f} %" in line for line in said)
    assert run.result["accuracy"] > 40  # chance is 33.3 %
    measured = evaluate(Run(run.path), toy())
    assert measured["accuracy"] == run.result["accuracy"]
    classifier = fl.load(run.path)
    assert 100 * classifier.score(toy().test_images, toy().test_labels.astype(str)) == run.result["accuracy"]
    Image.fromarray(toy().test_images[0]).save(tmp_path / "a.png")
    told = predict(load_predictor(run), [tmp_path / "a.png"])
    np.testing.assert_allclose(told.probabilities, classifier.predict_proba(toy().test_images[:1]), atol=1e-6)


@pytest.mark.slow
def test_the_layer_of_a_run_is_the_fitted_one(weights: Path, tmp_path: Path) -> None:
    """Logistic regression by scikit-learn on the file's own features of the twelve labeled images."""
    from sklearn.linear_model import LogisticRegression

    config = replace(frozen(weights), algorithm=fl.Frozen(method="labels"))
    run = fl.train(config, out=tmp_path / "run", source=toy())
    net = nets.build("wrn-10-1", classes=K, shape=SHAPE, pretrained=str(weights)).eval()
    mean, std = (np.array(part) for part in pixel_statistics(run.config, toy()))

    def directions(images: Any) -> Any:
        x = torch.from_numpy((images / 255 - mean) / std).float().permute(0, 3, 1, 2)
        with torch.no_grad():
            f = net.features(x).double().numpy()
        return f / np.linalg.norm(f, axis=1, keepdims=True)

    everything = directions(toy().images)
    middle = everything.mean(0)
    length = np.sqrt(((everything - middle) ** 2).sum(1).mean())
    rows = run.split.labeled
    model = LogisticRegression(C=10, max_iter=10_000, tol=1e-8)
    model.fit((everything[rows] - middle) / length, toy().labels[rows])
    theirs = model.predict_proba((directions(toy().test_images) - middle) / length)
    mine = fl.load(run.path).predict_proba(toy().test_images)
    assert np.abs(mine - theirs).max() < 0.02
    assert (mine.argmax(1) == theirs.argmax(1)).mean() >= 0.98


@pytest.mark.slow
def test_killed_before_the_end_it_starts_again(weights: Path, tmp_path: Path) -> None:
    whole = fl.train(frozen(weights), out=tmp_path / "run", source=toy())
    bits, accuracy = wide(whole), whole.result["accuracy"]
    (whole.path / "result.json").unlink()
    assert fl.resume(whole.path, source=toy()).result["accuracy"] == accuracy  # saved, and not summed up
    for name in ("result.json", "metrics.jsonl"):
        (whole.path / name).unlink()
    shutil.rmtree(whole.path / "checkpoints")
    again = fl.resume(whole.path, source=toy())
    assert again.result["accuracy"] == accuracy
    assert all(torch.equal(value, bits[key]) for key, value in wide(again).items())


@pytest.mark.slow
def test_a_second_run_computes_no_features(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fl.train(frozen(weights), out=tmp_path / "one", source=toy())

    def refused(self: Body, images: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(Body, "features", refused)
    second = fl.train(replace(frozen(weights), seed=2), out=tmp_path / "two", source=toy())
    assert first.result["accuracy"] > 0 and second.finished


@pytest.mark.slow
def test_some_unlabeled_images_are_looked_at(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Known] = []
    fit = FrozenFeatures.fit
    monkeypatch.setattr(FrozenFeatures, "fit", lambda self, known: (seen.append(known), fit(self, known))[1])
    runs = [
        fl.train(
            replace(frozen(weights), algorithm=fl.Frozen(most=most), seed=seed), out=tmp_path / str(i), source=toy()
        )
        for i, (most, seed) in enumerate([(None, 1), (30, 1), (30, 1), (30, 2), (10**6, 1)])
    ]
    whole, few, again, other, every = seen
    rows = len(set(runs[0].split.unlabeled.tolist()) - set(runs[0].split.labeled.tolist()))
    assert rows > 200 and len(whole.features) == len(every.features) == 12 + rows
    assert 12 + 30 >= len(few.features) == len(again.features) > 12 + 20  # labeled ones may be drawn, too
    there = {tuple(row) for row in whole.features.tolist()}
    assert all(tuple(row) in there for row in few.features.tolist())
    for known in seen:
        assert torch.equal(known.features[known.labeled], whole.features[whole.labeled])
        assert torch.equal(known.y, whole.y)
    assert torch.equal(few.features, again.features) and few.features.tolist() != other.features.tolist()
    assert all(torch.equal(value, wide(runs[0])[key]) for key, value in wide(runs[4]).items())
    assert all(torch.equal(value, wide(runs[1])[key]) for key, value in wide(runs[2]).items())


@pytest.mark.slow
def test_the_body_is_gone_or_another_one(weights: Path, tmp_path: Path) -> None:
    run = fl.train(frozen(weights), out=tmp_path / "run", source=toy())
    told = json.loads((run.path / "data.json").read_text())["body"]
    assert told["weights"] == str(weights.resolve()) and len(told["sha256"]) == 64
    content = weights.read_bytes()
    expected = fl.load(run.path).predict_proba(toy().test_images[:5])

    weights.unlink()
    copy = run.path / "w.safetensors"
    with pytest.raises(ValueError) as error:
        fl.load(run.path)
    assert str(error.value) == (
        f"{run.path} holds the head of its net only, and the file of the body is gone: put {weights.resolve()} back, "
        f"or a copy of it to {copy}"
    )
    copy.write_bytes(content)
    assert np.array_equal(fl.load(run.path).predict_proba(toy().test_images[:5]), expected)
    copy.unlink()

    state = safetensors.torch.load(content)
    state["bn.running_mean"] = state["bn.running_mean"] + 1e-3
    safetensors.torch.save_file(state, weights)
    (run.path / "result.json").unlink()
    message = f"the weights in {weights.resolve()} are others than when {run.path} was trained on their features"
    for attempt in (lambda: fl.load(run.path), lambda: fl.resume(run.path, source=toy())):
        with pytest.raises(ValueError) as error:
            attempt()
        assert str(error.value).startswith(message)
    state = {**safetensors.torch.load(content), "linear.weight": torch.zeros(7, 64)}  # its old head has no part in it
    safetensors.torch.save_file(state, weights)
    assert np.array_equal(fl.load(run.path).predict_proba(toy().test_images[:5]), expected)


@pytest.mark.slow
def test_frozen_with_a_body_that_is_held(weights: Path, tmp_path: Path) -> None:
    """With all of the net in the run the file is not needed again."""
    net = fl.Net("wrn-10-1", pretrained=str(weights))
    run = fl.train(replace(frozen(weights), net=net), out=tmp_path / "run", source=toy())
    weights.unlink()
    assert "body" not in run.data
    assert evaluate(Run(run.path), toy())["accuracy"] == run.result["accuracy"] > 40


def test_what_cannot_be(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Train.steps must be at least 1 for fixmatch, which learns in steps alone"):
        fl.Train(steps=0)
    with pytest.raises(ValueError, match=r"^Net.train head leaves the body of the net as it is, which then must be"):
        fl.train(replace(frozen(weights), net=fl.Net("wrn-10-1", train="head")), out=tmp_path / "run", source=toy())
    assert not (tmp_path / "run").exists()
