"""Five steps of each method after FixMatch against plain NumPy: what is logged, kept and remembered, and the gradient.

The net has batch norm, and the oracle's net is NumPy's, so that each pass must have the images and the statistics that
the method wants; the running statistics tell which pass moved them. After each step the weights take a step themselves.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import modern_numpy as oracles
import modern_numpy_heads as heads
import modern_numpy_terms as terms
import numpy as np
import pytest
import torch
from algorithm_oracles import K
from modern_numpy import Array, Out, Step
from torch import Tensor, nn

from fewlabels.algorithms import (
    AdaMatch,
    CGMatch,
    CoMatch,
    CRMatch,
    Dash,
    DeFixMatch,
    FreeMatch,
    FullMatch,
    ReFixMatch,
    SequenceMatch,
    ShrinkMatch,
    SimMatch,
    SoftMatch,
)
from fewlabels.inference.model import Model
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Losses

STEPS, TAKEN, B, M, D, N = 6, 5, 4, 8, 8, 9
LABELED = 10

Weights = dict[str, Array]


class Pass(NamedTuple):
    views: tuple[str, ...]
    """Those that go through the net together: "x weak" is one of the labeled images."""
    moves: bool = True
    """Whether they move the running statistics of batch norm."""
    gradient: bool = True
    ema: bool = False
    """Whether they go through the averaged net, in evaluation mode."""


class PatchNet(nn.Module):
    """A linear layer on each quarter of an image of 8 x 8, batch norm, tanh; their mean; a linear head."""

    dim = D

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, D, 4, stride=4, bias=False), nn.BatchNorm2d(D, momentum=0.25)
        self.linear = nn.Linear(D, K)
        with torch.no_grad():
            self.conv.weight.normal_(0, 0.15, generator=g)
            self.norm.weight.uniform_(0.7, 1.5, generator=g)
            self.norm.bias.normal_(0, 0.3, generator=g)
            self.norm.running_mean.normal_(0, 0.2, generator=g)
            self.norm.running_var.uniform_(0.5, 1.5, generator=g)
            self.linear.weight.normal_(0, 2, generator=g)
            self.linear.bias.normal_(0, 0.3, generator=g)
        self.passes: list[tuple[int, bool, bool]] = []

    def maps(self, x: Tensor) -> Tensor:
        self.passes.append((len(x), self.norm.track_running_stats and self.norm.training, torch.is_grad_enabled()))
        return torch.tanh(self.norm(self.conv(x)))

    def features(self, x: Tensor) -> Tensor:
        return self.maps(x).mean((2, 3))

    def head(self, f: Tensor) -> Tensor:
        return self.linear(f)


def weights(model: nn.Module) -> Weights:
    return {name: value.detach().double().numpy().copy() for name, value in model.state_dict().items()}


def through(w: Weights, x: Array, evaluation: bool = False) -> tuple[Out, Array, Array]:
    """The net in NumPy, and the mean and the (unbiased) variance that its batch norm saw."""
    kernel = w["net.conv.weight"].reshape(D, -1)
    z = np.zeros((len(x), D, 2, 2))
    for i in range(2):
        for j in range(2):
            z[:, :, i, j] = x[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(len(x), -1) @ kernel.T
    many = len(x) * 4
    centre, variance = z.sum((0, 2, 3)) / many, np.zeros(D)
    for d in range(D):
        variance[d] = ((z[:, d] - centre[d]) ** 2).sum() / many
    by = (w["net.norm.running_mean"], w["net.norm.running_var"]) if evaluation else (centre, variance)
    maps = np.zeros_like(z)
    for d in range(D):
        scaled = (z[:, d] - by[0][d]) / np.sqrt(by[1][d] + 1e-5)
        maps[:, d] = np.tanh(scaled * w["net.norm.weight"][d] + w["net.norm.bias"][d])
    f = maps.mean((2, 3))
    return Out(f @ w["net.linear.weight"].T + w["net.linear.bias"], f, maps), centre, variance * many / (many - 1)


def image_of(view: str) -> str:
    """Whose images a view has: `x weak alone` is a second pass of `x weak`, `ema weak` another net's."""
    return view.removesuffix(" alone").removeprefix("ema ")


