"""Whether `fewlabels data probe` names the right problem: data made to have each one, from digits and CIFAR-10.

    python benchmarks/probe.py digits --draws 10 --out results/probe/draws.jsonl
    python benchmarks/probe.py cifar10 --root DATA --draws 10 --out results/probe/draws.jsonl
    python benchmarks/probe.py table results/probe/draws.jsonl          # the table of docs/results.md

Each draw takes other labels and other unlabeled pictures. LABELS is the mean of labels per class; long tails have the
shape of CADR's splits, gamma 50; strangers are the pictures of four classes (digits 6 to 9; the vehicles of CIFAR-10),
of which no label is known. Features are computed once for all draws, without a label: distances to common patches, and
those of the learned net where `fewlabels data probe` would ask it; a draw takes the kind that the command would take.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.record import commit
from fewlabels.config.resolve import load_source
from fewlabels.config.settings import Data
from fewlabels.datatools.estimators import Array, Ints, whiten
from fewlabels.datatools.features import learned_features, patch_features
from fewlabels.datatools.findings import examine
from fewlabels.datatools.probe import better, kinds_of
from fewlabels.runtime.rng import philox

KINDS = {
    "clean": (),
    "clean, labels drawn at random": (),
    "long tail in both": ("long tail",),
    "labels missing not at random": ("missing not at random",),
    "25 % strangers": ("strangers",),
    "50 % strangers": ("strangers",),
    "100 % strangers": ("strangers",),
}
"""What the data are like, and what is to be said of them."""

GAMMA = 50.0
KNOWN = {"digits": (0, 1, 2, 3, 4, 5), "cifar10": (2, 3, 4, 5, 6, 7)}
KEYS = ("accuracy", "error", "covered")
POOL = 1000
"""Unlabeled pictures at most."""


def tail(classes: int) -> Array:
    return np.asarray(GAMMA ** (-np.arange(classes) / (classes - 1)))


def draw(name: str, y: Ints, kind: str, labels: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints]:
    """Rows of labeled pictures, their labels, rows of unlabeled ones, and of those the true class (-1: a stranger)."""
    strange = float(kind.split()[0]) / 100 if "strangers" in kind else 0.0
    known = np.array(KNOWN[name]) if strange else np.arange(10)
    k = len(known)
    rows = [rng.permutation(np.flatnonzero(y == c)) for c in known]
    uneven = kind in ("long tail in both", "labels missing not at random")
    counts = np.full(k, labels)
    if uneven:
        counts = np.maximum(1, np.round(labels * k * tail(k) / tail(k).sum())).astype(int)
    elif "at random" in kind:
        counts = np.bincount(rng.integers(0, k, labels * k), minlength=k)
    chosen = np.concatenate([r[:n] for r, n in zip(rows, counts, strict=True)])
    rest = [r[n:] for r, n in zip(rows, counts, strict=True)]
    if kind == "long tail in both":
        pool = np.concatenate([r[: max(1, int(len(rest[0]) * s))] for r, s in zip(rest, tail(k), strict=True)])
    else:
        pool = np.concatenate([r[: min(map(len, rest))] for r in rest])
    others = rng.permutation(np.flatnonzero(~np.isin(y, known)))
    total = min(POOL, len(others) / strange if strange else POOL, len(pool) / (1 - strange) if strange < 1 else POOL)
    few = int(total * strange)
    pool = np.concatenate([rng.permutation(pool)[: int(total) - few], others[:few]])
    truth = np.where(np.isin(y[pool], known), np.searchsorted(known, y[pool]), -1)
    return chosen, np.repeat(np.arange(k), counts), pool, truth


def measure(
    name: str, root: str | None, labels: list[int], draws: int, first: int, out: Path, kinds: list[str]
) -> None:
    source = load_source(Data(name, root=root))
    images, y = source.images[:12_000], source.labels[:12_000]
    if name == "digits":
        images, y = np.concatenate([images, source.test_images]), np.concatenate([y, source.test_labels])
    rows = np.arange(len(y))
    features = {
        kind: whiten(patch_features(images, rows) if kind == "patches" else learned_features(name, images, rows), 200)
        for kind in kinds_of("auto", min(images.shape[1:3]))
    }
    for n in labels:
        for kind in kinds:
            for number in range(first, first + draws * (2 if kind.startswith("clean") else 1)):
                rng = philox(number, f"probe {name} {kind} {n}")
                start = time.process_time()
                chosen, given, pool, truth = draw(name, y, kind, n, rng)
                drawn, few = np.concatenate([chosen, pool]), len(chosen)
                seen = {word: whiten(each[drawn]) for word, each in features.items()}
                k = len(KNOWN[name]) if "strangers" in kind else 10
                word = better({word: z[:few] for word, z in seen.items()}, given, k, rng)
                z = seen[word]
                found = examine(z[:few], given, z[few:], np.bincount(given, minlength=k), rng, 30)
                true = np.bincount(truth[truth >= 0], minlength=k) / max(1, (truth >= 0).sum())
                record: dict[str, Any] = {
                    "data": name,
                    "labels": n,
                    "kind": kind,
                    "draw": number,
                    "features": word,
                    "named": found.named,
                    "unclear": found.unclear,
                    "accuracy": found.accuracy,
                    "shift": found.shift,
                    "shift_p": found.shift_p,
                    "uneven_p": found.uneven_p,
                    "ratio": found.ratio,
                    "z": found.strangers.z,
                    "share": [found.strangers.share, found.strangers.low, found.strangers.high],
                    "true_share": float((truth < 0).mean()),
                    "error": float(np.abs(found.unlabeled - true).sum() / 2),
                    "covered": float(np.mean((found.low <= true + 1e-9) & (true <= found.high + 1e-9))),
                    "seconds": round(time.process_time() - start, 2),
                    "machine": platform.machine(),
                    "commit": commit(),
                }
                with out.open("a") as file:
                    file.write(json.dumps(record) + "\n")


def table(path: Path) -> str:
    cells: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        record = json.loads(line)
        cells[record["data"], record["labels"], record["kind"]].append(record)
    lines = [
        "| data | labels | told % | made to have | right | said instead | strangers % | wrong by % | inside % |",
        "| --- | ---: | ---: | --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for (data, n, kind), records in cells.items():
        right = sum(set(r["named"]) == set(KINDS[kind]) for r in records)
        wrong: dict[str, int] = defaultdict(int)
        for r in records:
            if set(r["named"]) != set(KINDS[kind]):
                wrong[" and ".join(r["named"]) or "nothing"] += 1
        share = 100 * np.mean([r["share"] for r in records], 0)
        told, error, inside = (f"{100 * np.mean([r[key] for r in records]):.0f}" for key in KEYS)
        if kind == "100 % strangers":
            error = inside = ""
        lines.append(
            f"| {data} | {n} | {told} | {kind} | {right} of {len(records)} | "
            f"{', '.join(f'{name} {count}' for name, count in wrong.items())} | "
            f"{share[0]:.0f} ({share[1]:.0f} to {share[2]:.0f}) | {error} | {inside} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "cifar10", "table"))
    parser.add_argument("path", nargs="?", type=Path, help="of the table")
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--labels", type=int, nargs="+", default=[4, 25])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="number of the first draw")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("results/probe/draws.jsonl"))
    given = parser.parse_args()
    if given.what == "table":
        print(table(given.path or given.out))
    else:
        measure(given.what, given.root, given.labels, given.draws, given.first, given.out, given.kinds)


if __name__ == "__main__":
    main()
