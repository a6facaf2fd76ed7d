"""How long a folder of many small JPEG files takes at its first and at its second start.

    python benchmarks/folder_cache.py [--files 50000] [--folder DIR]

Makes 10 class folders of 32 x 32 JPEG files (random smooth pictures) in a temporary folder, or in DIR, where
they stay. Each start is a process of its own, with a cache folder of its own; reported are the seconds of
`fewlabels.data.folder.read_folder`, without imports, the peak resident memory of the process, and the size of
the uint8 array.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

START = """
import json, resource, sys, time
from fewlabels.data.folder import read_folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
source = read_folder(sys.argv[1])
checksum = int(source.images[::97].sum())
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=seconds, before=before, peak=peak, bytes=source.images.nbytes, sum=checksum)))
"""


def make(folder: Path, files: int) -> None:
    random = np.random.default_rng(1)
    for i in range(files):
        part = folder / "labeled" / f"class{i % 10}"
        if i < 10:
            part.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        smooth.save(part / f"{i:06d}.jpg", quality=92)


def start(folder: Path, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder)], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "labeled").is_dir():
            make(folder, options.files)
        sums = set()
        for which in ("first", "second"):
            result = start(folder, cache)
            sums.add(result["sum"])
            array = result["bytes"] / 2**20
            print(
                f"{which} start: {result['seconds']:6.2f} s, peak memory {result['peak'] / 1024:.0f} MiB "
                f"({result['before'] / 1024:.0f} MiB of it imports), array {array:.0f} MiB"
            )
        assert len(sums) == 1, "the two starts read different pictures"


if __name__ == "__main__":
    main()
