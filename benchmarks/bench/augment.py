"""`bench augment`: weak view, strong view and normalised floats of a batch, against one picture at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from bench import pillow
from bench.measure import Work, alternate, worst
from bench.options import Options, Stages
from bench.record import Result, result
from bench.subjects import MEAN, STD, photos
from fewlabels.augment import Normalize, RandAugment, Weak
from fewlabels.augment.presets import Preset
from fewlabels.data.source import Images
from fewlabels.data.store import Store
from fewlabels.runtime.checked import Range
from fewlabels.runtime.rng import Rng


@dataclass(frozen=True, kw_only=True)
class Augment(Options):
    """Weak and strong views and normalised floats of a batch, against Pillow and torchvision image by image."""

    batch: Annotated[int, Range(1, None)] = 448
    """Images of a batch."""
    side: Annotated[int, Range(8, None)] = 32
    """Side of the images in pixels."""
    check: Annotated[int, Range(1, None)] = 2000
    """Random sequences of each policy that are compared with Pillow before anything is timed."""


def pairs(images: Images, preset: Preset, batch: int, device: torch.device) -> Work:
    """Our way: rows from the resident set, both views, floats; every call draws anew."""
    side = images.shape[1]
    shape = (3, side, side)
    store = Store(images, device)
    weak = Weak(shape, True, side // 8, preset.weak_last)
    strong = RandAugment(shape, True, side // 8, preset)
    normalize = Normalize(shape, MEAN, STD).to(device)
    step = 0

    def work() -> tuple[Tensor, Tensor]:
        nonlocal step
        step += 1
        rng = Rng(1, step, device=device)
        rows = torch.from_numpy(rng.generator("bench/rows").integers(0, len(images), batch)).to(device)
        pixels = store.take(rows)
        first = weak(pixels, weak.draw(rng, batch, "bench/weak"))
        second = strong(pixels, strong.draw(rng, batch, "bench/strong"))
        return normalize(first), normalize(second)

    return work


def one_by_one(data: Dataset[Any], batch: int, device: torch.device) -> Work:
    """The usual way, in one process: each image of the batch, then the batch."""
    generator = torch.Generator().manual_seed(1)

    def work() -> list[Tensor]:
        rows = torch.randint(len(data), (batch,), generator=generator).tolist()  # type: ignore[arg-type]
        return [x.to(device) for x in default_collate([data[i] for i in rows])]

    return work


def run(options: Augment, stages: Stages) -> Result:
    """Compare with Pillow, then time; `kekmodel` and `three_op` hold the ratio over Pillow."""
    device = options.prepare()
    images = photos(4096, options.side)
    exact = {}
    for name, preset in pillow.POLICIES.items():
        with stages(f"comparing {name} with Pillow") as tick:
            exact[name] = pillow.check(name, preset, images, device, count=options.check, tick=tick)
    policies: dict[str, Any] = {}
    for name, preset in pillow.POLICIES.items():
        candidates = {
            "Pillow, image by image": one_by_one(pillow.Pairs(images, preset, MEAN, STD), options.batch, device),
            "torchvision v2, image by image": one_by_one(
                pillow.TensorPairs(images, preset.slots, MEAN, STD), options.batch, device
            ),
            "fewlabels": pairs(images, preset, options.batch, device),
        }
        with stages(f"timing {name}") as tick:
            timings = alternate(candidates, rounds=options.rounds, device=device, even=True, tick=tick)
        policies[name] = {"ratio": timings.ratio("fewlabels").median, **timings.as_json()}
    control = worst(*(p["control"] for p in policies.values()))
    return result("augment", device, asdict(options), control, **policies, exact=exact)
