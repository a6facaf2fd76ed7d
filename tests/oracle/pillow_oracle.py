"""Pillow's operations, photographs to try them on, and image-by-image comparison with what batches give."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from torchvision.transforms import functional as TF

from fewlabels.augment import unpack
from fewlabels.augment.ops import Op

N = 512
SIZES = [(32, 32), (24, 37)]
MODES = ["RGB", "L"]
RESIZE = [
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.HAMMING,
    Image.Resampling.NEAREST,
]


def partly(img: Image.Image, done: Image.Image, p: float) -> Image.Image:
    return Image.blend(img, done, p)


def transform(img: Image.Image, *six: float) -> Image.Image:
    return img.transform(img.size, Image.Transform.AFFINE, six)


def cut(img: Image.Image, side: float, x: int, y: int) -> Image.Image:
    """Rows and columns c - side//2 .. c + side//2 - 1, clipped, become 127."""
    a = np.array(img)
    half = int(side) // 2
    a[max(0, y - half) : max(0, y + half), max(0, x - half) : max(0, x + half)] = 127
    return Image.fromarray(a)


def zoom(img: Image.Image, s: float, method: int) -> Image.Image:
    w, h = img.size
    return img.crop((s * w, s * h, w * (1 - s), h * (1 - s))).resize((w, h), RESIZE[method])


def corner(img: Image.Image, s: float) -> Image.Image:
    w, h = img.size
    return img.crop((int(s * w), int(s * h), w, h)).resize((w, h), Image.Resampling.BICUBIC)


def solarize_add(img: Image.Image, more: int) -> Image.Image:
    return img.point([min(255, k + more) if k < 128 else k for k in range(256)] * len(img.getbands()))


REFERENCE: dict[Op, Callable[[Image.Image, float, int, int], Image.Image]] = {
    Op.IDENTITY: lambda i, v, x, y: i,
    Op.AUTOCONTRAST: lambda i, v, x, y: partly(i, ImageOps.autocontrast(i), v),
    Op.EQUALIZE: lambda i, v, x, y: partly(i, ImageOps.equalize(i), v),
    Op.INVERT: lambda i, v, x, y: partly(i, ImageOps.invert(i), v),
    Op.BLUR: lambda i, v, x, y: partly(i, i.filter(ImageFilter.BLUR), v),
    Op.SMOOTH: lambda i, v, x, y: partly(i, i.filter(ImageFilter.SMOOTH), v),
    Op.BRIGHTNESS: lambda i, v, x, y: ImageEnhance.Brightness(i).enhance(v),
    Op.COLOR: lambda i, v, x, y: ImageEnhance.Color(i).enhance(v),
    Op.CONTRAST: lambda i, v, x, y: ImageEnhance.Contrast(i).enhance(v),
    Op.SHARPNESS: lambda i, v, x, y: ImageEnhance.Sharpness(i).enhance(v),
    Op.POSTERIZE: lambda i, v, x, y: ImageOps.posterize(i, int(v)),
    Op.SOLARIZE: lambda i, v, x, y: ImageOps.solarize(i, v),
    Op.ROTATE: lambda i, v, x, y: i.rotate(v),
    Op.SHEAR_X: lambda i, v, x, y: transform(i, 1, v, 0, 0, 1, 0),
    Op.SHEAR_Y: lambda i, v, x, y: transform(i, 1, 0, 0, v, 1, 0),
    Op.TRANSLATE_X: lambda i, v, x, y: transform(i, 1, 0, v, 0, 1, 0),
    Op.TRANSLATE_Y: lambda i, v, x, y: transform(i, 1, 0, 0, 0, 1, v),
    Op.RESCALE: lambda i, v, x, y: zoom(i, v, x),
    Op.CUTOUT: lambda i, v, x, y: cut(i, v, x, y),
    Op.SOLARIZE_ADD: lambda i, v, x, y: solarize_add(i, int(v)),
    Op.ZOOM: lambda i, v, x, y: corner(i, v),
}


@cache
def photos(height: int, width: int, mode: str) -> NDArray[np.uint8]:
    """Crops of scikit-learn's two sample photographs, ``[N, H, W, 3 or 1]``, contrasts flat and steep."""
    g = np.random.default_rng(height * width)
    both = load_sample_images().images
    out = []
    for i in range(N):
        photo = both[i % 2]
        y, x = g.integers(0, photo.shape[0] - 4 * height), g.integers(0, photo.shape[1] - 4 * width)
        step = 1 + i % 4  # coarser samples show more edges
        crop = np.ascontiguousarray(photo[y : y + step * height : step, x : x + step * width : step])
        image = Image.fromarray(crop).convert(mode)
        out.append(np.array(image).reshape(height, width, -1))
    out[0][:] = 77  # one colour only: histograms with a single entry
    return np.stack(out)


def reference(images: NDArray[np.uint8], one: Callable[[Image.Image, int], Image.Image]) -> NDArray[np.uint8]:
    done = [one(Image.fromarray(a.squeeze()), i) for i, a in enumerate(images)]
    return np.stack([np.asarray(d) for d in done]).reshape(images.shape)


def differing(pixels: torch.Tensor, expected: NDArray[np.uint8]) -> int:
    _, h, w, c = expected.shape
    return int((unpack(pixels, (c, h, w)).numpy() != expected).sum())


def weakly(image: Image.Image, move: NDArray[np.int32], shift: int, border: str = "reflect") -> Image.Image:
    """torchvision: flip, pad, crop."""
    flip, dy, dx = map(int, move)
    if flip:
        image = TF.hflip(image)
    w, h = image.size
    image = TF.pad(image, shift, padding_mode=border)
    return TF.crop(image, shift + dy, shift + dx, h, w)


def kekmodel_cutout(img: Image.Image, box: NDArray[np.int32]) -> Image.Image:
    img = img.copy()
    ImageDraw.Draw(img).rectangle(tuple(map(int, box)), 127 if img.mode == "L" else (127, 127, 127))
    return img
