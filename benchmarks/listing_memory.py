"""Peak memory of a training's start for each listed picture: two sets of hard links to a few small JPEG files.

    python benchmarks/listing_memory.py [--files 10000 1000000] [--folder DIR] [--steps 3]

Makes ``imagenet/train/WNID/`` with 1,000 class folders in a temporary folder, or in DIR, where they stay. Each set is
listed, split (a tenth labeled) and trained on for a few steps by a process of its own; reported are its peak resident
memory, the seconds of the listing, and the difference for each file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, PICTURES = 1000, 64

START = """
import json, resource, sys, time
from dataclasses import replace
import torch
torch.set_num_threads(1)
from fewlabels.config.recipes import changed, recipe
from fewlabels.config.resolve import load_source, pixel_statistics, resolve, resolve_data, split_of
from fewlabels.training.step import Trainer
root, files, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start = time.perf_counter()
small = {"data.root": root, "data.image_size": 16, "net.name": "small-4", "batch": 4, "optim.warmup": 1}
small["steps"] = max(1, steps)
config = changed(recipe("google-imagenet-fixmatch", f"imagenet@{files // 10}"), small)
config = replace(config, data=resolve_data(config.data))
source = load_source(config.data)
listed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seconds = time.perf_counter() - start
split = split_of(config.data, source)
mean, std = pixel_statistics(config, source)
trainer = Trainer(resolve(config, source), source, split, device=torch.device("cpu"), mean=mean, std=std)
for step in range(steps):
    trainer.step(step)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(files=len(source.images), listed=1024 * listed, peak=1024 * peak, seconds=seconds)))
"""


def make(root: Path, files: int) -> None:
    """`files` training pictures and as many as there are classes to evaluate."""
    random = np.random.default_rng(1)
    kept = root / "pictures"
    kept.mkdir(parents=True)
    for i in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((24, 20), Image.Resampling.BICUBIC).save(kept / f"{i}.jpg", quality=90)
    originals = sorted(kept.iterdir())
    for c in range(CLASSES):
        for part, count in (("train", files // CLASSES), ("val", 1)):
            folder = root / "imagenet" / part / f"n{c:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                os.link(originals[(c + i) % PICTURES], folder / f"n{c:08d}_{i}.JPEG")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs=2, default=[10_000, 1_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="listing-"))
    results = []
    try:
        for files in args.files:
            root = folder / str(files)
            if not root.exists():
                make(root, files)
            command = [sys.executable, "-c", START, str(root), str(files), str(args.steps)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            results.append(json.loads(done.stdout))
            print(results[-1], flush=True)
        few, many = results
        for what in ("listed", "peak"):
            each = (many[what] - few[what]) / (many["files"] - few["files"])
            print(f"{what}: {each:.0f} bytes a file")
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
