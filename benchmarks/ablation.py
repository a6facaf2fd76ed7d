"""What each ingredient of a fast training is worth: with and without it, for the same work, on 250 labels of CIFAR-10.

    ML_DATA=DIR python benchmarks/ablation.py [--seconds 240] [--draws 1 2] [--only NAME ...] [--dry-run]

How many steps a variant may take is measured first, in seconds of one thread's work, which a busy machine changes less
than the time on the wall. A finished training adds a line to results/ablation.jsonl; one that is there is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from algorithms import run
from bench.record import commit
from bench.tables import Table, markdown
from fewlabels.commands.train_options import read
from fewlabels.config.resolve import load_source, pixel_statistics, resolve, resolve_data, split_of
from fewlabels.training.step import Trainer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "speedrun.md"
COMMON = "--data cifar10.{draw}@250 --seed {draw} --no-baseline --device cpu --precision fp32 --weak ms"
BASE = {
    "algorithm": "fixmatch",
    "--bn": "separate-weak",
    "--strong": "rand:kekmodel",
    "--net": "fast-24",
    "--batch": "32",
    "--uratio": "7",
    "--optim.lr": "0.05",
    "--optim.weight-decay": "0.001",
    "--optim.schedule": "linear",
    "--optim.warmup": "50",
    "--ema.decay": "0.99",
    "--ema.warmup": "",
    "--ema.buffers": "averaged",
    "--curriculum.half-size": "0.7",
    "--curriculum.uratio": "2",
}
VARIANTS: dict[str, dict[str, str | None]] = {
    "all": {},
    "full size from the start": {"--curriculum.half-size": None},
    "all unlabeled images from the start": {"--curriculum.uratio": None},
    "a wide residual net": {"--net": "wrn-10-1", "--net.bn-momentum": "0.1"},
    "the small net": {"--net": "small-16"},
    "one pass": {"--bn": None},
    "a rate that ends at a fifth": {"--optim.schedule": "cosine"},
    "a long average": {"--ema.decay": "0.999"},
    "stratified operations": {"--stratified": ""},
    "weight decay 0.0005": {"--optim.weight-decay": "0.0005"},
    "labels only": {"algorithm": "supervised", "--view": "strong", "--bn": None, "--curriculum.uratio": None},
    "freematch": {"algorithm": "freematch"},
    "softmatch": {"algorithm": "softmatch"},
    "remixmatch": {"algorithm": "remixmatch", "--bn": None, "--uratio": "1", "--curriculum.uratio": None},
    "mixmatch": {"algorithm": "mixmatch", "--bn": None, "--uratio": "1", "--curriculum.uratio": None},
    "comatch": {"algorithm": "comatch"},
    "simmatch": {"algorithm": "simmatch", "--bn": None},
}
"""What is other than in BASE; None: the option is left out."""
POINTS, REPEATS = 8, 2


def command(name: str, draw: int, steps: int) -> str:
    """Options as for `fewlabels train`, with the last step as the only one that evaluates."""
    given = {key: value for key, value in (BASE | VARIANTS[name]).items() if value is not None}
    words = [given.pop("algorithm"), *(f"{key} {value}".strip() for key, value in given.items())]
    every = f"--steps {steps} --eval-every {steps} --save-every {steps}"
    return " ".join(["fewlabels train", *words, COMMON.format(draw=draw), every])


def steps_for(name: str, seconds: float) -> int:
    """How many steps of a variant are so many seconds of work, from some that are spread over the training."""
    train = read(shlex.split(command(name, 1, 1000))[2:]).train
    config = replace(train, data=resolve_data(train.data))
    source = load_source(config.data)
    config = resolve(config, source)
    mean, std = pixel_statistics(config, source)
    split = split_of(config.data, source)
    trainer = Trainer(config, source, split, device=torch.device("cpu"), mean=mean, std=std)
    costs = []
    for point in range(POINTS):
        step = (2 * point + 1) * config.steps // (2 * POINTS)
        trainer.step(step)  # not counted
        begun = time.process_time()
        for _ in range(REPEATS):
            trainer.step(step)
        costs.append((time.process_time() - begun) / REPEATS)
    return max(1, round(seconds / statistics.mean(costs)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0, help="of work, for the steps of a training")
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl file")
    parser.add_argument("--dry-run", action="store_true", help="print the names that are left to run")
    parser.add_argument("--table", action="store_true", help="write what is there into docs/speedrun.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.results / "ablation.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if options.table:
        PAGE.write_text(rendered(PAGE.read_text(), lines, options.seconds))
        return 0
    known = {(line["variant"], line["draw"], line["budget"]) for line in lines}
    steps: dict[str, int] = {line["variant"]: line["steps"] for line in lines if line["budget"] == options.seconds}
    with tempfile.TemporaryDirectory() as folder:
        for draw in options.draws:  # a table of all is there after the first one
            for name in options.only:
                if (name, draw, options.seconds) in known:
                    continue
                if options.dry_run:
                    print(f"{name}, draw {draw}")
                    continue
                if name not in steps:
                    steps[name] = steps_for(name, options.seconds)
                line = command(name, draw, steps[name])
                print(line, flush=True)
                if (result := run(shlex.split(line), Path(folder) / "run", 1)) is None:
                    return 1
                kept = {key: result[key] for key in ("accuracy", "steps", "cpu_seconds", "split", "device", "versions")}
                first = {"variant": name, "draw": draw, "budget": options.seconds}
                with file.open("a") as out:
                    out.write(json.dumps({**first, **kept, "commit": commit(), "command": line}) + "\n")
                print(f"  {name}: {result['accuracy']:.2f} %", flush=True)
    return 0


def rendered(page: str, lines: list[dict[str, object]], seconds: float) -> str:
    """The page with the table between its markers."""
    made = f"<!-- ablation -->\n{table(lines, seconds)}<!-- end ablation -->"
    return re.sub(r"<!-- ablation -->.*<!-- end ablation -->", lambda _: made, page, flags=re.S)


def table(lines: list[dict[str, object]], seconds: float) -> str:
    """Accuracy by variant and draw, and the mean difference to the first variant with the same draws."""
    found: dict[str, dict[int, float]] = {}
    steps = {}
    for line in lines:
        if line["budget"] == seconds:
            found.setdefault(str(line["variant"]), {})[int(str(line["draw"]))] = float(str(line["accuracy"]))
            steps[str(line["variant"])] = str(line["steps"])
    whole = found.get("all", {})
    rows = []
    for name, by_draw in found.items():
        both = [by_draw[draw] - whole[draw] for draw in by_draw if draw in whole]
        said = f"{statistics.mean(both):+.2f}" if both and name != "all" else ""
        rows.append((name, steps[name], " ".join(f"{by_draw[draw]:.2f}" for draw in sorted(by_draw)), said))
    return markdown(Table(("variant", "steps", "accuracy by draw", "difference"), rows))


if __name__ == "__main__":
    sys.exit(main())
