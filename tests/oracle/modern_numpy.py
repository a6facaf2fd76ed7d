"""The methods after FixMatch in plain NumPy, float64, image by image: what weighs and aligns the guesses.

Written from the formulas of the papers and of the authors' code, without looking at the package's own. An oracle is
called once a step and gives the values that are logged, the pseudo-labels and their weights; `state` is what it keeps,
under the names of the buffers. `Step.live` has what the net says with a gradient, `Step.still` what it says without:
the same numbers, unless a test moves the weights of one of them to take a derivative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from algorithm_oracles import K, cross_entropy, softmax

Array = np.ndarray


class Out(NamedTuple):
    """What the net says of the images of one view."""

    z: Array
    """Logits, ``[N, K]``."""
    f: Array
    """Features, ``[N, D]``."""
    maps: Array
    """``[N, D, h, w]``."""


class Step(NamedTuple):
    number: int
    """Counted from 0."""
    steps: int
    y: list[int]
    index: list[int]
    labeled_index: list[int]
    draws: Mapping[str, Array]
    live: Mapping[str, Out]
    still: Mapping[str, Out]
    heads: Mapping[str, Array]
    """Weights of the heads, with gradient."""
    still_heads: Mapping[str, Array]
    ema_heads: Mapping[str, Array]
    """Of the averaged net."""


class Result(NamedTuple):
    log: dict[str, Any]
    pseudo: list[int]
    kept: list[float]


def one_hot(k: int) -> Array:
    return np.array([1.0 if c == k else 0.0 for c in range(K)])


def label_of(p: Array) -> int:
    """The first of the largest."""
    return max(range(len(p)), key=lambda k: (p[k], -k))


def divergence(a: Array, z: Array) -> float:
    """``sum_k a_k (ln a_k - ln b_k)``, b what the logits z say."""
    return float(sum(p * math.log(p) for p in a if p > 0)) + cross_entropy(a, z)


def mean(values: Sequence[Any]) -> Any:
    return sum(values) / len(values)


def sharpened(z: Array, temperature: float) -> Array:
    return softmax(z / temperature)


class Oracle:
    """One method with its settings; `margin` is how near a comparison with a threshold came."""

    def __init__(self, config: Any, labeled: int, unlabeled: int) -> None:
        self.config, self.labeled, self.unlabeled = config, labeled, unlabeled
        self.margin = math.inf
        self.running: dict[str, Array] = {}
        """Running statistics of heads with batch norm, after a call."""

    def begin(self, state: Mapping[str, Array]) -> None:
        """Take over what is random at first."""

    def state(self) -> dict[str, Any]:
        return {}

    def least(self, value: float, threshold: float) -> float:
        """Whether the value is at least the threshold, 1 or 0."""
        self.margin = min(self.margin, abs(value - threshold))
        return float(value >= threshold)

    def target(self, z: Array) -> Array:
        soft = getattr(self.config, "target", "hard") == "soft"
        return sharpened(z, self.config.temperature) if soft else one_hot(label_of(z))

    def frame(self, step: Step, targets: list[Array], kept: list[float], confidence: list[float]) -> dict[str, float]:
        """What all methods log: the labeled loss, the unlabeled one over all images, their sum."""
        loss_x = mean([cross_entropy(one_hot(y), z) for y, z in zip(step.y, step.live["x weak"].z, strict=True)])
        parts = zip(kept, targets, step.live["strong"].z, strict=True)
        loss_u = mean([w * cross_entropy(t, z) for w, t, z in parts])
        loss = loss_x + self.config.lambda_u * loss_u
        return {"loss_x": loss_x, "loss_u": loss_u, "loss": loss, "mask": mean(kept), "confidence": mean(confidence)}


class RunningAlignment:
    """Guesses times the wanted over the running share of each class; the first batch is taken whole."""

    def __init__(self, momentum: float, to: str) -> None:
        self.momentum, self.to = momentum, to
        self.p_model: Array | None = None
        self.p_target = np.full(K, 1 / K)

    def __call__(self, guesses: list[Array], labeled: list[Array]) -> list[Array]:
        m, new = self.momentum, mean(guesses)
        self.p_model = new if self.p_model is None else m * self.p_model + (1 - m) * new
        if self.to == "model":
            self.p_target = m * self.p_target + (1 - m) * mean(labeled)
        aligned = []
        for p in guesses:
            a = np.array([p[k] * (self.p_target[k] + 1e-6) / (self.p_model[k] + 1e-6) for k in range(K)])
            aligned.append(a / a.sum())
        return aligned

    def state(self, owner: str) -> dict[str, Any]:
        return {f"{owner}.p_model": self.p_model, f"{owner}.p_target": self.p_target}


class FreeMatch(Oracle):
    """https://arxiv.org/abs/2205.07246; the fairness term as in TorchSSL and USB."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.time_p = 1 / K
        self.p_model, self.label_hist = np.full(K, 1 / K), np.full(K, 1 / K)

    def state(self) -> dict[str, Any]:
        return {
            "select.time_p": self.time_p,
            "select.p_model": self.p_model,
            "select.label_hist": self.label_hist,
        }

    def __call__(self, step: Step) -> Result:
        c, weak, strong = self.config, step.still["weak"].z, step.live["strong"].z
        guesses = [softmax(z) for z in weak]
        labels, sure = [label_of(p) for p in guesses], [float(p.max()) for p in guesses]
        m, many = c.ema_p, len(guesses)
        new = mean(sure) if c.quantile is None else quantile(sure, c.quantile)
        self.time_p = m * self.time_p + (1 - m) * new
        if c.clip == "usb":
            self.time_p = min(max(self.time_p, 0.0), 0.95)
        self.p_model = m * self.p_model + (1 - m) * mean(guesses)
        counts = np.array([labels.count(k) / many for k in range(K)])
        self.label_hist = m * self.label_hist + (1 - m) * counts
        tau = np.array([self.time_p * p / self.p_model.max() for p in self.p_model])
        if c.clip == "thresholds":
            tau = np.array([min(max(t, 0.9), 0.95) for t in tau])
        kept = [self.least(s, tau[y]) for s, y in zip(sure, labels, strict=True)]
        log: dict[str, Any] = self.frame(step, [self.target(z) for z in weak], kept, sure)
        log["loss_fair"] = self.fairness([softmax(z) for z, w in zip(strong, kept, strict=True) if w])
        log["loss"] += c.w_fairness * log["loss_fair"]
        log["tau"] = tau
        return Result(log, labels, kept)

    def fairness(self, chosen: list[Array]) -> float:
        if not chosen:
            return 0.0
        said = [label_of(q) for q in chosen]
        average = mean(chosen)
        u = [average[k] / (said.count(k) / len(chosen)) if k in said else 0.0 for k in range(K)]
        v = [self.p_model[k] / self.label_hist[k] if self.label_hist[k] > 0 else 0.0 for k in range(K)]
        return float(sum(v[k] / sum(v) * math.log(u[k] / sum(u) + 1e-12) for k in range(K)))


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the two nearest in order."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


