"""Making a page of run folders, and writing it into one."""

from __future__ import annotations

from collections.abc import Sequence

from fewlabels.report.page import page
from fewlabels.report.several import several
from fewlabels.report.story import Story, sound, tell
from fewlabels.runs.folder import PAGE
from fewlabels.runs.report import Entry
from fewlabels.runs.run import Run

LARGEST = 3 * 2**20
"""Bytes of a page: one that would have more leaves its pictures out."""


def rendered(stories: Sequence[Story], baselines: Sequence[Entry] = ()) -> bytes:
    """The page about one run or several, the same bytes for the same run folders.

    baselines: entries of the baselines that lie in them.
    """
    if len(stories) > 1:
        return several(stories, baselines).encode()
    (story,) = stories
    with sound(story.path):
        made = page(story).encode()
        return made if len(made) <= LARGEST else page(story, pictures=False).encode()


def outdated(run: Run) -> bool:
    """Whether a finished run lacks its page, or has one from before its result: it was killed in between.

    Raises OSError.
    """
    page = run.path / PAGE
    return not page.exists() or page.stat().st_mtime_ns < (run.path / "result.json").stat().st_mtime_ns


def write_page(run: Run) -> None:
    """Write the page about a run, from what is in its folder, into it. Raises DamagedRun, NotWritten."""
    run.write(PAGE, rendered([tell(run.path)]))
