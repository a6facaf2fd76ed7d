"""Batch-norm statistics of a trained model, estimated anew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewlabels.data.source import Source
from fewlabels.inference.model import Predictor, make_model
from fewlabels.runs.run import Run
from fewlabels.training.batches import BatchLoader


def running_norms(net: nn.Module) -> list[_BatchNorm]:
    """The layers of batch normalisation that keep running statistics."""
    return [m for m in net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def labeled_batches(run: Run, source: Source, count: int, device: torch.device) -> Iterator[Tensor]:
    """The labeled images of the first `count` steps of a run in their weak view, normalised, ``[B, C, H, W]`` each.

    `source`: the run's own. Raises ValueError where its split does not fit it any more.
    """
    run.split.check_fit(source)
    data = run.data
    _, algorithm = make_model(run.config, run.split, len(source.classes), source.shape, blank=True)
    loader = BatchLoader(
        run.config,
        source,
        run.split,
        algorithm.views,
        device=device,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        tokens=algorithm.tokens,
    )
    return (loader.labeled_weak(step) for step in range(count))


@torch.no_grad()
def recompute_statistics(model: Predictor, batches: Iterator[Tensor]) -> None:
    """Replace the running statistics of the model's net by means over `batches`, each of one forward pass.

    Mean of the batches' means, and of their unbiased variances, as torch.optim.swa_utils.update_bn does. Other layers
    stay in evaluation mode. RealMix (libml/train.py, ``tune``) moves the old statistics on by 256 such passes with
    momentum 0.001 instead, so that three quarters of them stay.

    Raises ValueError for a net without such statistics.
    """
    net = model.model.net
    if not (norms := running_norms(net)):
        raise ValueError("the net has no batch-norm statistics that could be estimated anew (--recompute-bn)")
    before = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    for x in batches:
        model.model.features(x)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
