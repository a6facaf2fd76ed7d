"""Which images are labeled, unlabeled and validation: the published rules, as pure functions of the label
array.

Random numbers are numpy's legacy MT19937 (`np.random.RandomState`), because the published splits are its
draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.names import MAX_SEED
from fewlabels.data.source import Source, first

Indices: TypeAlias = NDArray[np.int64]
Rule: TypeAlias = Literal["fixmatch", "balanced"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a source's training images, by what they are for. Two splits are equal when they mean the
    same."""

    source: str
    rule: str
    seed: int
    labels: int | None
    """Number of labels that was asked for; None: all of them."""
    valid: int
    """Number of validation images."""
    labeled: Indices
    """int64, ascending."""
    targets: Indices
    """Labels of `labeled`, int64 of the same length."""
    validation: Indices
    """int64, in the rule's order."""
    unlabeled: Indices
    """int64, in training order; contains the labeled images unless they were taken out."""
    class_counts: tuple[int, ...]
    """Labeled images per class."""
    notes: tuple[str, ...] = ()
    """Sentences that the run prints; no part of the meaning."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the rule, the three index lists and the labels of the labeled images."""
        digest = hashlib.sha256(f"fewlabels split 1\n{self.rule}\n".encode())
        for rows in (self.labeled, self.targets, self.validation, self.unlabeled):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def to_json(self) -> str:
        """The split as JSON text. The unlabeled rows, often all of them, are packed (zlib, base64 of
        int64)."""
        packed = base64.b64encode(zlib.compress(self.unlabeled.astype("<i8").tobytes(), 6)).decode()
        return json.dumps(
            {
                "format": 1,
                "source": self.source,
                "rule": self.rule,
                "seed": self.seed,
                "labels": self.labels,
                "valid": self.valid,
                "class_counts": self.class_counts,
                "fingerprint": self.fingerprint,
                "notes": self.notes,
                "labeled": self.labeled.tolist(),
                "targets": self.targets.tolist(),
                "validation": self.validation.tolist(),
                "unlabeled": {"count": len(self.unlabeled), "zlib_int64_base64": packed},
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read `to_json`'s text. Raises ValueError when it is not one, or when the fingerprint does not
        fit."""
        try:
            raw = json.loads(text)
            if raw["format"] != 1:
                raise ValueError(f"format {raw['format']!r} is not known")
            packed = zlib.decompress(base64.b64decode(raw["unlabeled"]["zlib_int64_base64"], validate=True))
            split = cls(
                source=raw["source"],
                rule=raw["rule"],
                seed=raw["seed"],
                labels=raw["labels"],
                valid=raw["valid"],
                labeled=np.array(raw["labeled"], np.int64),
                targets=np.array(raw["targets"], np.int64),
                validation=np.array(raw["validation"], np.int64),
                unlabeled=np.frombuffer(packed, "<i8").astype(np.int64),
                class_counts=tuple(raw["class_counts"]),
                notes=tuple(raw["notes"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
            raise ValueError(f"this is not the JSON of a split: {error!r}") from error
        if split.fingerprint != raw["fingerprint"]:
            raise ValueError("the split was changed after it was written: its fingerprint does not fit its indices")
        return split


def _greedy(weights: NDArray[np.float64], room: Indices, size: int) -> Indices:
    """Classes in the order in which FixMatch takes them, int64 ``[<= size]``; stops at a class without room.

    Each turn takes ``argmax_c weights[c] - taken[c] / max(max(taken), 1)``, the smallest c on ties, in
    float64 (google-research/fixmatch, scripts/create_split.py). The largest count changes once per round,
    so between rounds only the score of the class just taken is new.
    """
    weight, left = weights.tolist(), room.tolist()
    taken, top = [0] * len(weight), 0
    scores = weights.copy()
    order = np.empty(size, np.int64)
    for turn in range(size):
        c = int(scores.argmax())
        if taken[c] == left[c]:
            return order[:turn]
        order[turn] = c
        taken[c] += 1
        if taken[c] > top:
            top = taken[c]
            scores = weights - np.array(taken) / top
        else:
            scores[c] = weight[c] - taken[c] / top
    return order


def _deal(order: Indices, rows: list[Indices]) -> Indices:
    """Replace the j-th appearance of class c in `order` by ``rows[c][j]``."""
    counts = np.bincount(order, minlength=len(rows))
    out = np.empty_like(order)
    out[np.argsort(order, kind="stable")] = np.concatenate([r[:n] for r, n in zip(rows, counts, strict=True)])
    return out


def _by_class(labels: Indices) -> list[Indices]:
    """Rows of each class, ascending."""
    counts = np.bincount(labels)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def _weights(room: Indices, weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    weights = room / room.max() if weights is None else np.asarray(weights, np.float64)
    assert weights.shape == room.shape
    return np.where(room > 0, weights, -np.inf)  # a class without images is never its turn


def proportional_pick(labels: Indices, size: int, seed: int, weights: NDArray[np.float64] | None = None) -> Indices:
    """FixMatch's labeled images, in the order of their choice, int64 ``[size]``.

    Classes are served in proportion to `weights` (None: their counts over the largest count), rows within a
    class in the order of a shuffle (seed 0: file order). A smaller size gives a prefix of a larger one.
    Source: google-research/fixmatch, scripts/create_split.py; bit for bit.

    Args:
        labels: int64 ``[N]``, 0 .. K-1.
        weights: float64 ``[K]``, the largest is 1.

    Raises:
        ValueError: a class runs out of images.
    """
    assert len(labels) and labels.min() >= 0
    rows = _by_class(labels)
    room = np.bincount(labels)
    if seed != 0:
        random = np.random.RandomState(seed)
        for row in rows:
            random.shuffle(row)
    order = _greedy(_weights(room, weights), room, min(size, len(labels) + 1))
    if len(order) < size:
        raise ValueError(
            f"{size} labels are more than there are: after {len(order)} of {len(labels)} images the class "
            "whose turn it is has no more"
        )
    return _deal(order, rows)


def interleaved_order(labels: Indices, weights: NDArray[np.float64] | None = None) -> Indices:
    """FixMatch's order of the unlabeled set, int64 ``[N]``; its first V are the validation set.

    The same greedy, rows of a class in file order; what is left when a class runs out of turn (with
    `weights` that are not the counts) follows class by class. The original queues records while it reads
    them, which changes the time but not the order of their output. Source: google-research/fixmatch,
    scripts/create_unlabeled.py. Arguments as in `proportional_pick`.
    """
    assert len(labels) and labels.min() >= 0
    rows, room = _by_class(labels), np.bincount(labels)
    order = _greedy(_weights(room, weights), room, len(labels))
    counts = np.bincount(order, minlength=len(rows))
    left = [r[n:] for r, n in zip(rows, counts, strict=True)]
    return np.concatenate([_deal(order, rows), *left])


def balanced_pick(labels: Indices, size: int, seed: int) -> Indices:
    """The same number of images of each class, in the order of their draw, int64 ``[size]``.

    Per class ascending, ``choice(rows, size // K, replace=False)`` of the legacy generator. Source:
    kekmodel/FixMatch-pytorch, dataset/cifar.py (``x_u_split``), and LeeDoYup/FixMatch-pytorch,
    datasets/data_utils.py: equal seeds give both the same images.

    Raises:
        ValueError: `size` is no multiple of the classes, or a class has too few images.
    """
    assert len(labels) and labels.min() >= 0
    rows = _by_class(labels)
    if size % len(rows):
        raise ValueError(
            f"rule 'balanced' takes the same number of each class: labels must be a multiple of the "
            f"{len(rows)} classes, got {size}"
        )
    each = size // len(rows)
    short = next((c for c, row in enumerate(rows) if len(row) < each), None)
    if short is not None:
        raise ValueError(f"{size} labels need {each} of each class, but class {short} has {len(rows[short])}")
    random = np.random.RandomState(seed)
    return np.concatenate([random.choice(row, each, replace=False) for row in rows])


def make_split(
    source: Source,
    *,
    labels: int | None,
    seed: int,
    valid: int = 0,
    rule: Rule = "fixmatch",
    unlabeled: Literal["all", "rest"] = "all",
) -> Split:
    """Divide a source's training images.

    Picks: `labels` images in total by the rule, or (None) every image with a known label that is not
    validation. Rows with the label -1 are unlabeled only; no rule sees them.

    Validation: the first `valid` of `interleaved_order` over the known labels. Under FixMatch's rule, on a
    source whose labels are all known, that order runs over all images, so a few validation images may be
    labeled ones too: this is the published protocol, kept, counted and noted. Everywhere else the order
    runs over the images that were not picked, and the two are disjoint.

    Unlabeled: everything but the validation images; `unlabeled="rest"` takes the labeled ones out. Training
    order: FixMatch's `interleaved_order`, then the images of unknown label in file order; file order under
    "balanced", as kekmodel's. The loop permutes it anyway.

    Raises:
        ValueError: the source has not what is asked for.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"rule {rule!r} is not known; allowed are {', '.join(get_args(Rule))}")
    if unlabeled not in ("all", "rest"):
        raise ValueError(f"unlabeled {unlabeled!r} is not known; allowed are all, rest")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must lie in 0 .. {MAX_SEED}, got {seed}")
    if valid < 0:
        raise ValueError(f"valid must be at least 0, got {valid}")
    known = np.flatnonzero(source.labels >= 0)
    _check_size(source, labels, rule)
    y, everything = source.labels[known], len(known) == len(source.labels)
    notes: list[str] = []

    picked = np.empty(0, np.int64)
    if labels is not None:
        pick = proportional_pick if rule == "fixmatch" else balanced_pick
        picked = known[pick(y, labels, seed)]
    order = known[interleaved_order(y)]
    overlapping = rule == "fixmatch" and everything
    pool = known if overlapping else np.setdiff1d(known, picked)
    if valid > len(pool) or (labels is None and valid == len(pool)):
        raise ValueError(
            f"valid={valid} is more than {source.name} can spare: {len(pool)} images of known label "
            + ("are there" if len(pool) == len(known) else f"are left after {labels} were picked")
        )
    if valid and len(pool) < len(known):
        validation = pool[interleaved_order(source.labels[pool])][:valid]
    else:
        validation = order[:valid]
    labeled = np.sort(picked) if labels is not None else np.setdiff1d(known, validation)

    if rule == "fixmatch":
        rest = np.concatenate([order, np.flatnonzero(source.labels < 0)])
    else:
        rest = np.arange(len(source.labels))
    drop = np.zeros(len(source.labels), bool)
    drop[validation] = True
    if unlabeled == "rest":
        drop[labeled] = True
    rest = rest[~drop[rest]]
    if len(rest) == 0:
        raise ValueError(
            f"no unlabeled image of {source.name} is left (labels, validation and unlabeled={unlabeled!r})"
        )

    counts = np.bincount(source.labels[labeled], minlength=len(source.classes))
    without = [source.classes[c] for c in np.flatnonzero((counts == 0) & (source.histogram() > 0))]
    if without:
        notes.append(f"no label was picked of {first(without)}; such a class cannot be learned")
    shared = len(np.intersect1d(validation, labeled))
    if shared:
        notes.append(f"{shared} of the {valid} validation images are labeled ones too, as in FixMatch's protocol")
    if valid and not everything:
        notes.append(f"the {valid} validation images were taken from those of known label that are not labeled ones")
    return Split(
        source=source.name,
        rule=rule,
        seed=seed,
        labels=labels,
        valid=valid,
        labeled=labeled,
        targets=source.labels[labeled],
        validation=validation,
        unlabeled=rest,
        class_counts=tuple(int(n) for n in counts),
        notes=tuple(notes),
    )


def _check_size(source: Source, labels: int | None, rule: Rule) -> None:
    if labels is None:
        return
    histogram, total = source.histogram(), int((source.labels >= 0).sum())
    if labels < 1:
        raise ValueError(f"labels must be at least 1, got {labels}")
    if labels > total:
        raise ValueError(f"labels={labels} is more than {source.name} has: {total} images have a known label")
    each, smallest = labels // len(histogram), int(histogram.argmin())
    if rule == "balanced" and each > histogram[smallest]:
        raise ValueError(
            f"labels={labels} needs {each} images of each class of {source.name}, but class "
            f"{source.classes[smallest]!r} has {histogram[smallest]}"
        )
