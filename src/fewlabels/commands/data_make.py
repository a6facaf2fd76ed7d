"""fewlabels data filter, crop, rename, convert: new folders and files from old ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fewlabels.commands.data_look import load_split
from fewlabels.commands.options import UsageError
from fewlabels.config.settings import Data
from fewlabels.data import tfrecord
from fewlabels.data.contents import part_of
from fewlabels.data.pictures import MAX_PIXELS, Decoding, Fit
from fewlabels.data.tarset import holds_tars
from fewlabels.data.unpacked import is_zip
from fewlabels.datatools import convert as converting
from fewlabels.datatools import folders, packing
from fewlabels.datatools import prepare as preparing
from fewlabels.datatools.layout import Layout, Step, check_absent, check_free, fill, layout, write_new
from fewlabels.runtime.regular import expanded, real
from fewlabels.runtime.words import first
from fewlabels.training.log import bar

From = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FROM")]
To = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TO")]


@dataclass(frozen=True, kw_only=True)
class _New:
    """Options of the commands that write."""

    dry_run: bool = False
    """Say what would be written, and write nothing."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Filter(_New):
    """Copy a folder of pictures, or a TFRecord file, with some of its classes only."""

    source: From
    """Folder with labeled/CLASS/, unlabeled/ and test/CLASS/, or with CLASS/; or FILE.tfrecord."""
    to: To
    """New folder, or FILE.tfrecord."""
    classes: str
    """Classes to keep, with commas between."""
    parts: str = "labeled,validation,test"
    """Parts of a folder from which the other classes are left out, with commas between; the others stay whole."""
    remap: bool = False
    """Number the classes of a TFRecord file anew, in the order of --classes."""


@dataclass(frozen=True, kw_only=True)
class Crop(_New):
    """Copy a folder of pictures as squares of one size."""

    source: From
    """Folder of pictures."""
    to: To
    """New folder."""
    size: int
    """Side in pixels."""
    how: Fit = "pad"
    """pad: the whole picture, resized, on black; crop: resized until it covers the square, then its centre;
    centre: the centre without resizing."""
    format: Literal["png", "jpg"] = "png"
    """Files to write."""
    bits: int = 16
    """Bits that grey pictures of 16 bits use; the highest 8 of them are kept."""
    max_pixels: int = MAX_PIXELS
    """Pixels of a picture that is still read."""
    skip_corrupt: bool = False
    """Leave out pictures that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Rename(_New):
    """Name pictures NUMBER_CLASS: copy them to a new folder, or in place with a log that undoes it."""

    source: From
    """Folder of pictures; with --undo the log."""
    to: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TO]")] = None
    """New folder."""
    index: int = 0
    """First number."""
    in_place: bool = False
    """Rename the files themselves and write FROM-renamed.json beside the folder."""
    undo: bool = False
    """Give the files of the log their old names back."""


@dataclass(frozen=True, kw_only=True)
class Convert(_New):
    """Turn a data name, an .npz file, TFRecord or tar files into a folder of pictures, or a folder into these; or a
    folder into a new one of small JPEG files, ready to be read fast."""

    source: From
    """NAME.SEED@SIZE, FILE.npz, FILE.tfrecord, FILE.tar, or a folder of pictures or tar files."""
    to: To
    """New folder, FILE.npz or FILE.tfrecord."""
    root: str | None = None
    """Folder of the named data sets; default `$ML_DATA`, else the platform's cache folder."""
    image_size: int | None = None
    """Side in pixels of the arrays; default: chosen from the pictures. From a folder to a new folder: the shorter side
    of each picture at most, in JPEG files of quality 90."""
    tar: int | None = None
    """From a folder of pictures to a new one of tar files in WebDataset's form: so many pictures in each."""
    bits: int = 16
    """Bits that grey pictures of 16 bits use; the highest 8 of them are kept."""
    max_pixels: int = MAX_PIXELS
    """Pixels of a picture that is still read."""
    skip_corrupt: bool = False
    """Leave out pictures that cannot be read."""


def run_filter(command: Filter) -> int:
    if command.source.lower().endswith(".tfrecord"):
        return _filter_records(command)
    found = layout(command.source)
    if command.remap:
        raise UsageError("--remap is for TFRecord files; the classes of a folder have names, not numbers")
    parts = _words(command.parts)
    for part in parts:
        if part not in ("labeled", "unlabeled", "validation", "test"):
            raise UsageError(f"--parts may hold labeled, unlabeled, validation and test, got {part!r}")
    classes = _words(command.classes)
    if not classes:
        raise UsageError("--classes needs at least one class")
    steps = folders.select(found, classes, parts)
    to = _new_folder(command.to, found.root)
    if not command.dry_run:
        with bar("copying") as report:
            fill(to, steps, progress=report)
    free = sum(p.label is None and p.part in parts for p in found.pictures)
    notes = [f"{free} pictures lie in no class folder and stayed"] if free else []
    return _done(command, to, _pairs(steps), left_out=len(found.pictures) - len(steps), notes=notes)


