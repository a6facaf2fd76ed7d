"""fewlabels data list, prepare, check, show: looking at data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from fewlabels import augment
from fewlabels.commands.options import UsageError
from fewlabels.commands.tables import print_whole, table
from fewlabels.config.resolve import load_source, resolve, resolve_data, split_of
from fewlabels.config.settings import Data, Train
from fewlabels.data.names import is_folder, stem
from fewlabels.data.source import Source
from fewlabels.data.split import Split
from fewlabels.data.tarset import holds_tars
from fewlabels.data.unpacked import is_zip
from fewlabels.datatools import check as checking
from fewlabels.datatools import listing
from fewlabels.datatools.layout import check_free, write_new
from fewlabels.report.sheet import sheet, views_of
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.screen import Screen
from fewlabels.runtime.urls import is_url
from fewlabels.runtime.words import first
from fewlabels.training.log import bar

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True, kw_only=True)
class List:
    """List the named data sets: images, classes, size, origin, and whether they are here."""

    root: str | None = None
    """Folder of the named data sets; default `$ML_DATA`, else the platform's cache folder."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Download a named data set where it is missing, read it, and compare it with what is known of it."""

    name: Name
    """Name of a data set."""
    root: str | None = None
    """Folder of the named data sets; default `$ML_DATA`, else the platform's cache folder."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Check(Data):
    """Count classes, sizes and channels; find duplicates, overlapping parts and broken files."""

    name: Name = field()
    """A data name or a folder; a folder without options is looked at file by file."""
    json: bool = field(default=False, kw_only=True)
    """Print JSON."""


@dataclass(frozen=True)
class Show(Data):
    """Draw a contact sheet: labeled images of each class, their weak and strong views, some unlabeled images."""

    name: Name = field()
    """A data name or a folder of pictures."""
    output: Annotated[str | None, tyro.conf.arg(aliases=("-o", "--out"))] = field(default=None, kw_only=True)
    """PNG file to write; default: NAME-sheet.png in the current folder, then -2, -3."""
    rows: int = field(default=20, kw_only=True)
    """Classes to show at most."""
    weak: str = field(default="auto", kw_only=True)
    """Weak view, as in `fewlabels train`; `auto`: what suits the data."""
    strong: str = field(default="auto", kw_only=True)
    """Strong view, as in `fewlabels train`; `auto`: what suits the data."""
    view_seed: int = field(default=1, kw_only=True)
    """Seed of the views and of the choice of unlabeled images."""
    json: bool = field(default=False, kw_only=True)
    """Print JSON."""


def run_list(command: List) -> int:
    rows = listing.known(_path(command.root))
    if command.json:
        print(json.dumps(rows))
        return 0
    cells = [
        [
            row["name"],
            f"{row['train']:,}",
            f"{row['test']:,}",
            str(row["classes"]),
            f"{row['height']} x {row['width']} {'grey' if row['channels'] == 1 else 'colour'}",
            "yes" if row["present"] else "no",
            row["origin"],
        ]
        for row in rows
    ]
    heads = ("name", "train", "test", "classes", "size", "here", "from")
    print_whole(Screen(), table(heads, cells, left=("name", "size", "here", "from")))
    print(f"named data sets lie in {rows[0]['root']} (--root or $ML_DATA name another folder)")
    return 0


def run_prepare(command: Prepare) -> int:
    with bar("reading") as report:
        result = listing.prepare(command.name, _path(command.root), report)
    if command.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['name']} is complete: {result['train']:,} training and {result['test']:,} test "
        f"images, {result['classes']} classes, {result['height']} x {result['width']} px"
    )
    for note in result["notes"]:
        print(note)
    return 0


def run_check(command: Check) -> int:
    plain = command.alone() == Data(command.name)
    if plain and is_folder(command.name) and _holds_pictures(command.name):
        with bar("looking at pictures") as report:
            result = checking.check_folder(command.name, report)
    else:
        result = checking.check_source(command.name, *load_split(command))
    if command.json:
        print(json.dumps(result))
    else:
        _print_report(result)
    return 1 if result["problems"] else 0


def _holds_pictures(name: str) -> bool:
    if is_url(name):
        return False
    path = expanded(name)
    return (path.is_dir() and not holds_tars(path)) or is_zip(path)


def _print_report(result: dict[str, Any]) -> None:
    out = Screen(soft_wrap=True)
    parts = result["parts"]
    out.print(f"{result['name']}: {result['classes']} classes")
    counts = [["all", *(f"{p['images']:,}" for p in parts.values())]]
    known = {part: p["per_class"] or {} for part, p in parts.items()}
    names = list(dict.fromkeys(name for histogram in known.values() for name in histogram))
    for name in names[:30]:
        counts.append([name, *(f"{known[part][name]:,}" if name in known[part] else "" for part in parts)])
    print_whole(out, table(["class", *parts], counts, left=("class",)))
    if len(names) > 30:
        out.print(f"and {len(names) - 30} more classes (--json has all)")
    sizes = [f"{s['height']} x {s['width']} ({s['images']:,})" for s in result["sizes"]]
    out.print(f"\nheight x width: {first(sizes, 6)}")
    kinds = {"1": "grey", "3": "colour"}
    out.print("channels: " + ", ".join(f"{kinds.get(c, c)} {n:,}" for c, n in result["channels"].items()))
    if len(parts) > 1 or result["duplicates"]:
        overlap = [[part, *(f"{row[other]:,}" for other in parts)] for part, row in result["overlap"].items()]
        out.print()
        print_whole(out, table(["same pixels in", *parts], overlap, left=("same pixels in",)))
    for group in result["duplicates"][:10]:
        out.print(f"  the same picture: {first(group, 4)}")
    if len(result["duplicates"]) > 10:
        out.print(f"  and {len(result['duplicates']) - 10} more (--json has all)")
    for bad in result["corrupt"][:10]:
        out.print(f"  cannot be read: {bad['path']} ({bad['reason']})")
    if len(result["corrupt"]) > 10:
        out.print(f"  and {len(result['corrupt']) - 10} more that cannot be read (--json has all)")
    for note in result["notes"]:
        out.print(f"note: {note}")
    for problem in result["problems"]:
        out.print(f"problem: {problem}")
    hint = result["suggestion"]
    if hint["batch"]:
        size = f"--data.image-size {hint['image_size']}" if hint["image_size"] else "images as large as they are"
        size += " --data.fit centre" if hint["fit"] == "centre" else ""
        out.print(f"suggestion: {size}, --batch {hint['batch']}")


def run_show(command: Show) -> int:
    if command.rows < 1:
        raise UsageError(f"--rows must be at least 1, got {command.rows}")
    if not 0 <= command.view_seed < 2**32:
        raise UsageError(f"--view-seed must lie in 0 .. {2**32 - 1}, got {command.view_seed}")
    target = expanded(command.output) if command.output else _free_file(command.name)
    if target.suffix.lower() != ".png":
        raise UsageError(f"the sheet is a PNG file, got {target.name}")
    check_free(target)
    source, split = load_split(command)
    config = resolve(Train(weak=command.weak, strong=command.strong), source)  # type: ignore[arg-type]
    weak, strong = views_of(config, source)
    moves = augment.moves_of(config.weak, config.shift or 0)
    c, h, w = source.shape
    kind = {1: "grey", 3: "colour"}.get(c, f"{c} channels")
    parts = {
        "labeled": len(split.labeled),
        "unlabeled": len(split.unlabeled),
        "validation": len(split.validation),
        "test": len(source.test_labels),
    }
    lines = [
        command.name,
        f"{', '.join(f'{n:,} {part}' for part, n in parts.items() if n)} images; {len(source.classes)} classes; "
        f"{h} x {w} px, {kind}",
        f"split: rule {split.rule}, seed {split.seed}; views: weak {config.weak}, shift {moves.shift} px; strong "
        f"{config.strong}",
    ]
    image = sheet(source, split, weak, strong, lines=lines, rows=command.rows, seed=command.view_seed)
    write_new(target, partial(image.save, format="PNG", optimize=True))
    if command.json:
        print(json.dumps({"file": str(target), "width": image.width, "height": image.height}))
    else:
        print(f"wrote {target} ({image.width} x {image.height} px)")
    return 0


def _free_file(name: str) -> Path:
    first = stem(name) or "data"
    target, n = Path(f"{first}-sheet.png"), 1
    while target.exists() or target.is_symlink():
        n += 1
        target = Path(f"{first}-sheet-{n}.png")
    return target


def load_split(command: Data) -> tuple[Source, Split]:
    data = resolve_data(command.alone())
    with bar("reading") as report:
        source = load_source(data, report)
    return source, split_of(data, source)


def _path(text: str | None) -> Path | None:
    return expanded(text) if text else None
