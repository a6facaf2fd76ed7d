"""Commands that work, and what an attacker does to their words, files, places, streams and environment.

A `Template` copies good files and names the command; a `Change` spoils the case. Both record in `Case.how` what
they did, as commands where there is one. `Case.writes` and `Case.alters` say which paths below the working folder may
be new or other afterwards; everything else must be left as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from PIL import Image

_SIZES = {"net": "small-4", "batch": "4", "uratio": "1", "steps": "6", "eval-every": "3", "save-every": "3"}
TINY = [*(word for name, value in _SIZES.items() for word in (f"--{name}", value)), "--no-progress", "--no-baseline"]
ALGORITHMS = (
    "supervised supervised-mixup pseudo-label pi-model mean-teacher vat ict mixup mixmatch remixmatch uda fixmatch"
)

HOSTILE = [
    *("", " ", "-", "--", "-x", "--x", ".", "..", "../..", "~", "~nobody", "$HOME", "*", ",", "a,b", "a=b", "%s%d"),
    *("nan", "inf", "-inf", "1e400", "-1", "0", "1_000", "0x10", "1e3", "+1", "1,5", "٣", "None", "true", "9" * 20),
    *("x" * 300, "x" * 5000, "\udcff\udcfe", "é", "日本", "\u202e", "[/b]", "[red]x[/red]", "{}", "{0}", "'\""),
    *("\x1b[31mred", "a\nb", "a\tb", "a\rb", "\x07"),
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "missing/file", "a/b/c", "photos", "./photos", "=1+1"),
    *("@", "@40", "x@", "digits", "digits@", "digits@-1", "digits@1e3", "digits.@40", "digits.0@40-5", "digits@99999"),
    *("cifar10@40", "hf:", "hf:x/y", "timm:", "timm:hf-hub:x/y", "torchvision:x", "file:///etc", "x.tfrecord", "x.csv"),
]
"""Words for every place in which a word may stand."""
NAMES = [
    *("[/b]", "a [b]", "a b", " lead", "trail ", "é", "日本", "it's", '"q"', "a,b", "a;b", "=1+1", "-x", "--out"),
    *("\x1b[31mred", "\udcff", "x" * 200, "10", "None", "-1", "blue_red", "BLUE", "%s", "{}", "a=b", "a:b", "x\ny"),
]
"""Names for folders, files and classes."""
NUMBERS = {
    "INT": ["-1", "0", "1", "2", "3", "7", "100", "1.5", "1e3", "4294967296", "9" * 20, "", "x", "nan", " 3", "１２"],
    "FLOAT": ["-1", "0", "0.5", "1", "2", "1e38", "1e400", "1e-400", "-0.0", "nan", "inf", "", "x", "1,5", "½"],
}
SPECIAL = {
    "--steps": ["0", "1", "2", "7", "-3", "", "x", "1.5", "6e0"],
    "--image-size": ["3", "4", "5", "16", "33", "4097", "x", "-8"],
    "--size": ["0", "1", "4", "33", "x", "-8", "1.5"],
    "--net": ["small", "small-1", "small-0", "small-100000", "Small-4", "wrn-10-2", "wrn-11-2", "resnet18", "x"],
    "--device": ["cpu", "cuda", "cuda:0", "cuda:x", "cpu:7", "meta", "mps", "CPU", ""],
    "--checkpoint": ["last", "best", "3", "6", "7", "-1", "step-3", "../x", "03", ""],
    "--weights": ["ema", "raw", "both", ""],
    "--seeds": ["0,1", "1..2", "2..1", "1,1", "-1", "x", "", "1..", "0.5", "4294967296"],
    "--folds": ["1,2", "2..1", "1,1", "0", "x", ""],
    "--batch": ["1", "3", "20000000", "-4", "9" * 20],
    "--width": ["0", "1", "3", "100000", "x"],
    "--classes": ["names.json", "blue", "blue,red", "blue,blue", "red,", "green", "[/b]"],
    "--config": ["run/config.json", "split.json", "names.json", "run", "missing.json", "photos/table.csv"],
    "--split": ["split.json", "digits.json", "run/split.json", "names.json", "photos", "missing.json"],
    "--view-seed": ["-1", "0", "9" * 20, "x"],
    "--rows": ["-1", "0", "1", "9" * 20],
}
"""Values by the last part of an option's name, where a number of any size would train for hours, or fit nothing."""
NEVER = {"--out", "--output", "--resume", "--overwrite", "--compile", "--in-place", "--undo", "--help", "--root"}
NEVER |= {"--page", "--yes"}
"""Options that the templates give: where a command writes must be known. And what waits for a person, or uploads."""


