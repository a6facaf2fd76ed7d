"""The long-tailed parts under the names of their golden entries: what each entry pins, and how it is compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from golden_recipe import u
from torch import Tensor, nn

from fewlabels.algorithms import FixMatch, Imbalance
from fewlabels.algorithms.adsh import Adaptive
from fewlabels.algorithms.balanced import HEAD
from fewlabels.algorithms.darp import projected, purged
from fewlabels.algorithms.functional import effective_weights, share_of_each
from fewlabels.algorithms.iomatch import OPEN
from fewlabels.algorithms.memory import ClassQueues
from fewlabels.algorithms.slots import Seen, hard
from fewlabels.data.predictions import tail_rates
from fewlabels.runtime.rng import Rng
from fewlabels.types import Batch, Info, Losses, Outputs

Entry = Any
COUNTS = [40, 20, 10, 5, 2]
IMAGES = 30
TAU = 0.6
LABELS = ([0, 0, 1, 0, 2, 4], [0, 1, 3, 0, 1, 2])
LONG = 2**20
"""Steps of a training of which nothing but the first are taken."""


class Toy(nn.Module):
    """The net of the file: a hidden layer whose outputs are the features, a linear head, and those of the part."""

    dim = 8

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.body, self.linear = nn.Linear(6, 8), nn.Linear(8, 5)
        self.heads = nn.ModuleDict(copy.deepcopy(dict(heads)))
        values = [u(101, 6, 8).T, 0.3 * u(102, 8), 2 * u(103, 8, 5).T, 0.3 * u(104, 5)]
        if HEAD in self.heads:
            values += [2 * u(301, 5, 8), 0.3 * u(302, 5)]
        if OPEN in self.heads:
            shapes = [parameter.shape for parameter in self.heads.parameters()]
            values += [(2 if len(s) > 1 else 0.3) * u(820 + i, *s) for i, s in enumerate(shapes)]
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), values, strict=True):
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def features(self, x: Tensor) -> Tensor:
        return self.body(x).relu()

    def head(self, f: Tensor) -> Tensor:
        return self.linear(f)


PARAMETERS = {
    "w1": "body.weight",
    "b1": "body.bias",
    "w2": "linear.weight",
    "b2": "linear.bias",
    "weight": f"heads.{HEAD}.weight",
    "bias": f"heads.{HEAD}.bias",
}


class Drawn(Rng):
    """In place of the random numbers of a step: those of the entry, by the part of their purpose that is its own."""

    def __init__(self, step: int, draws: Mapping[str, Entry]) -> None:
        super().__init__(0, step)
        self.draws = draws

    def uniform(self, purpose: str, rows: int, *shape: int) -> Tensor:
        drawn = self.draws[f"bernoulli_{purpose.removeprefix('abc-')}"]["u"]
        assert (rows, *shape) == (len(drawn),)
        return torch.tensor(drawn)


def close(ours: Any, expected: Any, what: str, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=atol, err_msg=what)


class Steps:
    """Consecutive steps of the toy net: what FixMatch with a part gives, and moves."""

    part = Imbalance()
    steps = LONG
    terms: Mapping[str, str] = {}
    """From the entry's names of further losses to ours."""
    tolerance: Mapping[str, float] = {}
    """Of losses, gradients and weights."""

    def __init__(self, name: str, entry: Entry) -> None:
        self.name, self.entry = name, entry
        told = Info(5, (6, 1, 1), 8, torch.tensor(COUNTS), IMAGES, self.steps, 6, 10)
        self.algorithm: Any = self.config().build(told)
        self.net = Toy(self.algorithm.heads)

    def config(self) -> Any:
        return FixMatch(tau=TAU, imbalance=self.part)

    def parameter(self, name: str) -> nn.Parameter:
        """Of the net, by the entry's name."""
        return self.net.get_parameter(PARAMETERS[name.split(".")[-1]])

    def progress(self, t: int) -> float:
        return t / self.steps

    def index(self, t: int) -> list[int]:
        return list(range(10))

    def check(self) -> None:
        for t, step in enumerate(self.entry["steps"]):
            self.step(step, t)
        for name, sums in self.entry.get("params", {}).items():
            parameter = self.parameter(name).detach().double()
            close(parameter.sum(), sums["sum"], f"sum of {name}", **self.tolerance)
            close(parameter.abs().sum(), sums["abssum"], f"sum of |{name}|", **self.tolerance)

    def step(self, step: Entry, t: int) -> None:
        x, weak, strong = u(200 + 10 * t, 6, 6), 1.5 * u(201 + 10 * t, 10, 6), 1.5 * u(202 + 10 * t, 10, 6)
        y, index = torch.tensor(LABELS[t % 2]), torch.tensor(self.index(t))
        pictures = [torch.from_numpy(np.float32(v)) for v in (x, weak, strong)]
        rng, progress = Drawn(t, step), torch.tensor(self.progress(t))
        batch = Batch((pictures[0],), y, (pictures[1], pictures[2]), index, progress, rng, torch.arange(6))
        losses = self.algorithm(batch, self.net, copy.deepcopy(self.net).requires_grad_(False))
        self.compare(step, losses, t)
        losses.total.backward()
        with torch.no_grad():
            for name, expected in step["grad_abs_sum"].items():
                parameter = self.parameter(name)
                found = torch.zeros(()) if parameter.grad is None else parameter.grad.abs().sum()
                close(found, expected, f"gradient of {name} in step {t}", **self.tolerance)
            for parameter in self.net.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
                    parameter.grad = None

    def compare(self, step: Entry, losses: Losses, t: int) -> None:
        names = {"loss_cls": "loss_x", "loss_cons": "loss_u", "train/sup_loss": "loss_x", "train/unsup_loss": "loss_u"}
        names |= {"train/util_ratio": "mask", **self.terms}
        close(losses.total, step["loss"], f"loss of step {t}", **self.tolerance)
        for name, expected in (step.get("log") or step["losses"]).items():
            if name != "train/total_loss":  # of the step without the part
                close(losses.log[names[name]], expected, f"{name} of step {t}", **self.tolerance)
        assert losses.pseudo is not None and losses.kept is not None
        assert losses.pseudo.tolist() == step["pseudo"], f"pseudo-labels of step {t}"
        if "mask" in step:
            assert losses.kept.tolist() == step["mask"], f"mask of step {t}"


