"""The methods of `frozen` and its judge on several draws of the labels of a folder, for docs/results.md.

    python benchmarks/frozen.py NAME DATA --pretrained FILE [--labels 40 250] [--draws 1 2 3 4 5]
        [--image-size 128] [--fit crop] [--net timm:tf_efficientnet_lite0]
    python benchmarks/results_table.py

Each draw is the run of `fewlabels train frozen` with the same options, --data.rule balanced and --data.seed DRAW, on
features that are read once; beside what the judge takes, every method is measured on the test pictures. A draw adds a
line to results/frozen.jsonl.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import fewlabels as fl
from bench.record import commit
from fewlabels.algorithms.frozen import NAMES, Methods, cross_validated, report, supported
from fewlabels.algorithms.linear import unit
from fewlabels.config.resolve import load_source, pixel_statistics, resolve, resolve_data, split_of
from fewlabels.runtime.device import pick_device
from fewlabels.training import fitting
from fewlabels.training.recorder import device_name
from fewlabels.training.step import Trainer
from fewlabels.types import Known

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="what the table calls the data")
    parser.add_argument("data")
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("--net", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--fit", default="crop")
    parser.add_argument("--labels", type=int, nargs="+", default=[40, 250])
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl file")
    options = parser.parse_args()

    recipe = fl.recipe("frozen", options.data, net=options.net, pretrained=options.pretrained)
    data = replace(recipe.data, image_size=options.image_size, fit=options.fit, rule="balanced")
    config = replace(recipe, data=resolve_data(data))
    source = load_source(config.data)
    config = resolve(config, source)
    mean, std = pixel_statistics(config, source)
    whole = split_of(config.data, source)  # every label: features of all pictures
    device = pick_device(config.device)
    start = time.perf_counter()
    trainer = Trainer(config, source, whole, device=device, mean=mean, std=std)
    fitting.prepare(trainer, source, whole, True)
    assert trainer.features is not None and trainer.test_features is not None
    seconds = time.perf_counter() - start
    every = trainer.features.take(torch.arange(len(source.images)))
    tests, truth = unit(trainer.test_features.take(torch.arange(len(source.test_labels)))), source.test_labels
    print(f"features of {len(every) + len(tests)} pictures: {seconds:.0f} s, or from the disk")
    words = shlex.join(
        ["fewlabels", "train", "frozen", "--data", options.data, "--net", options.net, "--net.pretrained"]
    )
    size = f"--data.image-size {options.image_size} --data.fit {options.fit} --data.rule balanced"
    for labels in options.labels:
        for draw in options.draws:
            start = time.process_time()
            split = split_of(replace(config.data, labels=labels, seed=draw), source)
            y = torch.from_numpy(split.targets)
            known = Known(every, torch.from_numpy(split.labeled), y, len(source.classes), config.seed)
            methods = Methods(fl.Frozen(), known)
            right = cross_validated(methods, list(NAMES), fl.Frozen().cv, known)
            best = supported(right, known.classes)
            layers = {method: methods.layer(method, torch.arange(labels)) for method in NAMES}
            found = {m: 100 * float((layer(tests).argmax(1).numpy() == truth).mean()) for m, layer in layers.items()}
            line = {
                "algorithm": "frozen",
                "name": options.name,
                "labels": labels,
                "draw": draw,
                "pictures": len(source.images),
                "tests": len(truth),
                "split": split.fingerprint,
                "accuracy": found[best],
                "methods": found,
                **report(best, right, known)[1],
                "right": {m: "".join(map(str, answers.astype(int))) for m, answers in right.items()},
                "cpu_seconds": round(time.process_time() - start, 1),
                "device": device_name(device),
                "versions": {"fewlabels": fl.__version__, "torch": torch.__version__},
                "commit": commit(),
                "command": f"{words} {Path(options.pretrained).name} {size} --data.labels {labels} --data.seed {draw}",
            }
            with (options.results / "frozen.jsonl").open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(labels, draw, best, {m: round(v, 2) for m, v in found.items()}, line["judged"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
