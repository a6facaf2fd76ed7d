"""The images and the split of a `Data`, and the settings that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fewlabels import nets
from fewlabels.augment import tokens
from fewlabels.config.settings import Data, Train
from fewlabels.data import names, sources
from fewlabels.data.aliases import ALIASES
from fewlabels.data.arrays import ARRAYS
from fewlabels.data.imagenets import FOLDERS
from fewlabels.data.protocol import Options, restrict
from fewlabels.data.source import Source, channel_statistics
from fewlabels.data.split import Split, make_split, read_split, source_in
from fewlabels.runtime.regular import expanded

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation that torchvision's pretrained nets expect."""


def pixel_statistics(config: Train, source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels scaled to [0, 1], that `Data.normalize` means."""
    channels = source.shape[0]
    style, kind = source.style, config.data.normalize
    if kind == "auto" and config.net.pretrained and nets.is_zoo(config.net.name):
        return nets.normalization(config.net.name, channels, config.net.pretrained)
    if kind == "auto":
        kind = "measured" if style.mean is None else "mean-std"
    if kind == "minus-one-one":
        return (0.5,) * channels, (0.5,) * channels
    if kind == "measured":
        return channel_statistics(source.images)
    if kind == "imagenet":
        if channels != 3:
            raise ValueError(f"Data.normalize imagenet needs images of 3 channels, {source.name} has {channels}")
        return IMAGENET
    if style.mean is None or style.std is None:
        raise ValueError(f"Data.normalize mean-std: there are no published numbers for {source.name}; use measured")
    return style.mean, style.std


def resolve_data(data: Data) -> Data:
    """`data` with what its name and its split file say written out. Raises ValueError where they disagree."""
    if data.split is not None and data.name == Data().name:
        data = replace(data, name=source_in(data.split))
    name = names.parse(data.name)
    _check_root(data.root, name)
    alias = ALIASES[name.alias] if name.alias else None
    said: dict[str, Any] = {"labels": name.labels, "seed": name.seed, "valid": name.valid}
    said = {key: value for key, value in said.items() if value is not None} | dict(alias.options if alias else {})
    data = _agree(data, f"the name {data.name}", said)
    if data.split is not None:
        data = _agree(data, f"the split file {data.split}", _said_by_file(data))
    if alias and data.labels is None:
        data = replace(data, labels=alias.head)
    return complete(data)


def _check_root(root: str | None, name: names.DataName) -> None:
    """Raises ValueError for a root that is no folder, or that is not there where nothing is downloaded to it."""
    path = expanded(root or ".")
    if path.exists() and not path.is_dir():
        raise ValueError(f"Data.root {root} is a file; it must be a folder")
    if not path.exists() and (name.folder or name.base in FOLDERS):
        raise ValueError(f"there is no folder {root} (Data.root), and {name} is not downloaded")


def _said_by_file(data: Data) -> dict[str, Any]:
    assert data.split is not None
    if data.unlabeled in ("all", "rest"):
        raise ValueError(f"Data.unlabeled {data.unlabeled} cannot be chosen: the split file {data.split} says it")
    split = read_split(data.split)
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in split.parameters.items()}
    said = {"labels": split.labels, "seed": split.seed, "valid": split.valid, "rule": split.rule}
    return {**said, **Options()._asdict(), **plain}


def _agree(data: Data, who: str, said: dict[str, Any]) -> Data:
    """`data` with what `said` says. Raises ValueError where an option says otherwise."""
    silent = Data()
    for key, value in said.items():
        own = getattr(data, key)
        both = [tuple(map(str, v)) if isinstance(v, tuple) else v for v in (own, value)]
        if own != getattr(silent, key) and both[0] != both[1]:
            raise ValueError(f"{who} says {key} {value}, but Data.{key} is {own}")
    return replace(data, **said)


def complete(data: Data) -> Data:
    """`data` with the defaults that depend on nothing but itself."""
    rule = data.rule or "fixmatch"
    unlabeled = data.unlabeled
    if unlabeled is None and data.split is None:
        unlabeled = "rest" if rule == "realmix" else "all"
    if unlabeled not in (None, "all", "rest") and not names.is_folder(str(unlabeled)):
        raise ValueError(
            f"Data.unlabeled must be 'all', 'rest' or a folder (with a path separator, such as more/), "
            f"got {unlabeled!r}"
        )
    seed = names.DEFAULT_SEED if data.seed is None else data.seed
    valid = 0 if data.valid is None and not names.is_pictures(data.name) else data.valid
    return replace(data, rule=rule, unlabeled=unlabeled, seed=seed, valid=valid)


def options_of(data: Data) -> Options:
    """The options of the split's rule in `data`, besides labels, seed and valid."""
    return Options(**{name: getattr(data, name) for name in Options._fields})


def in_memory(data: Data, source: Source) -> Data:
    """`data` for images that have no name to load them by."""
    if data.split is not None:
        data = _agree(data, f"the split file {data.split}", _said_by_file(data))
    return complete(replace(data, name=source.name, valid=data.valid or 0))


def load_source(
    data: Data, progress: Callable[[int, int], None] | None = None, size: tuple[int, int] | None = None
) -> Source:
    """The images that `data` names, without those it leaves out.

    Args:
        data: resolved or not; which labels are known (`split_of`) does not matter here, but that a number of
            validation images leaves the validation part of a folder unread.
        progress: called as ``progress(done, total)`` while the pictures of a folder are read.
        size: (H, W) of the images in pixels; default: `data.image_size`.

    Raises:
        DataUnavailable: a named data set is not on the disk and cannot be downloaded.
        ValueError: the images were arrays in memory, or a folder, file, class or option is not what it should be.
    """
    if data.name == ARRAYS:
        raise ValueError("the run was made from arrays in memory, which are gone: name other images with --data")
    pool = data.unlabeled if data.unlabeled not in ("all", "rest") else None
    folders = {"root": data.root, "labeled": data.labeled, "unlabeled": pool, "test": data.test}
    source = sources.load(
        names.parse(data.name),
        **{part: expanded(folder) if folder else None for part, folder in folders.items()},
        shard_cache=data.shard_cache,
        image_size=size or data.image_size,
        fit=data.fit,
        bits=data.bits,
        max_pixels=data.max_pixels,
        label_from=data.label_from,
        classes=Path(data.classes) if data.classes else None,
        skip_corrupt=data.skip_corrupt,
        progress=progress,
        validation=data.valid is None,
        stream=data.crop != "none" or {"auto": None, "stream": True}.get(data.residency, False),
    )
    return restrict(source, options_of(data))


def resolve(config: Train, source: Source) -> Train:
    """`config` with every `auto` of the views replaced by what suits the source."""
    style = source.style
    values: dict[str, Any] = {"weak": style.weak, "strong": style.strong, "shift": style.shift}
    if config.data.crop != "none":  # which is the weak view
        values |= {"weak": "x", "shift": 0}
    if config.augment is not None:
        del values["strong"]
        if not tokens.uses_default(config.augment):
            del values["weak"]
    return replace(config, **{k: v for k, v in values.items() if getattr(config, k) in ("auto", None)})


def split_of(data: Data, source: Source) -> Split:
    """The split of `source` by the rule, or from the split file, of resolved `data`. Raises ValueError where it does
    not fit the source."""
    assert data.seed is not None and data.rule is not None
    if data.split is not None:
        split = read_split(data.split)
        split.check_fit(source)
        return split
    kinds: dict[str | None, Literal["all", "rest"]] = {"all": "all", "rest": "rest"}
    return make_split(
        source,
        labels=data.labels,
        seed=data.seed,
        valid=data.valid,
        rule=data.rule,
        unlabeled=kinds.get(data.unlabeled),  # a folder: the rule's default
        options=options_of(data),
    )
