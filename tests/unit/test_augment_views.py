"""Views: what they draw, that draws depend on (seed, step, purpose) alone, and how odd images fare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.augment import (
    PRESETS,
    STRONG,
    WEAK,
    Affine,
    CTAugment,
    Cutout,
    Identity,
    Normalize,
    RandAugment,
    View,
    Weak,
    drops_colour,
    pack,
    strong_view,
    unpack,
    weak_view,
)
from fewlabels.augment.ops import Op
from fewlabels.runtime.rng import Rng

SHAPE = (3, 16, 16)
VIEWS = [("weak", n) for n in WEAK] + [("strong", n) for n in STRONG]


def make(kind: str, name: str, shape: tuple[int, int, int] = SHAPE) -> View:
    return weak_view(name, shape) if kind == "weak" else strong_view(name, shape)


def noise(n: int, h: int, w: int, c: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8))


def arrays(draw: Any) -> Iterator[np.ndarray]:
    if isinstance(draw, np.ndarray):
        yield draw
    else:
        for part in draw:
            yield from arrays(part)


@given(st.integers(1, 5), st.sampled_from([1, 2, 3, 4, 5]), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_pack_and_back(n: int, c: int, h: int, w: int) -> None:
    images = noise(n, h, w, c)
    assert torch.equal(unpack(pack(images), (c, h, w)), images)


def test_pack_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match=r"N, H, W, C.*float32"):
        pack(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"\[2, 2, 3\]"):
        pack(torch.zeros(2, 2, 3, dtype=torch.uint8))


@pytest.mark.parametrize("c", [1, 3, 5])
def test_normalize(c: int) -> None:
    images = noise(4, 6, 7, c)
    mean, std = np.linspace(0.3, 0.6, c), np.linspace(0.2, 0.3, c)
    out = Normalize((c, 6, 7), mean.tolist(), std.tolist())(pack(images))
    expected = ((images.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(out.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.5]), ([0.5] * 3, [0.5, 0.0, 0.5])])
def test_normalize_refuses(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="3 numbers each"):
        Normalize(SHAPE, mean, std)


@pytest.mark.parametrize(("kind", "name"), VIEWS)
def test_draw_is_a_function_of_seed_step_purpose(kind: str, name: str) -> None:
    view = make(kind, name)

    def drawn(seed: int, step: int, purpose: str) -> list[np.ndarray]:
        return list(arrays(view.draw(Rng(seed, step), 32, purpose)))

    first = drawn(1, 2, "u")
    assert all(np.array_equal(a, b) for a, b in zip(first, drawn(1, 2, "u"), strict=True))
    if name != "x":
        for other in (drawn(0, 2, "u"), drawn(1, 3, "u"), drawn(1, 2, "x")):
            assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("kind", "name"), VIEWS)
def test_ranks_share_one_draw(kind: str, name: str) -> None:
    images = pack(noise(32, 16, 16, 3))
    view = make(kind, name)
    whole = view(images, view.draw(Rng(1, 2), 32, "u"))
    parts = [view(rows, view.draw(Rng(1, 2, rank=r, world=2), 16, "u")) for r, rows in enumerate(images.chunk(2))]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("kind", "name"), VIEWS)
@pytest.mark.parametrize("c", [1, 2, 3, 5])
def test_every_view_takes_any_image(kind: str, name: str, c: int) -> None:
    images = noise(1, 9, 14, c).repeat(48, 1, 1, 1)
    view = make(kind, name, (c, 9, 14))
    pixels = pack(images)
    before = pixels.clone()
    out = view(pixels, view.draw(Rng(0, 0), 48, "u"))
    assert out.shape == pixels.shape and out.dtype == pixels.dtype
    assert torch.equal(pixels, before)
    if name != "x":  # the same image 48 times over does not stay the same
        assert len(torch.unique(out.flatten(1), dim=0)) > (1 if name == "m" else 8)
    if c == 1:
        assert torch.equal(unpack(out, (3, 9, 14))[..., 0], unpack(out, (3, 9, 14))[..., 2])


def test_five_channels_are_moved_and_cut() -> None:
    images = noise(256, 16, 16, 5)
    view = RandAugment((5, 16, 16), flip=True, shift=4)
    draw = view.draw(Rng(0, 0), 256, "u")
    out = unpack(view(pack(images), draw), (5, 16, 16))
    warps = [Op.ROTATE, Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y]
    same = draw._replace(op=np.where(np.isin(draw.op, warps), draw.op, Op.IDENTITY))
    three = RandAugment(SHAPE, flip=True, shift=4)
    assert torch.equal(out[..., 2:], unpack(three(pack(images[..., 2:].contiguous()), same), SHAPE))
    box = draw.box[0]
    assert (out[0, box[1] : box[3] + 1, box[0] : box[2] + 1] == 127).all()


def test_identity() -> None:
    pixels = pack(noise(2, 4, 4, 3))
    view = Identity((3, 4, 4))
    assert torch.equal(view(pixels, view.draw(Rng(0, 0), 2, "u")), pixels)


def far(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square statistic over its degrees of freedom: about 1."""
    return float(((counts - expected) ** 2 / expected).sum() / (counts.size - 1))