def outputs(w: Weights, ema: Weights, images: Weights, passes: list[Pass]) -> tuple[dict[str, Out], Any]:
    """What each pass says of each of its views, and the mean and variance of the one that moves the statistics."""
    found, moved = {}, None
    for each in passes:
        rows = np.concatenate([images[image_of(view)] for view in each.views])
        out, centre, variance = through(ema if each.ema else w, rows, each.ema)
        if each.moves:
            moved = centre, variance
        start = 0
        for view in each.views:
            end = start + len(images[image_of(view)])
            found[view] = Out(*(part[start:end] for part in out))
            start = end
    return found, moved


def turned(x: Array, quarters: int) -> Array:
    """Images turned counter-clockwise, pixel by pixel."""
    for _ in range(quarters):
        new = np.zeros_like(x)
        for i in range(8):
            for j in range(8):
                new[:, :, i, j] = x[:, :, j, 7 - i]
        x = new
    return x


class Watched(Rng):
    """Remembers what was drawn."""

    def __init__(self, seed: int, step: int) -> None:
        super().__init__(seed, step)
        self.drawn: Weights = {}

    def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
        found = super().uniform(purpose, rows, *shape)
        self.drawn[purpose] = found.double().numpy()
        return found


def make_batch(algorithm: Any, t: int, seed: int) -> tuple[Batch, Weights]:
    """Noise whose views resemble each other; rows of the labeled and of the unlabeled set come twice."""
    g = torch.Generator().manual_seed(100 * seed + t)
    images: dict[str, Tensor] = {}
    for owner, rows, views in (("x ", B, algorithm.views.labeled), ("", M, algorithm.views.unlabeled)):
        plain = torch.randn(rows, 3, 8, 8, generator=g)
        for view in views:
            name = owner + view + (" 2" if owner + view in images else "")
            images[name] = plain + 0.5 * torch.randn(rows, 3, 8, 8, generator=g)
    y = torch.randint(K, (B,), generator=g)
    index, labeled_index = torch.randint(N, (M,), generator=g), torch.randint(LABELED, (B,), generator=g)
    index[-1], labeled_index[-1] = index[0], labeled_index[0]
    x = tuple(image for name, image in images.items() if name.startswith("x "))
    u = tuple(image for name, image in images.items() if not name.startswith("x "))
    rng = Watched(seed, t)
    batch = Batch(x, y, u, index, torch.tensor(t / STEPS), rng, labeled_index)
    arrays = {name: image.double().numpy() for name, image in images.items()}
    some = arrays["weak"][:: M // B]  # spread evenly, so that ranks turn the same ones
    return batch, arrays | {f"turned {k}": turned(some, k) for k in range(4)}


def near(found: Any, expected: Any, what: str) -> None:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}"
    assert (np.abs(found - expected) <= 1e-5 * (1 + np.abs(expected))).all(), f"{what}: {found}, expected {expected}"


class Case(NamedTuple):
    config: Any
    oracle: type[oracles.Oracle]
    passes: list[Pass]
    seed: int = 1
    rare: float = 0.0
    """Taken from the logit of the last class: where it is hardly ever guessed, what is added to shares shows."""


def joint(*views: str) -> list[Pass]:
    return [Pass(views)]


def separate(*views: str) -> list[Pass]:
    """The weak views by themselves."""
    return [Pass(("weak",), moves=False, gradient=False), Pass(tuple(v for v in views if v != "weak"))]


ALL = ("x weak", "weak", "strong")
PAPER = [
    Pass(("x weak alone", "x strong alone"), moves=False),
    Pass(("x weak", "x strong", "weak", "strong")),
]
DEFIX = ("x weak", "x strong", "weak", "strong")
SEQUENCE = ("x weak", "weak", "medium", "strong")
GRAPH = ("x weak", "weak", "strong", "strong 2")
TURNED = tuple(f"turned {k}" for k in range(4))
TEACHER = [
    Pass(("ema weak",), moves=False, gradient=False, ema=True),
    Pass(("ema x weak",), moves=False, gradient=False, ema=True),
    Pass(("x weak", "strong")),
]
QUICK: dict[str, Any] = {"epoch_steps": 1, "wait_epochs": 2, "drop_epochs": 1}
SIM: dict[str, Any] = {"tau": 0.6, "start": 2, "width": 6, "align_slots": 3, "alpha": 0.7}
CO: dict[str, Any] = {"tau": 0.6, "tau_graph": 0.5, "start": 1, "width": 6, "align_slots": 3, "queue_batches": 3}
CG: dict[str, Any] = {"ema_p": 0.6, "votes": 3, "start": 2}

