"""Defaults for an algorithm on a data set: a `Train` that stands between the dataclasses and the command line."""

from __future__ import annotations

from dataclasses import replace

from fewlabels.algorithms import ALGORITHMS, FixMatch, MixMatch, ReMixMatch
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
        return _short(_digits(train))
    if name.folder:
        return _short(_own_pictures(train))
    if name.base == "cifar100" and isinstance(train.algorithm, FixMatch):
        # google-research/fixmatch issue 26: --filters=128 and wd 0.001 on CIFAR-100
        return replace(train, net=Net("wrn-28-8"), optim=replace(train.optim, weight_decay=1e-3))
    return train


def _short(train: Train) -> Train:
    """A ramp of 16,384 steps, the papers', would not end within a short training: a quarter of it instead."""
    algorithm = train.algorithm
    if isinstance(algorithm, MixMatch | ReMixMatch):
        return replace(train, algorithm=replace(algorithm, ramp_steps=train.steps // 4))
    return train


def _own_pictures(train: Train) -> Train:
    """Minutes on a GPU, an hour or so on a CPU, for pictures of 32 to 96 pixels."""
    return replace(
        train,
        net=Net("wrn-10-2", bn_momentum=0.01),
        ema=Ema(decay=0.999, warmup=True),
        steps=3000,
        batch=32,
        uratio=min(train.uratio, 4),
        eval_every=250,
        save_every=250,
        log_every=25,
    )


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
