"""What the policies draw: operations, magnitudes and cutouts, against the tables of the code bases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_augment_ctaugment import picture

from fewlabels.augment import AutoAugment, CTAugment, Cutout, RandAugment, Weak, pack, strong_view, unpack, weak_view
from fewlabels.augment.autoaugment import OPERATIONS, POLICIES
from fewlabels.augment.ctaugment import Policy
from fewlabels.augment.ops import Op, apply
from fewlabels.augment.pixels import HALF, Shape
from fewlabels.augment.plan import TRUNCATED
from fewlabels.augment.pools import IMAGENET
from fewlabels.augment.presets import PRESETS
from fewlabels.augment.randaugment import RandDraw, magnitudes
from fewlabels.runtime.rng import Rng

SHAPE = (3, 32, 32)
N = 40000

CIFAR_SUMS = [90.2, 890.0]
CIFAR_COUNTS = {
    "INVERT": 6,
    "CONTRAST": 6,
    "ROTATE": 3,
    "TRANSLATE_X": 4,
    "SHARPNESS": 7,
    "SHEAR_Y": 7,
    "TRANSLATE_Y": 23,
    "AUTOCONTRAST": 35,
    "EQUALIZE": 40,
    "SOLARIZE": 24,
    "COLOR": 13,
    "POSTERIZE": 2,
    "BRIGHTNESS": 13,
    "CUTOUT": 3,
    "SHEAR_X": 4,
}
SVHN_SUMS = [51.8, 368.0]
SVHN_COUNTS = {
    "SHEAR_X": 9,
    "INVERT": 20,
    "SHEAR_Y": 15,
    "EQUALIZE": 10,
    "SOLARIZE": 10,
    "ROTATE": 6,
    "AUTOCONTRAST": 3,
    "TRANSLATE_Y": 4,
    "CONTRAST": 1,
    "TRANSLATE_X": 2,
}


def drawn(preset: str, shape: Shape = SHAPE) -> RandDraw:
    return RandAugment(shape, True, 4, preset).draw(Rng(0, 0), N, "u")


def values(draw: RandDraw, op: Op) -> np.ndarray:
    return draw.value[draw.op == op]


def near(count: Any, expected: Any) -> bool:
    """Counts within five standard deviations of what is expected of them."""
    count, expected = np.asarray(count, float), np.asarray(expected, float)
    return bool((abs(count - expected) <= 5 * np.sqrt(expected)).all())


def uniform(value: np.ndarray, low: float, high: float) -> bool:
    edges = np.linspace(low, high, 11)
    inside = (value >= low).all() and (value <= high).all()
    return bool(inside) and near(np.histogram(value, edges)[0], np.full(10, len(value) / 10))


def test_operations_are_the_originals() -> None:
    """tests/golden/pil_ops.json: every RandAugment and AutoAugment operation at levels 1, 5 and 9."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "pil_ops.json").read_text())
    assert hashlib.sha256(picture().tobytes()).hexdigest() == golden["input_sha256"]
    names = {"".join(w.capitalize() for w in op.name.split("_")): op for op in Op} | {"AutoContrast": Op.AUTOCONTRAST}
    calls = [(names[name.partition("(")[0]], float(name.partition("(")[2][:-1])) for name in golden["ra"]]
    op, m = np.array([[o] for o, _ in calls]), np.array([[level] for _, level in calls])
    value = magnitudes(OPERATIONS, op, m, np.ones(m.shape), SHAPE)
    value[np.isin(op, [Op.BLUR, Op.SMOOTH])] = 1  # these two are in no policy; the whole of them
    view = RandAugment(SHAPE, False, 0, "google", cutout=False)
    nothing = view.draw(Rng(0, 0), len(calls), "u")
    pixels = view(
        pack(torch.from_numpy(picture())[None].repeat(len(calls), 1, 1, 1)), nothing._replace(op=op, value=value)
    )
    out = unpack(pixels, SHAPE).numpy().copy()
    out[pixels.view(-1, 32, 32).numpy() >= HALF] = 128  # NumPy rounds 127.5 to the even number
    hashes = [hashlib.sha256(a.tobytes()).hexdigest()[:16] for a in out]
    assert dict(zip(golden["ra"], hashes, strict=True)) == {k: v["sha"] for k, v in golden["ra"].items()}
    assert len(hashes) == 51


