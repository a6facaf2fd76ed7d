"""The same for the methods that ask for a head of their own, with what they remember of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from algorithm_oracles import K, cross_entropy, softmax
from modern_numpy import Array, Oracle, Result, Step, label_of, mean, one_hot


def linear(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    return weights[f"heads.{name}.weight"] @ x + weights[f"heads.{name}.bias"]


def unit(x: Array) -> Array:
    return x / math.sqrt(x @ x)


def embedding(weights: Mapping[str, Array], f: Array, slope: float, projectors: int) -> Array:
    """On the sphere; of several projectors (EPASS) the mean, before it is brought there."""
    outs = []
    for n in range(projectors):
        hidden = linear(weights, f"projector.each.{n}.0", f)
        hidden = np.where(hidden > 0, hidden, slope * hidden)
        outs.append(linear(weights, f"projector.each.{n}.2", hidden))
    return unit(mean(outs))


class Queue:
    """Guesses divided by the mean of the last batch means; places not yet written are zeros and count."""

    def __init__(self, slots: int, tiny: float) -> None:
        self.rows, self.place, self.tiny = [np.zeros(K)] * slots, 0, tiny

    def __call__(self, guesses: list[Array]) -> list[Array]:
        self.rows[self.place] = mean(guesses)
        self.place = (self.place + 1) % len(self.rows)
        average, aligned = mean(self.rows), []
        for p in guesses:
            a = np.array([p[k] * (1 / K + self.tiny) / (average[k] + self.tiny) for k in range(K)])
            aligned.append(a / a.sum())
        return aligned

    def state(self, owner: str) -> dict[str, Any]:
        return {f"{owner}.recent": np.stack(self.rows), f"{owner}.place": self.place}


class Smoothed(Oracle):
    """What CoMatch and SimMatch share: aligned guesses, embeddings, soft targets above a threshold."""

    slope = 0.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.align = Queue(self.config.align_slots, 1e-6 if self.config.alignment == "usb" else 0.0)

    def embedded(self, weights: Mapping[str, Array], features: Array) -> list[Array]:
        return [embedding(weights, f, self.slope, 3 if self.config.epass else 1) for f in features]

    def result(self, step: Step, targets: list[Array], term: str, value: float, weight: float) -> Result:
        sure = [float(p.max()) for p in targets]
        kept = [self.least(s, self.config.tau) for s in sure]
        log: dict[str, Any] = self.frame(step, targets, kept, sure)
        log[term] = value
        log["loss"] += weight * value
        return Result(log, [label_of(p) for p in targets], kept)


class SimMatch(Smoothed):
    """https://arxiv.org/abs/2203.06915: likenesses to labeled images, which a bank remembers."""

    def begin(self, state: Mapping[str, Array]) -> None:
        """The bank is random at first, and no image has a class."""
        self.bank, self.labels = [unit(v) for v in state["align.embeddings"]], [-1] * self.labeled

    def state(self) -> dict[str, Any]:
        own = {"align.embeddings": np.stack(self.bank), "align.labels": self.labels}
        return own | self.align.state("align.usual")

    def likenesses(self, f: Array) -> Array:
        return softmax(np.array([f @ v for v in self.bank]) / self.config.temperature)

    def __call__(self, step: Step) -> Result:
        c, late = self.config, step.number >= self.config.start
        teacher = "ema " if c.teacher == "ema" else ""
        weights = step.ema_heads if teacher else step.still_heads
        guesses = self.align([softmax(z) for z in step.still[f"{teacher}weak"].z])
        targets, losses = [], []
        weak = self.embedded(weights, step.still[f"{teacher}weak"].f)
        for p, w, s in zip(guesses, weak, self.embedded(step.heads, step.live["strong"].f), strict=True):
            o, student = self.likenesses(w), self.likenesses(s)
            wanted = np.array([o[i] * (p @ self.shares(i)) for i in range(self.labeled)])
            wanted = wanted / wanted.sum()
            gathered = sum(o[i] * self.shares(i) for i in range(self.labeled))
            targets.append(c.alpha * p + (1 - c.alpha) * gathered if late else p)
            losses.append(-sum(wanted[i] * math.log(student[i]) for i in range(self.labeled)) if late else 0.0)
        self.remember(step, self.embedded(weights, step.still[f"{teacher}x weak"].f))
        return self.result(step, targets, "loss_in", mean(losses), c.lambda_in)

    def shares(self, image: int) -> Array:
        """Its class; of one that was not seen, all alike, which is the package's own choice."""
        return one_hot(self.labels[image]) if self.labels[image] >= 0 else np.full(K, 1 / K)

    def remember(self, step: Step, embeddings: list[Array]) -> None:
        m = self.config.bank_momentum
        rows = [m * self.bank[i] + (1 - m) * f for i, f in zip(step.labeled_index, embeddings, strict=True)]
        if self.config.bank_norm == "usb":
            sizes = np.array([math.sqrt(sum(row[d] ** 2 for row in rows)) for d in range(self.config.width)])
            rows = [row / sizes for row in rows]
        else:
            rows = [unit(row) for row in rows]
        for i, row, y in zip(step.labeled_index, rows, step.y, strict=True):
            self.bank[i], self.labels[i] = row, y


