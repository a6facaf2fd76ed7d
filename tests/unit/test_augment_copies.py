"""Copies of images: what each kind does, against plain Python; a copy is a function of seed, image and number."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

import fewlabels as fl
from fewlabels.augment import CopyMaker, pack, unpack
from fewlabels.augment.copies import CopyDraw, erased, recoloured
from fewlabels.config.settings import Train
from fewlabels.data.split import make_split
from fewlabels.runtime.rng import Rng, philox_pairs
from fewlabels.training.step import Trainer
from fewlabels.types import CopyKind

KINDS = [kind for kind in get_args(CopyKind) if kind != "none"]
SHIFTS = {"cifar10": 4, "svhn": 4, "stl-10": 12, "color": 4, "cutout": 0}


def noise(n: int, h: int, w: int, c: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8))


def copied(maker: CopyMaker, images: torch.Tensor, draw: CopyDraw) -> np.ndarray:
    pixels = pack(images)
    before = pixels.clone()
    out = unpack(maker.make(pixels, draw), maker.shape).numpy()
    assert torch.equal(pixels, before)
    return out


def moved(image: np.ndarray, flip: int, down: int, right: int, shift: int) -> np.ndarray:
    """Flipped, padded with a reflected border, cropped."""
    h, w, _ = image.shape
    image = image[:, ::-1] if flip else image
    padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
    return padded[shift + down : shift + down + h, shift + right : shift + right + w]


def coloured(image: np.ndarray, light: float, turn: float, saturation: float, contrast: float) -> np.ndarray:
    """float64 0..255, by Python's colorsys, pixel by pixel."""
    out = np.clip(image / 255 + light, 0, 1)
    for row in out:
        for pixel in row:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            pixel[:] = colorsys.hsv_to_rgb((h + turn) % 1, min(s * saturation, 1), v)
    mean = out.mean((0, 1))
    return np.clip((out - mean) * contrast + mean, 0, 1) * 255


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_copy_is_what_was_drawn(kind: Any, channels: int) -> None:
    if (kind, channels) == ("color", 4):
        return
    images, shift = noise(24, 14, 16, channels), SHIFTS[kind]
    maker = CopyMaker((channels, 14, 16), kind, 5)
    draw = maker.draw(Rng(0, 3), np.arange(24))
    found = copied(maker, images, draw)
    assert found.dtype == np.uint8
    for i, image in enumerate(images.numpy()):
        expected: np.ndarray = image
        if kind == "color":
            three = np.repeat(image, 3, 2) if channels == 1 else image
            expected = coloured(three, *map(float, draw.colour[i]))[..., :channels]
        if kind == "cutout":
            x0, y0, x1, y1 = draw.box[i]
            expected = image.copy()
            expected[y0 : y1 + 1, x0 : x1 + 1] = draw.grey[i]
        else:
            expected = moved(expected, *draw.moves[i], shift)
        difference = np.abs(found[i] - expected)
        assert difference.max() <= (0.5 + 1e-3 if kind == "color" else 0)
    assert any((found[i] != image).any() for i, image in enumerate(images.numpy()))


def test_colours_of_plain_pixels() -> None:
    """Red turned by a third is green, by half cyan; without saturation all is grey; black and white have no hue."""
    plain = torch.tensor([[255, 0, 0], [0, 0, 0], [255, 255, 255], [10, 10, 10]], dtype=torch.uint8)
    images = plain.view(1, 2, 2, 3).repeat(4, 1, 1, 1)
    change = torch.tensor([[0, 1 / 3, 1, 1], [0, 0.5, 1, 1], [0, 0, 0, 1], [0.08, 0.2, 3, 1]])
    found = unpack(recoloured(pack(images), change), (3, 2, 2)).view(4, 4, 3).tolist()
    assert [row[0] for row in found] == [[0, 255, 0], [0, 255, 255], [255] * 3, found[3][0]]
    assert [row[1:] for row in found[:3]] == [plain[1:].tolist()] * 3
    assert found[3][1:] == [[20] * 3, [255] * 3, [30] * 3]  # 0.08 are 20.4 levels


