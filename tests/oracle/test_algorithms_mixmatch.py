"""MixMatch and ReMixMatch with mixing on, against slow loops in NumPy over single images."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from algorithm_oracles import (
    FixedRng,
    K,
    Plain,
    cross_entropy,
    info,
    logits,
    make_batch,
    softmax,
    the_same_on_ranks,
)
from torch import nn

from fewlabels.algorithms import MixMatch, ReMixMatch, remixmatch
from fewlabels.algorithms.mixing import Mix, mix_groups, partners
from fewlabels.algorithms.slots import DistributionAlignment
from fewlabels.inference.model import Model
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Views

B = 5


MODES = {
    "xx.yy": ("x", "y"),
    "xxy.yxy": ("xy", "xy"),
    "xx.yxy": ("x", "xy"),
    "xx.yx": ("x", "x"),
    "xx.": ("x", ""),
    ".yy": ("", "y"),
    "xxy.": ("xy", ""),
    ".yxy": ("", "xy"),
    ".": ("", ""),
}
"""What labeled and what unlabeled images are mixed with, by the name of the mode."""


def sharpen(p: np.ndarray, temperature: float) -> np.ndarray:
    return p ** (1 / temperature) / (p ** (1 / temperature)).sum()


def mixed(mode: str, groups: int, examples: list[tuple[Any, ...]], rng: FixedRng) -> list[tuple[Any, ...]]:
    """Pairs of image and label, group by group: example i with share max(m, 1 - m), its partner with the rest.

    An example of the set that it is mixed with takes the place of its own number in a permutation of the set;
    others take places in order, each group in a permutation of its own.
    """
    out = []
    for i, example in enumerate(examples):
        group, place = divmod(i, B)
        pool = MODES[mode][group > 0]
        if not pool:
            out.append(example)
            continue
        members = {"x": range(B), "y": range(B, groups * B), "xy": range(groups * B)}[pool]
        if pool == "xy":
            partner = rng.orders["mixup"][i]
        elif i in members:
            partner = members[rng.orders[f"mixup-{pool}"][i - members[0]]]
        else:
            partner = members[rng.orders[f"mixup-{pool}-{group}"][place]]
        m = rng.shares[f"mixup-{group}"][place]
        m = max(m, 1 - m)
        out.append(tuple(m * a + (1 - m) * b for a, b in zip(example, examples[partner], strict=True)))
    return out


def arrays(batch: Batch) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    x, *u = (t.double().numpy() for t in (*batch.x, *batch.u))
    return x, np.eye(K)[batch.y.numpy()], u


def test_modes() -> None:
    assert set(MODES) == set(get_args(Mix))


@pytest.mark.parametrize("mix", MODES)
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.9])
def test_mixmatch(mix: Any, progress: float) -> None:
    net = Plain(48)
    rng = FixedRng()
    batch = make_batch(0, B, B, 2, progress)._replace(rng=rng)
    config = MixMatch(beta=0.6, w_match=20, temperature=0.4, ramp_steps=30, mix=mix)
    losses = config.build(info(B, B, steps=100))(batch, net, net)

    x, onehot, u = arrays(batch)
    mean = [sum(softmax(logits(net, view[j])) for view in u) / 2 for j in range(B)]
    guess = [sharpen(p, 0.4) for p in mean]
    examples = list(zip([*x, *u[0], *u[1]], [*onehot, *guess, *guess], strict=True))
    examples = mixed(mix, 3, examples, rng)
    assert rng.parameters == ({(0.6, 0.6)} if mix != "." else set())
    loss_x = np.mean([cross_entropy(label, logits(net, image)) for image, label in examples[:B]])
    loss_u = np.mean([((softmax(logits(net, image)) - label) ** 2).mean() for image, label in examples[B:]])
    weight = 20 * min(1.0, progress * 100 / 30)
    expected = {
        "loss": loss_x + weight * loss_u,
        "loss_x": loss_x,
        "loss_u": loss_u,
        "confidence": np.mean([p.max() for p in mean]),
    }
    assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=1e-5)
    assert losses.pseudo is not None and losses.pseudo.tolist() == [p.argmax() for p in mean]


@pytest.mark.parametrize("mix", MODES)
def test_mixing_is_random_and_stays_within_its_sets(mix: Any) -> None:
    """Images that name their group and number, mixed with the numbers of a batch."""
    rows, groups = 50, 3
    images = [torch.arange(rows * g, rows * (g + 1)).float().view(-1, 1, 1, 1) for g in range(groups)]
    labels = [torch.eye(groups)[g].expand(rows, -1) for g in range(groups)]
    mixed_images, mixed_labels = mix_groups(mix, images, labels, 0.5, Rng(0, 0))
    for g in range(groups):
        pool = MODES[mix][g > 0]
        allowed = {"": [g], "x": [0], "y": [1, 2], "xy": [0, 1, 2]}[pool]
        weight = mixed_labels[g]
        torch.testing.assert_close(weight.sum(1), torch.ones(rows))
        assert (weight[:, g] >= 0.5).all(), "an example has the larger share of itself"
        assert {k for k in range(groups) if (weight[:, k] > 0).any()} == {g, *allowed}
        if not pool:
            assert torch.equal(mixed_images[g], images[g]) and torch.equal(mixed_labels[g], labels[g])
        else:
            assert len(set(weight[:, g].tolist())) > 1 or allowed == [g]
            assert not torch.equal(mixed_images[g], images[g])
    if mix == "xx.yx":
        partners_ = partners(mix, groups, rows, Rng(0, 0))
        assert sorted(partners_[1].tolist()) == list(range(rows)) and not torch.equal(partners_[1], partners_[2])


@pytest.mark.parametrize("config", [MixMatch(), MixMatch(mix="xx.yx"), ReMixMatch(strong_views=2)])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_one_mixes_nothing(config: Any, share: float) -> None:
    logs = []
    for mix in (config.mix, "."):
        torch.manual_seed(0)
        algorithm = replace(config, mix=mix).build(info(B, B))
        batch = make_batch(0, B, B, len(algorithm.views.unlabeled))._replace(rng=FixedRng(share))
        net = Plain(48)
        model = Model(net, algorithm.heads)
        logs.append(dict(algorithm(batch, model, model).log))
    torch.testing.assert_close(logs[0], logs[1])


def aligned(p: np.ndarray, recent: list[np.ndarray], p_data: np.ndarray) -> np.ndarray:
    p_model = np.mean(recent, axis=0)
    q = p * (1e-6 + p_data / p_data.sum()) / (1e-6 + p_model / p_model.sum())
    return q / q.sum()


def rotated(image: np.ndarray, label: int) -> np.ndarray:
    """The original's four: nothing; both axes flipped; transposed, then rows or columns flipped."""
    transposed = image.transpose(0, 2, 1)
    return (image, image[:, ::-1, ::-1], transposed[:, ::-1], transposed[:, :, ::-1])[label]