class ABC(Steps):
    part = Imbalance("abc", target="hard", tau=TAU)
    terms: ClassVar = {"train/abc_loss": "loss_abc"}

    def progress(self, t: int) -> float:
        return float(self.entry["epochs"][t] / self.entry["of"])


class DARP(Steps):
    """USB's mask is by the guesses before they are refined, so that it takes the place of ours."""

    part = Imbalance("darp", start=0.0, every=2)
    tolerance: ClassVar = {"rtol": 1e-3, "atol": 1e-3}  # the original's Newton stops early

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, entry)
        self.algorithm.put("select", lambda seen: (seen.weak.logits.detach().softmax(1).amax(1) >= TAU).float())
        close(self.algorithm.imbalance.goal, entry["target"], "wanted images of each class")
        self.algorithm.imbalance.last.values.copy_(torch.tensor(entry["memory"]))  # before the first step

    def index(self, t: int) -> list[int]:
        return list(self.entry["indices"][t])

    def compare(self, step: Entry, losses: Losses, t: int) -> None:
        super().compare(step, losses, t)
        refined, last = self.algorithm.imbalance.refined, self.algorithm.imbalance.last.values
        close(last.sum(0), step["pseudo_orig_sum"], f"guesses of step {t}")
        close(refined, step["pseudo_refine"], f"refined guesses of step {t}", **self.tolerance)


class DASO(Steps):
    """The variant `plain`; another one fails by name."""

    steps = 5
    terms: ClassVar = {"loss_assign": "loss_daso"}

    def __init__(self, name: str, entry: Entry) -> None:
        unknown = entry.keys() - {"queue_length", "pretrain", "dist_period", "plain"}
        assert not unknown, f"{name}: no variant {', '.join(sorted(unknown))} is known here"
        start, every = entry["pretrain"] / self.steps, entry["dist_period"]
        self.part = Imbalance("daso", queue=entry["queue_length"], start=start, every=every, blend=1.5)
        super().__init__(name, {"steps": entry["plain"]})

    def compare(self, step: Entry, losses: Losses, t: int) -> None:
        super().compare(step, losses, t)
        if t:  # a full count is taken over when the next step begins, and there when its last one ends
            before = self.entry["steps"][t - 1]["pl_dist"]
            close(self.algorithm.imbalance.shares, before, f"counts before step {t}")
        if "mask" not in step:
            assert losses.kept is not None
            assert losses.kept.tolist() == [float(c >= TAU) for c in step["confidence"]]


def seen(step: Any, *, features: Entry, logits: Entry, y: list[int], progress: float, rng: Rng, net: Any) -> Seen:
    """A step that has gone through the net: by name of a view, its features and its logits."""

    def outputs(view: str) -> Outputs:
        values = [torch.as_tensor(np.float32(given[view])) for given in (features, logits)]
        return Outputs(*(value.clone().requires_grad_() for value in values))

    weak, count = outputs("weak"), len(logits["weak"])
    batch = Batch((), torch.tensor(y), (), torch.arange(count), torch.tensor(progress), rng, torch.arange(len(y)))
    probs = weak.logits.detach().softmax(1)
    return Seen((outputs("labeled"),), weak, (outputs("strong"),), probs, batch, net, net, {}, torch.ones(count))


