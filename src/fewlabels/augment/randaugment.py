"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719) as semi-supervised code has it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewlabels.augment.ops import Op
from fewlabels.augment.pixels import Shape
from fewlabels.augment.plan import Plan
from fewlabels.augment.presets import PRESETS, Array, Level, Magnitudes, Preset
from fewlabels.augment.views import View, Weak, WeakDraw
from fewlabels.runtime.rng import Rng


class RandDraw(NamedTuple):
    weak: WeakDraw
    op: NDArray[np.int64]
    """``[B, slots]``, members of `Op`; IDENTITY where an operation was drawn but is not applied."""
    value: Array
    """``[B, slots]``, magnitudes."""
    place: NDArray[np.int64]
    """``[B, slots, 2]``, column and row of a cutout among the operations."""
    box: NDArray[np.int32]
    """``[B, 4]``, the final cutout; ``[B, 0]`` without one."""


class RandAugment(View):
    """A weak view of its own, then randomly drawn operations with random magnitudes, then cutout.

    With the preset `leedoyup` the weak view comes last.

    Args:
        shape, flip, shift, black: See `Weak`; `leedoyup` always leaves a black border.
        preset: Key of `PRESETS`, or a preset of one's own.
        cutout: Whether the preset's cutout follows.
        stratified: Draw each operation equally often in the batch, in random order, so that the batches differ
            less from each other; what each image gets is drawn as before.
    """

    colours: ClassVar[bool] = True

    def __init__(
        self,
        shape: Shape,
        flip: bool,
        shift: int,
        preset: str | Preset = "kekmodel",
        cutout: bool = True,
        black: bool = False,
        stratified: bool = False,
    ) -> None:
        super().__init__(shape)
        self.stratified = stratified
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}.")
        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        self.halves = None in (self.preset.fill, self.preset.colour)
        self.boxes = self.preset.boxes if cutout else None
        self.weak = Weak(shape, flip, shift, black or self.preset.weak_last)

    def draw(self, rng: Rng, rows: int, purpose: str) -> RandDraw:
        total = rows * rng.world
        op, value, place = self._sequence(rng.generator(f"{purpose}/rand"), total)
        box = np.zeros((total, 0), np.int32)
        if self.boxes is not None:
            box = self.boxes(rng.generator(f"{purpose}/cutout"), total, self.shape)
        weak = self.weak.draw(rng, rows, purpose)
        return RandDraw(weak, rng.shard(op), rng.shard(value), rng.shard(place), rng.shard(box))

    def _sequence(
        self, g: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Operations, magnitudes and places, as in `RandDraw`."""
        preset, size = self.preset, (rows, self.preset.slots)
        known = np.array(list(preset.operations), np.int64)
        if self.stratified:
            even = np.resize(known, size[::-1])  # one slot a row; where it does not divide, the next slot goes on
            op = g.permuted(even, axis=1).T
        else:
            op = known[g.integers(0, len(known), size)]
        if preset.levels is None:
            m = g.random(size)
        else:
            m = g.integers(preset.levels[0], preset.levels[1] + 1, size).astype(np.float64)
        sign = g.integers(0, 2, size) * np.float64(2) - 1
        used = g.random(size) < preset.probability
        value = magnitudes(preset.operations, op, m, sign, self.shape)
        return np.where(used, op, Op.IDENTITY), value, np.zeros((*size, 2), np.int64)

    def plan(self, draw: RandDraw) -> Plan:
        preset = self.preset
        return self.weak.plan(draw.weak)._replace(
            op=draw.op,
            value=draw.value,
            place=draw.place,
            box=draw.box,
            colour=preset.colour,
            fill=preset.fill,
            truncates=preset.truncates,
            moves_last=preset.weak_last,
        )


def magnitudes(
    operations: Magnitudes, op: NDArray[np.int64], m: Array, sign: Array, shape: Shape
) -> NDArray[np.float64]:
    """Each operation's magnitude in its own units, for levels `m` and signs, all ``[B, slots]``."""
    value = np.zeros(op.shape)
    for code, magnitude in operations.items():
        mine = op == code
        value[mine] = magnitude(Level(m[mine], sign[mine], shape))
    return value
