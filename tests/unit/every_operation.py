"""Plans in which every operation occurs with its weakest, its strongest and odd magnitudes, and whole batches."""

from __future__ import annotations

import numpy as np
import torch

import fewlabels as fl
from fewlabels.augment.ops import Op
from fewlabels.augment.plan import Plan
from fewlabels.augment.rescale import METHODS
from fewlabels.data.source import Source, Style
from fewlabels.data.split import make_split
from fewlabels.training.batches import BatchLoader, Way
from fewlabels.types import Views

Shape = tuple[int, int, int]

_SHARES = (0.0, 0.3, 1.0)
_FACTORS = (0.0, 0.05, 0.7, 1.0, 1.9)
MAGNITUDES: dict[Op, tuple[float, ...]] = {
    Op.IDENTITY: (0.0,),
    **dict.fromkeys((Op.AUTOCONTRAST, Op.EQUALIZE), (*_SHARES, 1.0, 1.0, 1.0)),  # of several images: their range counts
    **dict.fromkeys((Op.INVERT, Op.BLUR, Op.SMOOTH), _SHARES),
    **dict.fromkeys((Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS), _FACTORS),
    Op.POSTERIZE: (0, 1, 4, 8),
    Op.SOLARIZE: (0, 0.5, 100.3, 255.5, 256),
    Op.ROTATE: (-80, -30, 13.7, 30),
    **dict.fromkeys((Op.SHEAR_X, Op.SHEAR_Y), (-0.3, 0.1, 0.3)),
    **dict.fromkeys((Op.TRANSLATE_X, Op.TRANSLATE_Y), (-3, 2.5, 40)),
    Op.RESCALE: (0.1, 0.4),
    Op.CUTOUT: (0, 1, 2, 7, 40),
    Op.SOLARIZE_ADD: (0, 30, 110, 255),
    Op.ZOOM: (0.0, 0.2, 0.49),
}

VARIANTS: dict[Shape, dict[str, object]] = {
    (3, 9, 13): {"fill": None, "colour": None, "truncates": True, "black": True},
    (1, 8, 8): {"fill": (128, 128, 128), "colour": (125, 123, 114), "black": True, "moves_last": True},
    (3, 17, 33): {"fill": (128, 1, 255)},  # more than 510 pixels: equalize does nothing to 255 and fewer
}
"""For each shape of images, the way of the plan."""


def every_operation(shape: Shape) -> Plan:
    """Two slots: each operation and magnitude once in the first, each operation with one magnitude in the second."""
    _, height, width = shape
    random = np.random.default_rng(7)
    first = [
        (op, value, way)
        for op, values in MAGNITUDES.items()
        for value in values
        for way in range(len(METHODS) if op == Op.RESCALE else 1)
    ]
    after = {op: (op, value, way) for op, value, way in (first[i] for i in random.permutation(len(first)))}
    second = [*after.values(), *[(Op.IDENTITY, 0.0, 0)] * (len(first) - len(after))]
    second = [second[i] for i in random.permutation(len(first))]
    size = len(first), 2
    op = np.array([[one[0] for one in pair] for pair in zip(first, second, strict=True)], np.int64)
    value = np.array([[one[1] for one in pair] for pair in zip(first, second, strict=True)], np.float64)
    way = np.array([[one[2] for one in pair] for pair in zip(first, second, strict=True)], np.int64)
    centre = random.integers(0, [width, height], (*size, 2))
    place = np.where((op == Op.RESCALE)[..., None], way[..., None], centre)
    flip, shift = random.integers(0, 2, (len(first), 1)), random.integers(-3, 4, (len(first), 2))
    corner = random.integers(-3, [width + 3, height + 3], (len(first), 2))
    box = np.concatenate([corner, corner + random.integers(-1, 6, (len(first), 2))], 1)
    plan = Plan(np.concatenate([flip, shift], 1).astype(np.int32), op, value, place, box.astype(np.int32))
    return plan._replace(**VARIANTS[shape])


def feed(strong: str) -> BatchLoader:
    """Batches of noise with a weak and a strong view, on the CPU."""
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(30) % 3
    source = Source("noise", ("a", "b", "c"), images, labels, images[:0], labels[:0], Style())
    split = make_split(source, labels=6, seed=1)
    config = fl.Train(batch=4, uratio=2, weak="ms", shift=2, strong=strong, data=fl.Data(normalize="minus-one-one"))
    wanted, half = Views(unlabeled=("weak", "strong")), (0.5, 0.5, 0.5)
    return BatchLoader(config, source, split, wanted, device=torch.device("cpu"), mean=half, std=half)


def differing_batches(strong: str, way: Way, steps: int) -> int:
    """Tensors of some batches, and of what CTAugment tries, that are other bits than in the grouped way."""
    feeds = feed(strong), feed(strong)
    feeds[1].way = way
    different = 0
    for step in range(steps):
        (a, one), (b, other) = ((feed.batch(step), feed.probe) for feed in feeds)
        pairs = [*zip((*a.x, *a.u), (*b.x, *b.u), strict=True)]
        if one is not None and other is not None:
            pairs.append((one[1], other[1]))
        assert len(pairs) == 3 + (strong == "cta")
        different += sum(not torch.equal(p, q) for p, q in pairs)
    return different