CASES = {
    "freematch": Case(FreeMatch(ema_p=0.5, w_fairness=0.7), oracles.FreeMatch, joint(*ALL)),
    "freematch, soft": Case(FreeMatch(ema_p=0.8, target="soft", temperature=0.7), oracles.FreeMatch, joint(*ALL)),
    "freematch, weak apart": Case(FreeMatch(ema_p=0.5, bn="separate-weak"), oracles.FreeMatch, separate(*ALL)),
    "freematch, clipped": Case(FreeMatch(ema_p=0.5, clip="thresholds", lambda_u=2.0), oracles.FreeMatch, joint(*ALL)),
    "freematch, usb": Case(FreeMatch(ema_p=0.1, clip="usb", quantile=0.8), oracles.FreeMatch, joint(*ALL)),
    "softmatch": Case(SoftMatch(ema_p=0.5), oracles.SoftMatch, joint(*ALL)),
    "softmatch, model": Case(
        SoftMatch(ema_p=0.5, align_to="model", n_sigma=1.0), oracles.SoftMatch, joint(*ALL), rare=11.0
    ),
    "softmatch, aligned": Case(SoftMatch(ema_p=0.3, statistics="aligned"), oracles.SoftMatch, joint(*ALL)),
    "softmatch, none": Case(SoftMatch(ema_p=0.5, align_to="none", target="soft"), oracles.SoftMatch, joint(*ALL)),
    "adamatch": Case(AdaMatch(ema_p=0.5, lambda_u=0.7), oracles.AdaMatch, joint(*ALL)),
    "adamatch, soft": Case(
        AdaMatch(ema_p=0.9, target="soft", temperature=0.6), oracles.AdaMatch, joint(*ALL), rare=11.0
    ),
    "adamatch, paper": Case(AdaMatch(variant="paper", ema_p=0.5), oracles.AdaMatchOfThePaper, PAPER),
    "dash": Case(Dash(**QUICK, gamma=1.2), oracles.Dash, joint(*ALL)),
    "dash, two steps": Case(Dash(epoch_steps=2, wait_epochs=1, drop_epochs=1), oracles.Dash, joint(*ALL)),
    "dash, least": Case(Dash(**QUICK, gamma=1.8, rho_min=0.4), oracles.Dash, joint(*ALL)),
    "dash, labeled": Case(Dash(**QUICK, estimate="labeled", gamma=3.0), oracles.Dash, joint(*ALL)),
    "dash, usb": Case(Dash(**QUICK, variant="usb", gamma=2.5), oracles.Dash, joint(*ALL)),
    "dash, usb, least": Case(Dash(**QUICK, variant="usb", gamma=5.0, rho_min=0.4), oracles.Dash, joint(*ALL)),
    "simmatch": Case(SimMatch(**SIM, lambda_in=0.7), heads.SimMatch, joint(*ALL)),
    "simmatch, epass": Case(
        SimMatch(**SIM | {"start": 0}, epass=True, alignment="authors"), heads.SimMatch, joint(*ALL)
    ),
    "simmatch, usb": Case(
        SimMatch(**SIM, bank_norm="usb", bank_momentum=0.3), heads.SimMatch, joint(*ALL), seed=3, rare=11.0
    ),
    "simmatch, ema": Case(SimMatch(**SIM, teacher="ema", bank_momentum=0.0), heads.SimMatch, TEACHER),
    "comatch": Case(CoMatch(**CO, lambda_c=0.7), heads.CoMatch, joint(*GRAPH)),
    "comatch, usb": Case(
        CoMatch(**CO, activation="relu", alignment="usb"), heads.CoMatch, joint(*GRAPH), seed=3, rare=11.0
    ),
    "comatch, epass": Case(CoMatch(**CO, epass=True, bn="separate-weak"), heads.CoMatch, separate(*GRAPH)),
    "comatch, wraps": Case(CoMatch(**CO | {"queue_batches": 2, "start": None}), heads.CoMatch, joint(*GRAPH)),
    "crmatch": Case(CRMatch(tau=0.8, w_distance=0.7, w_rotation=0.3), heads.CRMatch, joint(*ALL, *TURNED)),
    "crmatch, turned": Case(CRMatch(tau=0.8, w_distance=0), heads.CRMatch, joint(*ALL, *TURNED)),
    "crmatch, apart": Case(CRMatch(tau=0.8, w_rotation=0), heads.CRMatch, joint(*ALL)),
    "defixmatch": Case(DeFixMatch(tau=0.7), terms.DeFixMatch, joint(*DEFIX)),
    "defixmatch, soft": Case(
        DeFixMatch(tau=0.7, target="soft", lambda_u=0.8, bn="separate-weak"), terms.DeFixMatch, separate(*DEFIX)
    ),
    "refixmatch": Case(ReFixMatch(tau=0.8, lambda_u=0.6), terms.ReFixMatch, joint(*ALL)),
    "refixmatch, usb": Case(ReFixMatch(tau=0.7, variant="usb", flexible=True), terms.ReFixMatch, joint(*ALL), 4),
    "sequencematch": Case(SequenceMatch(tau=0.6, lambda_u=0.6), terms.SequenceMatch, joint(*SEQUENCE), 5),
    "sequencematch, fixed": Case(SequenceMatch(tau=0.8, flexible=False), terms.SequenceMatch, joint(*SEQUENCE)),
    "sequencematch, usb": Case(
        SequenceMatch(tau=0.6, flexible=False, variant="usb"), terms.SequenceMatch, joint(*SEQUENCE)
    ),
    "sequencematch, weak apart": Case(
        SequenceMatch(tau=0.7, bn="separate-weak"), terms.SequenceMatch, separate(*SEQUENCE), 5
    ),
    "shrinkmatch": Case(ShrinkMatch(tau=0.85, align_slots=3, ema_p=0.6), heads.ShrinkMatch, joint(*ALL)),
    "shrinkmatch, not aligned": Case(
        ShrinkMatch(tau=0.85, align=False, ema_p=0.6, w_shrink=0.7), heads.ShrinkMatch, joint(*ALL)
    ),
    "fullmatch": Case(FullMatch(tau=0.8, w_negative=0.7, w_meaning=1.3), terms.FullMatch, joint(*ALL)),
    "fullmatch, flexible": Case(FullMatch(tau=0.7, flexible=True, start=2), terms.FullMatch, joint(*ALL), 4),
    "cgmatch": Case(CGMatch(**CG), terms.CGMatch, joint(*ALL)),
    "cgmatch, clipped": Case(
        CGMatch(**CG, clip=True, lambda_h=2.0, lambda_u=0.6), terms.CGMatch, joint(*ALL), rare=11.0
    ),
}


