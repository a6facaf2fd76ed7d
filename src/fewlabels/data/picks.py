"""What a rule picks of a source: the labeled rows, the stream of the others, and the validation rows."""

from __future__ import annotations

import numpy as np

from fewlabels.data import rules
from fewlabels.data.protocol import Options, Rule, of_classes, usb_counts
from fewlabels.data.rules import Indices, Weights, interleaved_order, proportional_pick
from fewlabels.data.source import Source


def pick(source: Source, labels: int | None, seed: int, rule: Rule, options: Options) -> tuple[Indices, Indices]:
    """The labeled rows by the rule (none where `labels` is None: all of them), and the stream of the others."""
    known, unknown = np.flatnonzero(source.labels >= 0), np.flatnonzero(source.labels < 0)
    y, classes = source.labels[known], len(source.classes)
    picked = np.empty(0, np.int64)
    if rule == "balanced":
        if labels is not None:
            picked = known[rules.balanced_pick(y, labels, seed)]
        return picked, np.arange(len(source.labels))

    if rule == "usb":
        if labels is None:
            return picked, np.arange(len(source.labels))
        few, more = usb_counts(labels, classes, options)
        chosen, others = rules.usb_pick(y, few, more, seed)
        return known[chosen], np.concatenate([known[others], unknown])

    if rule == "realmix":
        candidates = y[: np.searchsorted(known, options.candidates)] if options.candidates is not None else y
        if labels is not None:
            by_turn = options.prior == "equal"
            picked = known[(rules.round_robin_pick if by_turn else proportional_pick)(candidates, labels, seed)]
        others = np.setdiff1d(known, picked)
        counts = np.bincount(candidates, minlength=classes)
        order = others[interleaved_order(source.labels[others], counts / counts.max())] if len(others) else others
        return picked, np.concatenate([order, unknown])

    shares: Weights | None = None
    if options.imbalance is not None:
        assert labels is not None
        shares = rules.long_tail(classes, options.imbalance)
        labels = int(rules.head_counts(labels, shares).sum())
    elif options.prior == "rand":
        shares = rules.random_prior(classes, seed)
    if labels is not None:
        if source.folds and labels == len(source.folds[0]) and shares is None:
            picked = _fold(source, seed)
        else:
            picked = known[proportional_pick(y, labels, seed, shares)]
    if options.imbalance_unlabeled is None:
        return picked, np.concatenate([known[interleaved_order(y)], unknown])
    tail = rules.long_tail(classes, options.imbalance_unlabeled, reverse=options.reverse)
    return picked, known[interleaved_order(y, tail, leftovers=False)]


def _fold(source: Source, seed: int) -> Indices:
    """STL-10 at 1000 labels: the official fold of the seed's number (create_split.py)."""
    if seed >= len(source.folds):
        raise ValueError(
            f"{len(source.folds[0])} labels of {source.name} are one of its official folds: seed must lie in "
            f"0 .. {len(source.folds) - 1}, got {seed}"
        )
    return source.folds[seed]


def pick_validation(
    source: Source, picked: Indices, stream: Indices, valid: int, rule: Rule, labels: int | None, options: Options
) -> Indices:
    """The `valid` validation rows, in the rule's order. Raises ValueError where the source cannot spare so many."""
    known = np.flatnonzero(source.labels >= 0)
    published = rule in ("fixmatch", "cadr") and (len(known) == len(source.labels) or bool(source.folds))
    pool: Indices
    if published or rule == "realmix":
        pool = stream[source.labels[stream] >= 0]
    else:
        pool = np.setdiff1d(known, picked)
        pool = pool[interleaved_order(source.labels[pool])] if len(pool) else pool
    pool = pool[of_classes(source.labels[pool], options.keep_labeled)]
    if valid > len(pool) or (labels is None and valid == len(pool)):
        raise ValueError(
            f"valid={valid} is more than {source.name} can spare: {len(pool)} images of known label "
            + ("are there" if len(pool) == len(known) else f"are left after {labels} were picked")
        )
    return pool[:valid]