def test_truncation() -> None:
    """The way to [-1, 1] and back costs 47 bytes one level, among them 1 to 20."""
    lost = np.arange(256) - TRUNCATED
    assert lost.sum() == 47 and set(lost.tolist()) == {0, 1} and lost[1:21].all() and not lost[0]


def test_google_distribution() -> None:
    draw = drawn("google")
    counts = np.bincount(draw.op.ravel(), minlength=len(Op))
    pool = [o for o in OPERATIONS if o not in (Op.INVERT, Op.CUTOUT)]
    assert len(pool) == 14 and set(np.flatnonzero(counts)) == set(pool)
    assert near([counts[o] for o in pool if o], [N / 14] * 13) and near(counts[Op.IDENTITY], N + N / 14)
    table = {
        Op.POSTERIZE: [4, 4, 3, 3, 2, 2, 2, 1, 1],
        Op.SOLARIZE: [256 - int(25.6 * m) for m in range(1, 10)],
        Op.CONTRAST: [round(0.1 + 0.18 * m, 6) for m in range(1, 10)],
        Op.TRANSLATE_X: [s * m for m in range(1, 10) for s in (-1, 1)],
        Op.SHEAR_Y: [round(s * 0.03 * m, 6) for m in range(1, 10) for s in (-1, 1)],
        Op.ROTATE: [s * 3 * m for m in range(1, 10) for s in (-1, 1)],
    }
    for op, expected in table.items():
        got, count = np.unique(values(draw, op).round(6), return_counts=True)
        levels, times = np.unique(expected, return_counts=True)
        assert np.allclose(got, levels) and near(count, counts[op] * times / len(expected))
    assert abs(drawn("google", (3, 96, 96)).value).max() <= 256  # pixels are not scaled to the image
    assert set(values(drawn("google", (3, 96, 96)), Op.TRANSLATE_X)) == {s * m for m in range(1, 10) for s in (-1, 1)}


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 96, 96), (3, 20, 40)])
def test_google_boxes(shape: Shape) -> None:
    """16 pixels whatever the image, clipped, about a uniform pixel."""
    x0, y0, x1, y1 = drawn("google", shape).box.T
    assert (x1 - x0 == 15).all() and (y1 - y0 == 15).all()
    for centre, side in ((x0 + 8, shape[2]), (y0 + 8, shape[1])):
        assert near(np.bincount(centre, minlength=side), np.full(side, N / side))


def test_leedoyup_distribution() -> None:
    draw = drawn("leedoyup", (3, 32, 48))
    counts = np.bincount(draw.op.ravel(), minlength=len(Op))
    pool = set(PRESETS["kekmodel"].operations)
    assert draw.op.shape == (N, 3) and set(np.flatnonzero(counts)) == pool
    assert near([counts[o] for o in pool], [3 * N / 14] * 14)
    ranges = {
        Op.BRIGHTNESS: (0.05, 0.95),
        Op.SHARPNESS: (0.05, 0.95),
        Op.ROTATE: (-30, 30),
        Op.SHEAR_X: (-0.3, 0.3),
        Op.SOLARIZE: (0, 256),
        Op.TRANSLATE_X: (-0.3 * 48, 0.3 * 48),
        Op.TRANSLATE_Y: (-0.3 * 32, 0.3 * 32),
    }
    for op, (low, high) in ranges.items():
        assert uniform(values(draw, op), low, high), op
    bits, count = np.unique(values(draw, Op.POSTERIZE), return_counts=True)
    assert bits.tolist() == [4, 5, 6, 7] and near(count, [counts[Op.POSTERIZE] / 4] * 4)