class CoMatch(Smoothed):
    """https://arxiv.org/abs/2011.11183: guesses smoothed over a memory, and a graph of guesses."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.slope = 0.1 if self.config.activation == "leaky-relu" else 0.0
        self.n, self.place = 0, 0

    def begin(self, state: Mapping[str, Array]) -> None:
        """The memory is empty at first."""
        self.n = len(state["align.last.probs"])
        self.features = [np.zeros(self.config.width)] * self.n
        self.probs = [np.zeros(K)] * self.n

    def state(self) -> dict[str, Any]:
        own = {"features": np.stack(self.features), "probs": np.stack(self.probs), "place": self.place}
        return {f"align.last.{name}": value for name, value in own.items()} | self.align.state("align.usual")

    def __call__(self, step: Step) -> Result:
        c = self.config
        assert self.n == c.queue_batches * (len(step.y) + len(step.index))
        start = c.queue_batches + 1 if c.start is None else c.start
        guesses = self.align([softmax(z) for z in step.still["weak"].z])
        weak = self.embedded(step.still_heads, step.still["weak"].f)
        targets = guesses
        if step.number >= start:
            targets = []
            for p, f in zip(guesses, weak, strict=True):
                near = softmax(np.array([f @ v for v in self.features]) / c.temperature)
                said = sum(near[i] * self.probs[i] for i in range(self.n))
                targets.append(c.alpha * p + (1 - c.alpha) * said)
        labeled = self.embedded(step.still_heads, step.still["x weak"].f)
        for f, p in zip([*weak, *labeled], [*guesses, *map(one_hot, step.y)], strict=True):
            self.features[self.place], self.probs[self.place] = f, p
            self.place = (self.place + 1) % self.n
        return self.result(step, targets, "loss_c", self.contrast(step, targets), c.lambda_c)

    def contrast(self, step: Step, targets: list[Array]) -> float:
        c, losses = self.config, []
        first = self.embedded(step.heads, step.live["strong"].f)
        second = self.embedded(step.heads, step.live["strong 2"].f)
        for i, f in enumerate(first):
            graph = np.array([1.0 if i == j else float(targets[i] @ targets[j]) for j in range(len(first))])
            graph = np.array([g * (i == j or self.least(g, c.tau_graph)) for j, g in enumerate(graph)])
            said = softmax(np.array([f @ g for g in second]) / c.temperature)
            losses.append(-sum(w * math.log(s + 1e-7) for w, s in zip(graph / graph.sum(), said, strict=True)))
        return float(mean(losses))


class CRMatch(Oracle):
    """https://arxiv.org/abs/2112.05825 as in USB: features of both views are pushed apart; rotations."""

    def __call__(self, step: Step) -> Result:
        c, weak = self.config, step.still["weak"].z
        sure, labels = [float(softmax(z).max()) for z in weak], [label_of(z) for z in weak]
        kept = [self.least(s, c.tau) for s in sure]
        log: dict[str, Any] = self.frame(step, [one_hot(y) for y in labels], kept, sure)
        if c.w_distance:
            apart = []
            for w, a, b in zip(kept, step.live["weak"].maps, step.live["strong"].maps, strict=True):
                a, b = (linear(step.heads, "distance", m.reshape(-1)) for m in (a, b))
                apart.append(w * max(0.0, (a @ b) / math.sqrt((a @ a + 1e-12) * (b @ b + 1e-12))))
            log["loss_distance"] = mean(apart)
            log["loss"] += c.w_distance * log["loss_distance"]
        if c.w_rotation:
            losses = []
            for k in range(4):
                for f in step.live[f"turned {k}"].f:
                    z = linear(step.heads, "rotation.2", np.maximum(linear(step.heads, "rotation.0", f), 0))
                    losses.append(cross_entropy(np.eye(4)[k], z))
            log["loss_rot"] = mean(losses)
            log["loss"] += c.w_rotation * log["loss_rot"]
        return Result(log, labels, kept)


