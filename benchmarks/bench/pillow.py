"""The usual way: picture by picture, with Pillow and torchvision, in a DataLoader. Our own code of it.

It is what ours is compared with, first in its pixels and then in its time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from bench.measure import NotExact, Tick
from fewlabels.augment import PRESETS, RandAugment, Weak, unpack
from fewlabels.augment.ops import Op
from fewlabels.augment.presets import Preset
from fewlabels.augment.randaugment import RandDraw
from fewlabels.data.source import Images
from fewlabels.runtime.rgb import pack
from fewlabels.runtime.rng import Rng

Picture = Image.Image

POLICIES: dict[str, Preset] = {
    "kekmodel": PRESETS["kekmodel"],
    # the operations and the cutout of `leedoyup` after a flip and a crop with reflected border, which is USB's order
    "three_op": PRESETS["leedoyup"]._replace(weak_last=False),
    "leedoyup": PRESETS["leedoyup"],
}
"""Strong views that are timed: two operations; three; three, before flip and crop with a black border."""


def _shift(picture: Picture, *six: float) -> Picture:
    return picture.transform(picture.size, Image.Transform.AFFINE, six)


OPERATIONS: dict[Op, Callable[[Picture, float], Picture]] = {
    Op.IDENTITY: lambda p, v: p,
    Op.AUTOCONTRAST: lambda p, v: ImageOps.autocontrast(p),
    Op.EQUALIZE: lambda p, v: ImageOps.equalize(p),
    Op.BRIGHTNESS: lambda p, v: ImageEnhance.Brightness(p).enhance(v),
    Op.COLOR: lambda p, v: ImageEnhance.Color(p).enhance(v),
    Op.CONTRAST: lambda p, v: ImageEnhance.Contrast(p).enhance(v),
    Op.SHARPNESS: lambda p, v: ImageEnhance.Sharpness(p).enhance(v),
    Op.POSTERIZE: lambda p, v: ImageOps.posterize(p, int(v)),
    Op.SOLARIZE: lambda p, v: ImageOps.solarize(p, v),  # type: ignore[arg-type]  # it takes any number
    Op.ROTATE: lambda p, v: p.rotate(v),
    Op.SHEAR_X: lambda p, v: _shift(p, 1, v, 0, 0, 1, 0),
    Op.SHEAR_Y: lambda p, v: _shift(p, 1, 0, 0, v, 1, 0),
    Op.TRANSLATE_X: lambda p, v: _shift(p, 1, 0, v, 0, 1, 0),
    Op.TRANSLATE_Y: lambda p, v: _shift(p, 1, 0, 0, 0, 1, v),
}


def strong(picture: Picture, ops: Sequence[tuple[Op, float]], box: Sequence[int], colour: Any) -> Picture:
    """The operations one after the other, then the cutout `box` (x0, y0, x1, y1, the last ones included)."""
    for op, value in ops:
        picture = OPERATIONS[op](picture, value)
    x0, y0, x1, y1 = box
    if x1 >= x0 and y1 >= y0:
        picture = picture.copy()
        ImageDraw.Draw(picture).rectangle((x0, y0, x1, y1), colour)
    return picture


class Drawn:
    """The random strong part of a policy: one of 4,096 sequences that were drawn beforehand.

    What drawing costs the usual code is left out of its time.
    """

    def __init__(self, preset: Preset, side: int) -> None:
        view = RandAugment((3, side, side), True, side // 8, preset)
        self.colour = preset.colour
        self.sequences = sequences(view.draw(Rng(1, 0), 4096, "bench/pillow"))

    def __call__(self, picture: Picture) -> Picture:
        return strong(picture, *random.choice(self.sequences), self.colour)


def sequences(draw: RandDraw) -> list[tuple[list[tuple[Op, float]], list[int]]]:
    """Operations with magnitudes, and the box, of each image of a draw."""
    ops = [
        [(Op(o), v) for o, v in zip(*row, strict=True)]
        for row in zip(draw.op.tolist(), draw.value.tolist(), strict=True)
    ]
    return list(zip(ops, draw.box.tolist(), strict=True))


class Pairs(Dataset[Any]):
    """Weak and strong view of each image, or the weak one alone, normalised floats ``[3, side, side]``."""

    def __init__(self, images: Images, preset: Preset | None, mean: Sequence[float], std: Sequence[float]) -> None:
        side = images.shape[1]
        border = "constant" if preset is not None and preset.weak_last else "reflect"
        flip = transforms.RandomHorizontalFlip()
        crop = transforms.RandomCrop(side, padding=side // 8, padding_mode=border)
        self.images = images
        self.weak = transforms.Compose([flip, crop])
        self.strong: Callable[[Picture], Picture] | None = None
        if preset is not None:
            drawn = Drawn(preset, side)
            self.strong = transforms.Compose([drawn, flip, crop] if preset.weak_last else [flip, crop, drawn])
        self.finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Any:
        picture = Image.fromarray(self.images[row])
        weak = self.finish(self.weak(picture))
        return weak if self.strong is None else (weak, self.finish(self.strong(picture)))


class TensorPairs(Dataset[Any]):
    """The same kind of work by torchvision's v2 transforms on tensors: its own RandAugment, then one erased square."""

    def __init__(self, images: Images, slots: int, mean: Sequence[float], std: Sequence[float]) -> None:
        side = images.shape[1]
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        moves = [v2.RandomHorizontalFlip(), v2.RandomCrop(side, padding=side // 8, padding_mode="reflect")]
        floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        cutout = v2.RandomErasing(p=1, scale=(0.25, 0.25), ratio=(1, 1))
        self.weak = v2.Compose([*moves, *floats])
        self.strong = v2.Compose([*moves, v2.RandAugment(num_ops=slots), *floats, cutout])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = self.images[row]
        return self.weak(image), self.strong(image)


def moved(picture: Picture, move: Sequence[int], border: str) -> Picture:
    """Flip and shift as `augment.Weak` draws them: flip, rows, columns."""
    flip, dy, dx = move
    height, width = picture.size[1], picture.size[0]
    pad = max(abs(dy), abs(dx))
    picture = F.pad(F.hflip(picture) if flip else picture, [pad] * 4, padding_mode=border)
    cropped: Picture = F.crop(picture, pad + dy, pad + dx, height, width)
    return cropped


def differing(preset: Preset, images: Images, device: torch.device, *, count: int, tick: Tick) -> int:
    """How many of `count` weak and `count` strong views differ from Pillow's in any pixel."""
    side = images.shape[1]
    shape = (3, side, side)
    black = preset.weak_last
    weak, view = Weak(shape, True, side // 8, black), RandAugment(shape, True, side // 8, preset)
    border = "constant" if black else "reflect"
    wrong, chunk = 0, 500
    for step, start in enumerate(range(0, count, chunk)):
        rows = np.arange(start, min(start + chunk, count)) % len(images)
        batch, rng = images[rows], Rng(2, step)
        pixels = pack(torch.from_numpy(batch)).to(device)
        first, draw = weak.draw(rng, len(rows), "bench/weak"), view.draw(rng, len(rows), "bench/strong")
        ours = [unpack(look(pixels, d).cpu(), shape).numpy() for look, d in ((weak, first), (view, draw))]
        theirs: list[list[NDArray[np.uint8]]] = [[], []]
        plan = sequences(draw)
        for i, image in enumerate(batch):
            picture = Image.fromarray(image)
            theirs[0].append(np.asarray(moved(picture, first.moves[i].tolist(), border)))
            move = draw.weak.moves[i].tolist()
            if preset.weak_last:
                done = moved(strong(picture, *plan[i], preset.colour), move, border)
            else:
                done = strong(moved(picture, move, border), *plan[i], preset.colour)
            theirs[1].append(np.asarray(done))
        wrong += sum(
            int((o != np.stack(t)).reshape(len(rows), -1).any(1).sum()) for o, t in zip(ours, theirs, strict=True)
        )
        tick(min(start + chunk, count), count)
    return wrong


def check(name: str, preset: Preset, images: Images, device: torch.device, *, count: int, tick: Tick) -> dict[str, int]:
    """Raises NotExact unless every view equals Pillow's bit for bit; else what was looked at."""
    wrong = differing(preset, images, device, count=count, tick=tick)
    if wrong:
        raise NotExact(
            f"{wrong} of {2 * count} views of the policy {name} differ from Pillow's, so that their times cannot be "
            "compared; nothing was timed"
        )
    return {"views": 2 * count, "differing": wrong}
