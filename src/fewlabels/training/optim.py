"""The optimizer, its learning rate, and the average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from fewlabels import nets
from fewlabels.algorithms.functional import cosine
from fewlabels.config.settings import Ema, Optim
from fewlabels.runtime.eager import eager

M = TypeVar("M", bound=nn.Module)


def make_optimizer(module: nn.Module, config: Optim, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer; decay on matrices and convolution kernels only, as in the original (not on biases and norms)."""
    groups = nets.parameter_groups(
        module,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        body=config.body,
        bias=config.decay_bias,
    )
    fused = device.type == "cuda"
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return eager(torch.optim.SGD)(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    # without a mean of squares a step is the sign of the gradient (google-research/fixmatch, ab_fixmatch_adam.py)
    eps = 1e-8 if config.beta2 > 0 else 1e-4
    return eager(kind)(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=eps, fused=fused)


def learning_rate(config: Optim, step: int, steps: int) -> float:
    """Learning rate of step `step`, counted from 0."""
    if config.schedule == "cosine":
        return config.lr * cosine(step, steps, config.warmup)
    if step < config.warmup:
        return config.lr * step / config.warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "stairs":
        return config.lr * config.stair ** sum(step >= share * steps for share in config.stairs)
    share = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.lr + (config.lr_end - config.lr) * share


class Average(Generic[M]):
    """Exponential moving average of a model: the net and all heads. A body that does not learn is shared with it."""

    def __init__(self, model: M, config: Ema) -> None:
        frozen: frozenset[str] = getattr(model, "frozen", frozenset())
        shared = {id(v): v for k, v in model.state_dict(keep_vars=True).items() if k in frozen}
        self.model: M = copy.deepcopy(model, shared).requires_grad_(False).eval()
        self.config = config

    def decay(self, step: int) -> float:
        """Weight of the old average in step `step`, counted from 0."""
        return min(self.config.decay, (1 + step) / (10 + step)) if self.config.warmup else self.config.decay

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float | Tensor) -> None:
        """Take in the weights of `model`; `decay` is a number, or one on the device, float32 ``[]``."""
        _approach(*_apart(self.model.parameters(), model.parameters()), decay)
        buffers = _apart(self.model.buffers(), model.buffers())
        for fractions in (True, False):  # apart, as only tensors of one dtype are worked on at once
            old, new = ([b for b in part if b.is_floating_point() == fractions] for part in buffers)
            if fractions and self.config.buffers == "averaged" and old:
                _approach(old, new, decay)
            elif old:
                torch._foreach_copy_(old, new)


def _apart(old: Iterable[Tensor], new: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The pairs that are not one and the same tensor, as those of a shared body are."""
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _approach(old: list[Tensor], new: list[Tensor], decay: float | Tensor) -> None:
    """``old = decay old + (1 - decay) new``, in place."""
    if not old:
        return
    if isinstance(decay, float):
        torch._foreach_lerp_(old, new, 1 - decay)
        return
    way = torch._foreach_sub(new, old)
    torch._foreach_mul_(way, 1 - decay)
    torch._foreach_add_(old, way)
