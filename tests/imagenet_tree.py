"""A small data set in ImageNet's form: class folders of JPEG files of many sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, TRAIN, VAL = 6, 6, 2


def make_tree(root: Path) -> Path:
    """``root/imagenet/{train,val}/WNID/*.JPEG``: smooth pictures with the colour of their class."""
    random = np.random.default_rng(0)
    for c in range(CLASSES):
        for part, count in (("train", TRAIN), ("val", VAL)):
            folder = root / "imagenet" / part / f"n{c:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                coarse = random.integers(0, 120, (5, 5, 3)) + np.array([c & 1, c >> 1 & 1, c >> 2]) * 120
                width, height = random.integers(40, 90, 2)
                picture = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
                picture.save(folder / f"n{c:08d}_{i}.JPEG", quality=90)
    return root
