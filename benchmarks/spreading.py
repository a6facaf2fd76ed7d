"""Memory and time of label spreading over many pictures' features, as `fewlabels train frozen` does it.

    python benchmarks/spreading.py [--pictures 100000] [--dim 1280] [--classes 10] [--labels 100]

Features are made up: float16, one cloud for each class. Prints one JSON object, with the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import torch

import fewlabels as fl
from bench.record import commit
from fewlabels.algorithms.frozen import Methods
from fewlabels.training.recorder import peak_memory
from fewlabels.types import Known


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--labels", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = torch.Generator().manual_seed(0)
    centres = torch.randn(options.classes, options.dim, generator=chance)
    y = torch.arange(options.pictures) % options.classes
    features = torch.empty(options.pictures, options.dim, dtype=torch.float16)
    for start in range(0, options.pictures, 1000):
        rows = y[start : start + 1000]
        features[start : start + 1000] = centres[rows] + 4 * torch.randn(len(rows), options.dim, generator=chance)
    made, begun = peak_memory(), time.process_time()
    known = Known(features.float(), torch.arange(options.labels), y[: options.labels], options.classes, seed=1)
    methods = Methods(fl.Frozen(), known)
    found = methods.answers("spreading", torch.arange(options.labels), torch.arange(options.pictures))
    print(
        json.dumps(
            {
                **vars(options),
                "right": float((found == y).float().mean()),
                "cpu_seconds": round(time.process_time() - begun, 1),
                "peak_memory_bytes": peak_memory(),
                "peak_memory_bytes_before": made,
                "torch": torch.__version__,
                "commit": commit(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
