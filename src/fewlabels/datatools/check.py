"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fewlabels.data.folder import list_folder
from fewlabels.data.listing import alike, strangers
from fewlabels.data.names import DEFAULT_SEED
from fewlabels.data.pictures import About, Fit, Header, Unreadable, decode
from fewlabels.data.reading import common_size
from fewlabels.data.remarks import sentences
from fewlabels.data.rules import tenth
from fewlabels.data.source import Images, Progress, Source
from fewlabels.data.split import Split
from fewlabels.datatools.layout import in_order, layout
from fewlabels.runtime.words import first

Report = dict[str, Any]
"""What `data check --json` prints; plain values."""


HELD = ("test", "validation")
"""Parts that are measured on."""


class Seen(NamedTuple):
    """One image that was looked at."""

    where: str
    """Its path, or ``train ROW``, ``test ROW``."""
    parts: tuple[str, ...]
    """labeled, unlabeled, validation, test: those that it is in."""
    label: str | None
    shape: tuple[int, int]
    """(H, W)"""
    channels: int
    digest: bytes
    """Of the pixels and their shape: the same picture in PNG and BMP has one digest."""


def check_folder(root: Path | str, progress: Progress | None = None) -> Report:
    """Decode every picture of a folder (see `layout`) at its own size and report.

    Raises ValueError if there is no folder, no picture in it, or a link that leaves it.
    """
    found = layout(root)
    Image.init()

    abouts: dict[int, About] = {}

    def look(row: int) -> tuple[tuple[int, int], int, bytes] | str:
        about = About()
        try:
            pixels = decode(found.pictures[row].path, 3, None, about=about)
        except Unreadable as error:
            return error.reason
        if about:
            abouts[row] = about
        grey = bool((pixels == pixels[..., :1]).all())
        return pixels.shape[:2], 1 if grey else 3, digest(pixels)

    seen, corrupt = [], []
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        looks = pool.map(look, range(len(found.pictures)))
        for done, (picture, what) in enumerate(zip(found.pictures, looks, strict=True), 1):
            if isinstance(what, str):
                corrupt.append({"path": picture.within.as_posix(), "reason": what})
            else:
                seen.append(Seen(picture.within.as_posix(), (picture.part,), picture.label, *what))
            if progress is not None and (done % 64 == 0 or done == len(found.pictures)):
                progress(done, len(found.pictures))

    problems = [found.plain] * bool(found.plain)
    notes = [*found.notes, *sentences(abouts, [p.within.as_posix() for p in found.pictures])]
    loose = [p.within.as_posix() for p in found.pictures if p.label is None and p.part != "unlabeled"]
    if loose:
        problems.append(f"{len(loose)} pictures lie outside the class folders: {first(loose)}")
    if found.empty:
        problems.append(f"class folders without pictures: {first(found.empty)}")
    labeled = found.labeled_classes
    if len(labeled) < 2:
        problems.append(f"at least 2 classes of labeled pictures are needed, there are {len(labeled)}")
    new = in_order(p.label for p in found.pictures if p.part in HELD and p.label not in labeled)
    if new:
        which = "test" if any(p.part == "test" and p.label in new for p in found.pictures) else "validation"
        problems.append(f"the {which} part has classes that the labeled part has not: {strangers(new, labeled)}")
    if not problems:
        try:
            list_folder(root)
        except ValueError as error:  # whatever else stops a training
            problems.append(str(error))
    if not any(p.part in HELD for p in found.pictures):
        known = np.array([labeled.index(p.label) for p in found.pictures if p.part == "labeled" and p.label], np.int64)
        if held := len(tenth(known, DEFAULT_SEED)):
            notes.append(f"there are no test pictures: a training holds {held} labeled ones back (--data.valid)")
    if corrupt:
        problems.insert(0, f"{len(corrupt)} of {len(found.pictures)} pictures cannot be read")
    if found.others:
        names = first([p.relative_to(found.root).as_posix() for p in found.others])
        notes.append(f"{len(found.others)} files are no pictures: {names}")
    if pairs := alike(labeled):
        notes.append(f"classes that look like one are told apart: {first(pairs)}")
    return report(str(root), seen, labeled, corrupt=corrupt, problems=problems, notes=notes)


def check_source(name: str, source: Source, split: Split) -> Report:
    """Report on the images of a source in memory, in the parts that `split` makes of them."""
    parts: dict[int, list[str]] = defaultdict(list)
    for part, rows in (("labeled", split.labeled), ("validation", split.validation), ("unlabeled", split.unlabeled)):
        for row in rows.tolist():
            parts[row].append(part)
    height, width = source.shape[1:]
    labels = source.labels.copy()
    labels[split.labeled] = split.targets
    seen = []
    for row, members in sorted(parts.items()):
        label = source.classes[labels[row]] if labels[row] >= 0 else None
        image = source.images[row]
        seen.append(Seen(f"train {row}", tuple(members), label, (height, width), source.shape[0], digest(image)))
    for row, image in enumerate(source.test_images):
        label = source.classes[source.test_labels[row]]
        seen.append(Seen(f"test {row}", ("test",), label, (height, width), source.shape[0], digest(image)))
    return report(name, seen, source.classes, notes=[*source.notes, *split.remarks])


