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
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import test_contract_losses as losses
import torch

import fewlabels as fl
from algorithm_cases import Case, quick, toy, toy_training
from fewlabels.run import Run
from fewlabels.step import Trainer

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "CONTRIBUTING.md").read_text().split("## A new algorithm\n")[1].split("\n## ")[0]
EXAMPLE, TRY = re.findall(r"```python\n(.*?)```", SECTION, re.S)
NAME = "mutual_exclusivity"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The printed file as a module that is no part of the package."""
    path = tmp_path_factory.mktemp("elsewhere") / f"{NAME}.py"
    path.write_text(EXAMPLE)
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[NAME]


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
    package = shutil.copytree(Path(fl.__file__).parent, tmp_path / "fewlabels", ignore=shutil.ignore_patterns("*.pyc"))
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