class SoftMatch(Oracle):
    """https://arxiv.org/abs/2301.10921; a truncated Gaussian in place of a threshold."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mu, self.var = 1 / K, 1.0
        self.align = RunningAlignment(self.config.ema_p, self.config.align_to)

    def state(self) -> dict[str, Any]:
        aligns = self.config.align_to != "none"
        return {"select.mu": self.mu, "select.var": self.var} | (self.align.state("select.align") if aligns else {})

    def __call__(self, step: Step) -> Result:
        c, weak = self.config, step.still["weak"].z
        guesses = [softmax(z) for z in weak]
        sure = [float(p.max()) for p in guesses]
        weighed = guesses
        if c.align_to != "none":
            weighed = self.align(guesses, [softmax(z) for z in step.still["x weak"].z])
        g = [float(a.max()) for a in weighed]
        of = g if c.statistics == "aligned" else sure
        centre = mean(of)
        spread = sum((v - centre) ** 2 for v in of) / (len(of) - 1)
        self.mu = c.ema_p * self.mu + (1 - c.ema_p) * centre
        self.var = c.ema_p * self.var + (1 - c.ema_p) * spread
        kept = [math.exp(-(c.n_sigma**2) * min(v - self.mu, 0.0) ** 2 / (2 * self.var)) for v in g]
        log: dict[str, Any] = self.frame(step, [self.target(z) for z in weak], kept, sure)
        return Result(log | {"mu": self.mu, "sigma": math.sqrt(self.var)}, [label_of(p) for p in guesses], kept)


class AdaMatch(Oracle):
    """https://arxiv.org/abs/2106.04732 as USB has it: a relative threshold, and alignment to the labeled images."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.align = RunningAlignment(self.config.ema_p, "model")

    def state(self) -> dict[str, Any]:
        return self.align.state("align")

    def __call__(self, step: Step) -> Result:
        labeled = [softmax(z) for z in step.still["x weak"].z]
        aligned = self.align([softmax(z) for z in step.still["weak"].z], labeled)
        theta = self.config.tau * mean([p.max() for p in labeled])
        targets, labels, kept, sure = self.guessed(aligned, theta)
        return Result(self.frame(step, targets, kept, sure) | {"tau": theta}, labels, kept)

    def guessed(self, aligned: list[Array], theta: float) -> tuple[list[Array], list[int], list[float], list[float]]:
        labels, sure = [label_of(a) for a in aligned], [float(a.max()) for a in aligned]
        targets = [one_hot(y) for y in labels]
        if self.config.target == "soft":
            powers = [a ** (1 / self.config.temperature) for a in aligned]
            targets = [a / a.sum() for a in powers]
        return targets, labels, [self.least(s, theta) for s in sure], sure