class Trial:
    """A method on its net beside its oracle."""

    def __init__(self, case: Case) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(case.seed)
            told = Info(K, (3, 8, 8), D, torch.full((K,), LABELED // K), N, STEPS, B, M, maps=(2, 2))
            self.algorithm: Any = case.config.build(told).train()
        own, other = (copy.deepcopy(dict(self.algorithm.heads)) for _ in range(2))
        for head in other.values():
            for p in head.parameters():
                p.data += 0.1
        self.net, self.ema_net = PatchNet(case.seed), PatchNet(case.seed + 1)
        with torch.no_grad():
            self.net.linear.bias[-1] -= case.rare
        self.model, self.ema = Model(self.net, own).train(), Model(self.ema_net, other).eval()
        self.passes, self.seed = case.passes, case.seed
        self.oracle = case.oracle(case.config, LABELED, N)
        self.oracle.begin(weights(self.algorithm))

    def step(self, t: int) -> list[float]:
        """All is compared; returns the weights of the unlabeled images. Then the net's weights take a step."""
        batch, images = make_batch(self.algorithm, t, self.seed)
        w, ema = weights(self.model), weights(self.ema)
        self.net.passes.clear(), self.ema_net.passes.clear()
        losses = self.algorithm(batch, self.model, self.ema)
        self.model.zero_grad()
        losses.total.backward()
        still, moved = outputs(w, ema, images, self.passes)
        rows = (batch.y.tolist(), batch.index.tolist(), batch.labeled_index.tolist())
        now = Step(t, STEPS, *rows, batch.rng.drawn, still, still, w, w, ema)  # type: ignore[attr-defined]
        before = copy.deepcopy(self.oracle)
        expected = self.oracle(now)
        self.compare(losses, expected, t)
        self.statistics(w, moved, t)

        def elsewhere(live: Weights) -> float:
            there = now._replace(live=outputs(live, ema, images, self.passes)[0], heads=live)
            return float(copy.deepcopy(before)(there).log["loss"])

        if t > 1:  # when all terms of most methods have begun
            gradient_agrees(self.model, w, elsewhere, t)
        with torch.no_grad():
            for p in self.model.parameters():
                p -= 0.1 * (0 if p.grad is None else p.grad)
        return expected.kept

    def compare(self, losses: Losses, expected: oracles.Result, t: int) -> None:
        assert set(losses.log) == set(expected.log)
        for name, value in expected.log.items():
            near(losses.log[name], value, f"{name} in step {t}")
        near(losses.total.detach(), expected.log["loss"], f"total in step {t}")
        assert losses.pseudo is not None and losses.pseudo.tolist() == expected.pseudo
        near(torch.ones(M) if losses.kept is None else losses.kept, expected.kept, f"kept in step {t}")
        kept, state = self.algorithm.state_dict(), self.oracle.state()
        assert set(kept) == set(state)
        for name, value in state.items():
            near(kept[name], value, f"{name} after step {t}")

    def statistics(self, w: Weights, moved: tuple[Array, Array], t: int) -> None:
        """Which images went through together, in which order, and which pass moved the running statistics."""
        for ema, net in ((False, self.net), (True, self.ema_net)):
            wanted = [p for p in self.passes if p.ema == ema]
            sizes = [sum(B if image_of(v).startswith(("x ", "turned")) else M for v in p.views) for p in wanted]
            assert net.passes == [(n, p.moves, p.gradient) for n, p in zip(sizes, wanted, strict=True)]
        near(self.net.norm.running_mean, 0.75 * w["net.norm.running_mean"] + 0.25 * moved[0], f"mean after step {t}")
        near(self.net.norm.running_var, 0.75 * w["net.norm.running_var"] + 0.25 * moved[1], f"variance after step {t}")
        assert int(self.net.norm.num_batches_tracked) == t + 1  # type: ignore[arg-type]
        for name, value in self.oracle.running.items():
            near(self.model.state_dict()[name], value, f"{name} after step {t}")


def gradient_agrees(model: Model, w: Weights, loss: Any, t: int) -> None:
    """Along a random direction of all weights, by central differences so small that they meet no kink of a ReLU."""
    chance, along = np.random.default_rng(t), 0.0
    ways = [dict(w), dict(w)]
    for name, p in model.named_parameters():
        direction = chance.standard_normal(p.shape)
        for sign, way in zip((1, -1), ways, strict=True):
            way[name] = w[name] + sign * 1e-7 * direction
        along += 0 if p.grad is None else float((p.grad.double().numpy() * direction).sum())
    difference = (loss(ways[0]) - loss(ways[1])) / 2e-7
    assert abs(along - difference) <= 1e-4 * (1 + abs(difference)), f"gradient in step {t}: {along}, {difference}"


@pytest.mark.parametrize("name", CASES)
def test_five_steps(name: str) -> None:
    trial = Trial(CASES[name])
    kept = [weight for t in range(TAKEN) for weight in trial.step(t)]
    assert len(set(kept)) > 1, "the test needs images that count and others"
    assert trial.oracle.margin > 1e-4, f"{trial.oracle.margin} from a threshold: take another seed"
