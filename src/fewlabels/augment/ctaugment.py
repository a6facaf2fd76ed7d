"""CTAugment (ReMixMatch, Berthelot et al. 2020, https://arxiv.org/abs/1911.09785): learned magnitudes.

Each parameter of each operation is cut into bins, and each bin has a rate: how well the model recognised
labeled images that were changed with a parameter from that bin. Bins with a low rate are not used.
Source: google-research/fixmatch, libml/ctaugment.py and libml/augment.py; for the pool `imagenet`,
imagenet/augment/ct_augment.py.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.ops import Op, square
from fewlabels.augment.pixels import Shape
from fewlabels.augment.plan import Plan, only_moves
from fewlabels.augment.pools import POOLS, Array, Pool, side
from fewlabels.augment.views import View, Weak, WeakDraw
from fewlabels.runtime.rng import Rng

LATE = 4
"""Steps after which the rates know how a probe went, so that no step waits for the one before; the results of the
original's worker processes are as late (google-research/fixmatch, libml/augment.py)."""


class Policy(NamedTuple):
    """Operations in the pool's terms."""

    member: NDArray[np.int64]
    """``[B, depth]``, index into the pool's operations."""
    p: Array
    """``[B, depth, 2]``, parameters in [0, 1]."""
    centre: NDArray[np.int64]
    """``[B, depth, 2]``, column and row of a cutout."""


class CTADraw(NamedTuple):
    weak: WeakDraw
    policy: Policy
    box: NDArray[np.int32]
    """``[B, 4]``, the final cutout, or boxes that hold nothing."""


class Probe(NamedTuple):
    policy: Policy
    everyone: Policy
    """The policy of the global batch: every rank learns from all of it. It does not depend on the rates."""


