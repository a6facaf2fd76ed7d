"""Pictures a second and core of what reads a training's pictures from their files, in turn with what did so before.

    python benchmarks/reader.py [--rounds 9] [--side 224] [--before CHECKOUT/src]

Two sets of JPEG files of photographs (those of scikit-learn, at random places): originals of 500 x 375, and the same
made ready by `fewlabels data convert --image-size 256`. Every way of reading is timed in each round, in turn, by the
CPU time of its process; reported are medians over the rounds and their ratio to the first one. With --before the reader
of another checkout is the first one, in a process of its own in every round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from fewlabels.data import crops, jpeg
from fewlabels.data.pictures import PLAIN, decode
from fewlabels.data.stream import decoded_of, parts_of
from fewlabels.datatools.prepare import prepare
from fewlabels.runtime.allocator import keep_freed_memory

COUNT = 96

OLD = """
import sys, time
from pathlib import Path
from fewlabels.data.stream import decoded_of
try:
    from fewlabels.runtime.allocator import keep_freed_memory
    how = ()
except ImportError:
    from fewlabels.allocator import keep_freed_memory
    how = ("crop",)
keep_freed_memory()
side, files = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
decoded_of(files[:8], 3, (side, side), *how)
start = time.process_time()
decoded_of(files, 3, (side, side), *how)
print(len(files) / (time.process_time() - start))
"""


def make(folder: Path) -> dict[str, list[Path]]:
    """Originals, and the same made ready."""
    random, photographs = np.random.default_rng(0), load_sample_images().images
    originals = folder / "originals"
    originals.mkdir()
    for i in range(COUNT):
        photograph = photographs[i % 2]
        y, x = (int(random.integers(0, room + 1)) for room in (len(photograph) - 375, photograph.shape[1] - 500))
        Image.fromarray(photograph[y : y + 375, x : x + 500]).save(originals / f"{i}.jpg", quality=92)
    prepare(originals, folder / "prepared", 256)
    return {name: sorted((folder / name).glob("*.jpg")) for name in ("originals", "prepared")}


def whole(files: list[Path], side: int) -> None:
    """What the reader did before there were crops and decoders."""
    out = np.zeros((len(files), side, side, 3), np.uint8)
    for row, file in enumerate(files):
        out[row] = decode(file, 3, (side, side), PLAIN)


def rate(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return COUNT / (time.process_time() - start)


def before(checkout: str, files: list[Path], side: int) -> float:
    environment = {**os.environ, "PYTHONPATH": checkout, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OLD, str(side), *map(str, files)]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--before", metavar="CHECKOUT/src")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    size = (args.side, args.side)
    numbers = crops.draw(np.random.default_rng(1), COUNT, flip=True)
    fast = "torchcodec" if jpeg.decoder() is not None else "Pillow (torchcodec is not installed)"
    with tempfile.TemporaryDirectory() as folder:
        sets = make(Path(folder))
        ways: dict[str, Callable[[], float]] = {}
        originals = sets["originals"]
        if args.before:
            ways[f"originals, whole picture, {args.before}"] = partial(before, args.before, originals, args.side)
        ways["originals, whole picture, Pillow"] = partial(rate, partial(whole, originals, args.side))
        ways["the same once more (control)"] = partial(rate, partial(whole, originals, args.side))
        for name, files in sets.items():
            options = files, 3, size, PLAIN, False
            ways[f"{name}, whole picture, {fast}"] = partial(rate, partial(decoded_of, *options))
            ways[f"{name}, crop resized on the CPU, {fast}"] = partial(rate, partial(decoded_of, *options, numbers))
            ways[f"{name}, crop for the device, {fast}"] = partial(rate, partial(parts_of, *options, numbers))
        rounds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):
            for name, way in ways.items():
                found = way()
                if turn:  # the first is a warm-up
                    rounds[name].append(found)
    first = next(iter(rounds.values()))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, {args.rounds} rounds")
    for name, found in rounds.items():
        ratios = [one / base for one, base in zip(found, first, strict=True)]
        print(f"{median(found):7.0f}/s  {median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f})  {name}")
    print(json.dumps({name: [round(one) for one in found] for name, found in rounds.items()}))


if __name__ == "__main__":
    main()
