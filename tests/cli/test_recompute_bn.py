"""`fewlabels evaluate --recompute-bn`: the statistics, and that nothing else moves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewlabels as fl
from fewlabels.config.resolve import load_source
from fewlabels.inference.model import load_predictor
from fewlabels.training.batches import BatchLoader
from fewlabels.training.statistics import labeled_batches, recompute_statistics, running_norms
from fewlabels.types import Views

CPU = torch.device("cpu")


def contents(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_statistics_are_means_over_the_batches(digits_run: Any) -> None:
    run = fl.Run(digits_run.path)
    source = load_source(run.config.data)
    model = load_predictor(run)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    norm = running_norms(model.model)[0]
    seen: list[np.ndarray[Any, Any]] = []
    norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].double().numpy()))
    recompute_statistics(model, labeled_batches(run, source, 3, CPU))
    assert [len(x) for x in seen] == [16] * 3
    assert norm.running_mean is not None and norm.running_var is not None
    means = np.mean([x.mean((0, 2, 3)) for x in seen], 0)
    variances = np.mean([x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).var(1, ddof=1) for x in seen], 0)
    np.testing.assert_allclose(norm.running_mean.numpy(), means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), variances, rtol=1e-4)
    moved = {k for k, v in model.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all("running_" in k or "num_batches" in k for k in moved)
    assert norm.momentum == pytest.approx(0.1) and not norm.training


def test_batches_are_those_of_the_training(digits_run: Any) -> None:
    run = fl.Run(digits_run.path)
    source, data = load_source(run.config.data), run.data
    wanted = Views(labeled=("weak",), unlabeled=("weak", "strong"))
    stats = {"mean": tuple(data["mean"]), "std": tuple(data["std"])}
    loader = BatchLoader(run.config, source, run.split, wanted, device=CPU, **stats)
    for step, x in enumerate(labeled_batches(run, source, 4, CPU)):
        assert torch.equal(x, loader.batch(step).x[0])


@pytest.mark.slow
def test_command(digits_run: Any, command: Callable[..., Any]) -> None:
    files = contents(digits_run.path)
    saved = {w: json.loads(command("evaluate", digits_run.path, "--weights", w, "--json").out) for w in ("ema", "raw")}
    said = command("evaluate", digits_run.path, "--recompute-bn", 8, "--json")
    result = json.loads(said.out)
    assert said.code == 0 and said.err == "" and contents(digits_run.path) == files
    bn = result.pop("recompute_bn")
    assert (bn["batches"], bn["images"]) == (8, 128) and set(result) == set(saved["ema"])
    assert {w: pair["saved"] for w, pair in bn["accuracy"].items()} == {w: r["accuracy"] for w, r in saved.items()}
    assert result["accuracy"] == bn["accuracy"]["ema"]["recomputed"] and result["loss"] != saved["ema"]["loss"]
    raw = json.loads(command("evaluate", digits_run.path, "--recompute-bn", 8, "--weights", "raw", "--json").out)
    assert raw["weights"] == "raw" and raw["accuracy"] == bn["accuracy"]["raw"]["recomputed"]
    table = command("evaluate", digits_run.path, "--recompute-bn", 8).out
    assert "batch-norm statistics of 8 batches (128 labeled images)" in table


@pytest.mark.slow
def test_other_images_are_measured_with_the_runs_own_statistics(
    photo_run: Any, photos: Path, command: Callable[..., Any]
) -> None:
    own, other = (
        json.loads(command("evaluate", photo_run.path, "--recompute-bn", 4, "--json", *more).out)
        for more in ((), ("--data", f"{photos}/"))
    )
    assert own == other


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--recompute-bn", 0), "--recompute-bn must be at least 1, got 0"),
        (("--recompute-bn", 1, "--weights", "mean"), "--weights must be ema or raw, got 'mean'"),
    ],
)
def test_refused(words: tuple[Any, ...], sentence: str, digits_run: Any, command: Callable[..., Any]) -> None:
    said = command("evaluate", digits_run.path, *words)
    assert said.code and said.sentence == sentence


@pytest.mark.slow
def test_nets_without_batch_norm_are_refused(command: Callable[..., Any], tmp_path: Path) -> None:
    words = "train supervised --data digits@40 --net convnet-4 --net.stages 1 --steps 2 --batch 4 --no-progress"
    assert command(*words.split(), "--out", tmp_path / "run").code == 0
    said = command("evaluate", tmp_path / "run", "--recompute-bn", 1)
    assert said.code == 2 and said.sentence.startswith("the net has no batch-norm statistics")
