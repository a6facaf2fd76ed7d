"""Run with TRITON_INTERPRET=1: prints how many views of the Triton kernel differ from those of `plan.run`."""

from __future__ import annotations

import json

import numpy as np
import torch
from every_operation import VARIANTS, differing_batches, every_operation

from fewlabels.augment import kernel, make_views
from fewlabels.augment.named import STRONG, WEAK, strong_view, weak_view
from fewlabels.augment.pixels import Normalize
from fewlabels.augment.plan import Plan, run
from fewlabels.augment.views import View
from fewlabels.runtime.rgb import pack
from fewlabels.runtime.rng import Rng
from fewlabels.types import Views


def pictures(shape: tuple[int, int, int]) -> np.ndarray:
    """Half noise, the others smooth and dark, or of one colour; uint8 ``[16, H, W, C]``."""
    c, h, w = shape
    noise = np.random.default_rng(0).integers(0, 256, (16, h, w, c))
    noise[8:] = noise[8:] // 8 + np.linspace(20, 120, w)[None, None, :, None]
    noise[12:] = np.array([[3], [70], [140], [255]])[:, None, None] // np.arange(1, c + 1)
    return noise.astype(np.uint8)


def differing(view: View, rows: int) -> int:
    """Views, of `rows`, of which a bit differs."""
    plan = view.plan(view.draw(Rng(3, 0), rows, "test"))
    assert plan is not None
    return differing_plan(plan, view.shape)


def differing_plan(plan: Plan, shape: tuple[int, int, int], *, resident: bool = True) -> int:
    """Views that `plan` makes of which a bit differs; `resident`: of images in the form in which a store keeps them."""
    c, rows = shape[0], len(plan.op)
    images = pictures(shape)
    pixels = pack(torch.from_numpy(images))
    normalize = Normalize(shape, [0.4, 0.5, 0.6][:c], [0.2, 0.25, 0.3][:c], halves=None in (plan.fill, plan.colour))
    index = torch.from_numpy(np.random.default_rng(1).integers(0, len(images), rows))
    expected = normalize(run(pixels[index], plan, shape))
    kept = torch.from_numpy(images).flatten(1) if resident and c == 1 else pixels
    out = kernel.render(kept, index, plan, normalize)
    assert out.is_contiguous(memory_format=torch.channels_last)
    return int((out != expected).flatten(1).any(1).sum())


def main() -> None:
    found: dict[str, int] = {}
    for shape in ((3, 32, 32), (1, 12, 12)):
        views = {n: weak_view(n, shape) for n in WEAK if n != "affine"}
        views |= {n: strong_view(n, shape) for n in STRONG if n != "affine"}
        for name, view in views.items():
            drawn = shape[1] == 32 and name.startswith(("rand", "cta"))
            found[f"{name} {shape}"] = differing(view, 6 if drawn else 3)
    looks = make_views((3, 32, 32), Views(), weak="ms", strong="auto", shift=4, augment="d.d.r3_12_50", algorithm="uda")
    found["d.d.r3_12_50"] = differing(looks.views[looks.unlabeled[1]], 6)
    found["rand:kekmodel (3, 96, 96)"] = differing(strong_view("rand:kekmodel", (3, 96, 96)), 1)
    for shape in VARIANTS:
        found[f"every operation {shape}"] = differing_plan(every_operation(shape), shape, resident=False)
    for strong in ("cta", "rand:google"):
        found[f"batches {strong}"] = differing_batches(strong, "kernel", 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