def test_leedoyup_boxes() -> None:
    """1 to 256 pixels, about 85 in the mean (kekmodel's have 252), their centres between 1 and W."""
    box = drawn("leedoyup").box
    x0, y0, x1, y1 = np.minimum(box, 31).T
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    assert area.min() == 1 and area.max() <= 17 * 17 and abs(area.mean() - 85) < 1.5
    # the same by the letter: v uniform on [0, W/2), a centre from numpy's uniform(W), which is uniform(W, 1)
    g = np.random.RandomState(0)
    v, centre = g.random_sample((N, 1)) * 16, g.uniform(32, 1.0, (N, 2))
    first = np.maximum(0, centre - v / 2).astype(int)
    last = np.minimum(32, first + v).astype(int)
    mine, other = (np.hstack([x[:, :2], x[:, 2:] - x[:, :2]]) for x in (box, np.hstack([first, last])))
    assert (abs(mine.mean(0) - other.mean(0)) < 0.25).all() and (abs(mine.std(0) - other.std(0)) < 0.15).all()


def test_imagenet_distribution() -> None:
    draw = drawn("imagenet", (3, 224, 112))
    counts = np.bincount(draw.op.ravel(), minlength=len(Op))
    pool = set(PRESETS["imagenet"].operations)
    assert len(pool) == 16 and set(np.flatnonzero(counts)) == pool and not draw.box.size
    assert near([counts[o] for o in pool if o], [N / 16] * 15) and near(counts[Op.IDENTITY], N + N / 16)
    levels = [i / 10 for i in range(11)]
    table = {
        Op.POSTERIZE: [max(1, int(4 * x)) for x in levels],
        Op.SOLARIZE: [min(255, int(256 * x)) for x in levels],
        Op.SOLARIZE_ADD: [0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 110],
        Op.COLOR: [0.1 + 1.8 * x for x in levels],
        Op.ROTATE: [30 * x * s for x in levels for s in (-1, 1)],
        Op.TRANSLATE_Y: [100 * x * s for x in levels for s in (-1, 1)],  # the original's, at its 224 pixels
        Op.TRANSLATE_X: [50 * x * s for x in levels for s in (-1, 1)],
    }
    for op, expected in table.items():
        got, count = np.unique(values(draw, op).round(6) + 0.0, return_counts=True)
        wanted, times = np.unique(np.round(expected, 6) + 0.0, return_counts=True)
        assert np.allclose(got, wanted), op
        assert near(count, counts[op] * times / len(expected))


@pytest.mark.parametrize(("policy", "count"), [("cifar", 95), ("svhn", 40)])
def test_autoaugment_distribution(policy: str, count: int) -> None:
    """Each sub-policy as often as the others, each of its operations with its own probability."""
    table = POLICIES[policy]
    assert table.shape == (count, 2, 3) and table[..., 1].min() >= 0 and table[..., 1].max() == 0.9
    draw = AutoAugment(SHAPE, True, 4, policy).draw(Rng(0, 0), N, "u")
    for slot in range(2):
        expected = np.zeros(len(Op))
        for op, probability, _ in table[:, slot]:
            expected[int(op)] += probability * N / count
            expected[Op.IDENTITY] += (1 - probability) * N / count
        assert near(np.bincount(draw.op[:, slot], minlength=len(Op)), expected)
    first = np.flatnonzero((table[:, 0, 0] == Op.SHEAR_Y) & (table[:, 0, 1] > 0))
    wanted = {s * round(0.03 * m, 6) for m in table[first, 0, 2] for s in (-1, 1)}
    assert set(draw.value[draw.op[:, 0] == Op.SHEAR_Y, 0].round(6)) == wanted


def test_autoaugment_policies() -> None:
    """Sums over third_party/auto_augment/policies.py, commit d4985a1, computed there."""
    assert [POLICIES["cifar"][..., i].sum().round(6) for i in (1, 2)] == CIFAR_SUMS
    assert [POLICIES["svhn"][..., i].sum().round(6) for i in (1, 2)] == SVHN_SUMS
    counts = {n: np.bincount(t[..., 0].astype(int).ravel(), minlength=len(Op)) for n, t in POLICIES.items()}
    assert {op.name: int(counts["cifar"][op]) for op in Op if counts["cifar"][op]} == CIFAR_COUNTS
    assert {op.name: int(counts["svhn"][op]) for op in Op if counts["svhn"][op]} == SVHN_COUNTS
    with pytest.raises(ValueError, match="policy must be one of cifar, svhn, not 'stl'"):
        AutoAugment(SHAPE, True, 4, "stl")


