"""Tar files as tests write them, by Python's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

Files = Sequence[tuple[str, bytes]]


def write_tar(path: Path, files: Files, *, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(pictures: Mapping[str, bytes], labels: Mapping[str, str]) -> Files:
    """``key.png`` and ``key.cls`` of each picture; without the latter where there is no label."""
    out: list[tuple[str, bytes]] = []
    for key, data in pictures.items():
        out.append((f"{key}.png", data))
        if key in labels:
            out.append((f"{key}.cls", labels[key].encode()))
    return out
