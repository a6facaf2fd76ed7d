"""The tables of options in docs/coming-from.md, from src/fewlabels/commands/other_projects.tsv.

    python benchmarks/options_table.py

A table stands between the markers ``<!-- options PROJECT -->`` and ``<!-- end options PROJECT -->``.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.tables import Table, markdown
from fewlabels.commands.other_projects import Flag, projects

DOCUMENT = Path(__file__).parents[1] / "docs" / "coming-from.md"
_MARKED = re.compile(r"(<!-- options (.+?) -->\n)(.*?)(<!-- end options \2 -->)", re.S)


def render(text: str) -> str:
    """`text` with the options of each project between its markers. Raises KeyError for a project that there is not."""
    return _MARKED.sub(lambda match: match[1] + table(projects()[match[2]]) + match[4], text)


def table(flags: tuple[Flag, ...]) -> str:
    """Markdown: the option there, what does the same here, and a remark."""
    rows = [(f"`{flag.name}`", f"`{flag.ours}`" if flag.ours else "", flag.remark) for flag in flags]
    return markdown(Table(("option there", "here", ""), rows), left=(0, 1, 2))


def main() -> None:
    DOCUMENT.write_text(render(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