def abc_authors(name: str, entry: Entry) -> None:
    """Each of the two strong views alone, as ours has one and theirs the sum of two."""
    told = Info(5, (6, 1, 1), 8, torch.tensor(COUNTS), IMAGES, LONG, 6, 6)
    step: Any = FixMatch(imbalance=Imbalance("abc", tau=TAU)).build(told)
    labeled, weak, *strong = (np.maximum(u(830 + i, 6, 8) * (1.5 if i == 1 else 1), 0) for i in range(4))
    net, none = Toy(step.heads), np.zeros((6, 5))
    for number, view in enumerate(strong, 1):
        given = seen(
            step,
            features={"labeled": labeled, "weak": weak, "strong": view},
            logits=dict.fromkeys(("labeled", "weak", "strong"), none),
            y=entry["y"],
            progress=0.25,
            rng=Drawn(0, entry),
            net=net,
        )
        loss = step.term_loss_abc(given, none, none)
        expected = entry["loss_labeled"] + entry[f"loss_strong_{number}"]
        close(loss, expected, f"loss of strong view {number}")
        loss.backward()
        for what, where in (("labeled", given.labeled[0]), (f"strong_{number}", given.strong[0])):
            assert where.features.grad is not None
            close(where.features.grad.abs().sum(), entry["grad_abs_sum"][what], f"gradient of {what}")
    sure = net.heads[HEAD](torch.from_numpy(np.float32(weak))).softmax(1).amax(1) >= TAU
    assert sure.tolist() == [bool(kept) for kept in entry["mask"]]
    close(entry["loss"], entry["loss_labeled"] + entry["loss_strong_1"] + entry["loss_strong_2"], "the entry")


def darp_parts(name: str, entry: Entry) -> None:
    table, goal = torch.tensor(entry["probs"]).double(), torch.tensor(entry["target"]).double()
    kept = torch.tensor(entry["selected"]).double() * torch.tensor(entry["weights"]).double()
    expected = table * kept + 1e-6
    found = purged(table, goal, entry["alpha"])
    close(found, expected / expected.sum(1, keepdim=True), "what is left")
    close(found, entry["solver_after_scale"]["probs"], "what is left")
    for solver in ("solver_plain", "solver_after_scale"):
        case = entry[solver]
        probs, goal = torch.tensor(case["probs"]).double(), torch.tensor(case["target"]).double()
        found = projected(probs, goal, case["iterations"])
        close(found, case["result"], solver, rtol=1e-4, atol=3e-5)
        close(found.sum(0), case["column_sums"], f"{solver}, images of each class", rtol=1e-3)
        close(found.sum(1), np.ones(len(probs)), f"{solver}, of each image", atol=1e-7)


def daso_queue(name: str, entry: Entry) -> None:
    queues = ClassQueues(len(entry["sequence"][0]["prototypes"]), entry["length"], 2)
    for t, call in enumerate(entry["sequence"]):
        queues.write(torch.tensor(call["features"]), torch.tensor(call["labels"]))
        close(queues.means(), call["prototypes"], f"means after write {t}")


def debiaspl_authors(name: str, entry: Entry) -> None:
    for case in entry:
        settings = {"margin": case["tau"], "momentum": case["momentum"]}
        told = Info(5, (6, 1, 1), 5, torch.tensor(COUNTS), IMAGES, LONG, 1, 10)
        step: Any = FixMatch(tau=case["threshold"], imbalance=Imbalance("debiased", **settings)).build(told)
        if case is not entry[0]:  # the second call goes on
            step.imbalance.q.copy_(torch.tensor(entry[0]["q_hat_after"]))
        logits = {"labeled": np.zeros((1, 5)), "weak": case["weak_logits"], "strong": case["strong_logits"]}
        given = seen(step, features=logits, logits=logits, y=[0], progress=0.0, rng=Rng(0, 0), net=None)
        given = given._replace(probs=step.align(given))
        close(given.probs, case["debiased"], "debiased guesses")
        close(step.imbalance.q, case["q_hat_after"], "q")
        assert hard(given).tolist() == case["pseudo"] and step.select(given).tolist() == case["mask"]
        loss = (step.select(given) * step.unlabeled(given, hard(given))).mean()
        close(loss, case["loss"], "loss")


def saw_weights(name: str, entry: Entry) -> None:
    for case in entry:
        close(effective_weights(torch.tensor(case["counts"])), case["weights"], "weights", rtol=3e-6)