def digest(image: Images) -> bytes:
    """Hash of the pixels and shape of uint8 ``[H, W, C]``."""
    image = np.ascontiguousarray(image)
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()


def report(
    name: str,
    seen: Sequence[Seen],
    classes: Sequence[str],
    *,
    corrupt: Sequence[dict[str, str]] = (),
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Report:
    """Counts, twins and a suggestion; `problems` are what would stop a training."""
    parts = [part for part in ("labeled", "validation", "unlabeled", "test") if any(part in s.parts for s in seen)]
    shapes = Counter(s.shape for s in seen)
    twins = _twins(seen)
    mixed = [group for group in twins if len({s.label for s in group} - {None}) > 1]
    notes = list(notes)
    overlap = _overlap(seen, parts)
    labeled_in_test = overlap.get("labeled", {}).get("test", 0)
    if labeled_in_test:
        notes.append(f"{labeled_in_test} labeled images are in the test part too: the accuracy there is flattered")
    if mixed:
        notes.append(f"{len(mixed)} images appear with different classes: {_names(mixed[0])}")
    leak, chance = size_tells_class(seen)
    leaks = leak > chance + 0.1
    if leaks:
        notes.append(
            f"the size of an image alone tells its class in {100 * leak:.0f} % of the cases (the largest class is "
            f"{100 * chance:.0f} %), and resizing keeps that in its scale: cut out the centres instead"
        )
    return {
        "name": name,
        "classes": len(classes),
        "parts": {
            part: {
                "images": sum(part in s.parts for s in seen),
                "per_class": None if part == "unlabeled" else _histogram([s for s in seen if part in s.parts], classes),
            }
            for part in parts
        },
        "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in shapes.most_common()],
        "channels": {str(c): n for c, n in sorted(Counter(s.channels for s in seen).items())},
        "overlap": overlap,
        "duplicates": [[s.where for s in group] for group in twins],
        "conflicts": [[f"{s.where} ({s.label})" for s in group] for group in mixed],
        "corrupt": list(corrupt),
        "problems": list(problems),
        "notes": notes,
        "suggestion": suggestion(seen, centre=leaks),
    }


def _histogram(seen: Sequence[Seen], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(s.label for s in seen if s.label is not None)
    return {name: counts[name] for name in (*classes, *sorted(set(counts) - set(classes)))}


def _twins(seen: Sequence[Seen]) -> list[list[Seen]]:
    """Groups of images with the same pixels, but not an unlabeled copy of a labeled image: that is the protocol."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for s in seen:
        groups[s.digest].append(s)
    pair = [("labeled",), ("unlabeled",)]
    return [group for group in groups.values() if len(group) > 1 and sorted(s.parts for s in group) != pair]


def _names(group: Sequence[Seen]) -> str:
    return first([f"{s.where} ({s.label})" if s.label is not None else s.where for s in group])


def _overlap(seen: Sequence[Seen], parts: Sequence[str]) -> dict[str, dict[str, int]]:
    """``[a][b]``: images of part a whose pixels are in part b too; ``[a][a]``: those that have a twin in a.

    RealMix's scripts/check_split.py prints such a matrix of its four subsets.
    """
    inside = {part: Counter(s.digest for s in seen if part in s.parts) for part in parts}
    return {
        a: {b: sum(n for key, n in inside[a].items() if (n > 1 if a == b else key in inside[b])) for b in parts}
        for a in parts
    }


def size_tells_class(seen: Sequence[Seen]) -> tuple[float, float]:
    """Share of labeled images whose class is the commonest among the *others* of their size, and the share of the
    largest class."""
    known = [s for s in seen if s.label is not None and s.parts != ("unlabeled",)]
    if not known:
        return 0.0, 0.0
    by_shape: dict[tuple[int, int], Counter[str | None]] = defaultdict(Counter)
    for s in known:
        by_shape[s.shape][s.label] += 1
    right = 0
    for counts in by_shape.values():
        for label, n in counts.items():  # leaving the image itself out: n - 1 others of its class
            right += n * (n - 1 > max((m for other, m in counts.items() if other != label), default=0))
    return right / len(known), max(Counter(s.label for s in known).values()) / len(known)


def suggestion(seen: Sequence[Seen], *, centre: bool = False) -> dict[str, Any]:
    """An image size (None: as they are), how to bring the images to it, and a labeled batch size to begin with.

    The size is what reading the folder chooses by itself, with `centre` for the fit of that name. The batch is
    the papers' 64, or 32 for larger images, and not more than the labeled images.
    """
    if not seen:
        return {"image_size": None, "fit": "crop", "batch": None}
    how: Fit = "centre" if centre else "crop"
    sides, notes = common_size([Header(*s.shape, grey=s.channels == 1) for s in seen], None, how)
    size = sides[0] if notes else None
    longest = max(max(s.shape) for s in seen)
    labeled = sum("labeled" in s.parts for s in seen)
    batch = 64 if (size or longest) <= 48 else 32
    while batch > max(labeled, 1):
        batch //= 2
    return {"image_size": size, "fit": how, "batch": batch}