def test_weak_distribution() -> None:
    moves = Weak(SHAPE, flip=True, shift=4).draw(Rng(0, 0), 50000, "u").moves
    counts = np.zeros((2, 9, 9))
    np.add.at(counts, (moves[:, 0], moves[:, 1] + 4, moves[:, 2] + 4), 1)
    assert far(counts, np.full((2, 9, 9), 50000 / 162)) < 1.5
    assert not Weak(SHAPE, flip=False, shift=4).draw(Rng(0, 0), 500, "u").moves[:, 0].any()


def test_kekmodel_distribution() -> None:
    """14 operations, each applied half the time, at levels 1..9 (the table of dataset/randaugment.py)."""
    n = 60000
    draw = RandAugment((3, 32, 32), flip=True, shift=4).draw(Rng(0, 0), n, "u")
    counts = np.bincount(draw.op.ravel(), minlength=len(Op))
    other = (Op.INVERT, Op.BLUR, Op.SMOOTH, Op.RESCALE, Op.CUTOUT, Op.SOLARIZE_ADD, Op.ZOOM)
    expected = {op: n / 14 for op in Op if op not in other}
    expected[Op.IDENTITY] = n + n / 14  # drawn, or drawn and not applied
    assert set(np.flatnonzero(counts)) == set(expected)
    wanted = np.array([expected[Op(k)] for k in np.flatnonzero(counts)])
    assert far(counts[counts > 0], wanted) < 3
    a, b = draw.op.T
    assert np.bincount(b[a == Op.ROTATE], minlength=len(Op))[Op.ROTATE] > 0  # with replacement

    def values(op: Op) -> tuple[list[float], np.ndarray]:
        value, count = np.unique(draw.value[draw.op == op].round(6), return_counts=True)
        return value.tolist(), count

    levels = {
        Op.BRIGHTNESS: [0.14, 0.23, 0.32, 0.41, 0.5, 0.59, 0.68, 0.77, 0.86],
        Op.SOLARIZE: [26, 52, 77, 103, 128, 154, 180, 205, 231],
        Op.ROTATE: [s * d for s in (-1, 1) for d in (3, 6, 9, 12, 15, 18, 21, 24, 27)],
        Op.SHEAR_X: [s * d for s in (-1, 1) for d in (0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27)],
    }
    for op, level in levels.items():
        value, count = values(op)
        assert value == sorted(level)
        assert far(count, np.full(len(level), counts[op] / len(level))) < 3
    value, count = values(Op.POSTERIZE)
    assert value == [4, 5, 6, 7]
    assert far(count, counts[Op.POSTERIZE] * np.array([2, 2, 3, 2]) / 9) < 4
    value, count = values(Op.TRANSLATE_X)
    assert value == list(range(-8, 9))
    assert abs(count[8] / counts[Op.TRANSLATE_X] - 1 / 9) < 0.02  # 0.96 px truncates to 0, either sign

    wide = RandAugment((3, 20, 40), flip=True, shift=4).draw(Rng(0, 0), n, "u")
    assert abs(wide.value[wide.op == Op.TRANSLATE_X]).max() == 10  # int(0.27 * 40)
    assert abs(wide.value[wide.op == Op.TRANSLATE_Y]).max() == 5


