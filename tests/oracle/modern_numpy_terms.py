"""The same for the methods with further losses on the guesses: loops over images and classes."""

from __future__ import annotations

import math
from typing import Any

from algorithm_oracles import K, cross_entropy, softmax
from modern_numpy import (
    Array,
    Oracle,
    Result,
    RunningAlignment,
    Step,
    divergence,
    label_of,
    mean,
    one_hot,
    sharpened,
)


class DeFixMatch(Oracle):
    """https://arxiv.org/abs/2203.07512: the unlabeled loss of the labeled images is subtracted."""

    def __call__(self, step: Step) -> Result:
        c = self.config
        kept, targets, sure = self.judged(step.still["weak"].z)
        kept_x, targets_x, _ = self.judged(step.still["x weak"].z)
        log: dict[str, Any] = self.frame(step, targets, kept, sure)
        strong = step.live["x strong"].z
        on_strong = mean([cross_entropy(one_hot(y), z) for y, z in zip(step.y, strong, strict=True)])
        log["loss_x"] = (log["loss_x"] + on_strong) / 2
        parts = zip(kept_x, targets_x, strong, strict=True)
        log["loss_a"] = mean([w * cross_entropy(t, z) for w, t, z in parts])
        log["loss"] = log["loss_x"] + c.lambda_u * (log["loss_u"] - log["loss_a"])
        return Result(log | {"mask_x": mean(kept_x)}, [label_of(z) for z in step.still["weak"].z], kept)

    def judged(self, logits: Array) -> tuple[list[float], list[Array], list[float]]:
        sure = [float(softmax(z).max()) for z in logits]
        return [self.least(s, self.config.tau) for s in sure], [self.target(z) for z in logits], sure


class Flexible:
    """FlexMatch's thresholds with its warm-up and convex map, https://arxiv.org/abs/2110.08263."""

    def __init__(self, tau: float, images: int) -> None:
        self.tau, self.last = tau, [-1] * images

    def __call__(self, oracle: Oracle, step: Step, sure: list[float], labels: list[int]) -> list[float]:
        counts = [self.last.count(k) for k in range(K)]
        beta = [n / max(*counts, self.last.count(-1)) for n in counts]
        kept = [oracle.least(s, self.tau * beta[y] / (2 - beta[y])) for s, y in zip(sure, labels, strict=True)]
        for i, s, y in zip(step.index, sure, labels, strict=True):
            if oracle.least(s, self.tau):
                self.last[i] = y
        return kept


class Thresholded(Oracle):
    """FixMatch's threshold, or FlexMatch's where the method is `flexible`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.flexible = Flexible(self.config.tau, self.unlabeled) if getattr(self.config, "flexible", False) else None

    def state(self) -> dict[str, Any]:
        return {"select.last": self.flexible.last} if self.flexible else {}

    def judged(self, step: Step) -> tuple[dict[str, Any], list[Array], list[int], list[float]]:
        """The common values, the guesses, the pseudo-labels and their weights."""
        weak = step.still["weak"].z
        guesses, labels = [softmax(z) for z in weak], [label_of(z) for z in weak]
        sure = [float(p.max()) for p in guesses]
        if self.flexible:
            kept = self.flexible(self, step, sure, labels)
        else:
            kept = [self.least(s, self.config.tau) for s in sure]
        return self.frame(step, [self.target(z) for z in weak], kept, sure), guesses, labels, kept


class ReFixMatch(Thresholded):
    """https://github.com/beandkay/SequenceMatch: images below the threshold have a sharpened soft target."""

    def __call__(self, step: Step) -> Result:
        c = self.config
        log, guesses, labels, kept = self.judged(step)
        low = []
        for w, z, p, strong in zip(kept, step.still["weak"].z, guesses, step.live["strong"].z, strict=True):
            if c.variant == "usb":
                low.append((1 - w) * divergence(sharpened(p, c.temperature), strong / c.temperature))
            else:
                low.append((1 - w) * divergence(sharpened(z, c.temperature), strong))
        log["loss_low"] = mean(low)
        log["loss"] += c.lambda_u * log["loss_low"]
        return Result(log, labels, kept)


class SequenceMatch(Thresholded):
    """https://github.com/beandkay/SequenceMatch: weak teaches medium, medium strong, weak strong."""

    def __call__(self, step: Step) -> Result:
        c = self.config
        log, _, labels, kept = self.judged(step)
        pairs = (("weak", "medium"), ("medium", "strong"), ("weak", "strong"))
        for a, b in pairs:
            parts = []
            for w, teacher, student in zip(kept, step.still[a].z, step.live[b].z, strict=True):
                p = softmax(teacher)
                if c.variant == "usb":
                    parts.append(w * divergence(sharpened(p, c.temperature), student))
                else:
                    counts = self.least(float(p.max()), c.tau)
                    parts.append(counts * divergence(sharpened(teacher, c.temperature), student))
            log[f"kl_{a}_{b}"] = mean(parts)
        log["loss_seq"] = sum(log[f"kl_{a}_{b}"] for a, b in pairs)
        log["loss"] += c.lambda_u * log["loss_seq"]
        return Result(log, labels, kept)