class CTAugment(View):
    """A weak view of its own, then `depth` operations that avoid bins with low rates, then cutout.

    Args:
        shape, flip, shift, black: See `Weak`.
        depth: Operations per image, at least 1.
        threshold: Bins whose rate, relative to the best, is below it are not used; in [0, 1]; default: the pool's.
        decay: Of the moving average of the rates; in [0, 1).
        cutout: Whether a square of half the smaller side follows (FixMatch does this), if the pool has one.
        pool: Key of `POOLS`.
    """

    colours: ClassVar[bool] = True
    rates: Tensor
    """float32 ``[operations, 2, bins]``, in the order of the pool; 0 where an operation has no such bin. On the
    host, always: policies are drawn there."""
    heard: Tensor
    """float32 ``[LATE, rows]``: how the last probes went, which the rates do not know yet; NaN before the first ones.
    On the host; in the view that learns, after `listen`."""

    def __init__(
        self,
        shape: Shape,
        flip: bool,
        shift: int,
        depth: int = 2,
        threshold: float | None = None,
        decay: float = 0.99,
        cutout: bool = True,
        black: bool = False,
        pool: str = "fixmatch",
    ) -> None:
        super().__init__(shape)
        self.pool: Pool = POOLS[pool]
        threshold = self.pool.threshold if threshold is None else threshold
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}.")
        if not 0 <= threshold <= 1 or not 0 <= decay < 1:
            raise ValueError(f"threshold must lie in [0, 1] and decay in [0, 1), not {threshold} and {decay}.")
        self.weak = Weak(shape, flip, shift, black)
        self.depth, self.threshold, self.decay = depth, threshold, decay
        self.cutout = cutout and self.pool.cutout
        self.register_buffer("rates", torch.from_numpy(self.pool.exists.astype(np.float32)))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        return self  # rates are host state in float32, whatever device and dtype the model moves to

    def probabilities(self) -> NDArray[np.float32]:
        """Weight of each bin before normalisation, shaped as `rates`; 0 (the pool's epsilon) for unused bins."""
        epsilon, exists = np.float32(self.pool.epsilon), self.pool.exists
        p: NDArray[np.float32] = self.rates.numpy() * exists
        p = np.maximum(p, epsilon * exists) if epsilon else (p + np.float32(1 - self.decay)) * exists
        p /= np.maximum(p.max(-1, keepdims=True), np.finfo(np.float32).tiny)
        p[p < self.threshold] = 0
        p += epsilon * exists
        return p

    def draw(self, rng: Rng, rows: int, purpose: str) -> CTADraw:
        total = rows * rng.world
        policy = self._policy(rng.generator(f"{purpose}/cta"), total, probe=False)
        _, height, width = self.shape
        g = rng.generator(f"{purpose}/cutout")
        wide = side(np.full(total, 1.0 if self.cutout else 0.0), self.shape)  # a side of 1 paints nothing
        box = square(wide, g.integers(0, [width, height], (total, 2))).astype(np.int32)
        return CTADraw(self.weak.draw(rng, rows, purpose), _own(rng, policy), rng.shard(box))

    def probe(self, rng: Rng, rows: int, purpose: str) -> Probe:
        """Operations with parameters from all bins alike, to be tried on labeled (weak) images."""
        everyone = self._policy(rng.generator(f"{purpose}/probe"), rows * rng.world, probe=True)
        return Probe(_own(rng, everyone), everyone)

    def plan(self, draw: CTADraw) -> Plan:
        return self._followed(self.weak.plan(draw.weak), draw.policy)._replace(box=draw.box)

    def probe_plan(self, draw: Probe, weak: Plan | None = None) -> Plan:
        """The policy, after the weak view that `weak` makes, or for pixels that are weak views already."""
        still = np.zeros((len(draw.policy.member), 0), np.int32)
        return self._followed(only_moves(still) if weak is None else weak, draw.policy)

    def listen(self, rows: int, device: torch.device) -> None:
        """Make room for how the probes of a training go: `rows` labeled images a step on all ranks, on `device`."""
        pinned = device.type == "cuda"  # so that a copy to it does not wait
        self.register_buffer("heard", torch.full((LATE, rows), torch.nan, pin_memory=pinned))

    def learn(self, everyone: Policy, proximity: Tensor | NDArray[np.floating[Any]]) -> None:
        """Move the rates of the bins that a probe used towards how well the model did, image by image.

        Args:
            everyone: What made the probe images of all ranks.
            proximity: ``[rows]``, on the host, per image of all ranks 1 - |probabilities - one-hot label|_1 / 2, which
                is the model's probability of the true label.
        """
        w = np.asarray(proximity, np.float64)
        member = everyone.member
        assert len(w) == len(member), "one proximity per probed image of all ranks"
        rates: NDArray[np.float32] = self.rates.numpy()
        # the pool for small images shrinks p = 1 into the last bin, the other one clips it
        spread = everyone.p * self.pool.bins[member] * (1 if self.pool.averages else 0.999)
        bins = np.minimum(spread.astype(np.int64), np.maximum(self.pool.bins[member] - 1, 0))
        if self.pool.averages:
            first = rates[:, 0]  # a view
            at = (member * first.shape[1] + bins[..., 0]).ravel()
            hits = np.bincount(at, minlength=first.size).reshape(first.shape)
            total = np.bincount(at, np.repeat(w, self.depth), first.size).reshape(first.shape)
            first += np.where(hits, (total / np.maximum(hits, 1) - first) * (1 - self.decay), 0).astype(np.float32)
            return
        at = ((member[..., None] * 2 + (0, 1)) * rates.shape[2] + bins)[self.pool.bins[member] > 0]
        near = np.broadcast_to(w[:, None, None], bins.shape)[self.pool.bins[member] > 0]
        flat = rates.reshape(-1)  # a view
        while len(at):  # the first image of each bin, then the second, ...: bins know nothing of each other
            _, turn = np.unique(at, return_index=True)
            here = at[turn]
            flat[here] = flat[here] * np.float32(self.decay) + (near[turn] * (1 - self.decay)).astype(np.float32)
            at, near = np.delete(at, turn), np.delete(near, turn)

    def _policy(self, g: np.random.Generator, rows: int, *, probe: bool) -> Policy:
        size = (rows, self.depth)
        pool = self.pool
        member = g.integers(0, len(pool.operations), size)
        u, v = g.random((2, *size, 2))
        centre = g.integers(0, [self.shape[2], self.shape[1]], (*size, 2))
        if probe:
            return Policy(member, u, centre)
        if pool.probability < 1:
            nothing = [o.op for o in pool.operations].index(Op.IDENTITY)
            member = np.where(g.random(size) < pool.probability, member, nothing)
        edge = self.probabilities().cumsum(-1, dtype=np.float64)[member]  # [B, depth, 2, bins]
        chosen = (v[..., None] * edge[..., -1:] >= edge).sum(-1)
        bins = np.maximum(pool.bins[member], 1)
        return Policy(member, (np.minimum(chosen, bins - 1) + u) / bins, centre)

    def _followed(self, weak: Plan, policy: Policy) -> Plan:
        """`weak`, followed by the operations of `policy`."""
        pool = self.pool
        op = np.array([o.op for o in pool.operations], np.int64)[policy.member]
        value = np.zeros(op.shape)
        for o in pool.operations:
            mine = op == o.op
            value[mine] = o.magnitude(policy.p[..., 0][mine], self.shape)
        method = np.trunc(5.99 * policy.p[..., 1:]).astype(np.int64)
        place = np.where((op == Op.RESCALE)[..., None], method, policy.centre)
        return weak._replace(op=op, value=value, place=place, fill=(pool.fill,) * 3)


def _own(rng: Rng, policy: Policy) -> Policy:
    return Policy(rng.shard(policy.member), rng.shard(policy.p), rng.shard(policy.centre))