def test_colours_of_every_corner() -> None:
    """Ties between channels and all levels of the cube's edges, turned by many angles."""
    levels = np.array([0, 1, 127, 128, 254, 255])
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, 12, 18, 3).astype(np.uint8)
    rng = np.random.default_rng(0)
    change = np.concatenate([rng.uniform([-0.1, -0.5, 0.1, 0.5], [0.1, 0.5, 3, 1.5], (8, 4)), [[0, -0.5, 1, 1]]])
    images = torch.from_numpy(cube).repeat(9, 1, 1, 1)
    found = unpack(recoloured(pack(images), torch.tensor(change).float()), (3, 12, 18)).numpy()
    for image, row in zip(found, change, strict=True):
        assert np.abs(image - coloured(cube[0].astype(float), *row)).max() <= 0.5 + 1e-3


@pytest.mark.slow
def test_what_is_drawn() -> None:
    """Ranges and shares of the README's kinds; of 6,000 draws, a share of 1/2 is within 0.03 at five deviations."""
    images = np.arange(6000)

    def draw(kind: Any) -> CopyDraw:
        return CopyMaker((3, 32, 32), kind, 9).draw(Rng(1, 0), images)

    for kind, shift in SHIFTS.items():
        moves = draw(kind).moves
        if kind == "cutout":
            assert moves.shape == (6000, 0)
            continue
        flips = moves[:, 0]
        assert not flips.any() if kind == "svhn" else abs(flips.mean() - 0.5) < 0.033
        for offset in moves.T[1:]:
            assert set(offset.tolist()) == set(range(-shift, shift + 1))
            assert np.bincount(offset + shift).std() < 6000 / (2 * shift + 1) * 0.1
    for column, low, high in zip(draw("color").colour.T, (-0.1, -0.5, 0.1, 0.5), (0.1, 0.5, 3.0, 1.5), strict=True):
        assert low <= column.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < column.max() <= high
        assert abs(column.mean() - (low + high) / 2) < 0.02 * (high - low)
    cut = draw("cutout")
    x0, y0, x1, y1 = cut.box[cut.box[:, 2] >= 0].T
    w, h = x1 - x0 + 1, y1 - y0 + 1
    assert abs(len(w) / 6000 - 0.3) < 0.03
    assert min(x0.min(), y0.min()) == 0 and max(x1.max(), y1.max()) == 31
    assert (w * h <= 0.4 * 1024).all() and ((w + 1) * (h + 1) >= 0.02 * 1024).all()
    assert ((h + 1) / w >= 0.3).all() and (h / (w + 1) <= 1 / 0.3).all()
    grey = cut.grey[cut.box[:, 2] >= 0]
    assert 0 <= grey.min() < 5 and 250 <= grey.max() <= 254 and abs(grey.mean() - 127) < 9