def _filter_records(command: Filter) -> int:
    words = _words(command.classes)
    if not words or not all(word.isdecimal() for word in words):
        raise UsageError(f"a TFRecord file has classes by number, --classes is {command.classes!r}")
    origin, to = expanded(command.source), expanded(command.to)
    if to.suffix.lower() != ".tfrecord":
        raise UsageError(f"what a TFRecord file becomes must end in .tfrecord, got {to.name}")
    kept, total = converting.filter_records(origin, [int(word) for word in words], remap=command.remap)
    check_free(to)
    if not command.dry_run:
        write_new(to, partial(tfrecord.write, examples=kept))
    return _done(command, to, [(str(origin), to.name)] * len(kept), left_out=total - len(kept))


def run_crop(command: Crop) -> int:
    if not 4 <= command.size <= 4096:
        raise UsageError(f"--size must be 4 to 4096, got {command.size}")
    found = layout(command.source)
    to = _new_folder(command.to, found.root)
    steps = folders.crop_steps(found, f".{command.format}")
    corrupt: dict[str, str] = {}
    if not command.dry_run:
        with bar("cropping") as report:
            make = partial(folders.crop, size=command.size, how=_decoding(command, command.how))
            corrupt = fill(to, steps, make, skip_corrupt=command.skip_corrupt, progress=report)
    notes = [f"{path} cannot be read and was left out: {reason}" for path, reason in corrupt.items()]
    kept = [step for step in steps if str(step.path) not in corrupt]
    return _done(command, to, _pairs(kept), left_out=len(corrupt), notes=notes)


def run_rename(command: Rename) -> int:
    if command.undo:
        log = expanded(command.source)
        return _done(command, log.parent, folders.undo(log, dry_run=command.dry_run), verb="renamed")
    if command.in_place == (command.to is not None):
        raise UsageError("rename needs a new folder after the old one, or --in-place, and not both")
    if command.index < 0:
        raise UsageError(f"--index must be at least 0, got {command.index}")
    if command.in_place and is_zip(expanded(command.source)):
        raise UsageError(f"{command.source} is an archive, which stays as it is: name a new folder after it")
    found = layout(command.source)
    steps = folders.numbered(found, command.index)
    if command.to is None:
        root = real(found.root)
        log = root.with_name(f"{root.name}-renamed.json")
        folders.rename_in_place(found.root, steps, log, dry_run=command.dry_run)
        notes = [f"`fewlabels data rename --undo {log}` undoes it"]
        return _done(command, found.root, _pairs(steps), notes=notes, verb="renamed")
    to = _new_folder(command.to, found.root)
    if not command.dry_run:
        with bar("copying") as report:
            fill(to, steps, progress=report)
    return _done(command, to, _pairs(steps))


def run_convert(command: Convert) -> int:
    """One side is a folder; the other says by its ending what it is."""
    origin, to = expanded(command.source), expanded(command.to)
    if to.suffix.lower() in (".npz", ".tfrecord"):
        if command.tar is not None:
            raise UsageError(f"--tar makes a folder of tar files, and {to.name} is called as a file is")
        return _from_folder(command, layout(origin, validation=False), to)
    if command.tar is not None:
        return _pack(command, origin, to)
    notes: Sequence[str] = ()
    if origin.suffix.lower() == ".npz":
        source = converting.read_npz(origin)
        new, notes = converting.from_source(source), source.notes
    elif origin.suffix.lower() == ".tfrecord":
        new = converting.from_records(origin)
    elif holds_tars(origin):
        new = converting.from_tars(origin)
    elif origin.is_dir() and command.image_size is not None:
        return _prepare(command, origin, to)
    elif origin.is_dir() or is_zip(origin):
        raise UsageError(
            f"{origin} holds pictures; what it becomes must end in .npz or .tfrecord, got {to.name}; a folder of them "
            "becomes a folder of smaller ones with --image-size, and one of tar files with --tar"
        )
    else:
        source, split = load_split(Data(command.source, root=command.root, image_size=command.image_size))
        new, notes = converting.from_source(source, split), source.notes
    check_free(to)
    if not command.dry_run:
        with bar("writing") as report:
            converting.write_folder(to, new, report)
    return _done(command, to, [(str(origin), n.to.as_posix()) for n in new], notes=notes)


