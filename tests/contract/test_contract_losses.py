"""What holds for one step of every algorithm with each of its choices."""

from __future__ import annotations

import copy
import inspect
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from algorithm_cases import (
    CASES,
    CLASS_LAYERS,
    CLASSES_FIRST,
    EVERY,
    MAIN,
    OF_CLASSES,
    SHAPE,
    UNSURE,
    Case,
    K,
    build,
    info,
    make_batch,
    opinionated,
    starts_low,
    uratio,
    with_heads,
)
from fewlabels.algorithms import Algorithm, Imbalance, functional
from fewlabels.nets import SmallCNN
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Losses

ROWS = 4
every_case = pytest.mark.parametrize("case", EVERY)
every_algorithm = pytest.mark.parametrize("case", MAIN, ids=[case.name for case in MAIN])


def family(case: Case) -> str:
    return str(case.config.name)


def prepared(case: Case, rows: int = ROWS, seed: int = 0) -> tuple[Algorithm, Batch, Any, Any]:
    """The algorithm, a batch, the model, and an averaged model with other weights."""
    unlabeled = rows * uratio(case.config)
    algorithm = build(case.config, info(rows, unlabeled))
    net, ema = (with_heads(opinionated(seed=s), algorithm) for s in (0, 1))
    return algorithm, make_batch(algorithm, rows, unlabeled, seed), net, ema.eval().requires_grad_(False)


def tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tuple(batch))[0] if isinstance(leaf, Tensor)]


def same_bits(a: Any, b: Any) -> bool:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    return True


def gradients(net: nn.Module, losses: Losses) -> dict[str, Tensor]:
    """Of every parameter of the net and of the heads."""
    net.zero_grad(set_to_none=True)
    losses.total.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}


