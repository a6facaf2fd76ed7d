"""Confidences that can be believed: one temperature for all logits, fitted on validation images."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewlabels.config.resolve import load_source
from fewlabels.data.arrays import in_channels
from fewlabels.inference.model import Predictor
from fewlabels.runs.run import Run

BINS = 15
"""Of the expected calibration error, as Guo et al. have it."""

STEEPEST = 2.0**30
"""The largest inverse temperature that is looked for, and one part in so many its precision."""


class Calibration(NamedTuple):
    """What divides the logits, and what it was fitted on."""

    temperature: float
    images: int
    """Validation images."""
    before: float
    """Their mean cross entropy with the logits as they are, in nats."""
    after: float
    """The same with the temperature; it was fitted to this."""

    def __str__(self) -> str:
        return (
            f"temperature {self.temperature:.4f}, fitted on the run's {self.images} validation images (mean cross "
            f"entropy {self.before:.4f} before, {self.after:.4f} after)"
        )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T > 0 that minimises the mean cross entropy of ``logits / T``.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2. The loss is convex in 1/T, so that the zero of its
    derivative, the mean of ``E_p[z] - z_y``, is found by halving intervals.

    Args:
        logits: ``[N, K]``; labels: int64 ``[N]``.

    Raises:
        ValueError: there is no such T: the classes of all images are right, or the logits no better than chance.
    """
    z = logits.double()
    z = z - z.max(1, keepdim=True).values
    own = z.gather(1, labels[:, None])[:, 0]

    def slope(inverse: float) -> float:
        return float(((inverse * z).softmax(1).mul(z).sum(1) - own).mean())

    if bool((own == 0).all()):
        raise ValueError(f"the net is right about all {len(z)} of them, and no temperature is the best")
    if slope(0.0) >= 0:
        raise ValueError(f"the net is no better than chance on the {len(z)} of them")
    low, high = 0.0, 1.0
    while slope(high) < 0 and high < STEEPEST:
        low, high = high, 2 * high
    while high - low > high / STEEPEST:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> Tensor:
    """Images by confidence, float64 ``[bins, 3]``: of each bin how many there are, how many of them are right, and the
    sum of their confidences.

    Of logits ``[N, K]`` and labels int64 ``[N]``; `bins` of equal width, each without its lower end.
    """
    sure, called = logits.double().softmax(1).max(1)
    which = (sure * bins).ceil().long().clamp(1, bins) - 1
    each = torch.stack((torch.ones_like(sure), (called == labels).double(), sure), 1)
    return torch.zeros(bins, 3, dtype=torch.float64).index_add_(0, which, each)


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error in percent, of logits ``[N, K]`` and labels int64 ``[N]``.

    The mean over the images of ``|accuracy - confidence|`` of the bin that an image's confidence lies in
    (`reliability`). Guo et al. 2017, equation 3.
    """
    return error_of(reliability(logits, labels, bins))


def error_of(counts: Tensor) -> float:
    """`calibration_error` of what `reliability` has counted."""
    return float(100 * (counts[:, 1] - counts[:, 2]).abs().sum() / counts[:, 0].sum())


def calibrate(model: Predictor, run: Run) -> Calibration:
    """The temperature of a model of the run, on the run's validation images, which are read again.

    No other image has a part in it. Raises ValueError where there are none, they are not as they were, or there is no
    best temperature.
    """
    rows = run.split.validation
    if not len(rows):
        raise ValueError(f"--calibrate needs validation images, and {run.path} was trained without any")
    source = load_source(run.config.data, size=model.shape[1:])
    run.split.check_fit(source)
    logits = model.logits(in_channels(source.images[rows], model.shape[0]))
    labels = torch.from_numpy(source.labels[rows])
    try:
        temperature = fit_temperature(logits, labels)
    except ValueError as error:
        raise ValueError(f"the validation images of {run.path} do not calibrate: {error}") from None
    before, after = (F.cross_entropy(logits.double() / t, labels).item() for t in (1.0, temperature))
    return Calibration(temperature, len(rows), before, after)


def calibrated(logits: Tensor, labels: Tensor, by: Calibration) -> dict[str, Any]:
    """What `evaluate` says of logits ``[N, K]`` with the temperature: it, and loss and error with it."""
    scaled = logits.double() / by.temperature
    return {
        "temperature": by.temperature,
        "images": by.images,
        "loss": F.cross_entropy(scaled, labels).item(),
        "ece": calibration_error(scaled, labels),
    }
