"""The evaluation during training: both nets over the same batches, and nothing read before the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabels.config.settings import Data, Train
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.inference import model
from fewlabels.inference.model import logits_of
from fewlabels.training import evaluator as module
from fewlabels.training.evaluator import Evaluator
from fewlabels.training.step import Trainer

CPU = torch.device("cpu")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def source() -> Source:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60, dtype=np.int64) % 6
    return Source("noise", tuple("abcdef"), images, labels, images[:25].copy(), labels[:25], Style())


def evaluator(short: Callable[..., Train], **changes: Any) -> Evaluator:
    images = source()
    split = make_split(images, labels=12, seed=1, valid=7)
    config = short(weak="s", shift=1, strong="none", **changes)
    trainer = Trainer(config, images, split, device=CPU, mean=MEAN, std=STD)
    for step in range(3):
        trainer.step(step)
    return Evaluator(trainer, images, split)


def pixels(images: np.ndarray[Any, Any]) -> Tensor:
    """By hand: (v / 255 - mean) / std, in float64 until the end."""
    return torch.from_numpy((images / 255 - MEAN) / STD).float().permute(0, 3, 1, 2)


@torch.no_grad()
def direct(net: torch.nn.Module, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Accuracy in percent and mean cross entropy, all images at once."""
    training = net.training
    logits = net.eval()(pixels(images)).double().numpy()
    net.train(training)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(len(labels)), labels]).mean()
    return 100 * float((logits.argmax(1) == labels).mean()), float(loss)


def test_both_nets_on_every_part(short: Callable[..., Train]) -> None:
    e, images = evaluator(short), source()
    split = make_split(images, labels=12, seed=1, valid=7)
    record = e.record()
    assert list(record) == ["test", "valid", "train", "score"] and record["score"] == record["valid"]["ema"]["accuracy"]
    parts = {"test": (images.test_images, images.test_labels)}
    for name, rows in (("valid", split.validation), ("train", split.labeled)):
        parts[name] = images.images[rows], images.labels[rows]
    for name, (x, y) in parts.items():
        for which, net in (("ema", e.trainer.average.model), ("raw", e.trainer.model)):
            accuracy, loss = direct(net, x, y)
            assert record[name][which]["n"] == len(y) and "confusion" not in record[name][which]
            assert record[name][which]["accuracy"] == pytest.approx(accuracy)
            assert record[name][which]["loss"] == pytest.approx(loss, rel=1e-4)
    assert record["test"]["ema"]["loss"] != record["test"]["raw"]["loss"]
    assert e.trainer.model.training and not e.trainer.average.model.training


@pytest.mark.parametrize("residency", ["device", "host"])
def test_each_batch_is_gathered_once(
    short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch, residency: Any
) -> None:
    e = evaluator(short, data=Data(residency=residency))
    whole = e.record()
    monkeypatch.setattr(model, "PIXELS_PER_BATCH", 10 * 64)
    taken: list[int] = []
    for store in {id(store): store for store, _, _ in e.parts.values()}.values():
        take = store.take
        monkeypatch.setattr(store, "take", lambda rows, take=take: (taken.append(len(rows)), take(rows))[1])
    record = e.record()
    assert taken == [10, 10, 5, 7, 10, 2]
    for part in e.parts:  # batches of another size change the last bits at most
        for name in ("n", "accuracy", "loss", "macro_f1"):
            assert record[part]["ema"][name] == pytest.approx(whole[part]["ema"][name], rel=1e-5)


def test_nothing_waits_before_all_is_asked_for(short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first value that is read comes after the last net has run."""
    events: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            events.append(str(function))
            return function(*args, **(kwargs or {}))

    e = evaluator(short)
    summary = module.summary
    monkeypatch.setattr(module, "summary", lambda *args: (events.append("summary"), summary(*args))[1])
    with Watch():
        e.record()
    first = events.index("summary")
    assert sum("convolution" in name for name in events) > 10
    assert not any("convolution" in name for name in events[first:])
    assert not any("_local_scalar_dense" in name or "nonzero" in name for name in events[:first])


def test_the_precision_is_the_training_s(short: Callable[..., Train]) -> None:
    e = evaluator(short, precision="bf16")
    x = pixels(source().test_images).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = e.trainer.average.model.net.features(x)  # type: ignore[operator]
    expected = torch.nn.functional.cross_entropy(
        e.trainer.average.model.head(features.float()),  # type: ignore[operator]
        torch.from_numpy(source().test_labels),
    )
    assert features.dtype == torch.bfloat16
    assert e.record()["test"]["ema"]["loss"] == pytest.approx(expected.item(), rel=1e-3)
    _, single = direct(e.trainer.average.model.net, source().test_images, source().test_labels)
    assert e.record()["test"]["ema"]["loss"] != pytest.approx(single, rel=1e-6)


def test_compiled_nets_see_one_shape(short: Callable[..., Train], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    asked: list[dict[str, Any]] = []

    def compiled(function: Any, **options: Any) -> Any:
        asked.append(options)
        return lambda x: (seen.append(tuple(x.shape)), function(x))[1]

    plain = evaluator(short).record()
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(model, "PIXELS_PER_BATCH", 10 * 64)
    e = evaluator(short, compile=True)
    seen.clear()
    record = e.record()
    assert asked[-2:] == [{"dynamic": False}] * 2
    assert len(seen) == 2 * (3 + 1 + 2) and set(seen) == {(10, 3, 8, 8)}
    for part in e.parts:
        for name in ("n", "accuracy", "loss", "macro_f1"):
            assert record[part]["raw"][name] == pytest.approx(plain[part]["raw"][name], rel=1e-5)


def test_rows_may_be_chosen_and_repeated(short: Callable[..., Train]) -> None:
    e = evaluator(short)
    store, rows, _ = e.parts["test"]
    every, raw = logits_of([e.trainer.average.model, e.trainer.model], e.trainer.batches.normalize, store, rows)
    some = torch.tensor([3, 3, 24, 0])
    (chosen,) = logits_of([e.trainer.average.model], e.trainer.batches.normalize, store, some)
    assert chosen.shape == (4, 6) and torch.allclose(chosen, every[some], atol=1e-5) and not torch.equal(every, raw)
