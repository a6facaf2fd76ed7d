"""Algorithms on small tasks with three seeds, one training after another, for docs/results.md.

    python benchmarks/algorithms.py digits
    ML_DATA=DIR python benchmarks/algorithms.py cifar3 [--seeds 1 2 3] [--only fixmatch vat] [--threads 1] [--dry-run]
    python benchmarks/algorithms.py missing
    ML_DATA=DIR python benchmarks/algorithms.py missing3
    python benchmarks/algorithms.py tail
    python benchmarks/algorithms.py foreign0|foreign50|foreign100
    ML_DATA=DIR python benchmarks/algorithms.py foreign-cifar0|foreign-cifar50|foreign-cifar100
    python benchmarks/results_table.py

A finished training adds a line to results/algorithms_TASK.jsonl. One whose command is there already is left out, so
that the same command goes on after a stop, and a setting that is new in fewlabels makes none of them anew: take a line
out to measure it again. `--runs DIR` keeps the run folders in DIR, for `fewlabels report
DIR`.

digits: 40 labels of the 8 x 8 digits, each algorithm's own recipe; 6 to 40 s a run.

cifar3: airplane, automobile and frog of CIFAR-10, 25 labels of each, 15,000 unlabeled and 3,000 test images, about a
minute a run. The net, the optimizer and the number of steps are the same for all, as in the recipe for the digits: with
their long schedules' own rates some methods would not get anywhere in 300 steps. There is one
unlabeled image for each labeled one where the recipe says so, else four. Ramps that are counted in steps and weights
that go with the number of classes are those of short recipes. Everything else is the algorithm's default.

missing: digits whose labels are long-tailed, 20 of the first class and 1 of the last, and whose unlabeled images are
not; what is for labels that are missing not at random. missing3: the same of the three classes of CIFAR-10, with 50, 33
and 4 labels.

tail: digits of which labeled and unlabeled images are long-tailed alike, 20 times as many of the first class as of the
last; FixMatch with each part of --imbalance, with its defaults, and by CReST in three generations.

foreign0, foreign50, foreign100: digits with labels of the classes 0 to 5, and unlabeled images of four classes, of
which none, half or all are others; what is for unlabeled images of no class. foreign-cifar0, -50, -100: the same of
CIFAR-10, with 25 labels each of airplane, automobile, deer and frog.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.record import commit
from fewlabels.algorithms import ALGORITHMS
from fewlabels.config.usual import METHODS, short

ROOT = Path(__file__).parents[1]
STEPS = 300
CLASSES = "airplane,automobile,frog"
FOUR = "airplane,automobile,deer,frog"
UNLABELED = {0: "2,3,4,5", 50: "4,5,6,7", 100: "6,7,8,9"}
"""Classes of the unlabeled images by the share of those that have no label, in percent."""
FOREIGN = (
    "--data digits.{{seed}}@40 --data.keep-labeled 0,1,2,3,4,5 --data.keep-test 0,1,2,3,4,5 --data.keep-unlabeled {} "
    "--data.remap --seed {{seed}} --no-baseline"
)
FOREIGN_CIFAR = {0: FOUR, 50: "deer,frog,horse,ship", 100: "horse,ship,bird,truck"}
"""The same of CIFAR-10, by name."""
SMALL = (
    "--data.keep-labeled {known} --data.keep-unlabeled {unlabeled} --data.keep-test {known} --data.remap "
    "--net small-16 --optim sgd --optim.lr 0.05 --optim.weight-decay 0.0005 --optim.schedule cosine "
    "--optim.warmup 40 --ema.decay 0.99 --ema.warmup --ema.buffers averaged "
    f"--steps {STEPS} --batch 16 --eval-every {STEPS // 6} --save-every {STEPS} --log-every 20"
)
THREE = SMALL.format(known=CLASSES, unlabeled=CLASSES)
TASKS = {
    "digits": "--data digits.{seed}@40 --seed {seed} --no-baseline",
    "cifar3": "--data cifar10.{seed}@250 --seed {seed} " + THREE,
    "missing": (
        "--data digits.{seed} --data.rule cadr --data.labels 20 --data.imbalance 20 --seed {seed} --no-baseline"
    ),
    "missing3": (
        "--data cifar10.{seed} --data.rule cadr --data.labels 50 --data.imbalance 50 --uratio 4 --seed {seed} " + THREE
    ),
    "tail": (
        "--data digits.{seed} --data.rule cadr --data.labels 20 --data.imbalance 20 --data.imbalance-unlabeled 20 "
        "--seed {seed} --no-baseline"
    ),
    **{f"foreign{share}": FOREIGN.format(classes) for share, classes in UNLABELED.items()},
    **{
        f"foreign-cifar{share}": "--data cifar10.{seed}@250 --seed {seed} "
        + SMALL.format(known=FOUR, unlabeled=classes)
        for share, classes in FOREIGN_CIFAR.items()
    },
}
"""Options of `fewlabels train ALGORITHM`; the seed is that of the split (in the name) and of the training."""

ONE_RECIPE = {"cifar3", *(f"foreign-cifar{share}" for share in FOREIGN_CIFAR)}
"""Tasks with one net and one optimizer for all (missing3 says its `--uratio` itself)."""

VARIANTS = {"supervised": ("--view weak", "--view strong"), "fixmatch": ("", "--bn separate-weak")}
TAILS = "adjust reweight abc darp daso debiased saw tras adsh cossl crest"
PARTS = {
    "missing": ["", *(f"--missing {name}" for name in ("cap", "cai", "cadr", "cadr --missing.weighting weighted"))],
    "tail": [
        "",
        *(f"--imbalance {name}" for name in TAILS.split()),
        "--generations 3",
        "--generations 3 --imbalance crest",
    ],
    "foreign": ["", "--openset confidence", "--openset energy", "--openset ova"],
    "foreign-cifar": ["", "--openset energy"],
}
"""Parts of FixMatch that are tried on a task."""

SHARE = "--openset confidence --openset.by percentile --openset.share {:g}"
"""Of FixMatch where the share of strangers is known, and is neither none nor all."""

MASKS = {"foreign": ["", "--percent-mask 0.1"], "foreign-cifar": ["--percent-mask 0.1"]}
"""The same of RealMix."""


APART = ("frozen", "self-training")
"""What needs learned weights or other runs."""


def variants(task: str) -> list[tuple[str, str]]:
    """Algorithms with options of their own: all of the registry but `APART`, some in two variants."""
    kind = task.rstrip("0123456789")
    if kind in PARTS:
        tried = [("fixmatch", part) for part in PARTS[kind]] + [("realmix", mask) for mask in MASKS.get(kind, ())]
        if kind in MASKS:
            tried.append(("iomatch", ""))
            share = int(task.removeprefix(kind))
            tried += [("fixmatch", SHARE.format(share / 100))] if 0 < share < 100 else []
        own = [(name, " ".join(filter(None, [part, own_options(task, name)]))) for name, part in tried]
        return [("supervised", "--view strong"), *own]
    out = []
    for name in (name for name in ALGORITHMS if name not in APART):
        variants = VARIANTS.get(name, ("",))
        out += [(name, " ".join(filter(None, [variant, own_options(task, name)]))) for variant in variants]
    return out


def own_options(task: str, name: str) -> str:
    """What an algorithm needs in a task whose recipe is the same for all."""
    if task not in ONE_RECIPE or name.startswith("supervised"):
        return ""
    own = {"uratio": METHODS.get(name, {}).get("uratio", 4)}
    own |= {k.removeprefix("algorithm.").replace("_", "-"): v for k, v in short(name, STEPS).items()}
    return " ".join(f"--{option} {value}" for option, value in own.items())


def command(task: str, algorithm: str, options: str, seed: int) -> str:
    return " ".join(filter(None, ["fewlabels train", algorithm, options, TASKS[task].format(seed=seed)]))


def run(words: list[str], folder: Path, threads: int, **environment: str) -> dict[str, Any] | None:
    """result.json of a training in a process of its own, of stages and generations that of the last, and the seconds
    that its threads worked; None if it failed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **environment}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = ["--no-progress", "--overwrite", "--out", str(folder)]
    done = subprocess.run([sys.executable, "-m", *words, *out], env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1])
        return None
    generations = sorted(folder.glob("generation-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    places = (folder, folder / "student", *generations[-1:])
    file = next(place / "result.json" for place in places if (place / "result.json").exists())
    result: dict[str, Any] = json.loads(file.read_text())
    result["cpu_seconds"] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, metavar="ALGORITHM")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl files")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to run")
    options = parser.parse_args()
    file = options.results / f"algorithms_{options.task}.jsonl"
    recorded = {json.loads(line)["command"] for line in file.read_text().splitlines()} if file.is_file() else set()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:  # a table over all algorithms is there after the first seed
            for algorithm, own in variants(options.task):
                if options.only and algorithm not in options.only:
                    continue
                line = command(options.task, algorithm, own, seed)
                if line in recorded:
                    continue
                print(line, flush=True)
                if options.dry_run:
                    continue
                slug = re.sub(r"[^\w.-]+", "_", f"{options.task}-{algorithm} {own}").strip("_")
                result = run(shlex.split(line), (options.runs or Path(temporary)) / f"{slug}-{seed}", options.threads)
                if result is None:
                    failed += 1
                    continue
                first = {"algorithm": algorithm, "options": own, "commit": commit()}
                with file.open("a") as out:
                    out.write(json.dumps({**first, **result, "command": line}) + "\n")
                print(f"  {result['accuracy']:.2f} %, {result['cpu_seconds']:.0f} s of work", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
