"""What the default does on folders of real photographs, for docs/results.md.

    python benchmarks/photos.py make NAME FOLDER [--clone REPOSITORY]
    python benchmarks/photos.py run NAME FOLDER [--sizes 128 64 224] [--draws 1 2 3] [--kinds default tuned ...]
    python benchmarks/results_table.py

`make` writes one of the sets below as FOLDER/labeled/CLASS and FOLDER/test/CLASS: it clones the repository, or reads a
clone that is there (a bare one will do). No picture is part of this project. `run` is `fewlabels train --data FOLDER`
with 10 labels of each class, and the other kinds of trainings below; each finished one adds a line to
results/photos.jsonl, and what is there is not done again. The first draw of a size reads and decodes everything anew,
the others find features on the disk; with --cache FOLDER all draws do, if they are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from algorithms import run as training

ROOT = Path(__file__).parents[1]
PER_CLASS = 10
"""Labels."""
TENTH = 10
"""One of so many pictures of a class is a test picture, where the set has no test part."""


class Photographs(NamedTuple):
    """A set of photographs in a repository of GitHub."""

    repository: str
    revision: str
    train: str
    """The folder of class folders."""
    test: str | None = None


SETS = {
    "flowers": Photographs("JoelOscarsson/dl-assignment", "05bf18b10cd76b8225e93e93beef1cb94c77cfbb", "data/flowers"),
    "waste": Photographs(
        "cardstdani/WasteClassificationNeuralNetwork", "34ea0fa0ecb7e35b26b10c39091cf995a5d1ddce", "WasteImagesDataset"
    ),
    "scenes": Photographs(
        "afroozsheikh/Intel-Image-Classifier", "268f8fc38fb3f7307c1861d619ee99ff4158a3f5", "train", "test"
    ),
    "cats-dogs": Photographs(
        "chanakya2734/Image-classification-using-CNN",
        "bf746c6e53f1edacd97b383de350f7a495cef0e1",
        "dataset/training_set",
        "dataset/test_set",
    ),
}

LEARNED = "--net timm:tf_efficientnet_lite0 --net.pretrained True"
STEPS = "--steps 100 --eval-every 100 --batch 16"
FEWER = "--steps 60 --eval-every 60 --batch 16 --uratio 1 --no-baseline"
"""Of a learned net: a minute or two of one core at 64 pixels."""
CURES = "--net.head probe --optim adamw --optim.lr 1e-4 --optim.body 0.01 --temperature 0.01 --loss-temperature 0.07"
"""SWIFT's, docs/algorithms/fixmatch.md."""

KINDS = {
    "default": "",
    "tuned": f"supervised {LEARNED} --net.head probe {STEPS}",
    "self-training": f"self-training {LEARNED} --net.head probe {STEPS} --teacher-seeds 1,2",
    "FixMatch": f"fixmatch {LEARNED} {FEWER}",
    "FixMatch with cures": f"fixmatch {LEARNED} {CURES} {FEWER} --tau 0.8",
    "from scratch": "fixmatch --baseline --net small-16 --batch 16 --uratio 3 --steps 150",
}
"""What is trained, as the words behind `fewlabels train`."""


def make(name: str, out: Path, clone: str | None) -> None:
    """Write a set as a folder. Raises FileExistsError where there is one."""
    photographs = SETS[name]
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        if clone is None:
            clone = folder
            url = f"https://github.com/{photographs.repository}"
            subprocess.run(["git", "clone", "--quiet", "--no-checkout", url, folder], check=True)
        pictures: dict[tuple[str, str], list[tuple[PurePosixPath, str]]] = {}
        for path, blob in listed(clone, photographs):
            part = "test" if photographs.test and path.is_relative_to(photographs.test) else "labeled"
            pictures.setdefault((part, path.parent.name), []).append((path, blob))
        counts = {"labeled": 0, "test": 0, "absent": 0}
        for (part, label), files in pictures.items():
            files.sort(key=lambda file: hashlib.sha256(file[0].name.encode()).digest())
            tests = 0 if photographs.test else len(files) // TENTH
            for place, (path, blob) in enumerate(files):
                into = "test" if place < tests else part
                data = subprocess.run(["git", "-C", clone, "cat-file", "blob", blob], capture_output=True).stdout
                counts[into if data else "absent"] += 1
                if data:
                    target = out / into / label / path.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
    print(f"{out}: {counts}, {len({label for _, label in pictures})} classes")


