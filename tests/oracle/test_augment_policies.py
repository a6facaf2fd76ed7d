"""Whole policies against image-by-image references written from what the code bases do: no pixel may differ.

References give numbers in [-1, 1] and are compared in half levels, because google-research/fixmatch ends with
pixels of exactly 0, which is 127.5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from pillow_oracle import REFERENCE, kekmodel_cutout, photos, transform, weakly, zoom

from fewlabels.augment import AutoAugment, CTAugment, Normalize, RandAugment, View, pack
from fewlabels.augment.autoaugment import OPERATIONS
from fewlabels.augment.ops import GREY, Op, apply
from fewlabels.augment.pixels import HALF, MIDDLE
from fewlabels.augment.pools import FIXMATCH, IMAGENET
from fewlabels.augment.presets import GOOGLE, PRESETS, Preset, square_boxes
from fewlabels.augment.randaugment import magnitudes
from fewlabels.config.resolve import load_source, resolve_data
from fewlabels.config.settings import Data
from fewlabels.runtime.rng import Rng

Floats = NDArray[np.float64]
One = Callable[[NDArray[np.uint8], int], Floats]
"""An image, uint8 ``[H, W, C]``, and its number in the batch to floats in [-1, 1]."""
N = 256
CASES = [(32, 32, "RGB"), (24, 37, "RGB"), (32, 32, "L")]


def scaled(img: Image.Image) -> Floats:
    a = np.asarray(img).astype(np.float64) / 127.5 - 1
    return a if a.ndim == 3 else a[..., None]


def image_of(a: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(a.squeeze())


def half_levels(view: View, pixels: torch.Tensor, draw: Any) -> Floats:
    """What the network would get of a view, scaled to [-1, 1], in half levels."""
    c = view.shape[0]
    x = Normalize(view.shape, [0.5] * c, [0.5] * c, halves=True)(view(pixels, draw))
    return halves(x.permute(0, 2, 3, 1).double().numpy())


def halves(x: Floats) -> Floats:
    out: Floats = (x + 1) * 255
    assert abs(out - out.round()).max() < 1e-3
    return out.round()


def differing(view: View, images: NDArray[np.uint8], draw: Any, one: One) -> int:
    expected = halves(np.stack([one(a, i) for i, a in enumerate(images)]))
    pixels = pack(torch.from_numpy(images))
    before = pixels.clone()
    got = half_levels(view, pixels, draw)
    assert torch.equal(pixels, before)
    return int((got != expected).sum())


# ---- google-research/fixmatch: RGBA, truncation, grey where alpha is 0


def google_in(a: NDArray[np.uint8]) -> Image.Image:
    x = a.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    byte = ((x * np.float32(0.5) + np.float32(0.5)) * np.float32(255)).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(byte, (*a.shape[:2], 3)).copy()).convert("RGBA")


def google_out(img: Image.Image, channels: int) -> Floats:
    a = np.asarray(img).astype(np.float64)
    x = (a[..., :3] / 255 - 0.5) / 0.5
    x[a[..., 3] == 0] = 0
    return x[..., :channels]


def through_rgb(change: Callable[[Image.Image], Image.Image]) -> Callable[[Image.Image, float, int, int], Image.Image]:
    return lambda i, v, x, y: change(i.convert("RGB")).convert("RGBA")


def posterized(img: Image.Image, bits: int) -> Image.Image:
    if bits < 1:  # today's Pillow refuses what used to give black
        return Image.new("RGBA", img.size, (0, 0, 0, 255))
    return ImageOps.posterize(img.convert("RGB"), bits).convert("RGBA")


def clear(img: Image.Image, side: int, x: int, y: int) -> Image.Image:
    a = np.array(img)
    h = side // 2
    a[max(0, y - h) : max(0, y + h), max(0, x - h) : max(0, x + h)] = (127, 127, 127, 0)
    return Image.fromarray(a)


RGBA: dict[Op, Callable[[Image.Image, float, int, int], Image.Image]] = {
    **{op: REFERENCE[op] for op in (Op.IDENTITY, Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y)},
    **{op: REFERENCE[op] for op in (Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS)},
    Op.AUTOCONTRAST: through_rgb(ImageOps.autocontrast),
    Op.EQUALIZE: through_rgb(ImageOps.equalize),
    Op.INVERT: through_rgb(ImageOps.invert),
    Op.POSTERIZE: lambda i, v, x, y: posterized(i, int(v)),
    Op.SOLARIZE: lambda i, v, x, y: ImageOps.solarize(i.convert("RGB"), int(v)).convert("RGBA"),
    Op.CUTOUT: lambda i, v, x, y: clear(i, int(v), x, y),
}

# From the table of magnitudes: level and sign to the reference on an RGBA image.
LEVELS: dict[Op, Callable[[Image.Image, int, int], Image.Image]] = {
    Op.IDENTITY: lambda i, m, s: i,
    Op.AUTOCONTRAST: lambda i, m, s: RGBA[Op.AUTOCONTRAST](i, 0, 0, 0),
    Op.EQUALIZE: lambda i, m, s: RGBA[Op.EQUALIZE](i, 0, 0, 0),
    Op.INVERT: lambda i, m, s: RGBA[Op.INVERT](i, 0, 0, 0),
    Op.ROTATE: lambda i, m, s: i.rotate(s * int(3 * m)),
    Op.SOLARIZE: lambda i, m, s: RGBA[Op.SOLARIZE](i, 256 - int(25.6 * m), 0, 0),
    Op.POSTERIZE: lambda i, m, s: RGBA[Op.POSTERIZE](i, 4 - int(0.4 * m), 0, 0),
    Op.COLOR: lambda i, m, s: ImageEnhance.Color(i).enhance(0.1 + 0.18 * m),
    Op.CONTRAST: lambda i, m, s: ImageEnhance.Contrast(i).enhance(0.1 + 0.18 * m),
    Op.BRIGHTNESS: lambda i, m, s: ImageEnhance.Brightness(i).enhance(0.1 + 0.18 * m),
    Op.SHARPNESS: lambda i, m, s: ImageEnhance.Sharpness(i).enhance(0.1 + 0.18 * m),
    Op.SHEAR_X: lambda i, m, s: transform(i, 1, s * m * 0.3 / 10, 0, 0, 1, 0),
    Op.SHEAR_Y: lambda i, m, s: transform(i, 1, 0, 0, s * m * 0.3 / 10, 1, 0),
    Op.TRANSLATE_X: lambda i, m, s: transform(i, 1, 0, s * m, 0, 1, 0),
    Op.TRANSLATE_Y: lambda i, m, s: transform(i, 1, 0, 0, 0, 1, s * m),
    Op.CUTOUT: lambda i, m, s: clear(i, 2 * m, 5, 20),
}


@pytest.mark.parametrize("op", list(LEVELS), ids=lambda op: op.name.lower())
def test_every_level_of_google(op: Op) -> None:
    """Levels 0 to 15, both signs, on images of which a part is transparent already."""
    count, shape = 32, (3, 32, 32)
    images = photos(32, 32, "RGB")[:count]
    m, sign = np.repeat(np.arange(16), 2), np.tile([1, -1], 16)
    pixels = pack(torch.from_numpy(images))
    spin, ones = np.full(count, Op.ROTATE), np.ones(count)
    apply(pixels, spin, 20 * ones, shape, fill=HALF)
    value = magnitudes(OPERATIONS, np.full(count, op), m.astype(float), sign.astype(float), shape)
    apply(pixels, np.full(count, op), value, shape, np.tile([5, 20], (count, 1)), fill=HALF)
    got = np.stack([pixels.numpy() >> s & 255 for s in (0, 8, 16)], -1).reshape(count, 32, 32, 3)
    opaque = (pixels.numpy() < HALF).reshape(count, 32, 32)
    for i in range(count):
        turned = Image.fromarray(images[i]).convert("RGBA").rotate(20)
        expected = np.asarray(LEVELS[op](turned, int(m[i]), int(sign[i])))
        assert np.array_equal(got[i], expected[..., :3]), (op, m[i])
        assert np.array_equal(opaque[i], expected[..., 3] == 255)


def google(draw: Any, shift: int, side: int) -> One:
    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = google_in(np.asarray(weakly(image_of(a), draw.weak.moves[i], shift)).reshape(a.shape))
        for slot, (op, value) in enumerate(zip(draw.op[i], draw.value[i], strict=True)):
            x, y = draw.place[i, slot] if draw.place.shape[1] else (0, 0)
            img = RGBA[Op(op)](img, float(value), int(x), int(y))
        out = google_out(img, a.shape[2])
        if side:
            x, y = draw.box[i, :2] + side // 2  # the centre
            h = side // 2
            out[max(0, y - h) : y + h, max(0, x - h) : x + h] = 0
        return out

    return one


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["ra", "rac", "r4_15_50"])
def test_google_sequence(kind: str, case: tuple[int, int, str]) -> None:
    images = photos(*case)[:N]
    preset: Preset = PRESETS["google"]
    if kind == "r4_15_50":
        preset = preset._replace(slots=4, probability=1.0, levels=(15, 15), boxes=square_boxes(percent=50))
    view = RandAugment((images.shape[3], *case[:2]), True, 4, preset, cutout=kind != "ra")
    draw = view.draw(Rng(1, 2), N, "u")
    side = {"ra": 0, "rac": 16, "r4_15_50": min(case[:2]) // 2}[kind]
    assert differing(view, images, draw, google(draw, 4, side)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("policy", "cutout"), [("cifar", True), ("svhn", False)])
def test_autoaugment_sequence(policy: str, cutout: bool, case: tuple[int, int, str]) -> None:
    images = photos(*case)[:N]
    view = AutoAugment((images.shape[3], *case[:2]), False, 4, policy, cutout)
    draw = view.draw(Rng(1, 3), N, "u")
    assert differing(view, images, draw, google(draw, 4, 16 if cutout else 0)) == 0


def test_middle_is_exactly_the_middle() -> None:
    """0 in [-1, 1], also of grey images; mean and std of one's own apply to 127.5."""
    for c in (1, 3):
        pixels = torch.full((2, 16), MIDDLE, dtype=torch.int32)
        assert not Normalize((c, 4, 4), [0.5] * c, [0.5] * c, halves=True)(pixels).any()
        out = Normalize((c, 4, 4), [0.3] * c, [0.2] * c, halves=True)(pixels)
        np.testing.assert_allclose(out.numpy(), 1.0, atol=1e-6)