def test_kekmodel_boxes() -> None:
    """CutoutAbs(16) at 32 px covers 81 to 289 pixels, the last row and column included."""
    draw = Cutout((3, 32, 32), flip=False, shift=0).draw(Rng(0, 0), 20000, "u")
    x0, y0, x1, y1 = draw.box.T
    assert (x1 == np.minimum(x0 + 16, 32)).all() and (y1 == np.minimum(y0 + 16, 32)).all()
    assert (x0.min(), x0.max()) == (0, 23)
    assert abs((x0 == 0).mean() - 9 / 32) < 0.02  # every centre below 9 is moved to 0
    area = (np.minimum(x1, 31) - x0 + 1) * (np.minimum(y1, 31) - y0 + 1)
    assert (area.min(), area.max()) == (81, 289)


@pytest.mark.parametrize("shift", [-1, 8, 30])
@pytest.mark.parametrize("make_view", [Weak, RandAugment, CTAugment, Cutout])
def test_shift_must_fit(make_view: Any, shift: int) -> None:
    with pytest.raises(ValueError, match=rf"shift .* 8, not {shift}"):
        make_view((3, 8, 12), flip=True, shift=shift)


@pytest.mark.slow
@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=40)
def test_shift_is_numpys_reflection(h: int, w: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, min(h, w) - 1))
    images = noise(6, h, w, 5)
    view = Weak((5, h, w), flip=True, shift=shift)
    draw = view.draw(Rng(data.draw(st.integers(0, 99)), 0), 6, "u")
    out = unpack(view(pack(images), draw), (5, h, w))
    for image, (flip, dy, dx), got in zip(images.numpy(), draw.moves, out.numpy(), strict=True):
        image = image[:, ::-1] if flip else image
        padded = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        assert np.array_equal(got, padded[shift + dy : shift + dy + h, shift + dx : shift + dx + w])


def test_names() -> None:
    with pytest.raises(ValueError, match="weak view must be one of ms, m, s, x, affine, ms:zero, s:zero, not 'sm'"):
        weak_view("sm", SHAPE)
    with pytest.raises(ValueError, match=r"strong view must be one of rand:kekmodel, .*affine, not 'rand'"):
        strong_view("rand", SHAPE)
    with pytest.raises(ValueError, match="preset must be one of kekmodel, leedoyup, google, imagenet, not 'usb'"):
        RandAugment(SHAPE, flip=True, shift=4, preset="usb")
    assert list(PRESETS) == ["kekmodel", "leedoyup", "google", "imagenet"]
    moves = weak_view("m", SHAPE).draw(Rng(0, 0), 99, "u").moves
    assert moves[:, 0].any() and not moves[:, 1:].any()
    moves = weak_view("s", SHAPE, shift=2).draw(Rng(0, 0), 99, "u").moves
    assert not moves[:, 0].any() and abs(moves).max() == 2


def test_drops_colour() -> None:
    assert [drops_colour("rand:kekmodel", c) for c in (1, 2, 3, 4)] == [False, True, False, True]
    assert drops_colour("cta", 5) and drops_colour("autoaugment", 5) and drops_colour("cta:imagenet", 2)
    assert all(drops_colour(strong_view(n, (5, 16, 16)), 5) == drops_colour(n, 5) for n in STRONG)
    assert not drops_colour("cutout", 5) and not drops_colour("affine", 5)