class Case:
    """One command, its files, and what it may do to them."""

    def __init__(self, seed: int, number: int, root: Path, work: Path) -> None:
        self.seed, self.number, self.root, self.work = seed, number, root, work
        self.store, self.truth = work, {}
        self.options: Callable[[str], dict[str, str]] = lambda words: {}
        self.name, self.command, self.argv = "", "", []
        self.env = self.plain_env()
        self.streams = ["null", "pipe", "pipe"]
        self.limits: dict[int, int] = {}
        self.signal: tuple[int, int] | None = None
        self.folder_gone = False
        self.how: list[str] = []
        self.changes: list[int] = []
        self.inputs: list[str] = []
        self.writes: set[str] = set()
        self.alters: set[str] = set()
        self.results: list[str] = []
        self.expect = ""

    truth: dict[str, Any]
    """What the good commands say."""
    argv: list[str]
    inputs: list[str]
    """What was copied from the store."""
    results: list[str]
    """Files that are there after status 0."""
    expect: str
    """Key of `truth`: what the command says after status 0, if anything."""

    def plain_env(self) -> dict[str, str]:
        folder = str(self.root)
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "HOME": f"{folder}/home",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "TMPDIR": f"{folder}/tmp",
            "ML_DATA": f"{folder}/home/data",
        }

    @property
    def asks_help(self) -> bool:
        return any(word in ("-h", "--help", "help", "-V", "--version", "--dry-run", "--list") for word in self.argv)

    @property
    def has_nan(self) -> bool:
        return bool(re.search(r"nan|inf\b|infinity|1e400", " ".join([*self.argv, *self.how]), re.I))

    @property
    def copies_names(self) -> bool:
        """Whether standard output is a table for programs, with file names as they are."""
        return self.command == "predict" or "--csv" in self.argv

    def owns(self, name: str) -> bool:
        """Whether the path, from the case's folder, may be new."""
        # a log that --undo has used is set aside beside itself, whatever it is called
        return self._below(name, self.writes | self.alters | {"runs"}) or name.endswith(".undone")

    def may_change(self, name: str) -> bool:
        return self._below(name, self.alters)

    def _below(self, name: str, tops: set[str]) -> bool:
        for top in tops:
            path = os.path.normpath(f"work/{top}")
            if name == path or name.startswith((f"{path}/", f"{path}-")) or (path == "work" and name != "outside.txt"):
                return True
        return False

    def take(self, *names: str) -> None:
        """Copy good files."""
        for name in names:
            if name in self.inputs:
                continue
            source, target = self.store / name, self.work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copy2(source, target)
                if name.endswith("-renamed.json"):  # the only file that holds whole paths
                    target.write_text(target.read_text().replace(str(self.store), str(self.work)))
            self.inputs.append(name)
            self.how.append(f"cp -r STORE/{name} {name}")

    def files(self, top: str = ".") -> list[str]:
        """The regular files among the inputs, from the working folder."""
        found = (p for p in sorted((self.work / top).rglob("*")) if p.is_file() and not p.is_symlink())
        return [str(p.relative_to(self.work)) for p in found]

    def missing_results(self) -> Iterator[str]:
        for name in self.results:
            if not os.path.exists(self.work / name):
                yield re.sub(r".*/", "", name)

    def other_numbers(self, out: bytes) -> Iterator[str]:
        """Where what came after status 0 is not what the undamaged files give."""
        truth = self.truth[self.expect]
        if self.expect == "resumed":
            got = finished(self.work / "stopped")
            for key in truth:
                if got[key] != truth[key]:
                    yield f"{key} of a resumed run"
        elif self.streams[1] == "pipe":
            text = out.decode("utf-8", "replace")
            if self.expect.startswith("predict"):
                if text != truth:
                    yield "predictions of a run"
                return
            try:
                got = json.loads(text)
            except ValueError:
                yield f"{self.expect} prints no JSON"
                return
            if self.expect.startswith("report"):
                got, truth = (x["runs"][0] if x.get("runs") else {} for x in (got, truth))
            if got.get("step", got.get("steps_done")) != truth.get("step", truth.get("steps_done")):
                return  # another checkpoint, and it says so
            keys = [k for k in truth if got.get(k) != truth[k] and k not in ("path", "name")]
            if keys:
                yield f"{', '.join(keys[:3])} in {self.expect}"


def finished(run: Path) -> dict[str, Any]:
    """What a training has come to: its weights bit for bit, and its evaluations."""
    weights = sorted(run.glob("checkpoints/step-*/weights.safetensors"))[-1]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "evaluations": [row["test"] for row in rows if row["kind"] == "eval"],
        "last20": json.loads((run / "result.json").read_text())["last20"],
    }


# --- commands that work -------------------------------------------------------------------------------------------


def pick(rng: Random, words: str) -> str:
    return rng.choice(words.split())


class Template(NamedTuple):
    name: str
    weight: float
    words: str
    """The command; its first words, up to a path or an option, name it."""
    inputs: str = ""
    writes: str = ""
    alters: str = ""
    results: str = ""
    expect: str = ""

    def make(self, case: Case, rng: Random) -> None:
        case.name, case.argv = self.name, self.words.replace("ALGORITHM", pick(rng, ALGORITHMS)).split()
        case.command = " ".join(case.argv[: 2 if case.argv[0] == "data" else 1])
        case.take(*self.inputs.split())
        case.writes.update(self.writes.split())
        case.alters.update(self.alters.split())
        case.results += self.results.split()
        case.expect = self.expect


