"""Which recipe suits a folder of one's own pictures, by what is there and what it shall run on."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewlabels.config.settings import Data
from fewlabels.data.contents import contents
from fewlabels.data.pictures import Unreadable, header
from fewlabels.data.remote import here
from fewlabels.data.tarset import holds_tars, list_tars
from fewlabels.nets import learned
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.urls import is_url
from fewlabels.runtime.words import about

LOOKED_AT = 48
"""Pictures whose headers are read."""

TINY = 20
"""Pixels of the shorter side, below which there is nothing to see for a net that has learned from photographs."""

SIDES = (224, 160, 128)
"""Sizes of pictures for frozen features, the best first. With smaller ones a net loses more than unlabeled pictures
give: where the time does not suffice for all of these, some are looked at."""

LEAST = 1000
"""Unlabeled pictures that are looked at in any case."""

LOOK, READ = 0.010, 0.005
"""Seconds of one core in which EfficientNet-Lite0 looks at a picture of 128 pixels, and in which one is read."""

PATIENCE = 150.0
"""Seconds of one core for the features, where no time was asked for."""


class Look(NamedTuple):
    """What lies in a folder."""

    pictures: int
    tests: int
    """Those of them in a test part."""
    labels: Mapping[str, int]
    """Labeled pictures of each class."""
    side: int
    """Pixels of the shorter side, the median of some pictures."""
    grey: bool
    """Most of them have no colours."""


class Choice(NamedTuple):
    """A recipe by the name of its algorithm, what is changed in it, and why."""

    algorithm: str
    settings: Mapping[str, Any]
    """By dotted name."""
    reason: str
    better: str | None = None
    """What would be better, and how to get it."""


def look(data: Data) -> Look | None:
    """Read names, and the headers of some pictures, of the folder that `data` names; None where it is no folder of
    pictures. Raises ValueError for one that has not the form of such a folder."""
    parts = [data.labeled, data.unlabeled if data.unlabeled not in ("all", "rest") else None, data.test]
    path = here(data.name, data.shard_cache).path if is_url(data.name) else expanded(data.name)
    if not (path.is_dir() or path.suffix.lower() in (".zip", ".tar")):
        return None
    return _look(path, *parts, data.label_from)


@lru_cache(maxsize=4)
def _look(path: Path, labeled: str | None, unlabeled: str | None, test: str | None, label_from: Any) -> Look:
    parts = [expanded(part) if part else None for part in (labeled, unlabeled, test)]
    if holds_tars(path, parts[0]):
        listing = list_tars(path, labeled=parts[0], unlabeled=parts[1], test=parts[2])
        files = [file for file, _ in listing.train]
        labels = Counter(label for _, label in listing.train if label is not None)
        count, tests = len(files) + len(listing.test), len(listing.test)
    else:
        found = contents(path, labeled=parts[0], unlabeled=parts[1], test=parts[2], label_from=label_from)
        files = [picture.path for picture in found.pictures if picture.part != "test"]
        labels = Counter(p.label for p in found.pictures if p.part == "labeled" and p.label is not None)
        count, tests = len(found.pictures), len(found.pictures) - len(files)
    heads = []
    for file in files[:: max(1, len(files) // LOOKED_AT)]:
        try:
            heads.append(header(file))
        except (Unreadable, OSError):
            continue  # the training says so
    return Look(
        pictures=count,
        tests=tests,
        labels=labels,
        side=int(statistics.median(min(h.height, h.width) for h in heads)) if heads else 0,
        grey=2 * sum(h.grey for h in heads) > len(heads),
    )


def choose(
    there: Look,
    *,
    gpu: bool,
    labels: int | None = None,
    net: str | None = None,
    pretrained: bool | str = False,
    seconds: float | None = None,
    size: int | None = None,
) -> Choice:
    """The recipe for what is there.

    Args:
        labels: how many of the labels count, as `Data.labels`.
        gpu: whether it shall run on one.
        net: the name of the net that was asked for.
        pretrained: the weights that were asked for, as `Net.pretrained`.
        seconds: a time that the training shall end within.
        size: of the pictures, as `Data.image_size`, where it was asked for.
    """
    if there.side < TINY:
        return Choice(
            "fixmatch", {}, f"pictures of {there.side} pixels are too small for a net learned from photographs"
        )
    if not pretrained and learned.at_hand(learned.NETS[0]) is None:
        better = (
            f"a net that has learned from other photographs is mostly far better: {learned.TO_GET}, or "
            "--net.pretrained FILE"
        )
        return Choice("fixmatch", {}, "no learned weights are at hand, so a small net learns from nothing", better)
    given: dict[str, Any] = {"net.name": net} if net else {}
    if pretrained:
        given["net.pretrained"] = pretrained
    known = sum(there.labels.values()) if labels is None else labels
    count = f"{there.pictures:,} pictures, labels of {known:,} in {len(there.labels)} classes"
    if gpu:
        return tuned(given, count)
    sides = (size,) if size else SIDES[:1] if net else SIDES
    must = there.tests + known
    side, most = _looks(there, must, PATIENCE if seconds is None else seconds, sides)
    pictures = there.pictures if most is None else must + most
    settings: dict[str, Any] = {"data.image_size": side, **({} if most is None else {"algorithm.most": most}), **given}
    reason = (
        f"{count}, no GPU, learned weights at hand: features of a net that stays as it is, at {side} pixels, in about "
        f"{about(pictures * _seconds(side))} of one core"
    )
    if most is not None:
        reason += (
            f"; {most:,} of {there.pictures - must:,} unlabeled pictures are looked at (`train frozen` looks at all)"
        )
    odd = "grey pictures may be none that the net's features fit; what is printed about the labels says so"
    return Choice("frozen", settings, reason, odd if there.grey else None)


def tuned(given: Mapping[str, Any], count: str) -> Choice:
    """What is chosen on a GPU: tuning of a learned net, on labeled and unlabeled pictures."""
    settings = {"net.name": f"timm:{learned.SMALLEST}", "data.image_size": 224, **given}
    settings.setdefault("net.pretrained", learned.pretrained(str(settings["net.name"])))
    return Choice("fixmatch", settings, f"{count}, a GPU, learned weights at hand: the learned net is tuned")


def _looks(there: Look, must: int, seconds: float, sides: tuple[int, ...]) -> tuple[int, int | None]:
    """The largest size, at most that of the pictures, whose features are computed in time; and how many unlabeled
    pictures are looked at where the time does not suffice for all of them at the smallest size, else None.

    must: pictures that are looked at in any case, those with labels and for tests.
    """
    fitting = [side for side in sides if side <= max(there.side, sides[-1])]
    for side in fitting:
        if there.pictures * _seconds(side) <= seconds:
            return side, None
    side = fitting[-1]
    most = max(LEAST, int(seconds / _seconds(side)) - must)
    return side, most if most < there.pictures - must else None


def _seconds(side: int) -> float:
    """Of one core, for a picture that is read and looked at."""
    return READ + LOOK * (side / 128) ** 2


def has_gpu(device: str) -> bool:
    """Whether `Train.device` means a GPU here."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
