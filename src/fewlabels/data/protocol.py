"""What a protocol says beside labels, seed and validation: long tails, priors, the classes that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from fewlabels.data import rules
from fewlabels.data.rules import Indices, interleaved_order, long_tail
from fewlabels.data.source import Labels, Source
from fewlabels.runtime.words import first

Rule: TypeAlias = Literal["fixmatch", "balanced", "cadr", "realmix", "usb"]
Prior: TypeAlias = Literal["data", "rand", "equal"]

_GOES_WITH: dict[str, tuple[str, ...]] = {
    "imbalance": ("cadr", "usb"),
    "imbalance_unlabeled": ("cadr", "usb"),
    "head_unlabeled": ("usb",),
    "prior rand": ("cadr",),
    "resample": ("cadr",),
    "prior equal": ("realmix",),
    "candidates": ("realmix",),
}


class Options(NamedTuple):
    """Settings of a rule and their defaults; the fields of `fewlabels.Data` of the same names.

    Those that are given are part of the split's fingerprint.
    """

    imbalance: float | None = None
    imbalance_unlabeled: float | None = None
    imbalance_test: float | None = None
    head_unlabeled: int | None = None
    reverse: bool = False
    prior: Prior = "data"
    candidates: int | None = None
    keep_labeled: tuple[int | str, ...] = ()
    keep_unlabeled: tuple[int | str, ...] = ()
    keep_test: tuple[int | str, ...] = ()
    remap: bool = False
    oversample: int | None = None
    resample: bool = False

    def numbered(self, classes: Sequence[str]) -> Options:
        """The same with class numbers in place of names. Raises ValueError for a class that is not there."""
        return self._replace(
            keep_labeled=class_ids("keep_labeled", self.keep_labeled, classes),
            keep_unlabeled=class_ids("keep_unlabeled", self.keep_unlabeled, classes),
            keep_test=class_ids("keep_test", self.keep_test, classes),
        )

    def given(self) -> dict[str, Any]:
        """What differs from the defaults, as plain values for JSON."""
        out: dict[str, Any] = {}
        for name, value in self._asdict().items():
            if value != self._field_defaults[name]:
                number = name.startswith("imbalance")
                out[name] = float(value) if number else list(value) if isinstance(value, tuple) else value
        return out

    def check(self, rule: str, labels: int | None) -> None:
        """Raises ValueError for a rule that does not exist, and for settings that do not go together."""
        if rule not in get_args(Rule):
            raise ValueError(f"rule {rule!r} is not known; allowed are {', '.join(get_args(Rule))}")
        given = self.given()
        if "prior" in given:
            given[f"prior {self.prior}"] = True
        for name, allowed in _GOES_WITH.items():
            if name in given and rule not in allowed:
                these = f"rule{'s' * (len(allowed) > 1)} {' and '.join(allowed)}"
                raise ValueError(f"{name} goes with the {these}, not with {rule}")
        for name in ("imbalance", "imbalance_unlabeled", "imbalance_test"):
            if name in given and not given[name] >= 1:
                raise ValueError(f"{name} must be at least 1, got {given[name]:g}; reverse turns a tail round")
        if self.reverse and self.imbalance_unlabeled is None and self.imbalance_test is None:
            raise ValueError("reverse turns the tail of imbalance_unlabeled or imbalance_test round; neither is given")
        if self.imbalance is not None and self.prior == "rand":
            raise ValueError("imbalance and prior rand both say how many labels each class gets; give one of them")
        if labels is None:
            for name in ("imbalance", "head_unlabeled", "prior", "candidates", "resample"):
                if name in given:
                    raise ValueError(f"{name} needs labels, the number of labels to pick")
        if self.resample and self.oversample is not None:
            raise ValueError("resample and oversample both say how often an image is repeated; give one of them")
        if rule == "usb" and self.imbalance_unlabeled is not None and self.head_unlabeled is None:
            raise ValueError("rule usb needs head_unlabeled, the images of the largest class, for imbalance_unlabeled")
        if self.remap and not self.keep_labeled:
            raise ValueError("remap numbers the classes of keep_labeled anew, and keep_labeled is not given")


def class_ids(what: str, wanted: Sequence[int | str], classes: Sequence[str]) -> tuple[int, ...]:
    """Class numbers, ascending, of names or numbers; a text is taken as a name where there is such a class.

    `what` names the setting in errors.
    """
    ids = set()
    for item in wanted:
        if item in classes:
            ids.add(classes.index(str(item)))
        elif str(item).isdecimal() and int(item) < len(classes):
            ids.add(int(item))
        else:
            numbers = f"numbers 0 to {len(classes) - 1}"
            raise ValueError(f"{what}: there is no class {item!r}; the classes are {first(classes)} ({numbers})")
    return tuple(sorted(ids))


def of_classes(labels: Labels, ids: Sequence[int | str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each label is one of `ids` (bool ``[N]``); no ids mean all, also the unknown ones."""
    return np.isin(labels, np.array(ids, np.int64)) if ids else np.ones(len(labels), bool)