@pytest.mark.parametrize("redux", ["swap", "mean", "1st"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strong_views": 2},
        {"use_xe": False, "mix": "."},
        {"align": False, "w_rot": 0.0},
        {"w_kl": 0.0, "strong_views": 2},
        {"strong_views": 2, "mix": "xx.yx"},
        {"mix": "xx.yxy", "p_unlabeled": (3.0, 2.0, 1.0, 4.0, 0.0)},
    ],
)
def test_remixmatch(redux: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = Plain(48)
    config = ReMixMatch(redux=redux, ramp_steps=80, temperature=0.6, **{"w_kl": 0.7, "w_rot": 0.3, **options})
    views = 1 + config.strong_views
    algorithm = config.build(info(B, B, steps=100))
    model = Model(net, algorithm.heads)
    recent, p_data = [np.full(K, 1 / K)] * 128, np.full(K, 1 / K)

    for step in range(3):  # the state of the alignment goes on
        rng = FixedRng(seed=step)
        batch = make_batch(step, B, B, views, 0.4)._replace(rng=rng)
        losses = algorithm(batch, model, model)

        x, onehot, u = arrays(batch)
        own = np.array([[softmax(logits(net, image)) for image in view] for view in u])
        if redux == "swap":
            probs = np.array([own[(v + 1) % views] for v in range(views)])
        elif redux == "mean":
            probs = np.array([own.mean(0)] * views)
        else:
            probs = np.array([own[0]] * views)
        p_data = 0.999 * p_data + 0.001 * onehot.mean(0)
        if config.p_unlabeled:
            p_data = np.array([0.3, 0.2, 0.1, 0.4, 0.0])
        guess = [aligned(p, recent, p_data) if config.align else p for p in probs.reshape(-1, K)]
        guess = [sharpen(p, 0.6) for p in guess]
        recent = [*recent[1:], probs.reshape(-1, K).mean(0)]

        examples = list(zip([*x, *np.concatenate(u)], [*onehot, *guess], strict=True))
        examples = mixed(config.mix, 1 + views, examples, rng)
        expected = {"confidence": np.mean(probs.max(-1))}
        expected["loss_x"] = np.mean([cross_entropy(label, logits(net, image)) for image, label in examples[:B]])
        expected["loss_u"] = np.mean(
            [
                cross_entropy(label, logits(net, image))
                if config.use_xe
                else ((softmax(logits(net, image)) - label) ** 2).mean()
                for image, label in examples[B:]
            ]
        )
        expected["loss"] = expected["loss_x"] + 1.5 * 0.5 * expected["loss_u"]
        if config.w_kl:
            expected["loss_kl"] = np.mean([cross_entropy(guess[j], logits(net, u[1][j])) for j in range(B)])
            expected["loss"] += 0.7 * 0.5 * expected["loss_kl"]
        if config.w_rot:
            weight = algorithm.heads["rotation"].weight.detach().double().numpy()
            a = net.a.detach().double().numpy()
            terms = []
            for j, label in enumerate([0, 0, 1, 2, 3]):  # 5 images in four consecutive quarters
                z = weight @ np.tanh(rotated(u[1][j], label).reshape(-1) @ a)
                terms.append(cross_entropy(np.eye(4)[label], z))
            expected["loss_rot"] = np.mean(terms)
            expected["loss"] += 0.3 * expected["loss_rot"]
        assert {name: float(value) for name, value in losses.log.items()} == pytest.approx(expected, rel=2e-5)
        assert losses.pseudo.tolist() == [q.argmax() for q in guess[:B]]


@pytest.mark.slow
def test_distribution_alignment_forgets_after_128_batches() -> None:
    rng = np.random.default_rng(0)
    align = DistributionAlignment(K)
    recent, p_data = [np.full(K, 1 / K)] * 128, np.full(K, 1 / K)
    for step in range(140):
        probs = softmax(rng.normal(size=(6, K)) + np.array([3, 1, 0, 0, 0]))
        y = rng.integers(0, 2, 4)
        p_data = 0.999 * p_data + 0.001 * np.eye(K)[y].mean(0)
        expected = np.stack([aligned(p, recent, p_data) for p in probs])
        got = align.aligned(torch.tensor(probs).float(), torch.eye(K)[torch.tensor(y)])
        np.testing.assert_allclose(got, expected, rtol=1e-4, err_msg=str(step))
        recent = [*recent[1:], probs.mean(0)]
    assert all(abs(p - np.full(K, 1 / K)).max() > 0.01 for p in recent), "no uniform start is left"
    np.testing.assert_allclose(align.recent, recent, rtol=1e-5)
    np.testing.assert_allclose(align.p_data, p_data, rtol=1e-5)
    assert set(align.state_dict()) == {"recent", "p_data"}


CONFIGS = [
    MixMatch(ramp_steps=10),
    ReMixMatch(ramp_steps=10),
    ReMixMatch(ramp_steps=10, redux="1st", strong_views=2),
    MixMatch(ramp_steps=10, mix="xx.yx"),
    MixMatch(ramp_steps=10, mix="xx.yy"),
    ReMixMatch(ramp_steps=10, mix=".yxy", redux="mean", strong_views=2),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_are_one(config: Any, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same global batch: the same losses, gradients and buffers, as the net has no batch norm."""
    torch.manual_seed(0)
    rows, net = 6 * world // 2, Plain(48)
    algorithm = config.build(info(rows, rows))
    batch = make_batch(1, rows, rows, len(algorithm.views.unlabeled))
    model = Model(net, algorithm.heads)
    *_, algorithms = the_same_on_ranks(monkeypatch, world, algorithm, model, batch, grad=(1e-4, 1e-6))
    for mine in algorithms:
        torch.testing.assert_close(mine.state_dict(), algorithm.state_dict(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", [MixMatch(ramp_steps=10), ReMixMatch(ramp_steps=10, redux="1st")])
def test_the_guesses_are_constants(config: Any) -> None:
    """The gradient is the finite difference of the loss while the guesses stay as they are."""
    torch.manual_seed(0)
    net = Plain(48)
    algorithm = config.build(info(B, B))
    batch = make_batch(3, B, B, len(algorithm.views.unlabeled))
    state = copy.deepcopy(algorithm.state_dict())
    model = Model(net, algorithm.heads)
    algorithm(batch, model, model).total.backward()
    analytic = float((net.b.grad * torch.ones_like(net.b)).sum())

    frozen = copy.deepcopy(net)  # what guesses is another net with the same weights

    class Split(nn.Module):
        """Answers calls without gradient from `frozen`, calls with gradient from `net`."""

        dim, heads = net.dim, model.heads

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return net.features(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return net(x) if torch.is_grad_enabled() else frozen(x)

    values = []
    for shift in (1e-2, -1e-2):
        algorithm.load_state_dict(state)
        with torch.no_grad():
            net.b += shift
        values.append(float(algorithm(batch, Split(), Split()).total.detach()))
        with torch.no_grad():
            net.b -= shift
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(analytic, rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("redux", ["swap", "mean", "1st"])
@pytest.mark.parametrize("align", [True, False])
def test_guesses_carry_no_gradient(redux: Any, align: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guessed: list[torch.Tensor] = []
    sharpen = remixmatch.sharpen
    monkeypatch.setattr(remixmatch, "sharpen", lambda p, t: guessed.append(p) or sharpen(p, t))
    net = Plain(48)
    algorithm = ReMixMatch(redux=redux, align=align).build(info(B, B))
    model = Model(net, algorithm.heads)
    algorithm(make_batch(0, B, B, 2), model, model)
    assert [p.requires_grad for p in guessed] == [False]


class Norm(Plain):
    """With batch norm, and a note for each pass whether it moved the running statistics."""

    def __init__(self) -> None:
        super().__init__(48)
        self.norm = nn.BatchNorm1d(self.dim, momentum=0.1)
        self.moves: list[bool] = []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        before = self.norm.running_mean.clone()
        f = self.norm(super().features(x))
        self.moves.append(not torch.equal(before, self.norm.running_mean))
        return f


@pytest.mark.parametrize(
    ("config", "passes"),
    [
        (MixMatch(), [False, False, True, False, False]),
        (ReMixMatch(), [False, False, False, False, True, False]),  # 2 guesses, 3 mixed, rotation
        (ReMixMatch(redux="1st", w_kl=0, w_rot=0), [False, False, False, True]),
        (ReMixMatch(strong_views=3, redux="1st"), [False] * 6 + [True, False]),
    ],
)
def test_which_pass_moves_the_running_statistics(config: Any, passes: list[bool]) -> None:
    net = Norm()
    algorithm = config.build(info(B, B))
    batch = make_batch(0, B, B, len(algorithm.views.unlabeled))
    model = Model(net, algorithm.heads)
    algorithm(batch, model, model).total.backward()
    assert net.moves == passes
    assert net.norm.track_running_stats and net.norm.training


def test_views() -> None:
    assert MixMatch().build(info(4, 4)).views == Views(("weak",), ("weak", "weak"))
    assert ReMixMatch().build(info(4, 4)).views == Views(("weak",), ("weak", "strong"))
    config = MixMatch(labeled_view="strong", second_view="strong")
    assert config.build(info(4, 4)).views == Views(("strong",), ("weak", "strong"))
    assert ReMixMatch(labeled_view="strong").build(info(4, 4)).views == Views(("strong",), ("weak", "strong"))
    views = ReMixMatch(strong_views=3).build(info(4, 4)).views
    assert views == Views(("weak",), ("weak", "strong", "strong", "strong"))


@pytest.mark.parametrize("config", [MixMatch(), ReMixMatch()])
def test_needs_equal_batches(config: Any) -> None:
    name = type(config).__name__
    with pytest.raises(ValueError, match=rf"^{name} needs uratio 1, .* got 7 times as many$"):
        config.build(info(4, 28))


def test_rotation_needs_square_images() -> None:
    with pytest.raises(ValueError, match=r"^ReMixMatch rotates images .* got 4 x 6; resize them, or set w_rot to 0$"):
        ReMixMatch().build(info(4, 4, shape=(3, 4, 6)))
    algorithm = ReMixMatch(w_rot=0).build(info(4, 4, shape=(3, 4, 6)))
    net = Plain(72)
    losses = algorithm(make_batch(0, 4, 4, 2, shape=(3, 4, 6)), net, net)
    assert "loss_rot" not in losses.log
    assert not algorithm.heads


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.0,) * K])
def test_known_shares_are_one_for_each_class(shares: tuple[float, ...]) -> None:
    sentence = rf"^ReMixMatch\.p_unlabeled must have a share for each of the {K} classes, not all of them 0, got \("
    with pytest.raises(ValueError, match=sentence):
        ReMixMatch(p_unlabeled=shares).build(info(4, 4))


def test_known_shares_need_the_alignment() -> None:
    with pytest.raises(ValueError, match=r"^ReMixMatch\.p_unlabeled is what guesses are aligned with, but align is"):
        ReMixMatch(p_unlabeled=(1.0,) * K, align=False).build(info(4, 4))
    with pytest.raises(ValueError, match=r"^ReMixMatch\.p_unlabeled must be .* number of at least 0, got \(-1\.0,"):
        ReMixMatch(p_unlabeled=(-1.0,) * K)
