"""CTAugment (ReMixMatch, Berthelot et al. 2020, https://arxiv.org/abs/1911.09785): learned magnitudes.

Each parameter of each operation is cut into bins, and each bin has a rate: how well the model recognised
labeled images that were changed with a parameter from that bin. Bins with a low rate are not used.
Source: google-research/fixmatch, libml/ctaugment.py and libml/augment.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.ops import GREY, Op, apply, square
from fewlabels.augment.pixels import Shape, fill_value, upload
from fewlabels.augment.rescale import METHODS
from fewlabels.augment.views import View, Weak, WeakDraw, own
from fewlabels.augment.warp import rectangle
from fewlabels.parallel import gather
from fewlabels.rng import Rng

Array = NDArray[np.float64]

_BINS = 17


class Operation(NamedTuple):
    """One operation of the pool: parameter p in [0, 1] to its magnitude, and the bins of its parameters."""

    op: Op
    magnitude: Callable[[Array, Shape], Array]
    bins: tuple[int, ...] = (_BINS,)


def _share(p: Array, _: Shape) -> Array:
    return p


def _factor(p: Array, _: Shape) -> Array:
    return 0.1 + 1.9 * p


def _slope(p: Array, _: Shape) -> Array:
    return (2 * p - 1) * 0.3


def _side(p: Array, shape: Shape) -> Array:
    return 1 + np.trunc(0.499 * p * min(shape[1:]))


POOL: tuple[Operation, ...] = (
    Operation(Op.AUTOCONTRAST, _share),
    Operation(Op.BLUR, _share),
    Operation(Op.BRIGHTNESS, _factor),
    Operation(Op.COLOR, _factor),
    Operation(Op.CONTRAST, _factor),
    Operation(Op.CUTOUT, _side),
    Operation(Op.EQUALIZE, _share),
    Operation(Op.INVERT, _share),
    Operation(Op.IDENTITY, _share, ()),
    Operation(Op.POSTERIZE, lambda p, _: 1 + np.trunc(7.999 * p), (8,)),
    Operation(Op.RESCALE, lambda p, _: 0.25 * p, (_BINS, len(METHODS))),
    Operation(Op.ROTATE, lambda p, _: np.rint(90 * p - 45)),
    Operation(Op.SHARPNESS, _factor),
    Operation(Op.SHEAR_X, _slope),
    Operation(Op.SHEAR_Y, _slope),
    Operation(Op.SMOOTH, _share),
    Operation(Op.SOLARIZE, lambda p, _: np.trunc(255.999 * p)),
    # less than a pixel, read at the nearest one: these two change nothing, in the original as here
    Operation(Op.TRANSLATE_X, _slope),
    Operation(Op.TRANSLATE_Y, _slope),
)
_BINS_OF = np.array([[*o.bins, 0, 0][:2] for o in POOL])  # [operations, 2]
_EXISTS = np.arange(_BINS) < _BINS_OF[:, :, None]  # [operations, 2, bins]


class Policy(NamedTuple):
    """Operations in the pool's terms, so that rates can be learned, and in those of `ops.apply`."""

    member: NDArray[np.int64]
    """``[B, depth]``, index into `POOL`."""
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
    """The policy of the global batch: every rank learns from all of it."""


