"""The recipe for a folder of one's own pictures, where the command line leaves it open."""

from __future__ import annotations

import contextlib

from fewlabels import nets
from fewlabels.config.choice import Choice, choose, has_gpu, look
from fewlabels.config.settings import Train
from fewlabels.data.names import is_pictures
from fewlabels.runtime.regular import expanded
from fewlabels.runtime.words import seconds_of

OPEN = frozenset(
    (
        *("--out", "--overwrite", "--seed", "--seeds", "--folds", "--time", "--device", "--dry-run", "--json"),
        *("--baseline", "--no-baseline", "--progress", "--no-progress", "--net", "--net.name", "--net.pretrained"),
        *("--help", "-h"),
    )
)
"""Options that leave open what is trained, beside those of the data."""


def chosen(config: Train, time: str | None, args: list[str]) -> Choice | None:
    """The recipe for a folder of own pictures, where no algorithm is named; None where other options say what is
    trained.

    time: as `--time`.
    """
    given = {a.partition("=")[0].replace("_", "-") for a in args if a.startswith("-") and len(a) > 1}
    named = bool({"--net", "--net.name"} & given)
    learnt = config.net.pretrained if "--net.pretrained" in given else False
    if not is_pictures(config.data.name) or "--data.split" in given:
        return None
    if named and not (learnt and nets.is_zoo(config.net.name)):
        return None
    if isinstance(learnt, str) and expanded(learnt).suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        return None  # a run, whose net it is
    if not all(word in OPEN or word == "--data" or word.startswith("--data.") for word in given):
        return None
    if (there := look(config.data)) is None:
        return None
    seconds = None
    if time is not None:
        with contextlib.suppress(ValueError):  # whoever trains says so
            seconds = seconds_of(time)
    return choose(
        there,
        gpu=has_gpu(config.device),
        labels=config.data.labels,
        net=config.net.name if named else None,
        pretrained=learnt,
        seconds=seconds,
        size=config.data.image_size if "--data.image-size" in given else None,
    )


def said_of(chosen: Choice) -> list[str]:
    """Which recipe was chosen and why; what would be better."""
    first = f"recipe: {chosen.algorithm}; {chosen.reason}"
    return [first, *([chosen.better] if chosen.better else [])]