@pytest.mark.parametrize("name", ["rand:google", "rand:leedoyup", "rand:imagenet", "autoaugment", "cta:imagenet"])
def test_every_image_has_its_own(name: str) -> None:
    """One image 64 times over becomes many, and neighbours are no more alike than any two."""
    pixels = pack(torch.from_numpy(picture())[None].repeat(64, 1, 1, 1))
    view = strong_view(name, SHAPE, flip=False, shift=0)
    out = view(pixels, view.draw(Rng(1, 1), 64, "u"))
    assert len(torch.unique(out, dim=0)) > 20
    draw: Any = view.draw(Rng(1, 1), N, "u")
    op = (draw.policy.member if name.startswith("cta") else draw.op)[:, 0]
    share = np.bincount(op) / N
    assert abs((op[1:] == op[:-1]).mean() - (share**2).sum()) < 5 * (0.25 / N) ** 0.5


@pytest.mark.parametrize("name", ["rand:kekmodel", "rand:leedoyup", "rand:google", "autoaugment", "cta", "affine"])
def test_without_cutout(name: str) -> None:
    """The same draw, but for the square."""
    white = pack(torch.full((64, 32, 32, 3), 255, dtype=torch.uint8))
    views = [strong_view(name, SHAPE, flip=False, shift=0, cutout=c) for c in (True, False)]
    draws: list[Any] = [v.draw(Rng(0, 0), 64, "u") for v in views]
    if name == "cta":
        for draw in draws:
            draw.policy.member[:] = 8  # identity
    elif name != "affine":
        draws = [d._replace(op=np.zeros_like(d.op)) for d in draws]
    with_, without = (v(white, d) for v, d in zip(views, draws, strict=True))
    assert (with_ != white).any(1).all() if name not in ("affine", "rand:leedoyup") else (with_ != without).any()
    if name != "affine":
        assert torch.equal(without, white)
    with pytest.raises(ValueError, match="nothing without its cutout"):
        strong_view("cutout", SHAPE, cutout=False)


def test_black_border() -> None:
    white = pack(torch.full((200, 16, 16, 3), 255, dtype=torch.uint8))
    view = weak_view("ms:zero", (3, 16, 16), shift=3)
    draw = view.draw(Rng(0, 0), 200, "u")
    out = unpack(view(white, draw), (3, 16, 16)).numpy()
    for image, (_, dy, dx) in zip(out, draw.moves, strict=True):
        padded = np.pad(np.full((16, 16, 3), 255, np.uint8), ((3, 3), (3, 3), (0, 0)))
        assert np.array_equal(image, padded[3 + dy : 19 + dy, 3 + dx : 19 + dx])
    five = Weak((5, 16, 16), True, 3, black=True)
    assert (five(pack(torch.full((200, 16, 16, 5), 9, dtype=torch.uint8)), draw) == 0).any()
    assert (
        Cutout((3, 16, 16), False, 3, black=True)(white, Cutout((3, 16, 16), False, 3).draw(Rng(0, 0), 200, "u")) == 0
    ).any()


