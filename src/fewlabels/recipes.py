"""Defaults for an algorithm on a data set: a `Train` that stands between the dataclasses and the command line."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.algorithms import ALGORITHMS, FixMatch
from fewlabels.config import Data, Ema, Net, Optim, Train, nearest
from fewlabels.data.names import parse


def recipe(algorithm: str = "fixmatch", data: str = "digits@40") -> Train:
    """The default `Train` of an algorithm (its command-line name) on a data set (a name or a folder).

    Raises ValueError for unknown names.
    """
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ValueError(f"there is no algorithm {algorithm!r}{nearest(algorithm, ALGORITHMS)} (known: {known})")
    name = parse(data)
    train = Train(algorithm=ALGORITHMS[algorithm](), data=Data(data))
    if algorithm in ("mixmatch", "remixmatch"):
        train = replace(train, uratio=1)  # both mix the labeled batch with unlabeled batches of its size
    if name.base == "digits":
        return _digits(train)
    if name.folder:
        return replace(train, net=Net("wrn-10-1"), steps=2000, batch=16, eval_every=250, save_every=250, log_every=20)
    if name.base == "cifar100" and isinstance(train.algorithm, FixMatch):
        # google-research/fixmatch issue 26: --filters=128 and wd 0.001 on CIFAR-100
        return replace(train, net=Net("wrn-28-8"), optim=replace(train.optim, weight_decay=1e-3))
    return train


def _digits(train: Train) -> Train:
    """Some twenty seconds on two CPU cores."""
    return replace(
        train,
        net=Net("small"),
        optim=Optim(lr=0.1, warmup=30),
        ema=Ema(decay=0.99, warmup=True, buffers="averaged"),
        steps=500,
        batch=32,
        uratio=min(train.uratio, 4),
        eval_every=50,
        save_every=100,
        log_every=10,
    )