TABLE = """
train | 6 | train ALGORITHM --data digits@40 TINY NEW | | new | | new/result.json
train valid | 2 | train --data digits.3@40-20 TINY NEW | | new | | new/result.json
train folder | 10 | train --data photos/ TINY NEW | photos | new | | new/result.json
train named | 2 | train --data photos/ --data.classes names.json TINY NEW | photos names.json | new | | new/result.json
train streaming | 3 | train --data photos/ --data.residency stream SKIP TINY NEW | photos | new | | new/result.json
train skipping | 3 | train --data photos/ SKIP TINY NEW | photos | new | | new/result.json
train table | 8 | train --data photos/table.csv TINY NEW | photos | new | | new/result.json
train tfrecord | 5 | train --data LABELS TINY NEW | SSL2 photos-test.tfrecord | new | | new/result.json
train split | 4 | train --data photos/ --data.split split.json TINY NEW | photos split.json | new | | new/result.json
train config | 4 | train --config run/config.json --no-progress --no-baseline NEW | run | new | | new/result.json
train dry | 2 | train --data photos/ TINY --dry-run | photos
train seeds | 2 | train --data digits@40 TINY --seeds 0,1 --out new | | new | | new/seed-0/result.json
train overwrite | 2 | train --data digits@40 TINY --out run --overwrite | run | | run | run/result.json
train onto a run | 2 | train --data digits@40 TINY --out run | run
resume | 14 | train --resume stopped --no-progress | stopped | | stopped | | resumed
resume a finished run | 3 | train --resume run --no-progress | run | | run
evaluate | 3 | evaluate run | run
evaluate | 12 | evaluate run --json | run | | | | evaluate run --json
evaluate a folder | 5 | evaluate photorun --json | photorun photos | | | | evaluate photorun --json
evaluate other data | 4 | evaluate photorun --data photos/ | photorun photos
checkpoints | 1 | evaluate run --list | run
report | 6 | report run --json | run | | | | report run --json
report | 2 | report photorun --json | photorun | | | | report photorun --json
report of two | 3 | report run sister photorun | run sister photorun
report as csv | 1 | report run sister --csv | run sister
report as a page | 4 | report run --html new.html | run | new.html | | new.html
report as a page | 2 | report photorun stopped --html new.html | photorun stopped | new.html | | new.html
doctor | 4 | doctor run --json | run
label | 4 | label photorun -n 3 -o new | photorun photos | new | | new
predict | 8 | predict photorun photos/test --no-progress | photorun photos | | | | predict photorun
predict to a file | 4 | predict photorun photos --no-progress -o out.csv | photorun photos | out.csv | | out.csv
predict to a file | 3 | predict photorun photos --probabilities -o out.json | photorun photos | out.json | | out.json
predict to a file | 3 | predict photorun photos -o out.npy | photorun photos | out.npy out.json | | out.npy out.json
predict in parts | 4 | predict photorun photos PARTS | photorun photos | parts | | parts/shard-1-of-2.json
list | 3 | list nets
split | 4 | split digits@40 --out new.json | | new.json | | new.json
split a folder | 4 | split photos/ --labels 4 --out new.json | photos | new.json | | new.json
split from a file | 3 | split photos/ --split split.json | photos split.json
data list | 1 | data list
data prepare | 1 | data prepare digits
data check | 6 | data check photos/ --json | photos
data show | 4 | data show photos/ -o new.png | photos | new.png | | new.png
data filter | 4 | data filter photos new --classes blue | photos | new | | new
data crop | 5 | data crop photos new --size 8 | photos | new | | new
data rename | 4 | data rename photos new | photos | new | | new
data rename in place | 3 | data rename photos --in-place | photos | photos-renamed.json | photos | photos-renamed.json
data rename undo | 4 | data rename renamed-renamed.json --undo | RENAMED | | RENAMED
data convert to npz | 4 | data convert photos new.npz | photos | new.npz | | new.npz
data convert to tfrecord | 3 | data convert photos new.tfrecord | photos | SSL2 new | | new-test.tfrecord
data convert npz | 5 | data convert photos.npz new | photos.npz | new | | new
data convert tfrecord | 4 | data convert photos-test.tfrecord new | photos-test.tfrecord | new | | new
"""
"""The commands, as fields of `Template`, with words for what is long:"""
LONG = {
    "NEW": "--out new",
    "TINY": " ".join(TINY),
    "SKIP": "--data.skip-corrupt",
    "PARTS": "--no-progress --shard 1/2 --part-rows 5 -o parts",
    "LABELS": "SSL2/photos.1@8-label.tfrecord",
    "RENAMED": "renamed renamed-renamed.json",
}


def _templates() -> Iterator[Template]:
    for line in TABLE.strip().splitlines():
        for word, meaning in LONG.items():
            line = line.replace(word, meaning)
        name, weight, *fields = (field.strip() for field in line.split("|"))
        yield Template(name, float(weight), *fields)


TEMPLATES = list(_templates())


# --- changes ------------------------------------------------------------------------------------------------------


class Change(NamedTuple):
    weight: float
    make: Callable[[Case, Random], None]

    @property
    def name(self) -> str:
        return self.make.__name__

    def apply(self, case: Case, rng: Random) -> None:
        try:
            self.make(case, rng)
        except (OSError, ValueError, LookupError, EOFError, BadZipFile) as error:
            if len(case.changes) < 2:
                raise
            case.how.append(f"({self.name} failed after the changes before it: {error})")