class Told:
    """A generator that says what it is told to."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def uniform(self, low: float, high: float) -> float:
        value = self.numbers.pop(0)
        assert low <= value <= high
        return value

    def integers(self, high: int) -> int:
        value = int(self.numbers.pop(0))
        assert 0 <= value < high
        return value


def test_a_rectangle_is_drawn_anew_until_it_fits() -> None:
    """By hand on 32 x 32: area 0.25 * 1024 = 256 and ratio 1 are 16 x 16; at column 17 that does not fit."""
    g: Any = Told(0.2, 0.25, 1.0, 17, 0, 0.1, 2.0, 25, 17, 99.9)
    # 102.4 and 2: int(sqrt(51.2)) = 7 wide, int(sqrt(204.8)) = 14 high
    assert erased(g, 32, 32) == (25, 17, 31, 30, 99) and not g.numbers
    for chance, holds in ((0.3, True), (0.300001, False)):
        g = Told(chance, 0.25, 1.0, 0, 0, 0.0)
        assert (erased(g, 32, 32) == (0, 0, 15, 15, 0)) == holds


def test_a_copy_is_a_function_of_seed_image_and_number() -> None:
    images, size = noise(6, 16, 16, 3), (3, 16, 16)
    one = CopyMaker(size, "color", 1)

    def look(seed: int, step: int, rows: list[int]) -> np.ndarray:
        return copied(one, images[rows], one.draw(Rng(seed, step), np.array(rows)))

    first = look(0, 0, [0, 1, 2, 3, 4, 5])
    assert np.array_equal(look(0, 77, [4, 2]), first[[4, 2]])  # whatever the step, and whoever is beside it
    assert not np.array_equal(look(1, 0, [4, 2]), first[[4, 2]])
    many = CopyMaker(size, "color", 3)
    seen = {many.draw(Rng(0, step), np.array([5])).colour.tobytes() for step in range(60)}
    assert len(seen) == 3 and one.draw(Rng(0, 0), np.array([5])).colour.tobytes() in seen
    others = {many.draw(Rng(0, step), np.array([4])).colour.tobytes() for step in range(60)}
    assert not seen & others


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_together_draw_what_one_rank_draws(kind: Any) -> None:
    maker, rows = CopyMaker((3, 16, 16), kind, 4), np.array([7, 3, 3, 0, 11, 2])
    whole = maker.draw(Rng(0, 5), rows)
    for world in (2, 3):
        parts = [maker.draw(rng, rng.shard(rows)) for rng in (Rng(0, 5, rank=r, world=world) for r in range(world))]
        for values, *pieces in zip(whole, *parts, strict=True):
            assert np.array_equal(values, np.concatenate(pieces))


def test_a_generator_for_each_pair_is_philox_with_both_in_its_counter() -> None:
    from fewlabels.runtime.rng import _key

    pairs = np.array([[3, 4], [4, 3], [0, 0], [7, 2**40]])
    for g, (first, second) in zip(philox_pairs(5, "x", pairs), pairs.tolist(), strict=True):
        counter, key = np.array([0, 0, first, second], np.uint64), np.array([5, _key("x")], np.uint64)
        own = np.random.Generator(np.random.Philox(key=key, counter=counter))
        # integers of 32 bits leave half a word behind, which must not reach the next pair
        assert [g.random(), g.integers(9, dtype=np.int32)] == [own.random(), own.integers(9, dtype=np.int32)]


@pytest.mark.parametrize(
    ("shape", "kind", "number", "sentence"),
    [
        (
            (3, 12, 30),
            "stl-10",
            5,
            "stl-10 need images of more than 12 pixels on each side, not 12 x 30",
        ),
        ((4, 8, 8), "color", 5, "copies of the kind color need images with 1 or 3 channels, not 4"),
        ((3, 8, 8), "blur", 5, "copies must be at least 1 of a kind out of cifar10, .*, cutout, not 5 of 'blur'"),
        ((3, 8, 8), "svhn", 0, "copies must be at least 1 .*, not 0 of 'svhn'"),
    ],
)
def test_what_cannot_be(shape: Any, kind: Any, number: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CopyMaker(shape, kind, number)


@pytest.mark.parametrize("kind", KINDS[:1] + KINDS[3:])
def test_both_unlabeled_views_are_of_one_copy_and_the_labeled_ones_of_the_image(
    short: Callable[..., Train], kind: Any
) -> None:
    """With views that change nothing: the batch holds the copies, normalised, and other copies in another epoch."""
    images = noise(20, 8, 8, 3)
    source = fl.from_arrays(images.numpy(), np.arange(20) % 2)
    split = make_split(source, labels=6, seed=1)
    algorithm = replace(fl.RealMix(), copy_kind=kind, copies=3)
    config = short("realmix", algorithm=algorithm, weak="x", strong="none", shift=0, batch=4)
    trainer = Trainer(config, source, split, device=torch.device("cpu"), mean=(0.5,) * 3, std=(0.25,) * 3)
    maker = CopyMaker((3, 8, 8), kind, 3)
    changed = 0
    for step in (0, 3, 9):
        batch = trainer.batch(step)
        rows = split.unlabeled[batch.index.numpy()]
        copies = copied(maker, images[rows], maker.draw(Rng(config.seed, step), rows)).astype(np.float64)
        assert torch.equal(*batch.u)
        expected = (copies / 255 - 0.5) / 0.25
        np.testing.assert_allclose(batch.u[0].permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
        changed += int((copies != images[rows].numpy()).any((1, 2, 3)).sum())
        own = images[split.labeled[batch.labeled_index.numpy()]].double().numpy()
        np.testing.assert_allclose(batch.x[0].permute(0, 2, 3, 1).numpy(), (own / 255 - 0.5) / 0.25, atol=1e-5)
    assert changed > 0
