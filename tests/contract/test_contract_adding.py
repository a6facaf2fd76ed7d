"""The walk through "A new algorithm" in CONTRIBUTING.md, step by step, with the example that is printed there."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_contract_losses as losses
import torch
from PIL import Image

import fewlabels as fl
from algorithm_cases import SHAPE, Case, K, info, make_batch, opinionated, quick, toy, toy_training, with_heads
from fewlabels import nets
from fewlabels.inference.evaluate import evaluate
from fewlabels.inference.model import load_predictor
from fewlabels.inference.predict import predict
from fewlabels.runs.run import Run
from fewlabels.training.step import Trainer

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "CONTRIBUTING.md").read_text().split("## A new algorithm\n")[1].split("\n## ")[0]
EXAMPLE, TRY, COMPOSED = re.findall(r"```python\n(.*?)```", SECTION, re.S)
NAME = "mutual_exclusivity"


def loaded(name: str, text: str, folder: Path) -> Iterator[ModuleType]:
    """A printed file as a module that is no part of the package."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from loaded(NAME, EXAMPLE, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from loaded("balanced", COMPOSED, tmp_path_factory.mktemp("composed"))


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.splitlines()) < 60
    assert f"src/fewlabels/algorithms/{NAME}.py" in SECTION


def test_the_formula(mine: Any) -> None:
    """Against the products written out, image by image."""
    probs = np.random.default_rng(0).dirichlet([0.5] * 5, 20)
    expected = [sum(p[k] * np.prod([1 - p[j] for j in range(5) if j != k]) for k in range(5)) for p in probs]
    np.testing.assert_allclose(mine.exclusivity(torch.tensor(probs)), expected, rtol=1e-5)
    certain = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    mine.exclusivity(certain).sum().backward()
    assert (
        float(mine.exclusivity(certain).detach()) == 1.0 and certain.grad is not None and certain.grad.isfinite().all()
    )


SINGLE = {
    name: test
    for name, test in inspect.getmembers(losses, inspect.isfunction)
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["case"]
}
PERMUTED = "test_permuting_the_classes_permutes_everything"
"""Not for the composition, whose second head has classes too."""
OF_PAIRS = {"test_no_gradient_into_the_view_that_is_guessed_about", "test_logged_values_are_documented"}


@pytest.mark.parametrize("name", sorted(SINGLE.keys() - OF_PAIRS))
def test_it_keeps_the_contract(mine: Any, name: str) -> None:
    SINGLE[name](Case("mine", quick(mine.MutualExclusivity)))