class TestAffine:
    def test_nothing_changes_nothing(self) -> None:
        images = pack(noise(8, 8, 8, 1))
        view = Affine((1, 8, 8), degrees=0, scale=0, shear=0, shift=0)
        assert torch.equal(view(images, view.draw(Rng(0, 0), 8, "u")), images)

    @pytest.mark.parametrize("c", [1, 3, 4])
    def test_is_bilinear(self, c: int) -> None:
        """Against a slow loop that reads four neighbours, black outside."""
        h, w = 5, 8
        images = noise(6, h, w, c)
        view = Affine((c, h, w), degrees=30, scale=0.3, shear=0.3, shift=1.5, brightness=0.4, noise=0.1, cutout=2)
        draw = view.draw(Rng(0, 0), 6, "u")
        out = unpack(view(pack(images), draw), (c, h, w)).numpy()
        wrong = 0
        for i in range(6):
            source = np.pad(images[i].numpy().astype(np.float64), ((9, 9), (9, 9), (0, 0)))
            for y in range(h):
                for x in range(w):
                    from_centre = np.array([x + 0.5 - w / 2, y + 0.5 - h / 2, 1.0])
                    at_x, at_y = draw.matrix[i] @ from_centre
                    at_x, at_y = at_x + w / 2 - 0.5 + 9, at_y + h / 2 - 0.5 + 9
                    x0, y0 = int(np.floor(at_x)), int(np.floor(at_y))
                    fx, fy = at_x - x0, at_y - y0
                    four = source[y0 : y0 + 2, x0 : x0 + 2]
                    value = np.einsum("y,x,yxc->c", [1 - fy, fy], [1 - fx, fx], four)
                    value = value * draw.brightness[i] + 255 * draw.noise[i, y, x]
                    left, top, right, bottom = draw.box[i]
                    if left <= x <= right and top <= y <= bottom:
                        value = np.zeros(c)
                    gap = abs(out[i, y, x] - value.clip(0, 255))
                    assert gap.max() < 0.51
                    wrong += int((gap > 0.5).sum())
        assert wrong <= 1

    def test_draws(self) -> None:
        view = Affine((1, 8, 8), degrees=20, scale=0.2, shear=0, shift=1.2, brightness=0.4, noise=0.15, cutout=3)
        draw = view.draw(Rng(0, 0), 20000, "u")
        a, b, tx = draw.matrix[:, 0].T
        d, e, ty = draw.matrix[:, 1].T
        size = np.hypot(a, d)
        turn = np.degrees(np.arctan2(d, a))
        np.testing.assert_allclose(a * e - b * d, size**2, rtol=1e-5)  # no shear: a similarity
        for value, centre, reach in (
            (turn, 0, 20),
            (size, 1, 0.2),
            (tx, 0, 1.2),
            (ty, 0, 1.2),
            (draw.brightness, 1, 0.4),
        ):
            assert abs(value - centre).max() <= reach * 1.0001
            assert abs(value - centre).max() > reach * 0.99
            assert abs(value.mean() - centre) < 0.03 * reach
        drawn = np.corrcoef([turn, size, tx, ty, draw.brightness]) - np.eye(5)
        assert abs(drawn).max() < 0.04  # independent
        deviation = draw.noise.reshape(20000, -1).std(1)
        assert abs(deviation.mean() - 0.075) < 0.002 and deviation.max() < 0.15 * 1.5
        assert (draw.box[:, 2] - draw.box[:, 0] == 2).all()
        centre = draw.box[:, :2] + 1
        assert (centre.min(), centre.max()) == (0, 7)

    @pytest.mark.parametrize("bad", [{"degrees": -1}, {"scale": 1.0}, {"brightness": 1.5}, {"cutout": -3}])
    def test_refuses(self, bad: dict[str, float]) -> None:
        settings_ = {"degrees": 1.0, "scale": 0.1, "shear": 0.0, "shift": 0.0} | bad
        with pytest.raises(ValueError, match=next(iter(bad))):
            Affine((1, 8, 8), **settings_)  # type: ignore[arg-type]
