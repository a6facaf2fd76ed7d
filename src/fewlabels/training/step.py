"""One training step and everything that it touches: data, views, model, average, optimizer."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewlabels import augment, nets
from fewlabels.algorithms.base import Algorithm
from fewlabels.augment.views import View
from fewlabels.config.settings import Curriculum, Train, algorithm_name
from fewlabels.data.features import FeatureStore
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.inference.model import Model, logits_of, make_model
from fewlabels.runtime import parallel
from fewlabels.runtime.allocator import keep_freed_memory
from fewlabels.runtime.device import pick_precision
from fewlabels.runtime.rng import philox, seed_torch
from fewlabels.training import curriculum
from fewlabels.training.batches import BatchLoader
from fewlabels.training.graph import CudaRecorder, Recorder, StepGraph
from fewlabels.training.optim import Average, learning_rate, make_optimizer
from fewlabels.types import Batch, Losses

KEPT, RIGHT = "pseudo/kept", "pseudo/right"
"""Among the sums of the log: what `pseudo_accuracy` is made of."""


class Objective(nn.Module):
    """Model and algorithm as one module, so that both take part in distributed training and in compilation."""

    def __init__(self, model: Model, algorithm: Algorithm) -> None:
        super().__init__()
        self.model, self.algorithm = model, algorithm

    def forward(self, batch: Batch, ema: Model) -> Losses:
        losses: Losses = self.algorithm(batch, self.model, ema)
        return losses


def distributed(objective: Objective, device: torch.device) -> nn.Module:
    """Gradients averaged over the ranks; buffers stay each rank's own, for `Trainer.average_statistics`."""
    ddp = nn.parallel.DistributedDataParallel
    new = "forward_sync_buffers" in signature(ddp).parameters  # the name changed with torch 2.13
    buffers: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": False}
    return ddp(objective, device_ids=[device.index] if device.type == "cuda" else None, **buffers)


