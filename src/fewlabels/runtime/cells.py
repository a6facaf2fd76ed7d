"""Text in a CSV cell: no formula for a spreadsheet, and back."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def cell(value: object) -> str:
    """The text of a CSV cell: with an apostrophe in front where a spreadsheet would take it for a formula.

    That is before ``= + - @``, a tab or a carriage return, unless it is a number or the sign alone; and before an
    apostrophe, so that taking one away gives the text again.
    """
    text = "" if value is None else str(value)
    plain = text in ("+", "-") or _NUMBER.fullmatch(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "'")) and not plain else text


def uncell(text: str) -> str:
    """What `cell` was given: `text` without the apostrophe that it puts before what may be a formula."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text
