"""fewlabels split"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fewlabels import files
from fewlabels.commands.options import UsageError, parse
from fewlabels.config import Data
from fewlabels.data.names import parse as parse_name
from fewlabels.training import load_source, resolve_data, split_of


@dataclass(frozen=True, kw_only=True)
class Command:
    """Show which images a data name labels, and write them down."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """`NAME.SEED@SIZE-VALID` or a folder."""
    root: str | None = None
    """Folder of the named data sets; default `$ML_DATA`, else the platform's cache folder."""
    rule: str = "fixmatch"
    """Who picks the labels: fixmatch or balanced."""
    labels: int | None = None
    """Labels to keep in all; for a folder, whose name cannot say it."""
    seed: int | None = None
    """Seed of the split."""
    valid: int | None = None
    """Validation images."""
    out: str | None = None
    """JSON file to write."""
    json: bool = False
    """Print JSON instead of a table."""


def main(args: list[str]) -> int:
    command = parse(Command, args, prog="fewlabels split")
    parse_name(command.name)
    data = resolve_data(
        Data(
            command.name,
            root=command.root,
            rule=command.rule,  # type: ignore[arg-type]
            labels=command.labels,
            seed=command.seed,
            valid=command.valid,
        )
    )
    out = Path(command.out).expanduser() if command.out else None
    if out and out.exists():
        raise UsageError(f"{out} exists; name another file")
    if out and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} to write {out.name} to")
    source = load_source(data)
    split = split_of(data, source)
    result = {
        "source": split.source,
        "rule": split.rule,
        "seed": split.seed,
        "labeled": split.labeled.tolist(),
        "validation": split.validation.tolist(),
        "unlabeled_count": len(split.unlabeled),
        "class_counts": dict(zip(source.classes, split.class_counts, strict=True)),
        "fingerprint": split.fingerprint,
    }
    if out:
        files.write_json(out, result)
    if command.json:
        print(json.dumps(result))
        return 0
    print(f"{command.name}: rule {split.rule}, seed {split.seed}")
    print(f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.validation)} validation images")
    for name, count in zip(source.classes, split.class_counts, strict=True):
        print(f"  {name}: {count}")
    for note in (*source.notes, *split.notes):
        print(note)
    print(f"fingerprint {split.fingerprint}")
    return 0
