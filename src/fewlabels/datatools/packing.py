"""Folders of pictures to tar files in WebDataset's form."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fewlabels.data.pictures import PLAIN, About, Decoding
from fewlabels.data.remarks import sentences
from fewlabels.data.source import Progress
from fewlabels.datatools.convert import encoded, ending_of, labeled_classes
from fewlabels.datatools.layout import Layout, Picture, fresh_folder
from fewlabels.runtime.allocator import keep_freed_memory
from fewlabels.runtime.files import write_json

CLASSES = "classes.json"
"""Names of the classes in the order of their numbers, as `--data.classes` takes them."""

PARTS = {"labeled": "labeled", "unlabeled": "unlabeled", "validation": "val", "test": "test"}
"""The folder of each part."""

AHEAD = 64
"""Pictures that are encoded and not written yet, at most."""


def plan(found: Layout, rows: int) -> dict[str, list[tuple[str, int]]]:
    """The tar files that a folder becomes, ``PART/000000.tar`` and so on, each with the keys of its `rows` samples and
    their places among the folder's pictures.

    Each part is in an order of its own, the same every time, in which the classes are mixed: programs that read tar
    files from beginning to end see few pictures together.
    """
    tars: dict[str, list[tuple[str, int]]] = {}
    for part, name in PARTS.items():
        own = [row for row, picture in enumerate(found.pictures) if picture.part == part]
        for key, place in enumerate(np.random.RandomState(0).permutation(len(own))):
            tars.setdefault(f"{name}/{key // rows:06}.tar", []).append((f"{key:08}", own[place]))
    return tars


def write_tars(
    found: Layout, to: Path, rows: int, how: Decoding = PLAIN, progress: Progress | None = None
) -> tuple[str, ...]:
    """Make the folder `to` of what `plan` says, and return what is to be said of the pictures.

    A picture is ``KEY.jpg`` or ``.png`` (`convert.encoded`), the number of its class ``KEY.cls``, and where it comes
    from ``KEY.json``.

    Raises:
        ValueError: `to` exists, labeled pictures lie outside class folders, or one cannot be read (`Unreadable`).
    """
    keep_freed_memory()
    classes = labeled_classes(found)
    abouts: dict[int, About] = {}
    with fresh_folder(to) as folder:
        write_json(folder / CLASSES, list(classes))
        for name, samples in plan(found, rows).items():
            (folder / name).parent.mkdir(exist_ok=True)
            with tarfile.open(folder / name, "w") as tar:
                files = _encoded(found, [row for _, row in samples], how)
                for (key, row), (data, abouts[row]) in zip(samples, files, strict=True):
                    _add_sample(tar, key, found.pictures[row], classes, data)
                    if progress is not None:
                        progress(len(abouts), len(found.pictures))
    return sentences(abouts, [p.within.as_posix() for p in found.pictures], how.bits)


def _encoded(found: Layout, rows: Sequence[int], how: Decoding) -> Iterator[tuple[bytes, About]]:
    """File and remarks of each picture, made on all cores."""

    def make(row: int) -> tuple[bytes, About]:
        about = About()
        return encoded(found.pictures[row].path, how, about), about

    waiting: deque[Future[tuple[bytes, About]]] = deque()
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for row in rows:
            waiting.append(pool.submit(make, row))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _add_sample(tar: tarfile.TarFile, key: str, picture: Picture, classes: Sequence[str], data: bytes) -> None:
    facts = {"path": picture.within.as_posix()}
    _add(tar, f"{key}{ending_of(data)}", data)
    if picture.part != "unlabeled":
        label = str(picture.label)
        _add(tar, f"{key}.cls", str(classes.index(label)).encode())
        facts["class"] = label
    _add(tar, f"{key}.json", json.dumps(facts).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # of no time and nobody, so that the same pictures make the same bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
