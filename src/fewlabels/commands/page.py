"""fewlabels report --html: a page about runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewlabels.commands.options import UsageError
from fewlabels.commands.tables import left_out
from fewlabels.datatools.layout import check_free, write_new
from fewlabels.report import evidence
from fewlabels.report.story import Story, tell
from fewlabels.report.write import rendered
from fewlabels.runs.report import DamagedRun, read
from fewlabels.runs.run import Run, RunError
from fewlabels.runtime.device import pick_device
from fewlabels.runtime.regular import real
from fewlabels.training.log import bar


def write(paths: Sequence[Path], target: Path) -> int:
    """Write the page about the runs, which are told apart from the baselines in their folders, to a new file."""
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html names a file that ends in .html, got {target.name}")
    check_free(target)
    inside = {real(path / "baseline") for path in paths}
    runs = [path for path in paths if real(path) not in inside]
    others = [path for path in paths if real(path) in inside]
    damaged: list[str] = []
    stories = [story for path in runs if (story := _told(path, damaged, alone=len(runs) == 1)) is not None]
    if not stories:
        raise RunError("; ".join(damaged))
    baselines = []
    for path in others if len(stories) > 1 else ():
        try:
            baselines.append(read(path))
        except DamagedRun as error:
            damaged.append(str(error))
    data = rendered(stories, baselines)
    write_new(target, lambda path: path.write_bytes(data))
    print(f"wrote {target} ({len(data):,} bytes)")
    return left_out(damaged)


def _told(path: Path, damaged: list[str], *, alone: bool) -> Story | None:
    """The story of a run; None where it cannot be read, with a sentence in `damaged`."""
    try:
        story = tell(path)
        return known(story) if alone or story.evidence is not None else story
    except DamagedRun as error:
        damaged.append(str(error))
        return None


def known(story: Story) -> Story:
    """The story with evidence that is gathered now, if the run has left none; or with the reason why there is none."""
    if story.evidence is not None:
        return story
    run = Run(story.path)
    try:
        device = pick_device("auto")
        print(f"{story.path} holds no answers to its pictures, so they are read and asked about", file=sys.stderr)
        with bar("asking the model") as show:
            found: dict[str, Any] | None = evidence.gathered(run, device=device, show=show)
    except (ValueError, OSError) as error:
        return tell(
            story.path, notes=[*story.notes, f"the pictures were not looked at: {' '.join(str(error).split())}"]
        )
    return tell(story.path, found, story.notes)
