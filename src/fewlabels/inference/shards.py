"""Which pictures a shard has, and the manifest that says so, with the model and the options."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels import nets
from fewlabels.data.blobs import Member
from fewlabels.inference.model import Predictor
from fewlabels.inference.predict import Picture
from fewlabels.inference.tables import Form
from fewlabels.runtime.regular import read_text

FORMAT = 1

OWN = ("shard", "own", "own_digest", "temperature")
"""What the manifests of a folder need not have in common; temperatures are nearly the same."""


class Shard(NamedTuple):
    number: int
    """1 .. of"""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """How the names of its files begin."""
        return f"shard-{self.number:0{len(str(self.of))}}-of-{self.of}"

    def has(self, relative: str) -> bool:
        """Whether a picture is of this shard: the first 8 bytes of the SHA-256 of its relative path, as a big-endian
        number, leave ``number - 1`` when divided by `of`."""
        return int.from_bytes(hashlib.sha256(os.fsencode(relative)).digest()[:8], "big") % self.of == self.number - 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """``I/N``. Raises ValueError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if match is None:
            raise ValueError(f"--shard must be I/N, such as 1/8, got {text!r}")
        shard = cls(int(match[1]), int(match[2]))
        if not shard.of:
            raise ValueError(f"--shard must be of at least 1 shard, got {text!r}")
        if not 1 <= shard.number <= shard.of:
            raise ValueError(f"--shard counts from 1: it must be 1/{shard.of} to {shard.of}/{shard.of}, got {text!r}")
        return shard


@dataclass
class Digest:
    """Of a set of paths, in any order: how many, and the sum of their SHA-256 modulo 2 ** 256."""

    count: int = 0
    total: int = 0

    def add(self, path: str) -> None:
        self.count += 1
        self.total = (self.total + int.from_bytes(hashlib.sha256(os.fsencode(path)).digest(), "big")) % (1 << 256)

    def __str__(self) -> str:
        return f"{self.total:064x}"


@dataclass(frozen=True)
class Chosen:
    """The pictures of a shard."""

    shard: Shard
    own: Sequence[str]
    """Their paths, sorted."""
    members: Mapping[str, Member]
    """Those of them that lie in tar files."""
    every: Digest
    """Of the pictures of all shards."""
    named: Digest
    """The same with the relative paths, by which they are divided."""

    def file(self, path: str) -> Path | Member:
        """What is to be opened."""
        return self.members.get(path) or Path(path)


def choose(pictures: Iterable[Picture], shard: Shard) -> Chosen:
    """The pictures of a shard. Raises ValueError where there is none at all, or one twice."""
    every, own, named = list[str](), list[str](), Digest()
    members: dict[str, Member] = {}
    for picture in pictures:
        path = str(picture.file)
        every.append(path)
        named.add(f"{path}\0{picture.relative}")
        if shard.has(picture.relative):
            own.append(path)
            if isinstance(picture.file, Member):
                members[path] = picture.file
    every.sort()
    digest = Digest()
    if twice := next((path for path, after in pairwise(every) if path == after), None):
        raise ValueError(f"{twice} is named twice, and each picture must stand in one part")
    for path in every:
        digest.add(path)
    return Chosen(shard, sorted(own), members, digest, named)


def facts_of(model: Predictor, form: Form, chosen: Chosen, part_rows: int, temperature: float | None) -> dict[str, Any]:
    """What a manifest says."""
    own, state = Digest(), model.model.state_dict()
    for path in chosen.own:
        own.add(path)
    return {
        "format": FORMAT,
        "shard": chosen.shard.number,
        "shards": chosen.shard.of,
        "part_rows": part_rows,
        "pictures": chosen.every.count,
        "digest": str(chosen.every),
        "named": str(chosen.named),
        "own": own.count,
        "own_digest": str(own),
        "step": model.step,
        "weights": model.weights,
        "model": nets.digest(state, state),
        "classes": list(form.classes),
        "probabilities": form.probabilities,
        "top": form.top,
        "threshold": form.threshold,
        "temperature": temperature,
        "reading": list(model.how),
    }


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The manifests in a folder, by shard. Raises ValueError for one that is none."""
    found = []
    for path in sorted(folder.glob("shard-*-of-*.json")):
        try:
            facts = json.loads(read_text(path))
            shard = Shard(int(facts["shard"]), int(facts["shards"]))
            if facts["format"] != FORMAT or path.name != f"{shard.name}.json" or facts["part_rows"] < 1:
                raise ValueError
            Form(tuple(facts["classes"]), facts["probabilities"], facts["top"], facts["threshold"])
            int(facts["pictures"]), int(facts["own"]), facts["own_digest"], facts["temperature"], facts["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no manifest of a shard: name another folder") from None
        found.append(facts)
    return sorted(found, key=lambda facts: int(facts["shard"]))


NAMES = {
    "shards": "the number of shards",
    "part_rows": "--part-rows",
    "step": "the step of the checkpoint",
    "weights": "--weights",
    "probabilities": "--probabilities",
    "top": "--top",
    "threshold": "--threshold",
    "reading": "how pictures are read (--max-pixels)",
}


def difference(now: dict[str, Any], was: dict[str, Any]) -> str | None:
    """What two manifests of a folder must have in common, and have not: a clause."""
    keys = [key for key in now if key not in OWN and now[key] != was.get(key)]
    if {"pictures", "digest"} & set(keys):
        same = now["pictures"] == was["pictures"]
        counts = f"{now['pictures']} as then" if same else f"{now['pictures']} now, and {was['pictures']} then"
        return f"the list of pictures is another one ({counts})"
    if "named" in keys:
        return "the same pictures are named by other folders, and so divided otherwise"
    for key in keys:
        if key in NAMES:
            return f"{NAMES[key]} is {now[key]} now, and was {was.get(key)}"
        return f"the {key} {'are others' if key == 'classes' else 'is another one'}"
    a, b = now["temperature"], was["temperature"]
    if (a is None) != (b is None):
        return f"confidences are {'calibrated now, and were not' if b is None else 'not calibrated now, and were'}"
    if a is not None and not math.isclose(a, b, rel_tol=1e-3):
        return f"the temperature is {a:.4f} now, and was {b:.4f}"
    return None
