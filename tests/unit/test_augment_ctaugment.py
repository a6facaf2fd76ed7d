"""CTAugment against numbers made by running google-research/fixmatch (commit d4985a1), and its learning."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from fewlabels.augment import CTAugment, Normalize, pack, unpack
from fewlabels.augment.ctaugment import Policy, Probe
from fewlabels.augment.ops import Op
from fewlabels.augment.plan import run
from fewlabels.augment.pools import FIXMATCH
from fewlabels.runtime.rng import Rng

SHAPE = (3, 32, 32)
NAMES = [o.op.name.lower() for o in FIXMATCH.operations]

# libml/ctaugment.py's operations on `picture()`, run with Pillow 13.0.0: first 16 hexadecimal digits of the
# SHA-256 of the resulting bytes, by operation and parameters.
GOLDEN = {
    "autocontrast(0.02)": "dc55fefb452f7184",
    "autocontrast(0.3)": "d2ba68265aeea961",
    "autocontrast(0.5)": "605241286c5ce5ca",
    "autocontrast(0.77)": "562f2603fcdf4e88",
    "autocontrast(0.98)": "666afc0320759d44",
    "blur(0.02)": "2c9c79922e2b4058",
    "blur(0.3)": "0e51cba48ffaa77f",
    "blur(0.5)": "4be1ac047f223b08",
    "blur(0.77)": "7732edd4e207ada6",
    "blur(0.98)": "482425908d7e79e3",
    "brightness(0.02)": "f02bd17eacbaa58d",
    "brightness(0.3)": "fd83d9a476edaebf",
    "brightness(0.5)": "c3c7517da69c8eac",
    "brightness(0.77)": "7034c7affcccf885",
    "brightness(0.98)": "2acf4b5c1f9b78c2",
    "color(0.02)": "11300a39bd6357b8",
    "color(0.3)": "d0f6f1694dc332f2",
    "color(0.5)": "e7071047401916fb",
    "color(0.77)": "c55ba1216d891f96",
    "color(0.98)": "d78e762f07fa38e3",
    "contrast(0.02)": "4c285d0f0bd03faf",
    "contrast(0.3)": "b7248634d2c33383",
    "contrast(0.5)": "d496a008ef28bcff",
    "contrast(0.77)": "2fefce2a18a8f9a7",
    "contrast(0.98)": "c5fc3197bfc3c3a9",
    "equalize(0.02)": "648b8e4807c2894d",
    "equalize(0.3)": "193e97d32bf49342",
    "equalize(0.5)": "269fc45f29a2c46f",
    "equalize(0.77)": "d42662e8394a9c36",
    "equalize(0.98)": "66882308a32e6d58",
    "invert(0.02)": "bfe3b7143f4cd0ae",
    "invert(0.3)": "9044c934ad4767e2",
    "invert(0.5)": "036f359b285349f5",
    "invert(0.77)": "a946733fe7c90b67",
    "invert(0.98)": "b2ad798dc788141e",
    "identity(None)": "7cdd109eba980415",
    "posterize(0.02)": "d6b06c9dc459b849",
    "posterize(0.3)": "42a0442387fb0e09",
    "posterize(0.5)": "07e52363bb190181",
    "posterize(0.77)": "378c26c259779549",
    "posterize(0.98)": "7cdd109eba980415",
    "rescale(0.02,0)": "7cdd109eba980415",
    "rescale(0.02,0.2)": "7cdd109eba980415",
    "rescale(0.02,0.4)": "7cdd109eba980415",
    "rescale(0.02,0.6)": "7cdd109eba980415",
    "rescale(0.02,0.75)": "7cdd109eba980415",
    "rescale(0.02,0.99)": "7cdd109eba980415",
    "rescale(0.3,0)": "977762239e1ab51b",
    "rescale(0.3,0.2)": "8659dc8b550150c9",
    "rescale(0.3,0.4)": "73bb13027b4fe5cf",
    "rescale(0.3,0.6)": "9df61401a336eddd",
    "rescale(0.3,0.75)": "5bd186f71c4ebb09",
    "rescale(0.3,0.99)": "9df61401a336eddd",
    "rescale(0.5,0)": "c4182a4fdb85a891",
    "rescale(0.5,0.2)": "f76f6943bc51f19f",
    "rescale(0.5,0.4)": "b7f2970a5c5bbd3f",
    "rescale(0.5,0.6)": "555fd32e3951cad7",
    "rescale(0.5,0.75)": "681a4898ae3a6a19",
    "rescale(0.5,0.99)": "555fd32e3951cad7",
    "rescale(0.77,0)": "9f36ecf5b1199498",
    "rescale(0.77,0.2)": "2756b9a3761e75de",
    "rescale(0.77,0.4)": "38d980441e6e6a77",
    "rescale(0.77,0.6)": "d1bf2c7c8b3a48d3",
    "rescale(0.77,0.75)": "3e18c18c9a262a72",
    "rescale(0.77,0.99)": "d1bf2c7c8b3a48d3",
    "rescale(0.98,0)": "03248a1224a68cea",
    "rescale(0.98,0.2)": "368ca06ed76eff38",
    "rescale(0.98,0.4)": "b3386bed66e5e177",
    "rescale(0.98,0.6)": "b22b55d57a918ff5",
    "rescale(0.98,0.75)": "08792bfc3a82330a",
    "rescale(0.98,0.99)": "b22b55d57a918ff5",
    "rotate(0.02)": "cae80b83f2e97d26",
    "rotate(0.3)": "d306b9a31380fbc8",
    "rotate(0.5)": "7cdd109eba980415",
    "rotate(0.77)": "ebbe4a5aac9ab91c",
    "rotate(0.98)": "acc5498a5a5922d6",
    "sharpness(0.02)": "f784fb69aec226ec",
    "sharpness(0.3)": "2868b98a1f59d45d",
    "sharpness(0.5)": "311842d7efeeb622",
    "sharpness(0.77)": "512c5c4b49228b4e",
    "sharpness(0.98)": "87f79b7766e1b6b5",
    "shear_x(0.02)": "32226a19a778c0f1",
    "shear_x(0.3)": "781524b3b803ebce",
    "shear_x(0.5)": "7cdd109eba980415",
    "shear_x(0.77)": "38b87c64339ec740",
    "shear_x(0.98)": "371a59cbe4727ae4",
    "shear_y(0.02)": "282bb52d87656872",
    "shear_y(0.3)": "30658f0ca9a6e2e3",
    "shear_y(0.5)": "7cdd109eba980415",
    "shear_y(0.77)": "be2b41f2aaacd702",
    "shear_y(0.98)": "046813e75cc9a9aa",
    "smooth(0.02)": "09074c7658dab88b",
    "smooth(0.3)": "6a238f1a28e552f7",
    "smooth(0.5)": "b694f6a146986294",
    "smooth(0.77)": "f882f523458182a0",
    "smooth(0.98)": "b248a6154708719b",
    "solarize(0.02)": "561ac8cadfe30ea4",
    "solarize(0.3)": "98811f14d8badfd3",
    "solarize(0.5)": "fbf5577cafe50e78",
    "solarize(0.77)": "689e8c506cc072cd",
    "solarize(0.98)": "e976bb9473ecef37",
    "translate_x(0.02)": "7cdd109eba980415",
    "translate_x(0.3)": "7cdd109eba980415",
    "translate_x(0.5)": "7cdd109eba980415",
    "translate_x(0.77)": "7cdd109eba980415",
    "translate_x(0.98)": "7cdd109eba980415",
    "translate_y(0.02)": "7cdd109eba980415",
    "translate_y(0.3)": "7cdd109eba980415",
    "translate_y(0.5)": "7cdd109eba980415",
    "translate_y(0.77)": "7cdd109eba980415",
    "translate_y(0.98)": "7cdd109eba980415",
}


def picture() -> np.ndarray:
    """32x32x3 uint8: 48 hashed block colours plus a ramp."""
    h = np.arange(48, dtype=np.uint64) + 0x9E3779B9 * 6 & 0xFFFFFFFF
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        h = (h ^ h >> shift) * factor & 0xFFFFFFFF
    h ^= h >> 16
    blocks = (h % 200).reshape(4, 4, 3).repeat(8, 0).repeat(8, 1)
    row, column = np.mgrid[:32, :32]
    return (blocks + ((row + 2 * column) % 55)[..., None].astype(np.uint64)).clip(0, 255).astype(np.uint8)


def test_operations_are_the_originals() -> None:
    image = picture()
    assert int(image.sum()) == 401536
    calls = [(name.partition("(")[0], name.partition("(")[2][:-1].split(",")) for name in GOLDEN]
    member = np.array([[NAMES.index(name)] for name, _ in calls])
    number = [[0.0 if a == "None" else float(a) for a in (*args, 0)][:2] for _, args in calls]
    policy = Policy(member, np.array(number)[:, None], np.zeros((len(calls), 1, 2), np.int64))
    view = CTAugment(SHAPE, flip=False, shift=0, depth=1)
    pixels = pack(torch.from_numpy(image)[None].repeat(len(calls), 1, 1, 1))
    out = unpack(run(pixels, view.probe_plan(Probe(policy, policy)), SHAPE), SHAPE).numpy()
    hashes = [hashlib.sha256(a.tobytes()).hexdigest()[:16] for a in out]
    assert dict(zip(GOLDEN, hashes, strict=True)) == GOLDEN


def show(view: CTAugment, name: str, value: float, proximity: float) -> None:
    """One probe image whose policy uses `name` at `value`; the second slot is the identity."""
    member = np.array([[NAMES.index(name), NAMES.index("identity")]])
    policy = Policy(member, np.full((1, 2, 2), value), np.zeros((1, 2, 2), np.int64))
    view.learn(policy, torch.tensor([proximity]))


def test_rates_are_the_originals() -> None:
    view = CTAugment(SHAPE, flip=False, shift=0)
    at = NAMES.index("rotate")
    steps = [
        (0.1, 0.2, 1, 0.9919999837875366),
        (0.1, 0.0, 1, 0.9820799827575684),
        (0.99, 0.5, 16, 0.9950000047683716),
        (0.55, 0.0, 9, 0.9900000095367432),
        (0.55, 0.0, 9, 0.9801000356674194),
    ]
    for value, proximity, place, rate in steps:
        show(view, "rotate", value, proximity)
        assert view.rates[at, 0, place].item() == rate
    for _ in range(30):
        show(view, "rotate", 3.5 / 17, 0.0)
    rates = [1.0] * 17
    rates[1], rates[3], rates[9], rates[16] = (
        0.9820799827575684,
        0.7397004961967468,
        0.9801000356674194,
        0.9950000047683716,
    )
    assert view.rates[at, 0].tolist() == rates
    p = [1.0] * 17
    p[1], p[3], p[9], p[16] = 0.9822574257850647, 0.0, 0.9802970886230469, 0.9950495362281799
    assert view.probabilities()[at, 0].tolist() == p
    untouched = view.rates.clone()
    untouched[at, 0] = CTAugment(SHAPE, flip=False, shift=0).rates[at, 0]
    assert torch.equal(untouched, CTAugment(SHAPE, flip=False, shift=0).rates)


def test_updates_of_one_batch_are_sequential() -> None:
    view = CTAugment(SHAPE, flip=False, shift=0)
    probe = view.probe(Rng(3, 1), 64, "x")
    w = np.random.default_rng(0).random(64, dtype=np.float32)
    expected: dict[tuple[str, int, int], float] = {}
    bins = {"posterize": [8], "rescale": [17, 6], "identity": []}
    for i in range(64):
        for slot in range(2):
            name = NAMES[probe.policy.member[i, slot]]
            for j, n in enumerate(bins.get(name, [17])):
                key = name, j, int(probe.policy.p[i, slot, j] * n * 0.999)
                expected[key] = expected.get(key, 1.0) * 0.99 + 0.01 * float(w[i])
    view.learn(probe.everyone, w)
    for (name, j, place), rate in expected.items():
        assert view.rates[NAMES.index(name), j, place].item() == pytest.approx(rate, abs=1e-6)
    assert int((view.rates == 1).sum()) == 17 * 17 + 6 + 8 - len(expected)


def test_ranks_learn_the_same() -> None:
    one = CTAugment(SHAPE, flip=False, shift=0)
    probe = one.probe(Rng(3, 1), 8, "x")
    w = torch.rand(8, generator=torch.Generator().manual_seed(0))
    one.learn(probe.everyone, w)
    for rank in range(2):
        view = CTAugment(SHAPE, flip=False, shift=0)
        half = view.probe(Rng(3, 1, rank=rank, world=2), 4, "x")
        assert np.array_equal(half.policy.p, probe.policy.p[4 * rank : 4 * rank + 4])
        view.learn(half.everyone, w)
        assert torch.equal(view.rates, one.rates)


def test_bins_below_the_threshold_are_not_drawn() -> None:
    view = CTAugment(SHAPE, flip=False, shift=0, depth=3)
    view.rates[NAMES.index("rotate"), 0, :12] = 0.5
    view.rates[NAMES.index("rescale"), 1, 0] = 0.1
    policy = view.draw(Rng(0, 0), 20000, "u").policy
    member, p = policy.member.reshape(-1), policy.p.reshape(-1, 2)
    rotate = p[member == NAMES.index("rotate"), 0]
    assert rotate.min() >= 12 / 17
    counts = np.bincount((rotate * 17).astype(int), minlength=17)[12:]
    assert abs(counts / len(rotate) - 1 / 5).max() < 5 * (0.16 / len(rotate)) ** 0.5
    assert p[member == NAMES.index("rescale"), 1].min() >= 1 / 6
    solarize = p[member == NAMES.index("solarize"), 0]
    assert (
        abs(np.histogram(solarize, 17, (0, 1))[0] / len(solarize) - 1 / 17).max() < 5 * (1 / 17 / len(solarize)) ** 0.5
    )
    counts = np.bincount(member, minlength=19)
    assert abs(counts / len(member) - 1 / 19).max() < 5 * (1 / 19 / len(member)) ** 0.5
    # probes try everything
    probe = view.probe(Rng(0, 0), 20000, "x").policy
    assert probe.p[probe.member == NAMES.index("rotate"), 0].min() < 1 / 17


def test_rates_are_state_of_the_host() -> None:
    view = CTAugment(SHAPE, flip=True, shift=4)
    assert list(view.state_dict()) == ["rates"]
    show(view, "invert", 0.5, 0.0)
    assert view.half().rates.dtype == torch.float32
    assert view.to("meta").rates.device.type == "cpu"
    other = CTAugment(SHAPE, flip=True, shift=4)
    other.load_state_dict(view.state_dict())
    assert torch.equal(other.rates, view.rates)
    a, b = (v.draw(Rng(0, 5), 4, "u").policy for v in (view, other))
    assert np.array_equal(a.p, b.p)


def test_final_cutout_is_a_fixed_square() -> None:
    white = pack(torch.full((200, 96, 96, 3), 255, dtype=torch.uint8))
    shape = (3, 96, 96)
    view = CTAugment(shape, flip=False, shift=0, depth=1)
    draw = view.draw(Rng(0, 0), 200, "u")
    draw.policy.member[:] = NAMES.index("identity")
    grey = (unpack(view(white, draw), shape) == 127).all(-1).flatten(1).sum(1)
    assert grey.max() == 48 * 48 and grey.min() >= 24 * 24  # 1 + int(0.499 * 96) = 48
    none = CTAugment(shape, flip=False, shift=0, depth=1, cutout=False)
    draw = none.draw(Rng(0, 0), 200, "u")
    draw.policy.member[:] = NAMES.index("identity")
    assert torch.equal(none(white, draw), white)


def test_five_channels_are_moved_and_cut() -> None:
    g = np.random.default_rng(0)
    images = torch.from_numpy(g.integers(0, 256, (64, 20, 20, 5), dtype=np.uint8))
    images[..., 3] = images[..., 0]
    shape = (5, 20, 20)
    view = CTAugment(shape, flip=True, shift=2, depth=4, cutout=False)
    draw = view.draw(Rng(0, 0), 64, "u")
    out = unpack(view(pack(images), draw), shape)
    assert torch.equal(out[..., 3], out[..., 0])
    three = CTAugment((3, 20, 20), flip=True, shift=2, depth=4, cutout=False)
    geometric = [NAMES.index(n) for n in ("cutout", "rescale", "rotate", "shear_x", "shear_y", "identity")]
    draw.policy.member[~np.isin(draw.policy.member, geometric)] = NAMES.index("identity")
    assert torch.equal(out[..., :3], unpack(three(pack(images[..., :3].contiguous()), draw), (3, 20, 20)))
    assert Normalize(shape, [0.5] * 5, [0.5] * 5)(pack(images)).shape == (64, 5, 20, 20)


@pytest.mark.parametrize("bad", [{"depth": 0}, {"threshold": 1.5}, {"decay": 1.0}])
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        CTAugment(SHAPE, flip=False, shift=0, **bad)  # type: ignore[arg-type]


def test_pool_is_the_originals() -> None:
    assert {o.op: o.bins for o in FIXMATCH.operations if o.bins != (17,)} == {
        Op.IDENTITY: (),
        Op.POSTERIZE: (8,),
        Op.RESCALE: (17, 6),
    }
    assert len(FIXMATCH.operations) == 19
