from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fewlabels as fl
from fewlabels import nets
from fewlabels.config.settings import Ema, Optim, Train
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.runtime.device import pick_device, pick_precision
from fewlabels.training.optim import Average, learning_rate, make_optimizer
from fewlabels.training.step import Trainer
from fewlabels.types import Losses

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """One weight, one batch-norm-like buffer, one counter."""

    dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("running", torch.tensor([0.0]))
        self.register_buffer("count", torch.tensor(0))

    def put(self, w: float, running: float, count: int) -> None:
        with torch.no_grad():
            self.w.fill_(w)
            self.running.fill_(running)
            self.count.fill_(count)


def averages(config: Ema, values: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    net = Tiny()
    net.put(*values[0])
    average = Average(net, config)  # type: ignore[arg-type]
    out = []
    for step, value in enumerate(values[1:]):
        net.put(*value)
        average.update(net, average.decay(step))
        mine: Any = average.model
        out.append((mine.w.item(), mine.running.item(), int(mine.count)))
    return out


VALUES = [(1.0, 10.0, 0), (2.0, 20.0, 1), (4.0, 40.0, 2), (8.0, 80.0, 3)]


def test_average_by_hand() -> None:
    # w: 0.75*1 + 0.25*2 = 1.25; 0.75*1.25 + 1 = 1.9375; 0.75*1.9375 + 2 = 3.453125
    out = averages(Ema(decay=0.75), VALUES)
    assert [w for w, _, _ in out] == [1.25, 1.9375, 3.453125]
    assert [(b, c) for _, b, c in out] == [(20.0, 1), (40.0, 2), (80.0, 3)]  # live buffers


def test_average_of_buffers_by_hand() -> None:
    out = averages(Ema(decay=0.75, buffers="averaged"), VALUES)
    assert [b for _, b, _ in out] == [12.5, 19.375, 34.53125]
    assert [c for _, _, c in out] == [1, 2, 3]  # whole numbers have no average


def test_average_with_warm_up_by_hand() -> None:
    # decays 1/10, 2/11, then min(0.25, 3/12) = 0.25
    out = averages(Ema(decay=0.25, warmup=True), [(1.0, 0, 0), (2.0, 0, 0), (4.0, 0, 0), (8.0, 0, 0)])
    one = 0.1 * 1 + 0.9 * 2
    two = 2 / 11 * one + 9 / 11 * 4
    assert [w for w, _, _ in out] == pytest.approx([one, two, 0.25 * two + 0.75 * 8], rel=1e-6)


def test_average_is_not_trained_and_evaluates() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    average = Average(net, Ema())  # type: ignore[arg-type]
    assert not average.model.training and not any(p.requires_grad for p in average.model.parameters())
    assert net.training and all(p.requires_grad for p in net.parameters())


def test_cosine_schedule_is_the_original_s() -> None:
    # made by running google-research/fixmatch (fixmatch.py, TensorFlow 1.14): 2^26 images in batches of 64
    golden = {
        0: 1.0,
        64: 0.9999999999991409,
        16777216: 0.9415440651830208,
        33554432: 0.773010453362737,
        50331648: 0.5141027441932217,
        67108864: 0.19509032201612833,
    }
    for images, factor in golden.items():
        assert learning_rate(Optim(lr=0.03), images // 64, 2**20) == pytest.approx(0.03 * factor, rel=1e-12)


def test_warm_up_by_hand() -> None:
    cosine = Optim(lr=0.4, warmup=4)
    assert [learning_rate(cosine, k, 12) for k in range(5)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    # after the warm-up the cosine runs over the 8 steps that are left
    assert learning_rate(cosine, 8, 12) == pytest.approx(0.4 * math.cos(7 / 16 * math.pi * 0.5))
    constant = Optim(lr=0.4, warmup=4, schedule="constant")
    assert [learning_rate(constant, k, 12) for k in range(6)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert learning_rate(Optim(lr=0.4, schedule="constant"), 0, 12) == 0.4
    linear = Optim(lr=0.4, lr_end=0.1, warmup=4, schedule="linear")
    assert [learning_rate(linear, k, 10) for k in (2, 4, 6, 10)] == pytest.approx([0.2, 0.4, 0.3, 0.1])


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("beta2", [0.99, 0.0])
def test_adam_by_hand(name: Literal["adam", "adamw"], beta2: float) -> None:
    """Kingma & Ba 2015, algorithm 1, with the decay in the gradient; Loshchilov & Hutter 2019 with it apart."""
    module = nn.Linear(2, 1)
    w = [p.detach().double().numpy().copy() for p in module.parameters()]
    optim = Optim(name, lr=0.1, weight_decay=0.5, beta1=0.8, beta2=beta2)
    optimizer = make_optimizer(module, optim, CPU)
    m, v = [np.zeros_like(p) for p in w], [np.zeros_like(p) for p in w]
    rng = np.random.default_rng(0)
    eps = 1e-8 if beta2 else 1e-4
    for t in range(1, 4):
        for i, p in enumerate(module.parameters()):
            g = rng.normal(size=p.shape)
            p.grad = torch.from_numpy(g).float()
            decay = 0.5 if p.ndim > 1 else 0.0
            g = g + decay * w[i] if name == "adam" else g
            w[i] -= 0.1 * decay * w[i] if name == "adamw" else 0
            m[i], v[i] = 0.8 * m[i] + 0.2 * g, beta2 * v[i] + (1 - beta2) * g**2
            w[i] -= 0.1 * m[i] / (1 - 0.8**t) / (np.sqrt(v[i] / (1 - beta2**t)) + eps)
        optimizer.step()
    for expected, p in zip(w, module.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_accuracy_of_the_pseudo_labels_is_that_of_the_ones_that_count(short: Callable[..., Train]) -> None:
    t = trainer(short)
    truth = t.batches.truth[t.batches.unlabeled]
    assert set(truth.tolist()) <= set(range(10))
    index = torch.arange(6)
    wrong = (truth[:6] + 1) % 10
    pseudo = torch.where(torch.tensor([True, False, True, True, False, True]), truth[:6], wrong)
    kept = torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    one = torch.tensor(1.0)

    def log(*losses: Losses) -> dict[str, float]:
        for each in losses:
            t._accumulate(index, each)
        t.count = len(losses)
        return t.read_log()

    # counted: 2.5 of weight in each step; right: 1.5 of it in the first
    both = log(Losses(one, {"loss": one}, pseudo, kept), Losses(one, {"loss": one}, wrong, kept))
    assert both == pytest.approx({"loss": 1.0, "pseudo_accuracy": 100 * 1.5 / 5.0})
    assert log(Losses(one, {"loss": one}, pseudo, torch.zeros(6))) == {"loss": 1.0}
    t.batches.truth[t.batches.unlabeled] = -1  # a truth that nobody knows
    assert log(Losses(one, {"loss": one}, pseudo)) == {"loss": 1.0}


@pytest.mark.parametrize("name", ["wrn-10-1", "wrn-10-1-tf", "small-4"])
def test_no_decay_on_biases_and_norms(name: str) -> None:
    net = nets.build(name, classes=3, shape=(3, 8, 8))
    optimizer = make_optimizer(net, Optim(weight_decay=0.1), CPU)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    kinds: dict[type, set[str]] = {}
    for module in net.modules():
        for part, p in module.named_parameters(recurse=False):
            matrix = isinstance(module, nn.Conv2d | nn.Linear) and part == "weight"
            assert decay.pop(id(p)) == (0.1 if matrix else 0.0)
            kinds.setdefault(type(module), set()).add(part)
    assert not decay  # each parameter is in one group, and no other one is
    assert {"weight", "bias"} <= kinds[nn.Linear] and len(kinds) == 3


def test_optimizer_step_by_hand() -> None:
    """Coupled L2 decay, momentum in Nesterov's form as torch and the PyTorch ports have it."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(1.0)
    optimizer = make_optimizer(layer, Optim(lr=0.1, momentum=0.5, weight_decay=0.2), CPU)
    w, velocity = 1.0, 0.0
    for gradient in (3.0, -1.0, 2.0):
        layer.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        g = gradient + 0.2 * w
        velocity = 0.5 * velocity + g
        w -= 0.1 * (g + 0.5 * velocity)
        assert layer.weight.item() == pytest.approx(w, rel=1e-6)


def test_without_momentum_there_is_no_nesterov() -> None:
    assert make_optimizer(nn.Linear(1, 1), Optim(momentum=0), CPU).param_groups[0]["nesterov"] is False


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "mps", "meta", ""])
def test_unknown_device(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^the device must be auto, cpu, cuda or cuda:N, got '{name}'$"):
        pick_device(name)


def test_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"^device cuda:9 is not there: this machine has the CUDA GPUs 0 to 1$"):
        pick_device("cuda:9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"^device cuda is not there: this machine has no usable CUDA GPU$"):
        pick_device("cuda")
    assert pick_device("auto") == CPU


def test_precision() -> None:
    assert pick_precision("auto", CPU) is None and pick_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(ValueError, match="fp16 needs a GPU; on the CPU use fp32 or bf16"):
        pick_precision("fp16", CPU)
    gpu = torch.device("cuda", 0)
    assert pick_precision("fp16", gpu) is torch.float16 and pick_precision("fp32", gpu) is None


def source() -> Source:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(30) % 3
    return Source("noise", ("a", "b", "c"), images, labels, images[:0], labels[:0], Style())


@pytest.mark.parametrize(
    ("name", "capability", "dtype"),
    [("H100", (9, 0), torch.bfloat16), ("T4", (7, 5), torch.float16), ("P100", (6, 0), None)],
)
def test_automatic_precision_is_what_the_gpu_has_units_for(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], dtype: torch.dtype | None
) -> None:
    """torch answers yes for bfloat16 on every GPU, as it can be emulated."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or name == "H100"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", torch.device("cuda", 0)) is dtype


def test_an_algorithm_is_told_of_products_with_fewer_bits(
    short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16, fp16 and TF32; VAT's trial step is then the whole of the original's change over 6: sqrt(64 / 3072)."""
    monkeypatch.setattr("fewlabels.training.step.pick_precision", lambda name, device: DTYPES[name])
    for precision, xi in {"fp32": 1e-6, "auto": 1e-6, "bf16": 0.1443376, "fp16": 0.1443376, "tf32": 0.1443376}.items():
        vat: Any = trainer(short, "vat", precision=precision).algorithm
        assert vat.xi == pytest.approx(xi, rel=1e-6), precision
        assert vat.eps == pytest.approx(0.8660254, rel=1e-6)


DTYPES = {"fp32": None, "auto": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def trainer(short: Callable[..., Train], algorithm: str = "fixmatch", **changes: Any) -> Trainer:
    images = source()
    split = make_split(images, labels=6, seed=1)
    config = short(algorithm, weak="s", shift=1, **{"strong": "affine", **changes})
    return Trainer(config, images, split, device=CPU, mean=(0.5,), std=(0.25,))


def test_batch_is_a_function_of_seed_and_step(short: Callable[..., Train]) -> None:
    one, other = trainer(short), trainer(short)
    other.step(0)  # what happened before does not matter
    a, b = one.batch(5), other.batch(5)
    assert torch.equal(a.index, b.index) and all(
        torch.equal(p, q) for p, q in zip((*a.x, *a.u), (*b.x, *b.u), strict=True)
    )
    third = trainer(short, seed=2).batch(5)
    assert not torch.equal(a.index, third.index) and not torch.equal(a.u[1], third.u[1])
    assert a.progress.item() == np.float32(5 / 12) and a.x[0].shape == (4, 1, 8, 8) and a.u[0].shape == (8, 1, 8, 8)


def test_one_turn_is_two_ranks_of_one(short: Callable[..., Train]) -> None:
    """What a turn sees is what a rank of as many would see, whose batches are tested to make up the whole."""
    turned = trainer(short, batch=4, accumulate=2)
    for turn in range(2):
        own = trainer(short, batch=4)
        own.batches.rank, own.batches.world = turn, 2
        a, b = turned.batch(3, turn), own.batch(3)
        for x, y in zip((*a.x, *a.u, a.y, a.index), (*b.x, *b.u, b.y, b.index), strict=True):
            assert torch.equal(x, y)
        assert len(a.y) == 2
    one, two = (turned.batch(3, turn).rng.uniform("of the algorithm", 2) for turn in range(2))
    assert not torch.equal(one, two) and torch.equal(one, trainer(short).batch(3).rng.uniform("of the algorithm", 2))


def test_epochs_show_every_unlabeled_image_once(short: Callable[..., Train]) -> None:
    t = trainer(short, uratio=1, batch=5)
    rows = torch.cat([t.batch(step).index for step in range(6)])
    assert sorted(rows.tolist()) == list(range(30))


def test_labels_belong_to_the_images(short: Callable[..., Train]) -> None:
    """With views that change nothing, the batch holds the stored pixels, normalised."""
    images = source()
    split = make_split(images, labels=6, seed=1)
    config = short(weak="x", strong="none", shift=0)
    t = Trainer(config, images, split, device=CPU, mean=(0.5,), std=(0.25,))
    batch = t.batch(3)
    pixels = (images.images[..., 0].astype(np.float64) / 255 - 0.5) / 0.25
    for row, y in zip(batch.x[0], batch.y, strict=True):
        (found,) = [i for i in split.labeled if np.allclose(pixels[i], row[0], atol=1e-6)]
        assert images.labels[found] == y
    for row, index in zip(batch.u[0], batch.index, strict=True):
        assert np.allclose(pixels[split.unlabeled[index]], row[0], atol=1e-6)


def test_average_before_and_after_the_step(short: Callable[..., Train]) -> None:
    """ "after": the average takes in the new weights; "before": those that the losses were computed with."""
    for when in ("after", "before"):
        t = trainer(
            short, ema=Ema(decay=0.0, when=when), optim=Optim(lr=0.5)
        )  # decay 0: the average is the last weights
        before = [p.detach().clone() for p in t.model.parameters()]
        t.step(0)
        now = [p.detach().clone() for p in t.model.parameters()]
        expected = now if when == "after" else before
        assert not any(torch.equal(a, b) for a, b in zip(before, now, strict=True) if a.ndim > 1)
        for p, q in zip(t.average.model.parameters(), expected, strict=True):
            torch.testing.assert_close(p, q)


def test_step_uses_the_scheduled_learning_rate(short: Callable[..., Train]) -> None:
    t = trainer(short, optim=Optim(lr=0.5, warmup=2))
    before = [p.detach().clone() for p in t.model.parameters()]
    t.step(0)  # the first step of a warm-up has the rate 0
    assert all(torch.equal(p, q) for p, q in zip(t.model.parameters(), before, strict=True))
    t.step(1)
    assert {g["lr"] for g in t.optimizer.param_groups} == {0.25}


def test_logged_values_are_means_since_the_last_reading(short: Callable[..., Train]) -> None:
    t, losses = trainer(short), []
    t.objective.register_forward_hook(lambda module, args, out: losses.append(out.total.item()))
    for step in range(3):
        t.step(step)
    assert t.read_log()["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert t.read_log() == {}
    t.step(3)
    assert t.read_log()["loss"] == pytest.approx(losses[3], rel=1e-6)


def test_each_rank_and_step_has_noise_of_its_own(short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's generator (dropout) is seeded from seed, step and rank: equal masks on all ranks would be a loss."""
    seeds: list[int] = []
    t = trainer(short)
    monkeypatch.setattr("fewlabels.training.step.seed_torch", lambda seed, device: seeds.append(seed))
    t.world = 2
    for step, rank in ((0, 0), (0, 1), (1, 0), (0, 0)):
        t.rank = rank
        t.step(step)
    assert len(set(seeds[:3])) == 3 and seeds[3] == seeds[0]


def test_first_bad_step_is_remembered(short: Callable[..., Train]) -> None:
    t = trainer(short, optim=Optim(lr=1e30))
    assert t.nonfinite_step() is None and t.finite()
    seen: list[bool] = []
    t.objective.register_forward_hook(lambda module, args, out: seen.append(math.isfinite(out.total.item())))
    for step in range(6):
        t.step(step)
    assert t.nonfinite_step() == seen.index(False) > 0
    assert not t.finite()


@pytest.mark.slow
def test_load_goes_on_bit_for_bit(short: Callable[..., Train]) -> None:
    for algorithm, changes in (("fixmatch", {"strong": "cta"}), ("remixmatch", {})):
        one, two = trainer(short, algorithm, **changes), trainer(short, algorithm, **changes)
        for step in range(4):
            one.step(step)
        two.load(*copy.deepcopy((one.weights(), one.state())))
        for step in range(4, 8):
            one.step(step)
            two.step(step)
        mine, theirs = (flat({"weights": t.weights(), "state": t.state()}) for t in (one, two))
        assert mine.keys() == theirs.keys() and len(mine) > 30
        for name, value in mine.items():
            assert torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name], name


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: v for k, part in items for name, v in flat(part, f"{prefix}/{k}").items()}
    return {prefix: value}


def test_supervised_wants_no_unlabeled_images(short: Callable[..., Train]) -> None:
    t = trainer(short, "supervised")
    batch = t.batch(0)
    assert batch.u == () and len(batch.index) == 0 and t.images_per_step == 4
    assert trainer(short).images_per_step == 12


def test_sync_bn_needs_gpus(short: Callable[..., Train]) -> None:
    with pytest.raises(ValueError, match=r"^Train.sync_bn needs GPUs; the device is cpu$"):
        trainer(short, sync_bn=True)


def test_algorithm_of_one_s_own(short: Callable[..., Train]) -> None:
    """A class with `build` is all it takes."""

    class Loss(fl.Algorithm):
        views = fl.Views(labeled=("weak", "strong"), unlabeled=("weak",))

        def forward(self, batch: fl.Batch, net: Any, ema: Any) -> fl.Losses:
            assert len(batch.x) == 2 and len(batch.u) == 1 and not ema.training
            loss = nn.functional.cross_entropy(net(torch.cat(batch.x)), torch.cat((batch.y, batch.y)))
            return fl.Losses(loss, {"loss": loss.detach()})

    @dataclass(frozen=True, kw_only=True)
    class Mine:
        def build(self, info: fl.Info) -> Any:
            assert info.labeled_counts.tolist() == [2, 2, 2] and info.unlabeled == 30 and info.shape == (1, 8, 8)
            assert (info.batch, info.unlabeled_batch, info.steps, info.classes) == (4, 8, 12, 3)
            return Loss()

    images = source()
    config = replace(short(), algorithm=Mine(), weak="s", strong="affine", shift=1)
    split = make_split(images, labels=6, seed=1)
    t = Trainer(config, images, split, device=CPU, mean=(0.5,), std=(0.25,))
    t.step(0)
    assert t.read_log()["loss"] > 0


class Repeat:
    """Stands for a CUDA graph: what is recorded runs again, on the tensors and numbers that it was made with."""

    rehearsed = recorded = 0

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def rehearse(self, body: Callable[[], None]) -> None:
        self.rehearsed += 1
        body()

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        decay, rates = self.trainer.decay, [group["lr"] for group in self.trainer.optimizer.param_groups]

        def again() -> None:
            self.trainer.decay = decay
            for group, rate in zip(self.trainer.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            body()

        return again


@pytest.mark.slow
@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("algorithm", ["fixmatch", "supervised", "mean-teacher"])
def test_a_recorded_step_is_the_same_step(short: Callable[..., Train], algorithm: str, warmup: bool) -> None:
    """With a recording that runs the body again, on what it was made with, as a CUDA graph does."""
    changes: dict[str, Any] = {"optim": Optim(lr=0.1, warmup=4), "ema": Ema(decay=0.7, warmup=warmup), "steps": 100}
    one, other = trainer(short, algorithm, **changes), trainer(short, algorithm, **changes)
    recorder = Repeat(other)
    other.graph = other.recorded_by(recorder)
    logs: list[dict[str, float]] = []
    written: list[dict[str, torch.Tensor]] = []
    for t in (one, other):
        for step in range(40):
            t.step(step)
            if step in (15, 33, 39):
                logs.append(t.read_log())
                written.append(dict(t.sums))
    assert "loss" in written[4]
    assert all(written[5][name] is value for name, value in written[4].items())  # a real one writes where it wrote
    assert (recorder.rehearsed, recorder.recorded) == (3, 1)  # also while the average warms up, until step 21
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)  # a rate on the device is a float32
    for p, q in zip(one.average.model.parameters(), other.average.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    assert logs[:3] == [pytest.approx(values, rel=1e-4) for values in logs[3:]]


def test_what_cannot_be_recorded(short: Callable[..., Train]) -> None:
    with pytest.raises(ValueError, match=r"^Train\.graph needs a GPU; the device is cpu$"):
        trainer(short, graph=True)
    t = trainer(short, "mixup", ema=Ema())  # as an algorithm from outside, which does not say that it draws
    t.graph = t.recorded_by(Repeat(t))
    for step in range(3):
        t.step(step)
    with pytest.raises(ValueError, match=r"^Train\.graph: this algorithm draws random numbers in each step"):
        t.step(3)


def test_a_recorded_step_finds_its_rate_after_a_resume(short: Callable[..., Train]) -> None:
    """The recording reads the rate where it lies on the device; a saved one comes back on the host."""
    one, other = trainer(short), trainer(short)
    for t in (one, other):
        for group in t.optimizer.param_groups:  # as for a recorded step
            group["lr"] = torch.tensor(group["lr"])
    one.step(0)
    mine = [group["lr"] for group in other.optimizer.param_groups]
    other.load(*copy.deepcopy((one.weights(), one.state())))
    assert all(group["lr"] is rate for group, rate in zip(other.optimizer.param_groups, mine, strict=True))
    one.step(1)
    other.step(1)
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("strong", ["affine", "rand:kekmodel"])
@pytest.mark.parametrize("algorithm", ["fixmatch", "uda", "vat", "mean-teacher"])
def test_a_step_does_not_wait_for_the_device(
    short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch, algorithm: str, strong: str
) -> None:
    """No number, and no size that depends on numbers, is read by the host.

    Nor is a tensor made from Python numbers, which on a GPU waits for its upload.
    """
    names: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    t = trainer(short, algorithm, strong=strong)
    t.step(0)
    for where, name in ((torch, "tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(where, name, lambda *args, **kwargs: pytest.fail("a tensor of Python numbers"))
    with Watch():
        t.step(1)
    assert len(names) > 100
    waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
    assert not [name for name in names if any(wait in name for wait in waits)]