# ---- LeeDoYup/FixMatch-pytorch


def leedoyup(draw: Any, shift: int) -> One:
    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = image_of(a)
        for op, value in zip(draw.op[i], draw.value[i], strict=True):
            img = REFERENCE[Op(op)](img, float(value), 0, 0)
        img = img.copy()
        colour = (125, 123, 114) if img.mode == "RGB" else Image.new("RGB", (1, 1), (125, 123, 114)).convert("L")
        fill = colour if isinstance(colour, tuple) else colour.getpixel((0, 0))
        ImageDraw.Draw(img).rectangle(tuple(map(int, draw.box[i])), fill)
        return scaled(weakly(img, draw.weak.moves[i], shift, "constant"))

    return one


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_leedoyup_sequence(case: tuple[int, int, str]) -> None:
    images = photos(*case)[:N]
    view = RandAugment((images.shape[3], *case[:2]), True, 4, "leedoyup")
    draw = view.draw(Rng(1, 2), N, "u")
    assert differing(view, images, draw, leedoyup(draw, 4)) == 0


# ---- the ImageNet form: 128 where moves uncover


def filled(img: Image.Image, op: Op, value: float) -> Image.Image:
    fill = (128,) * 3 if img.mode == "RGB" else 128
    if op is Op.ROTATE:
        return img.rotate(value, fillcolor=fill)
    six = {
        Op.SHEAR_X: (1, value, 0, 0, 1, 0),
        Op.SHEAR_Y: (1, 0, 0, value, 1, 0),
        Op.TRANSLATE_X: (1, 0, value, 0, 1, 0),
        Op.TRANSLATE_Y: (1, 0, 0, 0, 1, value),
    }.get(op)
    if six is None:
        return REFERENCE[op](img, value, 0, 0)
    return img.transform(img.size, Image.Transform.AFFINE, six, fillcolor=fill)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_imagenet_sequence(case: tuple[int, int, str]) -> None:
    images = photos(*case)[:N]
    view = RandAugment((images.shape[3], *case[:2]), True, 4, "imagenet")
    draw = view.draw(Rng(1, 2), N, "u")

    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = weakly(image_of(a), draw.weak.moves[i], 4)
        for op, value in zip(draw.op[i], draw.value[i], strict=True):
            img = filled(img, Op(op), float(value))
        return scaled(img)

    assert not draw.box.size and differing(view, images, draw, one) == 0