@every_case
def test_the_loss_is_a_finite_scalar_and_trains_the_net_and_the_heads(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    losses = algorithm(batch, net, ema)
    assert losses.total.shape == () and losses.total.dtype == torch.float32 and losses.total.isfinite()
    for name, gradient in gradients(net, losses).items():
        assert gradient.isfinite().all() and gradient.any(), f"no gradient reaches {name}"


@every_case
def test_what_is_trained_is_part_of_the_model(case: Case) -> None:
    """An algorithm has buffers alone: a parameter of its own would be neither averaged nor asked nor in the weights."""
    algorithm, batch, net, _ema = prepared(case)
    assert not list(algorithm.parameters())
    assert not {*algorithm.state_dict()} & {*net.state_dict()}
    assert list(net.heads) == list(algorithm.heads) and all(isinstance(h, nn.Module) for h in algorithm.heads.values())
    with torch.no_grad():
        logits, own = net.predict(batch.x[0]), net(batch.x[0])
    assert logits.shape == own.shape
    # by a head for rare classes; by the direction of the features; or divided
    otherwise = "balanced" in net.heads or case.config.name == "frozen" or algorithm.loss_temperature != 1
    assert torch.equal(logits, own) == (not otherwise)


@every_case
def test_the_unlabeled_images_matter(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    other = batch._replace(u=tuple(u.flip(3) for u in batch.u))
    found = gradients(net, algorithm(batch, net, ema))
    again = gradients(net, build(case.config, algorithm_info(batch))(other, net, ema))
    matters = bool(batch.u) and case.name not in UNSURE
    assert matters == any(not torch.equal(found[name], again[name]) for name in found)
    assert bool(batch.u) == bool(algorithm.views.unlabeled)


def algorithm_info(batch: Batch) -> Any:
    return info(len(batch.y), len(batch.index) or len(batch.y))


@every_case
def test_no_gradient_into_the_averaged_net(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    ema.requires_grad_(True)
    algorithm(batch, net, ema).total.backward()
    assert all(p.grad is None for p in ema.parameters())


def has_teacher(case: Case) -> bool:
    if getattr(case.config, "imbalance", Imbalance()).name in ("daso", "cossl"):
        return True
    return family(case) in ("mean-teacher", "ict") or getattr(case.config, "teacher", "student") != "student"


@every_case
def test_the_averaged_net_matters_where_it_teaches(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    found = float(algorithm(batch, net, ema).total.detach())
    other = with_heads(opinionated(seed=2), algorithm).eval()
    again = float(build(case.config, algorithm_info(batch))(batch, net, other).total.detach())
    assert (found != again) == has_teacher(case)


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """From now on each loss of `functional` refuses targets with gradient; the names of those that were called."""
    called: list[str] = []

    def watched(function: Any) -> Any:
        signature = inspect.signature(function)

        def call(*args: Any, **options: Any) -> Tensor:
            given = signature.bind(*args, **options).arguments
            called.append(function.__name__)
            if "target" in given:
                assert not given["target"].requires_grad, f"gradient into the target of {function.__name__}"
            else:  # a divergence of two predictions: one of them is the target
                assert not all(value.requires_grad for value in given.values())
            return function(*args, **options)

        return call

    losses = {
        function: watched(function)
        for _, function in inspect.getmembers(functional, inspect.isfunction)
        if "target" in inspect.signature(function).parameters and function is not functional.smooth
    }
    losses[functional.kl] = watched(functional.kl)
    for module in [m for name, m in sys.modules.items() if name.startswith("fewlabels.algorithms.")]:
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value in losses:
                monkeypatch.setattr(module, name, losses[value])
    yield called


@every_case
def test_no_gradient_into_the_targets(case: Case, targets: list[str]) -> None:
    algorithm, batch, net, ema = prepared(case)
    losses = algorithm(batch, net, ema)
    assert len(targets) >= 1 + bool(batch.u), "a loss that this test does not see"
    for value in (losses.pseudo, losses.kept):
        assert value is None or not value.requires_grad


TWO_SIDED = [
    case
    for case in CASES
    if family(case) in ("pi-model", "mean-teacher", "fixmatch") and "openset=ova" not in case.name  # its entropy
]


@pytest.mark.parametrize("case", TWO_SIDED, ids=lambda case: case.name)
def test_no_gradient_into_the_view_that_is_guessed_about(case: Case) -> None:
    """Where the first unlabeled view does nothing but give the target of the second."""
    algorithm, batch, net, ema = prepared(case)
    first, second = batch.u
    algorithm(batch._replace(u=(first.requires_grad_(), second.requires_grad_())), net, ema).total.backward()
    assert first.grad is None or not first.grad.any()
    assert second.grad is not None and second.grad.any()


@every_case
def test_what_is_logged(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    losses = algorithm(batch, net, ema)
    for name, value in losses.log.items():
        assert value.shape in ((), (K,)) and not value.requires_grad and value.dtype == torch.float32, name
        assert value.isfinite().all(), name
    assert losses.log["loss"] == losses.total.detach() and "loss_x" in losses.log
    for name in losses.log.keys() & {"mask", "mask_x", "confidence", "confidence_strong"}:
        assert 0 <= losses.log[name] <= 1


def documented() -> dict[str, set[str]]:
    """By name of a value: the algorithms that log it, as docs/logging.md says."""
    text = (Path(__file__).parents[2] / "docs" / "logging.md").read_text()
    table = text.split("## Names by algorithm")[1]
    everyone = {family(case) for case in MAIN}
    found = {}
    for name, who in re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", table, re.M):
        if who.startswith("any with "):
            continue  # of a part
        start, _, rest = who.partition("all but ")
        listed = set(re.split(r", | and ", rest or start))
        assert listed <= everyone | {"all"}, f"docs/logging.md, {name}: {listed - everyone} is no algorithm"
        found[name] = everyone if listed == {"all"} else everyone - listed if rest else listed
    return found


@every_algorithm
def test_logged_values_are_documented(case: Case) -> None:
    """No value is missing in docs/logging.md, and none is there that no choice of options logs."""
    logged: set[str] = set()
    for other in CASES:
        if family(other) == family(case):
            algorithm, batch, net, ema = prepared(other)
            losses = algorithm(batch, net, ema)
            logged |= set(losses.log) | ({"pseudo_accuracy"} if losses.pseudo is not None else set())
    assert logged - of_parts() == {name for name, who in documented().items() if family(case) in who}


def of_parts() -> set[str]:
    """Values that docs/logging.md gives to any algorithm with a part."""
    text = (Path(__file__).parents[2] / "docs" / "logging.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| any with `--(\w+)`", text, re.M)
    assert {part for _, part in rows} == {"imbalance", "missing", "openset"}
    return {name for names, _ in rows for name in re.findall(r"\w+", names)}


@pytest.mark.slow
def test_every_value_of_a_part_is_logged() -> None:
    logged: set[str] = set()
    for case in CASES:
        if family(case) in ("cadr", "fixmatch"):
            algorithm, batch, net, ema = prepared(case)
            logged |= set(algorithm(batch, net, ema).log)
    assert of_parts() <= logged


@every_case
def test_pseudo_labels(case: Case) -> None:
    algorithm, batch, net, ema = prepared(case)
    _, log, pseudo, kept = algorithm(batch, net, ema)
    if pseudo is not None:
        assert pseudo.shape == batch.index.shape and pseudo.dtype == torch.int64
        assert (pseudo >= 0).all() and (pseudo < K).all()
    if kept is not None:
        assert pseudo is not None and kept.shape == batch.index.shape and kept.dtype == torch.float32
        assert (kept >= 0).all() and (kept <= 1).all()
    if "mask" in log:
        assert kept is not None and float(kept.mean()) == pytest.approx(float(log["mask"]), abs=1e-6)
        assert 0 < float(kept.mean()) < 1 or starts_low(case.config), "the test needs images of either kind"


@every_case
def test_the_batch_and_the_nets_are_left_as_they_were(case: Case) -> None:
    """Weights, modes and the average's statistics; one pass alone moves the net's running statistics."""
    algorithm, batch, _, _ = prepared(case)
    net = with_heads(SmallCNN(K, SHAPE[0], width=6), algorithm)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    before = [t.clone() for t in tensors(batch)]
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    average = copy.deepcopy(ema.state_dict())
    algorithm(batch, net, ema).total.backward()
    assert same_bits(tensors(batch), before)
    assert same_bits({name: p.detach() for name, p in net.named_parameters()}, weights)
    assert same_bits(dict(ema.state_dict()), dict(average))
    assert all(m.training and getattr(m, "track_running_stats", True) for m in net.modules())
    assert all(not m.training and getattr(m, "track_running_stats", True) for m in ema.modules())
    passes = {name: int(b) for name, b in net.named_buffers() if name.endswith("num_batches_tracked")}
    assert passes and set(passes.values()) == {1}


@every_case
def test_an_algorithm_says_whether_it_draws(case: Case) -> None:
    """What draws cannot be recorded as a CUDA graph."""
    algorithm, batch, net, ema = prepared(case)
    drawn: list[str] = []

    class Watched(Rng):
        def generator(self, purpose: str) -> np.random.Generator:
            drawn.append(purpose)
            return super().generator(purpose)

    rng = batch.rng
    algorithm(batch._replace(rng=Watched(rng.seed, rng.step, rank=rng.rank, world=rng.world)), net, ema)
    assert algorithm.draws or not drawn
    if case in MAIN:
        assert bool(drawn) == algorithm.draws


@every_case
def test_random_numbers_come_from_the_batch(case: Case) -> None:
    """Seed and step give the loss, whatever the global generators are at; another step gives another mixture."""

    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        algorithm, batch, net, ema = prepared(case)
        return float(algorithm(batch, net, ema).total.detach())

    with torch.random.fork_rng():
        assert loss(1) == loss(2)


@every_case
def test_state_is_in_the_state_dict(case: Case) -> None:
    """An algorithm that is loaded goes on as the one that was saved, which is why resuming is exact."""
    algorithm, batch, net, ema = prepared(case)
    for seed in (1, 2):
        algorithm(make_batch(algorithm, ROWS, len(batch.index), seed), net, ema)
    other = build(case.config, algorithm_info(batch))
    other.load_state_dict(algorithm.state_dict())
    one, two = algorithm(batch, net, ema), other(batch, net, ema)
    assert same_bits(dict(one.log), dict(two.log)) and same_bits(algorithm.state_dict(), other.state_dict())


@every_case
@pytest.mark.parametrize(("rows", "unlabeled"), [(4, 4), (3, 6), (5, 15), (1, 1)])
def test_batches_of_any_size(case: Case, rows: int, unlabeled: int) -> None:
    """Any `uratio`, but for the methods that mix labeled with unlabeled batches; odd batches; single images."""
    if unlabeled != rows and family(case) in ("mixmatch", "realmix", "remixmatch"):
        with pytest.raises(
            ValueError, match=r"^(MixMatch|RealMix|ReMixMatch) needs uratio 1, .*, got \d times as many$"
        ):
            build(case.config, info(rows, unlabeled))
        return
    algorithm = build(case.config, info(rows, unlabeled))
    net, ema = (with_heads(opinionated(seed=s), algorithm) for s in (0, 1))
    for progress in (0.0, 0.5, 0.99):
        losses = algorithm(make_batch(algorithm, rows, unlabeled, progress=progress), net, ema.eval())
        assert losses.total.isfinite()


@every_case
def test_views_are_known(case: Case) -> None:
    views = build(case.config, info(4, 4 * uratio(case.config))).views
    assert isinstance(views.labeled, tuple) and isinstance(views.unlabeled, tuple) and views.labeled
    assert {*views.labeled, *views.unlabeled} <= {"weak", "strong", "medium", *(name for name, _ in views.further)}


PERMUTATION = torch.tensor([1, 2, 0])
"""Class c becomes class PERMUTATION[c]."""


def places(rows: int) -> Tensor:
    """Where the outputs of a layer go, each K of them like the classes; what is left over stays. ``[rows]``"""
    groups = [K * group + PERMUTATION for group in range(rows // K)]
    return torch.cat([*groups, torch.arange(rows // K * K, rows)])


def permuted(net: Any) -> Any:
    other: Any = copy.deepcopy(net)
    with torch.no_grad():
        for name, layer in other.named_modules():
            if name in CLASS_LAYERS:
                for parameter, own in zip(layer.parameters(), net.get_submodule(name).parameters(), strict=True):
                    parameter[places(len(own))] = own
    return other


@every_case
def test_permuting_the_classes_permutes_everything(case: Case) -> None:
    """Over three steps, so that what an algorithm has counted is permuted too."""
    algorithm, batch, net, ema = prepared(case)
    config = case.config
    if shares := getattr(config, "p_unlabeled", ()):
        config = type(config)(**{**vars(config), "p_unlabeled": tuple(shares[c] for c in PERMUTATION.argsort())})
    other = build(config, algorithm_info(batch))
    for seed in (1, 2, 0):
        batch = make_batch(algorithm, ROWS, len(batch.index) or ROWS, seed)
        renamed = batch._replace(y=PERMUTATION[batch.y])
        one, two = algorithm(batch, net, ema), other(renamed, permuted(net), permuted(ema))
        back = {name: value[PERMUTATION] if value.ndim else value for name, value in two.log.items()}
        torch.testing.assert_close(back, dict(one.log), rtol=1e-4, atol=1e-5)
        if one.pseudo is not None:
            assert torch.equal(two.pseudo, PERMUTATION[one.pseudo])
        if one.kept is not None:
            torch.testing.assert_close(two.kept, one.kept)
        for name, value in algorithm.named_buffers():
            by_class = value.ndim > 0 and value.shape[-1] == K
            expected = value[..., PERMUTATION.argsort()] if by_class else value
            if name in CLASSES_FIRST:
                expected = value[PERMUTATION.argsort()]
            if name in OF_CLASSES:
                expected = torch.where(value >= 0, PERMUTATION[value.long()].to(value.dtype), -1)
            torch.testing.assert_close(dict(other.named_buffers())[name], expected, equal_nan=True)
    mine, theirs = permuted(net), copy.deepcopy(net)
    found = gradients(theirs, algorithm(batch, theirs, ema))
    turned = gradients(mine, other(renamed, mine, permuted(ema)))
    for name, gradient in found.items():
        head = name.rpartition(".")[0] in CLASS_LAYERS
        torch.testing.assert_close(
            turned[name][places(len(gradient))] if head else turned[name], gradient, rtol=1e-3, atol=1e-4
        )
