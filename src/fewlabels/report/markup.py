"""HTML from Python: text is escaped, wherever it comes from."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from fewlabels.runtime.streams import visible


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any text as HTML that shows it: what could steer is escaped, as on a terminal, and so is markup."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value), lines=False), quote=True))


def name(value: object) -> Markup:
    """A name of the user's, whose direction of writing touches nothing around it."""
    return tag("bdi", value)


def tag(kind: str, *children: object, **attributes: object) -> Markup:
    """An element; ``class_`` is ``class``, ``data_x`` is ``data-x``, and an attribute that is None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if kind in ("br", "img", "link", "meta"):
        return Markup(f"<{kind}{given}>")
    return Markup(f"<{kind}{given}>{joined(children)}</{kind}>")


_TYPED = re.compile(r"`([^`]*)`|(?<![\w-])(--[a-z][\w.-]*\w)")


def typed(sentence: str) -> Markup:
    """A sentence of ours in which what one types, options and commands in backticks, looks like it."""
    out, end = [], 0
    for match in _TYPED.finditer(sentence):
        option = match[2] is not None
        code = tag("code", match[2] if option else match[1], class_="o" if option else None)
        out += [text(sentence[end : match.start()]), code]
        end = match.end()
    return joined([*out, text(sentence[end:])])


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(text(part) for part in parts))


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], *, left: Sequence[int] = (0,)) -> Markup:
    """A table that scrolls by itself where it is too wide. left: columns that hold no numbers."""

    def cells(kind: str, row: Sequence[object]) -> Markup:
        made = (tag(kind, value, class_="l" if i in left else None) for i, value in enumerate(row))
        return tag("tr", *made)

    body = tag("tbody", *(cells("td", row) for row in rows))
    return tag("div", tag("table", tag("thead", cells("th", heads)), body), class_="wide")


def section(title: str, *children: object) -> Markup:
    return tag("section", tag("h2", title), *children)


def more(title: str, *children: object) -> Markup:
    """What is there when it is asked for."""
    return tag("details", tag("summary", title), *children)