def options(case: Case, rng: Random) -> None:
    """Give one to three options more, with values of every kind."""
    words = case.command
    if words == "train" and (algorithm := next((w for w in case.argv if w in ALGORITHMS.split()), "")):
        words += f" {algorithm}"
    known = case.options(words)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(sorted(known))
        last = "--" + name.lstrip("-").rpartition(".")[2]
        if last in NEVER or name in NEVER:
            continue
        given = [name]
        if kind := known[name]:
            choices = kind.strip("{}").split(",") if kind.startswith("{") and "|" not in kind else []
            number = next((NUMBERS[k] for k in NUMBERS if kind.endswith(k)), HOSTILE)
            pools = [SPECIAL.get(last, SPECIAL.get(name, choices or number))]
            if last not in SPECIAL or last in ("--net", "--device", "--checkpoint"):
                pools.append(HOSTILE)
            value = rng.choice(pools[0] if rng.random() < 0.75 else pools[-1])
            given = [f"{name}={value}"] if rng.random() < 0.2 else [name, value]
        where = len(case.command.split()) if rng.random() < 0.2 else len(case.argv)
        case.argv[where:where] = given
        case.take(*(n for n in ("names.json", "split.json", "digits.json") if n in given and n not in case.inputs))
    case.expect = ""
    if {"--seeds", "--folds", "--generations"} & {word.partition("=")[0] for word in case.argv}:
        case.results = []


def words(case: Case, rng: Random) -> None:
    """Misspell, repeat, drop or add a word."""
    i = rng.randrange(len(case.argv))
    word = case.argv[i]
    way = pick(rng, "misspell repeat drop add replace ending help join")
    if way == "misspell" and len(word) > 3 and (word.startswith("--") or i < 2):
        at = rng.randrange(2, len(word))
        typos = word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], word.upper(), word.replace("-", "_")
        case.argv[i] = rng.choice(typos)
    elif way == "repeat":
        case.argv.insert(rng.randrange(i, len(case.argv) + 1), word)
    elif way == "drop" and word not in ("--out", "-o", "new"):
        del case.argv[i]
    elif way == "replace" and word not in ("new", "--out", "-o", "--overwrite", "--in-place", "--undo"):
        case.argv[i] = rng.choice(HOSTILE)
    elif way == "ending" and word.startswith("--"):
        case.argv[i] = word + rng.choice(("=", "=x", ".x", "-", " "))
    elif way == "help":
        case.argv.insert(i, rng.choice(("--help", "-h", "--version", "help")))
    elif way == "join" and i + 1 < len(case.argv) and word.startswith("--"):
        case.argv[i : i + 2] = [f"{word}={case.argv[i + 1]}"]
    else:
        case.argv.insert(rng.randrange(1, len(case.argv) + 1), rng.choice(HOSTILE))
    case.expect, case.results = "", []


def damage(case: Case, rng: Random) -> None:
    """Spoil one of the files."""
    if not case.inputs:
        return options(case, rng)
    top = rng.choice(case.inputs)
    files = [top] if (case.work / top).is_file() else case.files(top)
    if not files:
        return None
    texts = [f for f in files if f.endswith((".json", ".jsonl", ".csv"))]
    name = rng.choice(texts if texts and rng.random() < 0.5 else files)
    if not name.startswith(("run/", "stopped/", "sister/", "photorun/")):
        case.expect = ""
    path = case.work / name
    if name.endswith((".json", ".jsonl")) and rng.random() < 0.6:
        return _spoil_json(case, name, rng)
    if name.endswith(".csv") and rng.random() < 0.8:
        return _spoil_table(case, path, rng)
    if name.endswith(".npz") and rng.random() < 0.6:
        return _spoil_arrays(case, path, rng)
    if rng.random() < 0.5:
        _spoil_bytes(case, name, rng)
    else:
        _replace(case, name, rng)
    return None


WORDS_FOR_JSON = ["x", "", "\x1b[31mx", "[/b]", "y" * 3000]
JSON_VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**30, *WORDS_FOR_JSON, [], [1], {}, {"a": 1}, [[[[]]]]]


def _spoil_json(case: Case, name: str, rng: Random) -> None:
    path = case.work / name
    text = path.read_text()
    lines = text.splitlines() if name.endswith(".jsonl") else [text]
    if len(lines) > 1 and rng.random() < 0.3:
        i, way = rng.randrange(len(lines)), pick(rng, "cut drop repeat zeros swap")
        changed = {
            "cut": [lines[i][:20]],
            "drop": [],
            "repeat": [lines[i]] * 2,
            "zeros": ["\0" * 50],
            "swap": lines[i : i + 2][::-1],
        }
        lines[i : i + (2 if way == "swap" else 1)] = changed[way]
        path.write_text("\n".join(lines) + "\n")
        case.how.append(f"{way} line {i + 1} of {name}")
        return
    i = rng.randrange(len(lines))
    value = json.loads(lines[i])
    at: Any = value
    trail: list[Any] = []
    while isinstance(at, dict | list) and at and (not trail or rng.random() < 0.6):
        key = rng.choice(sorted(at)) if isinstance(at, dict) else rng.randrange(len(at))
        trail.append(key)
        at = at[key]
    new = rng.choice(JSON_VALUES)
    if not trail or rng.random() < 0.1:
        trail, value = [], new
        lines[i] = json.dumps(new)
    else:
        parent = value
        for key in trail[:-1]:
            parent = parent[key]
        if rng.random() < 0.2:
            new = "(deleted)"
            del parent[trail[-1]]
        elif rng.random() < 0.1 and isinstance(parent, dict):
            trail[-1], new = f"{trail[-1]}_", at
            parent[trail[-1]] = at
        else:
            parent[trail[-1]] = new
        lines[i] = json.dumps(value)
    numbers = isinstance(new, int | float) and isinstance(at, int | float)
    both_words = isinstance(new, str) and isinstance(at, str)
    if name.endswith(("metrics.jsonl", "result.json")) and (numbers or both_words):
        case.expect = ""  # another number or word of the same kind: nothing shows it
    path.write_text("\n".join(lines) + "\n")
    line = f", line {i + 1}" if len(lines) > 1 else ""
    case.how.append(f"{name}{line}: {'.'.join(map(str, trail)) or 'all of it'} = {json.dumps(new)[:60]}")