class CTAugment(View):
    """A weak view of its own, then `depth` operations that avoid bins with low rates, then cutout.

    Args:
        shape, flip, shift: See `Weak`.
        depth: Operations per image, at least 1.
        threshold: Bins whose rate, relative to the best, is below it are not used; in [0, 1].
        decay: Of the moving average of the rates; in [0, 1).
        cutout: Whether a square of half the smaller side follows (FixMatch does this).
    """

    learns: ClassVar[bool] = True
    rates: Tensor
    """float32 ``[operations, 2, bins]``, in the order of `POOL`; 0 where an operation has no such bin. On the
    host, always: policies are drawn there."""

    def __init__(
        self,
        shape: Shape,
        flip: bool,
        shift: int,
        depth: int = 2,
        threshold: float = 0.8,
        decay: float = 0.99,
        cutout: bool = True,
    ) -> None:
        super().__init__(shape)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}.")
        if not 0 <= threshold <= 1 or not 0 <= decay < 1:
            raise ValueError(f"threshold must lie in [0, 1] and decay in [0, 1), not {threshold} and {decay}.")
        self.weak = Weak(shape, flip, shift)
        self.depth, self.threshold, self.decay, self.cutout = depth, threshold, decay, cutout
        self.register_buffer("rates", torch.from_numpy(_EXISTS.astype(np.float32)))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        return self  # rates are host state in float32, whatever device and dtype the model moves to

    def probabilities(self) -> NDArray[np.float32]:
        """Weight of each bin before normalisation, in [0, 1], shaped as `rates`; 0 for unused bins."""
        p: NDArray[np.float32] = (self.rates.numpy() + np.float32(1 - self.decay)) * _EXISTS
        p /= np.maximum(p.max(-1, keepdims=True), np.finfo(np.float32).tiny)
        p[p < self.threshold] = 0
        return p

    def draw(self, rng: Rng, rows: int, purpose: str) -> CTADraw:
        total = rows * rng.world
        policy = self._policy(rng.generator(f"{purpose}/cta"), total, probe=False)
        _, height, width = self.shape
        g = rng.generator(f"{purpose}/cutout")
        side = _side(np.full(total, 1.0 if self.cutout else 0.0), self.shape)  # a side of 1 paints nothing
        box = square(side, g.integers(0, [width, height], (total, 2))).astype(np.int32)
        return CTADraw(self.weak.draw(rng, rows, purpose), _own(rng, policy), own(rng, box))

    def probe(self, rng: Rng, rows: int, purpose: str) -> Probe:
        """Operations with parameters from all bins alike, to be tried on labeled (weak) images."""
        everyone = self._policy(rng.generator(f"{purpose}/probe"), rows * rng.world, probe=True)
        return Probe(_own(rng, everyone), everyone)

    def forward(self, pixels: Tensor, draw: CTADraw) -> Tensor:
        pixels = self._apply_policy(self.weak(pixels, draw.weak), draw.policy)
        return rectangle(pixels, upload(draw.box, pixels.device), self.shape, fill_value(pixels, GREY))

    def probe_forward(self, pixels: Tensor, draw: Probe) -> Tensor:
        """The policy alone, on pixels that are weak views already."""
        return self._apply_policy(pixels.clone(), draw.policy)

    def learn(self, draw: Probe, proximity: Tensor | NDArray[np.floating[Any]]) -> None:
        """Move the rates of the bins that a probe used towards how well the model did, image by image.

        Args:
            draw: What made the probe images.
            proximity: ``[rows]``, per image of this rank 1 - |probabilities - one-hot label|_1 / 2, which is
                the model's probability of the true label.
        """
        w = gather(torch.as_tensor(proximity)).detach().cpu().double().tolist()
        assert len(w) == len(draw.everyone.member), "one proximity per probed image of all ranks"
        rates: NDArray[np.float32] = self.rates.numpy()
        bins = (draw.everyone.p * _BINS_OF[draw.everyone.member] * 0.999).astype(np.int64)
        for members, places, near in zip(draw.everyone.member, bins, w, strict=True):
            for member, place in zip(members, places, strict=True):
                for i in range(len(POOL[member].bins)):
                    at = member, i, place[i]
                    rates[at] = rates[at] * self.decay + near * (1 - self.decay)

    def _policy(self, g: np.random.Generator, rows: int, *, probe: bool) -> Policy:
        size = (rows, self.depth)
        member = g.integers(0, len(POOL), size)
        u, v = g.random((2, *size, 2))
        centre = g.integers(0, [self.shape[2], self.shape[1]], (*size, 2))
        if probe:
            return Policy(member, u, centre)
        edge = self.probabilities().cumsum(-1, dtype=np.float64)[member]  # [B, depth, 2, bins]
        chosen = (v[..., None] * edge[..., -1:] >= edge).sum(-1)
        bins = np.maximum(_BINS_OF[member], 1)
        return Policy(member, (np.minimum(chosen, bins - 1) + u) / bins, centre)

    def _apply_policy(self, pixels: Tensor, policy: Policy) -> Tensor:
        """In place."""
        ops = np.array([o.op for o in POOL], np.int64)[policy.member]
        for slot, op in enumerate(ops.T):
            p, place = policy.p[:, slot], policy.centre[:, slot]
            value = np.zeros(len(op))
            for o in POOL:
                mine = op == o.op
                value[mine] = o.magnitude(p[mine, 0], self.shape)
            place = np.where((op == Op.RESCALE)[:, None], np.trunc(5.99 * p[:, 1:]).astype(np.int64), place)
            apply(pixels, op, value, self.shape, place)
        return pixels


def _own(rng: Rng, policy: Policy) -> Policy:
    return Policy(own(rng, policy.member), own(rng, policy.p), own(rng, policy.centre))