class AdaMatchOfThePaper(AdaMatch):
    """google-research/adamatch: logits between two passes, labeled strong views, a ramp, 128 batch means."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.p_data = np.full(K, 1 / K)
        self.recent = [np.full(K, 1 / K) for _ in range(128)]

    def state(self) -> dict[str, Any]:
        return {"align.recent": np.stack(self.recent), "align.p_data": self.p_data}

    def between(self, step: Step, outs: Mapping[str, Out], view: str, draws: Array) -> Array:
        """A point of its own between the logits alone and with the unlabeled images, for each number."""
        alone, together = outs[f"{view} alone"].z, outs[view].z
        return together + (alone - together) * draws

    def __call__(self, step: Step) -> Result:
        (draws,) = step.draws.values()
        weak_draws, strong_draws = draws[:, 0], draws[:, 1]  # of each labeled image and view a number for each class
        weak = self.between(step, step.live, "x weak", weak_draws)
        strong = self.between(step, step.live, "x strong", strong_draws)
        labeled = [softmax(z) for z in self.between(step, step.still, "x weak", weak_draws)]
        guesses = [softmax(z) for z in step.still["weak"].z]
        m = self.config.ema_p
        self.p_data = m * self.p_data + (1 - m) * mean(labeled)
        self.recent = [*self.recent[1:], mean(guesses)]
        seen = mean(self.recent)
        aligned = []
        for p in guesses:
            a = np.array([p[k] * (1e-6 + self.p_data[k]) / (1e-6 + seen[k]) for k in range(K)])
            aligned.append(a / a.sum())
        theta = self.config.tau * mean([p.max() for p in labeled])
        targets, labels, kept, sure = self.guessed(aligned, theta)
        log: dict[str, Any] = self.frame(step, targets, kept, sure)
        losses = [[cross_entropy(one_hot(y), z) for y, z in zip(step.y, view, strict=True)] for view in (weak, strong)]
        log["loss_x"] = (mean(losses[0]) + mean(losses[1])) / 2
        t = step.number / step.steps
        ramp = (1 - math.cos(2 * math.pi * t)) / 2 if t <= 0.5 else 1.0
        log["loss"] = log["loss_x"] + self.config.lambda_u * ramp * log["loss_u"]
        return Result(log | {"tau": theta}, labels, kept)


class Dash(Oracle):
    """https://arxiv.org/abs/2109.00650 as in idstcv/Dash, and as in USB but for where its estimate is from."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.total = self.count = 0.0

    def state(self) -> dict[str, Any]:
        return {"falling.total": self.total, "falling.count": self.count}

    def __call__(self, step: Step) -> Result:
        c, weak, strong = self.config, step.still["weak"].z, step.live["strong"].z
        usb, epoch = c.variant == "usb", step.number // c.epoch_steps
        soft = [sharpened(z, c.temperature) for z in weak]
        hard = [one_hot(label_of(z)) for z in weak]
        sure = [float(softmax(z).max()) for z in weak]
        waiting = epoch < c.wait_epochs
        rho = 0.0
        if waiting:
            targets, kept = soft, [0.0 if usb else 1.0] * len(weak)
        else:
            falls = (epoch - c.wait_epochs) // c.drop_epochs if usb else (epoch - 1) // c.drop_epochs
            raw = (1.0001 if usb else 1.0) * self.total / self.count * c.gamma**-falls
            rho = max(raw, c.rho_min)
            targets = soft if raw > c.rho_min else hard
            judged = [cross_entropy(t, z) for t, z in zip(targets if usb else hard, weak, strict=True)]
            kept = [1 - self.least(loss, rho) for loss in judged]
        log: dict[str, Any] = self.frame(step, targets, kept, sure)
        if waiting and epoch == c.wait_epochs - 1:
            losses = [cross_entropy(one_hot(y), z) for y, z in zip(step.y, step.still["x weak"].z, strict=True)]
            if not usb and c.estimate == "unlabeled":
                losses = [cross_entropy(t, z) for t, z in zip(soft, step.still["strong"].z, strict=True)]
            self.total, self.count = self.total + mean(losses), self.count + 1  # all batches are equally large
        if not usb:
            sums = zip(kept, targets, strong, strict=True)
            log["loss_u"] = sum(w * cross_entropy(t, z) for w, t, z in sums) / max(sum(kept), 1.0)
            log["loss"] = log["loss_x"] + c.lambda_u * log["loss_u"]
        return Result(log | {"rho": rho}, [label_of(z) for z in weak], kept)