# From imagenet/augment/ct_augment.py: operations by the level p in [0, 1].
CTA: dict[Op, Callable[[Image.Image, float], Image.Image]] = {
    Op.AUTOCONTRAST: lambda i, p: Image.blend(i, ImageOps.autocontrast(i), 1 - p),
    Op.EQUALIZE: lambda i, p: Image.blend(i, ImageOps.equalize(i), 1 - p),
    Op.INVERT: lambda i, p: Image.blend(i, ImageOps.invert(i), 1 - p),
    Op.BLUR: lambda i, p: Image.blend(i, i.filter(ImageFilter.BLUR), p),
    Op.SMOOTH: lambda i, p: Image.blend(i, i.filter(ImageFilter.SMOOTH), p),
    Op.BRIGHTNESS: lambda i, p: ImageEnhance.Brightness(i).enhance(1.9 * p + 0.1),
    Op.COLOR: lambda i, p: ImageEnhance.Color(i).enhance(1.9 * p + 0.1),
    Op.CONTRAST: lambda i, p: ImageEnhance.Contrast(i).enhance(1.9 * p + 0.1),
    Op.SHARPNESS: lambda i, p: ImageEnhance.Sharpness(i).enhance(1.9 * p + 0.1),
    Op.IDENTITY: lambda i, p: i,
    Op.POSTERIZE: lambda i, p: ImageOps.posterize(i, 1 + int(7.999 * p)),
    Op.ZOOM: lambda i, p: REFERENCE[Op.ZOOM](i, 0.25 * p, 0, 0),
    Op.ROTATE: lambda i, p: filled(i, Op.ROTATE, (2 * p - 1) * 45),
    Op.SHEAR_X: lambda i, p: filled(i, Op.SHEAR_X, (2 * p - 1) * 0.3),
    Op.SHEAR_Y: lambda i, p: filled(i, Op.SHEAR_Y, (2 * p - 1) * 0.3),
    Op.SOLARIZE: lambda i, p: ImageOps.solarize(i, int(256 * p)),
    Op.SOLARIZE_ADD: lambda i, p: REFERENCE[Op.SOLARIZE_ADD](i, int(110 * p), 0, 0),
    Op.TRANSLATE_X: lambda i, p: filled(i, Op.TRANSLATE_X, (2 * p - 1) * 100 / 224 * i.width),
    Op.TRANSLATE_Y: lambda i, p: filled(i, Op.TRANSLATE_Y, (2 * p - 1) * 100 / 224 * i.height),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cta_imagenet_sequence(case: tuple[int, int, str]) -> None:
    images = photos(*case)[:N]
    view = CTAugment((images.shape[3], *case[:2]), True, 4, depth=3, pool="imagenet")
    draw = view.draw(Rng(1, 2), N, "u")

    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = weakly(image_of(a), draw.weak.moves[i], 4)
        for member, p in zip(draw.policy.member[i], draw.policy.p[i, :, 0], strict=True):
            img = CTA[IMAGENET.operations[member].op](img, float(p))
        return scaled(img)

    assert differing(view, images, draw, one) == 0


# ---- real images


def cifar10() -> NDArray[np.uint8]:
    root = Path(os.environ.get("ML_DATA", ""))
    if not (root / "cifar-10-batches-py").is_dir():
        pytest.skip("the official files of CIFAR-10 are not in $ML_DATA")
    return load_source(resolve_data(Data("cifar10", root=str(root)))).images[:512]


def small_cta(draw: Any) -> One:
    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = weakly(image_of(a), draw.weak.moves[i], 4)
        for member, (p, q), (x, y) in zip(draw.policy.member[i], draw.policy.p[i], draw.policy.centre[i], strict=True):
            o = FIXMATCH.operations[member]
            if o.op is Op.RESCALE:
                img = zoom(img, 0.25 * p, int(5.99 * q))
            else:
                value = float(o.magnitude(np.array([p]), (3, 32, 32))[0])
                img = REFERENCE[o.op](img, value, int(x), int(y))
        x0, y0 = map(int, draw.box[i, :2])
        return scaled(REFERENCE[Op.CUTOUT](img, 16, x0 + 8, y0 + 8))

    return one


def kekmodel(draw: Any) -> One:
    def one(a: NDArray[np.uint8], i: int) -> Floats:
        img = weakly(image_of(a), draw.weak.moves[i], 4)
        for op, value in zip(draw.op[i], draw.value[i], strict=True):
            img = REFERENCE[Op(op)](img, float(value), 0, 0)
        return scaled(kekmodel_cutout(img, draw.box[i]))

    return one


@pytest.mark.parametrize("name", ["kekmodel", "leedoyup", "google", "autoaugment", "cta"])
def test_cifar10(name: str) -> None:
    images, shape = cifar10(), (3, 32, 32)
    view: View = RandAugment(shape, True, 4, name if name in PRESETS else "kekmodel")
    if name == "autoaugment":
        view = AutoAugment(shape, True, 4)
    if name == "cta":
        view = CTAugment(shape, True, 4)
    draw = view.draw(Rng(5, 6), len(images), "u")
    one = {
        "kekmodel": kekmodel,
        "leedoyup": lambda d: leedoyup(d, 4),
        "google": lambda d: google(d, 4, 16),
        "autoaugment": lambda d: google(d, 4, 16),
        "cta": small_cta,
    }[name](draw)
    assert differing(view, images, draw, one) == 0


def test_presets_name_their_fill() -> None:
    assert {n: (p.fill, p.colour) for n, p in PRESETS.items()} == {
        "kekmodel": ((0, 0, 0), GREY),
        "leedoyup": ((0, 0, 0), (125, 123, 114)),
        "google": (None, None),
        "imagenet": ((128, 128, 128), GREY),
    }
    assert len(GOOGLE) == 14 and set(OPERATIONS) - set(GOOGLE) == {Op.INVERT, Op.CUTOUT}
