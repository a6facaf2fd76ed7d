"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719) as semi-supervised code has it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.augment.ops import Op, apply
from fewlabels.augment.pixels import HALF, MIDDLE, Shape, fill_value, octets, upload
from fewlabels.augment.presets import PRESETS, TRUNCATED, Array, Colour, Level, Magnitudes, Preset
from fewlabels.augment.views import View, Weak, WeakDraw, own
from fewlabels.augment.warp import rectangle
from fewlabels.rng import Rng


class RandDraw(NamedTuple):
    weak: WeakDraw
    op: NDArray[np.int64]
    """``[B, slots]``, members of `Op`; IDENTITY where an operation was drawn but is not applied."""
    value: Array
    """``[B, slots]``, magnitudes."""
    place: NDArray[np.int64]
    """``[B, slots, 2]``, column and row of a cutout among the operations; ``[B, 0]`` where there is none."""
    box: NDArray[np.int32]
    """``[B, 4]``, the final cutout; ``[B, 0]`` without one."""


class RandAugment(View):
    """A weak view of its own, then randomly drawn operations with random magnitudes, then cutout.

    With the preset `leedoyup` the weak view comes last.

    Args:
        shape, flip, shift, black: See `Weak`; `leedoyup` always leaves a black border.
        preset: Key of `PRESETS`, or a preset of one's own.
        cutout: Whether the preset's cutout follows.
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
    ) -> None:
        super().__init__(shape)
        if isinstance(preset, str) and preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}.")
        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        self.boxes = self.preset.boxes if cutout else None
        self.weak = Weak(shape, flip, shift, black or self.preset.weak_last)

    def draw(self, rng: Rng, rows: int, purpose: str) -> RandDraw:
        total = rows * rng.world
        op, value, place = self._sequence(rng.generator(f"{purpose}/rand"), total)
        box = np.zeros((total, 0), np.int32)
        if self.boxes is not None:
            box = self.boxes(rng.generator(f"{purpose}/cutout"), total, self.shape)
        weak = self.weak.draw(rng, rows, purpose)
        return RandDraw(weak, own(rng, op), own(rng, value), own(rng, place), own(rng, box))

    def _sequence(
        self, g: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Operations, magnitudes and places, as in `RandDraw`."""
        preset, size = self.preset, (rows, self.preset.slots)
        op = np.array(list(preset.operations), np.int64)[g.integers(0, len(preset.operations), size)]
        if preset.levels is None:
            m = g.random(size)
        else:
            m = g.integers(preset.levels[0], preset.levels[1] + 1, size).astype(np.float64)
        sign = g.integers(0, 2, size) * np.float64(2) - 1
        used = g.random(size) < preset.probability
        value = magnitudes(preset.operations, op, m, sign, self.shape)
        return np.where(used, op, Op.IDENTITY), value, np.zeros((rows, 0), np.int64)

    def forward(self, pixels: Tensor, draw: RandDraw) -> Tensor:
        preset = self.preset
        pixels = pixels.clone() if preset.weak_last else self.weak(pixels, draw.weak)
        packed = pixels.ndim == 2
        if preset.truncates and packed:
            pixels = _truncated(pixels)
        fill = HALF if preset.fill is None and packed else self._paint(pixels, preset.fill)
        for slot in range(draw.op.shape[1]):
            place = draw.place[:, slot] if draw.place.shape[1] else None
            apply(pixels, draw.op[:, slot], draw.value[:, slot], self.shape, place, fill)
        if fill & HALF:
            pixels = torch.where(pixels >= HALF, MIDDLE, pixels)
        if draw.box.shape[1]:
            box = upload(draw.box, pixels.device)
            pixels = rectangle(pixels, box, self.shape, self._paint(pixels, preset.colour))
        out: Tensor = self.weak(pixels, draw.weak) if preset.weak_last else pixels
        return out

    def _paint(self, pixels: Tensor, colour: Colour | None) -> int:
        """The number that paints `colour`, None for the middle, into pixels of this view's shape."""
        if colour is None:
            return MIDDLE if pixels.ndim == 2 else 127
        if self.shape[0] == 1:  # Pillow's luminance, `pixels.grey`
            colour = ((19595 * colour[0] + 38470 * colour[1] + 7471 * colour[2] + 32768) >> 16,) * 3
        return fill_value(pixels, colour)


def magnitudes(
    operations: Magnitudes, op: NDArray[np.int64], m: Array, sign: Array, shape: Shape
) -> NDArray[np.float64]:
    """Each operation's magnitude in its own units, for levels `m` and signs, all ``[B, slots]``."""
    value = np.zeros(op.shape)
    for code, magnitude in operations.items():
        mine = op == code
        value[mine] = magnitude(Level(m[mine], sign[mine], shape))
    return value


def _truncated(packed: Tensor) -> Tensor:
    table = upload(TRUNCATED, packed.device)
    byte = octets(packed)
    return table.index_select(0, byte.flatten().int()).view_as(byte).view(torch.int32)
