"""The inputs and weights that the golden numbers were made with, and the original's training loop."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.algorithms import Algorithm
from fewlabels.inference.model import Model
from fewlabels.nets import CNN13, ResNet18, ShakeNet, WideResNetTF
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Losses

STEPS = 2**20
"""train_kimg 65536 in batches that count 64 images each."""


def entries(kind: str) -> dict[str, Any]:
    """All entries of one kind (forward, trajectories, ...) in the JSON files beside this one, by name.

    A name that a file has after another one is FILE/NAME, so that no entry takes the place of another.
    """
    found: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            for name, entry in content.get(kind, {}).items():
                found[f"{path.stem}/{name}" if name in found else name] = entry
    return found


def u(seed: int, *shape: int) -> np.ndarray:
    """The hash of the JSON file: float32 in [-1, 1)."""
    return u64(seed, *shape).astype(np.float32)


def u64(seed: int, *shape: int) -> np.ndarray:
    """The same before it is rounded, float64."""
    h = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(0x9E3779B9 * (seed + 1) % 2**32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h &= np.uint64(2**32 - 1)
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    h &= np.uint64(2**32 - 1)
    h ^= h >> np.uint64(16)
    return (h.astype(np.float64) / 2**32 * 2 - 1).reshape(shape)


def images(seed: int, *shape: int) -> Tensor:
    """``[..., H, W, C]`` of the recipe as ``[..., C, H, W]``."""
    return torch.from_numpy(u(seed, *shape)).movedim(-1, -3).contiguous()


def to_tf(w: Tensor) -> Tensor:
    """A kernel in TensorFlow's layout: [kh, kw, in, out] and [in, out]."""
    return w.permute(2, 3, 1, 0) if w.dim() == 4 else w.t() if w.dim() == 2 else w


def from_tf(w: Tensor) -> Tensor:
    return w.permute(3, 2, 0, 1) if w.dim() == 4 else w.t() if w.dim() == 2 else w


@torch.no_grad()
def fill(parameters: list[nn.Parameter], names: list[str], shapes: list[list[int]] | None = None) -> None:
    """Give the parameters the recipe's weights; their order is that of TensorFlow's variables."""
    assert len(parameters) == len(names)
    for k, (parameter, name) in enumerate(zip(parameters, names, strict=True)):
        shape = list(to_tf(parameter).shape)
        assert shapes is None or shape == shapes[k], name
        s = torch.from_numpy(u(1000 + k, *shape))
        if "kernel" in name:
            w = s * math.sqrt(6 / math.prod(shape[:-1])) * (4 if "dense" in name else 1)
        elif "gamma" in name:
            w = 1 + 0.1 * s
        else:
            w = 0.1 * s
        parameter.copy_(from_tf(w))


def net(config: dict[str, Any], classes: int = 10) -> nn.Module:
    """The net of a golden entry's flags; `arch` is the original's name of it."""
    makers = {"resnet": WideResNetTF, "cnn13": CNN13, "shake": ShakeNet, "res18": ResNet18}
    shape = {"blocks": config["repeat"], "stages": config["scales"]} if config["arch"] in ("resnet", "shake") else {}
    return makers[config["arch"]](classes, 3, config["filters"], **shape)


def statistics(net: nn.Module) -> dict[str, Tensor]:
    """Running statistics under the names of TensorFlow."""
    found: dict[str, Tensor] = {}
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for i, norm in enumerate(norms):
        scope = "classify/batch_normalization" + (f"_{i}" if i else "")
        assert norm.running_mean is not None and norm.running_var is not None
        found[f"{scope}/moving_mean:0"] = norm.running_mean
        found[f"{scope}/moving_variance:0"] = norm.running_var
    return found