def _prepare(command: Convert, origin: Path, to: Path) -> int:
    side = command.image_size
    assert side is not None
    if not 4 <= side <= 4096:
        raise UsageError(f"--image-size must be 4 to 4096, got {side}")
    check_free(to, origin)
    if command.dry_run:
        return _done(command, to, [(str(origin / old), new) for old, new in preparing.plan(origin)])
    with bar("preparing") as report:
        found = preparing.prepare(
            origin, to, side, how=_decoding(command), skip_corrupt=command.skip_corrupt, progress=report
        )
    notes = [f"{path} cannot be read and was left out: {reason}" for path, reason in list(found.left_out.items())[:20]]
    if found.before:
        notes.append(f"{found.before:,} of them were there from an earlier start")
    notes.append(f"checksums: cd {to} && sha256sum -c {preparing.OWN}/{preparing.SUMS}")
    pairs = [(str(origin / one.origin), one.path) for one in found.pictures]
    return _done(command, to, pairs, left_out=len(found.left_out), notes=notes)


def _pack(command: Convert, origin: Path, to: Path) -> int:
    rows = command.tar
    assert rows is not None
    if rows < 1:
        raise UsageError(f"--tar must be at least 1, got {rows}")
    if command.image_size is not None or command.skip_corrupt:
        raise UsageError("--tar takes pictures as they are: neither --image-size nor --skip-corrupt go with it")
    found = layout(origin)
    check_free(to, found.root)
    notes: Sequence[str] = ()
    if not command.dry_run:
        with bar("packing") as report:
            notes = packing.write_tars(found, to, rows, _decoding(command), report)
    planned = packing.plan(found, rows)
    pairs = [(str(found.pictures[row].path), f"{tar}/{key}") for tar, some in planned.items() for key, row in some]
    told = f"--data {to}/ --data.classes {to / packing.CLASSES} trains on them with the names of the classes"
    return _done(command, to, pairs, notes=[*notes, told])


def _from_folder(command: Convert, found: Layout, to: Path) -> int:
    pairs = [(str(p.path), p.within.as_posix()) for p in found.pictures]
    notes: Sequence[str] = ()
    check_free(to)
    if to.suffix.lower() == ".npz":
        if not command.dry_run:
            with bar("reading") as report:
                source = converting.to_source(
                    found,
                    image_size=command.image_size,
                    skip_corrupt=command.skip_corrupt,
                    progress=report,
                    how=_decoding(command),
                )
            converting.write_npz(to, source)
            notes = source.notes
        return _done(command, to, pairs, notes=notes)
    records = converting.record_files(found, to)
    for path in records:
        check_absent(path)
    if not command.dry_run:
        with bar("writing") as report:
            notes = converting.write_records(records, report, _decoding(command))
    notes = [*notes, *(f"{path}: {len(rows):,} records" for path, rows in records.items())]
    classes = converting.labeled_classes(found)
    if any(name != str(number) for number, name in enumerate(classes)):
        notes.append(f"labels: {first([f'{number} = {name}' for number, name in enumerate(classes)], 20)}")
    return _done(command, to.parent, pairs, notes=notes)


def _decoding(command: Crop | Convert, fit: Fit = "crop") -> Decoding:
    if not 8 <= command.bits <= 16:
        raise UsageError(f"--bits must be 8 to 16, got {command.bits}")
    if command.max_pixels < 1:
        raise UsageError(f"--max-pixels must be at least 1, got {command.max_pixels}")
    return Decoding(fit, command.bits, command.max_pixels)


def _new_folder(text: str, root: Path) -> Path:
    to = expanded(text)
    check_free(to, root)
    return to


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [(str(step.path), step.to.as_posix()) for step in steps]


def _done(
    command: _New,
    to: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    left_out: int = 0,
    notes: Sequence[str] = (),
    verb: Literal["written", "renamed"] = "written",
) -> int:
    """Say what was done, or what would be; `pairs` are old and new names."""
    if command.json:
        print(
            json.dumps(
                {
                    "to": str(to),
                    "dry_run": command.dry_run,
                    "pictures": len(pairs),
                    "left_out": left_out,
                    "files": [list(pair) for pair in pairs],
                    "notes": list(notes),
                }
            )
        )
        return 0
    if command.dry_run:
        for old, new in pairs[:10]:
            print(f"{old} -> {new}")
        if len(pairs) > 10:
            print(f"... and {len(pairs) - 10} more")
    would = "would be " if command.dry_run else ""
    tops = Counter(new.split("/")[0] for _, new in pairs if "/" in new)
    parts = [f"{top} {n:,}" for top, n in tops.items() if part_of(top)]
    said = f" ({', '.join(parts)})" if parts else ""
    gone = f"; {left_out:,} left out" if left_out else ""
    where = f"to {to}" if verb == "written" else f"in {to}"
    print(f"{len(pairs):,} pictures {would}{verb} {where}{said}{gone}")
    for note in notes:
        print(note)
    return 0
