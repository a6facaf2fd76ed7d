"""Decoded pictures on the disk, so that a second start need not decode them again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.source import Images
from fewlabels.runtime.regular import expanded


def folder() -> Path:
    """``fewlabels/decoded`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fewlabels" / "decoded"


def digest(parts: Iterable[object]) -> str:
    """32 hexadecimal digits over the parts' texts (bytes are taken as they are)."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:32]


class Entry:
    """One array with some JSON beside it.

    `place` says what the array is of, `state` which state of it: an entry is found only when both are equal, and
    storing one removes those of other states. Files get their names in one rename when they are complete, so
    that any number of processes may store and read at the same time; an array that is being read stays readable
    when it is removed.
    """

    def __init__(self, place: str, state: str) -> None:
        self.place, self.state = place, state
        self.images = folder() / f"{place}-{state}.npy"
        self.facts = self.images.with_suffix(".json")

    def beside(self, purpose: str) -> Entry:
        """The entry for something else of the same, in the same state."""
        return Entry(digest([self.place, purpose]), self.state)

    def load(self) -> tuple[Images, dict[str, Any]] | None:
        """The array, memory-mapped and read-only, and its facts; None if there is none, or a damaged one."""
        try:
            facts = json.loads(self.facts.read_bytes())
            images: NDArray[Any] = np.load(self.images, mmap_mode="r", allow_pickle=False)
            if images.dtype != np.uint8 or list(images.shape) != facts["shape"]:
                return None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None
        return images, facts

    def store(self, images: Images, facts: dict[str, Any]) -> None:
        """Keep them if that can be done; a cache that cannot be written is none, and no error."""
        with suppress(OSError):
            self.images.parent.mkdir(parents=True, exist_ok=True)
            for path in self.images.parent.glob(f"{self.place}-*"):
                with suppress(OSError):  # another process may just have given it its name
                    writing = path.suffix == ".part" and time.time() - path.stat().st_mtime < 3600
                    if path.stem != self.images.stem and not writing:
                        path.unlink(missing_ok=True)
            write(self.images, images)
            write(self.facts, json.dumps({**facts, "shape": list(images.shape)}).encode())


def write(path: Path, content: Images | bytes) -> None:
    """A file that has its name when it is whole, in a folder that exists. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}.", suffix=".part")
    try:
        with open(handle, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                np.save(file, content, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
