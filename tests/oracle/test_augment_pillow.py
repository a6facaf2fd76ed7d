"""Batched augmentation against Pillow, image by image, on real photographs: no pixel may differ.

The policies' references are written from the publications, with Pillow's own operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from pillow_oracle import (
    MODES,
    REFERENCE,
    SIZES,
    N,
    cut,
    differing,
    kekmodel_cutout,
    partly,
    photos,
    reference,
    transform,
    weakly,
    zoom,
)

from fewlabels.augment import CTAugment, Cutout, RandAugment, Weak, pack
from fewlabels.augment.ops import Op, apply
from fewlabels.augment.plan import run
from fewlabels.augment.pools import FIXMATCH
from fewlabels.runtime.rng import Rng

# Wider than any policy draws.
WIDE: dict[Op, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    **dict.fromkeys((Op.IDENTITY, Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT, Op.BLUR, Op.SMOOTH), lambda g: g.random(N)),
    **dict.fromkeys((Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS), lambda g: g.uniform(0, 3, N)),
    Op.POSTERIZE: lambda g: g.integers(1, 9, N).astype(float),
    Op.SOLARIZE: lambda g: g.uniform(0, 256, N).round(g.integers(0, 3)),
    Op.ROTATE: lambda g: g.uniform(-60, 60, N),
    **dict.fromkeys((Op.SHEAR_X, Op.SHEAR_Y), lambda g: g.uniform(-0.9, 0.9, N)),
    **dict.fromkeys((Op.TRANSLATE_X, Op.TRANSLATE_Y), lambda g: g.uniform(-40, 40, N)),
    Op.RESCALE: lambda g: g.uniform(0, 0.45, N),
    Op.CUTOUT: lambda g: g.uniform(0, 30, N),
    Op.SOLARIZE_ADD: lambda g: g.integers(0, 256, N).astype(float),
    Op.ZOOM: lambda g: g.uniform(0, 0.45, N),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_operation_is_pillows(op: Op, size: tuple[int, int], mode: str) -> None:
    images = photos(*size, mode)
    shape = (images.shape[3], *size)
    g = np.random.default_rng(int(op))
    value = WIDE[op](g)
    value[:4] = np.floor(value[:4])  # whole magnitudes, among them 0 and 1
    place = np.stack([g.integers(0, 6 if op is Op.RESCALE else size[1], N), g.integers(0, size[0], N)], 1)
    pixels = apply(pack(torch.from_numpy(images)), np.full(N, op), value, shape, place)
    expected = reference(images, lambda im, i: REFERENCE[op](im, float(value[i]), *map(int, place[i])))
    assert differing(pixels, expected) == 0


@pytest.mark.parametrize("op", [Op.AUTOCONTRAST, Op.EQUALIZE, Op.INVERT, Op.BLUR, Op.SMOOTH])
def test_whole_operation_needs_no_blend(op: Op) -> None:
    images = photos(32, 32, "RGB")
    pixels = apply(pack(torch.from_numpy(images)), np.full(N, op), np.ones(N), (3, 32, 32))
    assert differing(pixels, reference(images, lambda im, i: REFERENCE[op](im, 1.0, 0, 0))) == 0


@pytest.mark.parametrize("op", [Op.TRANSLATE_X, Op.TRANSLATE_Y])
def test_translation_just_short_of_half_a_pixel(op: Op) -> None:
    """Where 16.16 fixed point would read the neighbour; Pillow translates in floating point."""
    images = photos(24, 37, "RGB")[:4]
    value = np.array([0.499999, 3.499999, -0.500001, -2.500001])
    pixels = apply(pack(torch.from_numpy(images)), np.full(4, op), value, (3, 24, 37))
    assert differing(pixels, reference(images, lambda im, i: REFERENCE[op](im, float(value[i]), 0, 0))) == 0


@pytest.mark.parametrize("size", [(2, 9), (4, 3), (5, 5), (96, 96)], ids=str)
def test_other_sizes(size: tuple[int, int]) -> None:
    """Images smaller than a filter, and larger ones."""
    n = len(Op) * 4
    images = photos(96, 96, "RGB")[:n, : size[0], : size[1]].copy()
    g = np.random.default_rng(0)
    op = np.arange(n) % len(Op)
    value = np.array([WIDE[Op(k)](g)[1] for k in op])
    place = np.stack([g.integers(0, min(6, size[1]), n), g.integers(0, size[0], n)], 1)
    # so small an image can be cut away to nothing, where Pillow raises
    value[np.isin(op, [Op.RESCALE, Op.ZOOM])] *= 0.1 if min(size) < 10 else 1
    pixels = apply(pack(torch.from_numpy(images)), op, value, (3, *size), place)
    one = lambda im, i: REFERENCE[Op(op[i])](im, float(value[i]), *map(int, place[i]))  # noqa: E731
    assert differing(pixels, reference(images, one)) == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shift", [0, 4, 23])
def test_weak_is_torchvisions(size: tuple[int, int], mode: str, shift: int) -> None:
    images = photos(*size, mode)
    view = Weak((images.shape[3], *size), flip=True, shift=shift)
    draw = view.draw(Rng(0, 1), N, "u")
    assert abs(draw.moves[:, 1:]).max() == shift
    expected = reference(images, lambda im, i: weakly(im, draw.moves[i], shift))
    assert differing(view(pack(torch.from_numpy(images)), draw), expected) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_kekmodel_sequence(size: tuple[int, int], mode: str) -> None:
    images = photos(*size, mode)
    view = RandAugment((images.shape[3], *size), flip=True, shift=4)
    draw = view.draw(Rng(1, 2), N, "u/strong")

    def one(img: Image.Image, i: int) -> Image.Image:
        img = weakly(img, draw.weak.moves[i], 4)
        for op, value in zip(draw.op[i], draw.value[i], strict=True):
            img = REFERENCE[Op(op)](img, float(value), 0, 0)
        return kekmodel_cutout(img, draw.box[i])

    pixels = pack(torch.from_numpy(images))
    before = pixels.clone()
    assert differing(view(pixels, draw), reference(images, one)) == 0
    assert torch.equal(pixels, before)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_cutout_view(mode: str) -> None:
    images = photos(24, 37, mode)
    view = Cutout((images.shape[3], 24, 37), flip=False, shift=3)
    draw = view.draw(Rng(1, 2), N, "u")
    expected = reference(images, lambda im, i: kekmodel_cutout(weakly(im, draw.weak.moves[i], 3), draw.box[i]))
    assert differing(view(pack(torch.from_numpy(images)), draw), expected) == 0


# CTAugment, from its specification: parameter p (and q) of each operation, in [0, 1].
CTA: dict[str, Callable[[Image.Image, float, float, int, int], Image.Image]] = {
    "autocontrast": lambda i, p, q, x, y: partly(i, ImageOps.autocontrast(i), p),
    "equalize": lambda i, p, q, x, y: partly(i, ImageOps.equalize(i), p),
    "invert": lambda i, p, q, x, y: partly(i, ImageOps.invert(i), p),
    "blur": lambda i, p, q, x, y: partly(i, i.filter(ImageFilter.BLUR), p),
    "smooth": lambda i, p, q, x, y: partly(i, i.filter(ImageFilter.SMOOTH), p),
    "brightness": lambda i, p, q, x, y: ImageEnhance.Brightness(i).enhance(0.1 + 1.9 * p),
    "color": lambda i, p, q, x, y: ImageEnhance.Color(i).enhance(0.1 + 1.9 * p),
    "contrast": lambda i, p, q, x, y: ImageEnhance.Contrast(i).enhance(0.1 + 1.9 * p),
    "sharpness": lambda i, p, q, x, y: ImageEnhance.Sharpness(i).enhance(0.1 + 1.9 * p),
    "cutout": lambda i, p, q, x, y: cut(i, 1 + int(0.499 * p * min(i.size)), x, y),
    "identity": lambda i, p, q, x, y: i,
    "posterize": lambda i, p, q, x, y: ImageOps.posterize(i, 1 + int(7.999 * p)),
    "rescale": lambda i, p, q, x, y: zoom(i, 0.25 * p, int(5.99 * q)),
    "rotate": lambda i, p, q, x, y: i.rotate(round(90 * p - 45)),
    "shear_x": lambda i, p, q, x, y: transform(i, 1, (2 * p - 1) * 0.3, 0, 0, 1, 0),
    "shear_y": lambda i, p, q, x, y: transform(i, 1, 0, 0, (2 * p - 1) * 0.3, 1, 0),
    "solarize": lambda i, p, q, x, y: ImageOps.solarize(i, int(255.999 * p)),
    "translate_x": lambda i, p, q, x, y: transform(i, 1, 0, (2 * p - 1) * 0.3, 0, 1, 0),
    "translate_y": lambda i, p, q, x, y: transform(i, 1, 0, 0, 0, 1, (2 * p - 1) * 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ctaugment_sequence(size: tuple[int, int], mode: str) -> None:
    images = photos(*size, mode)
    view = CTAugment((images.shape[3], *size), flip=True, shift=4, depth=3)
    draw = view.draw(Rng(1, 2), N, "u/strong")
    half = (1 + int(0.499 * min(size))) // 2

    def policy(img: Image.Image, which: object, i: int) -> Image.Image:
        for member, (p, q), (x, y) in zip(which.member[i], which.p[i], which.centre[i], strict=True):
            img = CTA[FIXMATCH.operations[member].op.name.lower()](img, p, q, int(x), int(y))
        return img

    def one(img: Image.Image, i: int) -> Image.Image:
        img = policy(weakly(img, draw.weak.moves[i], 4), draw.policy, i)
        x0, y0 = map(int, draw.box[i, :2])
        return cut(img, 2 * half, x0 + half, y0 + half)

    pixels = pack(torch.from_numpy(images))
    before = pixels.clone()
    assert differing(view(pixels, draw), reference(images, one)) == 0
    probe = view.probe(Rng(1, 2), N, "x")
    probed = run(pixels, view.probe_plan(probe), view.shape)
    assert differing(probed, reference(images, lambda im, i: policy(im, probe.policy, i))) == 0
    assert torch.equal(pixels, before)
