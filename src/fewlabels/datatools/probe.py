"""`fewlabels data probe`: which problem the data have."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fewlabels.config.choice import TINY
from fewlabels.config.settings import Data, Train
from fewlabels.data.arrays import in_channels
from fewlabels.data.gather import make_store
from fewlabels.data.resized import taken
from fewlabels.data.source import Progress, Source
from fewlabels.data.split import Split
from fewlabels.datatools.estimators import Array, Ints, cross_validated, whiten
from fewlabels.datatools.features import learned_features, patch_features
from fewlabels.datatools.findings import Findings, examine
from fewlabels.datatools.twins import sketches, twins
from fewlabels.inference.model import PIXELS_PER_BATCH, load_predictor
from fewlabels.nets import learned
from fewlabels.runs.run import Run
from fewlabels.runtime.rng import philox
from fewlabels.runtime.words import first

MOST_LABELED = 2000
"""Labeled pictures that are compared; more add no more than time."""

MOST_TWINS = 60_000
"""Pictures of a part that are compared with those of others."""

PER_CLASS = 2
"""Validation pictures of each class, on average, from which on a run's net can be tested with them."""

REMEDIES = {
    "long tail": ("imbalance", "adjust"),
    "missing not at random": ("missing", "cadr"),
    "strangers": ("openset", "energy"),
}
"""Option of `fewlabels train` and its word, by problem."""


Kind: TypeAlias = Literal["auto", "learned", "patches"]
"""Features: of a learned net, distances to common patches, or those of the two that know the labels better."""

IN_WORDS = {
    "run": "those of the run's net",
    "learned": f"those of {learned.NETS[0].name}, a net that has learned from other photographs",
    "patches": "patches that are common in these pictures, found without labels",
}


class Reference(NamedTuple):
    """Labeled pictures that nothing was trained on."""

    rows: Ints
    labels: Ints
    kind: str
    """"labeled" or "validation"."""


def reference_of(split: Split, source: Source, run: Run | None) -> Reference:
    """Validation pictures where a run has enough of them: its net has learned the labeled ones by heart. Else the
    labeled ones, with features that no label has shaped."""
    rows = np.setdiff1d(split.validation, split.labeled)
    if run is not None and len(rows) >= PER_CLASS * len(source.classes):
        return Reference(rows, source.labels[rows], "validation")
    rows, at = np.unique(split.labeled, return_index=True)
    return Reference(rows, split.targets[at], "labeled")


def can_look(side: int) -> bool:
    """Whether the learned net is at hand and pictures whose shorter side is `side` pixels are something for it."""
    return side >= TINY and learned.at_hand(learned.NETS[0]) is not None


def kinds_of(features: Kind, side: int) -> tuple[str, ...]:
    """Which features come into question for pictures whose shorter side is `side` pixels, the best guess first.

    Raises ValueError where those that were asked for cannot be had.
    """
    if features == "learned" and learned.at_hand(learned.NETS[0]) is None:
        raise ValueError(
            f"features learned need the weights of {learned.SMALLEST}, which are not here: {learned.TO_GET}"
        )
    if features != "auto":
        return (features,)
    return ("learned", "patches") if can_look(side) else ("patches",)


def better(seen: dict[str, Array], labels: Ints, classes: int, random: np.random.Generator) -> str:
    """The first kind of features, or one by which the classes of labeled pictures are told apart better.

    Better by a standard error at least, so that what differs by chance is not chosen by it: features in which these
    labeled pictures happen to look alike would make others look strange.

    Args:
        seen: features of the labeled pictures by kind, ``[n, D]``, as `whiten` gives them.
        labels: of them, int64 ``[n]``.
    """
    best, right = "", -1.0
    for kind, z in seen.items():
        told = cross_validated(z, labels, classes, random) if len(seen) > 1 else 0.0
        if told > right + (np.sqrt(told * (1 - told) / len(labels)) if best else 0):
            best, right = kind, told
    return best