def _spoil_table(case: Case, path: Path, rng: Random) -> None:
    text = path.read_text()
    rows = text.splitlines()
    i = rng.randrange(1, len(rows))
    name, label, part = rows[i].split(",")
    cell = rng.choice(
        [*HOSTILE, *NAMES, "-1", "../../outside.txt", f"{case.root}/outside.txt", "labeled/blue", "\0", "nothing.png"]
    )
    ways: dict[str, Callable[[], str | bytes]] = {
        "semicolons": lambda: text.replace(",", ";"),
        "tabs": lambda: text.replace(",", "\t"),
        "CRLF": lambda: text.replace("\n", "\r\n"),
        "CR": lambda: text.replace("\n", "\r"),
        "BOM": lambda: "\ufeff" + text,
        "UTF-16": lambda: text.encode("utf-16"),
        "Latin-1 label": lambda: text.replace("blue,", "bl\xfce,").encode("latin-1"),
        "no header": lambda: "\n".join(rows[1:]),
        "header only": lambda: rows[0],
        "capitals": lambda: text.replace("path,label", "Path,Label"),
        "header twice": lambda: text.replace("path,label,split", "path,label,label"),
        "empty rows": lambda: text + ",,\n\n,,\n",
        "quote left open": lambda: text.replace(rows[i], f'"{rows[i]}'),
        "a cell more": lambda: text.replace(rows[i], f"{rows[i]},x,y"),
        "a cell fewer": lambda: text.replace(rows[i], name),
        "zeros": lambda: b"\0" * 3000,
        "one class": lambda: text.replace(",red,", ",blue,"),
        "all labels -1": lambda: re.sub(r",(blue|red),", ",-1,", text),
        "all unlabeled": lambda: re.sub(r",(blue|red),(train|test)", ",,unlabeled", text),
        "twice": lambda: text + rows[i] + "\n",
        f"label {cell[:40]!r}": lambda: text.replace(rows[i], f'{name},"{cell}",{part}'),
        f"path {cell[:40]!r}": lambda: text.replace(rows[i], f'"{cell}",{label},{part}'),
        f"split {cell[:40]!r}": lambda: text.replace(rows[i], f'{name},{label},"{cell}"'),
        "no test": lambda: "\n".join(r for r in rows if not r.endswith(",test")),
        "other column": lambda: text.replace("split", "fold"),
    }
    way = rng.choice([*list(ways), *[w for w in ways if " '" in w] * 4])
    new = ways[way]()
    path.write_bytes(new if isinstance(new, bytes) else new.encode("utf-8", "surrogateescape"))
    case.how.append(f"{path.relative_to(case.work)}, row {i + 1}: {way}")


def _spoil_arrays(case: Case, path: Path, rng: Random) -> None:
    with np.load(path) as file:
        arrays = {k: file[k] for k in file}
    key = rng.choice(sorted(arrays))
    old = arrays[key]
    if not old.ndim:  # an earlier change has been here
        return
    objects = np.array([{"a": 1}] * len(old), dtype=object)
    bad = np.full(old.shape, np.nan, np.float32) if old.dtype.kind in "iu" else old
    ways: dict[str, Any] = {
        "missing": None,
        "objects": objects,
        "empty": old[:0],
        "one fewer": old[:-1],
        "scalar": np.array(3),
        "transposed": old.T,
        "not a number": bad,
        "float64": old.astype(np.float64) if old.dtype.kind in "iu" else old,
        "int64 times 1000": old.astype(np.int64) * 1000 if old.dtype.kind in "iu" else old,
        "minus": -old.astype(np.int64) if old.dtype.kind in "iu" else old,
        "text": old.astype(str),
        "complex": old.astype(complex) if old.dtype.kind in "iu" else old,
        "an axis more": old[..., None],
        "odd names": np.array([*rng.sample([n for n in NAMES if "\udcff" not in n], 2)]),
    }
    way = rng.choice(sorted(ways))
    arrays.pop(key)
    if ways[way] is not None:
        arrays[key] = ways[way]
    np.savez(path, **arrays)
    case.how.append(f"{path.name}: {key} is {way}")


def _spoil_bytes(case: Case, name: str, rng: Random) -> None:
    path = case.work / name
    data = bytearray(path.read_bytes())
    way = pick(rng, "empty cut flip zeros append noise half")
    at = rng.randrange(max(len(data), 1))
    if way in ("empty", "cut"):
        del data[0 if way == "empty" else at :]
    elif way == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
        way = f"flip a bit of byte {at}"
    elif way in ("zeros", "half"):
        start = len(data) // 2 if way == "half" else 0
        data[start:] = bytes(len(data) - start)
    elif way == "append":
        data += rng.randbytes(rng.choice((1, 100)))
    else:
        data[:] = rng.randbytes(len(data))
    path.write_bytes(data)
    case.how.append(f"{way}: {name} (now {len(data)} bytes)")


