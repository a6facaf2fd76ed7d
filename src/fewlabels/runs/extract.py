"""What of a run it takes to classify with it, apart from its folder: in memory, and as a smaller run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fewlabels.runs.folder import EVIDENCE, SETTINGS
from fewlabels.runs.records import NotWritten
from fewlabels.runs.run import Run
from fewlabels.runtime import files, regular

KEPT = (*SETTINGS, "metrics.jsonl", "result.json", EVIDENCE)
"""Files that are taken as they are, those that exist."""


class Extract(NamedTuple):
    """The settings, the records and one checkpoint's weights, without what a training needs to go on."""

    files: Mapping[str, bytes]
    """By name, of `KEPT`."""
    step: int
    weights: Mapping[str, Mapping[str, Tensor]]
    """State dicts of the model: raw and ema."""
    meta: Mapping[str, Any]
    """What meta.json of the checkpoint says besides."""

    @classmethod
    def of(cls, run: Run, step: int) -> Extract:
        """Of the checkpoint of a step. Raises RunError where it is not kept, or damaged."""
        checkpoint = run.checkpoint(str(step))
        meta = {k: v for k, v in checkpoint.meta().items() if k in ("world", "split", "records")}
        found = {name: regular.read_bytes(run.path / name) for name in KEPT if (run.path / name).exists()}
        return cls(found, checkpoint.step, {w: checkpoint.weights(w) for w in ("raw", "ema")}, meta)

    def write(self, path: Path) -> None:
        """Write a run folder, at once or not at all, that can be evaluated, asked and reported, but not resumed.

        Raises RunError where `path` holds something, NotWritten.
        """
        Run.check_free(path, overwrite=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.new_folder(path) as folder:
                for name, data in self.files.items():
                    files.write_bytes(folder / name, data)
                (folder / "checkpoints").mkdir()
                Run(folder).save(self.step, self.weights, {}, self.meta, best=True)
        except OSError as error:
            raise NotWritten(f"cannot write the run folder {path}: {error.strerror or error}") from None