class ShrinkMatch(Oracle):
    """https://arxiv.org/abs/2308.06777: without the classes that compete, an unsure image is sure."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.align = Queue(self.config.align_slots, 0.0) if self.config.align else None
        self.ratio: float | None = None

    def state(self) -> dict[str, Any]:
        own = {"term_loss_shrink.ratio": self.ratio}
        return own | (self.align.state("align") if self.align else {})

    def __call__(self, step: Step) -> Result:
        c = self.config
        guesses = [softmax(z) for z in step.still["weak"].z]
        if self.align:
            guesses = self.align(guesses)
        sure = [float(p.max()) for p in guesses]
        kept = [self.least(s, c.tau) for s in sure]
        log: dict[str, Any] = self.frame(step, guesses, kept, sure)
        new = mean(kept)
        self.ratio = new if self.ratio is None else c.ema_p * self.ratio + (1 - c.ema_p) * new
        said = self.further(step.heads, step.live["strong"].f)
        losses = [0.0 if w else self.shrunk(p, h) for w, p, h in zip(kept, guesses, said, strict=True)]
        log["ratio"], log["loss_shrink"] = self.ratio, self.ratio * mean(losses)
        log["loss"] += c.w_shrink * log["loss_shrink"]
        return Result(log, [label_of(p) for p in guesses], kept)

    def shrunk(self, p: Array, h: Array) -> float:
        order = sorted(range(K), key=lambda k: -p[k])
        for cut in range(2, K):
            kept = [order[0], *order[cut:]]
            kappa = p[order[0]] / sum(p[k] for k in kept)
            if self.least(kappa, self.config.tau):
                return float(p[order[0]]) * cross_entropy(np.eye(len(kept))[0], np.array([h[k] for k in kept]))
        return 0.0

    def further(self, weights: Mapping[str, Array], features: Array) -> list[Array]:
        """The further head, whose batch norms have the statistics of the strong views."""
        x = [np.asarray(f) for f in features]
        for layer in (0, 3):
            x = [linear(weights, f"shrink.{layer}", f) for f in x]
            name = f"heads.shrink.{layer + 1}"
            centre = mean(x)
            spread = mean([(f - centre) ** 2 for f in x])
            unbiased = spread * len(x) / (len(x) - 1)
            self.running[f"{name}.running_mean"] = 0.9 * weights[f"{name}.running_mean"] + 0.1 * centre
            self.running[f"{name}.running_var"] = 0.9 * weights[f"{name}.running_var"] + 0.1 * unbiased
            x = [(f - centre) / np.sqrt(spread + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"] for f in x]
            x = [np.array([v if v > 0 else 0.1 * v for v in f]) for f in x]
        return [linear(weights, "shrink.6", f) for f in x]