def restrict(source: Source, options: Options) -> Source:
    """The source as training and evaluation see it: kept or long-tailed test images, and renumbered classes.

    With `remap` the classes are those of `keep_labeled`, and a training image of another class has the label
    -1; the rules go on seeing all of them (`Source.whole`). Training images stay where they are. Doing it twice
    does no more than once.

    Raises:
        ValueError: a class is not there, or no test image is left.
    """
    whole = source = source.whole or source
    options, rows = options.numbered(source.classes), _test_rows(source, options)
    if len(rows) < len(source.test_labels):
        if len(rows) == 0:
            names = first([source.classes[int(c)] for c in options.keep_test])
            raise ValueError(f"keep_test: {source.name} has no test images of {names}")
        images, labels = source.test_images[rows], source.test_labels[rows]
        called = tuple(source.test_names[row] for row in rows.tolist() if source.test_names)
        source = replace(source, test_images=images, test_labels=labels, test_names=called, whole=whole)
    if not options.remap or not options.keep_labeled:
        return source
    kept = [int(c) for c in options.keep_labeled]
    if len(kept) < 2:
        raise ValueError(f"remap: keep_labeled leaves one class only ({source.classes[kept[0]]}); 2 are needed")
    foreign = np.setdiff1d(source.test_labels, kept)
    if len(foreign):
        raise ValueError(
            f"remap leaves no number for the test images of {first([source.classes[c] for c in foreign])}, "
            "which keep_labeled has not; leave them out with keep_test"
        )
    number = np.full(len(source.classes) + 1, -1, np.int64)  # its last entry is for the label -1
    number[kept] = np.arange(len(kept))
    return replace(
        source,
        classes=tuple(source.classes[c] for c in kept),
        folders=tuple(source.folders[c] for c in kept if source.folders),
        labels=number[source.labels],
        test_labels=number[source.test_labels],
        whole=whole,
    )


def _test_rows(source: Source, options: Options) -> Indices:
    keep = class_ids("keep_test", options.keep_test, source.classes)
    rows = np.flatnonzero(of_classes(source.test_labels, keep))
    if options.imbalance_test is None or len(rows) == 0:
        return rows
    shares = long_tail(len(source.classes), options.imbalance_test, reverse=options.reverse)
    return np.sort(rows[interleaved_order(source.test_labels[rows], shares, leftovers=False)])


def usb_counts(labels: int, classes: int, options: Options) -> tuple[Indices, Indices | None]:
    """Labeled and unlabeled images of each class under USB's rule; None: all that are left."""
    if options.imbalance is None:
        few = np.full(classes, labels // classes)
    else:
        few = rules.tail_counts(labels, classes, options.imbalance)
    if options.head_unlabeled is None:
        return few, None
    gamma = options.imbalance_unlabeled or 1.0
    return few, rules.tail_counts(options.head_unlabeled, classes, gamma, reverse=options.reverse)


def check_size(source: Source, labels: int | None, rule: Rule, options: Options) -> None:
    """Raises ValueError where a source has fewer images than the rule needs for `labels`."""
    if labels is None:
        return
    histogram, total = source.histogram(), int((source.labels >= 0).sum())
    classes = len(histogram)
    if labels < 1:
        raise ValueError(f"labels must be at least 1, got {labels}")
    if options.candidates is not None:
        total = min(total, int((source.labels[: options.candidates] >= 0).sum()))
    if labels > total:
        raise ValueError(
            f"labels={labels} is more than {source.name} has: {total} images have a known label"
            + ("" if options.candidates is None else f" among the first {options.candidates}")
        )
    need: Indices | None = None
    if rule == "usb":
        if options.imbalance is None and labels % classes:
            raise ValueError(
                f"rule 'usb' takes the same number of each class: labels must be a multiple of the {classes} "
                f"classes, got {labels}"
            )
        few, more = usb_counts(labels, classes, options)
        need = few if more is None else np.add(few, more)
    elif options.imbalance is not None:
        need = rules.head_counts(labels, rules.long_tail(classes, options.imbalance))
    elif rule == "balanced":
        need = np.full(classes, labels // classes)
    if need is not None and (need > histogram).any():
        c = int((need - histogram).argmax())
        raise ValueError(
            f"labels={labels} needs {need[c]} images of each class of {source.name}, but class "
            f"{source.classes[c]!r} has {histogram[c]}"
            if rule == "balanced"
            else f"labels={labels} under rule {rule} needs {need[c]} images of class {source.classes[c]!r} of "
            f"{source.name}, labeled and unlabeled, and there are {histogram[c]}"
        )
