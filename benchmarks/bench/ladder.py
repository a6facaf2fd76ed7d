"""One FixMatch step with switches, from what the usual code does to what a fast step does.

Our own writing of the usual step: one concatenated forward in float32, an optimizer and an average that walk
over the tensors one by one, four numbers fetched from the device for the progress bar.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewlabels.training.graph import WARM_UP, CudaRecorder

DECAY = 0.999


class Inputs(NamedTuple):
    """What a step sees."""

    x: Tensor
    y: Tensor
    weak: Tensor
    strong: Tensor


@dataclass(frozen=True)
class Switches:
    """What a step does otherwise than the usual one."""

    channels_last: bool = False
    bf16: bool = False
    separate: bool = False
    """The weak view passes alone and without gradient; its batch statistics are its own."""
    foreach: bool = False
    """Average and optimizer over all tensors at once."""
    quiet: bool = False
    """Nothing is fetched from the device."""
    compiled: bool = False
    graph: bool = False
    """The whole step as one CUDA graph."""


class Rung(NamedTuple):
    name: str
    switches: Switches
    tolerance: float
    """Largest `difference` from the rung before; what a switch changes by design is in it."""


def rungs(*, cuda: bool, compiled: bool = True) -> list[Rung]:
    """The ladder; each rung turns on one switch more."""
    first = Switches()
    plan = [
        ("channels-last", "channels_last", 0.01),
        ("bfloat16", "bf16", 0.1),
        ("weak view without gradient", "separate", 0.5),  # other batch statistics, so another training
        ("one operation for average, one for optimizer", "foreach", 0.05),
        ("nothing fetched", "quiet", 0.05),
    ]
    if compiled:
        plan.append(("compiled", "compiled", 0.1))
    if cuda:
        plan.append(("CUDA graph", "graph", 0.05))
    out, now = [Rung("usual: float32, NCHW, one graph, loops, 4 fetched numbers", first, 0.0)], first
    for name, switch, tolerance in plan:
        now = replace(now, **{switch: True})
        out.append(Rung(f"+ {name}", now, tolerance))
    return out


class Step:
    """A training of `net` on fixed batches, each call one step on the next of them.

    Every unlabeled image counts, as with a threshold of 0: the work is the same, and numbers can be compared
    from the first step.
    """

    def __init__(
        self, net: nn.Module, switches: Switches, batches: list[Inputs], device: torch.device, threshold: float = 0.0
    ) -> None:
        self.on, self.device, self.threshold = switches, device, threshold
        layout = torch.channels_last if switches.channels_last else torch.contiguous_format
        self.net = copy.deepcopy(net).to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.batches = [
            Inputs(*(t.to(device, memory_format=layout) if t.ndim == 4 else t.to(device) for t in b)) for b in batches
        ]
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        other = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": other, "weight_decay": 0.0}]
        kind = {"fused": True} if switches.foreach else {"foreach": False}
        self.optimizer = torch.optim.SGD(groups, lr=0.03, momentum=0.9, nesterov=True, **kind)
        self.terms = torch.compile(self._terms) if switches.compiled else self._terms
        self.replay: Callable[[], None] | None = None
        self.count = 0
        self.last = torch.zeros(4, device=device)
        """Loss, its two terms, and the share of images that count, of the last step."""

    def __call__(self) -> None:
        batch = self.batches[self.count % len(self.batches)]
        self.count += 1
        if self.on.graph:
            self._replay(batch)
        else:
            self.train(batch)

    def train(self, batch: Inputs) -> None:
        """Forward, backward, optimizer, average."""
        terms = self.terms(batch)
        terms[0].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average()
        self.last.copy_(terms.detach())
        if not self.on.quiet:
            self.fetched = [t.item() for t in self.last]

    def _terms(self, batch: Inputs) -> Tensor:
        n, m = len(batch.x), len(batch.weak)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on.bf16):
            if self.on.separate:
                with torch.no_grad():
                    guess = self.net(batch.weak)
                logits = self.net(torch.cat((batch.x, batch.strong)))
                labeled, strong = logits.split([n, m])
            else:
                labeled, guess, strong = self.net(torch.cat((batch.x, batch.weak, batch.strong))).split([n, m, m])
        confidence, target = guess.detach().float().softmax(1).max(1)
        mask = (confidence >= self.threshold).float()
        loss_x = F.cross_entropy(labeled.float(), batch.y)
        loss_u = (F.cross_entropy(strong.float(), target, reduction="none") * mask).mean()
        return torch.stack((loss_x + loss_u, loss_x, loss_u, mask.mean()))

    @torch.no_grad()
    def _average(self) -> None:
        old, new = list(self.average.parameters()), list(self.net.parameters())
        if self.on.foreach:
            torch._foreach_lerp_(old, new, 1 - DECAY)
            torch._foreach_copy_(list(self.average.buffers()), list(self.net.buffers()))
            return
        mine, live = self.average.state_dict(), self.net.state_dict()
        for name, _ in self.average.named_parameters():
            mine[name].copy_(mine[name] * DECAY + (1 - DECAY) * live[name])
        for name, _ in self.average.named_buffers():
            mine[name].copy_(live[name])

    def _replay(self, batch: Inputs) -> None:
        """The step as a graph that was captured at the first call, on inputs that stay where they are."""
        if self.replay is None:
            self.static = Inputs(*(t.clone() for t in batch))
            state = copy.deepcopy((self.net.state_dict(), self.average.state_dict()))
            momenta = {p: moment["momentum_buffer"].clone() for p, moment in self.optimizer.state.items()}
            recorder = CudaRecorder(self.device)
            for _ in range(WARM_UP):
                recorder.rehearse(lambda: self.train(self.static))
            self.net.load_state_dict(state[0])
            self.average.load_state_dict(state[1])
            for p, moment in self.optimizer.state.items():
                # none before the first step: SGD starts with the gradient itself
                moment["momentum_buffer"].copy_(momenta.get(p, torch.zeros_like(p)))
            self.replay = recorder.record(lambda: self.train(self.static))
        for static, new in zip(self.static, batch, strict=True):
            static.copy_(new)
        self.replay()

    def loss(self) -> float:
        """The loss of one further step."""
        self()
        return float(self.last[0])


class Training(Protocol):
    """What `lockstep` compares: `Step`, or a trainer's steps."""

    count: int

    @property
    def net(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def loss(self) -> float: ...


@torch.no_grad()
def follow(mine: Training, other: Training) -> None:
    """Give `mine` the weights, the momentum and the count of `other`."""
    mine.count = other.count
    for to, tensor in zip(mine.net.buffers(), other.net.buffers(), strict=True):
        to.copy_(tensor)
    for to, tensor in zip(mine.net.parameters(), other.net.parameters(), strict=True):
        to.copy_(tensor)
        if momentum := other.optimizer.state.get(tensor, {}):
            state = mine.optimizer.state[to]
            state.setdefault("momentum_buffer", torch.zeros_like(to)).copy_(momentum["momentum_buffer"])


def lockstep(one: Training, other: Training, steps: int) -> tuple[list[float], list[float]]:
    """The losses of both over so many steps; every second one starts from the same weights.

    So each loss depends on one update at most. Left alone two trainings drift apart after any rounding, as a
    pseudo-label that flips is a jump.
    """
    curves: tuple[list[float], list[float]] = [], []
    for i in range(steps):
        if i % 2 == 0:
            follow(other, one)
        for training, curve in zip((one, other), curves, strict=True):
            curve.append(training.loss())
    return curves


def difference(one: list[float], other: list[float]) -> float:
    """Mean difference of the losses of a step, relative to their mean."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / sum(map(abs, one))
