"""Many tiny trainings with one command, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fewlabels.runs.run import Run

TINY = "--data digits@40 --net small-4 --batch 4 --uratio 2 --steps 12 --eval-every 6 --save-every 4 --log-every 3"
OPTIONS = ("train", *TINY.split(), "--no-baseline", "--no-progress")


def table(out: str) -> dict[str, list[str]]:
    """Rows by what stands in front."""
    words = [line.split() for line in out.splitlines()[1:]]
    return {" ".join(w[:2]) if w[0] in ("seed", "fold") else w[0]: w for w in words if w}


def state(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a training determines: weights, and all records but their times."""
    run = Run(path)
    records = [{k: v for k, v in r.items() if not k.endswith("_ms")} for r in run.metrics()]
    return (run.checkpoint().path / "weights.safetensors").read_bytes(), records


def times(root: Path) -> dict[Path, int]:
    """When each file below a folder was changed last."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def undisturbed(command: Callable[..., Any], root: Path, options: Sequence[str]) -> Any:
    """What a sweep into the folder `root` says, its runs being forks; the folder's parent is the working folder."""
    from forked import Forked

    with pytest.MonkeyPatch.context() as own:
        own.setattr("fewlabels.sweep.pool.start", Forked)
        own.chdir(root.parent)
        return command(*options, "--out", root.name)