def _replace(case: Case, name: str, rng: Random) -> None:
    """Something else where the file was."""
    path = case.work / name
    way = pick(rng, "missing fifo folder chmod nowhere loop zero outside sister folder-chmod moved-link")
    if way == "folder-chmod":
        path.parent.chmod(rng.choice((0o000, 0o500, 0o300)))
        case.how.append(f"chmod {path.parent.stat().st_mode & 0o777:o} {Path(name).parent}")
        if path.parent == case.work:
            path.parent.chmod(0o555)
        return
    if way == "chmod":
        path.chmod(0)
        case.how.append(f"chmod 0 {name}")
        return
    other = case.store / "sister" / Path(*Path(name).parts[1:])
    keep = path.read_bytes()
    path.unlink()
    if way == "fifo":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way == "sister" and other.is_file():
        shutil.copy(other, path)
    elif way == "moved-link":
        (case.root / "home" / "moved").write_bytes(keep)
        path.symlink_to(case.root / "home" / "moved")
    elif way in ("nowhere", "loop", "zero", "outside"):
        targets = {"nowhere": "nowhere", "loop": path.name, "zero": "/dev/zero", "outside": "../../outside.txt"}
        path.symlink_to(targets[way])
    case.how.append(f"{name} is {way}")


def exchange(case: Case, rng: Random) -> None:
    """Checkpoints of another run, or other content whose checksum is right."""
    runs = [name for name in case.inputs if name in ("run", "stopped", "photorun")]
    if not runs:
        return damage(case, rng)
    run = rng.choice(runs)
    ours = sorted((case.work / run / "checkpoints").iterdir())
    other = case.store / rng.choice(("sister", "sister", "photorun" if run != "photorun" else "run"))
    if rng.random() < 0.5:
        which = ours if rng.random() < 0.5 else rng.sample(ours, 1)
        for path in which:
            theirs = other / "checkpoints" / path.name
            if theirs.is_dir():
                shutil.rmtree(path)
                shutil.copytree(theirs, path)
        case.how.append(
            f"cp -r STORE/{other.name}/checkpoints/* {run}/checkpoints/ ({', '.join(p.name for p in which)})"
        )
        return None
    path = rng.choice(ours)
    name = rng.choice([n for n in ("weights.safetensors", "state.pt") if (path / n).is_file()])
    _other_content(path / name, rng)
    meta = json.loads((path / "meta.json").read_text())
    for table in [meta, *(v for v in meta.values() if isinstance(v, dict))]:
        if name in table:
            table[name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    (path / "meta.json").write_text(json.dumps(meta))
    case.how.append(f"{path.relative_to(case.work)}/{name} has other content (by the seed), and meta.json its checksum")
    case.expect = ""
    return None


def _other_content(path: Path, rng: Random) -> None:
    """Another file of the same format, or of none, which a checksum does not tell."""
    import torch
    from safetensors.torch import load_file, save_file

    if rng.random() < 0.2:
        path.write_bytes(rng.choice((b"", b"\0" * 64, b"{}", rng.randbytes(300), path.read_bytes()[:-7])))
    elif path.suffix == ".safetensors":
        tensors = load_file(path)
        key, way = rng.choice(sorted(tensors)), pick(rng, "missing more shape dtype nan name none")
        old = tensors.pop(key)
        new = {
            "more": old,
            "shape": old.flatten()[:1].clone(),
            "dtype": old.to(torch.float16),
            "nan": old.float() * torch.nan,
        }
        tensors |= {"more": {key: old, "x": old.clone()}, "name": {f"{key}_": old}}.get(
            way, {key: new[way]} if way in new else {}
        )
        save_file({} if way == "none" else tensors, path)
    else:
        state = torch.load(path, weights_only=True)
        for_all: list[Any] = [[], {}, None, 3, torch.zeros(3), "x"]
        if isinstance(state, dict) and rng.random() < 0.8:
            state[rng.choice(sorted(map(str, state)))] = rng.choice(for_all)
        else:
            state = rng.choice(for_all)
        torch.save(state, path)


def oddity(case: Case, rng: Random) -> None:
    """Something in a folder of pictures that is not a plain picture in a plain place."""
    if "photos" not in case.inputs:
        return damage(case, rng)
    case.expect = ""
    root = case.work / "photos"
    part = root / rng.choice(("labeled", "labeled", "test", "unlabeled"))
    inner = part if part.name == "unlabeled" else part / "blue"
    name = rng.choice(NAMES)
    image = Image.open(root / "labeled/blue/0.png")
    image.load()

    def picture(path: Path, **kwargs: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            image.save(file, kwargs.pop("format", "png"), **kwargs)

    ways: dict[str, Callable[[], object]] = {
        f"class {name!r}": lambda: [picture(root / p / name / "9.png") for p in ("labeled", "test")],
        f"class only in the test part {name!r}": lambda: picture(root / "test" / name / "9.png"),
        f"file {name!r}": lambda: picture(inner / f"{name}.png"),
        "capital ending": lambda: picture(inner / "9.PNG"),
        "JPEG called PNG": lambda: picture(inner / "9.png", format="jpeg"),
        "text called PNG": lambda: (inner / "9.png").write_text("hello"),
        "no ending": lambda: picture(inner / "9"),
        "hidden": lambda: picture(inner / ".9.png"),
        "other files": lambda: [(inner / n).write_text("x") for n in ("Thumbs.db", ".DS_Store", "a.txt", "b.svg")],
        "thumbnails": lambda: picture(inner / "@eaDir" / "9.png"),
        "empty class": lambda: (root / "labeled" / "green").mkdir(),
        "empty part": lambda: (shutil.rmtree(part), part.mkdir()),
        "no part": lambda: shutil.rmtree(part),
        "one class": lambda: [shutil.rmtree(root / p / "red") for p in ("labeled", "test")],
        "empty folder": lambda: (shutil.rmtree(root), root.mkdir()),
        "file for a folder": lambda: (shutil.rmtree(part), part.write_text("x")),
        "nested": lambda: picture(inner / "a" / "b" / "9.png"),
        "pictures beside the classes": lambda: picture(root / "labeled" / "9.png"),
        "part in capitals": lambda: part.rename(part.with_name(part.name.title())),
        "other part": lambda: (root / "test").rename(root / rng.choice(("val", "valid", "validation", "eval"))),
        "two test parts": lambda: shutil.copytree(root / "test", root / "val"),
        "link loop": lambda: (inner / "loop").symlink_to(".."),
        "link out": lambda: (inner / "9.png").symlink_to(case.root / "outside.txt"),
        "link within": lambda: (inner / "9.png").symlink_to(inner / "0.png"),
        "broken link": lambda: (inner / "9.png").symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(inner / "9.png"),
        "closed folder": lambda: inner.chmod(0),
        "two formats": lambda: picture(inner / "0.jpg", format="jpeg"),
    }
    for mode in ("L", "LA", "P", "1", "I;16", "RGBA", "CMYK", "F", "I"):
        fmt = "tiff" if mode in ("CMYK", "F", "I") else "png"
        ways[f"mode {mode}"] = lambda mode=mode, fmt=fmt: Image.new(mode, (8, 8)).save(inner / f"9.{fmt}", fmt)
    for size in ((1, 1), (1, 300), (300, 1), (7, 9), (200, 200)):
        ways[f"size {size}"] = lambda size=size: Image.new("RGB", size).save(inner / "9.png")
    for kind in ("webp", "bmp", "gif", "ppm", "ico", "jpeg"):
        ways[f"format {kind}"] = lambda kind=kind: picture(inner / f"9.{kind}", format=kind)
    for turn in (6, 0, 99):
        exif = Image.Exif()
        exif[0x0112] = turn
        short = exif.tobytes()
        text = short.replace(b"\x12\x01\x03\0", b"\x12\x01\x02\0").replace(b"\x01\x12\0\x03", b"\x01\x12\0\x02")
        for kind, data in (("number", short), ("text", text)):
            ways[f"EXIF orientation {turn} as {kind}"] = lambda d=data: picture(inner / "9.jpg", format="jpeg", exif=d)
    way = rng.choice(sorted(ways))
    ways[way]()
    case.how.append(f"photos/{inner.relative_to(root)}: {way}")
    return None


def place(case: Case, rng: Random) -> None:
    """Another place for what is written, or for what is read."""
    out = next((i + 1 for i, w in enumerate(case.argv[:-1]) if w in ("--out", "-o")), 0)
    if case.command.startswith("data ") and case.argv[3:4] and case.argv[3].startswith("new"):
        out = 3
    there = {name for name in case.inputs if os.path.lexists(case.work / name)}  # an earlier change may have moved it
    inputs = [i for i, w in enumerate(case.argv) if w.rstrip("/") in there and i != out]
    if not out or case.argv[out] in case.inputs or (inputs and rng.random() < 0.3):
        return _move_input(case, inputs, rng)
    ending = os.path.splitext(case.argv[out])[1]
    odd = rng.choice([*NAMES, "x" * 300, "new/", "./new", "~", "a/b/c/d", "-new", "..."])
    way = pick(rng, "odd odd read-only file full link nowhere dot fifo device below exists")
    new = {
        "odd": odd + ending,
        "read-only": "closed/new" + ending,
        "file": "there" + ending,
        "full": "there" + ending,
        "link": "link" + ending,
        "nowhere": "link" + ending,
        "dot": rng.choice((".", "..", "")),
        "fifo": "there" + ending,
        "device": rng.choice(("/dev/null", "/dev/full")),
        "below": "there/new" + ending,
        "exists": "there" + ending,
    }[way]
    at = case.work / new
    if way == "read-only":
        at.parent.mkdir()
        at.parent.chmod(0o555)
    elif way in ("file", "below"):
        (case.work / new.split("/")[0]).write_text("mine")
    elif way == "full":
        at.mkdir()
        (at / "mine.txt").write_text("mine")
    elif way == "link":
        (case.work / "target").mkdir()
        at.symlink_to("target")
        case.writes.add("target")
    elif way == "nowhere":
        at.symlink_to("target")
        case.writes.add("target")
    elif way == "fifo":
        os.mkfifo(at)
    elif way == "exists":
        at.mkdir()
    case.argv[out] = new
    if new not in (".", "..", "") and not new.startswith("/"):
        stem = new[: -len(ending)] if ending else new
        case.writes.update({new, stem, f"{stem}.json", f"SSL2/{Path(stem).name}.1@8-label.tfrecord"})
        case.writes.add(new.split("/")[0] if way == "odd" and not new.startswith((".", "/")) else new)
        if case.command == "data convert":
            case.writes |= {f"{stem}-test.tfrecord", f"{stem}-unlabel.tfrecord", str(Path(stem).parent / "SSL2")}
    elif new == ".":
        case.writes.add(".")
    case.results = []
    case.how.append(f"output {new!r}: {way}")
    return None


def _move_input(case: Case, inputs: list[int], rng: Random) -> None:
    if not inputs:
        return environment(case, rng)
    i = rng.choice(inputs)
    word = case.argv[i]
    old = word.rstrip("/")
    way = pick(rng, "link renamed absolute dots missing closed loop")
    ending = os.path.splitext(old)[1]
    new = {
        "link": "link" + ending,
        "renamed": rng.choice([name for name in NAMES if "/" not in name]) + ending,
        "absolute": str(case.work / old),
        "dots": f"./photos/../{old}" if "photos" in case.inputs else f"./{old}",
        "missing": old,
        "closed": old,
        "loop": old,
    }[way]
    if way == "link":
        (case.work / new).symlink_to(old)
    elif way == "renamed" and old != "photos":
        (case.work / old).rename(case.work / new)
        new = f"./{new}" if rng.random() < 0.5 else new
        case.alters |= {new} if old in case.alters else set()
    elif way == "closed":
        (case.work / old).chmod(0)
    elif way in ("missing", "loop"):
        (case.work / old).rename(case.work / "elsewhere")
        if way == "loop":
            (case.work / old).symlink_to(old)
    else:
        new = old if way == "renamed" else new
    case.argv[i] = new + word[len(old) :]
    case.results = []
    if case.command in ("report", "predict", "train"):  # they show the path, or it is another one
        case.expect = ""
    case.how.append(f"{old!r} is {way}, called {new!r}")
    return None


def streams(case: Case, rng: Random) -> None:
    """Standard output, error or input that is closed, full or broken."""
    fd = rng.choice((0, 1, 1, 1, 2, 2))
    case.streams[fd] = "closed" if fd == 0 else rng.choice(("closed", "full", "broken"))
    if fd and rng.random() < 0.15:
        case.streams[3 - fd] = case.streams[fd]


def environment(case: Case, rng: Random) -> None:
    """Variables with unusual values."""
    folder = str(case.root)
    pool: list[dict[str, str | None]] = [
        *({"RANK": v} for v in ("x", "", "-1", "0", "7")),
        *({"WORLD_SIZE": v} for v in ("x", "", "0", "-1", "1", "1.5")),
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "3", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"},
        *({"COLUMNS": v} for v in ("1", "0", "x", "100000", "-5")),
        *({"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": v} for v in ("ascii", "latin-1")),
        {"LANG": "C", "LC_ALL": "C"},
        {"PYTHONUNBUFFERED": "1"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
        {"HOME": None, "XDG_CACHE_HOME": None},
        {"HOME": f"{folder}/outside.txt", "XDG_CACHE_HOME": None},
        {"XDG_CACHE_HOME": f"{folder}/outside.txt"},
        {"XDG_CACHE_HOME": ""},
        {"XDG_CACHE_HOME": "relative"},
        {"ML_DATA": ""},
        {"ML_DATA": f"{folder}/outside.txt"},
        {"ML_DATA": "/dev/null"},
        {"TMPDIR": f"{folder}/missing"},
        {"TMPDIR": f"{folder}/outside.txt"},
        {"CUDA_VISIBLE_DEVICES": "x"},
        {"SOURCE_DATE_EPOCH": "x"},
    ]
    for key, value in rng.choice(pool).items():
        if value is None:
            case.env.pop(key, None)
        else:
            case.env[key] = value
    if case.env.get("XDG_CACHE_HOME") in ("relative", ""):
        case.writes.add("relative")
    if "XDG_CACHE_HOME" not in case.env or not case.env["XDG_CACHE_HOME"]:
        case.writes.add("../home/.cache")


def folder(case: Case, rng: Random) -> None:
    """A working folder that was removed, or that cannot be written."""
    if rng.random() < 0.3:
        case.folder_gone = True
        case.how.append("mkdir gone; cd gone; rmdir ../gone")
    else:
        case.work.chmod(0o555)
        case.how.append("chmod 555 .")
    case.results, case.expect = [], "" if case.folder_gone else case.expect


def full(case: Case, rng: Random) -> None:
    """No file may grow beyond some bytes, as on a full disk."""
    size = rng.choice((0, 100, 1000, 4000, 20000))
    case.limits[resource.RLIMIT_FSIZE] = size
    case.how.append(f"no file may have more than {size} bytes (RLIMIT_FSIZE)")


def stop(case: Case, rng: Random) -> None:
    """A signal right before some file is touched."""
    which = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL))
    case.signal = which, int(2 ** rng.uniform(0, 8))


CHANGES = [
    Change(3, place),  # first: others spoil what lies there
    Change(6, oddity),
    Change(10, damage),
    Change(2, exchange),
    Change(5, options),
    Change(4, words),
    Change(1.5, full),
    Change(2, streams),
    Change(2, environment),
    Change(0.7, stop),
    Change(0.7, folder),  # last: nothing can be made in it any more
]