def probe(
    name: str,
    source: Source,
    split: Split,
    *,
    run: Run | None = None,
    features: Kind = "auto",
    pictures: int = 3000,
    seed: int = 1,
    look_for_twins: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `data probe --json` prints; plain values.

    Args:
        run: a finished run on these data, whose net is used if the run has validation pictures and `features` is auto.
        features: which ones; auto: of the learned net where `can_look`, unless `better` finds patches to be.
        pictures: unlabeled pictures to look at, at most.
        seed: of the choice of them, of the folds and of the intervals.

    Raises ValueError where there are too few pictures to say anything, or no weights of a net that was asked for.
    """
    start, random = perf_counter(), philox(seed, "probe")
    run = run if features == "auto" else None
    told = reference_of(split, source, run)
    if len(told.rows) > MOST_LABELED:
        some = np.sort(random.choice(len(told.rows), MOST_LABELED, replace=False))
        told = told._replace(rows=told.rows[some], labels=told.labels[some])
    rest = np.setdiff1d(split.unlabeled, np.concatenate([split.labeled, split.validation]))
    pool = np.sort(random.choice(rest, min(pictures, len(rest)), replace=False))
    rows = np.concatenate([told.rows, pool])
    n, classes = len(told.rows), len(source.classes)
    by_kind: dict[str, Array] = {}
    if run is not None and told.kind == "validation":
        by_kind["run"] = net_features(run, source, rows, device)
    for kind in () if by_kind else kinds_of(features, min(source.shape[1:])):
        if kind == "learned":
            found = learned_features(source.name, source.images, rows, device=device, progress=progress)
        else:
            found = patch_features(source.images, rows, seed=seed, progress=progress)
        by_kind[kind] = found
    z = {kind: whiten(each, max(80, classes)) for kind, each in by_kind.items()}
    taken_kind = better({kind: each[:n] for kind, each in z.items()}, told.labels, classes, random)
    both = z[taken_kind]
    numbers = examine(both[:n], told.labels, both[n:], np.bincount(split.targets, minlength=classes), random)
    result = as_values(name, source, numbers, told, len(rest), IN_WORDS[taken_kind])
    result["notes"] = notes_of(run, told, split, source)
    result["twins"] = find_twins(source, split) if look_for_twins else None
    result["seconds"] = round(perf_counter() - start, 1)
    return result


def net_features(run: Run, source: Source, rows: Ints, device: torch.device | str) -> NDArray[np.float32]:
    """Features ``[n, D]`` that the averaged net of a run has of the pictures at `rows`."""
    predictor = load_predictor(run, device=device)
    _, height, width = predictor.shape
    size, out = max(1, PIXELS_PER_BATCH // (height * width)), []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            images = in_channels(taken(source.images, rows[start : start + size]), predictor.shape[0])
            store = make_store(images, predictor.device, "host")
            x = predictor.normalize(store.take(torch.arange(len(images))))
            out.append(predictor.model.features(x).cpu().numpy())
    return np.concatenate(out)


def notes_of(run: Run | None, told: Reference, split: Split, source: Source) -> list[str]:
    notes = []
    if run is not None and told.kind == "labeled":
        notes.append(
            "the run has too few validation pictures to test its net with (it has learned the labeled ones by heart), "
            "so its net is not used; --data NAME.SEED@SIZE-VALID with a VALID of "
            f"{PER_CLASS * len(source.classes)} or more would do"
        )
    if told.kind == "validation" and run is not None:
        notes.append(
            "the net has seen the unlabeled pictures, and not the validation pictures that they are compared with: "
            "strangers may look more familiar than they are"
        )
    without = [source.classes[c] for c in np.flatnonzero(np.array(split.class_counts) == 0)]
    if without:
        notes.append(f"there is no label of {first(without)}: such pictures count as strangers")
    return notes


def as_values(name: str, source: Source, found: Findings, told: Reference, rest: int, words: str) -> dict[str, Any]:
    """`Findings` as plain values; shares are fractions."""
    by_class = zip(source.classes, found.counts, found.labeled, found.unlabeled, found.low, found.high, strict=True)
    strangers = found.strangers
    options = {problem: remedy(problem, strangers.share) for problem in found.named}
    return {
        "name": name,
        "classes": {
            c: {"labels": int(n), "labeled": _r(p), "unlabeled": _r(q), "low": _r(low), "high": _r(high)}
            for c, n, p, q, low, high in by_class
        },
        "labels": int(found.counts.sum()),
        "unlabeled": rest,
        "looked_at": {told.kind: found.reference, "unlabeled": found.pool},
        "features": words,
        "accuracy": _r(found.accuracy),
        "shares": {
            "p": _r(found.shift_p),
            "distance": _r(found.shift),
            "differ": _r(found.differ[0]),
            "low": _r(found.differ[1]),
            "high": _r(found.differ[2]),
        },
        "tail": {"p": _r(found.uneven_p), "low": _r(found.ratio[0]), "high": _r(found.ratio[1])},
        "strangers": {
            "z": _r(strangers.z),
            "share": _r(strangers.share),
            "low": _r(strangers.low),
            "high": _r(strangers.high),
        },
        "named": list(found.named),
        "unclear": found.unclear,
        "options": {problem: option for problem, option in options.items() if option},
    }


def _r(x: float) -> float:
    return float(f"{x:.4g}")


def remedy(problem: str, strangers: float = 0.0) -> str:
    """What to add to `fewlabels train`, such as ``--missing cadr``; "" where this version has nothing.

    strangers: share of the unlabeled pictures that are set aside for "strangers". The part's own rule is careful with
    clean data, and these are known not to be.
    """
    option, word = REMEDIES.get(problem, ("", ""))
    algorithm = type(Train().algorithm)
    here = any(f.name == option for cls in (Train, algorithm) for f in fields(cls))
    if not here:
        return ""
    share = min(int(20 * strangers) / 20, 0.9)
    named = f" --{option}.by percentile --{option}.share {share:g}" if option == "openset" and share > 0 else ""
    return f"--{option} {word}{named}"


def find_twins(source: Source, split: Split) -> list[dict[str, Any]]:
    """Of each two parts, how many pictures of the first are in the second, pixel for pixel or nearly."""
    rows = {
        "labeled": np.unique(split.labeled),
        "validation": np.setdiff1d(split.validation, split.labeled),
        "unlabeled": np.setdiff1d(split.unlabeled, np.concatenate([split.labeled, split.validation])),
    }
    parts = {"labeled": rows["labeled"], "validation": rows["validation"], "test": np.arange(len(source.test_labels))}
    parts["unlabeled"] = rows["unlabeled"]
    parts = {part: _thinned(each) for part, each in parts.items() if len(each)}
    drawn = {p: sketches(source.test_images if p == "test" else source.images, each) for p, each in parts.items()}
    out = []
    for one, other in combinations(parts, 2):
        pairs = list(twins(drawn[one], drawn[other]))
        out.append(
            {
                "first": one,
                "second": other,
                "compared": [len(parts[one]), len(parts[other])],
                "same": sum(pair.same for pair in pairs),
                "nearly": sum(not pair.same for pair in pairs),
                "pairs": [
                    [_where(one, parts[one][p.first]), _where(other, parts[other][p.second]), round(p.likeness, 4)]
                    for p in pairs
                ],
            }
        )
    return out


def _thinned(rows: Ints) -> Ints:
    if len(rows) <= MOST_TWINS:
        return rows
    return np.asarray(rows[np.linspace(0, len(rows) - 1, MOST_TWINS).astype(int)], np.int64)


def _where(part: str, row: np.int64) -> str:
    return f"{'test' if part == 'test' else 'train'} {row}"


def run_in(name: str, path: Path) -> Run | None:
    """The run folder that is meant, or None where `name` are data."""
    return Run(path) if path.is_dir() and (path / "config.json").exists() else None


def only_name(data: Data) -> bool:
    """Whether nothing is said of the data but their name and root."""
    return data == Data(data.name, root=data.root)