@pytest.mark.slow
def test_it_trains_and_comes_back(mine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fl.train`, `fl.load` and `fl.resume`; a run that names it cannot be opened by the name alone."""
    train = toy_training(mine.MutualExclusivity(weight=0.5), steps=60, save_every=20)
    run = fl.train(train, out=tmp_path / "run", source=toy())
    assert run.result["algorithm"] == "mutual-exclusivity" and run.result["accuracy"] >= 95
    assert {"loss", "loss_x", "loss_u", "pseudo_accuracy"} <= set(run.metrics("log")[-1])
    stored = json.loads((run.path / "config.json").read_text())["train"]["algorithm"]
    assert stored == {"name": "mutual-exclusivity", "weight": 0.5}

    classifier = fl.load(run.path, algorithms=(mine.MutualExclusivity,))
    assert 100 * classifier.score(toy().test_images, toy().test_labels.astype(str)) == run.result["accuracy"]
    assert Run(run.path, (mine.MutualExclusivity,)).config == run.config
    with pytest.raises(ValueError, match=r"^there is no algorithm 'mutual-exclusivity'"):
        fl.load(run.path)

    expected = run.checkpoint().path.joinpath("weights.safetensors").read_bytes()
    (run.path / "result.json").unlink()
    shutil.rmtree(run.checkpoint().path)
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, number: (steps.append(number), step(self, number)))
    fl.resume(run.path, source=toy(), algorithms=(mine.MutualExclusivity,))
    assert steps[0] == 40 and run.checkpoint().path.joinpath("weights.safetensors").read_bytes() == expected


@pytest.mark.slow
def test_the_lines_that_try_it(mine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"fl": fl, "MutualExclusivity": mine.MutualExclusivity}
    few = TRY.replace("steps=200", "steps=4").replace('"small"', '"small-4"')
    assert few.count("4") > TRY.count("4")
    exec(few, names)
    assert names["run"].finished and names["classifier"].model.step == 4


@pytest.mark.slow
def test_one_file_and_one_name_are_enough_for_the_command_line(tmp_path: Path) -> None:
    """In a copy of the package: the file, an import and a name in the union, and nothing else."""
    package = shutil.copytree(Path(fl.__file__).parent, tmp_path / "fewlabels")
    (package / "algorithms" / f"{NAME}.py").write_text(EXAMPLE)
    init = package / "algorithms" / "__init__.py"
    text = init.read_text()
    text = text.replace("AnyAlgorithm = (\n", "AnyAlgorithm = (\n    MutualExclusivity |\n", 1)
    text = text.replace(
        "from fewlabels.algorithms.pi_model",
        f"from fewlabels.algorithms.{NAME} import MutualExclusivity\nfrom fewlabels.algorithms.pi_model",
        1,
    )
    init.write_text(text)
    options = "--weight 0.25 --data digits@40 --net small-4 --batch 4 --uratio 2 --steps 3 --no-baseline --no-progress"
    program = [sys.executable, "-m", "fewlabels", "train", "mutual-exclusivity", *options.split()]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, "--out", str(tmp_path / "run")], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mutual-exclusivity on digits@40: 40 labeled" in done.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())["train"]["algorithm"]
    assert config == {"name": "mutual-exclusivity", "weight": 0.25}


@pytest.mark.parametrize("name", sorted(SINGLE.keys() - OF_PAIRS - {PERMUTED}))
def test_the_composition_keeps_the_contract(composed: Any, name: str) -> None:
    SINGLE[name](Case("composed", quick(composed.Balanced)))


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_composition_s_term(composed: Any) -> None:
    """Image by image, with four, two and one labels of the classes; and the gradient of the head, which is
    ``weight (p - onehot) f`` for each image."""
    told = info(6, 12)._replace(labeled_counts=torch.tensor([4, 2, 1]))
    share = [0.25, 0.5, 1.0]
    algorithm = composed.Balanced(tau=0.45).build(told)
    net, batch = with_heads(opinionated(), algorithm), make_batch(algorithm, 6, 12)
    with torch.no_grad():
        for own, p in zip(net.net.linear.parameters(), net.heads["balanced"].parameters(), strict=True):
            p.copy_(own.flip(0))  # as sure as the net, of other classes
    losses = algorithm(batch, net, net)
    losses.total.backward()

    w, b = (p.detach().double().numpy() for p in net.heads["balanced"].parameters())
    with torch.no_grad():
        x, weak, strong = (net.features(view).double().numpy() for view in (*batch.x, *batch.u))
    value, gradient, counted = 0.0, np.zeros_like(w), 0
    for rows, classes, counts in (
        (x, batch.y.tolist(), [True] * 6),
        (strong, softmax(weak @ w.T + b).argmax(1), softmax(weak @ w.T + b).max(1) >= 0.45),
    ):
        for f, k, count in zip(rows, classes, counts, strict=True):
            p = softmax(w @ f + b)
            value += count * share[k] * -np.log(p[k]) / len(rows)
            gradient += count * share[k] * np.outer(p - np.eye(K)[k], f) / len(rows)
        counted += sum(counts)
    assert 6 < counted < 18
    assert float(losses.log["balanced"]) == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(net.heads["balanced"].weight.grad, gradient, rtol=1e-4, atol=1e-7)
    assert float(losses.total.detach()) == pytest.approx(
        float(losses.log["loss_x"] + losses.log["loss_u"]) + value, rel=1e-5
    )


@pytest.mark.slow
def test_the_composition_s_head_is_trained_averaged_saved_and_asked(
    composed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[Any] = []
    step = Trainer.step

    def watched(self: Trainer, number: int) -> None:
        before.append(self.model.heads["balanced"].weight.detach().double().numpy().copy())
        step(self, number)

    monkeypatch.setattr(Trainer, "step", watched)
    config = toy_training(composed.Balanced(tau=0.5), steps=40, eval_every=10, save_every=40)
    run = fl.train(config, out=tmp_path / "run", source=toy())
    raw, ema = (run.checkpoint().weights(which) for which in ("raw", "ema"))
    assert config.ema.when == "after" and config.ema.warmup
    seen = [*before[1:], raw["heads.balanced.weight"].double().numpy()]
    average = before[0]
    for number, value in enumerate(seen):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * value
    np.testing.assert_allclose(ema["heads.balanced.weight"], average, rtol=1e-5, atol=1e-6)
    assert abs(seen[-1] - before[0]).max() > 0.05 and abs(seen[-1] - average).max() > 1e-3

    mine, (mean, std) = Run(run.path, (composed.Balanced,)), (run.data["mean"], run.data["std"])
    for number, image in enumerate(toy().test_images[:5]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    pixels = (torch.tensor(toy().test_images) / 255 - torch.tensor(mean)) / torch.tensor(std)
    for which in ("last", "best"):
        weights = mine.checkpoint(which).weights("ema")
        net: Any = nets.build("small-8", classes=K, shape=SHAPE).eval()
        net.load_state_dict({k[4:]: v for k, v in weights.items() if k.startswith("net.")})
        with torch.no_grad():
            features = net.features(pixels.permute(0, 3, 1, 2)).double().numpy()
            own = net.head(torch.tensor(features).float()).softmax(1).numpy()
        w, b = (weights[f"heads.balanced.{name}"].double().numpy() for name in ("weight", "bias"))
        expected = softmax(features @ w.T + b)
        accuracy = 100 * float((expected.argmax(1) == toy().test_labels).mean())
        assert abs(expected - own).max() > 0.005, "the two heads agree, and the test says nothing"

        at = mine.checkpoint(which).step
        (then,) = (r for r in run.metrics("eval") if r["step"] == at)
        assert then["test"]["ema"]["accuracy"] == pytest.approx(accuracy)
        assert evaluate(mine, toy(), checkpoint=which)["accuracy"] == pytest.approx(accuracy)
        told = predict(load_predictor(mine, checkpoint=which), [tmp_path / f"{n}.png" for n in range(5)])
        np.testing.assert_allclose(told.probabilities, expected[:5], atol=1e-5)
        classifier = fl.load(run.path, checkpoint=which, algorithms=(composed.Balanced,))
        np.testing.assert_allclose(classifier.predict_proba(toy().test_images), expected, atol=1e-5)
    assert run.result["accuracy"] == run.metrics("eval")[-1]["test"]["ema"]["accuracy"]
