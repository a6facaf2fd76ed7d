"""The page about several runs."""

from __future__ import annotations

from collections.abc import Sequence

from fewlabels.report.charts import curves
from fewlabels.report.markup import Markup, joined, name, section, table, tag, typed
from fewlabels.report.page import accuracy_series, doctor, document, tiles
from fewlabels.report.rows import COMPARED, HEADINGS, LEGEND, compares, constants, group_cells, run_cells, word
from fewlabels.report.story import Story, sound
from fewlabels.runs.folder import PAGE
from fewlabels.runs.report import Entry, groups

OWN = "`fewlabels report RUN --html FILE` makes its own page."

DRAWN = 12
"""Runs whose curves are drawn."""

NUMBERS = frozenset((*HEADINGS.values(), "n", "seed", "steps", "labels"))
"""Columns that hold numbers."""


def several(stories: Sequence[Story], baselines: Sequence[Entry] = ()) -> str:
    """The page about some runs, in order, and the entries of baselines that stand in the table only."""
    entries = [*(story.entry for story in stories), *baselines]
    together = groups(entries)
    same = constants(entry.row for entry in entries)
    said = ", ".join(f"{k.replace('_', ' ')} {word(v)}" for k, v in same.items())
    done = [e for e in entries if e.row["accuracy"] is not None]
    best = max(done, key=lambda e: e.row["accuracy"], default=None)
    verdict = f"{len(entries)} runs"
    if best is not None and {"data", "measured_on"} <= same.keys():
        verdict += f"; the best is {best.row['name']} with {best.row['accuracy']:.2f} % (one number of one run)"
    out: list[object] = [tag("h1", "Runs beside each other"), tag("p", verdict, ".", class_="verdict")]
    out.append(
        section(
            "Runs", _table(run_cells(entries), same), tag("p", "The same in all: ", name(said), ".", class_="faint")
        )
    )
    also = compares(entries)
    if together:
        rows = [group_cells(group, also) for group in together]
        words = "Of finished runs that differ in seeds alone: mean ± standard deviation (over n − 1)."
        out.append(section("Mean and deviation", tag("p", words, class_="faint"), _table(rows, same)))
    else:
        why = "No two finished runs differ in nothing but their seeds, so there is no mean and no deviation."
        out.append(section("Mean and deviation", tag("p", why)))
    out.append(section("Accuracy", _curves(stories)))
    legend = [*LEGEND.split("\n"), *([COMPARED] if also else [])]
    out.append(section("The columns", tag("p", joined(part for line in legend for part in (line, tag("br"))))))
    out += [_one(story) for story in stories]
    return document(f"{len(entries)} runs", *out)


def _table(rows: Sequence[dict[str, str]], hidden: object) -> Markup:
    """Rows by heading, without the columns that are the same in all."""
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if c not in hidden]  # type: ignore[operator]
    left = [i for i, c in enumerate(columns) if c not in NUMBERS]
    cells = [[name(row.get(c, "")) for c in columns] for row in rows]
    return table([c.replace("_", " ") for c in columns], cells, left=left)


def _curves(stories: Sequence[Story]) -> Markup:
    shown = [story for story in stories if story.part is not None][:DRAWN]
    if not shown:
        return tag("p", "No run has an evaluation yet.")
    if len({story.part for story in shown}) > 1:
        return tag(
            "p", "The runs are not measured on the same kind of pictures, so their curves are not drawn together."
        )
    every = [accuracy_series(s.evaluations, str(s.part), str(s.entry.row["name"])) for s in shown]
    rest = len(stories) - len(shown)
    note = [tag("p", f"{rest} more runs are not drawn.", class_="faint")] if rest else []
    return joined((tag("div", curves("Accuracy", every, unit="%", whole=True), class_="charts"), *note))


def _one(story: Story) -> Markup:
    file = story.path / PAGE
    where = joined(("Its own page is ", name(file), ".")) if file.is_file() else typed(OWN)
    with sound(story.path):
        about = tag("p", story.verdict()), tiles(story), doctor(story), tag("p", where, class_="faint")
    return section(str(story.entry.row["name"]), *about)