class Draws(Rng):
    """In place of a batch's random numbers: those of an entry, or the Beta draws of the recipe and no permutation."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(0, 0)
        self.shares = entry.get("lam", [0.3, 0.9, 0.55, 0.1])
        self.order = entry.get("permutation", [])

    def beta(self, purpose: str, a: float, b: float, rows: int) -> Tensor:
        """The shares of all groups are in one list, those of ``mixup-2`` come third."""
        number = purpose.rpartition("-")[2]
        first = int(number) * rows if number.isdigit() and self.order else 0
        return torch.tensor(self.shares[first : first + rows])

    def permutation(self, purpose: str, n: int) -> Tensor:
        assert len(self.order) == n, f"no permutation of {n} is known"
        return torch.tensor(self.order)


def batch(step: int, unlabeled: int, views: int = 2, steps: int = STEPS) -> Batch:
    """The same batch in every step, of a training of so many."""
    if views == 1:
        pictures: tuple[Tensor, ...] = (images(3, unlabeled, 32, 32, 3),)
    else:
        pictures = tuple(images(3, unlabeled, views, 32, 32, 3).unbind(1))
    progress = torch.tensor(step / steps)
    labels = torch.tensor([0, 3, 6, 4])
    rows = torch.arange(unlabeled)
    return Batch((images(2, 4, 32, 32, 3),), labels, pictures, rows, progress, Rng(0, step), torch.arange(4))


class TFAdam(torch.optim.Optimizer):
    """TensorFlow's Adam, whose epsilon is added to the root of the second moment before its bias is corrected."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.steps += 1
        correction = math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m, v = state.setdefault("m", torch.zeros_like(p)), state.setdefault("v", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - 0.9)
                v.lerp_(p.grad.square(), 1 - 0.999)
                p -= group["lr"] * correction * m / (v.sqrt() + 1e-8)


class Run:
    """SGD with Nesterov momentum, L2 on kernels, cosine; or Adam with a constant rate and decoupled decay, which comes
    before the forward pass. The EMA takes in the weights of before each step.
    """

    def __init__(
        self,
        config: dict[str, Any],
        names: list[str],
        algorithm: Algorithm,
        classes: int = 10,
        adam: bool = False,
    ) -> None:
        self.config, self.algorithm = config, algorithm
        self.net = Model(net(config, classes), algorithm.heads)
        self.parameters = list(self.net.parameters())
        fill(self.parameters, names)
        self.kernels = [p for p in self.parameters if p.dim() > 1]
        rest = [p for p in self.parameters if p.dim() == 1]
        decayed = {"params": self.kernels, "weight_decay": config["wd"]}
        sgd = torch.optim.SGD([decayed, {"params": rest}], lr=1.0, momentum=0.9, nesterov=True)
        self.adam = adam
        self.optimizer: torch.optim.Optimizer = TFAdam(self.parameters) if adam else sgd
        self.ema = [p.detach().clone() for p in self.parameters]
        self.ema_net = copy.deepcopy(self.net)

    def step(self, batch: Batch, factor: Callable[[int, int], float], step: int) -> tuple[Losses, float, float]:
        """Losses, ``sum 0.5 w^2`` over the kernels, and the learning rate."""
        lr = self.config["lr"] * factor(step, STEPS)
        if self.adam:
            with torch.no_grad():
                torch._foreach_mul_(self.kernels, 1 - self.config["wd"] * lr)
        self.net.train()
        self.ema_model().eval()
        losses: Losses = self.algorithm(batch, self.net, self.ema_net)
        decay = sum(float(0.5 * p.detach().double().square().sum()) for p in self.kernels)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        losses.total.backward()
        for shadow, p in zip(self.ema, self.parameters, strict=True):
            shadow.lerp_(p.detach(), 0.001)
        self.optimizer.step()
        return losses, decay, lr

    @torch.no_grad()
    def ema_model(self) -> nn.Module:
        """The averaged weights with the live running statistics."""
        self.ema_net.load_state_dict(self.net.state_dict())
        for p, shadow in zip(self.ema_net.parameters(), self.ema, strict=True):
            p.copy_(shadow)
        return self.ema_net
