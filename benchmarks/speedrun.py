"""The speedrun: CIFAR-10 from few labels, how accurate and in how many minutes; docs/speedrun.md has the rules.

    ML_DATA=DIR python benchmarks/speedrun.py --labels 250 --draws 3 [--target 60] [--threads 2] [--runs DIR]

Each draw of the labels is a training by `--recipe fast` in a process of its own, timed from its start to the result of
its only evaluation. The same command goes on where it was stopped: finished draws stay in `--runs`, one that was
stopped begins anew, as its time would say nothing. With all of them a line is added to results/speedrun.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from algorithms import run as train
from bench.record import commit, machine
from fewlabels.config.plain import to_dict
from fewlabels.config.recipes import recipe
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.words import duration

ROOT = Path(__file__).parents[1]
DRAW = "speedrun.json"
"""What is noted of a draw, in its run folder."""


def command(options: argparse.Namespace, draw: int) -> str:
    """What trains one draw of the labels; whatever else is said on the command line is for `fewlabels train`."""
    steps = options.steps or recipe("fast").steps
    words = (
        f"fewlabels train --recipe fast --data cifar10.{draw}@{options.labels} --seed {draw} --steps {steps} "
        f"--eval-every {steps} --save-every {steps} --no-baseline --device {options.device}"
    )
    return " ".join([words, *map(shlex.quote, options.other)])


def run(words: str, folder: Path, threads: int) -> dict[str, Any] | None:
    """Accuracy and seconds of a draw; those that are there already, if they are of the same command and commit."""
    asked = {"command": words, "commit": commit(), "threads": threads}
    file = folder / DRAW
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text())
        if all(known[name] == value for name, value in asked.items()):
            return known
    begun = time.time()
    if (result := train(shlex.split(words), folder, threads)) is None:
        return None
    seconds = (folder / "result.json").stat().st_mtime - begun
    kept = {name: result[name] for name in ("accuracy", "split", "steps", "parameters")}
    found = {**asked, **kept, "seconds": round(seconds, 1), "made": time.strftime("%Y-%m-%d", time.gmtime())}
    file.write_text(json.dumps(found))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Further options are those of `fewlabels train`."
    )
    parser.add_argument("--labels", type=int, default=250, choices=(40, 250, 4000))
    parser.add_argument("--draws", type=int, default=5, help="draws 1 to N of the labels, and seeds")
    parser.add_argument("--target", type=float, help="accuracy in percent that the median is to reach")
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "speedrun")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl file")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    options, options.other = parser.parse_known_args()
    if options.draws < 1:
        parser.error(f"--draws must be at least 1, got {options.draws}")
    device = pick_device(options.device)
    found = []
    for draw in range(1, options.draws + 1):
        words = command(options, draw)
        print(words, flush=True)
        if options.dry_run:
            continue
        one = run(words, options.runs / f"cifar10.{draw}@{options.labels}", options.threads)
        if one is None:
            return 1
        print(f"  {one['accuracy']:.2f} % in {duration(one['seconds'])}", flush=True)
        found.append(one)
    if options.dry_run:
        return 0
    median = {name: statistics.median(one[name] for one in found) for name in ("accuracy", "seconds")}
    record = {
        "class": "gpu" if device.type == "cuda" else "cpu",
        "pretrained": bool(to_dict(recipe("fast"))["net"]["pretrained"]),
        "data": "cifar10",
        "labels": options.labels,
        "recipe": "fast",
        "steps": found[0]["steps"],
        "parameters": found[0]["parameters"],
        **median,
        "accuracies": [one["accuracy"] for one in found],
        "draws": [{name: one[name] for name in ("accuracy", "seconds", "split")} for one in found],
        "machine": {**machine(device), "threads": options.threads},
        "commit": commit(),
        "command": "python benchmarks/speedrun.py " + shlex.join(sys.argv[1:]),
    }
    with (options.results / "speedrun.jsonl").open("a") as out:
        out.write(json.dumps(record) + "\n")
    print(f"median of {len(found)}: {median['accuracy']:.2f} % in {duration(median['seconds'])}")
    if options.target is not None and median["accuracy"] < options.target:
        print(f"the target of {options.target:g} % is not reached")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
