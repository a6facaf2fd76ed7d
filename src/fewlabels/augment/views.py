"""What a view is, and the plain ones: weak, cutout, identity."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fewlabels.augment.pixels import Shape
from fewlabels.augment.plan import Plan, only_moves, run
from fewlabels.augment.warp import check_shift
from fewlabels.runtime.rng import Rng

Draw: TypeAlias = Any
"""What a view does to a batch: a named tuple of numpy arrays, one row per image. Each view has its own."""


class View(nn.Module):
    """One way to look at a batch of images: draw parameters on the host, then apply them as a pure function.

    Args:
        shape: (C, H, W) of the images.
    """

    colours: ClassVar[bool] = False
    """Whether the view has colour operations, which need packed pixels."""
    halves: bool = False
    """Whether the view marks pixels with `pixels.HALF`."""
    fixed: bool = False
    """Whether the view leaves every image as it is."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def draw(self, rng: Rng, rows: int, purpose: str) -> Draw:
        """Parameters for this rank's `rows` images.

        A function of (seed, step, purpose) and of the view's state. The numbers are drawn for the global
        batch and a rank keeps its slice, so that any number of ranks does the same to the same images.
        """
        raise NotImplementedError

    def plan(self, draw: Draw) -> Plan | None:
        """The draw as a plan; None for a view that goes its own way, in `forward`."""
        return None

    def forward(self, pixels: Tensor, draw: Draw) -> Tensor:
        """Pixels (`fewlabels.augment.pixels`) to new pixels of the same form."""
        plan = self.plan(draw)
        assert plan is not None
        return run(pixels, plan, self.shape)


class WeakDraw(NamedTuple):
    moves: NDArray[np.int32]
    """``[B, 3]``: flip (0 or 1), rows and columns off centre, each in -shift..shift."""


class Identity(View):
    """The image as it is."""

    fixed = True

    def draw(self, rng: Rng, rows: int, purpose: str) -> WeakDraw:
        return WeakDraw(np.zeros((rows, 3), np.int32))

    def plan(self, draw: WeakDraw) -> Plan:
        return only_moves(draw.moves)

    def forward(self, pixels: Tensor, draw: WeakDraw | None = None) -> Tensor:
        return pixels


class Weak(View):
    """Left-right flip with probability 1/2, then a shift with reflected borders: FixMatch's weak view.

    Equal to a flip, ``torchvision.transforms.RandomCrop((H, W), padding=shift, padding_mode="reflect")``.

    Args:
        shape: (C, H, W) of the images.
        flip: Whether to flip at all.
        shift: Largest shift in pixels along each axis, 0..min(H, W) - 1.
        black: Leave the border that a shift uncovers black (``padding_mode="constant"``).
    """

    def __init__(self, shape: Shape, flip: bool, shift: int, black: bool = False) -> None:
        super().__init__(shape)
        check_shift(shift, shape)
        self.flip, self.shift, self.black = flip, shift, black
        self.fixed = not flip and shift == 0

    def draw(self, rng: Rng, rows: int, purpose: str) -> WeakDraw:
        g = rng.generator(f"{purpose}/weak")
        total = rows * rng.world
        flip = g.integers(0, 2, (total, 1)) * self.flip
        offset = g.integers(-self.shift, self.shift + 1, (total, 2))
        return WeakDraw(rng.shard(np.concatenate([flip, offset], 1).astype(np.int32)))

    def plan(self, draw: WeakDraw) -> Plan:
        return only_moves(draw.moves, black=self.black)


class CutoutDraw(NamedTuple):
    weak: WeakDraw
    box: NDArray[np.int32]
    """``[B, 4]``: x0, y0, x1, y1, the last column and row included."""


class Cutout(View):
    """A weak view of its own, then one grey square (`half_boxes`).

    Args:
        shape, flip, shift, black: See `Weak`.
    """

    def __init__(self, shape: Shape, flip: bool, shift: int, black: bool = False) -> None:
        super().__init__(shape)
        self.weak = Weak(shape, flip, shift, black)

    def draw(self, rng: Rng, rows: int, purpose: str) -> CutoutDraw:
        box = half_boxes(rng.generator(f"{purpose}/cutout"), rows * rng.world, self.shape)
        return CutoutDraw(self.weak.draw(rng, rows, purpose), rng.shard(box))

    def plan(self, draw: CutoutDraw) -> Plan:
        return self.weak.plan(draw.weak)._replace(box=draw.box)


def half_boxes(g: np.random.Generator, rows: int, shape: Shape) -> NDArray[np.int32]:
    """Cutout rectangles of half the smaller image side, int32 ``[rows, 4]``, for `warp.rectangle`.

    The centre is uniform over the image. A box that would begin outside is moved in, one that would end
    outside is cut off, and the last column and row are included: up to 17 x 17 pixels of a 32 x 32 image
    (kekmodel/FixMatch-pytorch, dataset/randaugment.py, CutoutAbs).
    """
    _, height, width = shape
    side = int(0.5 * min(height, width))
    size = np.array([width, height])
    first = np.maximum(g.random((rows, 2)) * size - side / 2, 0).astype(np.int32)
    last = np.minimum(first + side, size)
    return np.concatenate([first, last], 1).astype(np.int32)