def tras_authors(name: str, entry: Entry) -> None:
    """The second head gives its features for logits."""
    told = Info(5, (6, 1, 1), 5, torch.tensor(entry["counts"]), IMAGES, LONG, 6, 10)
    step: Any = FixMatch(imbalance=Imbalance("tras", tau=entry["threshold"], start=0.0)).build(told)
    close(step.imbalance.shift, entry["adjustment"], "adjustment")
    close(step.imbalance.factor, entry["T_logit"], "T")
    base = {"labeled": np.zeros((6, 5)), "weak": entry["base_weak_logits"], "strong": entry["base_strong_logits"]}
    second = {
        view: entry[f"{'' if view == 'labeled' else 'aux_'}{view}{'_aux' * (view == 'labeled')}_logits"]
        for view in base
    }
    net = Toy({})
    net.heads[HEAD] = nn.Identity()
    given = seen(step, features=second, logits=base, y=entry["y"], progress=0.0, rng=Rng(0, 0), net=net)
    close(step.align(given), entry["base_pseudo_probs"], "guesses of the net's own head")
    loss = step.term_loss_tras(given, None, None)
    close(given.log["mask_tras"], np.mean(entry["aux_mask"]), "mask")
    close(loss, entry["loss_labeled"] + entry["loss_unlabeled"], "loss")
    plain = given._replace(counts=torch.zeros(10))
    close(step.term_loss_tras(plain, None, None), entry["loss_labeled"], "labeled loss")


def adsh_usb(name: str, entry: Entry) -> None:
    """Where the thresholds stand, given USB's share, (count - 1) / images of class 0, or 1; ours is count / images."""
    for case in entry:
        confidence, guess = torch.tensor(case["logits"]).softmax(1).max(1)
        own = guess == 0
        sure = int((own & (confidence >= case["tau_1"])).sum())
        share = torch.tensor((sure - 1) / int(own.sum()) if sure else 1.0, dtype=torch.float64)
        found = share_of_each(confidence, guess, share, 4)
        close(found, case["threshold_after"], "thresholds")
        part = Adaptive(torch.tensor([9, 3, 2, 1]), case["tau_1"])
        part.limits.copy_(torch.tensor(case["threshold_after"]))
        logits = torch.tensor(case["logits"])[:10]
        given = Seen((), Outputs(logits, logits), (), logits.softmax(1), *[None] * 3, {}, torch.ones(10))  # type: ignore[arg-type]
        assert part.select(given).tolist() == case["mask_first10"]


def colearned(entry: Entry) -> Any:
    told = Info(5, (6, 1, 1), 8, torch.tensor(entry["counts"]), IMAGES, LONG, 6, 10)
    step: Any = FixMatch(imbalance=Imbalance("cossl")).build(told)
    return step.imbalance


def cossl_probability(name: str, entry: Entry) -> None:
    close(colearned(entry).chance, entry["blend_probability"], "chance of being blended")


def cossl_sampler(name: str, entry: Entry) -> None:
    """The chances of the images are ours of counting, over their number."""
    images = sum(entry["counts"])
    close(colearned(entry).weights / images, entry["weight_per_class"], "weights")


def crest_pick(name: str, entry: Entry) -> None:
    """USB goes by the number of the class and the ratio of the first and the last count, which is ours by the counts of
    the exponential tail between those."""
    for case in entry:
        first, last, classes = case["labeled_counts"][0], case["labeled_counts"][-1], len(case["labeled_counts"])
        tail = first * (last / first) ** (np.arange(classes) / (classes - 1))
        for order in (np.arange(classes), np.arange(classes)[::-1]):
            picked = np.array(case["available"])[order] * tail_rates(tail[order], case["alpha"])
            assert (picked + 1e-9).astype(int).tolist() == np.array(case["picked"])[order].tolist()


CHECKS: dict[str, Callable[[str, Entry], None]] = {
    "fixmatch": lambda name, entry: Steps(name, entry).check(),
    "abc_usb": lambda name, entry: ABC(name, entry).check(),
    "darp_usb": lambda name, entry: DARP(name, entry).check(),
    "daso_authors": lambda name, entry: DASO(name, entry).check(),
    "abc_authors": abc_authors,
    "darp_parts": darp_parts,
    "daso_queue": daso_queue,
    "debiaspl_authors": debiaspl_authors,
    "saw_weights": saw_weights,
    "tras_authors": tras_authors,
    "adsh_usb": adsh_usb,
    "cossl_probability": cossl_probability,
    "cossl_sampler": cossl_sampler,
    "crest_pick": crest_pick,
}
"""By the name of an entry."""

FAULTS = {
    "daso_usb": "blends with the likenesses of the images of the step before; its queue is that of daso_queue",
    "tras_usb": "its adjustment has the wrong sign, and the second head learns from itself",
}
"""Entries of the file that pin a fault and nothing else, and which."""