class FullMatch(Thresholded):
    """https://arxiv.org/abs/2303.11066: classes that an image is none of, and those that compete."""

    def __call__(self, step: Step) -> Result:
        c = self.config
        log, guesses, labels, kept = self.judged(step)
        strong = [softmax(z) for z in step.live["strong"].z]
        fixed = [softmax(z) for z in step.still["strong"].z]
        k = next(k for k in range(2, K + 1) if all(y in largest(q, k) for y, q in zip(labels, fixed, strict=True)))
        negative, meaning = [], []
        for p, q, q0, y, counts in zip(guesses, strong, fixed, labels, kept, strict=True):
            near = largest(p, k)
            outside = [j for j in range(K) if j not in near]
            negative.append(sum(-math.log(1 - q[j] + 1e-10) for j in outside if not self.least(q0[j], c.tau**2)))
            if counts:
                rest = (1 - (q[y] + sum(q[j] for j in outside)) + 1e-7) / (k - 1)
                for j in near[1:]:
                    if not self.least(q0[j], c.tau**2):
                        meaning.append(-(rest * math.log(q[j] + 1e-10) + (1 - rest) * math.log(1 - q[j] + 1e-10)))
        log["loss_negative"], log["loss_meaning"], log["k"] = mean(negative), sum(meaning) / (len(meaning) + 1e-10), k
        if step.number < c.start:
            log["loss_negative"] = log["loss_meaning"] = 0.0
        log["loss"] += c.w_negative * log["loss_negative"] + c.w_meaning * log["loss_meaning"]
        return Result(log, labels, kept)


def largest(p: Array, k: int) -> list[int]:
    """The k classes with the largest values, the largest first."""
    return sorted(range(len(p)), key=lambda j: -p[j])[:k]


class CGMatch(Oracle):
    """https://arxiv.org/abs/2503.02231: below the threshold the gap of an image's counted guesses decides."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.align = RunningAlignment(self.config.ema_p, "uniform")
        self.mu, self.gap_mu = 1 / K, -1.0
        self.past: list[list[int]] = [[] for _ in range(self.unlabeled)]

    def state(self) -> dict[str, Any]:
        n = self.config.votes
        counts = [[past[-n:].count(k) for k in range(K)] for past in self.past]
        rings = [[-1] * n for _ in self.past]
        for ring, past in zip(rings, self.past, strict=True):
            for i, y in enumerate(past):
                ring[i % n] = y
        votes = {"labels": rings, "place": [len(past) % n for past in self.past], "counts": counts}
        found = self.align.state("align") | self.align.state("gaps.usual")
        found |= {f"gaps.past.{name}": value for name, value in votes.items()}
        return found | {"gaps.mu": self.mu, "gaps.gap_mu": self.gap_mu}

    def gap(self, image: int) -> int:
        first, second, *_ = sorted((self.past[image][-self.config.votes :].count(k) for k in range(K)), reverse=True)
        return first - second

    def __call__(self, step: Step) -> Result:
        c, warm = self.config, step.number < self.config.start
        guesses = [softmax(z) for z in step.still["weak"].z]
        aligned = self.align(guesses, [])
        labels, g = [label_of(a) for a in aligned], [float(a.max()) for a in aligned]
        newest = dict(zip(step.index, labels, strict=True))
        for i, y in newest.items():
            self.past[i].append(y)
        self.mu = c.ema_p * self.mu + (1 - c.ema_p) * mean(g)
        if c.clip:
            self.mu = min(max(self.mu, 0.9), 0.95)
        gaps = [self.gap(i) for i in step.index]
        if not warm and self.gap_mu < 0:
            self.gap_mu = mean([self.gap(i) for i in range(self.unlabeled)])
        elif not warm:
            self.gap_mu = c.ema_p * self.gap_mu + (1 - c.ema_p) * mean(gaps)
        easy = [self.least(v, self.mu) * (not warm) for v in g]
        log: dict[str, Any] = self.frame(step, [one_hot(y) for y in labels], easy, g)
        hard = [(1 - e) * self.least(gap, self.gap_mu) if not warm else 0.0 for e, gap in zip(easy, gaps, strict=True)]
        log["loss_gce"] = sum(
            mean([w * generalised(z, y) for w, z, y in zip(hard, step.live[view].z, labels, strict=True)])
            for view in ("weak", "strong")
        )
        share = (step.number - c.start) / (step.steps - c.start)
        log["loss_hard"] = c.lambda_h * share**2 * log["loss_gce"]
        log["loss"] += log["loss_hard"]
        return Result(log | {"mu": self.mu, "mask_hard": mean(hard)}, labels, easy)


def generalised(z: Array, y: int) -> float:
    """Generalised cross-entropy, between squared error and cross-entropy."""
    return float((1 - max(softmax(z)[y], 1e-7) ** 0.7) / 0.7)
