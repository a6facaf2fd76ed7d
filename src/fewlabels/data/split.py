"""Which images are labeled, unlabeled and validation: the split as a value, and `make_split`, which makes it by
one of the rules of `fewlabels.data.rules`."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from fewlabels.data import rules
from fewlabels.data.arrays import as_labels
from fewlabels.data.find import read_text
from fewlabels.data.names import MAX_SEED
from fewlabels.data.packed import named_texts, pack, row_numbers, typed, unpack
from fewlabels.data.picks import pick, pick_validation
from fewlabels.data.protocol import Options, Rule, check_size, of_classes
from fewlabels.data.rules import Indices
from fewlabels.data.source import FACTS, Source
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import first

COUNTS = "labels by class"
"""What of a lineage has the labels of each class that a tail of predictions joined (`Split.own_counts`)."""

UNLABELED = "no label was picked of"
"""How the note on classes without a label begins, which more labels make another."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a source's training images, by what they are for, and the labels that are trained on. Two splits are
    equal when they mean the same."""

    source: str
    rule: str
    seed: int
    labels: int | None
    """Number of labels that was asked for, of the largest class where the labels are long-tailed; None: all."""
    valid: int | None
    """Number of validation images that was asked for; None: what the data hold, or a tenth (`held_back`)."""
    labeled: Indices
    """int64, ascending; with repeats after oversampling."""
    targets: Indices
    """Labels of `labeled`, int64 of the same length: what is trained on. Without `lineage` they are the source's."""
    validation: Indices
    """int64, in the rule's order."""
    unlabeled: Indices
    """int64, in training order; contains the labeled images unless they were taken out; with repeats after balancing
    by predictions."""
    class_counts: tuple[int, ...]
    """Labeled images per class."""
    notes: tuple[str, ...] = ()
    """Sentences that the run prints; no part of the meaning."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What the rule was told beside labels, seed and valid (`Options.given`, with class numbers)."""
    classes: tuple[str, ...] = ()
    """Names of the classes in their order; () where `pictures` is."""
    pictures: tuple[str, ...] = ()
    """`Source.identity`; () for a known set, whose name says all, and in files that are older than this field."""
    lineage: tuple[Mapping[str, str], ...] = ()
    """Where labels come from that the source does not say, as named texts: one mapping for each `with_labels`."""

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over `drawn`, of own pictures the names of the classes and `pictures`, and the lineage."""
        digest = self.drawn
        if self.pictures:
            told = json.dumps([digest, self.classes, self.pictures])
            digest = hashlib.sha256(f"fewlabels split 2\n{told}".encode()).hexdigest()
        if self.lineage:
            told = json.dumps([digest, *map(dict, self.lineage)], sort_keys=True)
            digest = hashlib.sha256(f"fewlabels split 3\n{told}".encode()).hexdigest()
        return digest

    @cached_property
    def drawn(self) -> str:
        """sha256 (hex) over the rule, its parameters, the three index lists and the labels of the labeled images."""
        told = " " + json.dumps(dict(self.parameters), sort_keys=True) if self.parameters else ""
        digest = hashlib.sha256(f"fewlabels split 1\n{self.rule}{told}\n".encode())
        for rows in (self.labeled, self.targets, self.validation, self.unlabeled):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(rows.astype("<i8").tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def remarks(self) -> tuple[str, ...]:
        """`notes` and the lineage, in sentences for who trains on the split."""
        given = (", ".join(f"{k} {text}" for k, text in each.items() if k != COUNTS) for each in self.lineage)
        return (*self.notes, *(f"labels that the data do not say: {each}" for each in given))

    @property
    def own_counts(self) -> tuple[int, ...]:
        """Labels of each class before those that generations of CReST gave (`data.predictions`, its tail)."""
        told = next((each[COUNTS] for each in self.lineage if COUNTS in each), None)
        return self.class_counts if told is None else tuple(map(int, told.split()))

    def with_labels(
        self, rows: Any, labels: Any, *, lineage: Mapping[str, str], relabel: bool = False, stay: bool | None = None
    ) -> Split:
        """This split with more labels, such as predictions or a person's answers.

        The images stay in the unlabeled set where it has labeled images, and leave it where it has none, unless `stay`
        says which. Source, rule, seed and validation images stay.

        Args:
            rows: of the training images, integers ``[n]``, each once: an array, a tensor or a list.
            labels: their labels, integers ``[n]``, 0 .. K-1.
            lineage: where the labels come from, one text or more by name, such as ``{"run": "runs/a", "rule":
                "confidence 0.95"}``. The names `given` (how many) and `split` (this one's fingerprint) are added.
            relabel: allow other labels for images that are labeled already.

        Raises:
            ValueError: a row is given twice, is a validation image, is in no part of the split, or is labeled
                already with another label; a label or the lineage is none.
        """
        rows, labels = (as_labels(what, x, known=True) for what, x in (("rows", rows), ("labels", labels)))
        if not 0 < len(rows) == len(labels):
            raise ValueError(f"rows and labels must be as many, and at least 1, got {len(rows)} and {len(labels)}")
        told = named_texts(lineage)
        if reserved := {"given", "split"} & told.keys():
            raise ValueError(f"lineage: the split adds the name {min(reserved)!r} itself: take another one")
        had, classes = np.isin(rows, self.labeled), len(self.class_counts)
        now = dict(zip(rows.tolist(), labels.tolist(), strict=True))
        targets = np.array([now.get(r, t) for r, t in zip(self.labeled.tolist(), self.targets.tolist(), strict=True)])
        others = self.labeled[(targets != self.targets) & (not relabel)]
        for wrong, what in (
            (np.sort(rows)[1:][np.diff(np.sort(rows)) == 0], "is given twice"),
            (rows[labels >= classes], f"has a label that is none: it must lie in 0 .. {classes - 1}"),
            (rows[np.isin(rows, self.validation)], "is a validation image: leave it out"),
            (rows[~had & ~np.isin(rows, self.unlabeled)], "is neither a labeled nor an unlabeled image of the split"),
            (others, "is labeled already, and otherwise: leave it out, or allow that with relabel=True"),
        ):
            if len(wrong):
                raise ValueError(f"row {wrong[0]} (label {now[int(wrong[0])]}) {what}")
        labeled, targets = np.append(self.labeled, rows[~had]), np.append(targets, labels[~had])
        order = np.argsort(labeled, kind="stable")
        counts = np.bincount(targets, minlength=classes)
        drawn = np.setdiff1d(self.labeled, self.validation)
        if stay is None:
            stay = bool(np.isin(drawn, self.unlabeled).any()) if len(drawn) else self.rule != "realmix"
        notes = [note for note in self.notes if not note.startswith(UNLABELED)]
        if (without := np.flatnonzero(counts == 0).tolist()) and len(notes) < len(self.notes):
            notes.append(_unlearned([self.classes[c] if self.classes else c for c in without]))
        return replace(
            self,
            labeled=labeled[order],
            targets=targets[order],
            unlabeled=self.unlabeled if stay else self.unlabeled[~np.isin(self.unlabeled, rows)],
            class_counts=tuple(counts.tolist()),
            notes=tuple(notes),
            lineage=(*self.lineage, {**told, "given": str(len(rows)), "split": self.fingerprint}),
        )

    def to_json(self) -> str:
        """The split as JSON text. The unlabeled rows, often all of them, are packed."""
        return json.dumps(
            {
                "format": 1,
                "source": self.source,
                "rule": self.rule,
                "parameters": dict(self.parameters),
                "seed": self.seed,
                "labels": self.labels,
                "valid": self.valid,
                "class_counts": self.class_counts,
                "fingerprint": self.fingerprint,
                "classes": self.classes,
                "pictures": self.pictures,
                "notes": self.notes,
                "labeled": self.labeled.tolist(),
                "targets": self.targets.tolist(),
                "validation": self.validation.tolist(),
                "unlabeled": pack(self.unlabeled),
                **({"lineage": [dict(each) for each in self.lineage]} if self.lineage else {}),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Split:
        """Read `to_json`'s text, or what `fewlabels split` wrote (which sorts the validation rows).

        Raises ValueError when it is neither, or when the fingerprint does not fit.
        """
        try:
            raw = json.loads(text)
            if raw["format"] != 1:
                raise ValueError(f"format {raw['format']!r} is not known")
            if not isinstance(raw.get("parameters", {}), dict):
                raise ValueError("parameters must be named values")
            ordered, counts = raw.get("validation_order"), raw["class_counts"]
            split = cls(
                source=typed(str, raw["source"]),
                rule=typed(str, raw["rule"]),
                seed=typed(int, raw["seed"]),
                labels=None if raw["labels"] is None else typed(int, raw["labels"]),
                valid=None if raw["valid"] is None else typed(int, raw["valid"]),
                labeled=row_numbers(raw["labeled"]),
                targets=row_numbers(raw["targets"]),
                validation=unpack(ordered) if ordered else row_numbers(raw["validation"]),
                unlabeled=unpack(raw["unlabeled"]),
                class_counts=tuple(row_numbers(list(counts.values() if isinstance(counts, dict) else counts)).tolist()),
                notes=tuple(typed(str, note) for note in raw["notes"]),
                parameters=typed(dict, raw.get("parameters", {})),
                classes=tuple(typed(str, name) for name in raw.get("classes", ())),
                pictures=tuple(typed(str, text) for text in raw.get("pictures", ())),
                lineage=tuple(named_texts(each) for each in typed(list, raw.get("lineage", []))),
            )
            fits = 0 < len(split.targets) == len(split.labeled) and split.targets.max() < len(split.class_counts)
            if not fits or tuple(np.bincount(split.targets, minlength=len(split.class_counts))) != split.class_counts:
                raise ValueError("its labels are not those of its counts")
            if len(split.own_counts) != len(split.class_counts) or min(split.own_counts) < 0:
                raise ValueError("its lineage has counts of other classes")
            pairs = np.stack([split.labeled, split.targets], 1)
            if len(np.unique(pairs, axis=0)) > len(np.unique(split.labeled)):
                raise ValueError("an image has two labels")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError, zlib.error) as error:
            raise ValueError("this is not the JSON of a split") from error
        if split.fingerprint != raw.get("fingerprint"):
            raise ValueError("the split was changed after it was written: its fingerprint does not fit its indices")
        return split

    def difference(self, source: Source) -> str | None:
        """What of the classes and pictures of `source` is not as it was when the split was made: a clause, or None.

        A file that is older than the fields `classes` and `pictures` says nothing about them.
        """
        if self.classes and (clause := _other_classes(self.classes, source.classes)):
            return clause
        for part, was, now in zip(("training", "test"), self.pictures, source.identity, strict=False):
            count, count_now = was.partition(" ")[0], now.partition(" ")[0]
            if count != count_now:
                return f"there are {count_now} {part} pictures now, and there were {count}"
            if was != now:
                return f"the {part} pictures are others now (by name, content, class or order)"
        return None

    def check_fit(self, source: Source) -> None:
        """Raises ValueError where the split was not made from such a source.

        The labels are compared with the source's where there is no lineage, which says why they are others.
        """
        rows = np.concatenate([self.labeled, self.validation, self.unlabeled])
        if self.source != source.name and {self.source, source.name} & set(FACTS):  # a folder may have moved
            raise ValueError(f"the split was made from {self.source}, not from {source.name}")
        if rows.min() < 0 or rows.max() >= len(source.labels) or len(self.class_counts) != len(source.classes):
            raise ValueError(
                f"the split does not fit {source.name}: it names image {rows.max()} and {len(self.class_counts)} "
                f"classes, and there are {len(source.labels)} images of {len(source.classes)} classes"
            )
        if clause := self.difference(source):
            raise ValueError(f"the split does not fit {source.name}: {clause}")
        same = bool(self.lineage) or np.array_equal(source.labels[self.labeled], self.targets)
        if not same or source.labels[self.validation].min(initial=0) < 0:
            raise ValueError(f"the split does not fit {source.name}: images have other labels than when it was made")


def held_back(source: Source, seed: int) -> Indices:
    """The rows that are validation images where no number of them was asked for, int64, ascending: those of the data's
    own validation part, or where there is no test part either a tenth of each class (`rules.tenth`)."""
    if source.held:
        return np.arange(len(source.labels) - source.held, len(source.labels))
    return np.empty(0, np.int64) if len(source.test_labels) else rules.tenth(source.labels, seed)


def _held_note(source: Source, held: int, total: int) -> list[str]:
    if source.held:
        return [f"the {held} validation images are those of {source.name}'s own validation part"]
    if len(source.test_labels):
        return []
    if not held:
        return ["no class has 3 labeled pictures, so none is held back as validation (--data.valid N takes N)"]
    return [
        f"{held} of {total} labeled pictures are held back as validation, a tenth of each class (2 to a third of it), "
        "as there are no test pictures: --data.valid N takes another number, 0 none"
    ]


def _unlearned(classes: Sequence[object]) -> str:
    return f"{UNLABELED} {first(classes)}; such a class cannot be learned"


def _other_classes(was: Sequence[str], now: Sequence[str]) -> str | None:
    if len(was) != len(now):
        return f"there are {len(now)} classes now ({first(now)}), and there were {len(was)} ({first(was)})"
    i = next((i for i, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]), None)
    return None if i is None else f"class {i} is {now[i]!r} now, and was {was[i]!r}"


def read_split(path: Path | str) -> Split:
    """The split in a JSON file. Raises ValueError where there is none."""
    path = expanded(path)
    try:
        return Split.from_json(read_text(path))
    except OSError as error:
        raise ValueError(f"the split file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"the split file {path}: {error}") from None


def source_in(path: Path | str) -> str:
    """The named set that a split file was made from. Raises ValueError for other data: a file opens no folder."""
    source = read_split(path).source
    if source not in FACTS:
        raise ValueError(f"the split file {path} was made from own pictures ({source!r}): say where they are (--data)")
    return source


def make_split(
    source: Source,
    *,
    labels: int | None,
    seed: int,
    valid: int | None = 0,
    rule: Rule = "fixmatch",
    unlabeled: Literal["all", "rest"] | None = None,
    options: Options | None = None,
) -> Split:
    """Divide a source's training images.

    Picks: `labels` images by the rule (in total, or of the largest class with `options.imbalance`), or (None)
    every image with a known label that is not validation. Rows with the label -1 are unlabeled only; no rule
    sees them. Of the picked images, `options.keep_labeled` keeps some classes, and `options.oversample` and
    `options.resample` repeat those of small classes.

    Stream: the unlabeled images in training order, and where published validation images come from.
    "fixmatch" and "cadr": `interleaved_order` of all images (with `imbalance_unlabeled` its long-tailed part),
    then those of unknown label in file order. "realmix": the same without the picked images. "balanced": file
    order, as kekmodel's. "usb": USB's choice, after the labeled ones. The loop permutes it anyway.

    Validation: with `valid` None those of `held_back`, which are set aside before all else. Else, under "fixmatch" and
    "cadr", on a source whose labels are all known or which has official folds, the first `valid` images of the stream,
    so a few of them may be labeled ones too: this is the published protocol, kept, counted and noted. Under "realmix"
    the same, with no overlap. Everywhere else the first of `interleaved_order` over the known images that were not
    picked. With `keep_labeled`, images of its classes.

    Unlabeled: the stream without the validation images, and of the classes of `options.keep_unlabeled`;
    `unlabeled="rest"` takes the labeled ones out, "all" leaves them in; None: "rest" under "realmix", else "all".

    Raises:
        ValueError: the source has not what is asked for.
    """
    whole = source.whole or source
    options = (options or Options()).numbered(whole.classes)
    options.check(rule, labels)
    unlabeled = unlabeled or ("rest" if rule == "realmix" else "all")
    if unlabeled not in ("all", "rest"):
        raise ValueError(f"unlabeled {unlabeled!r} is not known; allowed are all, rest")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must lie in 0 .. {MAX_SEED}, got {seed}")
    if valid is not None and valid < 0:
        raise ValueError(f"valid must be at least 0, got {valid}")
    total = int((whole.labels >= 0).sum())
    held = held_back(whole, seed) if valid is None else np.empty(0, np.int64)
    if len(held):  # to the rules they are images of unknown label
        known_labels, seen = whole.labels, whole.labels.copy()
        seen[held] = -1
        whole = replace(whole, labels=seen, held=0)
    try:
        check_size(whole, labels, rule, options)
    except ValueError as error:
        if len(held) == 0:
            raise
        raise ValueError(f"{error}; {len(held)} are held back as validation (--data.valid 0 holds none back)") from None

    picked, stream = pick(whole, labels, seed, rule, options)
    if valid is None:
        validation = held[of_classes(known_labels[held], options.keep_labeled)] if len(held) else held
    else:
        validation = pick_validation(whole, picked, stream, valid, rule, labels, options)
    known = np.flatnonzero(whole.labels >= 0)
    labeled = picked if labels is not None else np.setdiff1d(known, validation)
    labeled = labeled[of_classes(whole.labels[labeled], options.keep_labeled)]
    if len(labeled) == 0:
        names = first([whole.classes[int(c)] for c in options.keep_labeled])
        raise ValueError(f"none of the {labels} labels that were picked is of keep_labeled's classes: {names}")

    drop = np.zeros(len(whole.labels), bool)
    drop[validation] = drop[held] = True
    drop[labeled] |= unlabeled == "rest"
    if rule in ("realmix", "usb") and unlabeled == "all":
        stream = np.concatenate([np.setdiff1d(labeled, stream), stream])
    rest = stream[~drop[stream] & of_classes(whole.labels[stream], options.keep_unlabeled)]
    if len(rest) == 0:
        raise ValueError(
            f"no unlabeled image of {source.name} is left (labels, validation and unlabeled={unlabeled!r})"
        )
    notes = [] if valid is not None else _held_note(source, len(held), total)
    before = len(labeled)
    if options.resample:  # which images come once more depends on the order of their choice
        labeled = labeled[rules.resample(whole.labels[labeled])]
    labeled = np.sort(labeled)
    if options.oversample is not None:
        labeled = np.sort(labeled[rules.oversample(whole.labels[labeled], options.oversample)])
    if options.oversample is not None or options.resample:
        notes.append(f"the {before} labeled images were balanced to {len(labeled)}, with repeats where a class has few")
    counts = np.bincount(source.labels[labeled], minlength=len(source.classes))
    without = [source.classes[c] for c in np.flatnonzero((counts == 0) & (source.histogram() > 0))]
    if without:
        notes.append(_unlearned(without))
    shared = len(np.intersect1d(validation, labeled))
    if shared:
        notes.append(f"{shared} of the {valid} validation images are labeled ones too, as in FixMatch's protocol")
    if valid and len(known) < len(whole.labels) and not whole.folds:
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
        parameters=options.given(),
        classes=source.classes if source.identity else (),
        pictures=source.identity,
    )
