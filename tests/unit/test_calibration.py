"""Temperature and calibration error against SciPy's minimiser and loops over the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

import fewlabels as fl
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.inference.calibration import calibrate, calibration_error, fit_temperature
from fewlabels.inference.model import load_predictor


def noisy(seed: int, n: int, k: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose softmax the labels are drawn from, times `scale`, which is the right temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 2
    labels = np.array([random.choice(k, p=p) for p in softmax(logits, 1)])
    return torch.from_numpy(logits * scale), torch.from_numpy(labels)


@pytest.mark.parametrize(("seed", "n", "k", "scale"), [(0, 50, 3, 1.0), (1, 400, 10, 4.0), (2, 400, 10, 0.05)])
def test_temperature_is_that_of_a_minimiser(seed: int, n: int, k: int, scale: float) -> None:
    logits, labels = noisy(seed, n, k, scale)
    z, y = logits.numpy(), labels.numpy()

    def loss(log_t: float) -> float:
        return float(-log_softmax(z / np.exp(log_t), 1)[np.arange(n), y].mean())

    theirs = np.exp(minimize_scalar(loss, bounds=(-8, 8), method="bounded", options={"xatol": 1e-9}).x)
    mine = fit_temperature(logits, labels)
    assert mine == pytest.approx(theirs, rel=1e-6)
    assert mine == pytest.approx(scale, rel=0.5)


def test_two_images_by_hand() -> None:
    """Logits (2, 0), one image right and one wrong of four: p = 3/4 at T = 2 / ln 3."""
    logits = torch.tensor([[2.0, 0.0]]).repeat(4, 1)
    assert fit_temperature(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(2 / np.log(3), rel=1e-8)


def test_where_there_is_no_best_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="right about all 2"):
        fit_temperature(logits, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no better than chance on the 2"):
        fit_temperature(logits, torch.tensor([1, 0]))


def test_calibration_error_by_hand() -> None:
    """Guo et al. 2017, equation 3, with 15 bins: 0.9 and 0.88 share (13/15, 14/15], 0.6 lies in (8/15, 9/15]."""
    sure, right = [0.9, 0.88, 0.6, 0.7], [1, 0, 1, 0]
    logits = torch.log(torch.tensor([[p, 1 - p] for p in sure], dtype=torch.float64))
    labels = torch.tensor([0 if r else 1 for r in right])
    by_hand = (2 * abs(0.5 - 0.89) + abs(1 - 0.6) + abs(0 - 0.7)) / 4
    assert calibration_error(logits, labels) == pytest.approx(100 * by_hand)


def test_calibration_error_by_a_loop() -> None:
    logits, labels = noisy(3, 500, 5, 3.0)
    p = softmax(logits.numpy(), 1)
    sure, right = p.max(1), p.argmax(1) == labels.numpy()
    total = 0.0
    for b in range(15):
        inside = (sure > b / 15) & (sure <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(logits, labels) == pytest.approx(100 * total) and total > 0.05


def test_a_run_is_calibrated_on_its_validation_images(digits_run: Any) -> None:
    run = fl.Run(digits_run.path)
    model = load_predictor(run)
    found = calibrate(model, run)
    source = load_source(resolve_data(fl.Data("digits@40-100")))
    rows = run.split.validation
    z, y = model.logits(source.images[rows]).double().numpy(), source.labels[rows]
    best = minimize_scalar(
        lambda t: -log_softmax(z / t, 1)[np.arange(100), y].mean(), bounds=(0.01, 50), method="bounded"
    )
    assert found.images == 100 and found.temperature == pytest.approx(best.x, rel=1e-4)
    assert found.after == pytest.approx(best.fun, abs=1e-9) and found.after < found.before


def test_without_validation_images(photo_run: Any, photos: Path) -> None:
    run = fl.Run(photo_run.path)
    with pytest.raises(ValueError, match=r"--calibrate needs validation images, and .* was trained without any"):
        calibrate(load_predictor(run), run)
