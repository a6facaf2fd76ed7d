"""A run folder as all ranks see it: that of rank 0, which other machines may not reach."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from pathlib import Path

from fewlabels.runs.folder import SETTINGS, VOTES
from fewlabels.runs.run import Run
from fewlabels.runtime import parallel, regular

READ = (*SETTINGS, VOTES, "metrics.jsonl", "result.json")
"""What the ranks read of a run, beside the checkpoint that they go on from."""


def mirrored(path: Path | str, *, weights: bool = True) -> Path:
    """Where this rank finds what rank 0 has at `path`, a run folder, another one, or nothing; all ranks ask.

    That is `path` where it holds the same, as on one machine; else a copy in a temporary folder, which goes with the
    process.

    weights: whether a copy has the checkpoint to go on from.
    """
    path = Path(path)
    if parallel.world() == 1:
        return path
    there = parallel.on_first(lambda: _marks(path))
    mine = _marks(path)
    if not parallel.agree(int(mine != there)):
        return path
    content = parallel.on_first(lambda: _content(path, weights))
    if mine == there:
        return path
    folder = Path(tempfile.mkdtemp(prefix="fewlabels-rank-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / path.name
    for name, data in content.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    return copy


def _marks(path: Path) -> dict[str, str]:
    """A digest of each file that tells one state of a run from another, by its name in the folder."""
    found: list[Path] = []
    for folder in (path, path / "baseline"):
        found += (folder / name for name in (*SETTINGS, "result.json"))
        found += (folder / "checkpoints").glob("*/meta.json")
    return {str(p.relative_to(path)): hashlib.sha256(regular.read_bytes(p)).hexdigest() for p in found if p.is_file()}


def _content(path: Path, weights: bool) -> dict[str, bytes]:
    """The files of a copy by name, those of a baseline with them. Raises RunError where no checkpoint is good."""
    found = {name: regular.read_bytes(path / name, regular.LARGEST_LOG) for name in READ if (path / name).is_file()}
    if "config.json" in found and (run := Run(path)).states() and weights:
        checkpoint, *_ = run.newest_good()
        found |= {
            str(file.relative_to(path)): file.read_bytes() for file in checkpoint.path.iterdir() if file.is_file()
        }
    if (path / "baseline" / "config.json").is_file():
        found |= {f"baseline/{name}": data for name, data in _content(path / "baseline", weights).items()}
    return found