class Trainer:
    """The state of a training and its step.

    `source` holds the images, `split` says which are labeled; `mean` and `std` are per channel, in units of
    pixels scaled to [0, 1]. `blank`: without pretrained weights, for a state that is loaded afterwards.
    """

    def __init__(
        self,
        config: Train,
        source: Source,
        split: Split,
        *,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        blank: bool = False,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.config, self.device = config, device
        self.rank, self.world = parallel.rank(), parallel.world()
        for name, value in (("batch", config.batch), ("batch * uratio", config.batch * config.uratio)):
            if value % self.world:
                raise ValueError(f"Train.{name} is {value}, which {self.world} ranks cannot share equally")
            if value % (self.world * config.accumulate):
                own = f"a rank's share of Train.{name}" if self.world > 1 else f"Train.{name}"
                raise ValueError(f"Train.accumulate must divide {own}, {value // self.world}, got {config.accumulate}")
        self.shape, self.classes = source.shape, source.classes
        self.mean, self.std = mean, std

        torch.manual_seed(int(philox(config.seed, "init").integers(2**63)))
        if config.sync_bn and device.type != "cuda":
            raise ValueError(f"Train.sync_bn needs GPUs; the device is {device}")
        self.dtype = dtype = pick_precision(config.precision, device)
        """Of autocast; None for float32."""
        model, algorithm = make_model(config, split, len(source.classes), self.shape, blank=blank, dtype=dtype)
        if config.sync_bn:
            model.net = nets.synchronized(model.net)
            for name, head in dict(model.heads.items()).items():
                model.heads[name] = nets.synchronized(head)
        curriculum.check(config, model.net, self.shape)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        algorithm = algorithm.to(device)
        if algorithm.views.unlabeled and not len(split.unlabeled):
            raise ValueError("there are no unlabeled images left to learn from; use `supervised` or a smaller split")
        self.batches = BatchLoader(
            config, source, split, algorithm.views, device=device, mean=mean, std=std, tokens=algorithm.tokens
        )
        self.objective = Objective(model, algorithm).train()
        self.average = Average(model, config.ema)
        if config.net.recompute:
            for option in ("compile", "graph"):
                if getattr(config, option):
                    raise ValueError(f"Net.recompute does not go with Train.{option}")
            nets.recompute(model.net)
        self.optimizer = make_optimizer(self.objective, config.optim, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
        self.forward: nn.Module = self.objective
        if self.world > 1:
            self.forward = distributed(self.objective, device)
        if config.compile:
            model.compile_features()
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.number = torch.zeros((), dtype=torch.int64, device=device)
        """The step that is being taken."""
        self.decay: float | Tensor = 0.0
        """Of the average in that step; a number on the device where a recorded step reads one that still moves."""
        self.graph = self._graph() if config.graph else None
        self.fitted: Mapping[str, Any] = {}
        """What result.json says of what was fitted before the first step."""
        self.compared: Mapping[str, float] = {}
        """Accuracies in percent of what the training is compared with, for result.json."""
        self.features: FeatureStore | None = None
        """Those of training images, of `training/fitting.py`; of the test images, where the body does not learn:"""
        self.test_features: FeatureStore | None = None
        self.data_seconds = 0.0
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)

    @property
    def images_per_step(self) -> int:
        """Labeled and unlabeled images of one step over all ranks (each counted once, however many views)."""
        return self.config.batch * (1 + self.config.uratio * bool(self.algorithm.views.unlabeled))

    def notes(self) -> list[str]:
        """Sentences that the user should know before the training."""
        notes = [*self.batches.notes, *self.algorithm.notes]
        if self.config.net.pretrained:
            mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
            notes.append(f"{self.config.net.name} starts pretrained; pixels are scaled with mean {mean} and std {std}")
        if self.model.frozen:
            whole = sum(math.prod(p.shape) for p in self.model.net.parameters())
            notes.append(
                f"of its {whole:,} parameters {parameters(self.model.net):,} learn; the others stay as they are"
            )
        if any(augment.drops_colour(cast(View, view), self.shape[0]) for view in self.batches.views.values()):
            notes.append(
                f"images of {self.shape[0]} channels: the strong view moves and cuts them; its colour operations, "
                "which need 1 or 3 channels, leave them as they are"
            )
        return notes

    def remarks(self) -> list[str]:
        """Sentences that the user should know after the training."""
        return self.algorithm.remarks(self.classes)

    @property
    def model(self) -> Model:
        """The model that is trained; `average.model` is its average, in evaluation mode."""
        return self.objective.model

    @property
    def algorithm(self) -> Algorithm:
        return self.objective.algorithm

    def batch(self, step: int, turn: int = 0) -> Batch:
        """The batch of step `step`, or of a turn of it."""
        return self.batches.batch(step, turn)

    def step(self, step: int) -> None:
        """Train one step; `step` counts from 0. Nothing here waits for the device."""
        rate = learning_rate(self.config.optim, step, self.config.steps)
        for group in self.optimizer.param_groups:
            set_rate(group, rate * group.get("scale", 1.0))
        self.number.fill_(step)
        decay = self.average.decay(step)
        if isinstance(self.decay, Tensor):
            self.decay.fill_(decay)
        else:
            self.decay = decay
        probes: list[tuple[Tensor, Tensor]] = []
        for turn in range(turns := self.config.accumulate):
            start = time.perf_counter()
            batch = self.batch(step, turn)
            self.data_seconds += time.perf_counter() - start
            seed_torch(int(batch.rng.generator(f"torch/{self.rank}").integers(2**63)), self.device)
            if self.graph is not None:
                self.graph(batch)
            else:
                self._backward(batch, last=turn + 1 == turns)
            if self.batches.probe is not None:
                probes.append((self.batches.probe[1], batch.y))
        if self.graph is None:
            self._take()
        self._learn(step, probes)
        self._refresh(step + 1)
        self.count += turns

    def _update(self, batch: Batch) -> None:
        """What the device does with a batch; the host decides nothing here, so that it can be recorded."""
        self._backward(batch)
        self._take()

    def _backward(self, batch: Batch, *, last: bool = True) -> None:
        """Add the gradients of a turn, of which ranks exchange the sum in the `last` one."""
        alone = contextlib.nullcontext() if last or self.world == 1 else self.forward.no_sync()  # type: ignore[operator]
        with alone:
            losses: Losses = self.forward(batch, self.average.model)
            total = losses.total if self.config.accumulate == 1 else losses.total / self.config.accumulate
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        self._accumulate(batch.index, losses)

    def _take(self) -> None:
        """Take the step that the gradients say."""
        if self.config.ema.when == "before":
            self.average.update(self.model, self.decay)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.config.ema.when == "after":
            self.average.update(self.model, self.decay)

    def _graph(self) -> StepGraph:
        """Raises ValueError where a step cannot be recorded."""
        name = algorithm_name(self.config.algorithm)
        if self.device.type != "cuda":
            raise ValueError(f"Train.graph needs a GPU; the device is {self.device}")
        if self.algorithm.draws:
            raise ValueError(f"Train.graph: {name} draws random numbers in each step, which cannot be recorded")
        if self.algorithm.waits:
            raise ValueError(f"Train.graph: {name} with these settings waits in each step for numbers of the device")
        if self.config.curriculum != Curriculum():
            raise ValueError("Train.graph records one step, and with a curriculum not all steps have the same images")
        if self.config.accumulate > 1:
            raise ValueError(f"Train.graph records a step in one turn: Train.accumulate is {self.config.accumulate}")
        if self.world > 1 or self.scaler.is_enabled():
            raise ValueError("Train.graph is for one GPU, and not for the precision fp16; try --precision fp32 or bf16")
        return self.recorded_by(CudaRecorder(self.device))

    def recorded_by(self, recorder: Recorder) -> StepGraph:
        """The device's part of a step, with what changes from step to step in tensors that a recording reads."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], device=self.device)
            if "capturable" in group:
                group["capturable"] = True
        if self.config.ema.warmup:
            self.decay = torch.zeros((), device=self.device)
        return StepGraph(self._update, recorder)

    @torch.no_grad()
    def _learn(self, step: int, probes: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Show a learning view how well the averaged model knows the labeled images after a probe of the view.

        probes: images and labels of each turn.
        """
        if probes:
            known = [
                self.average.model.predict(images).softmax(1).gather(1, labels[:, None])[:, 0]
                for images, labels in probes
            ]
            self.batches.learn(step, torch.cat(known))

    @torch.no_grad()
    def _refresh(self, done: int) -> None:
        """Show the algorithm all unlabeled images, as often as it wants; each rank looks at its share of them."""
        every = self.algorithm.refresh_every
        if every is None or done % every:
            return
        loader = self.batches
        rows = loader.unlabeled.to(loader.store.rows_device)
        share = -(-len(rows) // self.world)
        own = torch.arange(self.rank * share, (self.rank + 1) * share, device=rows.device) % len(rows)
        (logits,) = logits_of([self.average.model], loader.normalize, loader.store, rows[own])
        self.algorithm.refresh(parallel.gather(logits)[: len(rows)])

    @torch.no_grad()
    def _pseudo(self, index: Tensor, losses: Losses) -> dict[str, Tensor]:
        """How many pseudo-labels of known truth count, and how many of these are right, as shares of the batch.

        Measured here because no algorithm sees the truth.
        """
        if losses.pseudo is None or not self.batches.truth_known:
            return {}
        truth = self.batches.truth[self.batches.unlabeled[index]]
        kept = (truth >= 0).float() if losses.kept is None else losses.kept * (truth >= 0)
        return {KEPT: kept.mean(), RIGHT: (kept * (losses.pseudo == truth)).mean()}

    def _accumulate(self, index: Tensor, losses: Losses) -> None:
        finite = torch.isfinite(losses.total.detach())
        if not self.scaler.is_enabled():  # fp16 overflows now and then, and its scaler skips those steps
            self.bad_step.copy_(torch.where((self.bad_step < 0) & ~finite, self.number, self.bad_step))
        for name, value in {**losses.log, **self._pseudo(index, losses)}.items():
            if name in self.sums:
                self.sums[name].add_(value)
            else:
                self.sums[name] = value.clone()

    def read_log(self) -> dict[str, Any]:
        """Means of the logged values since the last call, over all ranks, a list for a vector; waits for the device."""
        names = sorted(self.sums)
        if not self.count:
            return {}
        flat = torch.cat([self.sums[n].float().flatten() for n in names])
        sizes = [self.sums[n].numel() for n in names]
        parts = torch.split((parallel.mean(flat) / self.count).cpu(), sizes)
        values = [part.tolist() if self.sums[n].ndim else float(part) for n, part in zip(names, parts, strict=True)]
        self.count = 0
        for value in self.sums.values():
            value.zero_()  # in place: a recorded step adds to it
        means: dict[str, Any] = dict(zip(names, values, strict=True))
        kept, right = means.pop(KEPT, 0.0), means.pop(RIGHT, 0.0)
        return means | ({"pseudo_accuracy": 100 * right / kept} if kept > 0 else {})

    def nonfinite_step(self) -> int | None:
        """First step with a loss that was not finite, on any rank; waits for the device."""
        bad = parallel.maximum(self.bad_step)
        return None if int(bad) < 0 else int(bad)

    def finite(self) -> bool:
        """Whether every weight is a finite number; the same on all ranks, waits for the device."""
        return bool(torch.stack([p.isfinite().all() for p in self.objective.parameters()]).all())

    def average_statistics(self) -> None:
        """Give every rank the mean batch-norm statistics of all ranks, and the mean sums of the open log window."""
        if self.world > 1:
            self.sums = {name: parallel.mean(value) for name, value in self.sums.items()}
            for model in (self.model, self.average.model):
                for buffer in model.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(parallel.mean(buffer))

    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        return {"raw": self.model.learned(), "ema": self.average.model.learned()}

    def state(self) -> dict[str, Any]:
        """All state beside the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "views": self.batches.state(),
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
            "count": self.count,
        }

    def load(self, weights: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        self.model.adopt(weights["raw"])
        self.average.model.adopt(weights["ema"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # set anew in each step; a recorded one reads it here, and not where the saved one lies
        self.algorithm.load_state_dict(state["algorithm"])
        self.batches.views.load_state_dict(state["views"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.sums = {n: v.to(self.device) for n, v in state["sums"].items()}
        self.count = state["count"]


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Give a group of the optimizer its learning rate, in place where a recorded step reads it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def parameters(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad)