def test_solarize_add_and_zoom_leave_no_colour_behind() -> None:
    """Five channels: the zoom moves them all, the colour operation leaves them."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 20, 20, 5), dtype=np.uint8))
    pixels = pack(images)
    op = np.array([Op.SOLARIZE_ADD, Op.ZOOM, Op.ZOOM, Op.SOLARIZE_ADD])
    out = apply(pixels.clone(), op, np.array([50.0, 0.2, 0.0, 9.0]), (5, 20, 20))
    assert [torch.equal(a, b) for a, b in zip(out, pixels, strict=True)] == [True, False, True, True]


class TestCTAImageNet:
    """imagenet/augment/ct_augment.py: 19 operations of 15 levels."""

    def test_pool(self) -> None:
        view = CTAugment(SHAPE, True, 4, pool="imagenet")
        assert view.rates.shape == (19, 2, 15) and float(view.rates.sum()) == 19 * 15
        assert view.threshold == 0.85 and not view.cutout
        assert len({o.op for o in IMAGENET.operations}) == 19
        assert list(view.state_dict()) == ["rates"]

    def test_rates_move_by_the_mean_of_the_hits(self) -> None:
        view = CTAugment(SHAPE, True, 4, pool="imagenet")
        g = np.random.default_rng(0)
        rates = np.ones((19, 15))
        for step in range(30):
            member, p = g.integers(0, 19, (16, 2)), g.random((16, 2, 2))
            if step % 2:
                member[:] = 3
                p[:] = g.random()  # all on one level
            w = g.random(16)
            hits: dict[tuple[int, int], list[float]] = {}
            for i in range(16):
                for j in range(2):
                    hits.setdefault((member[i, j], int(p[i, j, 0] * 15)), []).append(w[i])
            for at, some in hits.items():
                rates[at] += 0.01 * np.mean([x - rates[at] for x in some])
            policy = Policy(member, p, np.zeros((16, 2, 2), np.int64))
            view.learn(policy, w)
        np.testing.assert_allclose(view.rates[:, 0].numpy(), rates, atol=1e-6)
        assert not view.rates[:, 1].any()

    def test_probabilities(self) -> None:
        view = CTAugment(SHAPE, True, 4, pool="imagenet")
        row = torch.tensor([0.9, 0.5, 0.764, 0.766, 0.0, *[0.85] * 10])
        view.rates[4, 0] = row
        p = view.probabilities()[4, 0].astype(np.float64)
        expected = np.array([1 + 1e-3, 1e-3, 1e-3, 0.766 / 0.9 + 1e-3, 1e-3, *[0.85 / 0.9 + 1e-3] * 10])
        np.testing.assert_allclose(p, expected, rtol=1e-5)

    def test_draws(self) -> None:
        """Half of the operations are applied; a probe applies all; a level below the threshold is rare."""
        view = CTAugment(SHAPE, False, 0, pool="imagenet")
        rotate = [o.op for o in IMAGENET.operations].index(Op.ROTATE)
        view.rates[rotate, 0, :5] = 0.2
        policy = view.draw(Rng(0, 0), N, "u").policy
        counts = np.bincount(policy.member.ravel(), minlength=19)
        expected = np.full(19, 2 * N / 19 / 2)
        expected[[o.op for o in IMAGENET.operations].index(Op.IDENTITY)] += N
        assert near(counts, expected)
        level = (policy.p[policy.member == rotate, 0] * 15).astype(int)
        share = np.where(np.arange(15) < 5, 1e-3, 1 + 1e-3)
        assert near(np.bincount(level, minlength=15), len(level) * share / share.sum() + 0.5)
        probe = view.probe(Rng(0, 0), N, "x").policy
        assert near(np.bincount(probe.member.ravel(), minlength=19), np.full(19, 2 * N / 19))
        assert uniform(probe.p[..., 0].ravel(), 0, 1)


def test_stratified_draws_each_operation_equally_often_and_each_image_any() -> None:
    view = RandAugment(SHAPE, True, 4, "leedoyup", stratified=True)  # which applies every operation it draws
    n = len(view.preset.operations)
    first = []
    for step in range(40):
        op = view.draw(Rng(0, step), 3 * n, "x").op
        for slot in op.T:
            assert np.bincount(slot, minlength=len(Op))[list(view.preset.operations)].tolist() == [3] * n
        first.append(op[0])
    # one image sees the operations as if they were drawn freely: in 120 draws of 14, nearly all of them
    assert len(set(np.concatenate(first).tolist())) >= n - 1
    uneven = view.draw(Rng(0, 0), 20, "x").op
    for slot in uneven.T:
        counts = np.bincount(slot, minlength=len(Op))[list(view.preset.operations)]
        assert counts.sum() == 20 and set(counts.tolist()) == {1, 2}
