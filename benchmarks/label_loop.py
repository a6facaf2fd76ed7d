"""The label loop on the digits, with a script in the user's place, for docs/results.md.

    python benchmarks/label_loop.py [--draws 1 2 3 4 5] [--rules random margin typical] [--steps 150] [--rounds 5]

10 labels, one of each class, and five rounds of 10 answers: `fewlabels label --by RULE` asks, the script answers with
the truth, `fewlabels label --answers` makes the split, `fewlabels train --from` goes on. `random` answers 10 unlabeled
pictures by chance. All rules share the first run of a draw, and every round has the same steps. Each training adds a
line to results/label_loop.jsonl; a draw and rule that are there are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import fewlabels as fl
from bench.record import commit
from fewlabels import cli
from fewlabels.config.resolve import load_source, resolve_data

OUT = Path(__file__).parents[1] / "results" / "label_loop.jsonl"
SETTINGS = "--net small-8 --batch 16 --uratio 3 --optim.lr 0.1 --no-baseline --no-progress"
ANSWERS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--rules", nargs="+", default=["random", "margin", "typical"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    done = {(line["draw"], line["rule"]) for line in lines if line["round"] == options.rounds}
    for draw in options.draws:
        todo = [rule for rule in options.rules if (draw, rule) not in done]
        if todo:
            with tempfile.TemporaryDirectory() as folder:
                _draw(draw, todo, options.steps, options.rounds, Path(folder))
    return 0


def _draw(draw: int, rules: list[str], steps: int, rounds: int, folder: Path) -> None:
    every = f"--steps {steps} --eval-every {steps} --save-every {steps}"
    first = _trained(f"fixmatch --data digits.{draw}@10 {SETTINGS} {every} --seed {draw}", folder / "run")
    for rule in rules:
        run = folder / "run"
        _record(draw, rule, 0, steps, run, first)
        for i in range(1, rounds + 1):
            name = f"{rule}-{i}"
            answers, split = folder / f"{name}.csv", folder / f"{name}.json"
            _answer(run, rule, draw, i, answers)
            _command("label", run, "--answers", answers, "-o", split)
            seconds = _trained(f"--data.split {split} --from {run} --no-progress", folder / name)
            run = folder / name
            _record(draw, rule, i, steps, run, seconds)


def _answer(run: Path, rule: str, draw: int, i: int, answers: Path) -> None:
    """Write the truth about the pictures that the rule asks about."""
    if rule == "random":
        split = fl.Run(run).split
        free = np.setdiff1d(split.unlabeled, split.labeled)
        chosen = np.random.default_rng([draw, i]).choice(free, ANSWERS, replace=False)
        names = [f"training image {row}" for row in chosen.tolist()]
    else:
        ask = answers.with_suffix(".ask")
        _command("label", run, "-n", ANSWERS, "--by", rule, "-o", ask)
        with (ask / "label.csv").open(newline="") as file:
            names = [row["path"] for row in csv.DictReader(file)]
    truth = load_source(resolve_data(fl.Data("digits"))).labels
    with answers.open("w", newline="") as file:
        rows = [(name, truth[int(name.split()[-1])]) for name in names]
        csv.writer(file).writerows([("path", "label"), *rows])


def _trained(words: str, out: Path) -> float:
    begun = time.monotonic()
    _command("train", *words.split(), "--out", out)
    return time.monotonic() - begun


def _command(*words: object) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.run([str(word) for word in words])
    if code:
        raise SystemExit(said.getvalue())


def _record(draw: int, rule: str, i: int, steps: int, run: Path, seconds: float) -> None:
    trained = fl.Run(run)
    line = {
        "draw": draw,
        "rule": rule,
        "round": i,
        "labels": len(np.unique(trained.split.labeled)),
        "accuracy": trained.result["accuracy"],
        "steps": steps,
        "seconds": round(seconds, 1),
        "commit": commit(),
    }
    with OUT.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