def listed(clone: str, photographs: Photographs) -> Iterator[tuple[PurePosixPath, str]]:
    """Path and blob of each picture of a set."""
    parts = [part for part in (photographs.train, photographs.test) if part]
    words = ["git", "-C", clone, "ls-tree", "-r", "-z", photographs.revision, "--", *parts]
    for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0"):
        facts, _, path = line.partition("\t")
        if PurePosixPath(path).suffix.lower() in (".jpg", ".jpeg", ".png"):
            yield PurePosixPath(path), facts.split()[2]


def run(
    name: str, data: str, sizes: list[int], draws: list[int], kinds: list[str], kept: str | None, results: Path
) -> None:
    """Train what has no line in the results yet."""
    file = results / "photos.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {(line["name"], line["kind"], line["image_size"], line["draw"]) for line in lines}
    classes = len([path for path in (Path(data) / "labeled").iterdir() if path.is_dir()])
    split = ["--data.labels", str(PER_CLASS * classes), "--data.rule", "balanced", "--data.skip-corrupt"]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            cache = kept or folder
            for kind, draw in product(kinds, draws):
                if (name, kind, size, draw) in done:
                    continue
                algorithm, *settings = KINDS[kind].split() or [""]
                words = ["train", *filter(None, [algorithm]), "--data", data, *split, "--data.image-size", str(size)]
                words += ["--data.seed", str(draw), *settings]
                line = train(words, data, cache, fresh=draw == draws[0] and kind == "default" and kept is None)
                if line is not None:
                    with file.open("a") as out:
                        out.write(json.dumps({"name": name, "kind": kind, "image_size": size, "draw": draw, **line}))
                        out.write("\n")
                    print(name, kind, size, draw, line["accuracy"], line["compared"], line["cpu_seconds"], flush=True)


def train(words: list[str], data: str, cache: str, fresh: bool) -> dict[str, Any] | None:
    """What a run on the folder `data` has come to; None after a complaint, which is printed."""
    import torch

    import fewlabels
    from bench.record import commit

    with tempfile.TemporaryDirectory() as folder:
        result = training(["fewlabels", *words], Path(folder) / "run", 1, XDG_CACHE_HOME=cache)
    if result is None:
        return None
    return {
        "algorithm": result["algorithm"],
        "accuracy": result["accuracy"],
        "compared": result.get("compared", {}),
        "fit": result.get("fit"),
        "steps": result["steps"],
        "fresh": fresh,
        "seconds": round(result["seconds"], 1),
        "cpu_seconds": round(result["cpu_seconds"], 1),
        "device": result["device"],
        "versions": {"fewlabels": fewlabels.__version__, "torch": torch.__version__},
        "commit": commit(),
        "command": shlex.join(["fewlabels", *words]).replace(f"--data {data} ", f"--data {Path(data).name}/ "),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (commands.add_parser("make"), commands.add_parser("run")):
        command.add_argument("name", choices=SETS)
        command.add_argument("folder")
    commands.choices["make"].add_argument("--clone", help="a clone of the repository, which is else fetched")
    running = commands.choices["run"]
    running.add_argument("--sizes", type=int, nargs="+", default=[128])
    running.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3])
    running.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=["default"], metavar="KIND", help=", ".join(KINDS)
    )
    running.add_argument("--cache", metavar="FOLDER", help="where decoded pictures and features are kept")
    running.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the jsonl file")
    options = parser.parse_args()
    if options.command == "make":
        make(options.name, Path(options.folder), options.clone)
    else:
        folder = options.folder.rstrip("/") + "/"
        run(options.name, folder, options.sizes, options.draws, options.kinds, options.cache, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
